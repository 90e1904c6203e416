"""A counterfactual check from stored outputs of models trained on all data, whoever trained and asked them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dmstore.core.progress import Count, Progress, counting
from dmstore.counterfactual.checking import ON, check_classes
from dmstore.counterfactual.confidence import PROBABILITY, Reading, chosen, confidence, reading
from dmstore.counterfactual.keeping import keep
from dmstore.errors import InputError
from dmstore.storage.table.view import View
from dmstore.study.dataset import read_rows
from dmstore.study.study import Study
from dmstore.study.target_outputs import joined, positions_of
from dmstore.study.target_sets import canonical

if TYPE_CHECKING:
    import xarray as xr

_BYTES = 128 << 20


@dataclass(frozen=True)
class Changed:
    """A transformed target set: which targets its examples were made of, and how strongly."""

    name: str
    of: str
    transformation: str
    intensity: float
    base: NDArray[np.int64]


def from_outputs(
    study: Study,
    algorithms: Sequence[str],
    target_sets: Sequence[str],
    label: int | str | Sequence[int | str],
    *,
    name: str | None = None,
    on: str = "all",
    output: str | None = None,
    progress: Progress | None = None,
) -> xr.Dataset:
    """Measure what a transformation does to classes under algorithms, from stored outputs of their full models.

    Parameters
    ----------
    study : Study
    algorithms : sequence of str
        Two or more; the result is kept beside the comparison of the first two.
    target_sets : sequence of str
        Transformed ones, each at another intensity, with the columns ``base`` (id of the target that an example was made
        of) and ``intensity``.
    label : int, str or sequence of these
        The class, or classes: numbers or names.
    name : str, optional
        What to call the transformation; by default as the sets call it.
    on : {"all", "others", "class"}
        The average is over all examples, as in the paper, over those of other classes than the one that is watched, or over
        those of it.
    output : str, optional
        Read confidence from this output; by default from the one that says most: ``logit`` and ``probability`` of every
        class, ``log_odds``, ``loss`` and ``margin`` of each target's label alone (with two classes, of both).
    progress : callable, optional
        Called with ``counterfactual``, sets done and sets in all.

    Returns
    -------
    xarray.Dataset
        As of :func:`dmstore.counterfactual.check`; attribute ``measure`` is ``margin`` where only margins say something
        of the class, and effects are in units of the output then.

    Raises
    ------
    InputError
        If a set is not a transformed one, two are not of one transformation, outputs are missing, or say nothing of the
        class.
    ExistsError
        If other numbers are kept under this name and class for the same question.
    """
    from dmstore.analysis.comparison.effect import Effects

    algorithms = list(dict.fromkeys(algorithms))
    if len(algorithms) < 2:
        msg = f"{', '.join(algorithms) or 'no algorithm'}: give two algorithms or more"
        raise InputError(msg)
    numbers, names = check_classes(study, label), study.class_names
    if on not in ON:
        msg = f"on {on!r} is not allowed; give {', '.join(ON)}"
        raise InputError(msg)
    sets = _sets(study, target_sets)
    common = {
        key: entry
        for key, entry in study.full_models(algorithms[0]).outputs.items()
        if all(key in study.full_models(other).outputs for other in algorithms)
    }
    how = reading(common, len(names), output)
    changed = [one for one in sets if one.intensity]
    intensity = [0.0, *(one.intensity for one in changed)]
    effects = Effects(algorithms, intensity, [names[number] for number in numbers])
    tell = counting(progress, "counterfactual")
    for row, algorithm in enumerate(algorithms):
        _measure(study, algorithm, sets, how, numbers, on, effects, tell, row * len(sets))
    called = name or sets[-1].transformation
    result = effects.dataset(numbers, clip=how.measure == PROBABILITY).assign_attrs(
        measure=how.measure, on=on, output=how.output, name=called
    )
    return result.assign_attrs(kept=keep(study, result, called))


def _sets(study: Study, names: Sequence[str]) -> list[Changed]:
    """The sets by intensity, one transformation of one set; the study's own comes first unless one has intensity 0."""
    sets = []
    for given in dict.fromkeys(names):
        name = canonical(given)
        targets = study.target_set(name)
        missing = [column for column in ("base", "intensity") if column not in targets]
        if missing:
            msg = f"target set {name!r} has no column {missing[0]!r}, so it is not known to be transformed; make it with 'dmstore targets {study.path} NAME --transform …', or add the columns base (ids) and intensity with 'dmstore annotate'"
            raise InputError(msg)
        one = {
            key: np.unique(targets[key].values)
            for key in targets
            if key in ("base_set", "transformation", "intensity")
        }
        mixed = [key for key, values in one.items() if len(values) != 1]
        if mixed:
            msg = (
                f"target set {name!r} has several values of {mixed[0]!r}; give one set an intensity"
            )
            raise InputError(msg)
        of = str(one["base_set"][0]) if "base_set" in one else "test"
        ids = study.ids(of)
        places = {one_id: row for row, one_id in enumerate(ids.tolist())}
        base = [places.get(str(one_id), -1) for one_id in targets["base"].values.tolist()]
        if -1 in base:
            gone = targets["base"].values[base.index(-1)]
            msg = f"target set {name!r}: base {str(gone)!a} is no target of {of!r}"
            raise InputError(msg)
        said = str(one["transformation"][0]) if "transformation" in one else name
        sets.append(Changed(name, of, said, float(one["intensity"][0]), np.array(base)))
    if not sets:
        msg = "no target set is given; name transformed target sets"
        raise InputError(msg)
    sets.sort(key=lambda one: one.intensity)
    for first, second in itertools.pairwise(sets):
        if first.intensity == second.intensity:
            msg = f"target sets {first.name!r} and {second.name!r} have one intensity, {first.intensity:g}; give one of them"
            raise InputError(msg)
        if first.of != second.of:
            msg = f"target set {first.name!r} was made of {first.of!r}, {second.name!r} of {second.of!r}; give sets of one origin"
            raise InputError(msg)
        kinds = {one.transformation for one in (first, second)} - {one.name for one in sets}
        if len(kinds) > 1:
            msg = f"target sets {first.name!r} and {second.name!r} are of {first.transformation!r} and {second.transformation!r}; give sets of one transformation"
            raise InputError(msg)
        if not np.array_equal(np.sort(first.base), np.sort(second.base)):
            msg = f"target sets {first.name!r} and {second.name!r} were made of other targets; an effect by intensity needs the same ones"
            raise InputError(msg)
    if not sets[-1].intensity:
        msg = f"target set {sets[-1].name!r} has intensity 0; give one that is transformed"
        raise InputError(msg)
    if sets[0].intensity:
        first = sets[0]
        sets.insert(0, Changed(first.of, first.of, first.transformation, 0.0, first.base))
    return sets


def _measure(
    study: Study,
    algorithm: str,
    sets: Sequence[Changed],
    how: Reading,
    numbers: Sequence[int],
    on: str,
    effects: Any,
    tell: Count,
    done: int,
) -> None:
    """Effects under one algorithm, over the models that have outputs on all sets."""
    views = [_outputs(study, algorithm, one) for one in sets]
    models = views[0][1]
    for _, others in views[1:]:
        models = models[np.isin(models, others)]
    if not len(models):
        msg = f"no full model of {algorithm!r} has outputs on all of {', '.join(one.name for one in sets)}"
        raise InputError(msg)
    first, last = sets[0], len(effects.algorithms) * len(sets)
    # By the order of the targets that they were made of, so that examples of all sets meet.
    orders = [np.argsort(one.base, kind="stable") for one in sets]
    where = [
        one.base[order] if one.name == one.of else order
        for one, order in zip(sets, orders, strict=True)
    ]
    labels = [study.label(one.name)[rows] for one, rows in zip(sets, where, strict=True)]
    names = study.class_names
    before: list[Any] = []
    for step, one in enumerate(sets):
        view, _ = views[step]
        values = _confidences(view, how, models, where[step], labels[step], numbers)
        if not step:
            before = values
        for column, number in enumerate(numbers):
            rows = chosen(how, labels[0], number, on, names[number])
            change = values[column][:, rows] - before[column][:, rows]
            if np.isnan(change).any():
                msg = f"target set {one.name!r} has other labels than {first.name!r}, so its {how.output!r} is of other classes; store logit"
                raise InputError(msg)
            effects.add(algorithm, step, column, change)
        tell(done + step + 1, last)


def _outputs(study: Study, algorithm: str, one: Changed) -> tuple[View, NDArray[np.int64]]:
    """Outputs of an algorithm's full models on a set, and the models that have them."""
    full = study.full_models(algorithm)
    models = full.table.view()
    if one.name == full.target_set:
        view, run = models, models.run
    else:
        view = study.target_outputs(algorithm, one.name, full=True).table.view()
        run = models.run[joined(models, view) >= 0]
    if not len(run):
        how = f"RunWriter(study, {algorithm!r}, full=N" + (
            ")" if one.name == full.target_set else f", target_set={one.name!r})"
        )
        option = "" if one.name == full.target_set else f" --targets {one.name}"
        msg = f"no outputs of full models of {algorithm!r} on {one.name!r} are stored; store them with {how}, or 'dmstore train {study.path} {algorithm} --full N{option}'"
        raise InputError(msg)
    return view, run


def _confidences(
    view: View,
    how: Reading,
    models: NDArray[np.int64],
    examples: NDArray[np.int64],
    label: NDArray[np.int64],
    numbers: Sequence[int],
) -> list[NDArray[np.float32]]:
    """What models say of each class on examples: (model, example) float32 of each, some models at a time."""
    position = positions_of(models, view.run)
    sizes = view.table.sizes
    row = (
        16
        * sizes["target"]
        * (sizes["class"] if "class" in view.table.spec.arrays[how.output].dims else 1)
    )
    step = max(1, _BYTES // row)
    parts: list[list[NDArray[np.float32]]] = [[] for _ in numbers]
    for start in range(0, len(models), step):
        values = read_rows(view, how.output, position[start : start + step])[:, examples]
        for column, number in enumerate(numbers):
            parts[column].append(confidence(how, values, label, number).astype(np.float32))
    return [np.concatenate(part) for part in parts]
