"""What readers of runs with foreign masks have in common: arrays by key become a source."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmstore.errors import InputError
from dmstore.readers.files import MemoryArray, RowArray, open_npy
from dmstore.readers.source import (
    NUMBER,
    RENAME,
    ArraySource,
    Request,
    find_columns,
    find_outputs,
    positions,
)
from dmstore.readers.torch_content import TorchContent

IDS = ("run", "runs", "run_id")


@dataclass(frozen=True)
class FilePerRun:
    """An array whose rows lie in one file each; a :class:`~dmstore.readers.files.RowArray`.

    Attributes
    ----------
    shape : tuple of int
        Runs first.
    dtype : numpy.dtype
    load : callable
        Gives the row of a number, of this shape and dtype.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    load: Callable[[int], NDArray[Any]]

    def rows(self, index: NDArray[np.int64]) -> NDArray[Any]:
        """The rows of these numbers."""
        values = np.empty((len(index), *self.shape[1:]), dtype=self.dtype)
        for place, row in enumerate(index):
            values[place] = self.load(int(row))
        return values


def assemble(
    format: str,
    what: str,
    path: Path,
    mask: RowArray,
    arrays: Mapping[str, RowArray],
    request: Request,
    *,
    ids: NDArray[np.int64] | None = None,
    about: Mapping[str, Mapping[str, str]] | None = None,
    conventions: Mapping[str, str] | None = None,
    target_train: NDArray[np.int64] | None = None,
    notes: Sequence[str] = (),
) -> ArraySource:
    """Make a source of masks and of whatever stands beside them.

    Parameters
    ----------
    format : str
    what : str
        What the path is, in words.
    path : Path
    mask : RowArray
        (run, train) bool.
    arrays : mapping
        Outputs (run, target[, class]) and columns (run,) by key.
    request : Request
    ids : (run,) int64, optional
        Numbers that the format has for its runs, to which ``first_run`` is added; by default an array called
        ``run``, else positions.
    about : mapping, optional
        By key, what the format states of an output; see :class:`~dmstore.readers.source.Output`.
    conventions : mapping, optional
        See :class:`~dmstore.readers.source.Source`.
    target_train : (target,) int64, optional
        The train unit that each target is.
    notes : sequence of str
        What was left out before.

    Returns
    -------
    ArraySource

    Raises
    ------
    InputError
        If lengths differ, or the study does not say that its targets are these train units.
    """
    count, train = mask.shape
    for name, array in arrays.items():
        if array.shape[:1] != (count,):
            msg = f"{path}: {name} has shape {array.shape}, but there are masks of {count} runs"
            raise InputError(msg)
    rows = np.arange(count, dtype=np.int64)
    flat = {name: a.rows(rows) for name, a in arrays.items() if len(a.shape) == 1}
    wide = {name: a for name, a in arrays.items() if len(a.shape) > 1}
    own = next((name for name in IDS if name in flat), None) if ids is None else None
    numbers = flat.pop(own) if own else positions(rows if ids is None else ids, request)
    outputs, kept, more = find_outputs(wide, request, None, str(path))
    outputs = {
        name: replace(output, about=(about or {}).get(output.key, {}))
        for name, output in outputs.items()
    }
    columns, still = find_columns(flat, str(path))
    targets = next((array.shape[1] for array in kept.values()), 0)
    if target_train is not None:
        _check_units(target_train, request, path)
    taken = ", ".join(f"{output.key} as {name}" for name, output in outputs.items())
    said = "".join(f"; {text}" for text in (conventions or {}).values())
    return ArraySource(
        format,
        f"{what}: {count} runs, {train} train units, {targets} targets; {taken or 'no outputs'}{said}",
        path,
        train,
        targets,
        outputs,
        numbers,
        rows,
        mask,
        kept,
        columns,
        zero_filled=False,
        notes=[*notes, *more, *still],
        remedy=RENAME if own else NUMBER,
        conventions=conventions or {},
        target_train=target_train,
    )


def _check_units(target_train: NDArray[np.int64], request: Request, path: Path) -> None:
    """A fit must know which targets are train units: it leaves out the runs that saw them."""
    if request.units is None:
        return
    known = request.units()
    if len(known) == len(target_train) and not np.array_equal(known, target_train):
        msg = f"{path}: its targets are train units, and the study does not say that target 0 is train unit {target_train[0]}; make a study with --create and no --examples, or with 'target_train' in the examples"
        raise InputError(msg)


def outputs_beside(request: Request, path: Path) -> tuple[dict[str, RowArray], Request]:
    """Outputs in files of their own, which the request names instead of keys.

    Parameters
    ----------
    request : Request
        Its ``outputs`` are ``.npy`` files, or ``.pt`` files of one tensor.
    path : Path
        What has the masks; for error texts.

    Returns
    -------
    arrays : dict
        By the name of the output.
    request : Request
        With these names as keys.

    Raises
    ------
    InputError
        If none is named, or a file holds no such array.
    """
    if not request.outputs:
        msg = f"{path}: holds no outputs; say where they are with --output margin=FILE.npy"
        raise InputError(msg)
    arrays = {name: open_values(Path(file)) for name, file in request.outputs.items()}
    return arrays, replace(request, outputs={name: name for name in arrays})


def open_values(path: Path) -> RowArray:
    """One array from a ``.npy`` file, or from a ``.pt`` file that holds one.

    Raises
    ------
    InputError
        If it holds none, or several.
    """
    if path.suffix.lower() in (".pt", ".pth"):
        return MemoryArray(TorchContent(path).only())
    return open_npy(path)
