"""Step 1 of ModelDiff: datamodels of unit length."""

from __future__ import annotations

import numpy as np
import xarray as xr

from dmstore.analysis.geometry.dims import with_dims
from dmstore.errors import InputError


def normalize(weight: xr.DataArray) -> xr.DataArray:
    """Scale every datamodel to unit length (paper section 3, step 1).

    Parameters
    ----------
    weight : (target, train) float

    Returns
    -------
    (target, train) float64
        All-zero rows stay zero; they are counted in the attribute ``zero_rows``.

    Raises
    ------
    InputError
        If the dims are not those, or a weight is not finite: xarray has NaN where an array was masked.
    """
    weight = with_dims(weight, "target", "train")
    values = np.asarray(weight.values, dtype=np.float64)
    if not np.isfinite(values).all():
        target, train = (int(place[0]) for place in np.nonzero(~np.isfinite(values)))
        msg = f"weight: {values[target, train]} at target {target}, train unit {train}; every weight must be finite, leave the target out"
        raise InputError(msg)
    length = np.linalg.norm(values, axis=1, keepdims=True)
    unit = np.divide(values, length, out=np.zeros_like(values), where=length > 0)
    return weight.copy(data=unit).assign_attrs(zero_rows=int((length == 0).sum()))
