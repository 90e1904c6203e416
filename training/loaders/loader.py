"""What a loader is: batches of images for training and for evaluation, on the device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

    from dmstore.training.augmentation import Augmentation


class Loader(Protocol):
    """Gives batches of images, normalised, (example, channel, height, width) float32 on the device.

    Attributes
    ----------
    name : str
        As ``--set loader=`` has it.
    reproducible : bool
        Whether augmentation follows the seed.
    shape : tuple of int
        Of one input.
    """

    name: str
    reproducible: bool
    shape: tuple[int, ...]

    def epoch(
        self,
        batches: Sequence[NDArray[np.int64]],
        augmentation: Augmentation,
        seed: int,
        number: int = 0,
    ) -> Iterator[torch.Tensor]:
        """Images of each batch of positions of train units, augmented by the seed; `number` is the epoch's."""

    def evaluate(self, part: str, batch_size: int) -> Iterator[torch.Tensor]:
        """Images of ``train``, ``test`` or another target set in their order, as they are."""

    def seen(self, positions: NDArray[np.int64]) -> torch.Tensor:
        """Some train units, as they are."""

    def inputs(self, images: NDArray[np.uint8]) -> torch.Tensor:
        """Images from elsewhere as a network takes them: (example, height, width[, channel]) uint8."""
