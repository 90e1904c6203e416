"""Target sets: those that a study was made with, and those added to it later.

A later set is one zipped group of ids and columns with a unique name; ``targets/<set>.json`` names
it, and creating that document is the commit.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from zarr.storage import MemoryStore

from dmstore import provenance
from dmstore.core.masked import unmasked
from dmstore.errors import ConflictError, ExistsError, FormatError, InputError, NotFoundError
from dmstore.schema.documents import dump_document, load_document
from dmstore.schema.group_specs import group_spec
from dmstore.schema.typed_documents import StudyDocument, StudyTarget, TargetsDocument
from dmstore.storage.objects.objects import Objects
from dmstore.storage.table import groups
from dmstore.study import annotation, examples

PLACE = "targets/"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.]{0,99}", re.ASCII)


class TargetSet(StudyTarget):
    """A target set as it is stored: where its group is, and whether it was added later."""

    path: str
    later: bool


def canonical(name: str) -> str:
    """A name of a target set as it is stored: a '-', which stands after set names in other names, as '_'."""
    return name.replace("-", "_") if isinstance(name, str) else name


def check_name(name: str) -> None:
    """Refuse a name that a target set cannot have: it stands before a '-' in other names.

    Raises
    ------
    InputError
        If it breaks the rule or is reserved.
    """
    if not _NAME.fullmatch(name):
        msg = f"target set name {name!r} is not allowed; use 1 to 100 letters, digits, '.' and '_', not starting with '.'"
        raise InputError(msg)
    if name.lower() in examples.RESERVED:
        msg = f"target set name {name!r} is reserved; call it something else"
        raise InputError(msg)


class KnownSets(dict[str, TargetSet]):
    """Target sets by name, of which one that is not there is told of with the remedy."""

    def __missing__(self, name: str) -> TargetSet:
        """NotFoundError, which is a KeyError too."""
        raise _not_found(name, self)


def _not_found(name: str, known: Collection[str]) -> NotFoundError:
    remedy = "add it with 'dmstore targets'"
    if canonical(name) in known:
        remedy = f"it is called {canonical(name)!r}"
    if name == "target":
        remedy = "the targets that a study is made with are the set 'test'"
    msg = f"target set {name!r} is not in this study (it has: {', '.join(known)}); {remedy}"
    return NotFoundError(msg)


def read_all(objects: Objects, study: StudyDocument) -> dict[str, TargetSet]:
    """All target sets of a study: name to ``count``, ``sha256``, ``path`` and ``later``.

    Raises
    ------
    FormatError
        If a document is damaged or belongs to another study.
    """
    sets = KnownSets()
    for name, entry in study["targets"].items():
        sets[name] = {**entry, "path": f"examples/{name}.zarr", "later": False}
    for child in objects.children(PLACE):
        where = f"{PLACE}{child}"
        if not child.endswith(".json"):
            continue
        document = load_document("targets", objects.get(where), where)
        if document["study"] != study["uuid"] or f"{document['name']}.json" != child:
            msg = f"{where}: is of target set {document['name']!r} of study {document['study']}, so it does not belong here; remove it"
            raise FormatError(msg)
        added: TargetSet = {
            "count": document["count"],
            "sha256": document["sha256"],
            "path": document["path"],
            "later": True,
        }
        sets.setdefault(document["name"], added)
    return sets


def require(objects: Objects, study: StudyDocument, name: str) -> TargetSet:
    """One target set; NotFoundError if the study has none of this name."""
    entry = study["targets"].get(name)
    if entry:
        return {**entry, "path": f"examples/{name}.zarr", "later": False}
    known = read_all(objects, study)
    return known[name]


def check(arrays: Mapping[str, Any], study: StudyDocument, where: str) -> dict[str, NDArray[Any]]:
    """The columns of a target set from outside, with ``id``; names with or without ``target_``.

    Raises
    ------
    InputError
        Naming the array and what is wrong with it.
    """
    columns: dict[str, NDArray[Any]] = {}
    for given, values in arrays.items():
        name = given.removeprefix("target_")
        if name in columns:
            msg = f"{where}: {name!r} and 'target_{name}' are one column; keep one of them"
            raise InputError(msg)
        columns[name] = unmasked(values, f"{where}: {given}", gaps=True)
    if len({name.lower() for name in columns}) != len(columns):
        msg = f"{where}: two columns differ in case alone; give them different names"
        raise InputError(msg)
    examples.check_set(columns, "target", where)
    if "label" in columns:
        classes = study.get("classes") or None
        examples.check_labels(columns["label"], classes, f"{where}: target_label")
    if "train" in columns:
        examples.check_train(columns["train"], study["train"]["count"], where)
        columns["train"] = columns["train"].astype(np.int64)
    return columns


def add(
    objects: Objects, study: StudyDocument, name: str, arrays: Mapping[str, Any], where: str
) -> str:
    """Check and store a target set, whole or not at all; see :meth:`dmstore.study.study.Study.add_targets`.

    Returns
    -------
    str
        ``new``, or ``present`` if it is there with the same content.

    Raises
    ------
    InputError
        If the name or the arrays cannot be used.
    ExistsError
        If the name is taken by a set with other content; target sets never change.
    """
    check_name(name)
    columns = check(arrays, study, where)
    known = read_all(objects, study)
    taken = {other.lower(): other for other in known}.get(name.lower())
    if taken is not None:
        _require_same(objects, known[taken], taken, name, columns)
        return "present"
    path = f"examples/{name}-{uuid.uuid4().hex[:8]}.zarr.zip"
    if not objects.put_if_absent(path, encode(_named(columns))):
        msg = f"{path}: the unique name is taken; run the same command again"
        raise ConflictError(msg)
    document: TargetsDocument = {
        "name": name,
        "study": study["uuid"],
        "count": len(columns["id"]),
        "sha256": examples.id_hash(columns["id"]),
        "path": path,
        "created": provenance.utc_now(),
        "software": provenance.software(),
    }
    if objects.put_if_absent(f"{PLACE}{name}.json", dump_document("targets", document)):
        return "new"
    # Another host was faster; the group just written is named by nothing, and vacuum deletes it.
    _require_same(objects, require(objects, study, name), name, name, columns)
    return "present"


def _named(columns: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Columns by the names of the arrays that hold them."""
    names = {"id": "id", "train": "target_train"}
    return {names.get(key, f"annotation_{key}"): values for key, values in columns.items()}


def encode(arrays: Mapping[str, NDArray[Any]], attrs: Mapping[str, Any] | None = None) -> bytes:
    """The zipped group of a target set: ``id``, ``target_train`` and ``annotation_*`` arrays."""
    further = {name: v for name, v in arrays.items() if name.startswith("annotation_")}
    spec = annotation.sized(group_spec("examples"), "annotation_*", further)
    dims = {name: annotation.dims_of("example", values) for name, values in further.items()}
    store = MemoryStore()
    groups.fill(store, spec, arrays, whole=False, dims=dims, attrs=attrs)
    return groups.zip_bytes(store)


def _require_same(
    objects: Objects,
    stored: TargetSet,
    taken: str,
    name: str,
    columns: Mapping[str, NDArray[Any]],
) -> None:
    equal = (
        taken == name and stored["later"] and stored["sha256"] == examples.id_hash(columns["id"])
    )
    if equal:
        arrays = groups.read(objects, stored["path"])
        given = _named(columns)
        equal = arrays.keys() == given.keys() and all(
            annotation.same(arrays[key], given[key]) for key in arrays
        )
    if not equal:
        msg = (
            f"target set {taken!r} exists with other content; target sets never change: choose another "
            f"name, or add columns with 'dmstore annotate'"
        )
        raise ExistsError(msg)
