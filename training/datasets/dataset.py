"""What a data set gives: columns of train units and targets, and how many of each class are kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmstore.errors import InputError

Columns = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Examples:
    """A data set as :func:`dmstore.create_study` takes it.

    Attributes
    ----------
    arrays : dict
        ``train_…``, ``target_…`` and ``class_name``.
    target_sets : dict
        Further target sets: name to columns.
    notes : list of str
        What is unusual, for people.
    """

    arrays: Columns
    target_sets: dict[str, Columns] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Listed:
    """The images of a set that are files.

    Attributes
    ----------
    files : list of str
        Paths relative to the data set's folder, with ``/``.
    columns : dict
        Name to one value a file; ``label`` among them.
    ids : list of str, optional
        Where they are not the paths.
    """

    files: list[str]
    columns: Columns
    ids: list[str] | None = None


def by_prefix(train: Columns, test: Columns, class_names: Sequence[str]) -> Columns:
    """Columns of both sets by the names that an examples file has."""
    return {
        **{f"train_{name}": values for name, values in train.items()},
        **{f"target_{name}": values for name, values in test.items()},
        "class_name": np.array(class_names),
    }


def first_of_each(labels: NDArray[Any], limit: int | None) -> NDArray[np.int64]:
    """Positions of the first `limit` examples of each class, in order; of all without a limit.

    Raises
    ------
    InputError
        If the limit is below 1.
    """
    if limit is None:
        return np.arange(len(labels))
    if limit < 1:
        msg = f"limit {limit} is not allowed; give 1 or more examples a class"
        raise InputError(msg)
    kept = [np.flatnonzero(labels == label)[:limit] for label in np.unique(labels)]
    return np.sort(np.concatenate(kept)) if kept else np.arange(0)


def limited(listed: Listed, limit: int | None) -> Listed:
    """A set with the first `limit` files of each class."""
    kept = first_of_each(listed.columns["label"], limit)
    return Listed(
        [listed.files[place] for place in kept],
        {name: values[kept] for name, values in listed.columns.items()},
        None if listed.ids is None else [listed.ids[place] for place in kept],
    )
