"""The stages of a fit: which runs each stands on, and what it adds to a block of targets.

Every stage needs one Gram. As many stages as memory has room for Grams make a pass, and a pass goes
through all blocks of targets; so the outputs are read once a pass, and a design that is as large as
the memory can be fitted on, one stage after the other.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from dmstore.regression.problem.design import (
    Design,
    Moments,
    Words,
    count_gram,
    gram_dtype,
    unit_counts,
)
from dmstore.regression.problem.own_runs import OwnGroups
from dmstore.regression.problem.thread_pool import Work
from dmstore.regression.solvers import folds, lasso, own_runs, registry
from dmstore.regression.solvers.lasso import Parameters
from dmstore.schema.group_specs import group_spec

Arrays = dict[str, NDArray[Any]]
# A path takes as long as so many refits.
_PATH = 6
_Statistic = TypeVar("_Statistic", Design, Moments)


@dataclass(frozen=True)
class Stage:
    """One step of the fit of a block.

    Attributes
    ----------
    name : str
        ``choose``, ``fold``, ``refit``, ``weight_half`` or ``weight_quarter``.
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
        quarters = [everything[q::parts] for q in range(4)]
        stages += [
            Stage("weight_half", quarters[2 * h] + quarters[2 * h + 1], h, 2) for h in (0, 1)
        ]
        stages += [Stage("weight_quarter", quarters[q], q, 4) for q in range(4)]
    return stages


def passes(stages: Sequence[Stage], room: int) -> list[Sequence[Stage]]:
    """Stages in order, so many at a time."""
    return [stages[start : start + room] for start in range(0, len(stages), room)]


def steps(group: Sequence[Stage]) -> int:
    """What the stages of a pass take, in that of one refit; a path takes several."""
    return sum(_PATH if stage.check else 1 for stage in group)


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


def run(
    stages: Sequence[Stage],
    designs: Sequence[Design],
    holdout: Mapping[tuple[int, ...], Design],
    moments: Callable[[int], Moments],
    shift: NDArray[np.float64],
    parameters: Parameters,
    result: Arrays,
    work: Work,
) -> Arrays:
    """Take a block of targets through some stages.

    Parameters
    ----------
    stages, designs : sequences
    holdout : mapping
        See :func:`check_designs`.
    moments : callable
        Of a group.
    shift : (target,) float64
    parameters : Parameters
    result : dict
        What earlier stages found.
    work : Work

    Returns
    -------
    dict
    """
    checked = {group for stage in stages for group in stage.check}

    @functools.cache
    def of(group: int) -> Moments:
        found = moments(group)
        # Only errors on runs that choose lam need the outputs themselves.
        return found if group in checked else replace(found, values=())

    if parameters.solver != "gram":
        return _whole(stages, designs, holdout, of, shift, parameters, work)
    for stage, design in zip(stages, designs, strict=True):
        together = add([of(group) for group in stage.groups])
        if stage.name == "choose":
            check = add([of(group) for group in stage.check])
            result = lasso.choose_lams(
                design, holdout[stage.check], together, check, shift, parameters, work
            )
        elif stage.name == "fold":
            check, held = add([of(group) for group in stage.check]), holdout[stage.check]
            fold = _fold(len(shift), _lam_max(design, held, together + check))
            found = lasso.choose_lams(design, held, together, check, shift, parameters, work, fold)
            result = _folded(stage, result, found, fold, parameters)
        elif stage.name == "refit":
            lasso.refit_all(design, together, shift, parameters, result, work)
        else:
            lasso.fit_part(
                stage.name, stage.number, stage.share, design, together, parameters, result, work
            )
    return result


def run_own(
    stages: Sequence[Stage],
    own: OwnGroups,
    parameters: Parameters,
    result: Arrays,
    work: Work,
) -> Arrays:
    """The same of targets that are train units, each over the runs that did not see it."""
    for stage in stages:
        if stage.name == "choose":
            result = own_runs.choose_lams(own, stage.groups, stage.check, parameters, work)
        elif stage.name == "fold":
            fold = _fold(len(own.unit))
            found = own_runs.choose_lams(own, stage.groups, stage.check, parameters, work, fold)
            result = _folded(stage, result, found, fold, parameters)
        elif stage.name == "refit":
            own_runs.refit_all(own, stage.groups, parameters, result, work)
        else:
            own_runs.fit_part(
                stage.name, stage.number, stage.share, own, stage.groups, parameters, result, work
            )
    return result


def _fold(targets: int, lam_max: NDArray[np.float64] | None = None) -> lasso.Fold:
    blank = np.zeros(targets)
    return lasso.Fold(blank if lam_max is None else lam_max, np.zeros(targets), np.zeros(targets))


def _lam_max(design: Design, held: Design, moments: Moments) -> NDArray[np.float64]:
    """The lam of each target above which no weight is left on all runs."""
    mean = (design.mean * design.runs + held.mean * held.runs) / moments.runs
    covariance = moments.product - np.multiply.outer(mean, moments.total)
    found: NDArray[np.float64] = 2.0 * np.abs(covariance).max(axis=0, initial=0.0) / moments.runs
    return found


def _folded(
    stage: Stage, result: Arrays, found: Arrays, fold: lasso.Fold, parameters: Parameters
) -> Arrays:
    result = folds.add_fold(result, found, fold)
    if stage.number == stage.share - 1:
        folds.choose(result, parameters)
    return result


def take(result: Arrays, targets: NDArray[np.int64]) -> Arrays:
    """What was found of some targets of a block."""
    return {name: values.take(targets, _axis(name)) for name, values in result.items()}


def merge(parts: Sequence[tuple[NDArray[np.int64], Arrays]]) -> Arrays:
    """What was found of all targets of a block, from disjoint ones."""
    order = np.argsort(np.concatenate([targets for targets, _ in parts]))
    return {
        name: np.concatenate([found[name] for _, found in parts], _axis(name)).take(
            order, _axis(name)
        )
        for name in parts[0][1]
    }


def _axis(name: str) -> int:
    return group_spec("datamodels").arrays[name].dims.index("target")


def _whole(
    stages: Sequence[Stage],
    designs: Sequence[Design],
    holdout: Mapping[tuple[int, ...], Design],
    moments: Callable[[int], Moments],
    shift: NDArray[np.float64],
    parameters: Parameters,
    work: Work,
) -> Arrays:
    """All stages of a block by a solver that knows only whole blocks."""
    said = [add([moments(group) for group in stage.groups]) for stage in stages]
    check = add([moments(group) for group in stages[0].check])
    return registry.load(parameters.solver)(
        lasso.Designs(
            designs[0],
            holdout[stages[0].check],
            designs[1],
            tuple(designs[2:4]),
            tuple(designs[4:]),
        ),
        lasso.Outputs(said[0], check, said[1], shift, tuple(said[2:4]), tuple(said[4:])),
        parameters,
        threads=work.threads,
    )


def add(parts: Sequence[_Statistic]) -> _Statistic:
    """The statistic of all runs of some groups."""
    return functools.reduce(lambda a, b: a + b, parts)
