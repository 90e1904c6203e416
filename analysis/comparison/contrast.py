"""How much one more train unit of a group moves groups of targets, under one algorithm or two: no fit is needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from dmstore.analysis.comparison.groups import Groups, Side, is_file, named_groups, read_groups
from dmstore.analysis.experiment.effects import Fits, effects
from dmstore.analysis.experiment.inference import discovery_rates, two_sided
from dmstore.analysis.experiment.reading import pin, read_arms
from dmstore.core.given import threads_of
from dmstore.core.progress import Progress, counting
from dmstore.core.threads import blas_threads
from dmstore.errors import InputError
from dmstore.study.algorithm import Algorithm
from dmstore.study.study import Study, check_opened

Given = str | Sequence[str] | Mapping[str, Any]
# What stands in an output's declaration and says what a number of it means.
_MEANING = ("function", "orientation", "units")


def contrast(
    study: Study,
    a: str,
    b: str | None = None,
    *,
    by: Given | None = None,
    train_by: Given | None = None,
    targets_by: Given | None = None,
    output: str | None = None,
    fdr: float = 0.05,
    fits: bool = True,
    threads: int | None = None,
    progress: Progress | None = None,
) -> xr.Dataset:
    """How much one more train unit of a group moves the mean output of a group of targets.

    Measured on the runs as they are, for any output, with no fit. Masks of one size hold a fixed number of units, so
    that the effect is that of one more unit of the group in the place of another, drawn at random from all others; where
    masks draw each unit by itself, it is that of one more unit. For targets that are train units, only runs that did not
    see them count. Nothing is stored beyond the base that the runs are brought into, if they are not in one yet.

    Parameters
    ----------
    study : Study
    a : str
        An algorithm; it needs no fit.
    b : str, optional
        Another, of the same target set: then the difference is measured too.
    by : str, list of str or mapping
        Groups of train units, and of targets as far as these have the annotations, else all targets in one group: names of
        annotations, all of whose values are groups (``"marked"``); conditions (``"marked=true"``, ``"age<3"``,
        ``"label=nine & marked=false"``); files, of ids (``.txt``, one a line) or of a direction, a number a train unit
        (``.npy``, or ``.csv`` of id and value). Or name to (train,) bool or numbers, of train units alone.
    train_by : str, list of str or mapping, optional
        The same for train units alone, in place of `by`.
    targets_by : str, list of str or mapping, optional
        The same for targets alone, in place of `by`, without directions.
    output : str, optional
        ``margin`` by default, or the only one that there is.
    fdr : float
        False discovery rate at which ``beyond_chance`` is told.
    fits : bool
        Whether to take the fits of one half of the masks off the outputs of the other, where there are any: it makes
        intervals narrower and moves nothing.
    threads : int, optional
        All cores by default.
    progress : callable, optional
        Called with ``masks`` or ``contrast``, steps done and steps in all.

    Returns
    -------
    xarray.Dataset
        Dims ``of`` (A, B and ``A - B``, or A alone), ``train_group`` and ``target_group``: ``effect`` in units of the
        output, ``standard_error``, ``low`` and ``high`` (95 %), ``p`` (two-sided), ``q`` (Benjamini-Hochberg over all
        pairs of groups, each of `of` by itself) and ``beyond_chance``. ``train_count``, ``target_count``: members.
        ``masks`` (algorithm): how many were measured on. Attributes: ``output`` and what its numbers mean,
        ``orientation`` among it; ``fits`` that were taken off; ``notes``, a list of lines that a reader should know.

    Raises
    ------
    InputError
        If groups cannot be made or have no effect to measure, the output is not one number per target or not that of both
        algorithms, target sets differ, or there are too few masks.
    NotFoundError
        If there is no such algorithm.
    """
    check_opened(study)
    if not (isinstance(fdr, int | float) and 0 < fdr < 1):
        msg = f"fdr {fdr!r}: give a number between 0 and 1"
        raise InputError(msg)
    names = [a] if b is None else [a, b]
    if a == b:
        msg = f"contrasting {a!r} with itself tells nothing; name another, or one alone"
        raise InputError(msg)
    algorithms = [study.algorithm(name) for name in names]
    _check_target_sets(algorithms)
    chosen = _output(algorithms, output)
    sides, groups = _groups(study, algorithms[0].target_set, by, train_by, targets_by)
    count = threads_of(threads)
    pinned = tuple(pin(study, name) for name in names)
    with blas_threads(count):
        arms = read_arms(study, pinned, chosen, threads=count, progress=counting(progress, "masks"))
        kept = [_fits(study, name, chosen) if fits else None for name in names]
        measured = effects(
            arms,
            groups[0].array(),
            groups[1].array(),
            means=np.array(groups[0].means),
            fits=[None if one is None else one[1] for one in kept],
            planned=[one.planned for one in algorithms],
            names=groups[0].names,
            threads=count,
            progress=counting(progress, "contrast"),
        )
    p, low, high = two_sided(measured.estimate, measured.error, measured.freedom)
    q = np.array([discovery_rates([one.ravel()])[0].reshape(one.shape) for one in p])
    dims = ("of", "train_group", "target_group")
    arrays = {
        "effect": measured.estimate,
        "standard_error": measured.error,
        "low": low,
        "high": high,
        "p": p,
        "q": q,
        "beyond_chance": q <= fdr,
    }
    notes = [note for one in groups for note in one.notes]
    for i, algorithm in enumerate(algorithms):
        notes += _notes(algorithm.name, measured.together[i], groups[0].names)
        if fits and kept[i] is None:
            notes.append(
                f"{algorithm.name}: no fit of {chosen!r} with halves, and none is needed; one may make intervals narrower"
            )
    if b is not None and algorithms[0].alpha != algorithms[1].alpha:
        notes.append(
            f"{a} and {b} have alpha {algorithms[0].alpha} and {algorithms[1].alpha}: where outputs are not linear in what is "
            f"seen, effects around other shares of the training set differ though the algorithms do not"
        )
    entry = algorithms[0].outputs[chosen]
    return xr.Dataset(
        {
            **{name: (dims, values) for name, values in arrays.items()},
            "train_count": ("train_group", (groups[0].array() != 0).sum(axis=0)),
            "target_count": ("target_group", (groups[1].array() != 0).sum(axis=0)),
            "masks": ("algorithm", [sum(arm.count for arm in one) for one in arms]),
        },
        coords={
            "of": [*names, *([f"{a} - {b}"] if b is not None else [])],
            "algorithm": names,
            "train_group": groups[0].names,
            "target_group": groups[1].names,
        },
        attrs={
            "output": chosen,
            **{key: value for key, value in entry.items() if key in _MEANING},
            "study": study.uuid,
            "target_set": sides[1].name,
            "content_ids": [one.content_id for one in pinned],
            "fits": [
                one[0] if one is not None and used else ""
                for one, used in zip(kept, measured.fitted, strict=True)
            ],
            "fdr": float(fdr),
            "notes": notes,
        },
    )


def _check_target_sets(algorithms: Sequence[Algorithm]) -> None:
    sets = [one.target_set for one in algorithms]
    if len(set(sets)) > 1:
        msg = f"{algorithms[0].name!r} has outputs on target set {sets[0]!r}, {algorithms[1].name!r} on {sets[1]!r}; contrast algorithms of one target set"
        raise InputError(msg)


def _measurable(algorithm: Algorithm) -> list[str]:
    """Outputs that are one number per target: a class index is none."""
    return [
        name
        for name, entry in algorithm.outputs.items()
        if list(entry["dims"]) == ["run", "target"] and entry.get("orientation") != "none"
    ]


def _output(algorithms: Sequence[Algorithm], output: str | None) -> str:
    """The output to measure, which all algorithms must have."""
    known = [_measurable(one) for one in algorithms]
    common = [name for name in known[0] if all(name in one for one in known)]
    if output is None and ("margin" in common or len(common) == 1):
        return "margin" if "margin" in common else common[0]
    if output in common:
        entries = [one.outputs[output] for one in algorithms]
        for key in _MEANING:
            said = [entry.get(key) for entry in entries]
            if len(set(map(str, said))) > 1:
                msg = f"output {output!r} has {key} {said[0]!r} in {algorithms[0].name!r} and {said[1]!r} in {algorithms[1].name!r}; contrast outputs that mean the same"
                raise InputError(msg)
        return output
    listed = "; ".join(
        f"{one.name!r} has {', '.join(names) or 'none'}"
        for one, names in zip(algorithms, known, strict=True)
    )
    what = (
        "several outputs could be measured"
        if output is None and common
        else "no output with one number per target"
    )
    if output is not None:
        what = f"output {output!r} is not one number per target that can be measured"
    both = " of both" if len(algorithms) > 1 and not (output is None and common) else ""
    msg = f"{what}{both} ({listed}); name one with --output"
    raise InputError(msg)


def _groups(
    study: Study,
    target_set: str,
    by: Given | None,
    train_by: Given | None,
    targets_by: Given | None,
) -> tuple[tuple[Side, Side], tuple[Groups, Groups]]:
    """Both sides and their groups."""
    units = Side("train", "train unit", study.train, study.ids("train"), study.class_names)
    data = study.target_set(target_set)
    others = Side(target_set, "target", data, study.ids(target_set), study.class_names)
    given = by if train_by is None else train_by
    of_train = Groups() if given is None else _made(units, given)
    if not of_train.names:
        msg = (
            "no group of train units; name an annotation, a condition or a file, such as --by label"
        )
        raise InputError(msg)
    if targets_by is not None:
        of_targets = _made(others, targets_by)
    else:
        both = train_by if by is None else by
        specs = () if both is None or isinstance(both, Mapping) else _listed(both)
        of_targets = read_groups(others, [spec for spec in specs if _on(others, spec)])
    if not of_targets.names:
        everything = Groups()
        everything.add("all targets", np.ones(len(others.ids), dtype=bool))
        return (units, others), (of_train, everything)
    return (units, others), (of_train, of_targets)


def _listed(given: str | Sequence[str]) -> list[str]:
    return [given] if isinstance(given, str) else [str(one) for one in given]


def _made(side: Side, given: Given) -> Groups:
    if isinstance(given, Mapping):
        return named_groups(side, given)
    return read_groups(side, _listed(given))


def _on(side: Side, spec: str) -> bool:
    """Whether a group of train units names one of targets too: a file is of train units alone."""
    from dmstore.study.selection import Condition

    if is_file(spec):
        return False
    columns = [
        Condition.parse(part).column if any(sign in part for sign in "=<>") else part
        for part in spec.split(" & ")
    ]
    return all(column in side.annotations() for column in columns)


def _fits(study: Study, name: str, output: str) -> tuple[str, Fits] | None:
    """The newest finished fit that has halves, and its rows."""
    for document in reversed(study.fits(name)):
        if document["complete"] and document["output"] == output:
            data = study.datamodels(name, document["fit"])
            if "weight_half" in data:
                return document["fit"], _rows(data["weight_half"])
    return None


def _rows(weight: xr.DataArray) -> Fits:
    """Rows of the fits of a half, as they are asked for."""

    def rows(half: int, start: int, stop: int) -> Any:
        from scipy.sparse import csr_array

        return csr_array(np.asarray(weight.isel(half=half, target=slice(start, stop)).values))

    return rows


def _notes(name: str, together: Any, groups: Sequence[str]) -> list[str]:
    """What is to be known of one algorithm's masks."""
    which = [group for group, one in zip(groups, together, strict=True) if one]
    if not which:
        return []
    more = f" and {len(which) - 3} more" if len(which) > 3 else ""
    return [
        f"{name}: masks do not draw the units of {', '.join(which[:3])}{more} by themselves; the effect is that of the group "
        f"together with what it is drawn with"
    ]
