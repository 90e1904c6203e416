"""A loader by its name, with the mean and deviation of the channels."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from dmstore.errors import InputError
from dmstore.training.config import TrainingConfig
from dmstore.training.loaders.sources import source_of
from dmstore.training.loaders.tensors import TensorLoader, column_of

if TYPE_CHECKING:
    from dmstore.study.study import Study
    from dmstore.training.loaders.ffcv import FfcvLoader
    from dmstore.training.loaders.torchvision import TorchvisionLoader

# Of ImageNet's training images, as torchvision's weights expect them.
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
# Images that are taken at a time.
_STEP = 4096
# Files that tell mean and deviation of all.
_SAMPLE = 1000


def make_loader(
    config: TrainingConfig, study: Study, device: torch.device
) -> TensorLoader | TorchvisionLoader | FfcvLoader:
    """The loader that a config asks for; image files are where ``DMSTORE_DATA`` says.

    ``auto`` is ``tensors`` where the study holds the images themselves, ``ffcv`` where there is a ``.beton`` file of it
    and ffcv is installed, and ``torchvision`` otherwise.

    Raises
    ------
    InputError
        If the study has not what it needs.
    MissingDependencyError
        If torchvision or ffcv is asked for and not installed.
    """
    column = config.features or "image"
    name = config.loader
    if not config.features and name != "tensors" and (name != "auto" or "file" in study.train):
        return _of_files(config, study, device)
    if not config.features and "file" in study.train:
        msg = f"{study.path}: holds thumbnails of its images, for pages; take the loader torchvision or ffcv (--set loader=torchvision), which read the files"
        raise InputError(msg)
    values = column_of(study, "train", column)
    if config.features:
        if values.ndim != 2:
            msg = f"{study.path}: {column!r} has shape {values.shape}, and features are (example, feature)"
            raise InputError(msg)
        return TensorLoader(study, column, np.zeros(1), np.ones(1), 0, device)
    mean, deviation = channels(values, config.normalize)
    return TensorLoader(study, column, mean, deviation, config.image_size, device)


def _of_files(
    config: TrainingConfig, study: Study, device: torch.device
) -> TorchvisionLoader | FfcvLoader:
    from dmstore.training.loaders import beton
    from dmstore.training.loaders.ffcv import FfcvLoader
    from dmstore.training.loaders.torchvision import TorchvisionLoader, require_torchvision

    name = config.loader
    if name == "auto":
        fast = importlib.util.find_spec("ffcv") is not None and beton.find(study, None).is_file()
        name = "ffcv" if fast else "torchvision"
    if name == "torchvision":
        # Before the files are looked for, which may be on other hosts alone.
        require_torchvision()
    if config.normalize == "data" and "file" in study.train:
        mean, deviation = _of_sample(study)
    else:
        mean, deviation = channels(column_of(study, "train", "image"), config.normalize)
    if name == "ffcv":
        return FfcvLoader(study, mean, deviation, config.image_size, device)
    return TorchvisionLoader(
        study, mean, deviation, config.image_size, device, workers=config.workers
    )


def _of_sample(study: Study) -> tuple[NDArray[Any], NDArray[Any]]:
    """Mean and deviation over some of the image files, each of equal weight; thumbnails have paper around them."""
    source = source_of(study, "train", None)
    places = np.unique(np.linspace(0, len(source) - 1, _SAMPLE).astype(int))
    moments = []
    for place in places:
        pixels = np.asarray(source.image(int(place))).reshape(-1, source.channels) / 255
        moments.append([pixels.mean(axis=0), (pixels**2).mean(axis=0)])
    mean, square = np.mean(moments, axis=0)
    return mean, np.sqrt(np.maximum(square - mean**2, 1e-6))


def channels(images: NDArray[np.uint8], normalize: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """Mean and deviation of each channel of pixels from 0 to 1, as `normalize` says: (channel,) float64 each."""
    count = images.shape[3] if images.ndim == 4 else 1
    if normalize == "half":
        return np.full(count, 0.5), np.full(count, 0.5)
    if normalize == "imagenet" and count == 3:
        return np.array(_IMAGENET[0]), np.array(_IMAGENET[1])
    total, square = np.zeros(count), np.zeros(count)
    for start in range(0, len(images), _STEP):
        part = images[start : start + _STEP].reshape(-1, count) / 255
        total += part.sum(axis=0)
        square += (part**2).sum(axis=0)
    pixels = images.size // count
    mean = total / pixels
    return mean, np.sqrt(np.maximum(square / pixels - mean**2, 1e-6))
