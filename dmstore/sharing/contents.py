"""What a published study consists of: which objects, under which names, from where."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from dmstore.core import listed
from dmstore.errors import InputError, NotFoundError
from dmstore.schema.documents import load_document
from dmstore.schema.typed_documents import AboutDocument, IndexAlgorithm, IndexAlgorithmOutput
from dmstore.sharing import blocks, documents, examples
from dmstore.storage.acts import tag
from dmstore.storage.objects.objects import Objects
from dmstore.storage.table import groups, log
from dmstore.study.about import read_about, updated
from dmstore.study.algorithm import ANCHOR, Algorithm
from dmstore.study.study import Study
from dmstore.upkeep.tables import full_tables, later_outputs, removal_tables


@dataclass(frozen=True)
class Selection:
    """What to publish.

    Attributes
    ----------
    algorithms : tuple of str
        All of them where empty.
    tag : str, optional
        The tagged state of each algorithm instead of the newest.
    images, ids, datamodels, comparisons : bool
        Whether to take these along.
    without_columns : tuple of str
        Per-run columns to leave out.
    """

    algorithms: tuple[str, ...] = ()
    tag: str | None = None
    images: bool = True
    ids: bool = True
    datamodels: bool = True
    comparisons: bool = True
    without_columns: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("algorithms", "without_columns"):
            object.__setattr__(self, name, listed.texts(getattr(self, name), name))


@dataclass(frozen=True)
class Item:
    """One object to publish: a copy of a stored one, or bytes made for this purpose."""

    name: str
    objects: Objects | None = None
    content: bytes = b""

    def blocks(self) -> Iterator[bytes]:
        """Its bytes, block by block."""
        if self.objects is None:
            yield self.content
        else:
            yield from blocks.read(self.objects, self.name)


@dataclass(frozen=True)
class Contents:
    """Everything to publish, and what the snapshot of each algorithm is."""

    items: Sequence[Item]
    algorithms: Mapping[str, IndexAlgorithm]
    about: AboutDocument


def collect(study: Study, selection: Selection, about: AboutDocument) -> Contents:
    """List what a published study consists of. Nothing is read but documents.

    Parameters
    ----------
    study : Study
        Compacted, as far as its newest state is to be published.
    selection : Selection
    about : dict
        ``title``, ``authors``, ``licence``, ``citation``, ``doi`` to state anew.

    Raises
    ------
    NotFoundError
        If an algorithm, or the tag of one, is not there.
    InputError
        If a column to leave out is not there.
    """
    objects = study.objects
    names = list(dict.fromkeys(selection.algorithms)) or study.algorithms
    items = [Item(ANCHOR, objects)]
    stated, documented = documents.about_items(objects, about)
    items += [Item(name, objects) for name in documented]
    items += [Item(name, content=raw) for name, raw in stated.items()]
    copied, made = examples.collect(study, images=selection.images, ids=selection.ids)
    items += [Item(name, objects) for name in copied]
    items += [Item(name, content=raw) for name, raw in made.items()]
    _check_columns(study, names, selection.without_columns)
    algorithms = {}
    for name in names:
        more, summary = _algorithm(study, study.algorithm(name), selection)
        items += more
        algorithms[name] = summary
    fits = _fits(study, selection, algorithms) if selection.datamodels else {}
    for algorithm, fit in fits.values():
        items += _result(objects, f"datamodels/{algorithm}/{fit}/")
    if selection.datamodels and selection.comparisons:
        for entry in study.comparisons:
            said = str(entry["parameters"].get("where", ""))
            if not selection.ids and examples.names_examples(said):
                continue
            if set(entry["fits"]) <= set(fits):
                where = f"comparisons/{entry['comparison']}/"
                more = _result(objects, where)
                # The page and what lies beside it show images and names.
                whole = selection.images and selection.ids
                # Its data are those of the comparison, made for people, in codecs that are none of the format's.
                kept = [i for i in more if i.name != f"{where}report.zarr.zip"]
                items += [i for i in kept if whole or not i.name.startswith(f"{where}report")]
    if not selection.ids:
        items = [one for one in items if not _names_target(one)]
    return Contents(items, algorithms, updated(read_about(objects), about))


def _names_target(item: Item) -> bool:
    """Whether an object is a removal check of one target, which is called by its id."""
    last = item.name.rpartition("/")[2]
    if item.objects is None or not (last.startswith("removal-") and last.endswith(".zarr.zip")):
        return False
    _, attrs = groups.read_with_attrs(item.objects, item.name)
    return " of target " in str(attrs.get("name", ""))


def _check_columns(study: Study, names: Sequence[str], without: Sequence[str]) -> None:
    """Refuse to leave out what is no further column of any algorithm."""
    if not without:
        return
    known = {column for name in names for column in study.algorithm(name).table.view().columns}
    for column in without:
        if column not in known:
            msg = f"{study.path}: no run has a column {column!r} that could be left out (there are: {', '.join(sorted(known)) or 'none'})"
            raise InputError(msg)


def _algorithm(
    study: Study, algorithm: Algorithm, selection: Selection
) -> tuple[list[Item], IndexAlgorithm]:
    """An algorithm's documents, one state of its runs, and that of its outputs on later target sets.

    Tags name states of runs. Of outputs the newest state is taken: each row says which run it is of.
    """
    objects, prefix, table = study.objects, algorithm.prefix, algorithm.table.prefix
    tagged, without = selection.tag, selection.without_columns
    tags = tag.read_all(algorithm.table)
    if tagged is None:
        manifest = log.newest(objects, table)
    else:
        named = [entry for entry in tags if entry["name"] == tagged]
        if not named:
            known = ", ".join(entry["name"] for entry in tags) or "none"
            msg = f"algorithm {algorithm.name!r} has no tag {tagged!r} (it has: {known}); make it with 'dmstore tag', or choose with --algorithm"
            raise NotFoundError(msg)
        manifest = log.read(objects, table, named[0]["version"])
    items = [Item(f"{prefix}algorithm.json", objects)]
    items += [
        Item(info.name, objects)
        for part in ("plans/", "changes/", "full/")
        for info in objects.entries(f"{prefix}{part}")
        if not info.name.startswith((f"{prefix}full/runs/", f"{prefix}full/outputs/"))
    ]
    items += [
        Item(info.name, objects)
        for info in objects.entries(f"{prefix}removals/")
        if info.name.endswith(("/removal.json", ".zarr.zip"))
        # Not the segments of their tables.
        and info.name[len(prefix) :].count("/") <= 2
    ]
    stated: IndexAlgorithm = {"version": 0, "runs": 0, "content_id": None}
    if manifest.base is not None:
        base_items, state = _base(objects, table, manifest.version, manifest.base, without)
        items += base_items
        stated = {
            "version": state["version"],
            "runs": state["runs"],
            "content_id": state["content_id"],
        }
        items += [
            Item(f"{table}tags/{named['name']}.json", objects)
            for named in tags
            if named["base"] == manifest.base.path
        ]
    for outputs in later_outputs(study, algorithm.name):
        newest = log.newest(objects, outputs.table.prefix)
        if newest.base is not None:
            prefix = outputs.table.prefix
            base_items, state = _base(objects, prefix, newest.version, newest.base, without)
            items += base_items
            stated.setdefault("outputs", {})[outputs.target_set] = state
    for label, models in full_tables(study, algorithm.name):
        newest = log.newest(objects, models.prefix)
        if newest.base is not None:
            base_items, state = _base(objects, models.prefix, newest.version, newest.base, without)
            items += base_items
            stated.setdefault("full", {})[label.removeprefix(f"{algorithm.name}:")] = state
    for label, models in removal_tables(study, algorithm.name):
        newest = log.newest(objects, models.prefix)
        if newest.base is not None:
            base_items, state = _base(objects, models.prefix, newest.version, newest.base, without)
            items += base_items
            stated.setdefault("removals", {})[label.rpartition(":")[2]] = state
    return items, stated


def _base(
    objects: Objects, table: str, version: int, base: log.Base, without: Sequence[str]
) -> tuple[list[Item], IndexAlgorithmOutput]:
    """The one state of a table: its base and its log entry, and what the index says of it."""
    place = f"{table}{base.path}/"
    names = [info.name for info in objects.entries(place)]
    kept = [n for n in names if n[len(place) :].partition("/")[0] not in without]
    items = [Item(name, objects) for name in kept]
    if len(kept) < len(names):
        items = [_group_without(item, place, without) for item in items]
    entry = log.entry_name(table, version)
    items.append(Item(entry, content=_manifest(objects.get(entry), entry)))
    return items, {"version": version, "runs": base.runs, "content_id": base.content_id}


def _group_without(item: Item, place: str, without: Sequence[str]) -> Item:
    """The metadata of a base without some columns; any other object as it is."""
    if item.name != f"{place}zarr.json" or item.objects is None:
        return item
    document = json.loads(item.objects.get(item.name))
    attributes = document["attributes"]
    kept = [name for name in attributes["coordinates"].split() if name not in without]
    attributes["coordinates"] = " ".join(kept)
    consolidated = document.get("consolidated_metadata")
    if consolidated is not None:
        consolidated["metadata"] = {
            name: entry for name, entry in consolidated["metadata"].items() if name not in without
        }
    return Item(item.name, content=json.dumps(document, indent=2).encode())


def _manifest(raw: bytes, where: str) -> bytes:
    """A log entry without what a published study does not have: segments, and the maker's host."""
    document = load_document("manifest", raw, where)
    document = {**document, "absorbed": [], "removed": []}
    document.pop("host", None)
    return (json.dumps(document, indent=2, sort_keys=True, allow_nan=False) + "\n").encode()


def _fits(
    study: Study, selection: Selection, algorithms: Mapping[str, IndexAlgorithm]
) -> dict[str, tuple[str, str]]:
    """Finished fits to publish; of a tagged state only those that stand on it."""
    return {
        fit["fit"]: (name, fit["fit"])
        for name in algorithms
        for fit in study.fits(name)
        if fit["complete"]
        and (selection.tag is None or fit["content_id"] == algorithms[name]["content_id"])
    }


def _result(objects: Objects, where: str) -> list[Item]:
    """A finished result: its documents and zips, what a large page has beside it, and the group that ``complete.json`` names."""
    place = f"{where}complete.json"
    named = load_document("complete", objects.get(place), place)["path"]
    items = [Item(info.name, objects) for info in objects.entries(where)]
    folders = (f"{where}{named}/", f"{where}report/")
    return [i for i in items if i.name.startswith(folders) or "/" not in i.name[len(where) :]]
