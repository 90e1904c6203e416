"""What a comparison needs of memory, said before it starts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from dmstore.analysis.geometry.rows import SPARSE
from dmstore.analysis.geometry.subspace import basis_size, is_exact
from dmstore.core.memory import available, parse
from dmstore.errors import InputError

# The process with what it imports, and blocks of rows as they are read.
_BASE = 450_000_000


class Room:
    """Memory of a comparison.

    Parameters
    ----------
    memory : int or str, optional
        Bytes or a size; most of what is free by default.
    targets, train, count : int
        Sizes, and directions each way.
    """

    def __init__(self, memory: int | str | None, targets: int, train: int, count: int) -> None:
        self._memory = available() if memory is None else parse(memory)
        self.targets, self.train, self.count = targets, train, count
        exact = is_exact(targets, train, count)
        # Of problems that are small in one dim all is float64.
        self.dtype = np.dtype(np.float64 if exact else np.float32)
        least, size = min(targets, train), self.dtype.itemsize
        basis = 4 * 8 * least**2 if exact else 2 * least * size * basis_size(targets, train, count)
        # Directions and influences of both ways, and three of one way while they are made.
        self._fixed = _BASE + basis + count * train * (2 * 2 * 4 + 3 * 8) + 6 * 8 * count * targets

    @property
    def dense(self) -> int:
        """Bytes for the dense rows of one algorithm; more of them lie on scratch."""
        return max(0, (self._memory - self._fixed) // 2)

    def check(self, nonzeros: Sequence[int | None]) -> None:
        """Refuse what does not fit.

        Parameters
        ----------
        nonzeros : sequence of int or None
            Of either algorithm, where they are known; others count as none.

        Raises
        ------
        InputError
            Naming what is needed.
        """
        known = [n for n in nonzeros if n is not None]
        most = SPARSE * self.targets * self.train
        if any(n > most for n in known):
            # Dense, in blocks.
            known = []
        # Both, their residuals and these turned, each number with its place.
        needed = self._fixed + 4 * sum(known) * (self.dtype.itemsize + 4)
        if needed > self._memory:
            msg = (
                f"comparing {self.targets} targets x {self.train} train units, {self.count} directions each way, needs "
                f"{_said(needed)}, and may take {_said(self._memory)}; give more memory, or take fewer components or targets"
            )
            raise InputError(msg)


def stated_nonzeros(data: Any) -> int | None:
    """Non-zero weights that a fit counted; None where there is no such count."""
    if not isinstance(data, xr.Dataset) or "nonzeros" not in data:
        return None
    return int(data["nonzeros"].sum())


def _said(size: float) -> str:
    return f"{size / 1e9:.2f} GB"
