"""One NumPy array in a file (``.npy``, and TRAK's ``.mmap``, which are the same)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from dmstore.errors import InputError
from dmstore.npz import Header

_KINDS = "biuf"


class NpyFile:
    """An opened ``.npy`` file: its header at once, its content mapped on demand.

    Parameters
    ----------
    path : path

    Attributes
    ----------
    headers : dict
        ``array`` alone.

    Raises
    ------
    InputError
        If it is missing, cut, no NumPy array, or needs unpickling.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            with self.path.open("rb") as file:
                version = npy.read_magic(file)
                read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
                shape, self._fortran, dtype = read[version](file)
                self._start = file.tell()
                size = self.path.stat().st_size - self._start
        except FileNotFoundError:
            msg = f"{path}: no such file"
            raise InputError(msg) from None
        except OSError as error:
            msg = f"{path}: cannot be read ({error.strerror or error})"
            raise InputError(msg) from None
        except Exception as error:  # noqa: BLE001 - bytes from anywhere can make the parser raise anything
            text = " ".join(f"{type(error).__name__}: {error}".split())[:120]
            msg = f"{path}: no NumPy array ({text}); write it with numpy.save"
            raise InputError(msg) from None
        header = Header(tuple(shape), dtype)
        if dtype.hasobject or dtype.kind not in _KINDS:
            msg = f"{path}: has dtype {dtype}, which is no number; save numbers"
            raise InputError(msg)
        if any(length < 0 for length in header.shape) or header.size != size:
            msg = f"{path}: says {header.size} bytes but holds {size}; the file is damaged or not finished"
            raise InputError(msg)
        self.headers = {"array": header}

    def load(self, name: str = "array") -> NDArray[Any]:
        """The array, mapped and read-only."""
        header = self.headers[name]
        if header.size == 0:
            return np.empty(header.shape, header.dtype)
        order: Any = "F" if self._fortran else "C"
        return np.memmap(self.path, header.dtype, "r", self._start, header.shape, order)
