"""How alike two algorithms are on the whole (paper Appendix F.1)."""

from __future__ import annotations

import numpy as np
import xarray as xr

from dmstore.analysis.geometry.dims import with_dims
from dmstore.analysis.geometry.normalize import normalize
from dmstore.errors import InputError


def aligned(a: xr.DataArray, b: xr.DataArray) -> tuple[xr.DataArray, xr.DataArray]:
    """Two sets of datamodels, each (target, train); refuse those over other train units or targets.

    Raises
    ------
    InputError
        Naming the dim that differs.
    """
    a, b = (with_dims(one, "target", "train") for one in (a, b))
    for dim in ("target", "train"):
        same = a.sizes[dim] == b.sizes[dim] and (
            dim not in a.coords
            or dim not in b.coords
            or np.array_equal(a[dim].values, b[dim].values)
        )
        if not same:
            msg = f"the two algorithms do not have the same {dim} ids; compare algorithms of one study"
            raise InputError(msg)
    return a, b


def cosine(a: xr.DataArray, b: xr.DataArray) -> xr.DataArray:
    """Cosine similarity of the datamodels of each target.

    Parameters
    ----------
    a, b : (target, train) float

    Returns
    -------
    (target,) float64
        NaN where either datamodel is all zero. Lazy where `a` or `b` is.

    Raises
    ------
    InputError
        If train units or targets differ.
    """
    a, b = aligned(a, b)
    unit_a, unit_b = normalize(a), normalize(b)
    value = (unit_a * unit_b).sum("train")
    nonzero = (unit_a != 0).any("train") & (unit_b != 0).any("train")
    return value.where(nonzero).rename("cosine")
