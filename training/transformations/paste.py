"""Changes of inputs that verify a direction counterfactually (paper section 4 and B.4)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dmstore.errors import InputError


def paste(
    images: NDArray[np.uint8],
    intensity: float,
    *,
    rows: Sequence[int],
    columns: Sequence[int],
    value: int = 255,
) -> NDArray[np.uint8]:
    """Blend a patch towards a brightness.

    Parameters
    ----------
    images : (example, height, width[, channel]) uint8
    intensity : float
        0 leaves the image as it is, 1 replaces the patch.
    rows, columns : sequence of int
        Where the patch is.
    value : int
        Its brightness, 0 to 255.

    Returns
    -------
    (example, height, width[, channel]) uint8
    """
    if not 0 <= intensity <= 1:
        msg = f"intensity {intensity} is not allowed; give 0 to 1"
        raise InputError(msg)
    height, width = images.shape[1:3]
    if (
        not (len(rows) and len(columns))
        or min(*rows, *columns) < 0
        or max(rows) >= height
        or max(columns) >= width
    ):
        msg = f"rows {list(rows)} and columns {list(columns)} do not lie in images of {height} x {width}"
        raise InputError(msg)
    changed = images.copy()
    place = np.ix_(np.arange(len(images)), np.asarray(rows), np.asarray(columns))
    patch = images[place].astype(np.float64)
    changed[place] = np.rint(patch + intensity * (value - patch)).astype(np.uint8)
    return changed
