"""The design of a target that is a train unit itself: the runs that did not see it.

No two such targets share a design, so none is ever formed whole. A solver needs the covariance of
the few columns that it works with, which is counted from the words of these columns with the runs
that saw the unit taken out, and the gradient of all columns, which is the product of all masks with
a residual that is 0 in those runs.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from dmstore.core import bits
from dmstore.regression.kernels import bit_planes
from dmstore.regression.problem.design import Design, make_design
from dmstore.regression.problem.packing import Words

# Digits of a residual in fixed point: as many as a float64 has, and whole register tiles.
_MOST_PLANES = 52
_SIDE = 4


@dataclass(frozen=True)
class OwnGroups:
    """The runs of all groups, and what they say of targets that are train units.

    Attributes
    ----------
    words : list of (train, words) uint64
        Masks of each group.
    outputs : list of (bit, target) float64
        What each bit's run says, less `shift`; anything where a bit stands for no run.
    used : list of (bit,) bool
        Which bits stand for a run.
    unit : (target,) int64
        The train unit that each target is.
    shift : (target,) float64
    """

    words: Sequence[Words]
    outputs: Sequence[NDArray[np.float64]]
    used: Sequence[NDArray[np.bool_]]
    unit: NDArray[np.int64]
    shift: NDArray[np.float64]

    @classmethod
    def of(
        cls,
        words: Sequence[Words],
        values: Sequence[NDArray[Any]],
        shift: NDArray[np.float64],
        unit: NDArray[np.int64],
        used: Sequence[NDArray[np.bool_] | None],
    ) -> OwnGroups:
        """Groups from outputs as they are: (bit, target) of each, fewer than bits where the last have
        no run, and which bits have one, None for all of these.
        """
        outputs, there = [], []
        for group, part, own in zip(words, values, used, strict=True):
            count = bits.WORD * group.shape[1]
            outputs.append(np.zeros((count, len(unit))))
            outputs[-1][: len(part)] = part - shift
            there.append(np.arange(count) < len(part) if own is None else own)
        return cls(words, outputs, there, unit, shift)

    @property
    def train(self) -> int:
        """Number of train units."""
        return len(self.words[0])

    def runs(
        self, groups: Sequence[int], target: int
    ) -> tuple[list[Words], NDArray[np.float64], NDArray[np.bool_], int]:
        """What :class:`OwnRuns` is made of: the runs of some groups, for one target."""
        return (
            [self.words[group] for group in groups],
            np.concatenate([self.outputs[group][:, target] for group in groups]),
            np.concatenate([self.used[group] for group in groups]),
            int(self.unit[target]),
        )


class OwnRuns:
    """Masks and one output of the runs that did not see a unit.

    Parameters
    ----------
    words : sequence of (train, words) uint64
        Masks of some groups of runs.
    outputs : (bit,) float64
        In the order of the bits of the groups, one group after the other.
    used : (bit,) bool
        Which bits stand for a run.
    unit : int

    Attributes
    ----------
    count : int
        Runs that did not see the unit.
    mean : (train,) float64
        Share of them that saw each unit.
    output : float
        Mean of the output over them.
    variance : float
        Of the output.
    lowest, highest : float
        Range of the output.
    """

    def __init__(
        self,
        words: Sequence[Words],
        outputs: NDArray[np.float64],
        used: NDArray[np.bool_],
        unit: int,
    ) -> None:
        self._given = words, outputs, used, unit
        self._groups = words
        edges = [0, *itertools.accumulate(group.shape[1] for group in words)]
        self._places = [slice(a, b) for a, b in itertools.pairwise(edges)]
        saw = np.concatenate([group[unit] for group in words])
        self._left = bits.pack_runs(used[:, None])[0] & ~saw
        self._inside = bits.unpack_runs(self._left[None], len(used))[:, 0]
        self.width, self.train = edges[-1], len(words[0])
        self.count = int(self._inside.sum())
        said = outputs[self._inside]
        self.output = float(said.mean()) if self.count else math.nan
        self.variance = float(said.var()) if self.count else math.nan
        self.lowest, self.highest = said.min(initial=np.inf), said.max(initial=-np.inf)
        self._outputs = np.where(self._inside, outputs, 0.0)
        seen = self._products(self._left[None], np.ones(1))
        self.mean = seen / max(self.count, 1)

    def with_runs(self, other: Self) -> Self:
        """The same target over these runs and others."""
        (words, outputs, used, unit), more = self._given, other._given
        return type(self)(
            [*words, *more[0]],
            np.concatenate([outputs, more[1]]),
            np.concatenate([used, more[2]]),
            unit,
        )

    def rows(self, members: NDArray[np.int64]) -> Words:
        """Masks of some units in these runs: (member, words) uint64."""
        packed: Words = np.concatenate([group[members] for group in self._groups], axis=1)
        packed &= self._left
        return packed

    def error(self, weight: NDArray[np.float64], bias: float) -> float:
        """Mean squared error of a model."""
        residual = self._residual(weight)[self._inside] - bias
        return float(residual @ residual) / self.count

    def rest(self, weight: NDArray[np.float64], precision: float) -> NDArray[np.float64]:
        """Covariance of all masks with the residual of some weights: half of the gradient.

        Parameters
        ----------
        weight : (train,) float64
        precision : float
            What rounding of the residual may cost each value, whatever the masks.

        Returns
        -------
        (train,) float64
        """
        residual = self._centred(weight)
        largest = float(np.abs(residual).max(initial=0.0))
        if largest == 0.0:
            return np.zeros(self.train)
        # Rounding is half a step at most, in the product and in the mean that is taken off.
        digits = 2 + math.ceil(math.log2(largest / max(precision, largest * 2.0**-_MOST_PLANES)))
        count = min(max(_SIDE, -(-digits // _SIDE) * _SIDE), _MOST_PLANES)
        step = largest / (2.0 ** (count - 1) - 1)
        planes = np.empty((count, self.width), dtype=np.uint64)
        bit_planes.fill_planes(residual, step, planes)
        scales = step * np.exp2(np.arange(count, dtype=np.float64))
        scales[-1] *= -1.0
        total = float(np.bitwise_count(planes).sum(axis=1) @ scales)
        gradient: NDArray[np.float64] = self._products(planes, scales) - self.mean * total
        return gradient / self.count

    def moment(self) -> NDArray[np.float64]:
        """Covariance of all masks and the output: (train,) float64."""
        return self.rest(np.zeros(self.train), 0.0)

    def design(self) -> Design:
        """The whole design: only a fit without a penalty needs it."""
        return make_design(self.rows(np.arange(self.train)), self.count)

    def certify(self, weight: NDArray[np.float64], lam: float) -> tuple[float, float]:
        """KKT violation relative to lam and relative duality gap; see ``gradient.certify``."""
        gradient = 2.0 * self.rest(weight, 0.0)
        worst = np.where(
            weight == 0.0, np.abs(gradient) - lam, np.abs(gradient - lam * np.sign(weight))
        ).max(initial=0.0)
        residual = self._centred(weight)
        loss = float(residual @ residual) / self.count
        product = float(residual @ self._outputs) / self.count
        largest = float(np.abs(gradient).max(initial=0.0))
        scale = 1.0 if largest <= lam else lam / largest
        dual = 2.0 * scale * product - scale * scale * loss
        gap = loss + lam * float(np.abs(weight).sum()) - dual
        return (
            float(worst / lam if lam > 0.0 else worst),
            gap / self.variance if self.variance > 0.0 else 0.0,
        )

    def _residual(self, weight: NDArray[np.float64]) -> NDArray[np.float64]:
        left, support = self._outputs.copy(), np.flatnonzero(weight)
        for group, place in zip(self._groups, self._places, strict=True):
            part = left[place.start * bits.WORD : place.stop * bits.WORD]
            bit_planes.take_columns(group, support, weight, part)
        return left

    def _centred(self, weight: NDArray[np.float64]) -> NDArray[np.float64]:
        left = self._residual(weight)
        return np.where(self._inside, left - left[self._inside].mean(), 0.0)

    def _products(
        self, planes: NDArray[np.uint64], scales: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        products = np.zeros(self.train)
        for group, place in zip(self._groups, self._places, strict=True):
            bit_planes.add_products(group, np.ascontiguousarray(planes[:, place]), scales, products)
        return products
