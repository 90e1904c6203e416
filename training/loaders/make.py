"""A loader by its name, with the mean and deviation of the channels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from dmstore.errors import InputError
from dmstore.training.config import TrainingConfig
from dmstore.training.loaders.tensors import TensorLoader, column_of

if TYPE_CHECKING:
    from dmstore.study.study import Study

# Of ImageNet's training images, as torchvision's weights expect them.
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
# Images that are taken at a time.
_STEP = 4096


def make_loader(config: TrainingConfig, study: Study, device: torch.device) -> TensorLoader:
    """The loader that a config asks for.

    Raises
    ------
    InputError
        If the study has not what it needs.
    """
    column = config.features or "image"
    values = column_of(study, "train", column)
    if config.features:
        if values.ndim != 2:
            msg = f"{study.path}: {column!r} has shape {values.shape}, and features are (example, feature)"
            raise InputError(msg)
        return TensorLoader(study, column, np.zeros(1), np.ones(1), 0, device)
    mean, deviation = channels(values, config.normalize)
    return TensorLoader(study, column, mean, deviation, config.image_size, device)


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
