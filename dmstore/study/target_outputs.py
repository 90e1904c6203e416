"""Outputs of existing runs on a target set that was added later: a table of their own, keyed by run id."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dmstore.errors import InputError
from dmstore.schema.group_specs import group_spec
from dmstore.schema.names import check_column_name
from dmstore.storage.acts.compact import compact
from dmstore.storage.acts.retract import Retraction, restore, retract
from dmstore.storage.table import log
from dmstore.storage.table.rows import Pairs, Rows, pairs_of, row_digests
from dmstore.storage.table.table import Table
from dmstore.storage.table.view import View
from dmstore.study.algorithm import Algorithm, Run
from dmstore.study.dataset import read_rows
from dmstore.study.plan import Part


class TargetOutputs:
    """What the runs of an algorithm say on one later target set.

    Only runs that are stored have outputs here, and each row names the digest of its run, so that a
    run that was retracted and trained again is not taken for the one that the outputs are of.

    Parameters
    ----------
    algorithm : Algorithm
    target_set : str
    count : int
        Targets in the set.
    """

    def __init__(self, algorithm: Algorithm, target_set: str, count: int) -> None:
        self.algorithm = algorithm
        self.target_set = target_set
        self.name = f"{algorithm.name}:{target_set}"
        self.table = Table(
            algorithm.objects,
            f"{algorithm.prefix}outputs/{target_set}/",
            group_spec("outputs", algorithm.outputs),
            {"target": count, "class": algorithm.table.sizes["class"]},
            {**algorithm.table.identity, "table": f"{algorithm.place}outputs/{target_set}"},
        )
        self.retracted_note = "retracted here with their runs; a column run_digest says that they are of the present ones"
        self._runs: View | None = None
        # Runs with stored outputs of an earlier model, and which model was described to a caller.
        self._stale: NDArray[np.int64] = np.empty(0, dtype=np.int64)
        self._retracted: Pairs = set()
        self._described: dict[int, int] = {}

    def complete(self, rows: Rows, where: str, *, made_now: bool = False) -> Rows:
        """Check rows from outside and add which run each is of.

        Outputs that are stored of an earlier model of these runs are retired. A column ``run_digest``
        (uint64, the first 8 bytes of the run's ``row_digest`` in little-endian order) says of which
        model the outputs are, and must be that of the run as it is stored now.

        Parameters
        ----------
        rows : Rows
        where : str
            For error texts.
        made_now : bool
            The outputs are of the runs as they are stored now, as those with ``run_digest`` are. Others
            may be of an earlier model, if they are what that model said.

        Raises
        ------
        InputError
            If arrays do not fit the declaration, a run is not stored, or outputs are of a model that
            was retracted.
        """
        for name in rows.columns.keys() - {"time", "host", "run_digest"}:
            check_column_name(name, where)
        lower = [name.lower() for name in rows.columns.keys() - {"run_digest"}]
        if len(set(lower)) != len(lower) or "run_digest" in lower:
            msg = (
                f"{where}: two columns differ in case alone, or one is called run_digest; rename it"
            )
            raise InputError(msg)
        unknown = np.zeros(len(rows), dtype=np.uint64)
        columns = {"run_digest": unknown, **rows.columns}
        stated = "run_digest" in rows.columns
        rows = self.table.check(Rows(rows.run, rows.arrays, columns), where)
        digest = self._digests(rows.run, where)
        expected = rows.columns["run_digest"] if stated else digest
        described = [self._described.get(int(run)) for run in rows.run]
        for number, (run, now) in enumerate(zip(rows.run, digest, strict=True)):
            if expected[number] != now or described[number] not in (None, int(now)):
                msg = (
                    f"{where}: outputs of run {run} are of another model (run_digest) than the one "
                    f"stored in {self.algorithm.name!r}, which was trained again; compute them anew"
                )
                raise InputError(msg)
        stale = rows.run[np.isin(rows.run, self._stale)]
        if len(stale):
            self.retire(stale)
            self._refresh()
        if stated or made_now:
            self._let_in(rows)
        return Rows(rows.run, rows.arrays, {**rows.columns, "run_digest": digest})

    def _let_in(self, rows: Rows) -> None:
        """Let rows be stored that are what an earlier model of their runs said, bit by bit.

        Of two rows of one content the older is shown, so that one has to be gone before.
        """
        if not self._retracted:
            return
        digests = row_digests(rows.run, rows.arrays, self.table.spec)
        equal = self._retracted.intersection(pairs_of(rows.run, digests))
        if equal:
            compact(self.table)
            restore(self.table, lambda pairs: pairs & equal, "made again by other models")
            self._refresh()

    def _digests(self, run_ids: NDArray[np.int64], where: str) -> NDArray[np.uint64]:
        """Short digests of runs as they are stored now: (run,) uint64."""
        table = self.algorithm.table
        # Without an entry in the log no stored run changes.
        if (
            self._runs is None
            or not np.isin(run_ids, self._runs.run).all()
            or log.newest(table.objects, table.prefix).version != self._runs.manifest.version
        ):
            self._refresh()
        runs = self._runs or table.view()
        position = positions_of(run_ids, runs.run)
        for number in run_ids[position < 0][:1]:
            msg = (
                f"{where}: run {number} is not stored in {self.algorithm.name!r}; store the run first "
                f"('dmstore ingest' or RunWriter), then its outputs on {self.target_set!r}"
            )
            raise InputError(msg)
        return short_digests(runs)[position]

    def _refresh(self) -> tuple[View, View]:
        """Runs and outputs as they are now."""
        # Outputs first: every run that they are of is then among the runs.
        outputs = self.table.view()
        self._runs = self.algorithm.table.view()
        self._stale = outputs.run[stale_rows(self._runs, outputs)]
        self._retracted = set(outputs.manifest.retracted)
        return self._runs, outputs

    def make_room(self) -> None:
        """Retire outputs of models that were replaced, so that those of the present ones can be stored."""
        self.retire()

    def retire(
        self,
        run_ids: NDArray[np.int64] | None = None,
        reason: str = "their runs were trained again",
    ) -> Retraction:
        """Retract outputs whose run is not stored any more, or is stored as another model now.

        Parameters
        ----------
        run_ids : (run,) int64, optional
            Of these runs alone.
        reason : str
            Stands in the log.

        Raises
        ------
        StorageError
            If the storage refuses.
        """

        def choose(view: View) -> Pairs:
            rows = stale_rows(self.algorithm.table.view(), view)
            if run_ids is not None:
                rows = rows[np.isin(view.run[rows], run_ids)]
            return set(pairs_of(view.run[rows], view.digest[rows]))

        return retract(self.table, choose, reason)

    def pending(self, part: Part | None = None) -> NDArray[np.int64]:
        """Stored runs that have no outputs here yet: (run,) int64."""
        runs, outputs = self._refresh()
        run = runs.run[joined(runs, outputs) < 0]
        if part is None:
            return run
        return self.algorithm.of_part(run, part)

    def describe(self, run_ids: NDArray[np.int64]) -> list[Run]:
        """Mask, seed, mask id and repeat of runs, as they are stored; those retracted are left out."""
        runs = self._runs or self._refresh()[0]
        position = positions_of(run_ids, runs.run)
        run_ids, position = run_ids[position >= 0], position[position >= 0]
        names = ("mask", "seed", "mask_id", "repeat")
        mask, seed, mask_id, repeat = (read_rows(runs, name, position) for name in names)
        self._described.update(
            zip(run_ids.tolist(), short_digests(runs)[position].tolist(), strict=True)
        )
        return [
            Run(int(run), mask[i], int(seed[i]), int(mask_id[i]), int(repeat[i]))
            for i, run in enumerate(run_ids)
        ]


def positions_of(wanted: NDArray[np.int64], run: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where each wanted id stands in `run`, -1 where it does not: (wanted,) int64."""
    if not len(run):
        return np.full(len(wanted), -1, dtype=np.int64)
    order = np.argsort(run, kind="stable")
    place = np.minimum(np.searchsorted(run, wanted, sorter=order), len(run) - 1)
    positions = order[place]
    return np.where(run[positions] == wanted, positions, -1).astype(np.int64)


def short_digests(view: View) -> NDArray[np.uint64]:
    """First 8 bytes of each row's digest: (run,) uint64."""
    return np.ascontiguousarray(view.digest[:, :8]).view("<u8").ravel().astype(np.uint64)


def joined(runs: View, outputs: View) -> NDArray[np.int64]:
    """Row of `outputs` that belongs to each run, -1 where there is none: (run,) int64."""
    position = positions_of(runs.run, outputs.run)
    if not len(outputs):
        return position
    of = outputs.read(["run_digest"])["run_digest"]
    same = of[np.maximum(position, 0)] == short_digests(runs)
    return np.where((position >= 0) & same, position, -1)


def stale_rows(runs: View, outputs: View) -> NDArray[np.intp]:
    """Rows of `outputs` that are of no run as it is stored: (row,) int."""
    if not len(outputs):
        return np.empty(0, dtype=np.intp)
    position = positions_of(outputs.run, runs.run)
    known = position >= 0
    of = outputs.read(["run_digest"])["run_digest"]
    same = np.zeros(len(outputs), dtype=bool)
    same[known] = of[known] == short_digests(runs)[position[known]]
    return np.flatnonzero(~same)
