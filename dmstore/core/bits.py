"""Masks as bits: packing along train units and along runs. Pure functions on arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

WORD = 64
# Train units packed at a time, so that what is worked on stays in the cache.
_PANEL = 4096


def pack_rows(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Pack masks along the train axis.

    Parameters
    ----------
    mask : (run, train) bool

    Returns
    -------
    (run, ceil(train / 8)) uint8
        Little bit order: train unit 0 is the lowest bit of byte 0. Unused bits are 0.
    """
    return np.packbits(np.asarray(mask, dtype=bool), axis=1, bitorder="little")


def unpack_rows(
    packed: NDArray[np.uint8], train: int, bitorder: str = "little"
) -> NDArray[np.bool_]:
    """Undo :func:`pack_rows`.

    Parameters
    ----------
    packed : (run, ceil(train / 8)) uint8
    train : int
        Number of train units.
    bitorder : {"little", "big"}
        Little is ours; other programs pack in either.

    Returns
    -------
    (run, train) bool
    """
    order: Any = bitorder
    return np.unpackbits(packed, axis=1, count=train, bitorder=order).view(np.bool_)


def pack_runs(mask: NDArray[np.bool_]) -> NDArray[np.uint64]:
    """Pack masks along the run axis, so that one word holds 64 runs of one train unit.

    Parameters
    ----------
    mask : (run, train) bool

    Returns
    -------
    (train, ceil(run / 64)) uint64
        Unused bits are 0, so that popcounts need no correction.
    """
    mask = np.asarray(mask, dtype=bool)
    runs, train = mask.shape
    octets = np.zeros((train, -(-runs // WORD) * 8), dtype=np.uint8)
    whole, even = runs - runs % 8, train - train % 8
    for start in range(0, even, _PANEL):
        stop = min(start + _PANEL, even)
        # Eight runs of eight units at a time: a shift by less than 8 keeps the bits in their bytes.
        panel = np.ascontiguousarray(mask[:whole, start:stop]).view(np.uint64)
        panel = panel.reshape(whole // 8, 8, (stop - start) // 8)
        packed = panel[:, 0].copy()
        shifted = np.empty_like(packed)
        for bit in range(1, 8):
            np.left_shift(panel[:, bit], np.uint64(bit), out=shifted)
            np.bitwise_or(packed, shifted, out=packed)
        octets[start:stop, : whole // 8] = packed.view(np.uint8).T
    octets[even:, : -(-runs // 8)] = np.packbits(mask[:, even:].T, axis=1, bitorder="little")
    if runs % 8:
        octets[:even, whole // 8] = np.packbits(mask[whole:, :even], axis=0, bitorder="little")[0]
    return octets.view("<u8").astype(np.uint64, copy=False)


def unpack_runs(words: NDArray[np.uint64], runs: int) -> NDArray[np.bool_]:
    """Undo :func:`pack_runs`: (train, words) uint64 to (run, train) bool."""
    octets = words.astype("<u8", copy=False).view(np.uint8)
    return np.unpackbits(octets, axis=1, count=runs, bitorder="little").view(np.bool_).T
