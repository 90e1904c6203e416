"""Publishing a study: to a directory, one ``.zip``, or a bucket."""

from __future__ import annotations

import contextlib
import hashlib
import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypedDict

from dmstore import provenance
from dmstore.core.given import local_path
from dmstore.core.progress import Count, Progress, counting
from dmstore.errors import CorruptionError, DmstoreError, ExistsError, FormatError, InputError
from dmstore.schema.typed_documents import AboutDocument, IndexAlgorithm
from dmstore.sharing import documents
from dmstore.sharing.contents import Contents, Item, Selection, collect
from dmstore.sharing.staging import Staging, check_free
from dmstore.storage.acts.compact import compact
from dmstore.storage.objects.local import LocalObjects
from dmstore.storage.objects.objects import Objects
from dmstore.storage.objects.refusals import storage_error
from dmstore.storage.objects.remote import RemoteObjects, is_url
from dmstore.storage.published import index as indexes
from dmstore.storage.published.archive import ZipObjects
from dmstore.storage.published.index import FOR_PEOPLE, INDEX, Entry, Index
from dmstore.storage.published.published import ReadOnly
from dmstore.study.algorithm import ANCHOR
from dmstore.study.outside import outside_studies
from dmstore.study.study import Study, check_opened
from dmstore.upkeep import maintenance
from dmstore.upkeep.tables import apart_tables, later_outputs
from dmstore.upkeep.verification import verify

# In a bucket: says that what is there is of an unfinished publication. Hidden from every listing.
_MARK = ".publishing.part"


class Published(TypedDict):
    """What :func:`publish` returns; ``written`` is 0 where all of it was there."""

    destination: str
    objects: int
    bytes: int
    written: int
    algorithms: dict[str, IndexAlgorithm]


def publish(
    study: Study,
    destination: str | Path,
    selection: Selection | None = None,
    *,
    about: AboutDocument | None = None,
    progress: Progress | None = None,
) -> Published:
    """Publish a study.

    Without a tag the runs are compacted first, and outputs on later target sets in any case. Everything is read back from where it was written, and
    every row digest and content id checked, before it can be opened under its name. A killed call leaves
    nothing that opens as a study; the same call again goes on where it was (a ``.zip`` begins anew), and
    on a finished publication of the same content it changes nothing.

    Parameters
    ----------
    study : Study
    destination : path or str
        A directory, a ``.zip`` or a bucket's URL.
    selection : Selection, optional
        What to publish; everything by default.
    about : mapping, optional
        ``title``, ``authors``, ``licence``, ``citation``, ``doi``, where they are to be stated anew.
    progress : callable, optional
        Called with objects done and objects in all.

    Returns
    -------
    dict
        ``destination``, ``objects``, ``bytes``, ``written``, and ``algorithms`` with ``version``,
        ``runs`` and ``content_id`` of each.

    Raises
    ------
    ExistsError
        If there is something else at the destination.
    CorruptionError
        If a row does not match its digest; nothing is published then.
    """
    check_opened(study)
    selection = selection or Selection()
    _check_destination(study, destination)
    for name in selection.algorithms:
        study.algorithm(name)
    if not isinstance(study.objects, ReadOnly):
        for name in selection.algorithms or study.algorithms:
            if selection.tag is None:
                maintenance.compact(study, name)
            else:
                for outputs in later_outputs(study, name):
                    compact(outputs.table)
                for _, table in apart_tables(study, name):
                    compact(table)
    contents = collect(study, selection, about or {})
    _check_names(study, contents)
    target = _Target.of(destination)
    sheet = _Sheet(study, contents, selection)
    if (done := target.published()) is not None:
        return _again(sheet, done, destination)
    written = target.write(sheet, counting(progress, "publish"))
    return sheet.summary(destination, written)


def _check_destination(study: Study, destination: str | Path) -> None:
    if is_url(destination):
        if str(destination).startswith(("http://", "https://")):
            msg = f"{destination}: a web server takes no uploads; publish to a directory or a bucket that it serves"
            raise InputError(msg)
        place = str(destination).rstrip("/")
        if f"{place}/".startswith(f"{study.path.rstrip('/')}/"):
            msg = f"{destination}: lies inside the study; choose a place outside"
            raise InputError(msg)
        return
    # A published copy may be published to again.
    outside_studies(destination, itself=False)
    if isinstance(study.objects, LocalObjects):
        inside = local_path(destination).resolve()
        if inside.is_relative_to(study.objects.root.resolve()):
            msg = f"{destination}: lies inside the study; choose a place outside"
            raise InputError(msg)


def _check_names(study: Study, contents: Contents) -> None:
    """Refuse what no other lab could pull."""
    names = [item.name for item in contents.items]
    for name in names:
        if not indexes.is_safe(name):
            msg = f"{study.path}/{name}: has a name that cannot be shared; move it out of the study"
            raise InputError(msg)
    try:
        indexes.check_places(names, study.path)
    except FormatError as error:
        if "/base/" not in str(error):
            raise
        msg = f"{error}; a per-run column is left out with --without-columns NAME"
        raise FormatError(msg) from None


class _Sheet:
    """The objects of a publication in the order in which they are written, and their entries so far."""

    def __init__(self, study: Study, contents: Contents, selection: Selection) -> None:
        self.study = study
        self.contents = contents
        self.selection = selection
        self.items = [item for item in contents.items if item.name != ANCHOR]
        self.anchor = next(item for item in contents.items if item.name == ANCHOR)
        self.entries: dict[str, Entry] = {}

    @property
    def count(self) -> int:
        """Number of objects, those for people and the index apart."""
        return len(self.contents.items)

    def presented(self) -> list[Item]:
        """What is for people, once all other entries are known."""
        about, document = self.contents.about, self.study.document
        bases = {
            name: entry.name.removesuffix("/zarr.json")
            for name in self.contents.algorithms
            for entry in self.entries.values()
            if entry.name.startswith(f"algorithms/{name}/runs/base/")
            and entry.name.endswith(".zarr/zarr.json")
        }
        readme = documents.readme(
            about,
            document,
            self.study.target_sets,
            self.contents.algorithms,
            sum(entry.size for entry in self.entries.values()),
            bases,
            ids=self.selection.ids,
            images=self.selection.images,
        )
        pages = [readme, documents.citation(about, document)]
        return [
            Item(name, content=page)
            for name, page in zip(FOR_PEOPLE, pages, strict=True)
            if page is not None
        ]

    def index(self) -> bytes:
        """The index of all entries."""
        index = Index(self.study.uuid, self.contents.algorithms, self.entries)
        return indexes.dump(index, provenance.utc_now(), provenance.software())

    def summary(self, destination: str | Path, written: int) -> Published:
        """What a call returns."""
        return {
            "destination": str(destination),
            "objects": len(self.entries),
            "bytes": sum(entry.size for entry in self.entries.values()),
            "written": written,
            "algorithms": {name: e.copy() for name, e in self.contents.algorithms.items()},
        }


def _again(sheet: _Sheet, done: Index, destination: str | Path) -> Published:
    """Say that the same is published already, or refuse."""
    for item in (*sheet.items, sheet.anchor):
        size, digest = indexes.sha256(item.blocks())
        sheet.entries[item.name] = Entry(item.name, size, digest)
    if {n: e for n, e in done.entries.items() if n not in FOR_PEOPLE} != sheet.entries:
        msg = f"{destination}: another state or selection is published there; choose another place, or remove it first"
        raise ExistsError(msg)
    return sheet.summary(destination, 0)


def _check(objects: Objects, study: Study) -> None:
    """Every row digest, plan and content id of what was written."""
    for problem in verify(Study(objects, study.document), copied=True):
        msg = f"{objects.url}: {problem.where}: {problem.text}; nothing was published"
        raise CorruptionError(msg)


class _Target:
    """Where a study is published to."""

    @staticmethod
    def of(destination: str | Path) -> _Target:
        """The kind that a destination is."""
        if is_url(destination):
            return _Bucket(str(destination))
        path = local_path(destination)
        return _Zip(path) if path.suffix == ".zip" else _Directory(path)

    def published(self) -> Index | None:
        """The index of what is published there."""
        raise NotImplementedError

    def write(self, sheet: _Sheet, progress: Count | None) -> int:
        """Publish there; how many objects were written."""
        raise NotImplementedError


def _steps(items: Sequence[Item], sheet: _Sheet, progress: Count | None) -> Iterator[Item]:
    for item in items:
        yield item
        if progress:
            progress(min(len(sheet.entries), sheet.count), sheet.count)


class _Directory(_Target):
    def __init__(self, path: Path) -> None:
        self.path = path

    def published(self) -> Index | None:
        if not (self.path / INDEX).is_file():
            return None
        return indexes.load((self.path / INDEX).read_bytes(), f"{self.path}/{INDEX}")

    def write(self, sheet: _Sheet, progress: Count | None) -> int:
        with Staging(self.path) as staging:
            return self._write(staging, sheet, progress)

    def _write(self, staging: Staging, sheet: _Sheet, progress: Count | None) -> int:
        written = 0
        for items in ([*sheet.items, sheet.anchor], None):
            for item in _steps(items or sheet.presented(), sheet, progress):
                wanted = Entry(item.name, *indexes.sha256(item.blocks()))
                if not staging.holds(wanted):
                    wanted = staging.write(item.name, item.blocks())
                    written += 1
                sheet.entries[item.name] = wanted
        staging.write(INDEX, [sheet.index()])
        staging.keep_only({*sheet.entries, INDEX})
        _check(staging.objects, sheet.study)
        staging.finish()
        return written


class _Zip(_Target):
    def __init__(self, path: Path) -> None:
        self.path = path

    def published(self) -> Index | None:
        return ZipObjects(self.path).index if self.path.is_file() else None

    def write(self, sheet: _Sheet, progress: Count | None) -> int:
        with Staging(self.path) as staging:
            # Beside its place, where a link puts it in one step; what a kill leaves is written anew.
            temporary = staging.path / staging.target.name
            try:
                with (
                    temporary.open("wb") as file,
                    zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive,
                ):
                    for items in ([*sheet.items, sheet.anchor], None):
                        for item in _steps(items or sheet.presented(), sheet, progress):
                            size, digest = _add(archive, item.name, item.blocks())
                            sheet.entries[item.name] = Entry(item.name, size, digest)
                    _add(archive, INDEX, iter([sheet.index()]))
                _check(ZipObjects(temporary), sheet.study)
                staging.sync()
                os.link(temporary, staging.target)
                staging.discard()
            except DmstoreError:
                staging.discard()
                raise
            except OSError as error:
                staging.discard()
                check_free(self.path)
                raise storage_error(error, staging.target) from error
        return len(sheet.entries)


def _add(archive: zipfile.ZipFile, name: str, blocks: Iterator[bytes]) -> tuple[int, str]:
    info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
    info.external_attr = 0o100644 << 16
    with archive.open(info, "w", force_zip64=True) as member:

        def through() -> Iterator[bytes]:
            for block in blocks:
                member.write(block)
                yield block

        return indexes.sha256(through())


class _Bucket(_Target):
    """A bucket has no renaming: ``study.json``, without which nothing opens, is put last of all."""

    def __init__(self, url: str) -> None:
        self.objects = RemoteObjects(url)

    def published(self) -> Index | None:
        objects = self.objects
        if not (objects.exists(ANCHOR) and objects.exists(INDEX)):
            return None
        with contextlib.suppress(FileNotFoundError):
            self._clear_mark()
        return indexes.load(objects.get(INDEX), f"{objects.url}/{INDEX}")

    def _clear_mark(self) -> None:
        if self.objects.exists(_MARK):
            self.objects.delete(_MARK)

    def write(self, sheet: _Sheet, progress: Count | None) -> int:
        objects = self.objects
        there = {info.name: info.size for info in objects.entries("")}
        if ANCHOR in there or (there and not objects.exists(_MARK)):
            msg = f"{objects.url}: other objects are there ({min(there)}); choose a place that is empty"
            raise ExistsError(msg)
        objects.put_if_absent(_MARK, sheet.study.uuid.encode())
        written = 0
        for items in (sheet.items, None):
            for item in _steps(items or sheet.presented(), sheet, progress):
                content = b"".join(item.blocks())
                written += _put(objects, item.name, content, there)
                sheet.entries[item.name] = _entry(item.name, content)
        anchor = b"".join(sheet.anchor.blocks())
        sheet.entries[ANCHOR] = _entry(ANCHOR, anchor)
        for name in there.keys() - sheet.entries.keys():
            objects.delete(name)
        _check(objects, sheet.study)
        _put(objects, INDEX, sheet.index(), {})
        written += _put(objects, ANCHOR, anchor, {})
        self._clear_mark()
        return written


def _entry(name: str, content: bytes) -> Entry:
    return Entry(name, len(content), hashlib.sha256(content).hexdigest())


def _put(objects: Objects, name: str, content: bytes, there: Mapping[str, int]) -> bool:
    """Put an object whatever was there; False if it was there already."""
    if there.get(name) == len(content) and objects.get(name) == content:
        return False
    if not objects.put_if_absent(name, content):
        # What an earlier attempt left; nothing opens it.
        objects.delete(name)
        if not objects.put_if_absent(name, content):
            msg = f"{objects.url}/{name}: another process publishes there; run the same command again when it is done"
            raise ExistsError(msg)
    return True
