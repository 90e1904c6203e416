"""What a machine with a GPU runs in ten minutes: ``python -m benchmarks.gpu [--tiny] [--device cuda] [--data cifar10.npz]``.

Not run on a GPU yet; ``--tiny`` runs all of it on a CPU in seconds, so that it is known to work.

The roofline on paper, for one A100 (312 TFLOP/s in bf16, 1.5 TB/s):

- ``cifar10-fast``: about 0.7 GFLOP forward an image, so 2 GFLOP a step; 50,000 images x 10 epochs are 1e15 FLOP. At
  40 % of the peak 8 s; batch norms and activations move some 10 MB an image in bf16: 5 TB, 3.4 s. Records of such nets
  (airbench94) are 2.6 to 3.8 s on one A100. Half of the data, as a run of a study sees: half of that.
- ResNet-9 at width 64: 0.29 GMAC forward, 1.7 GFLOP a step; 25,000 images x 24 epochs are 1e15 FLOP, 8 s: 450 models an hour.
- Linear heads on 1,280 features: 1,000 rows x 10 epochs are .5 GFLOP a model and 51 MB of gathered rows: bound by
  memory at 30,000 models a second; in practice by launches, some 40 a step of .1 s for 1,000 models: 10,000 models a minute.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import dmstore
from benchmarks.training import TARGETS, TRAIN, make_study
from dmstore.study.algorithm import Run
from dmstore.training import recipe
from dmstore.training.config import TrainingConfig
from dmstore.training.tasks.recipe import RecipeTask


def study_of(folder: Path, data: str | None, *, tiny: bool) -> tuple[dmstore.Study, int]:
    """CIFAR-10 from an .npz as ``dmstore init`` takes, or random images of its size; and its number of train units."""
    if data:
        made = dmstore.create_study(folder, data, seed=1)
        return made, len(made.ids("train"))
    count = 64 if tiny else 50_000
    draw = np.random.default_rng(0)
    given: dict[str, Any] = {}
    for name, size in (("train", count), ("target", count // 5)):
        given[f"{name}_label"] = np.arange(size) % 10
        given[f"{name}_image"] = draw.integers(0, 255, (size, 32, 32, 3), dtype=np.uint8)
    return dmstore.create_study(folder, given, seed=1), count


def timed(study: dmstore.Study, values: dict[str, Any], mask: Any, models: int, device: str) -> Any:
    """Seconds and accuracy of models after one that warms up, and the peak of the device's memory."""
    import torch

    task = RecipeTask(study, TrainingConfig.of(values), ["margin"], device)
    runs = [Run(i, mask, i, i, 0) for i in range(max(models, 1))]
    task.train(runs[:1])
    cuda = task.device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    made = task.train(runs)
    seconds = time.perf_counter() - start
    return {
        "seconds_a_model": seconds / len(runs),
        "an_hour": 3600 * len(runs) / seconds,
        "at_once": task.batch,
        "accuracy": float(made["accuracy"].mean()),
        "memory_gb": torch.cuda.max_memory_allocated() / 1e9 if cuda else 0.0,
    }


def run(*, tiny: bool, device: str, data: str | None) -> dict[str, Any]:
    """All figures, by recipe."""
    found: dict[str, Any] = {}
    less = {"epochs": 1, "peak_epoch": 0.5, "batch_size": 16, "width": 4} if tiny else {}
    with tempfile.TemporaryDirectory(prefix="dmstore-gpu-") as given:
        study, count = study_of(Path(given) / "cifar.dm", data, tiny=tiny)
        whole, half = np.ones(count, dtype=bool), np.arange(count) % 2 == 0
        fast = recipe.resolve("cifar10-fast", less)
        found["cifar10-fast on all data"] = timed(study, fast, whole, 1, device)
        for one in recipe.recipes():
            if one.config.dataset == "cifar10":
                # One epoch is measured, and what it costs taken times the recipe's.
                values = recipe.resolve(one.name, {**less, "epochs": 1, "peak_epoch": 0.5})
                made = timed(study, values, half, 1, device)
                made["models_an_hour"] = made["an_hour"] / one.config.epochs
                found[one.name] = made
        for name, values, models in (
            ("small-cnn", {"epochs": 1 if tiny else 15}, 4 if tiny else 64),
            ("mlp", {"epochs": 1 if tiny else 15}, 4 if tiny else 256),
        ):
            some = np.arange(count) < 1000
            found[name] = timed(study, recipe.resolve(name, values), some, models, device)
        heads = make_study(Path(given) / "heads.dm", 0, 1280)
        assert TARGETS
        every = np.ones(TRAIN, dtype=bool)
        found["linear-head"] = timed(
            heads, recipe.resolve("linear-head"), every, 4 if tiny else 4096, device
        )
    return found


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--data", help="an .npz of CIFAR-10; random images without it")
    given = parser.parse_args()
    print(json.dumps(run(tiny=given.tiny, device=given.device, data=given.data), indent=1))


if __name__ == "__main__":
    main()
