"""Masked arrays: what is masked is no value, and NumPy hands out whatever lies below it."""

from __future__ import annotations

from typing import Any

import numpy as np

from dmstore.errors import InputError


def unmasked(values: Any, what: str) -> Any:
    """The values, where none of them is masked; other things than masked arrays as they are.

    Parameters
    ----------
    values : anything
    what : str
        What they are, for error texts.

    Raises
    ------
    InputError
        If one is masked.
    """
    if not isinstance(values, np.ma.MaskedArray):
        return values
    count = int(np.ma.getmaskarray(values).sum())
    if count:
        msg = f"{what}: {count} of {values.size} values are masked, so they are no values; leave these runs out, or fill the array"
        raise InputError(msg)
    return values.data
