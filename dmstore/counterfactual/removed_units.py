"""Which train units a removal check leaves out, and which targets it looks at: from fits alone, never from its own models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dmstore.analysis.comparison.codes import direction_code, direction_place
from dmstore.errors import InputError, NotFoundError, plain
from dmstore.study import results
from dmstore.study.study import Study

ENDS = ("top", "bottom")
# Targets whose weights are read at once.
_BLOCK = 256


@dataclass(frozen=True)
class Choice:
    """What is left out, and what is looked at.

    Attributes
    ----------
    name : str
        Such as ``top 5 % of direction A1``.
    units : (unit,) int64
        Positions of train units, the heaviest first.
    targets : (target,) int64
        Positions of targets.
    target_set : str
    output : str
    weight : dict
        Of each algorithm the mean weights of these targets, (train,) float64.
    fits : dict
        Of each algorithm the fit that these are of.
    where : str
        The comparison or algorithm that the result is kept with; ends in ``/``.
    """

    name: str
    units: NDArray[np.int64]
    targets: NDArray[np.int64]
    target_set: str
    output: str
    weight: dict[str, NDArray[np.float64]]
    fits: dict[str, str]
    where: str


def choose(
    study: Study,
    algorithms: Sequence[str],
    *,
    direction: str | None,
    target: object,
    share: float,
    end: str,
    comparison: str | None = None,
) -> Choice:
    """Units by their weight in a direction of a comparison, or in the datamodel of a target.

    Parameters
    ----------
    study : Study
    algorithms : sequence of str
    direction : str, optional
        ``A1``: the first direction of the comparison's first algorithm.
    target : optional
        The id of a target instead.
    share : float
        Of the train units, in percent.
    end : {"top", "bottom"}
    comparison : str, optional
        By its name; the newest of the two by default.

    Returns
    -------
    Choice

    Raises
    ------
    InputError
        If the share is out of (0, 50], not one of direction and target is given, or a target is a train unit.
    NotFoundError
        If there is no such direction, target, fit or comparison.
    """
    if not 0 < share <= 50:
        msg = f"share {share:g} %: give more than 0 and at most 50"
        raise InputError(msg)
    if end not in ENDS:
        msg = f"end {end!r} is not allowed; give {' or '.join(ENDS)}"
        raise InputError(msg)
    if (direction is None) == (target is None):
        msg = "give a direction or a target, and one of the two"
        raise InputError(msg)
    if not algorithms or len(set(algorithms)) < len(algorithms):
        msg = f"{', '.join(algorithms) or 'no algorithm'}: give one algorithm or more, each once"
        raise InputError(msg)
    for name in algorithms:
        study.algorithm(name)
    if direction is not None:
        return _of_direction(study, algorithms, direction, share, end, comparison)
    return _of_target(study, algorithms, str(target), share, end, comparison)


def _of_direction(
    study: Study,
    algorithms: Sequence[str],
    direction: str,
    share: float,
    end: str,
    comparison: str | None,
) -> Choice:
    if len(algorithms) != 2:
        msg = f"direction {direction}: give the two algorithms that were compared"
        raise InputError(msg)
    a, b = algorithms
    document = results.newest_comparison(study.objects, a, b, comparison)
    compared = study.comparison(a, b, document["comparison"])
    place = direction_place(direction)
    count = compared.sizes["component"]
    if not place or place[1] >= count:
        there = ", ".join(
            f"{direction_code(row, 0)} to {direction_code(row, count - 1)} ({name})"
            for row, name in enumerate(document["algorithms"])
        )
        msg = f"direction '{plain(direction)[:40]}' is none of the comparison's: {there}"
        raise NotFoundError(msg)
    at = dict(zip(("algorithm", "component"), place, strict=True))
    weight = np.asarray(compared["direction"].isel(at).values, dtype=np.float64)
    chosen = compared["subpopulation"].isel({**at, "end": ENDS.index(end)}).values
    fits = dict(zip(document["algorithms"], document["fits"], strict=True))
    return _choice(
        study,
        f"{end} {share:g} % of direction {direction}",
        _ranked(weight, share, end),
        np.asarray(chosen[chosen >= 0], dtype=np.int64),
        {name: fits[name] for name in algorithms},
        f"comparisons/{document['comparison']}/",
    )


def _of_target(
    study: Study,
    algorithms: Sequence[str],
    target: str,
    share: float,
    end: str,
    comparison: str | None,
) -> Choice:
    first = study.newest_fit(algorithms[0])
    fits = {name: study.newest_fit(name, output=first["output"])["fit"] for name in algorithms[1:]}
    ids = study.ids(first["target_set"])
    places = np.flatnonzero(ids.astype(str) == target)
    if not len(places):
        known = ", ".join(map(str, ids[:3].tolist()))
        msg = f"target '{plain(target)[:100]}' is not among the {len(ids)} targets of {algorithms[0]!r}, whose ids are such as {known}"
        raise NotFoundError(msg)
    weights = study.datamodels(algorithms[0], first["fit"])["weight"].isel(target=int(places[0]))
    where = f"algorithms/{algorithms[0]}/removals/"
    if comparison is not None and len(algorithms) < 2:
        msg = f"comparison {comparison!a} is of two algorithms; give both, or leave comparison out"
        raise InputError(msg)
    if len(algorithms) > 1:
        try:
            compared = results.newest_comparison(
                study.objects, algorithms[0], algorithms[1], comparison
            )
            where = f"comparisons/{compared['comparison']}/"
        except NotFoundError:
            if comparison is not None:
                raise
    return _choice(
        study,
        f"{end} {share:g} % of target {plain(target)[:100]}",
        _ranked(np.asarray(weights.values, dtype=np.float64), share, end),
        places.astype(np.int64),
        {algorithms[0]: first["fit"], **fits},
        where,
    )


def _choice(
    study: Study,
    name: str,
    units: NDArray[np.int64],
    targets: NDArray[np.int64],
    fits: dict[str, str],
    where: str,
) -> Choice:
    documents = {one: study.newest_fit(one, fit) for one, fit in fits.items()}
    first = next(iter(documents.values()))
    for one, document in documents.items():
        if document["target_set"] != first["target_set"]:
            msg = f"the fit of {one!r} is on target set {document['target_set']!r}, another than {first['target_set']!r}; give algorithms of one target set"
            raise InputError(msg)
        if study.algorithm(one).target_set != document["target_set"]:
            msg = f"the fit of {one!r} is on target set {document['target_set']!r}; models that are trained anew say their outputs on {study.algorithm(one).target_set!r} alone"
            raise InputError(msg)
        if "class" in study.algorithm(one).outputs[first["output"]]["dims"]:
            msg = f"output {first['output']!r} of {one!r} has a value a class; give fits of an output with one value a target"
            raise InputError(msg)
    if (study.target_train(first["target_set"])[targets] >= 0).any():
        msg = f"{name}: a target is a train unit, and models without the units see it more often than controls do, which moves its output whatever was left out; take algorithms on targets that are no train units"
        raise InputError(msg)
    weight = {}
    for one, fit in fits.items():
        rows = study.datamodels(one, fit)["weight"]
        total = np.zeros(rows.sizes["train"])
        for start in range(0, len(targets), _BLOCK):
            block = rows.isel(target=targets[start : start + _BLOCK]).values
            total += block.sum(axis=0, dtype=np.float64)
        weight[one] = total / len(targets)
    return Choice(name, units, targets, first["target_set"], first["output"], weight, fits, where)


def _ranked(weight: NDArray[np.float64], share: float, end: str) -> NDArray[np.int64]:
    """Positions of so many percent of the units, one at least, the heaviest at an end first."""
    count = max(1, round(share / 100 * len(weight)))
    signed = weight if end == "top" else -weight
    order = np.argsort(-signed, kind="stable")[:count]
    positive = int((signed[order] > 0).sum())
    if positive < count:
        msg = f"{share:g} % are {count} train units, but only {positive} have a weight at the {end}; give a share up to {100 * positive / len(weight):.3g}"
        raise InputError(msg)
    return np.asarray(order, dtype=np.int64)
