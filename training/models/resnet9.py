"""ResNet-9 of Kakao Brain's entry to DAWNBench, the network of the CIFAR-10 study (paper B.2)."""

from __future__ import annotations

import torch
from torch import nn

from dmstore.errors import InputError


class Residual(nn.Module):
    """Adds what a part says to what it was given."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(example, channel, height, width), the same shape."""
        made: torch.Tensor = x + self.part(x)
        return made


class Scale(nn.Module):
    """Multiplies logits by a constant."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Any shape."""
        return x * self.factor


def block(
    inputs: int, outputs: int, *, kernel: int = 3, stride: int = 1, padding: int = 1
) -> nn.Sequential:
    """Convolution, batch norm, ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=padding, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


def resnet9(shape: tuple[int, ...], width: int, classes: int) -> nn.Module:
    """The network; 2.27 million parameters at width 64 and 10 classes.

    Parameters
    ----------
    shape : (channel, height, width)
    width : int
        Channels of the first convolution.
    classes : int

    Raises
    ------
    InputError
        If images are smaller than 12 px.
    """
    if min(shape[1:]) < 12:
        msg = f"model resnet9 takes images of at least 12 px, and these are {shape[1]} x {shape[2]}"
        raise InputError(msg)
    return nn.Sequential(
        block(shape[0], width),
        block(width, 2 * width, kernel=5, stride=2, padding=2),
        Residual(nn.Sequential(block(2 * width, 2 * width), block(2 * width, 2 * width))),
        block(2 * width, 4 * width),
        nn.MaxPool2d(2),
        Residual(nn.Sequential(block(4 * width, 4 * width), block(4 * width, 4 * width))),
        block(4 * width, 2 * width, padding=0),
        nn.AdaptiveMaxPool2d(1),
        nn.Flatten(),
        nn.Linear(2 * width, classes, bias=False),
        Scale(0.2),
    )
