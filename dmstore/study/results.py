"""What was computed from runs: documents of fits and comparisons, and the groups that they name."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dmstore import provenance
from dmstore.core.texts import text
from dmstore.errors import FormatError, NotFoundError, StudyNotFoundError
from dmstore.schema.documents import dump_document, load_document
from dmstore.schema.group_specs import check_group, group_spec
from dmstore.schema.typed_documents import ComparisonDocument, CompleteDocument, FitDocument
from dmstore.storage.objects import guard
from dmstore.storage.objects.objects import Objects
from dmstore.storage.table import log
from dmstore.study.annotation import portable

if TYPE_CHECKING:
    import xarray as xr
    import zarr

_BLOCK_BYTES = 1 << 26


class ListedFit(FitDocument):
    """The document of a fit, and whether the fit is complete."""

    complete: bool


def name_of(stated: Mapping[str, Any], length: int = 16) -> str:
    """The name of a result: a digest of all that decides it, so that the same call finds its own.

    Parameters
    ----------
    stated : mapping
        As JSON can hold it.
    length : int
        Hexadecimal digits.
    """
    return hashlib.sha256(json.dumps(stated, sort_keys=True).encode()).hexdigest()[:length]


def is_complete(objects: Objects, directory: str) -> bool:
    """Whether a result is finished."""
    return objects.exists(f"{directory}complete.json")


@contextlib.contextmanager
def completing(
    objects: Objects, directory: str, kind: str, summary: Callable[[], dict[str, Any]] | None = None
) -> Iterator[str]:
    """Write the group of a result at the path that is given, and name it at the end: the commit.

    Where another process was faster, its group stays and this one goes.

    Parameters
    ----------
    objects : Objects
    directory : str
        Of the result; ends in ``/``.
    kind : str
        Of group, ``datamodels`` or ``comparison``.
    summary : callable, optional
        Gives what is kept with the name, once the group is written.

    Yields
    ------
    str
        Path of the group, which does not exist yet.
    """
    path = f"{kind}-{uuid.uuid4().hex[:8]}.zarr"
    yield f"{directory}{path}"
    document: CompleteDocument = {"path": path, "created": provenance.utc_now()}
    if summary is not None:
        document["summary"] = summary()
    if not objects.put_if_absent(f"{directory}complete.json", dump_document("complete", document)):
        objects.delete(f"{directory}{path}")


def fits(objects: Objects, algorithm: str) -> list[ListedFit]:
    """Documents of an algorithm's fits, oldest first, with ``complete`` added."""
    listed: list[ListedFit] = []
    for name in objects.children(f"datamodels/{algorithm}/"):
        where = f"datamodels/{algorithm}/{name}"
        if objects.exists(f"{where}/fit.json"):
            document = load_document("fit", objects.get(f"{where}/fit.json"), where)
            # Both become parts of names.
            if (document["fit"], document["algorithm"]) != (name, algorithm):
                msg = f"{where}: says that it is fit {document['fit'][:40]!a} of {document['algorithm']!r}, so it does not belong here; remove it"
                raise FormatError(msg)
            listed.append({**document, "complete": is_complete(objects, f"{where}/")})
    return sorted(listed, key=lambda fit: (_created(fit), fit["fit"]))


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
    candidates = [
        f
        for f in fits(objects, algorithm)
        if f["complete"] and fit in (None, f["fit"]) and output in (None, f["output"])
    ]
    if not candidates:
        named = f"fit {fit!r}" if fit else "finished fit"
        of = f" of output {output!r}" if output else ""
        option = f" --output {output}" if output else ""
        msg = f"algorithm {algorithm!r} has no {named}{of}; run 'dmstore fit {objects.url} {algorithm}{option}' first"
        raise NotFoundError(msg)
    return candidates[-1]


def runs_of(fit: FitDocument) -> int:
    """How many runs a fit rests on, of all splits."""
    runs = fit["runs"]
    return runs["train"] + runs["holdout"] + runs["eval"]


def base_of(fit: FitDocument) -> log.Base:
    """The base that a fit was made of."""
    return log.Base(fit["base"], runs_of(fit), fit["content_id"])


def comparisons(objects: Objects) -> list[ComparisonDocument]:
    """Documents of finished comparisons, oldest first."""
    documents = []
    for name in objects.children("comparisons/"):
        where = f"comparisons/{name}/comparison.json"
        if is_complete(objects, f"comparisons/{name}/"):
            document = load_document("comparison", objects.get(where), where)
            if document["comparison"] != name:
                msg = f"{where}: says that it is comparison {document['comparison'][:40]!a}, so it does not belong here; remove it"
                raise FormatError(msg)
            documents.append(document)
    return sorted(documents, key=lambda entry: (_created(entry), entry["comparison"]))


def newest_comparison(
    objects: Objects, a: str, b: str, comparison: str | None = None
) -> ComparisonDocument:
    """The newest comparison of two algorithms, or the one named; NotFoundError if there is none."""
    candidates = [
        entry
        for entry in comparisons(objects)
        if set(entry["algorithms"]) == {a, b} and comparison in (None, entry["comparison"])
    ]
    if not candidates and comparison is not None:
        msg = f"{a!r} and {b!r} have no comparison {comparison!r}; 'dmstore status {objects.url} --json' names those that there are"
        raise NotFoundError(msg)
    if not candidates:
        msg = f"{a!r} and {b!r} have not been compared; run 'dmstore compare {objects.url} {a} {b}' first"
        raise NotFoundError(msg)
    return candidates[-1]


def opened(objects: Objects, directory: str, kind: str) -> xr.Dataset:
    """What a ``complete.json`` names, lazy; texts as coordinates in memory."""
    import xarray as xr

    with _finished(objects, directory, kind) as (where, group):
        dataset: xr.Dataset = xr.open_zarr(group.store, chunks={}, consolidated=True)
        texts = {
            name: (array.dims, text(array.values))
            for name, array in dataset.variables.items()
            if array.dtype.kind in "OT"
        }
        lazy = {
            name: array.copy(data=_lazy(group[f"{name}"], f"{objects.url}/{where}/{name}"))
            for name, array in dataset.variables.items()
            if array.chunks is not None and name not in texts
        }
    return portable(dataset.assign(lazy).assign_coords(texts))


def read_whole(objects: Objects, directory: str, kind: str) -> None:
    """Read every array of what a ``complete.json`` names, a few rows at a time.

    Raises
    ------
    CorruptionError, StudyNotFoundError, FormatError
        At the first that cannot be read.
    """
    with _finished(objects, directory, kind) as (where, group):
        arrays = dict(group.arrays())
    for name, array in arrays.items():
        with guard.readable(f"{objects.url}/{where}/{name}"):
            row = max(1, array.nbytes // max(1, array.shape[0])) if array.ndim else 1
            step = max(array.chunks[0] if array.ndim else 1, _BLOCK_BYTES // row)
            for start in range(0, array.shape[0] if array.ndim else 0, step):
                np.asarray(array[start : start + step])


@contextlib.contextmanager
def _finished(objects: Objects, directory: str, kind: str) -> Iterator[tuple[str, zarr.Group]]:
    """Name and zarr group of a finished result; what zarr raises on it becomes one line."""
    import zarr

    where = f"{directory}complete.json"
    try:
        complete = load_document("complete", objects.get(where), where)
        where = f"{directory}{complete['path']}"
        with guard.readable(where):
            group = zarr.open_group(objects.reader(where), mode="r", zarr_format=3)
            check_group(group, group_spec(kind), {}, where)
            yield where, group
    except FileNotFoundError:
        msg = f"{objects.url}/{where}: is gone; the study was deleted or damaged"
        raise StudyNotFoundError(msg) from None


class _Readable:
    """A zarr array whose damaged chunks raise a CorruptionError that names it, whoever computes it."""

    def __init__(self, array: Any, where: str) -> None:
        self._array = array
        self._where = where
        self.shape, self.ndim, self.dtype = array.shape, array.ndim, array.dtype

    def __getitem__(self, index: Any) -> NDArray[Any]:
        with guard.readable(self._where):
            return np.asarray(self._array[index])


def _lazy(array: Any, where: str) -> Any:
    """A dask array in the chunks that are stored. Its name is that of the place: results never change."""
    import dask.array as da

    token = hashlib.blake2b(where.encode(), digest_size=16).hexdigest()
    return da.from_array(
        _Readable(array, where),
        chunks=array.chunks,
        name=f"dmstore-{token}",
        asarray=False,
        fancy=False,
    )
