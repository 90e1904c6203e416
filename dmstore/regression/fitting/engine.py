"""The engine of a fit: blocks of targets through its stages, in passes that memory has room for.

Where outputs come from and where results are kept it does not know: :class:`GroupedRuns` supplies the
ones, a :class:`Keeper` takes the others. Fits of a study, of plain arrays and on a cluster are this one.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dmstore.core.progress import Progress
from dmstore.regression.fitting import memory_plan, stages
from dmstore.regression.fitting.memory_plan import Need, Room
from dmstore.regression.fitting.passes import Keeper, Pass, Passes
from dmstore.regression.fitting.stages import Arrays, Stage
from dmstore.regression.problem.design import Design, unit_counts
from dmstore.regression.problem.moments import Moments, make_moments
from dmstore.regression.problem.own_runs import OwnGroups
from dmstore.regression.problem.packing import Words
from dmstore.regression.problem.parameters import Parameters
from dmstore.regression.problem.thread_pool import Work
from dmstore.regression.solvers.own_runs import OwnBlock
from dmstore.regression.solvers.shared import SharedBlock

Designs = Mapping[tuple[int, ...], Design]


class BlockOutputs(Protocol):
    """What all runs say on a block of targets."""

    @property
    def shift(self) -> NDArray[np.float64]:
        """A value near each mean, which is taken off before products are summed: (target,) float64."""

    def of(
        self, group: int, targets: NDArray[np.int64] | slice
    ) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
        """Outputs of a group of runs on some targets of the block.

        Returns
        -------
        values : (bit, target)
            In the order of the bits of the group's words; there may be fewer than bits.
        used : (bit,) bool or None
            Which of them stand for a run; all if None.
        """


def group_moments(
    outputs: BlockOutputs,
    group: int,
    targets: NDArray[np.int64] | slice,
    words: Words,
    threads: int,
) -> Moments:
    """Products of the masks of a group of runs with what they say on some targets of a block."""
    values, used = outputs.of(group, targets)
    return make_moments(words, values, outputs.shift[targets], used=used, threads=threads)


class GroupedRuns(Protocol):
    """Runs in groups that no statistic is taken apart of."""

    @property
    def itemsize(self) -> int:
        """Bytes of an output as it is read."""

    @property
    def sizes(self) -> list[int]:
        """Runs of each group."""

    def words(self, threads: int, progress: Callable[[int, int], None]) -> list[Words]:
        """Masks of each group, packed along runs."""

    def outputs(self, start: int, stop: int) -> BlockOutputs:
        """What the runs say on some targets."""


@dataclass(frozen=True)
class Ground:
    """What all passes of a fit stand on.

    Attributes
    ----------
    words : list of (train, words) uint64
        Masks of each group of runs.
    checks : mapping
        Designs of the groups that choose lam.
    room : Room
    work : Work
    """

    words: list[Words]
    checks: Designs
    room: Room
    work: Work


@dataclass(frozen=True)
class Fitting:
    """A fit on its way.

    Attributes
    ----------
    runs : GroupedRuns
    unit : (target,) int64
        The train unit that each target is, -1 where it is none.
    parameters : Parameters
    threads : int
    memory : int, optional
        Bytes that the process may take; what is free, and at least what is needed, if None.
    scratch : path, optional
        Where Grams lie that memory has no room for.
    progress : callable, optional
        Called with what is done, steps done and steps in all.
    kept : int
        Bytes of results that stay in memory beside the fit.
    """

    runs: GroupedRuns
    unit: NDArray[np.int64]
    parameters: Parameters
    threads: int
    memory: int | None = None
    scratch: str | Path | None = None
    progress: Progress | None = None
    kept: int = 0

    def run(self, blocks: Keeper) -> None:
        """Do all stages of all blocks that are not done."""
        if not blocks.todo(len(self.stages)):
            return
        ground = self.ground()
        passes = self.passes(blocks, ground.room.stages, len(ground.words[0]))
        before: tuple[Stage, Design] | None = None
        for one, todo in passes:
            made = self.designs(one, ground, ground.room.allocate, before)
            # A pass that is over keeps nothing alive; its Gram may be that of this one's first design.
            before = None
            designs = stages.by_groups(one.stages, made, ground.checks)
            pass_fit = PassFit(self, ground, one, designs, passes.over)
            for number in todo:
                pass_fit.block(blocks, number)
                passes.fitted(one, number)
            # Its memory is taken by the first design of the next pass.
            before = (one.stages[-1], made[-1]) if len(made) == 1 else None
            del made, designs, pass_fit

    @functools.cached_property
    def stages(self) -> list[Stage]:
        """All stages of the fit."""
        folds, sizes = self.parameters.folds, self.runs.sizes
        parts = len(sizes) // (folds or 2)
        halves = parts == 2 and min(sum(sizes[half::2]) for half in (0, 1)) >= 2
        return stages.all_stages(parts, halves=halves, number_of_folds=folds)

    def passes(self, blocks: Keeper, room: int, train: int) -> Passes:
        """The passes that are still to be made, where there is room for the Grams of so many stages."""

        def cost(stage: Stage) -> int:
            runs = sum(self.runs.sizes[group] for group in stage.groups)
            return stages.cost(stage, runs, train, self.parameters.count)

        return Passes(blocks, self.stages, room, cost, self.tell)

    @property
    def shared(self) -> bool:
        """Whether any target is fitted on the runs that all such targets share."""
        return bool((self.unit < 0).any())

    def ground(self) -> Ground:
        """Read the masks, and plan the memory."""
        words = self.runs.words(self.threads, self._report("read"))
        room = self.room(words)
        checks = stages.check_designs(self.stages, words, self.runs.sizes)
        return Ground(words, checks, room, Work(self.threads, memory=room.working))

    def designs(
        self,
        one: Pass,
        ground: Ground,
        allocate: Callable[[int, Any], NDArray[Any]],
        before: tuple[Stage, Design] | None,
    ) -> list[Design]:
        """Count the Grams of a pass; none where every target has a design of its own."""
        if not self.shared:
            return []
        return stages.make_designs(
            one.stages,
            ground.words,
            self.runs.sizes,
            allocate,
            before,
            threads=self.threads,
            progress=self._report("count"),
        )

    def room(self, words: Sequence[Words]) -> Room:
        """What the memory is for."""
        need = Need(
            words=[group.nbytes for group in words],
            train=len(words[0]),
            runs=sum(self.runs.sizes),
            most=int(unit_counts(words).max(initial=0)),
            raw=self.runs.itemsize,
            stages=len(self.stages),
            results=3 if any(stage.name == "half" for stage in self.stages) else 1,
            kept=self.kept,
            folds=bool(self.parameters.folds),
            lam0=self.parameters.lam == 0,
            shared=self.shared,
            own=bool((self.unit >= 0).any()),
            whole=self.parameters.solver != "gram",
        )
        return memory_plan.plan(need, self.memory, self.threads, self.scratch)

    def tell(self, what: str, done: int, total: int) -> None:
        """Say how far something is."""
        if self.progress:
            self.progress(what, done, total)

    def _report(self, what: str) -> Callable[[int, int], None]:
        return lambda done, total: self.tell(what, done, total)


@dataclass(frozen=True)
class PassFit:
    """What blocks go through in one pass of a fit.

    Attributes
    ----------
    fitting : Fitting
    ground : Ground
    one : Pass
    designs : mapping
        Of the pass, and those that choose lam.
    over : callable
        Called with each stage, and how many of a block's targets are through it.
    """

    fitting: Fitting
    ground: Ground
    one: Pass
    designs: Designs
    over: Callable[[Stage, int], None] = lambda stage, targets: None

    def block(self, blocks: Keeper, number: int) -> None:
        """Take one block through, and have it kept."""
        try:
            self._block(blocks, number)
        except FileNotFoundError:
            # Another process at the same fit went further, and deleted what this one began with.
            blocks.look()
            if blocks.stages(number) < self.one.end and not blocks.there(number, self.one.end):
                raise

    def _block(self, blocks: Keeper, number: int) -> None:
        have, result = blocks.load(number)
        if have >= self.one.end:
            # Another process at the same fit went further since this pass began.
            return
        start, stop = blocks.bounds(number)
        outputs, unit = self.fitting.runs.outputs(start, stop), self.fitting.unit[start:stop]
        # Stages of this pass that were done with more memory are not done again.
        left = self.one.stages[max(0, have - (self.one.end - len(self.one.stages))) :]
        parts = []
        for own in (False, True):
            chosen = np.flatnonzero((unit >= 0) == own)
            if not len(chosen):
                continue
            everyone = len(chosen) == len(unit)
            before = result if everyone else stages.take(result, chosen)
            targets = slice(None) if everyone else chosen
            # What is fitted has no name here, so that it is freed before the next is made.
            part = self._through(
                left,
                self._own(outputs, targets, unit[chosen])
                if own
                else self._shared(left, outputs, targets),
                before,
                len(chosen),
            )
            parts.append((chosen, part))
        blocks.store(number, self.one.end, parts[0][1] if len(parts) == 1 else stages.merge(parts))

    def _shared(
        self,
        left: Sequence[Stage],
        outputs: BlockOutputs,
        targets: NDArray[np.int64] | slice,
    ) -> SharedBlock:
        """Targets that share their designs."""
        checked = {group for stage in left for group in stage.check}

        @functools.cache
        def moments(group: int) -> Moments:
            words, threads = self.ground.words[group], self.fitting.threads
            made = group_moments(outputs, group, targets, words, threads)
            # Only errors on runs that choose lam need the outputs themselves.
            return made if group in checked else replace(made, values=())

        return SharedBlock(self.designs, moments, outputs.shift[targets])

    def _own(
        self,
        outputs: BlockOutputs,
        targets: NDArray[np.int64] | slice,
        unit: NDArray[np.int64],
    ) -> OwnBlock:
        """Targets that are train units."""
        words = self.ground.words
        values, used = zip(*(outputs.of(g, targets) for g in range(len(words))), strict=True)
        return OwnBlock(OwnGroups.of(words, values, outputs.shift[targets], unit, used))

    def _through(
        self, left: Sequence[Stage], block: SharedBlock | OwnBlock, before: Arrays, targets: int
    ) -> Arrays:
        """Take targets through the stages that are left, so many of them."""
        parameters, work = self.fitting.parameters, self.ground.work
        if isinstance(block, SharedBlock) and parameters.solver != "gram":
            return stages.run_whole(left, block, parameters, work)
        return stages.run(
            left, block, parameters, before, work, lambda stage: self.over(stage, targets)
        )
