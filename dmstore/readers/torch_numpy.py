"""NumPy arrays inside PyTorch files, rebuilt from what their pickle says without running any of it.

``torch.save`` of an array, or of a dict that holds one, pickles it as NumPy does: an empty array whose state (shape,
dtype, order, bytes) follows. Only plain numbers and bools are taken.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

RECONSTRUCT = {
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
}
NDARRAY, DTYPE, ENCODE = ("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")
# The bytes of an empty array.
BYTES = {("__builtin__", "bytes"), ("builtins", "bytes")}
GLOBALS = {*RECONSTRUCT, NDARRAY, DTYPE, ENCODE, *BYTES}
_CODE = re.compile(r"[iu][1248]|f[248]|b1")
_ORDERS = {"<": "<", ">": ">", "|": "="}
_MOST_DIMS = 32


class StateError(Exception):
    """A pickle describes an array in a way that NumPy does not."""


@dataclass
class Dtype:
    """A dtype whose byte order is not known yet."""

    code: str
    order: str | None = None

    def set_state(self, state: Any) -> None:
        """Take the byte order; everything else of a dtype is for texts, records and objects."""
        if not isinstance(state, tuple) or len(state) < 5 or state[1] not in _ORDERS:
            msg = "describes a dtype without a byte order; the file is damaged"
            raise StateError(msg)
        if any(part is not None for part in state[2:5]):
            msg = "holds an array of records, and only arrays of numbers are read"
            raise StateError(msg)
        self.order = _ORDERS[state[1]]


@dataclass
class Array:
    """An array whose content is not known yet."""

    values: NDArray[Any] | None = None

    def set_state(self, state: Any) -> None:
        """Take shape, dtype, order of axes and bytes."""
        if not isinstance(state, tuple) or len(state) != 5:
            msg = "describes an array without a shape; the file is damaged"
            raise StateError(msg)
        _, shape, dtype, fortran, raw = state
        if isinstance(raw, str):
            # The bytes of Python 2, which the parser only takes where it is asked to.
            raw = raw.encode("latin-1")
        whole = isinstance(shape, tuple) and all(type(n) is int and n >= 0 for n in shape)
        if not whole or len(shape) > _MOST_DIMS or not isinstance(dtype, Dtype):
            msg = "describes an array with no shape or dtype of numbers; the file is damaged"
            raise StateError(msg)
        if dtype.order is None or type(fortran) is not bool or not isinstance(raw, bytes):
            msg = "describes an array that holds no plain bytes; save numbers"
            raise StateError(msg)
        stored = np.dtype(f"{dtype.order}{dtype.code}")
        if len(raw) != math.prod(shape) * stored.itemsize:
            msg = f"describes an array {shape} of {stored} with {len(raw)} bytes; the file is cut or damaged"
            raise StateError(msg)
        flat = np.frombuffer(raw, dtype=stored).astype(stored.newbyteorder("="))
        self.values = flat.reshape(shape, order="F" if fortran else "C")


def call(module: str, name: str, arguments: Any) -> Any:
    """What one of :data:`GLOBALS` gives, made here.

    Parameters
    ----------
    module, name : str
    arguments : object

    Returns
    -------
    bytes, Dtype or Array

    Raises
    ------
    StateError
        If it is called as NumPy does not.
    """
    function = (module, name)
    given = arguments if isinstance(arguments, tuple) else ()
    if function in RECONSTRUCT and len(given) == 3:
        return Array()
    if function == DTYPE and given and isinstance(given[0], str) and _CODE.fullmatch(given[0]):
        return Dtype(given[0])
    if function in BYTES and arguments == ():
        return b""
    if function == ENCODE and len(given) == 2 and given[1] == "latin1":
        try:
            return given[0].encode("latin-1")
        except (AttributeError, UnicodeEncodeError):
            pass
    shown = f" of dtype {given[0]!r}"[:60] if function == DTYPE and given else ""
    msg = f"holds an array{shown} that is not of plain numbers or bools; save these"
    raise StateError(msg)
