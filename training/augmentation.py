"""Random crops and flips of a batch of images that are on the device, in a few vectorised steps (paper B.2)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from dmstore.training.config import TrainingConfig


@dataclass(frozen=True)
class Augmentation:
    """What is done to training images.

    Attributes
    ----------
    crop : str
        ``none``, ``pad`` or ``resized``.
    padding : int
        px on each side, zeros, for ``pad``.
    scale, ratio : pair of float
        Share of the area and width over height, for ``resized``.
    flip : str
        ``none``, ``random`` or ``alternating``.
    """

    crop: str = "none"
    padding: int = 4
    scale: tuple[float, ...] = (0.08, 1.0)
    ratio: tuple[float, ...] = (3 / 4, 4 / 3)
    flip: str = "none"

    @classmethod
    def of(cls, config: TrainingConfig) -> Augmentation:
        """That of a config."""
        return cls(
            config.crop, config.crop_padding, config.crop_scale, config.crop_ratio, config.flip
        )


def augmented(
    images: torch.Tensor, augmentation: Augmentation, generator: torch.Generator
) -> torch.Tensor:
    """A batch with random crops, and with random flips unless these alternate.

    Parameters
    ----------
    images : (example, channel, height, width) float
        Normalised, so that zeros pad with the mean.
    augmentation : Augmentation
    generator : torch.Generator
        On the CPU: what is drawn is the same on every device.

    Returns
    -------
    (example, channel, height, width) float
    """
    return applied(
        images, augmentation, drawn(len(images), tuple(images.shape[1:]), augmentation, generator)
    )


def drawn(
    count: int,
    shape: tuple[int, ...],
    augmentation: Augmentation,
    generator: torch.Generator,
    rows: int | None = None,
) -> list[torch.Tensor]:
    """What is drawn for a batch: shifts or areas, then flips, as far as there are such.

    Parameters
    ----------
    count : int
    shape : (channel, height, width)
    augmentation : Augmentation
    generator : torch.Generator
    rows : int, optional
        Fill up to so many, by repeating the last.

    Returns
    -------
    list of (example, ...) tensor
        On the CPU.
    """
    import torch

    made = []
    if augmentation.crop == "pad" and augmentation.padding:
        made.append(
            torch.randint(0, 2 * augmentation.padding + 1, (2, count), generator=generator).T
        )
    elif augmentation.crop == "resized":
        made.append(areas(count, shape[1], shape[2], augmentation, generator))
    if augmentation.flip == "random":
        made.append(torch.rand(count, generator=generator) < 0.5)
    if rows is None or rows == count:
        return made
    return [torch.cat([one, one[-1:].expand(rows - count, *one.shape[1:])]) for one in made]


def applied(
    images: torch.Tensor, augmentation: Augmentation, draws: Sequence[torch.Tensor]
) -> torch.Tensor:
    """A batch, changed as :func:`drawn` says."""
    left = list(draws)
    if augmentation.crop == "pad" and augmentation.padding:
        images = _padded_crop(images, augmentation.padding, left.pop(0))
    elif augmentation.crop == "resized":
        images = _resized_crop(images, left.pop(0))
    if augmentation.flip == "random":
        images = flipped(images, left.pop(0))
    return images


def flipped(images: torch.Tensor, which: torch.Tensor) -> torch.Tensor:
    """Mirror some of a batch.

    Parameters
    ----------
    images : (example, channel, height, width)
    which : (example,) bool
    """
    import torch

    return torch.where(which.to(images.device)[:, None, None, None], images.flip(3), images)


def _padded_crop(images: torch.Tensor, padding: int, shift: torch.Tensor) -> torch.Tensor:
    import torch
    from torch.nn import functional

    height, width = images.shape[2:]
    padded = functional.pad(images, (padding,) * 4)
    row, column = shift.to(images.device).T
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)
    return windows[torch.arange(len(images), device=images.device), :, row, column]


def areas(
    count: int, height: int, width: int, augmentation: Augmentation, generator: torch.Generator
) -> torch.Tensor:
    """Random areas of images, as torchvision's RandomResizedCrop draws them, with one try in the place of ten.

    Returns
    -------
    (count, 4) float64
        Top, left, height and width in px, within the image.
    """
    import torch

    low, high = augmentation.scale
    area = (
        height
        * width
        * (low + (high - low) * torch.rand(count, generator=generator, dtype=torch.float64))
    )
    ends = [math.log(end) for end in augmentation.ratio]
    ratio = torch.exp(
        ends[0] + (ends[1] - ends[0]) * torch.rand(count, generator=generator, dtype=torch.float64)
    )
    wide = torch.sqrt(area * ratio).clamp(1, width)
    tall = (area / wide).clamp(1, height)
    wide = (area / tall).clamp(1, width)
    place = torch.rand(2, count, generator=generator, dtype=torch.float64)
    return torch.stack([place[0] * (height - tall), place[1] * (width - wide), tall, wide], dim=1)


def _resized_crop(images: torch.Tensor, area: torch.Tensor) -> torch.Tensor:
    import torch
    from torch.nn import functional

    count, _, height, width = images.shape
    top, left, tall, wide = area.T
    theta = torch.zeros(count, 2, 3, dtype=torch.float64)
    theta[:, 0, 0], theta[:, 1, 1] = wide / width, tall / height
    theta[:, 0, 2] = (2 * left + wide) / width - 1
    theta[:, 1, 2] = (2 * top + tall) / height - 1
    grid = functional.affine_grid(
        theta.to(images.device, images.dtype), list(images.shape), align_corners=False
    )
    return functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
