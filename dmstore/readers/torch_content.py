"""PyTorch files of any make: tensors and NumPy arrays, alone, in dicts and in lists."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmstore.core.npy import Header
from dmstore.errors import InputError
from dmstore.readers import torch_numpy
from dmstore.readers.torch_file import TorchFile
from dmstore.readers.torch_pickle import Tensor

ALONE = "tensor"
_DEEPEST, _MOST = 4, 1 << 18


class TorchContent(TorchFile):
    """An opened ``.pt`` file whose tensors may stand in lists, and which may hold NumPy arrays.

    What stands in a dict is called by its key, an item of a list by its place: ``indices/0``. What stands alone is
    called ``tensor``. See :class:`~dmstore.readers.torch_file.TorchFile`.

    Parameters
    ----------
    path : path

    Attributes
    ----------
    listed : dict
        Length of each list, by its name; ``''`` is the file itself.
    numbers : dict
        Plain numbers that stand in dicts.
    """

    # Of a NumPy array the pickle holds the content, and of long lists a description each.
    largest_pickle = 1 << 28
    takes_arrays = True

    def __init__(self, path: str | Path) -> None:
        self.listed: dict[str, int] = {}
        self.numbers: dict[str, float] = {}
        self._arrays: dict[str, NDArray[Any]] = {}
        self._walked = 0
        super().__init__(path)
        for name, values in self._arrays.items():
            self.headers[name] = Header(values.shape, values.dtype)

    def load(self, name: str) -> NDArray[Any]:
        """One tensor or array; see :meth:`TorchFile.load`."""
        return self._arrays[name] if name in self._arrays else super().load(name)

    def only(self) -> NDArray[Any]:
        """The one array of the file.

        Raises
        ------
        InputError
            If there are several.
        """
        if len(self.headers) != 1:
            msg = f"{self.path}: holds {len(self.headers)} tensors ({', '.join(self.headers)[:200]}), and one is expected; save it alone"
            raise InputError(msg)
        return self.load(next(iter(self.headers)))

    def items(self, name: str = "") -> list[NDArray[Any]]:
        """All items of a list, read in one go.

        Parameters
        ----------
        name : str
            One of :attr:`listed`.

        Returns
        -------
        list of arrays

        Raises
        ------
        InputError
            If an item is no tensor or array, or damaged.
        """
        places = [f"{name}/{place}" if name else str(place) for place in range(self.listed[name])]
        for place in places:
            if place not in self.headers:
                msg = f"{self.path}: {place} is no tensor; save a list of tensors of integers"
                raise InputError(msg)
        tensors = dict(self.load_many([place for place in places if place not in self._arrays]))
        return [self._arrays[p] if p in self._arrays else tensors[p] for p in places]

    def _named(self, content: Any) -> dict[str, Tensor]:
        tensors: dict[str, Tensor] = {}
        for name, value in self._walk("", content, 0):
            if isinstance(value, Tensor):
                tensors[name] = value
            elif isinstance(value, torch_numpy.Array) and value.values is not None:
                self._arrays[name] = value.values
        if not tensors and not self._arrays:
            msg = f"{self.path}: holds no tensor and no array; save one, or a dict or list of them"
            raise InputError(msg)
        return tensors

    def _walk(self, name: str, value: Any, depth: int) -> Iterator[tuple[str, Any]]:
        # A list can hold another a thousand times, which holds another a thousand times.
        self._walked += 1
        if self._walked > _MOST:
            msg = f"{self.path}: holds more than {_MOST} things; save arrays"
            raise InputError(msg)
        if isinstance(value, dict | list | tuple):
            if depth > _DEEPEST:
                return
            if isinstance(value, dict):
                inside: Any = value.items()
            else:
                self.listed[name] = len(value)
                if all(type(item) is int for item in value):
                    self._arrays[name or ALONE] = _ints(value, self.path)
                    return
                inside = enumerate(value)
            for key, item in inside:
                yield from self._walk(f"{name}/{key}" if name else str(key), item, depth + 1)
        elif type(value) in (int, float):
            self.numbers[name] = value
        else:
            yield name or ALONE, value


def _ints(values: Any, path: Path) -> NDArray[np.int64]:
    if values and (min(values) < -(2**63) or max(values) >= 2**63):
        msg = f"{path}: holds integers beyond 64 bits, which are no positions of train units"
        raise InputError(msg)
    return np.array(values, dtype=np.int64)
