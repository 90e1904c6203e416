"""Retracting an algorithm's runs by what they carry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dmstore.errors import CorruptionError, InputError
from dmstore.schema.documents import load_document
from dmstore.schema.typed_documents import FitDocument
from dmstore.storage.acts import retract as acts
from dmstore.storage.acts.retract import Retraction
from dmstore.storage.table import log
from dmstore.storage.table.rows import Pair, Pairs, pairs_of
from dmstore.storage.table.view import View
from dmstore.study import kept_models, target_sets
from dmstore.study.algorithm import ANCHOR, Algorithm
from dmstore.study.display import counted
from dmstore.study.full import FullModels
from dmstore.study.results import base_of
from dmstore.study.selection import Condition, meets, select
from dmstore.study.study import Study, check_opened
from dmstore.study.target_outputs import TargetOutputs, short_digests


def retract(
    study: Study,
    algorithm: str,
    where: Sequence[str],
    *,
    reason: str,
    dry_run: bool = False,
    full: bool = False,
    removal: str | None = None,
) -> Retraction:
    """Take runs out of every later view; earlier snapshots, tags and fits stay what they were.

    Parameters
    ----------
    study : Study
    algorithm : str
    where : sequence of str
        Conditions that all must hold, such as ``host=node17``, ``time>=2026-11-01`` or ``run=5,10-20``.
    reason : str
        Stands in the log.
    dry_run : bool
        Only say which.
    full : bool
        Models trained on all data instead.
    removal : str, optional
        Models of this removal instead.

    Returns
    -------
    Retraction
        Its ``rows`` (id and digest), and the ``version`` in force then.

    Raises
    ------
    InputError
        If a condition cannot be used, or a model trained on all data is kept.
    NotFoundError
        If the study has no algorithm or removal of this name.
    StorageError
        If the storage refuses; nothing is retracted then.
    """
    check_opened(study)
    opened = meant(study, algorithm, full=full, removal=removal)
    return retract_runs(opened, where, reason=reason, dry_run=dry_run)


def meant(
    study: Study, algorithm: str, *, full: bool = False, removal: str | None = None
) -> Algorithm:
    """The runs of an algorithm, its models trained on all data, or those of a removal."""
    if full and removal is not None:
        msg = "models trained on all data (full) are of no removal; give one of the two"
        raise InputError(msg)
    if full:
        return study.full_models(algorithm)
    if removal is not None:
        return study.removal_runs(algorithm, removal)
    return study.algorithm(algorithm)


def retract_runs(
    algorithm: Algorithm, where: Sequence[str], *, reason: str, dry_run: bool = False
) -> Retraction:
    """Take runs out of every later view; earlier snapshots, tags and fits stay what they were.

    Parameters
    ----------
    algorithm : Algorithm
    where : sequence of str
        Conditions; see :func:`dmstore.study.selection.select`.
    reason : str
        Stands in the log.
    dry_run : bool
        Only say which.

    Raises
    ------
    InputError
        If a condition cannot be used.
    """
    usable = False

    def choose(view: View) -> Pairs:
        nonlocal usable
        try:
            rows = np.flatnonzero(select(view, where))
        except InputError:
            # Where the last row with a column has gone, none is left that meets the condition.
            if not usable:
                raise
            return set()
        usable = True
        _check_not_kept(algorithm, view.run[rows].tolist())
        return set(pairs_of(view.run[rows], view.digest[rows]))

    if dry_run:
        view = algorithm.table.view()
        pairs = acts.choose_all(view, choose)
        return Retraction(tuple(sorted(pairs)), view.manifest.version)
    done = acts.retract(algorithm.table, choose, reason)
    _settle_outputs(algorithm, {run for run, _ in done.rows}, reason)
    return done


def _check_not_kept(algorithm: Algorithm, runs: list[int]) -> None:
    """Refuse models that are kept: what they say would be asked of the kept ones again."""
    if isinstance(algorithm, FullModels):
        kept = kept_models.names(algorithm.objects, algorithm.name.partition(":")[0])
        if both := sorted(kept.keys() & set(runs)):
            msg = f"{kept[both[0]]}: the model is kept, so that training would ask it again; delete this file{f' and {len(both) - 1} more' if len(both) > 1 else ''}, then retract"
            raise InputError(msg)


def _settle_outputs(algorithm: Algorithm, changed: set[int], reason: str) -> None:
    """Show outputs on later target sets with the runs that they are of, and with no other.

    Of all runs, so that what a kill left undone is done the next time. Outputs of changed runs whose
    rows are not stored any more are let in too, in case they are computed again.
    """
    objects = algorithm.objects
    names = objects.children(f"{algorithm.prefix}outputs/")
    if not names:
        return
    study = load_document("study", objects.get(ANCHOR), ANCHOR)
    for name in names:
        count = target_sets.require(objects, study, name)["count"]
        outputs = TargetOutputs(algorithm, name, count)
        outputs.retire(reason=reason)

        def choose(pairs: Pairs, outputs: TargetOutputs = outputs) -> Pairs:
            of = _runs_of(outputs.table.view(), pairs)
            runs = algorithm.table.view()
            now = dict(zip(runs.run.tolist(), short_digests(runs).tolist(), strict=True))
            return {
                (run, digest)
                for run, digest in pairs
                if run in now
                and (of[run, digest] == now[run] if (run, digest) in of else run in changed)
            }

        # What comes back may stand behind outputs of another model, and these now have to go.
        if acts.restore(outputs.table, choose, reason).rows:
            outputs.retire(reason=reason)


def retracted_since(algorithm: Algorithm, fit: FitDocument) -> int:
    """How many of the runs that a fit rests on have been retracted since.

    Where vacuum has deleted the base of the fit, all runs that were retracted since are counted.

    Parameters
    ----------
    algorithm : Algorithm
    fit : dict
        The fit's document.
    """
    table = algorithm.table
    retracted = set(table.newest().retracted)
    if not retracted:
        return 0
    try:
        view = table.view_of(log.Manifest(fit["version"], base=base_of(fit)))
        rows = np.flatnonzero(np.isin(view.run, [run for run, _ in retracted]))
        return len(retracted.intersection(pairs_of(view.run[rows], view.digest[rows])))
    except (FileNotFoundError, CorruptionError):
        pass
    try:
        before = log.read(table.objects, table.prefix, fit["version"]).retracted
    except FileNotFoundError:
        return 0
    return len(retracted.difference(before))


def retracted_text(version: int, runs: int) -> str:
    """A line on a fit whose runs were retracted since."""
    return f"fit of snapshot {version} rests on {counted(runs, 'run')} retracted since; run 'dmstore fit' again"


def _runs_of(view: View, pairs: Pairs) -> dict[tuple[int, str], int]:
    """Short digest of the run that each of some retracted rows is of, as far as they are stored."""
    if not pairs:
        return {}
    ids = {run for run, _ in pairs}
    hidden = {pair for pair in (*_pairs(view), *view.conflicts) if pair[0] in ids}
    hidden |= set(view.manifest.retracted)
    runs: dict[tuple[int, str], int] = {}
    todo = set(pairs)
    # One row of an id is seen at a time.
    while todo:
        shown = acts.seen(view, hidden - todo)
        of = shown.read(["run_digest"])["run_digest"].tolist()
        new = {pair: of[i] for i, pair in enumerate(_pairs(shown)) if pair in todo}
        if not new:
            break
        runs |= new
        todo -= new.keys()
    return runs


def _pairs(view: View) -> list[Pair]:
    return pairs_of(view.run, view.digest)


@dataclass(frozen=True)
class Restoration(Retraction):
    """A restoration: how many of its rows are visible, and how many stand behind another row of
    their id. The others are not stored any more.
    """

    visible: int
    behind: int


def restore_runs(
    algorithm: Algorithm, where: Sequence[str], *, reason: str, dry_run: bool = False
) -> Restoration:
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
        view = algorithm.table.view()
        retracted = set(view.manifest.retracted)
        pairs = choose(retracted)
        done = Retraction(tuple(sorted(pairs)), view.manifest.version)
        view = acts.seen(view, retracted - pairs)
    else:
        done = acts.restore(algorithm.table, choose, reason)
        _settle_outputs(algorithm, {run for run, _ in done.rows}, reason)
        view = algorithm.table.view()
    rows = set(done.rows)
    visible, behind = len(rows & set(_pairs(view))), len(rows & set(view.conflicts))
    return Restoration(done.rows, done.version, visible, behind)
