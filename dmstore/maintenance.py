"""A whole study at once: status, verification, compaction, vacuum."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from dmstore import plan, schema
from dmstore.algorithm import Algorithm
from dmstore.errors import DmstoreError
from dmstore.examples import read_ids
from dmstore.storage import log, tag
from dmstore.storage.compact import Compaction, compact
from dmstore.storage.vacuum import GRACE, Vacuum, vacuum
from dmstore.storage.verify import Problem, verify
from dmstore.study import Study

_HOUR = 3600.0


def status(study: Study) -> dict[str, Any]:
    """What a study holds and what is still to do.

    Returns
    -------
    dict
        ``study``, ``uuid``, ``train``, ``targets``, and ``algorithms``: of each the planned,
        stored and pending runs, runs by split, segments not yet compacted, conflicts, bytes, tags
        and fits.
    """
    return {
        "study": study.path,
        "uuid": study.uuid,
        "train": study.document["train"]["count"],
        "targets": {name: entry["count"] for name, entry in study.document["targets"].items()},
        "algorithms": {name: _algorithm_status(study, name) for name in study.algorithms},
        "comparisons": [
            {"comparison": c["comparison"], "algorithms": c["algorithms"]}
            for c in study.comparisons()
        ],
    }


def _algorithm_status(study: Study, name: str) -> dict[str, Any]:
    algorithm = study.algorithm(name)
    view = algorithm.table.view()
    mask_id = view.read(["mask_id"])["mask_id"]
    split = algorithm.split(mask_id)
    planned = algorithm.planned_count() if algorithm.planned else None
    wanted = plan.planned_runs(algorithm.blocks())
    stored = set(view.run.tolist())
    return {
        "alpha": algorithm.alpha,
        "sampling": algorithm.document["sampling"],
        "outputs": list(algorithm.outputs),
        "planned": planned,
        "stored": len(view),
        "pending": sum(run not in stored for run in wanted.tolist()) if algorithm.planned else 0,
        "splits": {name: int((split == name).sum()) for name in plan.SPLITS},
        "segments": len(view.tail),
        "version": view.manifest.version,
        "content_id": view.content_id(),
        "conflicts": len(view.conflicts),
        "bytes": sum(info.size for info in study.objects.entries(algorithm.table.prefix)),
        "tags": [entry["name"] for entry in tag.read_all(algorithm.table)],
        "fits": [
            {
                "fit": fit["fit"],
                "output": fit["output"],
                "complete": fit["complete"],
                "runs": sum(fit["runs"].values()),
                "current": fit["content_id"] == view.content_id(),
            }
            for fit in study.fits(name)
        ],
    }


def verify_study(study: Study, algorithm: str | None = None) -> Iterator[Problem]:
    """Read everything and yield what is wrong: ids, documents, digests, masks that are not the plan's."""
    for name, entry in (("train", study.document["train"]), *study.document["targets"].items()):
        try:
            read_ids(study.objects, name, entry["count"], entry["sha256"])
        except (DmstoreError, OSError, ValueError, KeyError) as error:
            yield Problem("examples", f"examples/{name}.zarr", f"{error}; restore it from a copy")
    for name in [algorithm] if algorithm else study.algorithms:
        if algorithm:
            study.algorithm(name)
        try:
            opened = study.algorithm(name)
            opened.blocks()
            pinned = {entry["base"]: entry for entry in tag.read_all(opened.table)}
            pinned |= {fit["base"]: fit for fit in study.fits(name) if not fit["complete"]}
            bases = [log.Base(path, -1, entry["content_id"]) for path, entry in pinned.items()]
            yield from verify(opened.table, opened.check_rows, bases)
        except DmstoreError as error:
            yield Problem(error.kind, f"algorithms/{name}", str(error))


def compact_study(
    study: Study,
    algorithm: str | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> dict[str, Compaction]:
    """Compact one algorithm or all."""
    done = {}
    for name in [algorithm] if algorithm else study.algorithms:

        def report(rows: int, total: int, name: str = name) -> None:
            if progress:
                progress(name, rows, total)

        done[name] = compact(study.algorithm(name).table, report)
    return done


def vacuum_study(
    study: Study, algorithm: str | None = None, *, grace: float = GRACE
) -> dict[str, Vacuum]:
    """Vacuum one algorithm or all: runs, and results that a killed process left unfinished."""
    done = {}
    for name in [algorithm] if algorithm else study.algorithms:
        opened = study.algorithm(name)

        def pinned(opened: Algorithm = opened, name: str = name) -> set[str]:
            tags = {entry["base"] for entry in tag.read_all(opened.table)}
            return tags | {fit["base"] for fit in study.fits(name) if not fit["complete"]}

        done[name] = vacuum(opened.table, pinned, grace=grace)
    if algorithm is None:
        done[""] = _vacuum_results(study, grace)
    return done


def _vacuum_results(study: Study, grace: float) -> Vacuum:
    """Delete result groups that no ``complete.json`` names, once nothing in them has changed for the
    grace period.
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
            named = schema.load_document("complete", objects.get(f"{place}complete.json"), place)[
                "path"
            ]
        for child in objects.children(place):
            if not child.endswith(".zarr") or child == named:
                continue
            inside = objects.entries(f"{place}{child}/")
            if inside and max(info.modified for info in inside) <= unnamed:
                objects.delete(f"{place}{child}")
                removed.append(f"{place}{child}")
                size += sum(info.size for info in inside)
    for info in objects.leftovers():
        if info.modified <= before:
            objects.delete(info.name)
            removed.append(info.name)
            size += info.size
    return Vacuum(tuple(removed), size)
