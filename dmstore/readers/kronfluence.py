"""Pairwise scores of kronfluence: ``scores_<name>/pairwise_scores.safetensors``, [query, train].

One matrix, ``all_modules``, or one a module, whose sum is the score.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmstore.core.npy import Header
from dmstore.errors import InputError
from dmstore.readers.files import FileArray

FILE = "pairwise_scores.safetensors"
ALL = "all_modules"
_PREFIX = "scores_"


def is_folder(path: Path) -> bool:
    """Whether kronfluence saved pairwise scores there, or in a folder ``scores_…`` of it."""
    return (path / FILE).is_file() or bool(_folders(path))


def _folders(path: Path) -> dict[str, Path]:
    return {
        file.parent.name.removeprefix(_PREFIX): file
        for file in sorted(path.glob(f"{_PREFIX}*/{FILE}"))
        if file.is_file()
    }


def find(folder: Path, experiment: str | None = None) -> Path:
    """The file of pairwise scores.

    Parameters
    ----------
    folder : path
        ``scores_<name>``, or the analysis that has such folders.
    experiment : str, optional
        The name, needed where there are several.

    Raises
    ------
    InputError
        If there are several and none is named, or no such one.
    """
    if experiment is None and (folder / FILE).is_file():
        return folder / FILE
    places = _folders(folder)
    names = ", ".join(places)[:300] or "none"
    if experiment is None and len(places) != 1:
        msg = f"{folder}: holds {len(places)} pairwise scores of kronfluence ({names}); name one with --experiment"
        raise InputError(msg)
    name = experiment if experiment is not None else next(iter(places))
    if name not in places:
        msg = f"{folder}: has no pairwise scores {name!r} of kronfluence; it has {names}"
        raise InputError(msg)
    return places[name]


class Modules:
    """Scores of several modules, summed.

    Parameters
    ----------
    path : Path
    arrays : mapping
        A matrix a module.

    Attributes
    ----------
    headers : dict
        Of ``all_modules``, which is the sum.

    Raises
    ------
    InputError
        If their shapes differ.
    """

    def __init__(self, path: Path, arrays: Mapping[str, FileArray]) -> None:
        shapes = {array.shape for array in arrays.values()}
        if len(shapes) != 1:
            msg = f"{path}: its modules have scores of shapes {', '.join(map(str, sorted(shapes)))}, so they have no sum; name one with --key"
            raise InputError(msg)
        self._arrays = arrays
        self.count = len(arrays)
        self.headers = {ALL: Header(shapes.pop(), np.dtype(np.float32))}

    def load(self, name: str) -> NDArray[Any]:
        """The sum, (query, train) float32, added in float64."""
        total = np.zeros(self.headers[name].shape)
        for array in self._arrays.values():
            total += array.whole()
        return total.astype(np.float32)
