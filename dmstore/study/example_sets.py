"""The sets of examples of a study, opened: ids, labels, annotations, and the units that targets are."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict

import numpy as np
from numpy.typing import NDArray

from dmstore.core.texts import text
from dmstore.errors import ExistsError, InputError, StudyNotFoundError
from dmstore.schema.typed_documents import StudyDocument
from dmstore.storage.objects.objects import Objects
from dmstore.storage.table import groups
from dmstore.study import annotation, target_sets
from dmstore.study.examples import read_ids
from dmstore.study.target_sets import TargetSet

if TYPE_CHECKING:
    import xarray as xr


class ExampleSet(TypedDict):
    """A set as it is stored: where its group is, and whether it was added later. Classes have no ids."""

    count: int
    sha256: NotRequired[str]
    path: str
    later: bool


class ExampleSets:
    """Train units, target sets and classes of a study; each set is opened once.

    Parameters
    ----------
    objects : Objects
        The study's storage.
    document : dict
        ``study.json``.
    """

    def __init__(self, objects: Objects, document: StudyDocument) -> None:
        self._objects = objects
        self._document = document
        # Ids and annotations do not change but by annotate.
        self._opened: dict[str, xr.Dataset] = {}

    def __getitem__(self, name: str) -> xr.Dataset:
        name = target_sets.canonical(name)
        if name not in self._opened:
            entry = self.entry(name)
            own = entry["path"] if entry["later"] else None
            dim = name if name in ("train", "class") else "target"
            self._opened[name] = annotation.dataset(self._objects, name, self.ids(name), dim, own)
        return self._opened[name]

    def all_targets(self) -> dict[str, TargetSet]:
        """All target sets: name to ``count``, ``sha256``, ``path`` and ``later``."""
        return target_sets.read_all(self._objects, self._document)

    def entry(self, name: str) -> ExampleSet:
        """Count, hash of the ids, and place of a set; NotFoundError if there is none."""
        name = target_sets.canonical(name)
        if name == "train":
            return {**self._document["train"], "path": "examples/train.zarr", "later": False}
        if name == "class":
            count = self._document.get("classes", 0)
            return {"count": count, "path": "examples/class.zarr", "later": False}
        return {**target_sets.require(self._objects, self._document, name)}

    @functools.cached_property
    def class_names(self) -> list[str]:
        """Names of the classes; their numbers where the study has no names."""
        where = annotation.names(self._objects, "class").get("name")
        if where:
            return [str(name) for name in groups.read(self._objects, where, ["value"])["value"]]
        return [str(number) for number in range(self._document.get("classes", 0))]

    def class_number(self, text: str) -> int:
        """Number of a class given by its name or number; InputError if there is none, or several."""
        names = self.class_names
        numbers = [number for number, name in enumerate(names) if name == text]
        if len(numbers) > 1:
            msg = f"class {text!r} is the name of classes {' and '.join(map(str, numbers))}; give the number of one"
            raise InputError(msg)
        if numbers:
            return numbers[0]
        if text.isdecimal() and int(text) < len(names):
            return int(text)
        msg = f"class {text!r} is not in the study; it has {', '.join(names)} (classes 0 to {len(names) - 1})"
        raise InputError(msg)

    def ids(self, name: str) -> NDArray[np.str_]:
        """Ids of a set: (example,) str."""
        if name == "class":
            return text(self.class_names)
        entry = self.entry(name)
        try:
            return read_ids(self._objects, entry["path"], entry["count"], entry["sha256"])
        except FileNotFoundError:
            msg = f"{self._objects.url}: {entry['path']} is gone; the study was deleted or damaged"
            raise StudyNotFoundError(msg) from None

    def label(self, name: str) -> NDArray[np.int64]:
        """Class of each example of a set: (example,) int64; all 0 where it has no labels."""
        if "label" in self[name]:
            return np.asarray(self[name]["label"].values, dtype=np.int64)
        return np.zeros(len(self.ids(name)), dtype=np.int64)

    def target_train(self, name: str) -> NDArray[np.int64]:
        """The train unit that each target of a set is, -1 where it is none: (target,) int64."""
        entry = self.entry(name)
        arrays = groups.read(self._objects, entry["path"])
        nothing = np.full(entry["count"], -1)
        return np.asarray(arrays.get("target_train", nothing), dtype=np.int64)

    def labels(self, target_set: str) -> dict[str, Any]:
        """Coordinates that name train units and targets: ids and labels."""
        coords: dict[str, Any] = {}
        for dim, name in (("train", "train"), ("target", target_set)):
            coords[dim] = self[name][dim].values
            if "label" in self[name]:
                coords[f"{dim}_label"] = (dim, self[name]["label"].values)
        return coords

    def origin(self, name: str, column: str) -> dict[str, Any] | None:
        """What made an annotation; see :func:`dmstore.study.annotation.origin`."""
        self.entry(name)
        return annotation.origin(self._objects, name, column)

    def annotate(
        self,
        name: str,
        columns: Mapping[str, Any],
        *,
        dry_run: bool = False,
        made: Mapping[str, Any] | None = None,
    ) -> dict[str, str]:
        """Add annotations to a set, or say what adding them would do; see :meth:`dmstore.study.study.Study.annotate`."""
        name = target_sets.canonical(name)
        count, classes = self.entry(name)["count"], self._document.get("classes", 0)
        checked = annotation.check(name, count, columns, classes, f"annotation of {name}")
        own = self[name] if name not in ("train", "class") else {}
        came = own.keys() - annotation.names(self._objects, name).keys()
        for taken in sorted(checked.keys() & came):
            msg = f"annotation {taken!r} of {name!r} came with the set; annotations never change, choose another name"
            raise ExistsError(msg)
        if dry_run:
            return annotation.judge(self._objects, name, checked)
        done = annotation.add(self._objects, name, checked, made)
        self._opened.pop(name, None)
        self.__dict__.pop("class_names", None)
        return done
