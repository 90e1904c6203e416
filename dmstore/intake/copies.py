"""Runs that are others but for their ids: the same mask and the same outputs, bit by bit.

Mostly they are the same runs, taken in twice. Then they count twice in every fit, and as repeats that agree exactly.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmstore.schema.group_specs import GroupSpec
from dmstore.storage.table.rows import Rows, row_digests

# Runs of one mask that a row is compared with, and runs of this ingest that are remembered.
_MOST_ALIKE, _MOST_KEPT = 16, 1 << 20


class Copies:
    """Compares rows with stored ones, and with those of the same ingest, that have the same mask.

    Parameters
    ----------
    spec : GroupSpec
        Of the rows.

    Attributes
    ----------
    pairs : dict
        Run to the other run that it is a copy of.
    """

    def __init__(self, spec: GroupSpec) -> None:
        self.pairs: dict[int, int] = {}
        self._spec = spec
        self._kept: dict[int, list[tuple[int, bytes]]] = {}

    def note(self, rows: Rows, stored: Mapping[str, NDArray[Any]]) -> None:
        """Look for copies among rows that are about to be stored.

        Parameters
        ----------
        rows : Rows
            Complete, with their digests.
        stored : mapping
            ``mask_id`` (run,) int64, in ascending order, with ``run`` and ``digest``.
        """
        if "mask_id" not in rows.columns or rows.digest is None:
            return
        mask_id = rows.columns["mask_id"]
        low = np.searchsorted(stored["mask_id"], mask_id, side="left").tolist()
        high = np.searchsorted(stored["mask_id"], mask_id, side="right").tolist()
        for row, (run, mask) in enumerate(zip(rows.run.tolist(), mask_id.tolist(), strict=True)):
            places = range(low[row], min(high[row], low[row] + _MOST_ALIKE))
            others = [(int(stored["run"][p]), bytes(stored["digest"][p])) for p in places]
            kept = self._kept.get(mask, [])
            for other, digest in (*others, *kept):
                if other != run and self._digest(rows, row, other) == digest:
                    self.pairs[run] = other
                    break
            if len(kept) < _MOST_ALIKE and len(self._kept) < _MOST_KEPT:
                self._kept.setdefault(mask, []).append((run, bytes(rows.digest[row])))

    def _digest(self, rows: Rows, row: int, run: int) -> bytes:
        """The digest that a row would have under another id."""
        arrays = {name: values[row : row + 1] for name, values in rows.arrays.items()}
        return bytes(row_digests(np.array([run], dtype=np.int64), arrays, self._spec)[0])
