"""Outputs of existing runs on a target set that was added later: a table of their own, keyed by run id."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dmstore import plan, schema
from dmstore.algorithm import Algorithm, Run
from dmstore.dataset import read_rows
from dmstore.errors import InputError
from dmstore.plan import Part
from dmstore.storage.segment import Rows
from dmstore.storage.table import Table
from dmstore.storage.view import View


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
            schema.group_spec("outputs", algorithm.outputs),
            {"target": count, "class": algorithm.table.sizes["class"]},
            {**algorithm.table.identity, "table": f"outputs/{target_set}"},
        )
        self._runs: View | None = None

    def complete(self, rows: Rows, where: str) -> Rows:
        """Check rows from outside and add which run each is of.

        Raises
        ------
        InputError
            If arrays do not fit the declaration, or a run is not stored.
        """
        for name in rows.columns.keys() - {"time", "host"}:
            schema.check_column_name(name, where)
        if len({name.lower() for name in rows.columns}) != len(rows.columns) or (
            "run_digest" in {name.lower() for name in rows.columns}
        ):
            msg = (
                f"{where}: two columns differ in case alone, or one is called run_digest; rename it"
            )
            raise InputError(msg)
        columns = {**rows.columns, "run_digest": np.zeros(len(rows), dtype=np.uint64)}
        rows = self.table.check(Rows(rows.run, rows.arrays, columns), where)
        if self._runs is None or not np.isin(rows.run, self._runs.run).all():
            self._runs = self.algorithm.table.view()
        position = positions_of(rows.run, self._runs.run)
        for number in rows.run[position < 0][:1]:
            msg = (
                f"{where}: run {number} is not stored in {self.algorithm.name!r}; store the run first "
                f"('dmstore ingest' or RunWriter), then its outputs on {self.target_set!r}"
            )
            raise InputError(msg)
        digest = short_digests(self._runs)[position]
        return Rows(rows.run, rows.arrays, {**rows.columns, "run_digest": digest})

    def pending(self, part: Part | None = None) -> NDArray[np.int64]:
        """Stored runs that have no outputs here yet: (run,) int64."""
        self._runs = self.algorithm.table.view()
        run = self._runs.run[joined(self._runs, self.table.view()) < 0]
        if part is None:
            return run
        if self.algorithm.planned:
            return run[np.isin(run, plan.planned_runs(self.algorithm.blocks(), part))]
        return np.asarray(run[run % part.count == part.index - 1])

    def describe(self, run_ids: NDArray[np.int64]) -> list[Run]:
        """Mask, seed, mask id and repeat of stored runs, as they are stored."""
        if self._runs is None:
            self._runs = self.algorithm.table.view()
        position = positions_of(run_ids, self._runs.run)
        names = ("mask", "seed", "mask_id", "repeat")
        mask, seed, mask_id, repeat = (read_rows(self._runs, name, position) for name in names)
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
    found = order[place]
    return np.where(run[found] == wanted, found, -1).astype(np.int64)


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
