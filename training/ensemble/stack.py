"""Models side by side: every array of a network with the model as first axis, and what SGD keeps of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np
import torch
from torch.optim.sgd import sgd

from dmstore.training.config import TrainingConfig

Own = TypeVar("Own", bound="Stack")


class Stack(ABC):
    """Models of one kind.

    Parameters
    ----------
    config : TrainingConfig
    arrays : mapping
        Name as in the network's ``state_dict`` to (model, ...) tensor.
    momentum : mapping
        The same of those that are learnt; None at the beginning.
    kind : torch.dtype, optional
        What products are computed in; None for float32.
    """

    def __init__(
        self,
        config: TrainingConfig,
        arrays: Mapping[str, torch.Tensor],
        momentum: Mapping[str, torch.Tensor] | None = None,
        kind: torch.dtype | None = None,
    ) -> None:
        self.config, self.kind = config, kind
        self.arrays = dict(arrays)
        if momentum is None:
            momentum = {name: torch.zeros_like(self.arrays[name]) for name in self.learnt()}
        self.momentum = dict(momentum)

    @classmethod
    def of(
        cls: type[Own],
        config: TrainingConfig,
        states: Sequence[Mapping[str, torch.Tensor]],
        device: torch.device,
        kind: torch.dtype | None,
    ) -> Own:
        """Models from their ``state_dict``s."""
        arrays = {
            name: torch.stack([state[name] for state in states]).to(device) for name in states[0]
        }
        return cls(config, arrays, kind=kind)

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))

    def learnt(self) -> list[str]:
        """Names of the arrays that are learnt."""
        return [name for name in self.arrays if name.rpartition(".")[2] in ("weight", "bias")]

    def take(self: Own, models: Sequence[int]) -> Own:
        """A copy of some models."""
        place = torch.as_tensor(models, device=next(iter(self.arrays.values())).device)
        arrays, momentum = (
            {name: value.index_select(0, place) for name, value in kept.items()}
            for kept in (self.arrays, self.momentum)
        )
        return type(self)(self.config, arrays, momentum, self.kind)

    def put(self: Own, models: Sequence[int], other: Own) -> None:
        """Replace some models."""
        place = torch.as_tensor(models, device=next(iter(self.arrays.values())).device)
        for own, new in ((self.arrays, other.arrays), (self.momentum, other.momentum)):
            for name, value in own.items():
                value.index_copy_(0, place, new[name])

    def state(self, model: int) -> dict[str, torch.Tensor]:
        """One model's ``state_dict``."""
        return {name: value[model].clone() for name, value in self.arrays.items()}

    def descend(self, gradient: Mapping[str, torch.Tensor], rate: Sequence[float]) -> None:
        """One step of ``torch.optim.SGD``, each model by its own rate.

        Parameters
        ----------
        gradient : mapping
            Name to (model, ...) float32.
        rate : sequence of float
            Of each model.
        """
        config, rates = self.config, np.asarray(rate)
        kept = [
            [self.arrays[name] for name in gradient],
            # What is fused goes through memory in order, whatever the strides.
            [change.contiguous() for change in gradient.values()],
            [self.momentum[name] for name in gradient],
        ]
        for own in np.unique(rates):
            some = np.flatnonzero(rates == own).tolist()
            whole = len(some) == len(rates)
            value, change, momentum = (
                one if whole else [array[model] for array in one for model in some] for one in kept
            )
            sgd(
                value,
                change,
                list(momentum),
                # One pass over all that a step touches; others take six.
                fused=value[0].device.type in ("cpu", "cuda"),
                lr=float(own),
                momentum=config.momentum,
                weight_decay=config.weight_decay,
                dampening=0.0,
                nesterov=config.nesterov,
                maximize=False,
            )

    @abstractmethod
    def step(
        self,
        inputs: torch.Tensor,
        label: torch.Tensor,
        weight: torch.Tensor,
        rate: Sequence[float],
        count: Sequence[int],
    ) -> torch.Tensor:
        """Learn from one batch a model.

        Parameters
        ----------
        inputs : (model, row, ...) float32
        label : (model, row) int64
        weight : (model, row) float32
            One over the model's rows; 0 for rows that only fill up.
        rate : sequence of float
            Of each model.
        count : sequence of int
            Rows that are the model's own.

        Returns
        -------
        (model,) float32
            Sums of the losses of their rows, before the step.
        """

    @abstractmethod
    def logits(self, inputs: torch.Tensor) -> torch.Tensor:
        """What each model says of the same inputs, in float32: (example, ...) to (model, example, class)."""
