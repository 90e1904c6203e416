"""Convolutions that skip columns, where bfloat16 on a CPU goes wrong."""

from __future__ import annotations

import torch
from torch import nn

# With oneDNN 3.12 (torch 2.14.1) a bfloat16 convolution of stride 2 or more whose output is one column wide reads
# memory that nothing was written to, on CPUs with AMX and with AVX-512 BF16 alone: the gradient of the weights, and on
# several rows the output too, is garbage or NaN, another one each time (pytorch issue 169688). The smallest that shows it:
#     x, w = torch.ones(5, 16, 1, 1).bfloat16(), torch.ones(16, 16, 3, 3).bfloat16().requires_grad_()
#     [torch.full((n,), float("nan")) for n in (64, 1000, 5000, 20000, 100000)]
#     torch.nn.functional.conv2d(x, w, stride=2, padding=1).sum().backward()
# w.grad should be 5 in the middle of every kernel and 0 beside it.


class StridedConv2d(nn.Conv2d):
    """A convolution that is computed in the type of its weights where its output is one column wide and the device is a CPU.

    Images of up to 32 px are that small in the last part of a ResNet.
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """(example, channel, height, width), as :class:`torch.nn.Conv2d`."""
        if input.device.type != "cpu" or not self._one_column(input.shape[3]):
            return super().forward(input)
        with torch.autocast("cpu", enabled=False):
            return super().forward(input.to(self.weight.dtype))

    def _one_column(self, width: int) -> bool:
        padding = self.padding[1]
        assert isinstance(padding, int)
        reach = self.dilation[1] * (self.kernel_size[1] - 1)
        return width + 2 * padding - reach <= self.stride[1]


def guard(network: nn.Module) -> None:
    """Make every convolution of a network that skips columns a :class:`StridedConv2d`, in place.

    Parameters
    ----------
    network : torch.nn.Module
        Its weights and the names of its parts stay.
    """
    for part in network.modules():
        if type(part) is nn.Conv2d and part.stride[1] > 1:
            part.__class__ = StridedConv2d
