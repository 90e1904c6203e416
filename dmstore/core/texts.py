"""Texts in arrays."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray


def text(values: Iterable[Any]) -> NDArray[np.str_]:
    """Texts as a fixed-width array, which xarray and NumPy handle alike."""
    return np.array([str(value) for value in values], dtype=str)
