"""Which objects of a study's examples are published: ids, annotations, later target sets."""

from __future__ import annotations

import re
import tempfile

import numpy as np

from dmstore.storage.objects.local import LocalObjects
from dmstore.storage.objects.objects import Objects
from dmstore.storage.table import groups
from dmstore.study import annotation, target_sets
from dmstore.study import examples as example_sets
from dmstore.study.study import Study
from dmstore.study.target_sets import TargetSet

# Columns of data sets that say which file an image is, as its id does.
_NAMING = {"file", "filename", "digest"}


def collect(study: Study, *, images: bool, ids: bool) -> tuple[list[str], dict[str, bytes]]:
    """What to publish of a study's examples.

    Parameters
    ----------
    study : Study
    images : bool
        Whether images are taken along: columns called ``image``, and all that look like images (uint8
        with a height and a width).
    ids : bool
        Whether ids are; positions stand for them otherwise, and columns that name files or
        give their digests are left out.

    Returns
    -------
    names : list of str
        Objects to copy as they are.
    made : dict
        Name to content of the objects that are made for this purpose.
    """
    objects = study.objects
    later = {name: entry for name, entry in study.target_sets.items() if entry["later"]}
    made: dict[str, bytes] = {} if ids else _withheld(study)
    for entry in later.values():
        left_out = set() if images else _images(objects, entry["path"])
        left_out |= set() if ids else {f"annotation_{name}" for name in _NAMING}
        if left_out or not ids:
            made[entry["path"]] = _rewritten(objects, entry, left_out, ids=ids)
    sets = [f"examples/{name}.zarr/" for name in ("train", *study.document["targets"])]
    hidden = [] if ids else sets
    if not images:
        hidden += [
            f"{annotation.PLACE}{child}"
            for child in objects.children(annotation.PLACE)
            if annotation.parse(child) and _images(objects, f"{annotation.PLACE}{child}", child)
        ]
    if not ids:
        hidden += [
            f"{annotation.PLACE}{child}"
            for child in objects.children(annotation.PLACE)
            if (annotation.parse(child) or ("", ""))[1] in _NAMING
        ]
    named = {entry["path"] for entry in later.values()} - made.keys()
    names = [
        info.name
        for info in objects.entries("examples/")
        # A group that no document names is what a lost race left.
        if (info.name in named or not _is_set(info.name))
        and not info.name.startswith(tuple(hidden))
    ]
    return [*names, *(f"{target_sets.PLACE}{name}.json" for name in later)], made


def names_examples(where: str) -> bool:
    """Whether conditions on targets, as a comparison keeps them, are on ids or on columns that say which file an image is."""
    columns = "|".join(sorted({"target", *_NAMING}))
    return re.search(rf"(?:^|, )(?:{columns})(?:!=|<=|>=|=|<|>)", where) is not None


def _is_set(name: str) -> bool:
    """Whether an object is the group of a target set that was added later."""
    return name.count("/") == 1 and name.endswith(".zarr.zip")


def _images(objects: Objects, where: str, child: str = "") -> set[str]:
    """Arrays of a group of examples that are images, by their name or by their look."""
    _, called = annotation.parse(child) or ("", "")
    with example_sets.opened(objects, where) as group:
        return {
            name
            for name, array in group.arrays()
            if "image" in (called, name.removeprefix("annotation_"))
            or (
                array.dtype == np.uint8
                and (array.metadata.dimension_names or ())[1:3] == ("height", "width")
            )
        }


def _withheld(study: Study) -> dict[str, bytes]:
    """The groups of the sets that a study was made with, positions standing for the ids."""
    sets = {"train": study.document["train"], **study.document["targets"]}
    with tempfile.TemporaryDirectory() as folder:
        objects = LocalObjects(folder)
        for name, entry in sets.items():
            train = None if name == "train" else study.target_train(name)
            has_train = train is not None and (train >= 0).any()
            example_sets.write_withheld(objects, name, entry["count"], train if has_train else None)
        return {info.name: objects.get(info.name) for info in objects.entries("examples/")}


def _rewritten(objects: Objects, entry: TargetSet, left_out: set[str], *, ids: bool) -> bytes:
    """The group of a later target set without some columns, or with positions for ids."""
    with example_sets.opened(objects, entry["path"]) as group:
        withheld = not ids or group.attrs.get("ids") == example_sets.WITHHELD
        names = sorted(set(group.array_keys()) - left_out)
    arrays = groups.read(objects, entry["path"], names)
    if withheld:
        arrays["id"] = np.arange(entry["count"]).astype(str)
    return target_sets.encode(arrays, {"ids": example_sets.WITHHELD} if withheld else None)
