"""Which train units a subpopulation relies on under one algorithm more than under the other."""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from dmstore.analysis.geometry.similarity import aligned


def relative_influence(
    a: xr.DataArray, b: xr.DataArray, targets: NDArray[np.int64]
) -> xr.DataArray:
    """Aggregate influence on some targets under A, less that under B (Appendix D).

    Parameters
    ----------
    a, b : (target, train) float
        Datamodels, best of unit length, so that the algorithms' scales do not matter.
    targets : (member,) int
        Positions of targets.

    Returns
    -------
    (train,) float64
        Sum over the targets of the absolute weights of `a`, less that of `b`; its absolute value is the paper's.

    Raises
    ------
    InputError
        If train units or targets differ.
    IndexError
        If a position is beyond the targets.
    """
    a, b = aligned(a, b)
    sums = [np.abs(w.values[targets].astype(np.float64)).sum(axis=0) for w in (a, b)]
    return xr.DataArray(
        sums[0] - sums[1],
        dims="train",
        name="relative_influence",
        coords={"train": a["train"]} if "train" in a.coords else None,
    )
