"""LDS ground truth of dattri: subsets of indices that models were trained on, and what these models say.

A benchmark has ``indices_lds.pt`` (subset, k) and ``target_values_lds.pt`` (subset, target), in ``lds/`` of its
folder; ``retrain_lds`` leaves a folder a subset, with ``indices.txt`` and no outputs. ``calculate_lds_ground_truth``
averages a target function over the runs of a subset and turns its sign, so that larger is better where the function
is a loss. Which function it was no file says.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmstore.errors import InputError
from dmstore.readers import lists
from dmstore.readers.assembling import assemble, outputs_beside
from dmstore.readers.files import MemoryArray, RowArray, check_inside
from dmstore.readers.source import ArraySource, Request
from dmstore.readers.torch_content import TorchContent

FORMAT = "dattri"
VALUES = "target_values_lds"
_INDICES = "indices_lds.pt"
_LIST, _ABOUT = "indices.txt", "metadata.yml"
_LONGEST = 1 << 28
_MASKS = "lists of units seen, as dattri trains on them"
_TURNED = "sign turned back: dattri stores the target function with its sign turned"
_MEAN = "a value is the mean over the runs of a subset"


def sniff(path: Path) -> bool:
    """Whether a path is a folder of an LDS benchmark, or one that ``retrain_lds`` wrote."""
    try:
        return _benchmark(path) is not None or any(path.glob(f"[0-9]*/{_LIST}"))
    except (OSError, ValueError):
        return False


def open_source(path: Path, request: Request) -> ArraySource:
    """Open the ground truth of an LDS benchmark; see :class:`~dmstore.readers.source.ArraySource`.

    Raises
    ------
    InputError
        If the function of the values or the number of train units is not stated, or a file does not fit.
    """
    folder = _benchmark(path)
    if folder is not None:
        return _open_benchmark(path, folder, request)
    return _open_retrained(path, request)


def _benchmark(path: Path) -> Path | None:
    return next((f for f in (path, path / "lds") if (f / _INDICES).is_file()), None)


def _open_benchmark(path: Path, folder: Path, request: Request) -> ArraySource:
    where = f"{folder / _INDICES}"
    given = lists.of_matrix(TorchContent(folder / _INDICES).only(), where)
    values = TorchContent(folder / f"{VALUES}.pt").only()
    if not request.outputs:
        msg = f"{path}: nothing says of which target function its values are; say --output loss={VALUES} if it was the loss, as in dattri's own benchmarks, else --output NAME={VALUES}"
        raise InputError(msg)
    arrays: Mapping[str, RowArray] = {VALUES: MemoryArray(_turned(values, folder))}
    return _assemble(path, given, where, arrays, request, _TURNED)


def _open_retrained(path: Path, request: Request) -> ArraySource:
    numbers = sorted(int(f.parent.name) for f in path.glob(f"*/{_LIST}") if f.parent.name.isdigit())
    if not numbers:
        msg = f"{path}: has neither {_INDICES} nor folders with {_LIST}; give a folder of dattri"
        raise InputError(msg)
    if numbers != list(range(len(numbers))):
        missing = next(n for n in range(len(numbers)) if n not in numbers)
        msg = f"{path}: has {len(numbers)} subsets up to {numbers[-1]}, but none of number {missing}; bring the folders of all workers together"
        raise InputError(msg)
    given = lists.of_rows([_read_list(path, number) for number in numbers], f"{path}")
    length = _data_length(path)
    if length is not None and request.train is None:
        request = replace(request, train=length)
    lists.needed(request, str(path))
    files = list(request.outputs.values())
    arrays, request = outputs_beside(request, path)
    arrays = {
        name: MemoryArray(_turned(array.rows(np.arange(array.shape[0])), Path(file)))
        if _is_turned(Path(file))
        else array
        for (name, array), file in zip(arrays.items(), files, strict=True)
    }
    turned = [name for name, file in zip(arrays, files, strict=True) if _is_turned(Path(file))]
    said = f"{', '.join(turned)}: {_TURNED}" if turned else "values with the sign that they have"
    return _assemble(path, given, str(path), arrays, request, said)


def _is_turned(file: Path) -> bool:
    """Whether a file has the name that dattri's benchmarks give to values with their sign turned."""
    return file.name == f"{VALUES}.pt"


def _turned(values: NDArray[Any], where: Path) -> NDArray[Any]:
    if values.dtype.kind != "f" or values.ndim != 2:
        msg = f"{where}: target values are {values.dtype} {values.shape}, expected floats (subset, target)"
        raise InputError(msg)
    turned: NDArray[Any] = -values
    return turned


def _assemble(
    path: Path,
    given: lists.Lists,
    where: str,
    arrays: Mapping[str, RowArray],
    request: Request,
    sign: str,
) -> ArraySource:
    train = lists.needed(request, str(path))
    mask = lists.masks(given, train, left_out=False, where=where)
    loss = arrays.get(request.outputs.get("loss", ""))
    if loss is not None:
        values = loss.rows(np.arange(loss.shape[0]))
        if len(values) and np.nanmin(values) < 0:
            msg = f"{path}: the loss would be as low as {np.nanmin(values):.4g} ({sign}), and no loss is below 0; name the function that it is with --output, and leave {VALUES}.pt its name where dattri made it"
            raise InputError(msg)
    return assemble(
        FORMAT,
        "LDS ground truth of dattri",
        path,
        mask,
        arrays,
        request,
        conventions={"masks": _MASKS, "sign": sign, "repeats": _MEAN},
    )


def _read_list(path: Path, number: int) -> NDArray[np.int64]:
    file = path / str(number) / _LIST
    check_inside(file, path)
    try:
        if file.stat().st_size > _LONGEST:
            msg = f"{file}: too long for a list of train units"
            raise InputError(msg)
        lines = file.read_text("ascii", "replace").split()
    except OSError as error:
        msg = f"{file}: cannot be read ({error.strerror or error})"
        raise InputError(msg) from None
    wrong = next((line for line in lines if not re.fullmatch(r"\d{1,18}", line)), None)
    if wrong is not None:
        msg = f"{file}: holds {wrong[:40]!a}, and a line is a position of a train unit; restore the file"
        raise InputError(msg)
    return np.array(lines, dtype=np.int64)


def _data_length(path: Path) -> int | None:
    """The number of train units that ``metadata.yml`` states; None where it is not there."""
    file = path / _ABOUT
    try:
        text = file.read_text("utf-8", "replace") if file.is_file() else ""
    except OSError:
        return None
    mode = re.search(r"^mode: *['\"]?(\w+)", text, re.MULTILINE)
    if mode and mode[1] != "lds":
        msg = f"{file}: is of mode {mode[1]}, and only retrain_lds trains on subsets"
        raise InputError(msg)
    length = re.search(r"^data_length: *(\d{1,9}) *$", text, re.MULTILINE)
    return int(length[1]) if length else None
