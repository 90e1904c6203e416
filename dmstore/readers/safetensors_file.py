"""``.safetensors`` files, through the library of that name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmstore.errors import InputError, MissingDependencyError
from dmstore.npz import Header

_DTYPES = {
    "F64": "f8",
    "F32": "f4",
    "F16": "f2",
    "I64": "i8",
    "I32": "i4",
    "I16": "i2",
    "I8": "i1",
    "U8": "u1",
    "BOOL": "?",
}


class SafetensorsFile:
    """An opened ``.safetensors`` file: headers at once, arrays on demand.

    Parameters
    ----------
    path : path

    Attributes
    ----------
    headers : dict
        Shape and dtype of each array; those of a dtype that NumPy lacks are left out.

    Raises
    ------
    InputError
        If it is missing or damaged.
    MissingDependencyError
        Without the package ``safetensors``.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.headers: dict[str, Header] = {}
        with self._open() as file:
            for name in file.keys():  # noqa: SIM118 - the library's handle is no mapping
                part = file.get_slice(name)
                if part.get_dtype() in _DTYPES:
                    self.headers[name] = Header(
                        tuple(part.get_shape()), np.dtype(_DTYPES[part.get_dtype()])
                    )
        if not self.headers:
            msg = f"{path}: holds no array of a dtype that NumPy has; save float32"
            raise InputError(msg)

    def load(self, name: str) -> NDArray[Any]:
        """One array."""
        with self._open() as file:
            return np.asarray(file.get_tensor(name))

    def _open(self) -> Any:
        try:
            from safetensors import safe_open
        except ImportError as error:
            msg = f"{self.path}: reading it needs safetensors; pip install 'dmstore[safetensors]'"
            raise MissingDependencyError(msg) from error
        try:
            return safe_open(self.path, framework="numpy")
        except FileNotFoundError:
            msg = f"{self.path}: no such file"
            raise InputError(msg) from None
        except Exception as error:  # noqa: BLE001 - whatever the parser has to say
            text = " ".join(str(error).split())[:120]
            msg = f"{self.path}: no whole safetensors file ({text}); write it again"
            raise InputError(msg) from None
