"""Which units each model sees in which step. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Step:
    """One step of the models that have one.

    Attributes
    ----------
    models : (model,) int64
        Places of the models among those of the epoch.
    position : (model, row) int64
        Train units; a model with fewer rows repeats its first.
    count : (model,) int64
        Rows that are the model's own.
    share : (model,) float64
        Of the model's epoch that is done before.
    """

    models: NDArray[np.int64]
    position: NDArray[np.int64]
    count: NDArray[np.int64]
    share: NDArray[np.float64]

    @property
    def even(self) -> bool:
        """Whether all models have as many rows."""
        return bool((self.count == self.position.shape[1]).all())

    @property
    def weight(self) -> NDArray[np.float32]:
        """What each row counts: one over the model's rows, 0 where none is its own; (model, row)."""
        own = np.arange(self.position.shape[1]) < self.count[:, None]
        return (own / self.count[:, None]).astype(np.float32)


def steps(batches: Sequence[Sequence[NDArray[np.int64]]]) -> list[Step]:
    """The steps of one epoch.

    Parameters
    ----------
    batches : sequence of sequences of (unit,) int64
        For each model its batches.

    Returns
    -------
    list of Step
        As many as the model with the most batches has.
    """
    made = []
    for number in range(max(map(len, batches))):
        models = [place for place, own in enumerate(batches) if number < len(own)]
        rows = [batches[place][number] for place in models]
        count = np.array([len(one) for one in rows])
        position = np.empty((len(rows), count.max()), dtype=np.int64)
        for filled, own in zip(position, rows, strict=True):
            filled[: len(own)], filled[len(own) :] = own, own[0]
        share = np.array([number / len(batches[place]) for place in models])
        made.append(Step(np.array(models), position, count, share))
    return made
