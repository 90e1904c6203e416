"""Small convolutional networks beside each other: groups of them as one with grouped convolutions, where that pays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from dmstore.training.ensemble.stack import Stack

_GROUP = 8
# px; what grouped convolutions gain is lost on larger images.
_GROUPED_SIDE = 16


def grouping_pays(side: int) -> bool:
    """Whether grouped convolutions are faster on this CPU than one after another, for images of `side` px.

    With AVX-512 they are faster at 16 px and as fast at 32 px; with AVX2 alone they were slower at both.
    """
    return "AVX512" in torch.backends.cpu.get_cpu_capability() and side <= _GROUPED_SIDE


class Convolutions(Stack):
    """A chain of convolutions, batch norms, pools and a linear layer. See :class:`dmstore.training.ensemble.stack.Stack`."""

    network: nn.Sequential

    @classmethod
    def like(cls, network: nn.Sequential) -> type[Convolutions]:
        """The kind of stack for networks like this one."""
        return type("Own", (cls,), {"network": network})

    def group(self, side: int, device: torch.device) -> int:
        """How many models are computed as one."""
        if device.type == "cuda":
            return len(self)
        return _GROUP if grouping_pays(side) else 1

    def step(
        self,
        inputs: torch.Tensor,
        label: torch.Tensor,
        weight: torch.Tensor,
        rate: Sequence[float],
        count: Sequence[int],
    ) -> torch.Tensor:
        """See :class:`dmstore.training.ensemble.stack.Stack`."""
        # Batch norm must not see rows that only fill up.
        size = self.group(inputs.shape[-1], inputs.device) if len(set(count)) == 1 else 1
        losses, changes = [], []
        for start in range(0, len(self), size):
            some = slice(start, start + size)
            rows = int(count[start])
            leaves = {
                name: self.arrays[name][some].flatten(0, 1).requires_grad_()
                for name in self.learnt()
            }
            with torch.autocast(inputs.device.type, dtype=self.kind, enabled=self.kind is not None):
                said = self._said(leaves, some, inputs[some, :rows].transpose(0, 1), train=True)
            own = functional.cross_entropy(
                said.float().flatten(0, 1),
                label[some, :rows].flatten(),
                label_smoothing=self.config.label_smoothing,
                reduction="none",
            ).unflatten(0, said.shape[:2])
            made = torch.autograd.grad(own.sum() / rows, list(leaves.values()))
            losses.append(own.detach().sum(1))
            changes.append(made)
        gradient = {
            name: torch.cat([made[place] for made in changes]).view_as(self.arrays[name])
            for place, name in enumerate(self.learnt())
        }
        self.descend(gradient, rate)
        return torch.cat(losses)

    def _said(
        self, leaves: Mapping[str, torch.Tensor], some: slice, inputs: torch.Tensor, *, train: bool
    ) -> torch.Tensor:
        """Logits of some models as one network.

        Parameters
        ----------
        leaves : mapping
            Arrays that are learnt, with the models side by side in the first axis.
        some : slice
            Of models.
        inputs : (row, model, channel, height, width) float32
        train : bool
            Whether batch norms take the batch's own mean.

        Returns
        -------
        (model, row, class)
        """
        models = inputs.shape[1]
        if self.config.channels_last:
            # Copied once, into the layout that convolutions take.
            values = inputs.permute(0, 3, 4, 1, 2).flatten(3).permute(0, 3, 1, 2)
        else:
            values = inputs.flatten(1, 2)
        for name, layer in self.network.named_children():
            if isinstance(layer, nn.Conv2d):
                weight = leaves[f"{name}.weight"]
                values = functional.conv2d(values, weight, padding=layer.padding, groups=models)
            elif isinstance(layer, nn.BatchNorm2d):
                values = self._normed(name, layer, leaves, some, values, train=train)
            elif isinstance(layer, nn.Linear):
                rows = values.unflatten(1, (models, -1)).transpose(0, 1)
                weight, bias = (
                    leaves[f"{name}.{part}"].unflatten(0, (models, -1))
                    for part in ("weight", "bias")
                )
                return torch.baddbmm(bias[:, None], rows, weight.transpose(1, 2))
            else:
                values = layer(values)
        raise AssertionError

    def _normed(
        self,
        name: str,
        layer: Any,
        leaves: Mapping[str, torch.Tensor],
        some: slice,
        values: torch.Tensor,
        *,
        train: bool,
    ) -> torch.Tensor:
        mean, variance = (
            self.arrays[f"{name}.running_{part}"][some].view(-1) for part in ("mean", "var")
        )
        if train:
            self.arrays[f"{name}.num_batches_tracked"][some] += 1
        weight, bias = leaves[f"{name}.weight"], leaves[f"{name}.bias"]
        return functional.batch_norm(
            values, mean, variance, weight, bias, train, layer.momentum, layer.eps
        )

    def logits(self, inputs: torch.Tensor) -> torch.Tensor:
        """See :class:`dmstore.training.ensemble.stack.Stack`."""
        made = []
        size = self.group(inputs.shape[-1], inputs.device)
        for start in range(0, len(self), size):
            some = slice(start, start + size)
            leaves = {name: self.arrays[name][some].flatten(0, 1) for name in self.learnt()}
            models = min(size, len(self) - start)
            seen = inputs[:, None].expand(-1, models, -1, -1, -1)
            made.append(self._said(leaves, some, seen, train=False))
        return torch.cat(made)
