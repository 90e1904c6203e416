"""Small networks for CPUs."""

from __future__ import annotations

from torch import nn


def linear(size: int, classes: int) -> nn.Module:
    """A linear layer on flat inputs, with random weights as torch draws them."""
    return nn.Sequential(nn.Flatten(), nn.Linear(size, classes))


def mlp(size: int, hidden: int, classes: int) -> nn.Module:
    """One hidden layer with ReLU."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(size, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, classes)
    )


def cnn(shape: tuple[int, ...], width: int, classes: int) -> nn.Module:
    """Three convolutions of `width`, twice and four times as many channels, each halved in size, and a mean over places.

    Parameters
    ----------
    shape : (channel, height, width)
    width, classes : int
    """
    layers: list[nn.Module] = []
    channels = shape[0]
    side = min(shape[1:])
    for factor in (1, 2, 4):
        layers += [
            nn.Conv2d(channels, width * factor, 3, padding=1, bias=False),
            nn.BatchNorm2d(width * factor),
        ]
        channels = width * factor
        if side >= 2:
            # Before the ReLU, which then has a quarter of the values: the largest stays the largest.
            layers.append(nn.MaxPool2d(2))
            side //= 2
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes)
    )
