"""Step 2 of ModelDiff: what one algorithm relies on and the other does not."""

from __future__ import annotations

import numpy as np
import xarray as xr

from dmstore.analysis.geometry.normalize import normalize
from dmstore.analysis.geometry.similarity import aligned

# Of a number; sums of many and decompositions add theirs to it.
_ROUNDING = 64


def rounding_of(weight: xr.DataArray) -> float:
    """Length of what rounding makes of a unit row: ``stored`` says in which dtype numbers were once."""
    if "float16" in (str(weight.dtype), weight.attrs.get("stored")):
        return float(np.finfo(np.float16).eps)
    return _ROUNDING * float(np.finfo(np.result_type(weight.dtype, np.float32)).eps)


def residual(a: xr.DataArray, b: xr.DataArray) -> xr.Dataset:
    """Residual datamodels of A with respect to B (paper Eq. 3, on unit rows).

    Parameters
    ----------
    a, b : (target, train) float
        Datamodels of the two algorithms on the same train units and targets, in memory or lazy.

    Returns
    -------
    xarray.Dataset
        ``residual`` (target, train): a_i - (a_i . b_i) b_i, of length sqrt(1 - cosine^2);
        ``cosine`` (target,); ``included`` (target,): both datamodels are non-zero. The attribute
        ``rounding`` is a length that residuals reach by the rounding of the datamodels alone; ``excluded``
        counts the others. Of lazy datamodels all is lazy, and nothing is counted.

    Raises
    ------
    InputError
        If train units or targets differ.
    """
    a, b = aligned(a, b)
    unit_a, unit_b = normalize(a), normalize(b)
    cosine = (unit_a * unit_b).sum("train")
    included = (unit_a != 0).any("train") & (unit_b != 0).any("train")
    rest = unit_a - cosine * unit_b
    attrs: dict[str, float] = {"rounding": max(rounding_of(a), rounding_of(b))}
    if included.chunks is None:
        attrs["excluded"] = int((~included).sum())
    return xr.Dataset(
        {"residual": rest.transpose("target", "train"), "cosine": cosine, "included": included},
        attrs=attrs,
    )
