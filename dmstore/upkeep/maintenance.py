"""A whole study at once: status, verification, compaction, vacuum."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmstore.core.progress import Progress, counting
from dmstore.errors import DmstoreError
from dmstore.schema.documents import load_document
from dmstore.storage.acts import tag
from dmstore.storage.acts.compact import Compaction
from dmstore.storage.acts.compact import compact as compact_table
from dmstore.storage.acts.vacuum import GRACE, Vacuum
from dmstore.storage.acts.vacuum import vacuum as vacuum_table
from dmstore.storage.acts.verify import Problem
from dmstore.storage.acts.verify import verify as verify_table
from dmstore.storage.table import groups, log
from dmstore.storage.table.table import Table
from dmstore.storage.table.view import View
from dmstore.study import annotation, plan
from dmstore.study.algorithm import Algorithm
from dmstore.study.examples import read_ids
from dmstore.study.plan import Block
from dmstore.study.results import runs_of
from dmstore.study.study import Study, check_opened
from dmstore.study.target_outputs import TargetOutputs, joined
from dmstore.study.target_sets import TargetSet
from dmstore.upkeep.retraction import retracted_since

_HOUR = 3600.0
_ROWS = 4096


# Unabsorbed segments of a foreign algorithm whose mask ids a status still reads.
_MOST_SEGMENTS = 200


def status(study: Study, algorithm: str | None = None) -> dict[str, Any]:
    """What a study holds and what is still to do; nothing is read but ids and small documents.

    Parameters
    ----------
    study : Study
    algorithm : str, optional
        Of the algorithms and comparisons only this one and its own.

    Returns
    -------
    dict
        ``study``, ``uuid``, ``title``, ``train``, ``targets`` (set to count), ``annotations`` (set to
        names), ``bytes``, ``comparisons``, and ``removed`` (name to reason), and ``algorithms``: of each the planned, stored, pending
        and retracted runs, the same by block of the plan, runs by split, ``outputs_on`` (of each later
        target set the stored and pending runs), segments not yet compacted, conflicts, bytes, tags
        and fits, each with the number of its runs that were ``retracted`` since.

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
    shared = [
        info.size
        for place in ("about/", "examples/", "targets/", "datamodels/", "comparisons/")
        for info in study.objects.entries(place)
    ]
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
            {"comparison": c["comparison"], "algorithms": c["algorithms"]}
            for c in study.comparisons
            if algorithm is None or algorithm in c["algorithms"]
        ],
    }


def _algorithm_status(study: Study, name: str) -> dict[str, Any]:
    algorithm = study.algorithm(name)
    blocks = algorithm.blocks
    view = algorithm.table.view()
    content_id = view.content_id()
    pending = algorithm.missing(view.run)
    return {
        "alpha": algorithm.alpha,
        "sampling": algorithm.document["sampling"],
        "outputs": list(algorithm.outputs),
        "planned": sum(block.runs for block in blocks) if algorithm.planned else None,
        "stored": len(view),
        "pending": len(pending),
        "retracted": len(view.manifest.retracted),
        "blocks": [_block_status(block, pending) for block in blocks],
        "splits": _splits(algorithm, view, blocks),
        "outputs_on": {
            outputs.target_set: _outputs_status(outputs, view)
            for outputs in later_outputs(study, name)
        },
        "segments": len(view.tail),
        "version": view.manifest.version,
        "content_id": content_id,
        "conflicts": len(view.conflicts),
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


def _block_status(block: Block, pending: NDArray[np.int64]) -> dict[str, int]:
    """A block of the plan: ids from ``first_run``, and how many of them are stored."""
    inside = int(((pending >= block.first_run) & (pending < block.stop)).sum())
    return {
        "first_run": block.first_run,
        "runs": block.runs,
        "repeats": block.repeats,
        "masks": block.masks,
        "stored": block.runs - inside,
        "pending": inside,
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


def later_outputs(study: Study, name: str) -> list[TargetOutputs]:
    """Tables of an algorithm's outputs on target sets that were added later, as far as there are any."""
    sets = study.target_sets
    return [
        study.target_outputs(name, target_set)
        for target_set in study.objects.children(f"algorithms/{name}/outputs/")
        if target_set in sets and sets[target_set]["later"]
    ]


def verify(study: Study, algorithm: str | None = None) -> Iterator[Problem]:
    """Read everything and say what is wrong: ids, annotations, documents, digests, masks that are
    not the plan's.

    Parameters
    ----------
    study : Study
    algorithm : str, optional
        Of the algorithms this one alone.

    Yields
    ------
    Problem
        Its ``kind``, ``where`` it is and a ``text``; none if all is well.

    Raises
    ------
    NotFoundError
        If the study has no algorithm of this name.
    """
    check_opened(study)
    if algorithm:
        study.algorithm(algorithm)
    try:
        sets = study.target_sets
    except DmstoreError as error:
        yield Problem(error.kind, "targets", str(error))
        return
    yield from _verify_examples(study, sets)
    for name in [algorithm] if algorithm else study.algorithms:
        try:
            opened = study.algorithm(name)
            list(opened.blocks)
            pinned = {entry["base"]: entry["content_id"] for entry in tag.read_all(opened.table)}
            pinned |= {
                fit["base"]: fit["content_id"] for fit in study.fits(name) if not fit["complete"]
            }
            bases = [log.Base(path, -1, content_id) for path, content_id in pinned.items()]
            yield from verify_table(opened.table, opened.check_rows, bases)
            for outputs in later_outputs(study, name):
                yield from verify_table(outputs.table)
        except DmstoreError as error:
            yield Problem(error.kind, f"algorithms/{name}", str(error))
        for child in study.objects.children(f"algorithms/{name}/outputs/"):
            if child not in sets or not sets[child]["later"]:
                where = f"algorithms/{name}/outputs/{child}"
                yield Problem("unknown", where, f"no target set {child!a} in this study")


def _verify_examples(study: Study, sets: Mapping[str, TargetSet]) -> Iterator[Problem]:
    """Ids of every set, and every annotation read whole."""
    train: TargetSet = {
        **study.document["train"],
        "path": "examples/train.zarr",
        "later": False,
    }
    counts = {"class": study.document.get("classes", 0)}
    for name, entry in (("train", train), *sets.items()):
        where, counts[name] = entry["path"], entry["count"]
        try:
            read_ids(study.objects, where, entry["count"], entry["sha256"])
            groups.read(study.objects, where)
        except (DmstoreError, OSError, ValueError, KeyError) as error:
            yield Problem("examples", where, f"{error}; restore it from a copy")
    for child in study.objects.children(annotation.PLACE):
        where = f"{annotation.PLACE}{child}"
        set_name, _ = annotation.parse(child) or ("", "")
        if set_name not in counts:
            yield Problem("unknown", ascii(where)[1:-1], "no annotation of a set of this study")
            continue
        try:
            _, values = annotation.read(study.objects, where, "value", counts[set_name])
            for start in range(0, len(values), _ROWS):
                np.asarray(values[start : start + _ROWS])
        except (DmstoreError, OSError, ValueError, KeyError) as error:
            yield Problem("annotation", where, f"{error}; restore it from a copy")


def _tables(study: Study, name: str) -> Iterator[tuple[str, Table]]:
    """The tables of an algorithm: its runs by its name, later outputs as ``NAME:SET``."""
    yield name, study.algorithm(name).table
    for outputs in later_outputs(study, name):
        yield outputs.name, outputs.table


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
        for label, table in _tables(study, name):
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
    StorageError
        If the storage refuses.
    """
    check_opened(study)
    done = {}
    for name in [algorithm] if algorithm else study.algorithms:
        opened = study.algorithm(name)

        def pinned(opened: Algorithm = opened, name: str = name) -> set[str]:
            tags = {entry["base"] for entry in tag.read_all(opened.table)}
            return tags | {fit["base"] for fit in study.fits(name) if not fit["complete"]}

        done[name] = vacuum_table(opened.table, pinned, grace=grace)
        for outputs in later_outputs(study, name):
            done[outputs.name] = vacuum_table(outputs.table, set, grace=grace)
    if algorithm is None:
        done[""] = _vacuum_unnamed(study, grace)
    return done


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
        named = ""
        if objects.exists(f"{place}complete.json"):
            named = load_document("complete", objects.get(f"{place}complete.json"), place)["path"]
        for child in objects.children(place):
            if not child.endswith(".zarr") or child == named:
                continue
            inside = objects.entries(f"{place}{child}/")
            if inside and max(info.modified for info in inside) <= unnamed:
                objects.delete(f"{place}{child}")
                removed.append(f"{place}{child}")
                size += sum(info.size for info in inside)
    # Listed before the documents are read, so that a set committed meanwhile keeps its group.
    unnamed_sets = [
        info
        for info in objects.entries("examples/")
        if info.name.count("/") == 1
        and info.name.endswith(".zarr.zip")
        and info.modified <= unnamed
    ]
    kept = {entry["path"] for entry in study.target_sets.values()}
    for info in unnamed_sets:
        if info.name not in kept:
            objects.delete(info.name)
            removed.append(info.name)
            size += info.size
    for info in objects.leftovers():
        if info.modified <= before:
            objects.delete(info.name)
            removed.append(info.name)
            size += info.size
    return Vacuum(tuple(removed), size)
