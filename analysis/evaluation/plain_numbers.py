"""Figures as numbers for JSON: None where nothing is known. What is not finite counts for nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def number(value: Any) -> float | None:
    """One figure."""
    return float(value) if np.isfinite(value) else None


def mean(values: NDArray[Any]) -> float | None:
    """Mean of what is known."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else None


def quantile(values: NDArray[Any], share: float) -> float | None:
    """The value that a share of what is known lies below."""
    known = values[np.isfinite(values)]
    return float(np.quantile(known, share)) if len(known) else None


def median(values: NDArray[Any]) -> float | None:
    """The value that half of what is known lies below."""
    return quantile(values, 0.5)
