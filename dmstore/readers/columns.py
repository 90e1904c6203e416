"""Files of annotations: ``.npz``, ``.npy``, ``.csv``, ``.txt`` and ``.json``, none of them trusted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmstore.core import strictjson
from dmstore.core.given import local_path
from dmstore.core.npz import NpzReader
from dmstore.errors import InputError
from dmstore.readers.csv_table import EXACT, parse_csv, texts
from dmstore.readers.files import NUMBERS, TEXTS, open_npy

# Texts of a million examples.
_LONGEST, _MOST_VALUES = 1 << 29, 1 << 24

Columns = dict[str, NDArray[Any]]


def read_columns(path: str | Path, name: str | None = None) -> Columns:
    """Read a file of annotations.

    Parameters
    ----------
    path : path
        ``.npz``: columns by name; ``.csv``: columns by its header line; ``.json``: an object of lists;
        ``.npy``, ``.txt`` (a line per example) and a ``.json`` list: one column, called `name`.
    name : str, optional
        Needed for a file that holds one column; of several columns, takes the one of this name.

    Returns
    -------
    dict
        Name to (example, ...) array.

    Raises
    ------
    InputError
        Naming the file, what is wrong with it and the remedy.
    """
    kinds: dict[str, Callable[[Path], Columns | NDArray[Any]]] = {
        ".npz": _read_npz,
        ".npy": _read_npy,
        ".csv": _read_csv,
        ".txt": _read_txt,
        ".json": _read_json,
    }
    file = local_path(path)
    read = kinds.get(file.suffix.lower())
    if read is None:
        msg = f"{path}: not a {', '.join(kinds)} file; save the annotation as one of these"
        raise InputError(msg)
    if not file.is_file():
        msg = f"{path}: {'is no file' if file.exists() else 'no such file'}"
        raise InputError(msg)
    table = read(file)
    if not isinstance(table, dict):
        if name is None:
            msg = f"{path}: holds one column without a name; name it with --name"
            raise InputError(msg)
        return {name: table}
    table = _with_ids(table, path)
    if name is None:
        return table
    if name not in table:
        msg = f"{path}: no column {name!r} (found: {', '.join(map(repr, table))})"
        raise InputError(msg)
    return {key: table[key] for key in {"id": 0, name: 0} if key in table}


def _is_id(name: str) -> bool:
    """Whether a column holds ids, as spreadsheets spell it: ``id``, ``ID``, `` Id``."""
    return name.strip().casefold() == "id"


def _with_ids(table: Columns, path: str | Path) -> Columns:
    """Columns with that of the ids under its name: as one like the others it would leave rows where they are."""
    names = [name for name in table if _is_id(name)]
    if len(names) > 1:
        msg = f"{path}: {' and '.join(map(repr, names))} could each hold the ids; keep one of them"
        raise InputError(msg)
    return {"id" if name in names else name: values for name, values in table.items()}


def in_order(columns: Columns, ids: NDArray[Any], where: str) -> Columns:
    """The columns in the order of a set's ids; a column ``id`` says which value is whose.

    Raises
    ------
    InputError
        If the ids are not those of the set, each once.
    """
    if "id" not in columns:
        return columns
    given = [
        value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
        for value in np.ravel(columns["id"])
    ]
    position = {value: row for row, value in enumerate(given)}
    wanted = [str(value) for value in ids]
    if len(position) != len(given) or position.keys() != set(wanted):
        known = set(wanted)
        strange = next((value for value in given if value not in known), None)
        twice = next((value for row, value in enumerate(given) if position[value] != row), None)
        remedy = "leave it out if the rows are in the set's order"
        if strange is None and twice is None:
            lost = next(value for value in wanted if value not in position)
            why = f"{lost!a} and {len(wanted) - len(position) - 1} others are not there"
            remedy = "give each a row, whose values may be empty"
        else:
            why = f"{twice!a} is there twice" if strange is None else f"{strange!a} is none of them"
        msg = f"{where}: column 'id' must hold every id of the set once ({why}); {remedy}"
        raise InputError(msg)
    order = np.array([position[value] for value in wanted])
    further = {name: values for name, values in columns.items() if name != "id"}
    for name, values in further.items():
        if values.shape[:1] != (len(given),):
            msg = f"{where}: {name} has shape {values.shape}, but there are {len(given)} ids"
            raise InputError(msg)
    return {name: values[order] for name, values in further.items()}


def _read_npz(path: Path) -> Columns:
    with NpzReader(path) as reader:
        return {name: reader.load(name) for name in reader.headers}


def _read_npy(path: Path) -> NDArray[Any]:
    return open_npy(path, kinds=NUMBERS + TEXTS).whole()


def _text(path: Path) -> str:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        msg = f"{path}: byte {error.start} is not UTF-8; save the file as UTF-8"
        raise InputError(msg) from None
    except OSError as error:
        msg = f"{path}: cannot be read ({error.strerror or error})"
        raise InputError(msg) from None
    if "\0" in text:
        msg = f"{path}: line {text[: text.index(chr(0))].count(chr(10)) + 1} holds a NUL character, which NumPy's texts lose; take it out"
        raise InputError(msg)
    return text


def _read_txt(path: Path) -> NDArray[Any]:
    # Not str.splitlines: it also splits at characters that may stand inside a text.
    lines = _text(path).replace("\r\n", "\n").split("\n")
    return texts(lines[:-1] if lines[-1] == "" else lines, str(path))


def _read_csv(path: Path) -> Columns:
    return parse_csv(_text(path), str(path))


def _read_json(path: Path) -> Columns | NDArray[Any]:
    try:
        value = strictjson.parse(_text(path).encode(), _LONGEST, _MOST_VALUES)
    except ValueError as error:
        msg = f"{path}: not valid JSON ({' '.join(str(error).split())[:120]})"
        raise InputError(msg) from None
    if isinstance(value, list):
        return _list(value, f"{path}: the list")
    if isinstance(value, dict):
        return {name: _list(values, f"{path}: {name!a}") for name, values in value.items()}
    msg = f"{path}: holds neither a list nor an object of lists"
    raise InputError(msg)


def _list(values: Any, where: str) -> NDArray[Any]:
    kinds = {type(value) for value in values} if isinstance(values, list) else set()
    # A number has a gap, which is NaN; a text and a bool have none.
    numbers = bool(kinds & {int, float}) and kinds <= {int, float, type(None)}
    if not numbers and (len(kinds) != 1 or not kinds <= {str, bool}):
        beside = "; a null can stand among numbers alone" if type(None) in kinds else ""
        msg = f"{where} must hold one text, number or bool an example, all of one kind{beside}"
        raise InputError(msg)
    if not numbers:
        if kinds == {str} and any("\0" in value for value in values):
            msg = f"{where} holds a NUL character, which NumPy's texts lose; take it out"
            raise InputError(msg)
        return texts(values, where) if kinds == {str} else np.array(values)
    whole = [value for value in values if type(value) is int]
    most = 1 << 63 if kinds == {int} else EXACT
    if not all(-most <= value < most for value in whole):
        kept = "64 bits" if kinds == {int} else "53 bits beside fractions or gaps"
        msg = f"{where} holds integers beyond {kept}; store them as text"
        raise InputError(msg)
    return np.array(values, dtype=np.int64 if kinds == {int} else np.float64)
