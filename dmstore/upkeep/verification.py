"""A whole study verified: that all is there, reads, and is what digests, plans and documents say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from dmstore.errors import DmstoreError
from dmstore.schema.group_specs import check_group, group_spec
from dmstore.storage.acts import tag
from dmstore.storage.acts.gaps import gaps as table_gaps
from dmstore.storage.acts.problem import Problem
from dmstore.storage.acts.verify import verify as verify_table
from dmstore.storage.objects.objects import Objects
from dmstore.storage.table import groups, log
from dmstore.study import annotation, failures, kept_models, results
from dmstore.study.examples import opened as opened_group
from dmstore.study.examples import read_ids
from dmstore.study.full import is_there
from dmstore.study.study import Study, check_opened
from dmstore.study.target_sets import TargetSet
from dmstore.upkeep.tables import is_copy, later_outputs, removal_runs, tables

_ROWS = 4096
_COPY = "copy the study again, whole"
# What is kept beside a comparison, one object each, by how its name begins.
_REMOVALS = {"removal-": "removals"}
_BESIDE = {
    "effects-": "effects",
    "counterfactual-": "counterfactual",
    "captions-": "captions",
    **_REMOVALS,
}


def verify(
    study: Study, algorithm: str | None = None, *, copied: bool | None = None
) -> Iterator[Problem]:
    """Read everything and say what is wrong: ids, annotations, documents, digests, masks that are not
    the plan's, results, and what is not there although something says that it is.

    Parameters
    ----------
    study : Study
    algorithm : str, optional
        Of the algorithms and results this one and its own alone.
    copied : bool, optional
        Whether it is of one that was published or pulled, so that logs begin with the entry of that state;
        by default its own documents say so.

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
    objects = study.objects
    try:
        sets = study.target_sets
    except DmstoreError as error:
        yield Problem(error.kind, "targets", str(error))
        return
    yield from _verify_examples(study, sets)
    yield from _unnamed_sets(objects, sets)
    copied = is_copy(objects) if copied is None else copied
    for name in [algorithm] if algorithm else study.algorithms:
        try:
            opened = study.algorithm(name)
            list(opened.blocks)
            pinned = {entry["base"]: entry["content_id"] for entry in tag.read_all(opened.table)}
            pinned |= {
                fit["base"]: fit["content_id"] for fit in study.fits(name) if not fit["complete"]
            }
            bases = [log.Base(path, -1, content_id) for path, content_id in pinned.items()]
            yield from verify_table(opened.table, opened.check_rows, bases, copied=copied)
            for outputs in later_outputs(study, name):
                yield from verify_table(outputs.table, copied=copied)
            for where, text in failures.check(objects, opened.prefix, opened.uuid):
                yield Problem("failure", where, text)
            if is_there(objects, name):
                models = study.full_models(name)
                yield from verify_table(models.table, models.check_rows, copied=copied)
                for outputs in later_outputs(study, name, full=True):
                    yield from verify_table(outputs.table, copied=copied)
            for runs in removal_runs(study, name):
                if objects.children(runs.table.prefix):
                    yield from verify_table(runs.table, runs.check_rows, copied=copied)
                for where, text in failures.check(objects, runs.prefix, runs.uuid):
                    yield Problem("failure", where, text)
            yield from _verify_models(study, name)
            yield from _verify_fits(study, name)
        except DmstoreError as error:
            yield Problem(error.kind, f"algorithms/{name}", str(error))
        for child in objects.children(f"algorithms/{name}/removals/"):
            where = f"algorithms/{name}/removals/{child}"
            if not child.endswith(".zip") and not objects.exists(f"{where}/removal.json"):
                yield Problem("missing", f"{where}/removal.json", f"is not there; {_COPY}")
        yield from _verify_zips(objects, f"algorithms/{name}/removals/", _REMOVALS)
        for place in ("outputs", "full/outputs"):
            for child in objects.children(f"algorithms/{name}/{place}/"):
                if child not in sets or not sets[child]["later"]:
                    where = f"algorithms/{name}/{place}/{child}"
                    yield Problem("unknown", where, f"no target set {child!a} in this study")
    if algorithm is None:
        yield from _nameless_algorithms(study)
        yield from _verify_comparisons(study)
        yield from _verify_zips(study.objects, "embeddings/", {"": "embeddings"})


def gaps(study: Study, algorithm: str | None = None) -> Iterator[Problem]:
    """What is not there although something says that it is: told by names alone, as a copy that was
    interrupted shows it. A part of what :func:`verify` says.

    Parameters
    ----------
    study : Study
    algorithm : str, optional
        All of them by default.

    Yields
    ------
    Problem
    """
    copied = is_copy(study.objects)
    for name in [algorithm] if algorithm else study.algorithms:
        for _, table in tables(study, name):
            yield from table_gaps(table, copied=copied)
    if algorithm is None:
        yield from _nameless_algorithms(study)


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


def _unnamed_sets(objects: Objects, sets: Mapping[str, TargetSet]) -> Iterator[Problem]:
    """Groups of target sets that no document names, unless another group has their name since."""
    for set_name, where in unnamed_sets(objects, {entry["path"] for entry in sets.values()}):
        if set_name not in sets:
            text = f"no document names this target set: it was interrupted while it was added (add it again), or a copy was ({_COPY})"
            yield Problem("unreferenced", where, text)


def unnamed_sets(objects: Objects, named: set[str]) -> Iterator[tuple[str, str]]:
    """Name of the set and of the object of each group of a target set that is not among `named`."""
    for child in objects.children("examples/"):
        where = f"examples/{child}"
        if child.endswith(".zarr.zip") and where not in named:
            yield child.rpartition("-")[0], where


def _nameless_algorithms(study: Study) -> Iterator[Problem]:
    """Folders of algorithms that have rows and no document: an algorithm is there once it has one."""
    for name in study.objects.children("algorithms/"):
        where = f"algorithms/{name}"
        inside = set(study.objects.children(f"{where}/"))
        if "algorithm.json" not in inside and {"runs", "outputs", "full", "removals"} & inside:
            yield Problem(
                "missing", f"{where}/algorithm.json", f"is not there, but its runs are; {_COPY}"
            )


def _verify_models(study: Study, name: str) -> Iterator[Problem]:
    """Every kept model of an algorithm that was trained on all data."""
    for where in kept_models.names(study.objects, name).values():
        try:
            kept_models.read(study.objects, where)
        except DmstoreError as error:
            yield Problem(error.kind, where, str(error))


def _verify_fits(study: Study, name: str) -> Iterator[Problem]:
    """Every array of the finished fits of an algorithm, and that the log goes as far as they do."""
    objects = study.objects
    listed = {fit["fit"]: fit for fit in study.fits(name)}
    for fit in objects.children(f"datamodels/{name}/"):
        if fit not in listed:
            where = f"datamodels/{name}/{fit}/fit.json"
            if objects.children(f"datamodels/{name}/{fit}/"):
                yield Problem("missing", where, f"is not there; {_COPY}, or remove that folder")
    newest = log.newest(objects, study.algorithm(name).table.prefix)
    content_id = newest.base.content_id if newest.base else None
    for fit, document in listed.items():
        where = f"datamodels/{name}/{fit}"
        # A published tag may be of an earlier version with the same rows.
        if document["version"] > newest.version and document["content_id"] != content_id:
            text = f"is of version {document['version']} of the runs, but the log ends at {newest.version}; {_COPY}"
            yield Problem("missing", where, text)
        if document["complete"]:
            yield from _verify_result(objects, where, "datamodels")


def _verify_comparisons(study: Study) -> Iterator[Problem]:
    try:
        entries = study.comparisons
    except (DmstoreError, OSError) as error:
        yield Problem(getattr(error, "kind", "unreadable"), "comparisons", str(error))
        return
    objects = study.objects
    fits = {
        fit
        for name in objects.children("datamodels/")
        for fit in objects.children(f"datamodels/{name}/")
    }
    for entry in entries:
        where = f"comparisons/{entry['comparison']}"
        for fit in sorted(set(entry["fits"]) - fits):
            yield Problem("missing", where, f"is of fit {fit}, which is not there; {_COPY}")
        yield from _verify_result(objects, where, "comparison")
        yield from _verify_zips(objects, f"{where}/", _BESIDE)


def _verify_zips(objects: Objects, place: str, kinds: Mapping[str, str]) -> Iterator[Problem]:
    """Zipped groups below a place, each read whole; their names' beginnings say of which kind they are."""
    for child in objects.children(place):
        kind = next((kinds[start] for start in kinds if child.startswith(start)), None)
        if kind is None or not child.endswith(".zarr.zip"):
            continue
        where = f"{place}{child}"
        try:
            with opened_group(objects, where) as group:
                check_group(group, group_spec(kind), {}, where)
            groups.read(objects, where)
        except (DmstoreError, OSError, ValueError, KeyError) as error:
            kind = getattr(error, "kind", "unreadable")
            yield Problem(
                kind, where, f"{error}; or delete it, and the same command makes it again"
            )


def _verify_result(objects: Objects, where: str, kind: str) -> Iterator[Problem]:
    try:
        results.read_whole(objects, f"{where}/", kind)
    except (DmstoreError, OSError) as error:
        yield Problem(getattr(error, "kind", "unreadable"), where, str(error))
