"""What loaders of image files have in common: all their images have one side in px."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dmstore.training.loaders.tensors import normalized, pixels

if TYPE_CHECKING:
    import torch


class FileLoader:
    """Images as a network takes them.

    Parameters
    ----------
    side : tuple of int
        Height and width in px.
    mean, deviation : (channel,) float
        Of pixels from 0 to 1.
    device : torch.device
    """

    def __init__(
        self,
        side: tuple[int, int],
        mean: NDArray[Any],
        deviation: NDArray[Any],
        device: torch.device,
    ) -> None:
        self._side, self._device = side, device
        self._mean, self._deviation = mean, deviation

    def inputs(self, images: NDArray[np.uint8]) -> torch.Tensor:
        """See :class:`dmstore.training.loaders.loader.Loader`."""
        height, width = self._side
        return self._normalized(pixels(images, height if height == width else 0, self._device))

    def _normalized(self, images: torch.Tensor) -> torch.Tensor:
        return normalized(images, self._mean, self._deviation)
