"""Times from anywhere as milliseconds since 1970."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

# Years 2000 to 2100, in milliseconds. In other units the same years lie a factor of 1000 away.
_FIRST, _LAST = 946_684_800_000, 4_102_444_800_000
_UNITS = {"seconds": 1e3, "milliseconds": 1.0, "microseconds": 1e-3, "nanoseconds": 1e-6}


def unit_of(values: NDArray[Any]) -> str | None:
    """The unit in which numbers are times since 1970, all of them from 2000 to 2100.

    Parameters
    ----------
    values : (count,) integers or floats

    Returns
    -------
    str or None
        ``seconds``, ``milliseconds``, ``microseconds`` or ``nanoseconds``; None where it is none of these.
    """
    if values.dtype.kind not in "iuf" or not values.size:
        return None
    numbers = values.astype(np.float64)
    for unit, factor in _UNITS.items():
        if ((numbers * factor >= _FIRST) & (numbers * factor <= _LAST)).all():
            return unit
    return None


def milliseconds(values: NDArray[Any], unit: str) -> NDArray[np.int64]:
    """Times of a unit as whole milliseconds.

    Parameters
    ----------
    values : (count,) integers or floats
    unit : str
        From :func:`unit_of`.

    Returns
    -------
    (count,) int64
    """
    if unit == "milliseconds":
        return values.astype(np.int64)
    if unit == "seconds":
        return np.round(values.astype(np.float64) * 1000).astype(np.int64)
    return (values.astype(np.int64) // (1000 if unit == "microseconds" else 10**6)).astype(np.int64)
