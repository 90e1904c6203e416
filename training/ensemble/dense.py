"""Linear heads and networks of one hidden layer as batched products.

Values are kept as (model, unit, row), so that no product has few columns, which processors are slow at: it is the layout of ``nn.Linear``'s weights.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from dmstore.training.ensemble.stack import Stack

_FEW = 16


class Dense(Stack):
    """See :class:`dmstore.training.ensemble.stack.Stack`; the backward pass is written by hand."""

    def _layers(self) -> list[str]:
        return [name.removesuffix(".weight") for name in self.arrays if name.endswith(".weight")]

    def step(
        self,
        inputs: torch.Tensor,
        label: torch.Tensor,
        weight: torch.Tensor,
        rate: Sequence[float],
        count: Sequence[int],
    ) -> torch.Tensor:
        """See :class:`dmstore.training.ensemble.stack.Stack`."""
        kind = self.kind or torch.float32
        # What products take: rounded once a step.
        own = {name: self.arrays[name].to(kind) for name in self.learnt()}
        rows = inputs.flatten(2).to(kind)
        # (model, unit, row) of what goes into each layer; the first is seen turned, not copied.
        values = [rows.transpose(1, 2)]
        layers = self._layers()
        for layer in layers:
            product = _product(own[f"{layer}.weight"], values[-1])
            product.add_(own[f"{layer}.bias"][:, :, None])
            values.append(product if layer == layers[-1] else product.relu_())
        losses, back = self._losses(values.pop().float(), label, weight)
        back, gradient = back.to(kind), {}
        for layer in reversed(layers):
            below = values.pop()
            gradient[f"{layer}.bias"] = back.float().sum(2)
            gradient[f"{layer}.weight"] = torch.bmm(back, below.transpose(1, 2)).float()
            if layer != layers[0]:
                back = torch.bmm(own[f"{layer}.weight"].transpose(1, 2), back)
                # Values below are not negative, and signs cost a tenth of a comparison.
                back.mul_(below.sign())
        self.descend(gradient, rate)
        return losses

    def _losses(
        self, logits: torch.Tensor, label: torch.Tensor, weight: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Sums of the losses of each model's rows, and the gradient of their means along the logits: (model, class, row)."""
        smooth, wanted = self.config.label_smoothing, label[:, None, :]
        said = torch.log_softmax(logits, 1)
        losses = said.gather(1, wanted)[:, 0].mul(smooth - 1)
        back = said.exp()
        if smooth:
            losses.sub_(said.mean(1), alpha=smooth)
            back.sub_(smooth / logits.shape[1])
        back.scatter_(1, wanted, back.gather(1, wanted).sub_(1 - smooth))
        return (losses * (weight > 0)).sum(1), back.mul_(weight[:, None, :])

    def logits(self, inputs: torch.Tensor) -> torch.Tensor:
        """See :class:`dmstore.training.ensemble.stack.Stack`."""
        rows = inputs.flatten(1)
        layers = self._layers()
        # All models' first layers are one product, as they see the same.
        weight, bias = (self.arrays[f"{layers[0]}.{part}"] for part in ("weight", "bias"))
        values = (weight.flatten(0, 1) @ rows.T).unflatten(0, weight.shape[:2]) + bias[:, :, None]
        for layer in layers[1:]:
            weight, bias = (self.arrays[f"{layer}.{part}"] for part in ("weight", "bias"))
            values = torch.baddbmm(bias[:, :, None], weight, values.relu())
        return values.transpose(1, 2)


def _product(weight: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Values of the next layer: (model, unit, row)."""
    if weight.dtype is torch.float32 or weight.shape[1] > _FEW:
        return torch.bmm(weight, values)
    # A tile of a matrix unit is filled by rows, not by a few classes.
    return torch.bmm(values.transpose(1, 2), weight.transpose(1, 2)).transpose(1, 2).contiguous()
