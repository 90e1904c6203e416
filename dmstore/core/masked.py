"""Arrays with masked values, which ``numpy.asarray`` would give as whatever lies under the mask."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmstore.errors import InputError


def refuse_sparse(values: Any, what: str) -> None:
    """Refuse a sparse matrix, of which NumPy makes an array of one object.

    Raises
    ------
    InputError
        If it is one.
    """
    if hasattr(values, "nnz") and hasattr(values, "shape"):
        kind = f"{type(values).__module__.partition('.')[0]}.{type(values).__name__}"
        msg = (
            f"{what}: a sparse matrix ({kind}, {values.shape}) is not taken; give {what}.toarray()"
        )
        raise InputError(msg)


def unmasked(values: Any, where: str, *, gaps: bool = False) -> NDArray[Any]:
    """Values as a plain array.

    Parameters
    ----------
    values : array_like
        An array, a masked array, or a list of either.
    where : str
        For error texts.
    gaps : bool
        Whether NaN may stand where a float is masked.

    Returns
    -------
    array

    Raises
    ------
    InputError
        If something is masked that has no NaN to stand for it, or it is a sparse matrix.
    """
    refuse_sparse(values, where)
    inside = isinstance(values, list | tuple) and any(
        isinstance(value, np.ma.MaskedArray) for value in values
    )
    if inside:
        values = np.ma.array(values)
    if type(values).__module__.startswith("dask."):
        values = values.compute()
    if not isinstance(values, np.ma.MaskedArray):
        return np.asarray(values)
    masked = np.ma.getmaskarray(values)
    if masked.any():
        if gaps and values.dtype.kind == "f":
            return np.asarray(values.filled(np.nan))
        place = ", ".join(map(str, np.argwhere(masked)[0].tolist()))
        remedy = "fill them with values" + (", or give floats, which take NaN" if gaps else "")
        msg = f"{where}: {int(masked.sum())} values are masked, the first at [{place}]; {remedy}"
        raise InputError(msg)
    return np.asarray(values.data)
