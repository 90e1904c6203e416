"""The examples of a study as they are given: columns checked, ids written and read back.

A column is labels, images, texts or numbers, one value per example.
"""

from __future__ import annotations

import contextlib
import hashlib
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmstore.core.given import local_path
from dmstore.core.masked import unmasked
from dmstore.core.npz import NpzReader
from dmstore.core.texts import text
from dmstore.errors import FormatError, InputError
from dmstore.schema.group_specs import check_group, create_group, group_spec
from dmstore.schema.names import check_name
from dmstore.storage.objects.objects import Objects
from dmstore.storage.objects.zarr_internals import consolidate
from dmstore.storage.table import segment

# What a column cannot be called: dims and ids of the datasets that it stands in.
RESERVED = {"train", "target", "class", "example", "id"}
_MOST_CLASSES = 1_000_000
# What the group of a set says of ids that a published study does not give.
WITHHELD = "withheld"


def read_npz(path: str | Path) -> dict[str, NDArray[Any]]:
    """Read an examples file: all of its arrays.

    Raises
    ------
    InputError
        If the file or an array in it cannot be used.
    """
    file = local_path(path)
    if file.is_dir() or (file.is_file() and file.suffix.lower() not in (".npz", "")):
        msg = f"{path}: an examples file is an .npz of arrays such as train_label and target_label; write one with numpy.savez"
        raise InputError(msg)
    with NpzReader(path) as reader:
        return {name: reader.load(name) for name in reader.headers}


def check(arrays: Mapping[str, NDArray[Any]], where: str) -> dict[str, dict[str, NDArray[Any]]]:
    """Sort the arrays of an examples file by set, and check them.

    Parameters
    ----------
    arrays : mapping
        Of each set ``train_label`` (train,) and ``target_label`` (target,) integers or ids; optional
        ``train_image``, ``target_image`` (example, height, width[, 3]) uint8, ``class_name`` (class,)
        text, ``train_id``, ``target_id``, ``target_train``, and further ``train_*`` and ``target_*``.
    where : str
        For error texts.

    Returns
    -------
    dict
        ``train`` and ``test`` to their columns, and ``class`` to ``name`` if given.

    Raises
    ------
    InputError
        Naming the array and what is wrong with it.
    """
    for name in ("train", "target"):
        if not {f"{name}_label", f"{name}_id"} & arrays.keys():
            msg = f"{where}: no '{name}_label' and no '{name}_id'; an examples file needs one of them for train units and targets"
            raise InputError(msg)
    sets: dict[str, dict[str, NDArray[Any]]] = {"train": {}, "test": {}, "class": {}}
    for name, given in arrays.items():
        values = unmasked(given, f"{where}: {name}", gaps=True)
        prefix, _, rest = name.partition("_")
        if name == "class_name":
            if np.ndim(values) != 1:
                msg = (
                    f"{where}: class_name has shape {np.shape(values)}, expected one name per class"
                )
                raise InputError(msg)
            sets["class"]["name"] = check_names(values, f"{where}: class_name")
        elif prefix in ("train", "target") and rest:
            sets["train" if prefix == "train" else "test"][rest] = values
        else:
            msg = f"{where}: {name!r} is neither class_name nor train_… nor target_…; rename or drop it"
            raise InputError(msg)
    for name in ("train", "test"):
        check_set(sets[name], "train" if name == "train" else "target", where)
    _check_labels(sets, where)
    return sets


def _text(values: NDArray[Any], where: str) -> NDArray[Any]:
    """Texts as they are stored, from text or UTF-8 bytes."""
    try:
        texts = np.char.decode(values, "utf-8") if values.dtype.kind == "S" else text(values)
        for value in texts:
            str(value).encode()
    except UnicodeError:
        msg = f"{where}: holds text that is not valid Unicode; store it as UTF-8"
        raise InputError(msg) from None
    return texts


def check_names(values: NDArray[Any], where: str) -> NDArray[Any]:
    """Ids or class names: texts that look like what they are.

    Raises
    ------
    InputError
        For what is neither text nor a whole number, for a name that is empty or has blanks around it,
        for a control or invisible character, and for text that is not in its composed form (NFC): two
        such names can look alike and differ.
    """
    whole = all(isinstance(value, str) for value in values) if values.dtype.kind == "O" else True
    if not whole or values.dtype.kind not in "iuOSTU":
        msg = f"{where} has dtype {values.dtype}; ids and names are texts or whole numbers (1.0 and 1 would be two names)"
        raise InputError(msg)
    names = _text(values, where)
    for place, name in enumerate(names):
        if not name or str(name).strip() != name:
            msg = f"{where}: the name {str(name)!a} (position {place}) is empty or has blanks around it; take them away"
            raise InputError(msg)
        if not str(name).isprintable() or not unicodedata.is_normalized("NFC", str(name)):
            msg = f"{where}: the name {str(name)!a} has control, invisible or decomposed characters; use plain printable text (NFC)"
            raise InputError(msg)
    return names


def check_column(name: str, values: NDArray[Any], where: str) -> NDArray[Any]:
    """A column of a set as it is stored.

    Parameters
    ----------
    name : str
        ``image`` must be uint8 (example, height, width[, 1 or 3]), ``label`` integers from 0.
    values : (example, ...)
    where : str
        File and array, for error texts.

    Raises
    ------
    InputError
        If the name or the values cannot be stored.
    """
    check_name(name, f"{where}: column")
    if values.ndim == 0:
        msg = f"{where} has shape {values.shape}, expected one value per example"
        raise InputError(msg)
    if values.dtype.kind == "O" and all(isinstance(value, str) for value in values.flat):
        values = values.astype(str)
    if values.dtype.kind in "UST":
        values = _text(values.ravel(), where).reshape(values.shape)
    if values.dtype.kind not in "biufU" or (values.dtype.kind == "f" and values.dtype.itemsize > 8):
        msg = f"{where} has dtype {values.dtype}; store numbers, bools or text"
        raise InputError(msg)
    if name == "image" and (
        values.dtype != np.uint8
        or values.ndim not in (3, 4)
        or (values.ndim == 4 and values.shape[3] not in (1, 3))
        or 0 in values.shape
    ):
        first = values.ndim == 4 and values.shape[1] in (1, 3) and values.shape[3] not in (1, 3)
        turned = "; move the channels to the end with transpose(0, 2, 3, 1)" if first else ""
        msg = (
            f"{where} has dtype {values.dtype} and shape {values.shape}, expected "
            f"uint8 (example, height, width) or (example, height, width, 3){turned}"
        )
        raise InputError(msg)
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def check_labels(label: NDArray[Any], classes: int | None, where: str) -> None:
    """Labels must be class indices: integers from 0, below `classes` if that is known."""
    most = _MOST_CLASSES if classes is None else classes
    if (
        label.ndim != 1
        or label.dtype.kind not in "iu"
        or label.min() < 0
        or int(label.max()) >= most
    ):
        whole = label.dtype.kind in "iu" and label.size
        found = f"{label.min()} to {label.max()}" if whole else str(label.dtype)
        msg = f"{where} must hold class indices from 0 to {most - 1} (it has {found})"
        raise InputError(msg)


def check_set(columns: dict[str, NDArray[Any]], prefix: str, where: str) -> None:
    """Check the columns of one set in place, and add ``id`` where none is given.

    Raises
    ------
    InputError
        Naming the array and what is wrong with it.
    """
    first = "label" if "label" in columns else "id"
    if first not in columns:
        msg = f"{where}: no '{prefix}_label'; every set of examples needs labels, or ids where they are not known"
        raise InputError(msg)
    count = len(columns[first]) if columns[first].ndim == 1 else 0
    if count == 0:
        msg = f"{where}: {prefix}_{first} has shape {columns[first].shape}, expected one {first} an example"
        raise InputError(msg)
    cases: dict[str, str] = {}
    for name, values in columns.items():
        other = cases.setdefault(name.lower(), name)
        if other != name:
            msg = f"{where}: {prefix}_{other} and {prefix}_{name} differ in case alone; give them different names"
            raise InputError(msg)
        if name != name.lower() and name.lower() in {*RESERVED, "label", "image"}:
            msg = f"{where}: {prefix}_{name} is not {prefix}_{name.lower()}; write it in lower case"
            raise InputError(msg)
        if values.ndim == 0 or len(values) != count:
            msg = (
                f"{where}: {prefix}_{name} has shape {values.shape}, but there are {count} {first}s"
            )
            raise InputError(msg)
        if name in RESERVED - {"id"} - ({"train"} if prefix == "target" else set()):
            msg = f"{where}: {prefix}_{name} has a reserved name; call it something else"
            raise InputError(msg)
        columns[name] = check_column(name, values, f"{where}: {prefix}_{name}")
    given = columns.pop("id", np.arange(count))
    ids = check_names(given, f"{where}: {prefix}_id") if given.ndim == 1 else np.empty(0, dtype=str)
    unique, counts = np.unique(ids, return_counts=True)
    if len(unique) != count:
        twice = f" ({str(unique[counts > 1][0])!a} is there twice)" if len(ids) == count else ""
        msg = f"{where}: {prefix}_id must hold one id per example, all different{twice}"
        raise InputError(msg)
    columns["id"] = ids


def check_train(train: NDArray[Any], count: int, where: str) -> None:
    """``target_train`` must hold positions of train examples, or -1."""
    if (
        train.dtype.kind not in "iu"
        or train.ndim != 1
        or int(train.min()) < -1
        or int(train.max()) >= count
    ):
        msg = f"{where}: target_train must hold positions of train examples, or -1"
        raise InputError(msg)


def _check_labels(sets: dict[str, dict[str, NDArray[Any]]], where: str) -> None:
    names = sets["class"].get("name")
    for key, prefix in (("train", "train"), ("test", "target")):
        label = sets[key].get("label")
        if label is None:
            continue
        check_labels(label, None, f"{where}: {prefix}_label")
        if names is not None and int(label.max()) >= len(names):
            msg = f"{where}: {prefix}_label has class {label.max()}, but class_name has {len(names)} names"
            raise InputError(msg)
    if "train" in sets["test"]:
        check_train(sets["test"]["train"], len(sets["train"]["id"]), where)


def id_hash(ids: Iterable[str]) -> str:
    """sha256 of ids in order: what makes two studies' sets the same."""
    state = hashlib.sha256()
    for name in ids:
        raw = str(name).encode()
        state.update(len(raw).to_bytes(8, "little") + raw)
    return state.hexdigest()


def write_set(
    objects: Objects,
    name: str,
    ids: NDArray[Any],
    train: NDArray[Any] | None,
    attrs: Mapping[str, Any] | None = None,
) -> None:
    """Write the ids of a set; `train` is ``target_train``."""
    spec = group_spec("examples")
    store = objects.writer(f"examples/{name}.zarr")
    shapes = {"id": ids.shape, **({"target_train": train.shape} if train is not None else {})}
    group: Any = create_group(store, spec, shapes, attrs=attrs)
    group["id"][:] = ids.astype(object)
    if train is not None:
        group["target_train"][:] = train
    consolidate(store)
    objects.sync(f"examples/{name}.zarr")


def write_withheld(objects: Objects, name: str, count: int, train: NDArray[Any] | None) -> None:
    """Write a set whose ids are withheld: positions stand for them, and the group says so."""
    write_set(objects, name, np.arange(count).astype(str), train, {"ids": WITHHELD})


def read_ids(objects: Objects, where: str, count: int, digest: str) -> NDArray[Any]:
    """Ids of the set stored at `where`, checked against the study's hash of them: (example,) str.

    A set that was published without its ids has positions in their place, and says so; the hash in
    ``study.json`` stays that of the ids, so that whoever holds them can tell that they are the same.

    Raises
    ------
    CorruptionError
        If the group cannot be read.
    FormatError
        If they are not those that the set was made with.
    """
    with opened(objects, where) as group:
        check_group(group, group_spec("examples"), {"example": count}, where)
        ids = text(group["id"][:])
        withheld = group.attrs.get("ids") == WITHHELD
    if withheld and np.array_equal(ids, np.arange(count).astype(str)):
        return ids
    if id_hash(ids) != digest:
        msg = (
            f"{where}: ids are not those that the study was made with; restore the file from a copy"
        )
        raise FormatError(msg)
    return ids


@contextlib.contextmanager
def opened(objects: Objects, where: str) -> Iterator[Any]:
    """A stored group of examples, open for reading.

    Raises
    ------
    CorruptionError
        If it cannot be read, whatever the reason.
    """
    import zarr

    with segment.opened(objects.reader, where) as store:
        yield zarr.open_group(store, mode="r", zarr_format=3)


def coordinate(ids: NDArray[Any]) -> NDArray[Any]:
    """Ids as an index: integers where the ids are just the positions."""
    positions = np.arange(len(ids))
    return positions if np.array_equal(ids, positions.astype(str)) else ids
