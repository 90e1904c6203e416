"""Linear heads and networks of one hidden layer as batched products.

Values are kept as (model, unit, row), so that no product has few columns, which processors are slow at: it is the layout of ``nn.Linear``'s weights.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from dmstore.training.ensemble.stack import Stack


class Dense(Stack):
    """See :class:`dmstore.training.ensemble.stack.Stack`; the backward pass is written by hand."""

    def _layers(self) -> list[str]:
        return [name.removesuffix(".weight") for name in self.arrays if name.endswith(".weight")]

    def step(
        self,
        inputs: torch.Tensor,
        label: torch.Tensor,
        weight: torch.Tensor,
        rate: torch.Tensor,
        count: Sequence[int],
    ) -> torch.Tensor:
        """See :class:`dmstore.training.ensemble.stack.Stack`."""
        rows = inputs.flatten(2)
        # (model, unit, row) of what goes into each layer; the first is seen turned, not copied.
        values = [rows.transpose(1, 2)]
        layers = self._layers()
        for layer in layers:
            product = self._product(self.arrays[f"{layer}.weight"], values[-1])
            product.add_(self.arrays[f"{layer}.bias"][:, :, None])
            values.append(product if layer == layers[-1] else product.relu_())
        logits = values.pop()
        said = torch.log_softmax(logits, 1)
        smooth = self.config.label_smoothing
        losses = said.gather(1, label[:, None, :])[:, 0].mul(smooth - 1)
        back = said.exp()
        if smooth:
            losses.sub_(said.mean(1), alpha=smooth)
            back.sub_(smooth / logits.shape[1])
        classes = torch.arange(logits.shape[1], device=label.device)[:, None]
        back.sub_((classes == label[:, None, :]).float(), alpha=1 - smooth)
        back.mul_(weight[:, None, :])
        for layer in reversed(layers):
            below = values.pop()
            change = back
            if layer != layers[0]:
                back = self._product(self.arrays[f"{layer}.weight"].transpose(1, 2), change)
                back.mul_(below > 0)
            self._learn(f"{layer}.weight", change, below.transpose(1, 2), rate)
            self.descend({f"{layer}.bias": change.sum(2)}, rate)
        return (losses * (weight > 0)).sum(1)

    def _learn(
        self, name: str, change: torch.Tensor, below: torch.Tensor, rate: torch.Tensor
    ) -> None:
        """A step along `change` times `below`, which is added to the momentum without being kept."""
        config, kept = self.config, self.momentum[name]
        if config.nesterov or self.kind is not None:
            self.descend({name: self._product(change, below)}, rate)
            return
        torch.baddbmm(kept, change, below, beta=config.momentum, out=kept)
        if config.weight_decay:
            kept.add_(self.arrays[name], alpha=config.weight_decay)
        self.move(name, kept, None, rate)

    def _product(self, one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        if self.kind is None:
            return torch.bmm(one, other)
        return torch.bmm(one.to(self.kind), other.to(self.kind)).float()

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
