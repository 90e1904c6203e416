"""Under which conditions runs were trained, and how well: where conditions are mixed, runs differ by more than their masks and seeds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmstore.errors import DmstoreError
from dmstore.storage.table.view import View
from dmstore.study.algorithm import Algorithm

# Columns that the recipes' task adds to its runs, each with how to hold one value.
_HELD = {
    "precision": "'dmstore add … --set precision=float32' holds one",
    "loader": "'dmstore add … --set loader=NAME' holds one",
    "device": "train on one kind of device",
}
# Only there these words mean conditions: in other runs a device may be a number of a GPU.
_TASKS = "dmstore.training.tasks:"
# Each is opened to read its columns.
_MOST_SEGMENTS = 200

Conditions = dict[str, dict[str, int]]


def stored(algorithm: Algorithm, view: View | None = None) -> Conditions:
    """Under which conditions the stored runs of a recipe were trained; nothing but their columns is read.

    Parameters
    ----------
    algorithm : Algorithm
    view : View, optional
        Its runs; by default those of now.

    Returns
    -------
    dict
        ``precision``, ``loader`` and ``device`` to value to number of runs, the most first, as far as runs say it. Empty for tasks
        of others, where very many segments wait for 'dmstore compact', or where the columns cannot be read, which 'dmstore verify'
        tells.
    """
    if not (algorithm.task or "").startswith(_TASKS):
        return {}
    made: Conditions = {}
    for name, column in _read(
        algorithm.table.view() if view is None else view, list(_HELD)
    ).items():
        values, counts = np.unique(column.astype(str), return_counts=True)
        pairs = sorted(zip(counts.tolist(), values.tolist(), strict=True), reverse=True)
        made[name] = {value: count for count, value in pairs if value}
    return made


def accuracy(algorithm: Algorithm, view: View | None = None) -> dict[str, float] | None:
    """How accurate the stored runs are, by their column ``accuracy``, which recipes have and loops of one's own may.

    Parameters
    ----------
    algorithm : Algorithm
    view : View, optional
        Its runs; by default those of now.

    Returns
    -------
    dict or None
        ``mean`` and ``least``, in the column's own unit, over runs where it is a number; None where there are none, or as in :func:`stored`.
    """
    read = _read(algorithm.table.view() if view is None else view, ["accuracy"])
    values = read.get("accuracy", np.zeros(0))
    known = values[np.isfinite(values)] if values.dtype.kind in "fi" else np.zeros(0)
    return {"mean": float(known.mean()), "least": float(known.min())} if len(known) else None


def accuracy_text(known: Mapping[str, float]) -> str:
    """The same in words."""
    return f"accuracy {known['mean']:.3g} on average, {known['least']:.3g} at least"


def _read(view: View, names: list[str]) -> Mapping[str, NDArray[Any]]:
    """Those of these columns that the runs have; none where reading them would take long."""
    there = [name for name in names if name in view.columns]
    if not there or len(view.segments) > _MOST_SEGMENTS:
        return {}
    try:
        return view.read(there)
    except (DmstoreError, FileNotFoundError):
        return {}


def mixed(conditions: Conditions) -> Iterator[str]:
    """What is mixed among stored runs, a line for each condition, with the remedy."""
    for name, counts in conditions.items():
        if len(counts) > 1:
            yield f"unlike {name}: {_counted(counts)}; {_HELD[name]}"


def unlike(conditions: Conditions, own: Mapping[str, str]) -> Iterator[str]:
    """Where stored runs were trained otherwise than a worker will train, a line for each condition, with the remedy.

    Parameters
    ----------
    conditions : dict
        From :func:`stored`.
    own : mapping
        Of the worker: the same names to its value.
    """
    for name, value in own.items():
        others = {other: n for other, n in conditions.get(name, {}).items() if other != value}
        if others:
            yield f"stored runs have {name} {_counted(others)}, those of this worker will have {value}; {_HELD[name]}"


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(
        f"{value} ({count} {'run' if count == 1 else 'runs'})" for value, count in counts.items()
    )
