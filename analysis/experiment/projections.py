"""Products of packed masks with vectors over train units."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmstore.core import bits
from dmstore.regression.problem.packing import Words

# Words of runs, and train units, that are unpacked at a time.
_PANEL = (32, 2048)
# Columns of a sketch that a train unit is in.
_SIGNS = 8


def sparse_products(words: Words, rows: Any, threads: int = 1) -> NDArray[np.float32]:
    """What sparse weights say about masks.

    Parameters
    ----------
    words : (train, words) uint64
    rows : (target, train) csr_array
    threads : int

    Returns
    -------
    (bit, target) float32
        Contiguous for each target.
    """
    from dmstore.regression.kernels.prediction import predict

    said = np.empty((rows.shape[0], words.shape[1] * bits.WORD), dtype=np.float32)

    def some(start: int) -> None:
        weight = np.zeros(len(words), dtype=np.float32)
        for row in range(start, rows.shape[0], threads):
            place = slice(rows.indptr[row], rows.indptr[row + 1])
            members = rows.indices[place].astype(np.int64)
            weight[members] = rows.data[place]
            predict(words, weight, members, said[row])
            weight[members] = 0

    if threads == 1:
        some(0)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(some, range(threads)))
    return said.T


def dense_products(words: Words, columns: NDArray[np.float32]) -> NDArray[np.float32]:
    """Sums of some vectors over what each mask saw.

    Parameters
    ----------
    words : (train, words) uint64
    columns : (train, number) float32

    Returns
    -------
    (bit, number) float32
        Contiguous for each number.
    """
    wide, high = _PANEL
    panels = [
        (low, np.ascontiguousarray(columns[low : low + high].T))
        for low in range(0, len(words), high)
    ]
    sums = np.empty((columns.shape[1], words.shape[1] * bits.WORD), dtype=np.float32)
    for start in range(0, words.shape[1], wide):
        runs = slice(start * bits.WORD, min(start + wide, words.shape[1]) * bits.WORD)
        made = np.zeros((len(sums), runs.stop - runs.start), dtype=np.float32)
        for low, rows in panels:
            part = np.ascontiguousarray(words[low : low + high, start : start + wide])
            seen = bits.unpack_runs(part, made.shape[1]).T.astype(np.float32)
            accumulate(rows, seen, made)
        sums[:, runs] = made
    return sums.T


def accumulate(left: NDArray[np.float32], right: NDArray[np.float32], into: Any) -> None:
    """Add a product of matrices to a third, in place: one that is made first and then added takes half as long again.

    Parameters
    ----------
    left : (row, inner) float32
    right : (inner, column) float32
    into : (row, column) float32
        C-contiguous; written.
    """
    from scipy.linalg.blas import sgemm

    if not into.size:
        return
    # BLAS has columns where NumPy has rows, so all three are turned, none copied.
    made = sgemm(1.0, right.T, left.T, beta=1.0, c=into.T, overwrite_c=1)
    assert np.shares_memory(made, into)


def sparse_times(rows: Any, columns: NDArray[np.float32], threads: int = 1) -> NDArray[np.float32]:
    """Sparse rows times C-contiguous columns: (row, train) csr_array and (train, number) to (row, number)."""
    from dmstore.analysis.experiment import kernels

    made = np.empty((rows.shape[0], columns.shape[1]), dtype=np.float32)
    place = [np.asarray(one, dtype=np.int64) for one in (rows.indptr, rows.indices)]
    value = np.asarray(rows.data, dtype=np.float32)
    kernels.on_rows(threads, kernels.sparse_times, *place, value, columns, made)
    return made


def sketch(train: int, size: int, random_state: int = 0) -> Any:
    """Columns on which inner products over train units are taken; None where these are few enough to be exact.

    Parameters
    ----------
    train : int
    size : int
        Columns so many, a multiple of 8: the cosine of two vectors keeps an error of (1 - cosine^2) / sqrt(size).
    random_state : int

    Returns
    -------
    (train, size) csr_array of float32 or None
        Each unit has a random sign in one random column of each eighth, over sqrt(8). Rows of dense signs are no
        better: those of two units have an inner product of 0 on average and of 1 / size in the square either way.
    """
    from scipy.sparse import csr_array

    if train <= 2 * size:
        return None
    draw = np.random.default_rng(random_state)
    wide = size // _SIGNS
    place = draw.integers(0, wide, (train, _SIGNS), dtype=np.int32)
    place += wide * np.arange(_SIGNS, dtype=np.int32)
    sign = 2 * draw.integers(0, 2, (train, _SIGNS), dtype=np.int8) - 1
    value = sign / np.float32(np.sqrt(_SIGNS))
    start = np.arange(0, _SIGNS * train + 1, _SIGNS)
    return csr_array((value.ravel(), place.ravel(), start), shape=(train, size))
