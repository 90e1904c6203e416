"""What is known of the examples that scores are about: ids, labels, images, class names."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dmstore.core.given import local_path
from dmstore.study import examples as example_sets
from dmstore.study.algorithm import ANCHOR
from dmstore.study.study import open_study

if TYPE_CHECKING:
    import xarray as xr


@dataclass(frozen=True)
class Labels:
    """Examples of a comparison; a :class:`dmstore.study.study.Study` has the same three attributes.

    Attributes
    ----------
    train, targets : xarray.Dataset
        Index coordinate ``train`` or ``target``; ``label``, ``image`` and whatever is one value per example.
    class_names : list of str
        Empty where there are no labels.
    about : dict
        Where it came from.
    """

    train: xr.Dataset
    targets: xr.Dataset
    class_names: list[str]
    about: dict[str, Any] = field(default_factory=dict)


def read_labels(source: str | Path) -> Labels:
    """Read examples from an ``.npz`` examples file or from a study.

    Raises
    ------
    InputError
        If the file cannot be used.
    StudyNotFoundError
        If a directory is no study.
    """
    path = local_path(source)
    if path.is_dir() or path.name == ANCHOR:
        study = open_study(path if path.is_dir() else path.parent)
        about = {"source": Path(study.path).resolve().name, "study": study.uuid}
        return Labels(study.train, study.targets, study.class_names, about)
    arrays = example_sets.read_npz(path)
    sets = example_sets.check(arrays, str(path))
    if "name" in sets["class"]:
        names = [str(name) for name in sets["class"]["name"]]
    else:
        labels = [sets[key]["label"] for key in ("train", "test") if "label" in sets[key]]
        most = max((int(one.max()) for one in labels), default=-1)
        names = [str(number) for number in range(most + 1)]
    return Labels(
        _dataset(sets["train"], "train"),
        _dataset(sets["test"], "target"),
        names,
        {"source": path.name, "content": _digest(arrays)},
    )


def _digest(arrays: dict[str, NDArray[Any]]) -> str:
    """sha256 of what a file holds: an archive of the same arrays written later has other bytes."""
    state = hashlib.sha256()
    for name in sorted(arrays):
        values = np.ascontiguousarray(arrays[name])
        state.update(f"{name} {values.dtype.str} {values.shape};".encode())
        state.update(values.tobytes())
    return state.hexdigest()


def positions(train: int, targets: int) -> Labels:
    """Examples of which nothing is known but how many there are."""
    import xarray as xr

    return Labels(
        xr.Dataset(coords={"train": np.arange(train)}),
        xr.Dataset(coords={"target": np.arange(targets)}),
        [],
    )


def _dataset(columns: dict[str, NDArray[Any]], dim: str) -> xr.Dataset:
    import xarray as xr

    kept = {
        name: ((dim, *(f"{name}_axis{axis}" for axis in range(1, values.ndim))), values)
        for name, values in columns.items()
        if name == "image" or (values.ndim == 1 and name not in example_sets.RESERVED)
    }
    return xr.Dataset(kept, coords={dim: example_sets.coordinate(columns["id"])})
