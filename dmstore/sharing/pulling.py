"""Pulling a published study: a verified copy that can be extended."""

from __future__ import annotations

import secrets
import shutil
import threading
import zipfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypedDict

from dmstore import provenance
from dmstore.core.given import local_path
from dmstore.core.progress import Count, Progress, counting
from dmstore.errors import (
    CorruptionError,
    FormatError,
    InputError,
    StorageError,
    StudyNotFoundError,
)
from dmstore.schema.documents import dump_document, load_document
from dmstore.schema.typed_documents import IndexAlgorithm, IndexAlgorithmOutput, OriginDocument
from dmstore.sharing import blocks
from dmstore.sharing.checking import read_index
from dmstore.sharing.staging import Staging
from dmstore.storage.location import open_location
from dmstore.storage.objects import metadata
from dmstore.storage.objects.objects import Objects
from dmstore.storage.objects.remote import is_url
from dmstore.storage.objects.strict import zip_in_memory
from dmstore.storage.published import index as indexes
from dmstore.storage.published.index import FOR_PEOPLE, INDEX, ORIGIN, Entry, Index
from dmstore.storage.table import log
from dmstore.storage.table.table import Table
from dmstore.study.algorithm import ANCHOR
from dmstore.study.outside import outside_studies
from dmstore.study.study import Study, open_study
from dmstore.upkeep.tables import apart_tables, later_outputs
from dmstore.upkeep.verification import verify

_THREADS = 8
MOST_BRANCHES = 2**29
_NOTHING: IndexAlgorithm = {"version": 0, "runs": 0, "content_id": None}


class Pulled(TypedDict):
    """What :func:`pull` returns; ``fetched`` counts the objects that were not there yet."""

    study: str
    source: str
    uuid: str
    objects: int
    bytes: int
    fetched: int
    branch: int
    algorithms: dict[str, IndexAlgorithm]


def pull(source: str | Path, path: str | Path, *, progress: Progress | None = None) -> Pulled:
    """Copy a published study, check all of it, and make it one that can be extended.

    A killed call goes on where it was when it is made again: objects that are there with the right
    sha256 are kept, in a hidden directory beside `path`. Nothing is at `path` until all is there and
    every row digest and content id has been checked.

    Parameters
    ----------
    source : path or str
        A directory, a ``.zip``, or the URL of a bucket or a web server.
    path : path or str
        A local path where nothing is yet.
    progress : callable, optional
        Called with bytes done and bytes in all.

    Returns
    -------
    dict
        ``study``, ``source``, ``uuid``, ``objects``, ``bytes``, ``fetched``, ``branch``, and
        ``algorithms`` with ``version``, ``runs`` and ``content_id`` of each.

    Raises
    ------
    StudyNotFoundError
        If no published study is at the source.
    ExistsError
        If something is at `path`.
    FormatError, InputError, CorruptionError
        If an object is not what the index says, or the index or an archive is not to be trusted.
    """
    if is_url(path):
        msg = f"{path}: pull makes a copy on a file system; give a local path"
        raise InputError(msg)
    target = outside_studies(path, itself=False)
    objects = open_location(source)
    index = read_index(objects)
    if index is None:
        msg = f"{objects.url}: no {INDEX} there, so it is no published study; make one with 'dmstore publish'"
        raise StudyNotFoundError(msg)
    if ANCHOR not in index.entries or not objects.exists(ANCHOR):
        msg = f"{objects.url}: no {ANCHOR} there; its publication is not finished, publish it again"
        raise StudyNotFoundError(msg)
    with Staging(target) as staging:
        return _pull(source, objects, index, staging, counting(progress, "pull"))


def _pull(
    source: str | Path, objects: Objects, index: Index, staging: Staging, progress: Count | None
) -> Pulled:
    wanted = [entry for name, entry in index.entries.items() if name not in FOR_PEOPLE]
    fetched = _fetch(objects, staging, wanted, progress)
    staging.keep_only({entry.name for entry in wanted})
    try:
        _check(staging, index)
    except StorageError:
        raise
    except Exception as error:
        # All bytes are what the index says, so fetching them again would not help. (A hostile group can
        # make zarr raise anything.)
        staging.discard()
        text = " ".join(str(error).split())[:500] or type(error).__name__
        msg = f"{objects.url}: {text}; nothing was pulled, tell those who published it"
        raise CorruptionError(msg) from error
    origin = _origin(source, index)
    staging.write(ORIGIN, [dump_document("origin", origin)])
    staging.finish()
    return {
        "study": open_study(staging.target).path,
        "source": origin["source"],
        "uuid": index.study,
        "objects": len(wanted),
        "bytes": sum(entry.size for entry in wanted),
        "fetched": fetched,
        "branch": origin["branch"],
        "algorithms": {name: entry.copy() for name, entry in index.algorithms.items()},
    }


def _origin(source: str | Path, index: Index) -> OriginDocument:
    return {
        # A URL holds no credentials: it would have been refused.
        "source": str(source).rstrip("/") if is_url(source) else local_path(source).absolute().name,
        "study": index.study,
        "pulled": provenance.utc_now(),
        "software": provenance.software(),
        "content_ids": {name: entry["content_id"] for name, entry in index.algorithms.items()},
        "branch": 1 + secrets.randbelow(MOST_BRANCHES - 1),
    }


def _fetch(objects: Objects, staging: Staging, wanted: list[Entry], progress: Count | None) -> int:
    """Fetch what is not there yet; how many objects that were."""
    total = sum(entry.size for entry in wanted)
    missing, done = [], 0
    for entry in wanted:
        if staging.holds(entry):
            done += entry.size
        else:
            missing.append(entry)
    free = shutil.disk_usage(staging.path).free
    if total - done > free:
        if not done:
            staging.discard()
        msg = f"{staging.target}: the index names {total - done} bytes to fetch, but only {free} are free; free some space or choose another disk"
        raise StorageError(msg)
    lock = threading.Lock()
    stopped = threading.Event()

    def fetch(entry: Entry) -> None:
        nonlocal done
        if stopped.is_set():
            return
        written = staging.write(
            entry.name, indexes.limited(_present(objects, entry), entry, objects.url)
        )
        if written != entry:
            (staging.path / entry.name).unlink(missing_ok=True)
            msg = f"{objects.url}/{entry.name}: has sha256 {written.sha256}, not the index's {entry.sha256}; it was changed or damaged, publish the study again"
            raise CorruptionError(msg)
        with lock:
            done += entry.size
            if progress:
                progress(done, total)

    with ThreadPoolExecutor(_THREADS) as pool:
        futures = [pool.submit(fetch, entry) for entry in missing]
        try:
            for future in futures:
                future.result()
        except BaseException:
            stopped.set()
            raise
    return len(missing)


def _present(objects: Objects, entry: Entry) -> Any:
    try:
        yield from blocks.read(objects, entry.name)
    except FileNotFoundError:
        msg = f"{objects.url}/{entry.name}: is in the index and not there; publish the study again"
        raise FormatError(msg) from None


def _check(staging: Staging, index: Index) -> None:
    """That the copy is the study and the snapshots that the index names, every row of them right."""
    objects = staging.objects
    for info in objects.entries(""):
        if info.name.endswith("/zarr.json"):
            metadata.layouts(objects.get(info.name), info.name)
        elif info.name.endswith(".zip"):
            _check_zip(objects, info.name)
    study = Study(objects, load_document("study", objects.get(ANCHOR), ANCHOR))
    if study.uuid != index.study:
        msg = f"{ANCHOR} is of study {study.uuid}, the index of {index.study}"
        raise CorruptionError(msg)
    _check_snapshots(study, index.algorithms)
    for problem in verify(study, copied=True):
        msg = f"{problem.where}: {problem.text}"
        raise CorruptionError(msg)


def _check_snapshots(study: Study, algorithms: Mapping[str, IndexAlgorithm]) -> None:
    if set(study.algorithms) != set(algorithms):
        msg = f"{INDEX} names the algorithms {', '.join(sorted(algorithms)) or 'none'}, the study has {', '.join(study.algorithms) or 'none'}"
        raise CorruptionError(msg)
    for name, stated in algorithms.items():
        _check_snapshot(study.algorithm(name).table, stated, f"algorithm {name!r}")
        later = {later_set.target_set: later_set.table for later_set in later_outputs(study, name)}
        outputs = stated.get("outputs", {})
        for target_set in outputs:
            if target_set not in later:
                msg = f"{INDEX} names outputs of {name!r} on {target_set!r}, the study has none"
                raise CorruptionError(msg)
        for target_set, table in later.items():
            state = outputs.get(target_set, _NOTHING)
            _check_snapshot(table, state, f"algorithm {name!r} on {target_set!r}")
        models = {label.removeprefix(f"{name}:"): one for label, one in apart_tables(study, name)}
        removals = stated.get("removals", {})
        full = {**stated.get("full", {}), **{f"removal:{key}": removals[key] for key in removals}}
        for label in full.keys() | models.keys():
            if label not in models:
                msg = f"{INDEX} names {label!r} of {name!r}, the study has none"
                raise CorruptionError(msg)
            state = full.get(label, _NOTHING)
            _check_snapshot(models[label], state, f"algorithm '{name}:{label}'")


def _check_zip(objects: Objects, name: str) -> None:
    """Refuse a zipped group that dmstore never writes."""
    try:
        store = zip_in_memory(objects.get(name), name)
    except (zipfile.BadZipFile, ValueError, OSError) as error:
        msg = f"{name}: no whole archive as dmstore writes it ({error})"
        raise FormatError(msg) from None
    for key, content in store.contents.items():
        if key == "zarr.json" or key.endswith("/zarr.json"):
            metadata.layouts(content, f"{name}/{key}")


def _check_snapshot(table: Table, stated: IndexAlgorithm | IndexAlgorithmOutput, what: str) -> None:
    manifest = log.newest(table.objects, table.prefix)
    base = manifest.base
    actual = (manifest.version, base.runs if base else 0, base.content_id if base else None)
    if actual != (stated["version"], stated["runs"], stated["content_id"]):
        msg = f"{what} is not the snapshot that the index names: version {actual[0]} with {actual[1]} runs, content id {actual[2]}"
        raise CorruptionError(msg)
    if base is not None:
        # A digest is 16 random bytes, so that a base has that many bytes a run at least.
        prefix = f"{table.prefix}{base.path}/"
        size = sum(info.size for info in table.objects.entries(prefix))
        run = metadata.layouts(table.objects.get(f"{prefix}run/zarr.json"), f"{prefix}run")[
            ""
        ].shape
        if base.runs * 16 > size or run != (base.runs,):
            msg = f"{prefix}: {size} bytes with {run} run ids cannot be the {base.runs} runs of the log"
            raise CorruptionError(msg)
