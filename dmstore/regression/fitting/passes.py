"""The passes of a fit over its blocks, and how far it is."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from dmstore.regression.fitting import stages
from dmstore.regression.fitting.stages import Arrays, Stage


@dataclass(frozen=True)
class Pass:
    """Stages that all blocks are taken through together.

    Attributes
    ----------
    stages : sequence of Stage
    end : int
        How many stages there are with those of the passes before.
    """

    stages: Sequence[Stage]
    end: int


class Keeper(Protocol):
    """Where the blocks of a fit are kept between passes."""

    def bounds(self, number: int) -> tuple[int, int]:
        """First target of a block, and the one behind its last."""

    def todo(self, stages: int) -> list[int]:
        """Blocks that have not been through so many stages."""

    def stages(self, number: int) -> int:
        """How many stages a block has been through, as far as is known."""

    def look(self) -> None:
        """Find out how far blocks are that others may have stored."""

    def there(self, number: int, stages: int) -> bool:
        """Whether what so many stages found of a block is kept, or what all did."""

    def load(self, number: int) -> tuple[int, Arrays]:
        """How many stages a block has been through, and what they found."""

    def store(self, number: int, stages: int, result: Arrays) -> None:
        """Keep what so many stages found of a block."""


class Passes:
    """The passes of a fit that are still to be made, and how far it is.

    Parameters
    ----------
    blocks : Keeper
    stages : sequence of Stage
        All of the fit.
    room : int
        Stages that make a pass.
    cost : callable
        What a stage takes of one target; see :func:`dmstore.regression.fitting.stages.cost`.
    tell : callable
        Called with ``fit``, steps done and steps in all, of all passes.
    """

    def __init__(
        self,
        blocks: Keeper,
        stages_: Sequence[Stage],
        room: int,
        cost: Callable[[Stage], int],
        tell: Callable[[str, int, int], None],
    ) -> None:
        self._blocks, self._cost, self._tell = blocks, cost, tell
        parts = stages.passes(stages_, room)
        ends = itertools.accumulate(map(len, parts))
        self._passes = [Pass(part, end) for part, end in zip(parts, ends, strict=True)]
        self._done = 0
        self._within = 0
        self._total = sum(
            self._steps(one, number) for one in self._passes for number in blocks.todo(one.end)
        )

    def __iter__(self) -> Iterator[tuple[Pass, list[int]]]:
        """Each pass, and the blocks that are to go through it."""
        for one in self._passes:
            todo = self._blocks.todo(one.end)
            if todo:
                self._tell("fit", self._done, self._total)
                yield one, todo

    def _steps(self, one: Pass, number: int) -> int:
        """What a pass takes of a block."""
        start, stop = self._blocks.bounds(number)
        return (stop - start) * sum(map(self._cost, one.stages))

    def over(self, stage: Stage, targets: int) -> None:
        """So many of a block's targets are through a stage: of few targets, one block is all there is."""
        self._within += self._cost(stage) * targets
        self._tell("fit", self._done + self._within, self._total)

    def fitted(self, one: Pass, number: int) -> None:
        """A block is through a pass."""
        said = self._done + self._within
        self._done += self._steps(one, number)
        self._within = 0
        if said != self._done:
            self._tell("fit", self._done, self._total)
