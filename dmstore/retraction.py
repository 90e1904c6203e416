"""Retracting an algorithm's runs by what they carry."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dmstore import schema, target_sets
from dmstore.algorithm import ANCHOR, Algorithm
from dmstore.errors import InputError
from dmstore.outputs import TargetOutputs
from dmstore.selection import Condition, meets, select
from dmstore.storage import log, retract
from dmstore.storage.retract import Pairs, Retraction
from dmstore.storage.view import View


def retract_runs(
    algorithm: Algorithm, where: Sequence[str], *, reason: str, dry_run: bool = False
) -> Retraction:
    """Take runs out of every later view; earlier snapshots, tags and fits stay what they were.

    Parameters
    ----------
    algorithm : Algorithm
    where : sequence of str
        Conditions; see :func:`dmstore.selection.select`.
    reason : str
        Stands in the log.
    dry_run : bool
        Only say which.

    Raises
    ------
    InputError
        If a condition cannot be used.
    """

    def choose(view: View) -> Pairs:
        rows = np.flatnonzero(select(view, where))
        return {(int(view.run[row]), view.digest[row].tobytes().hex()) for row in rows}

    if dry_run:
        view = algorithm.table.view()
        return Retraction(tuple(sorted(choose(view))), view.manifest.version)
    done = retract.retract(algorithm.table, choose, reason)
    _retract_outputs(algorithm, reason)
    return done


def _retract_outputs(algorithm: Algorithm, reason: str) -> None:
    """Take outputs on later target sets out of view too, of all runs that are retracted.

    Of all, so that what a kill left undone is done the next time.
    """
    objects = algorithm.objects
    names = objects.children(f"{algorithm.prefix}outputs/")
    if not names:
        return
    study = schema.load_document("study", objects.get(ANCHOR), ANCHOR)
    retracted = log.newest(objects, algorithm.table.prefix).retracted
    of = np.array([int.from_bytes(bytes.fromhex(d)[:8], "little") for _, d in retracted], np.uint64)

    def choose(view: View) -> Pairs:
        stale = np.isin(view.read(["run_digest"])["run_digest"], of)
        rows = np.flatnonzero(stale & np.isin(view.run, [run for run, _ in retracted]))
        return {(int(view.run[row]), view.digest[row].tobytes().hex()) for row in rows}

    for name in names:
        count = target_sets.require(objects, study, name)["count"]
        retract.retract(TargetOutputs(algorithm, name, count).table, choose, reason)


def restore_runs(
    algorithm: Algorithm, where: Sequence[str], *, reason: str, dry_run: bool = False
) -> Retraction:
    """Let retracted runs be seen again where their rows are still stored, or are stored again.

    Parameters
    ----------
    algorithm : Algorithm
    where : sequence of str
        ``run=…`` alone: the log knows no other column of a retracted run.
    reason : str
    dry_run : bool

    Raises
    ------
    InputError
        If another column is named.
    """
    for text in where:
        if Condition.parse(text).column != "run":
            msg = f"condition {text!r}: of retracted runs only the id is known; use run=…"
            raise InputError(msg)

    def choose(pairs: Pairs) -> Pairs:
        ordered = sorted(pairs)
        run = np.array([number for number, _ in ordered], dtype=np.int64)
        chosen = np.all([meets(run, text) for text in where], axis=0)
        return {pair for pair, taken in zip(ordered, chosen, strict=True) if taken}

    if dry_run:
        manifest = log.newest(algorithm.objects, algorithm.table.prefix)
        return Retraction(tuple(sorted(choose(set(manifest.retracted)))), manifest.version)
    return retract.restore(algorithm.table, choose, reason)
