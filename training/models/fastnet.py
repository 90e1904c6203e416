"""A network for few epochs on small photos: whitened patches first, then three groups of two convolutions (after Jordan, 2024)."""

from __future__ import annotations

import torch
from torch import nn

from dmstore.errors import InputError

_PATCH = 2
# Added to the variances of patches before they are divided by.
_FLOOR = 5e-4
# What logits are multiplied by.
_SCALE = 1 / 9


class Group(nn.Module):
    """Two convolutions, the size halved between them."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = _convolution(inputs, outputs)
        self.pool = nn.MaxPool2d(2)
        self.norm1 = nn.BatchNorm2d(outputs, momentum=0.4)
        self.second = _convolution(outputs, outputs)
        self.norm2 = nn.BatchNorm2d(outputs, momentum=0.4)
        self.act = nn.GELU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(example, channel, height, width), halved in height and width."""
        x = self.act(self.norm1(self.pool(self.first(x))))
        made: torch.Tensor = self.act(self.norm2(self.second(x)))
        return made


def _convolution(inputs: int, outputs: int) -> nn.Conv2d:
    made = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    # The first channels pass on what they are given.
    share = min(inputs, outputs)
    nn.init.dirac_(made.weight.data[:share, :share])
    return made


class FastNet(nn.Module):
    """The network. Call :meth:`whiten` with training images before the first step.

    Parameters
    ----------
    shape : (channel, height, width)
    width : int
        Channels of the first group; the others have four times as many.
    classes : int

    Raises
    ------
    InputError
        If images are smaller than 9 px.
    """

    def __init__(self, shape: tuple[int, ...], width: int, classes: int) -> None:
        super().__init__()
        if min(shape[1:]) < 9:
            msg = f"model fastnet takes images of at least 9 px, and these are {shape[1]} x {shape[2]}"
            raise InputError(msg)
        patches = 2 * shape[0] * _PATCH**2
        self.patches = nn.Conv2d(shape[0], patches, _PATCH, bias=True)
        self.patches.weight.requires_grad_(requires_grad=False)
        self.act = nn.GELU()
        self.groups = nn.Sequential(
            Group(patches, width), Group(width, 4 * width), Group(4 * width, 4 * width)
        )
        self.pool = nn.AdaptiveMaxPool2d(1)
        self.head = nn.Linear(4 * width, classes, bias=False)

    def whiten(self, images: torch.Tensor) -> None:
        """Set the first layer to the directions of the images' patches, each over its deviation, and to their negatives.

        Parameters
        ----------
        images : (example, channel, height, width) float32
        """
        size = _PATCH
        rows = images.float().unfold(2, size, 1).unfold(3, size, 1)
        rows = rows.permute(0, 2, 3, 1, 4, 5).reshape(-1, images.shape[1] * size**2).double()
        value, vector = torch.linalg.eigh(rows.T @ rows / len(rows))
        # A direction has two signs; take the one whose largest number is positive, on every machine.
        vector = vector * vector.gather(0, vector.abs().argmax(dim=0, keepdim=True)).sign()
        made = (vector / (value + _FLOOR).sqrt()).T.flip(0).reshape(-1, images.shape[1], size, size)
        self.patches.weight.data.copy_(torch.cat([made, -made]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(example, channel, height, width) to (example, class)."""
        x = self.groups(self.act(self.patches(x)))
        made: torch.Tensor = self.head(self.pool(x).flatten(1)) * _SCALE
        return made
