"""How far a fit is, over all of its passes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence

from dmstore.regression.fitting import stages
from dmstore.regression.fitting.blocks import Blocks
from dmstore.regression.fitting.stages import Stage


class Ahead:
    """The passes of a fit that are still to be made, and how far it is.

    Parameters
    ----------
    blocks : Blocks
    passes : sequence of sequences of Stage
    tell : callable
        Called with ``fit``, steps done and steps in all, of all passes.
    """

    def __init__(
        self,
        blocks: Blocks,
        passes: Sequence[Sequence[Stage]],
        tell: Callable[[str, int, int], None],
    ) -> None:
        self._blocks, self._tell = blocks, tell
        ends = itertools.accumulate(len(group) for group in passes)
        self._passes = list(zip(passes, ends, strict=True))
        self._done = 0
        self._total = sum(
            len(blocks.todo(end)) * stages.steps(group) for group, end in self._passes
        )

    def __iter__(self) -> Iterator[tuple[Sequence[Stage], int, list[int]]]:
        """Stages of a pass, how many there are with those before, and the blocks that are to go through it."""
        for group, end in self._passes:
            todo = self._blocks.todo(end)
            if todo:
                self._tell("fit", self._done, self._total)
                yield group, end, todo

    def fitted(self, group: Sequence[Stage]) -> None:
        """One more block is through a pass."""
        self._done += stages.steps(group)
        self._tell("fit", self._done, self._total)
