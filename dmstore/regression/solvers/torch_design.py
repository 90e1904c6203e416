"""A design as torch sees it: covariances of chosen columns, cast on the device slab by slab.

The integers stay where they are (memory, or a map of a file larger than memory); a GPU holds a copy
of them where it has the room.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dmstore.regression.problem.design import Design

# Bytes of one slab in float64, and of a working set's covariance where memory is not a GPU's.
SLAB = 1 << 27
LIMIT = 1 << 31

_held: dict[int, tuple[Any, Any]] = {}


def room(device: Any) -> int:
    """Bytes that one large array may take on a device."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0] * 0.4)
    return LIMIT


class Covariance:
    """Covariance of the masks of a design, in the pieces that are asked for.

    Parameters
    ----------
    design : Design
    device : torch.device
    hold : bool, optional
        Whether to copy the integers to the device; by default where it is a GPU with the room.
    """

    def __init__(self, design: Design, device: Any, *, hold: bool | None = None) -> None:
        self.runs = design.runs
        self.device = device
        self.train = len(design.gram)
        self.mean = torch.from_numpy(np.array(design.mean)).to(device)
        self._gram = design.gram
        if hold is None:
            hold = device.type == "cuda" and design.gram.nbytes <= room(device)
        self._copy = _on_device(design.gram, device) if hold else None
        diagonal = torch.from_numpy(np.array(np.diagonal(design.gram), dtype=np.float64))
        # A unit in all of the runs, or in none, has none: the counts are integers.
        self.variance = diagonal.to(device) / self.runs - self.mean**2
        still = (diagonal == 0) | (diagonal == self.runs)
        self.varies = ~still.to(device)

    def _counts(self, rows: Any, columns: Any | None = None) -> Any:
        """Runs that saw both units: (rows, columns) float64, exact."""
        if self._copy is not None:
            chosen = self._copy.index_select(0, rows)
            chosen = chosen if columns is None else chosen.index_select(1, columns)
            return _double(chosen, self._gram.dtype)
        if columns is None:
            counts = self._gram[rows.cpu().numpy()]
        else:
            counts = self._gram[np.ix_(rows.cpu().numpy(), columns.cpu().numpy())]
        counts = counts.view(np.int16) if counts.dtype == np.uint16 else counts
        return _double(torch.from_numpy(np.asarray(counts)).to(self.device), self._gram.dtype)

    def _slabs(self, rows: Any, width: int) -> Iterator[tuple[int, Any]]:
        """Pieces of `rows` whose slab of `width` columns is small, and where each begins."""
        size = max(1, SLAB // (8 * max(width, 1)))
        for start in range(0, len(rows), size):
            yield start, rows[start : start + size]

    def exact(self, rows: Any, columns: Any) -> Any:
        """Covariance of chosen columns: (rows, columns) float64."""
        level = torch.outer(self.mean[rows], self.mean[columns])
        return self._counts(rows, columns).div_(self.runs).sub_(level)

    def block(self, rows: Any, columns: Any) -> Any:
        """Covariance of chosen columns: (rows, columns) float32, formed in float64 slab by slab."""
        out = torch.empty((len(rows), len(columns)), dtype=torch.float32, device=self.device)
        for start, part in self._slabs(rows, len(columns)):
            out[start : start + len(part)] = self.exact(part, columns)
        return out

    def together(self, weight: Any) -> Any:
        """Weights times shares of runs that saw both units, uncentred: (target, train) float64.

        Whole rows are read, in order: picking columns from them takes longer than the product.
        """
        rows = (weight != 0).any(dim=0).nonzero()[:, 0]
        out = torch.zeros_like(weight)
        for _, part in self._slabs(rows, self.train):
            out.addmm_(weight[:, part], self._counts(part))
        return out.div_(self.runs)

    def times(self, weight: Any) -> Any:
        """Weights times covariance: (target, train) float64, from the integers."""
        return self.together(weight).addr_(weight @ self.mean, self.mean, alpha=-1.0)


def _double(counts: Any, dtype: Any) -> Any:
    # torch can do little with uint16: its bits travel as int16.
    counts = counts.to(torch.int32) & 0xFFFF if dtype == np.uint16 else counts
    return counts.to(torch.float64)


def _on_device(gram: NDArray[Any], device: Any) -> Any:
    """The integers on a device, copied once for all blocks of targets."""
    key = id(gram)
    if key in _held and _held[key][0]() is gram and _held[key][1].device == device:
        return _held[key][1]
    kind = torch.int16 if gram.dtype == np.uint16 else torch.int32
    copy = torch.empty(gram.shape, dtype=kind, device=device)
    size = max(1, SLAB // (8 * max(len(gram), 1)))
    for start in range(0, len(gram), size):
        part = np.array(gram[start : start + size])
        part = part.view(np.int16) if gram.dtype == np.uint16 else part.astype(np.int32)
        copy[start : start + size] = torch.from_numpy(part)
    _held[key] = (weakref.ref(gram, lambda _: _held.pop(key, None)), copy)
    return copy
