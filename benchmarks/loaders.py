"""Images a second that loaders give, normalised and augmented, in one process: small images and JPEG files.

The peer is ffcv's own random crop, which has no seed. Needs torchvision and ffcv.
"""

from __future__ import annotations

import io
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dmstore.study.creation import create_study
from dmstore.study.study import Study
from dmstore.training.augmentation import Augmentation
from dmstore.training.datasets import make_study
from dmstore.training.loaders import beton
from dmstore.training.loaders.ffcv import FfcvLoader
from dmstore.training.loaders.tensors import TensorLoader
from dmstore.training.loaders.torchvision import TorchvisionLoader

SMALL, LARGE, BATCH = 20_000, 1_000, 500
MEAN, DEVIATION = np.full(3, 0.5), np.full(3, 0.25)
CPU = torch.device("cpu")
NONE = Augmentation()
SHIFTED = Augmentation(crop="pad", padding=4, flip="random")
CROPPED = Augmentation(crop="resized", flip="random")


def _small(folder: Path) -> Study:
    draw = np.random.default_rng(0)
    image = draw.integers(0, 256, (SMALL, 32, 32, 3)).astype(np.uint8)
    label = np.zeros(SMALL, dtype=int)
    arrays = {"train_image": image, "train_label": label}
    return create_study(
        folder / "small.dm", arrays | {"target_image": image[:9], "target_label": label[:9]}
    )


def _large(folder: Path) -> Study:
    """JPEG files of 256 px on the shorter side, as rough as photos are."""
    from PIL import Image

    draw = np.random.default_rng(0)
    for number in range(LARGE):
        rough = Image.fromarray(draw.integers(0, 256, (40, 48, 3)).astype(np.uint8))
        buffer = io.BytesIO()
        rough.resize((307, 256), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
        for part in ("train", "test") if number < 9 else ("train",):
            path = folder / "files" / part / "one" / f"{number:05d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(buffer.getvalue())
    return make_study(folder / "large.dm", "imagefolder", folder / "files")[0]


def _rate(epoch: Callable[[int], Any], count: int) -> float:
    """The better of two epochs after one that compiles and starts workers."""
    best = 0.0
    for number in range(3):
        start = time.perf_counter()
        seen = sum(len(images) for images in epoch(number))
        assert seen == count
        if number:
            best = max(best, count / (time.perf_counter() - start))
    return best


def _peer(path: Path, side: int, threads: int) -> Callable[[int], Any]:
    from ffcv.fields.rgb_image import RandomResizedCropRGBImageDecoder
    from ffcv.loader import Loader, OrderOption
    from ffcv.transforms import RandomHorizontalFlip, ToTensor

    steps = [RandomResizedCropRGBImageDecoder((side, side)), RandomHorizontalFlip(), ToTensor()]
    loader = Loader(
        str(path),
        batch_size=BATCH // 10,
        num_workers=threads,
        order=OrderOption.RANDOM,
        drop_last=False,
        seed=0,
        indices=np.arange(LARGE),
        pipelines={"image": steps, "key": None},
    )

    def epoch(_: int) -> Any:
        for (images,) in loader:
            # Normalised as ours are.
            yield images.permute(0, 3, 1, 2).float().sub_(127.5).div_(63.75)

    return epoch


def run() -> dict[str, float]:
    made: dict[str, float] = {}
    threads = torch.get_num_threads()
    draw = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        study = _small(folder)
        beton.write(study, folder / "small.beton")
        loaders: dict[str, Any] = {
            "tensors": TensorLoader(study, "image", MEAN, DEVIATION, 0, CPU),
            "torchvision, 0 workers": TorchvisionLoader(study, MEAN, DEVIATION, 0, CPU, workers=0),
            "torchvision, 2 workers": TorchvisionLoader(study, MEAN, DEVIATION, 0, CPU, workers=2),
            "ffcv": FfcvLoader(study, MEAN, DEVIATION, 0, CPU),
        }
        for kind, augmentation in (("as they are", NONE), ("shifted, mirrored", SHIFTED)):
            for loader, one in loaders.items():
                batches = np.split(draw.permutation(SMALL), SMALL // BATCH)
                made[f"32 px, {kind}, {loader}"] = _rate(
                    partial(one.epoch, batches, augmentation, 0), SMALL
                )
        study = _large(folder)
        files = folder / "files"
        start = time.perf_counter()
        beton.write(study, folder / "large.beton", data=files)
        made["JPEG, writing the .beton"] = (LARGE + 9) / (time.perf_counter() - start)
        loaders = {
            f"torchvision, {count} workers": TorchvisionLoader(
                study, MEAN, DEVIATION, 224, CPU, data=files, workers=count
            )
            for count in (0, 2)
        }
        loaders["ffcv"] = FfcvLoader(study, MEAN, DEVIATION, 224, CPU)
        batches = np.split(draw.permutation(LARGE), 10 * LARGE // BATCH)
        for kind, augmentation in (("the middle", NONE), ("random crops, mirrored", CROPPED)):
            for loader, one in loaders.items():
                made[f"JPEG to 224 px, {kind}, {loader}"] = _rate(
                    partial(one.epoch, batches, augmentation, 0), LARGE
                )
        peer = _peer(folder / "large.beton", 224, threads)
        made["JPEG to 224 px, random crops, mirrored, ffcv's own (no seed)"] = _rate(peer, LARGE)
        torch.set_num_threads(threads)
    return {f"{name}, images/s": round(rate) for name, rate in made.items()}
