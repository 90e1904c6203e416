"""Masks given as lists of train units: what each run saw, or what it left out.

Lists are checked as far as they go and packed a bit a unit. How many units there are, and which of the two
meanings the lists have, nothing in them says: the caller does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmstore.core import bits
from dmstore.errors import InputError
from dmstore.readers.source import Request
from dmstore.storage.table.rows import MOST_RUNS

SEEN, LEFT_OUT = MEANINGS = ("seen", "left-out")
_BLOCK_BYTES = 64 << 20


@dataclass(frozen=True)
class Lists:
    """Lists of train units, one a run, one behind the other.

    Attributes
    ----------
    units : (n,) int64
    offsets : (run + 1,) int64
        Where each list begins and the last one ends.
    """

    units: NDArray[np.int64]
    offsets: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.offsets) - 1


@dataclass(frozen=True)
class PackedMasks:
    """Masks that are packed in memory and unpacked by rows; a :class:`~dmstore.readers.files.RowArray`."""

    packed: NDArray[np.uint8]
    train: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Runs and train units."""
        return (len(self.packed), self.train)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of what :meth:`rows` gives: bool."""
        return np.dtype(np.bool_)

    def rows(self, index: NDArray[np.int64]) -> NDArray[Any]:
        """The masks of these numbers."""
        return bits.unpack_rows(self.packed[index], self.train)


def of_rows(rows: Sequence[Any], where: str) -> Lists:
    """Lists from one sequence or array of integers a run.

    Parameters
    ----------
    rows : sequence
    where : str
        For error texts.

    Returns
    -------
    Lists

    Raises
    ------
    InputError
        If a list holds anything but integers.
    """
    parts = [_integers(row, f"{where}: list {place}", dims=1) for place, row in enumerate(rows)]
    lengths = [len(part) for part in parts]
    return Lists(
        np.concatenate([np.empty(0, dtype=np.int64), *parts]),
        np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]),
    )


def of_matrix(matrix: NDArray[Any], where: str) -> Lists:
    """Lists of one length, the rows of a matrix (run, length); see :func:`of_rows`."""
    values = _integers(matrix, where, dims=2)
    runs, length = values.shape
    return Lists(values.reshape(-1), np.arange(runs + 1, dtype=np.int64) * length)


def of_flat(units: NDArray[Any], offsets: NDArray[Any], where: str) -> Lists:
    """Lists one behind the other, and where each begins and the last one ends.

    Parameters
    ----------
    units : (n,) integers
    offsets : (run + 1,) integers
        From 0 to n, never descending.
    where : str
        For error texts.

    Returns
    -------
    Lists

    Raises
    ------
    InputError
        If they are not of this form.
    """
    flat, edges = _integers(units, where, dims=1), _integers(offsets, f"{where}: offsets", dims=1)
    if len(edges) < 2 or edges[0] != 0 or edges[-1] != len(flat) or (np.diff(edges) < 0).any():
        msg = f"{where}: offsets do not cut {len(flat)} indices into lists; give one more than there are runs, from 0 to {len(flat)}, ascending"
        raise InputError(msg)
    return Lists(flat, edges)


def needed(request: Request, where: str) -> int:
    """The number of train units that the request states.

    Raises
    ------
    InputError
        If it states none.
    """
    if request.train is None:
        msg = f"{where}: lists of train units do not tell how many there are; give --train, or --examples"
        raise InputError(msg)
    return request.train


def meaning(request: Request, where: str) -> bool:
    """Whether lists whose format does not say it hold what was left out, as the request states.

    Raises
    ------
    InputError
        If it does not, or says neither of the two.
    """
    if request.lists not in MEANINGS:
        given = "" if request.lists is None else f" ({request.lists!r} is neither)"
        msg = f"{where}: nothing says whether its lists hold the train units that a run saw or those left out{given}; give --lists seen or --lists left-out"
        raise InputError(msg)
    return request.lists == LEFT_OUT


def masks(lists: Lists, train: int, *, left_out: bool, where: str) -> PackedMasks:
    """Masks of what each run saw.

    Parameters
    ----------
    lists : Lists
    train : int
        Number of train units.
    left_out : bool
        Whether the lists hold what each run did not see.
    where : str
        For error texts.

    Returns
    -------
    PackedMasks

    Raises
    ------
    InputError
        If an index is no train unit, or stands twice in a list.
    """
    count, length = len(lists), np.diff(lists.offsets)
    if count > MOST_RUNS:
        msg = f"{where}: {count} runs are more than a table holds ({MOST_RUNS})"
        raise InputError(msg)
    wrong = np.flatnonzero((lists.units < 0) | (lists.units >= train))
    if len(wrong):
        row = int(np.searchsorted(lists.offsets, wrong[0], side="right")) - 1
        counted = ", counted from 0"
        if lists.units.min() == 1 and lists.units.max() == train:
            counted += ": these seem to be counted from 1"
        msg = f"{where}: list {row} holds {lists.units[wrong[0]]}, but there are {train} train units{counted}"
        raise InputError(msg)
    packed = np.empty((count, -(-train // 8)), dtype=np.uint8)
    step = max(1, _BLOCK_BYTES // train)
    for start in range(0, count, step):
        stop = min(start + step, count)
        block = np.zeros((stop - start, train), dtype=np.bool_)
        owner = np.repeat(np.arange(stop - start), length[start:stop])
        block[owner, lists.units[lists.offsets[start] : lists.offsets[stop]]] = True
        twice = np.flatnonzero(block.sum(axis=1) != length[start:stop])
        if len(twice):
            _refuse_twice(lists, start + int(twice[0]), where)
        packed[start:stop] = bits.pack_rows(~block if left_out else block)
    return PackedMasks(packed, train)


def _refuse_twice(lists: Lists, row: int, where: str) -> None:
    units, times = np.unique(
        lists.units[lists.offsets[row] : lists.offsets[row + 1]], return_counts=True
    )
    msg = f"{where}: list {row} holds {units[times > 1][0]} twice, and a mask says only whether a unit was seen; give lists of different train units (masks of 0 and 1 are no lists)"
    raise InputError(msg)


def _integers(values: Any, where: str, *, dims: int) -> NDArray[np.int64]:
    try:
        array = np.asarray(values)
    except ValueError:
        array = np.empty(0, dtype=object)
    if array.ndim == dims and not array.size and array.dtype != object:
        return np.empty(array.shape, dtype=np.int64)
    if array.ndim != dims or array.dtype.kind not in "iu":
        what = f"{array.dtype} {array.shape}" if array.dtype != object else "no array of numbers"
        msg = f"{where} is {what}, expected {'a row of ' if dims == 2 else ''}integers{' a run' if dims == 2 else ''}, the positions of train units"
        raise InputError(msg)
    return array.astype(np.int64)
