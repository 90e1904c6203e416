"""Which rows of numbers are finite, or not all zero: for float16 on its bits, where NumPy's own tests are slow."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_EXPONENT, _MAGNITUDE = np.uint16(0x7C00), np.uint16(0x7FFF)


def finite_rows(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Rows without NaN and infinity: (row, ...) numbers to (row,) bool."""
    flat = values.reshape(len(values), -1)
    if flat.dtype == np.float16:
        wrong = (flat.view(np.uint16) & _EXPONENT) == _EXPONENT
        return ~np.asarray(wrong.any(axis=1))
    return np.asarray(np.isfinite(flat).all(axis=1))


def nonzero_rows(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Rows with a number other than zero: (row, ...) numbers to (row,) bool."""
    flat = values.reshape(len(values), -1)
    if flat.dtype == np.float16:
        return np.asarray((flat.view(np.uint16) & _MAGNITUDE).any(axis=1))
    return np.asarray(flat.any(axis=1))
