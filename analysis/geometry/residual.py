"""Step 2 of ModelDiff: what one algorithm relies on and the other does not."""

from __future__ import annotations

import xarray as xr

from dmstore.analysis.geometry.normalize import normalize
from dmstore.analysis.geometry.similarity import aligned


def residual(a: xr.DataArray, b: xr.DataArray) -> xr.Dataset:
    """Residual datamodels of A with respect to B (paper Eq. 3, on unit rows).

    Parameters
    ----------
    a, b : (target, train) float
        Datamodels of the two algorithms on the same train units and targets.

    Returns
    -------
    xarray.Dataset
        ``residual`` (target, train): a_i - (a_i . b_i) b_i, of length sqrt(1 - cosine^2);
        ``cosine`` (target,); ``included`` (target,): both datamodels are non-zero.

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
    return xr.Dataset(
        {"residual": rest.transpose("target", "train"), "cosine": cosine, "included": included},
        attrs={"excluded": int((~included).sum())},
    )
