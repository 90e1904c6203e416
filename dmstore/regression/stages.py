"""The stages of a fit: which runs each stands on, and what it adds to a block of targets.

Every stage needs one Gram. As many stages as memory has room for Grams make a pass, and a pass goes
through all blocks of targets; so the outputs are read once a pass, and a design that is as large as
the memory can be fitted on, one stage after the other.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from dmstore import schema
from dmstore.regression import own_path, path, solvers
from dmstore.regression.design import Design, Moments, Words, count_gram, gram_dtype, unit_counts
from dmstore.regression.own_runs import OwnGroups
from dmstore.regression.path import Parameters, Work

Arrays = dict[str, NDArray[Any]]
_Statistic = TypeVar("_Statistic", Design, Moments)


@dataclass(frozen=True)
class Stage:
    """One step of the fit of a block.

    Attributes
    ----------
    name : str
        ``choose``, ``refit``, ``weight_half`` or ``weight_quarter``.
    groups : tuple of int
        The groups of runs that it stands on.
    number, share : int
        Which part, and of how many.
    """

    name: str
    groups: tuple[int, ...]
    number: int = 0
    share: int = 1


def all_stages(parts: int, *, halves: bool) -> list[Stage]:
    """The stages of a fit, in order, where runs are in groups as :class:`Runs` makes them."""
    stages = [
        Stage("choose", tuple(range(parts))),
        Stage("refit", tuple(range(2 * parts))),
    ]
    if halves:
        quarters = [(q, parts + q) for q in range(4)]
        stages += [
            Stage("weight_half", quarters[2 * h] + quarters[2 * h + 1], h, 2) for h in (0, 1)
        ]
        stages += [Stage("weight_quarter", quarters[q], q, 4) for q in range(4)]
    return stages


def passes(stages: Sequence[Stage], room: int) -> list[Sequence[Stage]]:
    """Stages in order, so many at a time."""
    return [stages[start : start + room] for start in range(0, len(stages), room)]


def make_designs(
    stages: Sequence[Stage],
    words: Sequence[Words],
    runs: Sequence[int],
    allocate: Callable[[int, Any], NDArray[Any]],
    before: Design | None,
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
    before : Design, optional
        That of the pass before, whose memory is taken.
    threads : int
    progress : callable, optional
        Called with rows counted and rows in all.
    """
    everything = tuple(range(len(words)))
    dtype = gram_dtype(int(unit_counts(words).max(initial=0)))
    train, made = len(words[0]), []
    for position, stage in enumerate(stages):
        count = sum(runs[group] for group in stage.groups)
        groups = stage.groups
        if position == 0 and before is not None:
            gram = before.gram
            if stage.groups == everything and before.runs == sum(runs[: len(runs) // 2]):
                # All runs are those fitted on and the holdout runs.
                groups = everything[len(words) // 2 :]
            else:
                gram[...] = 0
        else:
            gram = allocate(train, dtype)
        done, total = position * train, len(stages) * train

        def report(rows: int, _: int, done: int = done, total: int = total) -> None:
            if progress:
                progress(done + rows, total)

        count_gram([words[group] for group in groups], into=gram, threads=threads, progress=report)
        made.append(Design(count, gram))
    return made


def holdout_design(words: Sequence[Words], runs: Sequence[int]) -> Design:
    """The design of the holdout runs: their words alone."""
    half = len(words) // 2
    return Design(sum(runs[half:]), words=words[half:])


def run(
    stages: Sequence[Stage],
    designs: Sequence[Design],
    holdout: Design,
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
    holdout : Design
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
    of = functools.cache(moments)
    if parameters.solver != "gram":
        return _whole(stages, designs, holdout, of, shift, parameters, work)
    for stage, design in zip(stages, designs, strict=True):
        together = add([of(group) for group in stage.groups])
        if stage.name == "choose":
            check = add([of(len(stage.groups) + group) for group in stage.groups])
            result = path.choose_lams(design, holdout, together, check, shift, parameters, work)
        elif stage.name == "refit":
            path.refit_all(design, together, shift, parameters, result, work)
        else:
            path.fit_part(
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
            check = tuple(len(stage.groups) + group for group in stage.groups)
            result = own_path.choose_lams(own, stage.groups, check, parameters, work)
        elif stage.name == "refit":
            own_path.refit_all(own, stage.groups, parameters, result, work)
        else:
            own_path.fit_part(
                stage.name, stage.number, stage.share, own, stage.groups, parameters, result, work
            )
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
    return schema.group_spec("datamodels").arrays[name].dims.index("target")


def _whole(
    stages: Sequence[Stage],
    designs: Sequence[Design],
    holdout: Design,
    moments: Callable[[int], Moments],
    shift: NDArray[np.float64],
    parameters: Parameters,
    work: Work,
) -> Arrays:
    """All stages of a block by a solver that knows only whole blocks."""
    said = [add([moments(group) for group in stage.groups]) for stage in stages]
    check = add([moments(len(stages[0].groups) + group) for group in stages[0].groups])
    return solvers.load(parameters.solver)(
        path.Designs(designs[0], holdout, designs[1], tuple(designs[2:4]), tuple(designs[4:])),
        path.Outputs(said[0], check, said[1], shift, tuple(said[2:4]), tuple(said[4:])),
        parameters,
        threads=work.threads,
    )


def add(parts: Sequence[_Statistic]) -> _Statistic:
    """The statistic of all runs of some groups."""
    return functools.reduce(lambda a, b: a + b, parts)
