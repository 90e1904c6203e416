"""The stages of a fit: which runs each stands on, and what it adds to a block of targets.

Every stage needs one Gram. As many stages as memory has room for Grams make a pass, and a pass goes
through all blocks of targets; so the outputs are read once a pass, and a design that is as large as
the memory can be fitted on, one stage after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmstore.regression.problem.block import Designs, Outputs
from dmstore.regression.problem.design import Design, count_gram, gram_dtype, unit_counts
from dmstore.regression.problem.moments import add
from dmstore.regression.problem.packing import Words
from dmstore.regression.problem.parameters import Parameters
from dmstore.regression.problem.thread_pool import Work
from dmstore.regression.solvers import folds, lasso, registry
from dmstore.regression.solvers.protocol import Block
from dmstore.regression.solvers.shared import SharedBlock
from dmstore.schema.group_specs import group_spec

Arrays = dict[str, NDArray[Any]]
# A path takes as long as so many refits, which are so many steps of a progress.
_PATH, REFIT = 5, 10


@dataclass(frozen=True)
class Stage:
    """One step of the fit of a block.

    Attributes
    ----------
    name : str
        ``choose``, ``fold``, ``refit`` or ``half``.
    groups : tuple of int
        The groups of runs that it stands on.
    number, share : int
        Which part, and of how many.
    check : tuple of int
        The groups that choose lam.
    """

    name: str
    groups: tuple[int, ...]
    number: int = 0
    share: int = 1
    check: tuple[int, ...] = ()


def all_stages(parts: int, *, halves: bool, number_of_folds: int = 0) -> list[Stage]:
    """The stages of a fit, in order, where runs are in groups as :class:`Runs` makes them."""
    sets = [tuple(range(s * parts, (s + 1) * parts)) for s in range(number_of_folds or 2)]
    everything = tuple(range(parts * len(sets)))
    if number_of_folds:
        stages = [
            Stage(
                "fold", tuple(g for g in everything if g not in held), number, number_of_folds, held
            )
            for number, held in enumerate(sets)
        ]
    else:
        stages = [Stage("choose", sets[0], check=sets[1])]
    stages.append(Stage("refit", everything))
    if halves:
        stages += [Stage("half", everything[half::parts], half, 2) for half in (0, 1)]
    return stages


def passes(stages: Sequence[Stage], room: int) -> list[Sequence[Stage]]:
    """Stages in order, so many at a time."""
    return [stages[start : start + room] for start in range(0, len(stages), room)]


def cost(stage: Stage, runs: int, train: int, lams: int) -> int:
    """What a stage takes of one target, in tenths of a refit.

    Where runs are fewer than train units, a path ends early: soon smaller lams only fit noise. Such a path takes less than the
    refit, which is solved to the last digit. (Paths of 300 runs of 2,000 units took 0.2 to 1.5 refits, of 1,000 runs 2 to 4, of
    as many runs as units or more 2.5 to 5.)

    Parameters
    ----------
    stage : Stage
    runs : int
        That it stands on.
    train : int
        Train units.
    lams : int
        Values of lam on the path.

    Returns
    -------
    int
        At least 1.
    """
    if not stage.check or lams == 1:
        return REFIT
    return max(1, round(REFIT * _PATH * min(1.0, runs / max(1, train))))


def make_designs(
    stages: Sequence[Stage],
    words: Sequence[Words],
    runs: Sequence[int],
    allocate: Callable[[int, Any], NDArray[Any]],
    before: tuple[Stage, Design] | None,
    *,
    threads: int,
    progress: Callable[[int, int], None] | None = None,
) -> list[Design]:
    """The designs of the stages of a pass.

    Parameters
    ----------
    stages : sequence of Stage
    words : sequence of (train, words) uint64
        Of each group.
    runs : sequence of int
        Of each group.
    allocate : callable
        Given a number of train units and a dtype, a Gram of zeros.
    before : tuple of Stage and Design, optional
        The last of the pass before, whose memory is taken.
    threads : int
    progress : callable, optional
        Called with pairs of units counted and pairs in all.
    """
    dtype = gram_dtype(int(unit_counts(words).max(initial=0)))
    train, made = len(words[0]), []
    for position, stage in enumerate(stages):
        gram = before[1].gram if position == 0 and before else allocate(train, dtype)
        groups = stage.groups
        less: tuple[int, ...] = ()
        if before:
            # From the Gram before, where the runs that differ are fewer than those it stands on.
            new = tuple(g for g in stage.groups if g not in before[0].groups)
            old = tuple(g for g in before[0].groups if g not in stage.groups)
            if sum(runs[g] for g in new + old) < sum(runs[g] for g in stage.groups):
                groups, less = new, old
        if groups is stage.groups:
            gram[...] = 0
        elif before and gram is not before[1].gram:
            gram[...] = before[1].gram

        def report(pairs: int, of: int, position: int = position) -> None:
            if progress:
                progress(position * of + pairs, len(stages) * of)

        added, taken = ([words[g] for g in some] for some in (groups, less))
        count_gram(added, into=gram, less=taken, threads=threads, progress=report)
        before = stage, Design(sum(runs[g] for g in stage.groups), gram)
        made.append(before[1])
    return made


def check_designs(
    stages: Sequence[Stage], words: Sequence[Words], runs: Sequence[int]
) -> dict[tuple[int, ...], Design]:
    """The designs of the groups that choose lam: their words alone."""
    return {
        stage.check: Design(
            sum(runs[g] for g in stage.check), words=[words[g] for g in stage.check]
        )
        for stage in stages
        if stage.check
    }


def by_groups(
    stages: Sequence[Stage],
    designs: Sequence[Design],
    checks: Mapping[tuple[int, ...], Design],
) -> dict[tuple[int, ...], Design]:
    """The designs of a pass and those that choose lam, by their groups; none if `designs` are none."""
    by_group = dict(checks)
    for stage, design in zip(stages, designs, strict=bool(designs)):
        # A group that is fitted on may choose lam for another fold, with its masks.
        known = checks.get(stage.groups)
        by_group[stage.groups] = known.with_gram(design.gram) if known else design
    return by_group


def run(
    stages: Sequence[Stage],
    block: Block,
    parameters: Parameters,
    result: Arrays,
    work: Work,
    over: Callable[[Stage], None] = lambda stage: None,
) -> Arrays:
    """Take a block of targets through some stages.

    Parameters
    ----------
    stages : sequence of Stage
    block : Block
    parameters : Parameters
    result : dict
        What earlier stages found.
    work : Work
    over : callable
        Called with each stage that the block is through.

    Returns
    -------
    dict
        What is known after them: arrays of the ``datamodels`` schema.
    """
    for stage in stages:
        if stage.name == "choose":
            result = lasso.choose(block, stage.groups, stage.check, parameters, work)
        elif stage.name == "fold":
            fold = lasso.Fold.of(len(block.shift))
            fold_result = lasso.choose(block, stage.groups, stage.check, parameters, work, fold)
            result = folds.add_fold(result, fold_result, fold)
            if stage.number == stage.share - 1:
                folds.choose(result, parameters)
        elif stage.name == "refit":
            lasso.refit(block, stage.groups, parameters, result, work)
        else:
            lasso.fit_half(stage.number, block, stage.groups, parameters, result, work)
        over(stage)
    return result


def run_whole(
    stages: Sequence[Stage],
    block: SharedBlock,
    parameters: Parameters,
    work: Work,
) -> Arrays:
    """Take a block through all stages of a fit by a solver that knows only whole blocks."""
    designs, moments = block.designs, block.moments
    fits = [designs[stage.groups] for stage in stages]
    by_stage = [add([moments(group) for group in stage.groups]) for stage in stages]
    check = stages[0].check
    return registry.load(parameters.solver)(
        Designs(fits[0], designs[check], fits[1], tuple(fits[2:])),
        Outputs(
            by_stage[0],
            add([moments(group) for group in check]),
            by_stage[1],
            block.shift,
            tuple(by_stage[2:]),
        ),
        parameters,
        threads=work.threads,
    )


def take(result: Arrays, targets: NDArray[np.int64]) -> Arrays:
    """What was found of some targets of a block."""
    return {name: values.take(targets, _axis(name)) for name, values in result.items()}


def merge(parts: Sequence[tuple[NDArray[np.int64], Arrays]]) -> Arrays:
    """What was found of all targets of a block, from disjoint ones."""
    order = np.argsort(np.concatenate([targets for targets, _ in parts]))
    return {
        name: np.concatenate([result[name] for _, result in parts], _axis(name)).take(
            order, _axis(name)
        )
        for name in parts[0][1]
    }


def _axis(name: str) -> int:
    return group_spec("datamodels").arrays[name].dims.index("target")
