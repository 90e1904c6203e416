"""What was computed from runs: documents of fits and comparisons, and the groups that they name."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING

from dmstore.core.texts import text
from dmstore.errors import FormatError, NotFoundError, StudyNotFoundError
from dmstore.schema.documents import load_document
from dmstore.schema.group_specs import check_group, group_spec
from dmstore.schema.typed_documents import ComparisonDocument, FitDocument
from dmstore.storage.objects import guard
from dmstore.storage.objects.objects import Objects
from dmstore.storage.table import log
from dmstore.study.annotation import portable

if TYPE_CHECKING:
    import xarray as xr


class ListedFit(FitDocument):
    """The document of a fit, and whether the fit is complete."""

    complete: bool


def fits(objects: Objects, algorithm: str) -> list[ListedFit]:
    """Documents of an algorithm's fits, oldest first, with ``complete`` added."""
    found: list[ListedFit] = []
    for name in objects.children(f"datamodels/{algorithm}/"):
        where = f"datamodels/{algorithm}/{name}"
        if objects.exists(f"{where}/fit.json"):
            document = load_document("fit", objects.get(f"{where}/fit.json"), where)
            # Both become parts of names.
            if (document["fit"], document["algorithm"]) != (name, algorithm):
                msg = f"{where}: says that it is fit {document['fit'][:40]!a} of {document['algorithm']!r}, so it does not belong here; remove it"
                raise FormatError(msg)
            found.append({**document, "complete": objects.exists(f"{where}/complete.json")})
    return sorted(found, key=lambda fit: (_created(fit), fit["fit"]))


def _created(document: FitDocument | ComparisonDocument) -> datetime.datetime:
    """When a document says it was made, in whole seconds or finer; first of all if it does not say."""
    try:
        moment = datetime.datetime.fromisoformat(document.get("created", ""))
    except ValueError:
        return datetime.datetime.min.replace(tzinfo=datetime.UTC)
    return moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)


def newest_fit(
    objects: Objects, algorithm: str, fit: str | None = None, output: str | None = None
) -> ListedFit:
    """The newest complete fit of an algorithm, or the one named; NotFoundError if there is none."""
    found = [
        f
        for f in fits(objects, algorithm)
        if f["complete"] and fit in (None, f["fit"]) and output in (None, f["output"])
    ]
    if not found:
        named = f"fit {fit!r}" if fit else "finished fit"
        of = f" of output {output!r}" if output else ""
        option = f" --output {output}" if output else ""
        msg = f"algorithm {algorithm!r} has no {named}{of}; run 'dmstore fit {objects.url} {algorithm}{option}' first"
        raise NotFoundError(msg)
    return found[-1]


def runs_of(fit: FitDocument) -> int:
    """How many runs a fit rests on, of all splits."""
    runs = fit["runs"]
    return runs["train"] + runs["holdout"] + runs["eval"]


def base_of(fit: FitDocument) -> log.Base:
    """The base that a fit was made of."""
    return log.Base(fit["base"], runs_of(fit), fit["content_id"])


def comparisons(objects: Objects) -> list[ComparisonDocument]:
    """Documents of finished comparisons, oldest first."""
    found = []
    for name in objects.children("comparisons/"):
        where = f"comparisons/{name}/comparison.json"
        if objects.exists(f"comparisons/{name}/complete.json"):
            document = load_document("comparison", objects.get(where), where)
            if document["comparison"] != name:
                msg = f"{where}: says that it is comparison {document['comparison'][:40]!a}, so it does not belong here; remove it"
                raise FormatError(msg)
            found.append(document)
    return sorted(found, key=lambda entry: (_created(entry), entry["comparison"]))


def newest_comparison(
    objects: Objects, a: str, b: str, comparison: str | None = None
) -> ComparisonDocument:
    """The newest comparison of two algorithms, or the one named; NotFoundError if there is none."""
    found = [
        entry
        for entry in comparisons(objects)
        if set(entry["algorithms"]) == {a, b} and comparison in (None, entry["comparison"])
    ]
    if not found:
        msg = f"{a!r} and {b!r} have not been compared; run 'dmstore compare {objects.url} {a} {b}' first"
        raise NotFoundError(msg)
    return found[-1]


def opened(objects: Objects, directory: str, kind: str) -> xr.Dataset:
    """What a ``complete.json`` names, lazy; texts as coordinates in memory."""
    import xarray as xr
    import zarr

    where = f"{directory}complete.json"
    try:
        complete = load_document("complete", objects.get(where), where)
    except FileNotFoundError:
        msg = f"{objects.url}/{where}: is gone; the study was deleted or damaged"
        raise StudyNotFoundError(msg) from None
    where = f"{directory}{complete['path']}"
    try:
        with guard.readable(where):
            store = objects.reader(where)
            group = zarr.open_group(store, mode="r", zarr_format=3)
            check_group(group, group_spec(kind), {}, where)
            found: xr.Dataset = xr.open_zarr(store, chunks={}, consolidated=True)
            texts = {
                name: (array.dims, text(array.values))
                for name, array in found.variables.items()
                if array.dtype.kind in "OT"
            }
    except FileNotFoundError:
        msg = f"{objects.url}/{where}: is gone; the study was deleted or damaged"
        raise StudyNotFoundError(msg) from None
    return portable(found.assign_coords(texts))
