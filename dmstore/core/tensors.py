"""Arrays of other libraries as NumPy's, without importing any of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmstore.core.masked import refuse_sparse, unmasked
from dmstore.errors import InputError

# Float dtypes of torch that NumPy has; the others (bfloat16, the float8s) become float32, which holds them exactly.
_SHARED = ("torch.float16", "torch.float32", "torch.float64")


def to_numpy(value: Any, what: str) -> NDArray[Any]:
    """What a caller gives as a NumPy array, which may share its memory.

    Parameters
    ----------
    value : array_like
        A torch tensor (on any device, of any float dtype, with a gradient), an array of jax or of another library
        that NumPy or DLPack can read, a number, a text, or a list of these.
    what : str
        For error texts.

    Returns
    -------
    array

    Raises
    ------
    InputError
        If it is sparse, ragged, or nothing that an array can be made of.
    """
    refuse_sparse(value, what)
    if isinstance(value, np.ma.MaskedArray):
        return unmasked(value, what)
    if isinstance(value, list | tuple) and any(map(_needs_care, value)):
        value = [to_numpy(item, what) for item in value]
    try:
        array = _from_torch(value) if hasattr(value, "detach") else _from_any(value)
    except Exception as error:  # a library of the caller's can raise anything
        kind = f"{type(value).__module__.partition('.')[0]}.{type(value).__name__}"
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        msg = f"{what}: no array can be made of this {kind.removeprefix('builtins.')} ({reason})"
        raise InputError(msg) from error
    # bfloat16 and float8 of jax and others are dtypes that ml_dtypes registers.
    if array.dtype.isbuiltin == 2 and "float" in array.dtype.name:
        return array.astype(np.float32)
    return array


def _needs_care(item: Any) -> bool:
    """Whether NumPy would not see what is in it as it is."""
    if isinstance(item, np.ma.MaskedArray):
        return True
    if isinstance(item, np.ndarray | np.generic | str | int | float):
        return False
    return isinstance(item, list | tuple) or hasattr(item, "detach") or hasattr(item, "__dlpack__")


def _from_torch(value: Any) -> NDArray[Any]:
    value = value.detach()
    if str(value.layout) != "torch.strided":
        msg = f"it is sparse, {value.layout}; give its to_dense()"
        raise TypeError(msg)
    if value.is_floating_point() and str(value.dtype) not in _SHARED:
        value = value.float()
    return np.asarray(value.cpu().numpy())


def _from_any(value: Any) -> NDArray[Any]:
    if hasattr(value, "__dlpack__") and not hasattr(value, "__array__"):
        return np.from_dlpack(value)
    return np.asarray(value)
