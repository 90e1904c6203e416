"""All images of a study as one tensor on the device: the fastest where they are small."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from dmstore.errors import InputError
from dmstore.training.augmentation import Augmentation, augmented, flipped
from dmstore.training.loaders.draws import epoch_seed, mirrors

if TYPE_CHECKING:
    from dmstore.study.study import Study


class TensorLoader:
    """Images that the study itself has, or features. See :class:`dmstore.training.loaders.loader.Loader`.

    Parameters
    ----------
    study : Study
    column : str
        ``image``, or an annotation of features, (example, feature) float.
    mean, deviation : (channel,) float
        Of pixels from 0 to 1; features are taken as they are.
    image_size : int
        Side in px to resize to; 0 leaves images as they are.
    device : torch.device

    Raises
    ------
    InputError
        If the study has no such column.
    """

    name = "tensors"
    reproducible = True

    def __init__(
        self,
        study: Study,
        column: str,
        mean: NDArray[Any],
        deviation: NDArray[Any],
        image_size: int,
        device: torch.device,
    ) -> None:
        self._study, self._column, self._size = study, column, image_size
        self._mean, self._deviation = mean, deviation
        self._device = device
        self._kept: dict[str, torch.Tensor] = {}
        self._train = self._part("train")
        self._flat = self._train.dim() == 2
        self.shape = tuple(self._train.shape[1:])
        self.count = len(self._train)

    def _part(self, part: str) -> torch.Tensor:
        """All inputs of a set on the device: images (example, channel, height, width) uint8, features float32."""
        if part not in self._kept:
            self._kept[part] = self._stored(column_of(self._study, part, self._column))
        return self._kept[part]

    def _stored(self, values: NDArray[Any]) -> torch.Tensor:
        if values.ndim == 2:
            return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32)).to(self._device)
        return pixels(values, self._size, self._device)

    def _ready(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs if self._flat else normalized(inputs, self._mean, self._deviation)

    def _at(self, place: torch.Tensor) -> torch.Tensor:
        # Rows of features are copied whole this way, several times as fast on a CPU; images keep their layout the other way.
        return self._train.index_select(0, place) if self._flat else self._train[place]

    def inputs(self, images: NDArray[np.uint8]) -> torch.Tensor:
        """See :class:`dmstore.training.loaders.loader.Loader`."""
        return self._ready(self._stored(images))

    def seen(self, positions: NDArray[np.int64]) -> torch.Tensor:
        """See :class:`dmstore.training.loaders.loader.Loader`."""
        return self._ready(self._at(torch.from_numpy(positions).to(self._device)))

    def features(self, kind: torch.dtype) -> torch.Tensor:
        """Features of all train units in a precision: (train, feature)."""
        return self._train.to(kind)

    def epoch(
        self,
        batches: Sequence[NDArray[np.int64]],
        augmentation: Augmentation,
        seed: int,
        number: int = 0,
    ) -> Iterator[torch.Tensor]:
        """See :class:`dmstore.training.loaders.loader.Loader`."""
        generator = torch.Generator().manual_seed(epoch_seed(seed, number))
        mirrored = mirrors(augmentation, seed, number, len(self._train))
        for batch in batches:
            images = self._ready(self._at(torch.from_numpy(batch).to(self._device)))
            if self._flat:
                yield images
                continue
            images = augmented(images, augmentation, generator)
            if mirrored is not None:
                images = flipped(images, torch.from_numpy(mirrored[batch]))
            yield images

    def evaluate(self, part: str, batch_size: int) -> Iterator[torch.Tensor]:
        """See :class:`dmstore.training.loaders.loader.Loader`."""
        images = self._part(part)
        for start in range(0, len(images), batch_size):
            yield self._ready(images[start : start + batch_size])


def column_of(study: Study, part: str, column: str) -> NDArray[Any]:
    """A column of the train units or of a target set.

    Raises
    ------
    InputError
        If the set has no such column.
    """
    data = study.train if part == "train" else study.target_set(part)
    if column not in data:
        whose = "train units" if part == "train" else f"targets of {part!r}"
        there = ", ".join(sorted(map(str, data.data_vars)))
        remedy = (
            "make the study with images, or train on features (--set features=NAME)"
            if column == "image"
            else f"'dmstore features --name {column}' computes features, 'dmstore annotate' adds other columns"
        )
        msg = f"{study.path}: the {whose} have no {column!r} (they have {there}); {remedy}"
        raise InputError(msg)
    return np.asarray(data[column].values)


def pixels(images: NDArray[np.uint8], size: int, device: torch.device) -> torch.Tensor:
    """Images as torch has them, (example, channel, height, width) uint8, resized where `size` px are asked."""
    values = torch.from_numpy(np.ascontiguousarray(images)).to(device)
    values = (values[..., None] if values.dim() == 3 else values).permute(0, 3, 1, 2)
    if size and tuple(values.shape[2:]) != (size, size):
        parts = [
            torch.nn.functional.interpolate(
                part.float(), (size, size), mode="bilinear", antialias=True, align_corners=False
            )
            for part in values.split(1024)
        ]
        values = torch.cat([part.round_().clamp_(0, 255).to(torch.uint8) for part in parts])
    return values.contiguous(memory_format=torch.channels_last)


def normalized(images: torch.Tensor, mean: NDArray[Any], deviation: NDArray[Any]) -> torch.Tensor:
    """Pixels less the mean of their channel, over its deviation.

    Parameters
    ----------
    images : (example, channel, height, width) uint8
    mean, deviation : (channel,) float
        Of pixels from 0 to 1.

    Returns
    -------
    (example, channel, height, width) float32
    """
    middle, scale = (
        torch.as_tensor(255 * one, dtype=torch.float32, device=images.device)[None, :, None, None]
        for one in (mean, deviation)
    )
    return images.float().sub_(middle).div_(scale)
