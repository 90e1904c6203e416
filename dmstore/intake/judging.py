"""What becomes of a source and of its rows: the one place where that is decided."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dmstore.core.finite import finite_rows, nonzero_rows
from dmstore.readers.source import Source
from dmstore.schema.group_specs import GroupSpec
from dmstore.storage.table.rows import DIGEST_BYTES, Rows, pairs_of
from dmstore.storage.table.table import Table

# By the reason why they are left out, runs of a source.
Skipped = dict[str, list[int]]


class Destination(Protocol):
    """Where rows go: an algorithm, or its outputs on a later target set.

    Attributes
    ----------
    table : Table
    retracted_note : str
        Why rows that were retracted are left out, and how to have them again.
    """

    table: Table
    retracted_note: str

    def make_room(self) -> None:
        """Take out what stands in the way of rows to come."""

    def complete(self, rows: Rows, where: str) -> Rows:
        """Check rows from outside and add what is known of them: InputError if they do not fit."""


class RefusedError(Exception):
    """A source is at fault, not the study: its conflicting rows, and those refused beside them."""

    def __init__(self, text: str, conflicting: int = 0, beside: int = 0) -> None:
        super().__init__(text)
        self.conflicting, self.beside = conflicting, beside


class Judge:
    """Knows what a destination holds now or is about to hold, and what was retracted from it.

    Parameters
    ----------
    into : Destination

    Attributes
    ----------
    empty : bool
        Whether nothing is stored there.
    columns : dict
        Further columns of stored rows and of those about to be stored: name in lower case to name.
    """

    def __init__(self, into: Destination) -> None:
        view = into.table.view()
        self.empty = not len(view)
        # By the name without its case, which a store does not tell apart everywhere.
        self.columns = {name.lower(): name for name in view.columns}
        self._view = view
        self._into = into
        self._run, self._digest = view.run, view.digest
        self._order = np.argsort(view.run, kind="stable")
        self._coming: dict[int, bytes] = {}
        self._retracted = set(view.manifest.retracted)

    @functools.cached_property
    def by_mask(self) -> dict[str, NDArray[Any]]:
        """``mask_id``, ``run`` and ``digest`` of stored rows, by mask id; empty where rows have no masks."""
        if self.empty or "mask_id" not in self._view.table.spec.arrays:
            return {"mask_id": np.empty(0, np.int64), "run": self._run, "digest": self._digest}
        mask_id = self._view.read(["mask_id"])["mask_id"]
        order = np.argsort(mask_id, kind="stable")
        return {
            "mask_id": mask_id[order],
            "run": self._run[order],
            "digest": self._digest[order],
        }

    def check_columns(self, rows: Rows, source: Source) -> None:
        """Refuse columns that differ from those of other rows in case alone: no file system, and no archive, would
        keep them apart everywhere.

        Raises
        ------
        RefusedError
            Naming both.
        """
        for name in rows.columns:
            known = self.columns.get(name.lower(), name)
            if known != name:
                remedy = f"call it {known!r}"
                if source.format == "study":
                    remedy = f"publish that study with '--without-columns {name}', and ingest what was published"
                msg = f"{source.path}: column {name!r} differs from {known!r}, which other runs have, in case alone; {remedy}"
                raise RefusedError(msg, beside=len(rows))
        self.columns.update((name.lower(), name) for name in rows.columns)

    def expect(self, rows: Rows) -> None:
        """Note rows that are about to be stored."""
        assert rows.digest is not None
        self._coming.update(zip(rows.run.tolist(), map(bytes, rows.digest), strict=True))

    def compare(
        self,
        source: Source,
        ids: NDArray[np.int64],
        digests: Callable[[NDArray[np.int64]], NDArray[np.uint8]],
        skipped: Skipped,
    ) -> tuple[NDArray[np.int64], int]:
        """Decide which rows of a source are to be stored.

        Parameters
        ----------
        source : Source
        ids : (run,) int64
        digests : callable
            Called with the places of rows that are or were stored under their ids: (place, 16) uint8.
        skipped : dict
            Gets the rows that were retracted here, which are left out.

        Returns
        -------
        fresh : (place,) int64
            Places of the rows that are to be stored.
        present : int
            How many are stored already.

        Raises
        ------
        RefusedError
            If a row is stored with other content.
        """
        there, known = self._find(ids)
        removed = np.array([run for run, _ in self._retracted], dtype=np.int64)
        out = np.isin(ids, removed)
        places = np.flatnonzero(there | out)
        own = digests(places)
        out[out] = self._were_retracted(ids[out], own[out[places]])
        differs = np.zeros(len(ids), dtype=bool)
        differs[places] = (own != known[places]).any(axis=1)
        stored = there & ~out
        if out.any():
            skipped[self._into.retracted_note] = ids[out].tolist()
        conflicts = ids[stored & differs]
        if len(conflicts):
            more = f" (and {len(conflicts) - 1} more runs)" if len(conflicts) > 1 else ""
            text = f"{source.path}: run {conflicts[0]} is stored with other content{more}; {source.remedy}"
            raise RefusedError(text, len(conflicts), int((~out).sum()) - len(conflicts))
        return np.flatnonzero(~there & ~out), int(stored.sum())

    def _find(self, ids: NDArray[np.int64]) -> tuple[NDArray[np.bool_], NDArray[np.uint8]]:
        """Which runs are stored: (run,) bool, and the digests of those: (run, 16) uint8."""
        there = np.zeros(len(ids), dtype=bool)
        digest = np.empty((len(ids), DIGEST_BYTES), dtype=np.uint8)
        if len(self._run):
            place = np.searchsorted(self._run, ids, sorter=self._order)
            place = self._order[np.minimum(place, len(self._run) - 1)]
            there = self._run[place] == ids
            digest[there] = self._digest[place[there]]
        for row, run in enumerate(ids.tolist() if self._coming else ()):
            if run in self._coming:
                there[row], digest[row] = True, np.frombuffer(self._coming[run], np.uint8)
        return there, digest

    def _were_retracted(
        self, ids: NDArray[np.int64], digest: NDArray[np.uint8]
    ) -> NDArray[np.bool_]:
        """Which rows were retracted: (run,) bool."""
        pairs = pairs_of(ids, digest)
        if not self._retracted.isdisjoint(pairs):
            # Outputs of another model that says the same may have been let in since.
            self._retracted = set(self._into.table.newest().retracted)
        return np.array([pair in self._retracted for pair in pairs], dtype=bool)


def check_fit(source: Source, table: Table) -> None:
    """Refuse a source that does not fit the algorithm, before a row is read."""
    sizes = table.sizes
    if not len(source.ids):
        msg = f"{source.path}: holds no finished run"
        raise RefusedError(msg)
    if source.train != sizes["train"]:
        msg = f"{source.path}: has masks of {source.train} train units, but the study has {sizes['train']}"
        raise RefusedError(msg)
    for spec in table.spec.outputs():
        output = source.outputs.get(spec.name)
        if output is None:
            held = ", ".join(
                name if entry.key == name else f"{name} ({entry.key})"
                for name, entry in source.outputs.items()
            )
            msg = f"{source.path}: no {spec.name!r}, which {table.identity['algorithm']!r} declares; it holds {held or 'no outputs'}; if one of them is that, say --output {spec.name}=KEY"
            raise RefusedError(msg)
        if source.targets != sizes["target"]:
            msg = f"{source.path}: {output.key} has {source.targets} targets, but the study has {sizes['target']}"
            raise RefusedError(msg)
        classes = sizes["class"] if "class" in spec.dims else None
        if output.classes != classes:
            msg = f"{source.path}: {output.key} has {output.classes or 'no'} classes, but {spec.name!r} is declared with {'none' if classes is None else classes}"
            raise RefusedError(msg)


def usable(rows: Rows, spec: GroupSpec, skipped: Skipped, *, zero_filled: bool) -> Rows:
    """Rows that are runs; the others are noted by the reason."""
    keep = np.ones(len(rows), dtype=bool)

    def drop(right: Any, reason: str) -> None:
        runs = rows.run[keep & ~right].tolist()
        if runs:
            skipped.setdefault(reason, []).extend(runs)
        keep[~right] = False

    arrays = dict(rows.arrays)
    if zero_filled:
        drop(arrays["mask"].any(axis=1), "their masks are empty, as in rows that nobody wrote")
    for output in spec.outputs():
        values = arrays[output.name]
        if np.dtype(output.dtype).kind != "f" or values.dtype.kind not in "fiu":
            continue
        with np.errstate(over="ignore"):
            values = arrays[output.name] = values.astype(output.dtype, copy=False)
        drop(finite_rows(values), f"{output.name} is NaN, infinite or too large for {output.dtype}")
        if zero_filled:
            drop(
                nonzero_rows(values),
                f"{output.name} is zero on all targets, as where it was forgotten",
            )
    kept = Rows(rows.run, arrays, rows.columns)
    return kept if keep.all() else kept.take(keep)
