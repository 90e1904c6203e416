"""A whole study at once: status, compaction, vacuum."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmstore.core.progress import Progress, counting
from dmstore.errors import CorruptionError, DmstoreError
from dmstore.schema.documents import load_document
from dmstore.schema.typed_documents import ComparisonDocument, FailureDocument
from dmstore.storage.acts import tag
from dmstore.storage.acts.compact import Compaction
from dmstore.storage.acts.compact import compact as compact_table
from dmstore.storage.acts.vacuum import GRACE, Vacuum
from dmstore.storage.acts.vacuum import vacuum as vacuum_table
from dmstore.storage.table.table import Table
from dmstore.storage.table.view import View
from dmstore.study import annotation, claims, conditions, failures, plan
from dmstore.study.algorithm import Algorithm
from dmstore.study.plan import Block
from dmstore.study.results import runs_of
from dmstore.study.study import Study, check_opened
from dmstore.study.target_outputs import TargetOutputs, joined
from dmstore.upkeep.retraction import retracted_since
from dmstore.upkeep.tables import (
    apart_tables,
    full_tables,
    later_outputs,
    removal_runs,
    removal_tables,
    tables,
)
from dmstore.upkeep.verification import gaps, unnamed_sets

_HOUR = 3600.0


# Where what is of no one algorithm lies.
_SHARED = ("about/", "examples/", "targets/", "datamodels/", "comparisons/", "embeddings/")
# Unabsorbed segments of a foreign algorithm whose mask ids a status still reads.
_MOST_SEGMENTS = 200
# Failures that a status reads: each is an object of its own.
_MOST_FAILURES = 20


def status(study: Study, algorithm: str | None = None) -> dict[str, Any]:
    """What a study holds and what is still to do; nothing is read but ids, small documents and, of recipes, how runs were trained.

    Parameters
    ----------
    study : Study
    algorithm : str, optional
        Of the algorithms and comparisons only this one and its own.

    Returns
    -------
    dict
        ``study``, ``uuid``, ``title``, ``train``, ``targets`` (set to count), ``annotations`` (set to
        names), ``bytes``, ``comparisons`` (oldest first, with ``where``, ``differs``, and ``detectable``: the share of datamodels along a
        direction that their runs would have shown; None where nothing was measured), ``removed`` (name to reason), and ``algorithms``: of each the planned, stored, pending
        and retracted runs, the same by block of the plan, runs by split, ``conditions`` (of a recipe: precision, loader and device to value to runs), ``accuracy`` (``mean`` and ``least`` of the column of this name), ``outputs_on`` (of each later
        target set the stored and pending runs), ``failed`` runs, which are not pending, and of the last of these
        (``failures``) run, error, time in milliseconds since 1970 and host, ``full`` (table to the number of models trained on all data), ``removals`` (the same of models trained without some train units), segments not yet compacted, conflicts, ``unreferenced``
        bases while there is no log, bytes, tags and fits, each with the number of its runs that were ``retracted`` since.

    Raises
    ------
    NotFoundError
        If the study has no algorithm of this name.
    """
    check_opened(study)
    sets = study.target_sets
    own = {
        name: annotation.own_columns(study.objects, entry["path"])
        for name, entry in sets.items()
        if entry["later"]
    }
    chosen = study.algorithms if algorithm is None else [algorithm]
    algorithms = {name: _algorithm_status(study, name) for name in chosen}
    shared = [info.size for place in _SHARED for info in study.objects.entries(place)]
    return {
        "study": study.path,
        "uuid": study.uuid,
        "title": study.about.get("title"),
        "train": study.document["train"]["count"],
        "targets": {name: entry["count"] for name, entry in sets.items()},
        "annotations": {
            name: sorted([*annotation.names(study.objects, name), *own.get(name, [])])
            for name in ("train", *sets, "class")
        },
        "bytes": sum(shared) + sum(entry["bytes"] for entry in algorithms.values()),
        "algorithms": algorithms,
        "removed": study.removed if algorithm is None else {},
        "comparisons": [
            {
                "comparison": c["comparison"],
                "algorithms": c["algorithms"],
                "where": c["parameters"].get("where"),
                **_said(study, c),
            }
            for c in study.comparisons
            if algorithm is None or algorithm in c["algorithms"]
        ],
    }


def _said(study: Study, comparison: ComparisonDocument) -> dict[str, Any]:
    """Whether two algorithms differ, and what their runs would have shown, where a comparison kept it."""
    where = f"comparisons/{comparison['comparison']}/complete.json"
    kept = load_document("complete", study.objects.get(where), where).get("summary", {})
    return {key: kept.get(key) for key in ("differs", "detectable")}


def _algorithm_status(study: Study, name: str) -> dict[str, Any]:
    algorithm = study.algorithm(name)
    blocks = algorithm.blocks
    view = algorithm.table.view()
    content_id = view.content_id()
    missing = algorithm.missing(view.run)
    failed = failures.failed(study.objects, algorithm.prefix, missing)
    pending = missing[~np.isin(missing, failed)]
    return {
        "alpha": algorithm.alpha,
        "sampling": algorithm.document["sampling"],
        "outputs": list(algorithm.outputs),
        "planned": sum(block.runs for block in blocks) if algorithm.planned else None,
        "stored": len(view),
        "pending": len(pending),
        "failed": len(failed),
        "failures": [
            {key: one[key] for key in ("run", "error", "time", "host")}
            for one in _failures(algorithm, failed)
        ],
        "retracted": len(view.manifest.retracted),
        "blocks": [_block_status(block, pending, failed) for block in blocks],
        "splits": _splits(algorithm, view, blocks),
        "conditions": conditions.stored(algorithm, view),
        "accuracy": conditions.accuracy(algorithm, view),
        "outputs_on": {
            outputs.target_set: _outputs_status(outputs, view)
            for outputs in later_outputs(study, name)
        },
        "full": {label: len(table.view()) for label, table in full_tables(study, name)},
        "removals": {label: len(table.view()) for label, table in removal_tables(study, name)},
        "segments": len(view.tail),
        "version": view.manifest.version,
        "content_id": content_id,
        "conflicts": len(view.conflicts),
        "unreferenced": [] if view.manifest.version else _bases(algorithm.table),
        "bytes": sum(info.size for info in study.objects.entries(algorithm.prefix)),
        "tags": [entry["name"] for entry in tag.read_all(algorithm.table)],
        "fits": [
            {
                "fit": fit["fit"],
                "output": fit["output"],
                "complete": fit["complete"],
                "runs": runs_of(fit),
                "current": fit["content_id"] == content_id,
                "version": fit["version"],
                "retracted": retracted_since(algorithm, fit),
            }
            for fit in study.fits(name)
        ],
    }


def _bases(table: Table) -> list[str]:
    """Bases, which no log entry names where there is none."""
    prefix = f"{table.prefix}base/"
    return [f"{prefix}{name}" for name in table.objects.children(prefix)]


def _failures(algorithm: Algorithm, failed: NDArray[np.int64]) -> list[FailureDocument]:
    """The last failures; a record that cannot be read is for 'dmstore verify' to tell."""
    try:
        return failures.read(
            algorithm.objects, algorithm.prefix, algorithm.uuid, failed.tolist(), _MOST_FAILURES
        )
    except (DmstoreError, FileNotFoundError):
        return []


def _block_status(
    block: Block, pending: NDArray[np.int64], failed: NDArray[np.int64]
) -> dict[str, int]:
    """A block of the plan: ids from ``first_run``, and how many of them are stored."""
    inside, bad = (
        int(((runs >= block.first_run) & (runs < block.stop)).sum()) for runs in (pending, failed)
    )
    return {
        "first_run": block.first_run,
        "runs": block.runs,
        "repeats": block.repeats,
        "masks": block.masks,
        "stored": block.runs - inside - bad,
        "pending": inside,
        "failed": bad,
    }


def _splits(algorithm: Algorithm, view: View, blocks: list[Block]) -> dict[str, int] | None:
    """Runs by what they are for; None where that would mean opening very many segments.

    The plan says which mask a planned run has; of a foreign run only its stored mask id tells.
    """
    if algorithm.planned:
        mask_id = plan.masks_of(view.run, blocks)
    elif len(view.segments) <= _MOST_SEGMENTS:
        mask_id = view.read(["mask_id"])["mask_id"]
    else:
        return None
    split = algorithm.split(mask_id)
    return {name: int((split == name).sum()) for name in plan.SPLITS}


def _outputs_status(outputs: TargetOutputs, runs: View) -> dict[str, int]:
    """How complete the outputs on a later target set are."""
    view = outputs.table.view()
    stored = int((joined(runs, view) >= 0).sum())
    return {
        "stored": stored,
        "pending": len(runs) - stored,
        "retracted": len(view.manifest.retracted),
        "segments": len(view.tail),
        "conflicts": len(view.conflicts),
        "bytes": sum(info.size for info in outputs.table.objects.entries(outputs.table.prefix)),
    }


def compact(
    study: Study, algorithm: str | None = None, *, progress: Progress | None = None
) -> dict[str, Compaction]:
    """Bring all rows of one algorithm or of all into one base each. Safe while others write.

    Parameters
    ----------
    study : Study
    algorithm : str, optional
        All of them by default.
    progress : callable, optional
        Called with the name of the table, rows written and rows in all.

    Returns
    -------
    dict of str to Compaction
        The runs by the algorithm's name, outputs on later target sets as ``NAME:SET``.

    Raises
    ------
    NotFoundError
        If the study has no algorithm of this name.
    StorageError
        If the storage refuses, or lets a name be created twice.
    """
    check_opened(study)
    done = {}
    for name in [algorithm] if algorithm else study.algorithms:
        for label, table in tables(study, name):
            done[label] = compact_table(table, counting(progress, label))
    return done


def vacuum(
    study: Study, algorithm: str | None = None, *, grace: float = GRACE
) -> dict[str, Vacuum]:
    """Delete what nothing refers to any more: rows of one algorithm or of all, and results that a killed
    process left unfinished.

    Parameters
    ----------
    study : Study
    algorithm : str, optional
        All of them by default.
    grace : float
        Seconds for which something must have been out of use.

    Returns
    -------
    dict of str to Vacuum
        Names and bytes of what was deleted, by algorithm, and of results by the empty name.

    Raises
    ------
    NotFoundError
        If the study has no algorithm of this name.
    CorruptionError
        If something is not there that should be, as in a copy that was interrupted: what looks like waste
        there may be all that there is. Nothing is deleted then.
    StorageError
        If the storage refuses.
    """
    check_opened(study)
    if problem := next(gaps(study, algorithm), None):
        msg = f"{problem.where}: {problem.text}; nothing was deleted ('dmstore verify {study.path}' tells all)"
        raise CorruptionError(msg)
    done = {}
    for name in [algorithm] if algorithm else study.algorithms:
        opened = study.algorithm(name)

        def pinned(opened: Algorithm = opened, name: str = name) -> set[str]:
            tags = {entry["base"] for entry in tag.read_all(opened.table)}
            return tags | {fit["base"] for fit in study.fits(name) if not fit["complete"]}

        done[name] = _joined(
            vacuum_table(opened.table, pinned, grace=grace),
            *(_vacuum_notes(one, grace) for one in (opened, *removal_runs(study, name))),
        )
        for outputs in later_outputs(study, name):
            done[outputs.name] = vacuum_table(outputs.table, set, grace=grace)
        for label, table in apart_tables(study, name):
            done[label] = vacuum_table(table, set, grace=grace)
    if algorithm is None:
        done[""] = _vacuum_unnamed(study, grace)
    return done


def _joined(*parts: Vacuum) -> Vacuum:
    return Vacuum(
        tuple(name for part in parts for name in part.removed), sum(part.size for part in parts)
    )


def _vacuum_notes(algorithm: Algorithm, grace: float) -> Vacuum:
    """Delete failures of runs that were stored since, and claims that nobody renews."""
    objects, prefix = algorithm.objects, algorithm.prefix
    now = objects.now()
    old = claims.stale(objects, prefix, now - max(grace, _HOUR))
    if recorded := failures.recorded(objects, prefix):
        missing = algorithm.missing(algorithm.table.view().run)
        settled = failures.settled(recorded, missing)
        old += [info for info in settled if info.modified <= now - grace]
    for info in old:
        objects.delete(info.name)
    return Vacuum(tuple(info.name for info in old), sum(info.size for info in old))


def _vacuum_unnamed(study: Study, grace: float) -> Vacuum:
    """Delete groups of results and target sets that no document names, once nothing in them has
    changed for the grace period.
    """
    objects = study.objects
    # No commit stands between writing a result and naming it, so it gets an hour at least.
    unnamed = objects.now() - max(grace, _HOUR)
    before = objects.now() - grace
    places = [
        f"datamodels/{name}/{fit}/"
        for name in objects.children("datamodels/")
        for fit in objects.children(f"datamodels/{name}/")
    ]
    places += [f"comparisons/{name}/" for name in objects.children("comparisons/")]
    removed, size = [], 0
    for place in places:
        inside = objects.children(place)
        named = ""
        if "complete.json" in inside:
            named = load_document("complete", objects.get(f"{place}complete.json"), place)["path"]
        elif place.startswith("datamodels/") and "blocks" not in inside:
            # Not what its blocks can be made into again, but all there is of a fit that a copy cut off.
            continue
        for child in inside:
            if not child.endswith(".zarr") or child == named:
                continue
            parts = objects.entries(f"{place}{child}/")
            if parts and max(info.modified for info in parts) <= unnamed:
                objects.delete(f"{place}{child}")
                removed.append(f"{place}{child}")
                size += sum(info.size for info in parts)
    # Listed before the documents are read, so that a set committed meanwhile keeps its group.
    old = {info.name: info for info in objects.entries("examples/") if info.modified <= unnamed}
    sets = study.target_sets
    for set_name, where in unnamed_sets(objects, {entry["path"] for entry in sets.values()}):
        # Without a document of that name it may be one that a copy has not brought.
        if set_name in sets and where in old:
            objects.delete(where)
            removed.append(where)
            size += old[where].size
    for info in objects.leftovers():
        if info.modified <= before:
            objects.delete(info.name)
            removed.append(info.name)
            size += info.size
    return Vacuum(tuple(removed), size)
