"""Export: one algorithm's runs, datamodels or plan, in another tool's format."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dmstore.core import listed
from dmstore.core.given import local_path
from dmstore.core.progress import Count, Progress, counting
from dmstore.errors import InputError, NotFoundError
from dmstore.exporters import datamodels_pt, npy, plan, safetensors, truth
from dmstore.exporters.datamodels import Datamodels
from dmstore.exporters.place import building
from dmstore.exporters.source import Source
from dmstore.exporters.stream import own_names
from dmstore.study.results import runs_of
from dmstore.study.study import Study, check_opened

# Formats, and the options that mean something in each.
FORMATS = {
    "npy": {"outputs", "snapshot", "split"},
    "datamodels.pt": {"outputs", "fit", "units"},
    "truth": {"outputs", "snapshot", "split"},
    "safetensors": {"outputs", "fit", "snapshot", "split"},
    "plan": set[str](),
}
UNITS = ("raw", "standardised")


@dataclass(frozen=True)
class Exported:
    """What an export wrote.

    Attributes
    ----------
    files : tuple of str
        Paths.
    rows : int
        Runs written; of ``datamodels.pt`` the runs that the fit stands on, of ``plan`` those planned.
    size : int
        Bytes.
    content_id : str
        Of the snapshot that the rows are from; empty for a plan.
    """

    files: tuple[str, ...]
    rows: int
    size: int
    content_id: str


def export(
    study: Study,
    algorithm: str,
    to: str,
    dest: str | Path,
    *,
    outputs: Sequence[str] = (),
    fit: str | None = None,
    snapshot: str | None = None,
    split: str | None = None,
    units: str | None = None,
    progress: Progress | None = None,
) -> Exported:
    """Write one algorithm's runs, datamodels or plan to a new file or folder.

    It is there whole or not at all, and nothing that is there is replaced.

    Parameters
    ----------
    study : Study
    algorithm : str
    to : {"npy", "datamodels.pt", "truth", "safetensors", "plan"}
    dest : path
    outputs : sequence of str
        Which outputs; all by default, of ``truth`` and ``datamodels.pt`` one.
    fit : str, optional
        Which fit; the newest finished one by default.
    snapshot : str, optional
        A tag; by default the runs as they are now.
    split : {"all", "train", "holdout", "eval"}, optional
        Which runs; of ``truth`` those for evaluation by default, else all.
    units : {"raw", "standardised"}, optional
        Of the weights in ``datamodels.pt``; raw by default.
    progress : callable, optional
        Called with ``export``, bytes done and bytes in all.

    Returns
    -------
    Exported
        Files, bytes and rows that were written.

    Raises
    ------
    InputError, NotFoundError
        If an option does not fit the format, or names what is not there.
    ExistsError
        If `dest` is there.
    StorageError
        If the file system refuses.
    """
    check_opened(study)
    if to not in FORMATS:
        msg = f"format {to!r} is not known; use {', '.join(FORMATS)}"
        raise InputError(msg)
    outputs = listed.texts(outputs, "outputs")
    given = {"outputs": outputs, "fit": fit, "snapshot": snapshot, "split": split, "units": units}
    for name in (n for n, value in given.items() if value and n not in FORMATS[to]):
        msg = f"--{name.removesuffix('s') if name == 'outputs' else name} has no meaning in an export to {to}; leave it out"
        raise InputError(msg)
    if units not in (None, *UNITS):
        msg = f"units {units!r} are not known; use {' or '.join(UNITS)}"
        raise InputError(msg)
    if to in ("datamodels.pt", "truth") and len(outputs) > 1:
        msg = f"an export to {to} has room for one output; give --output once"
        raise InputError(msg)

    def source(default: str) -> Source:
        return Source.pin(
            study, algorithm, outputs=outputs, snapshot=snapshot, split=split or default
        )

    tell = counting(progress, "export")
    rows, content_id = 0, ""
    place = local_path(dest)
    with building(place) as hidden:
        if to == "plan":
            rows = plan.write(hidden, study, algorithm)
        elif to == "datamodels.pt":
            datamodels = Datamodels.choose(study, algorithm, fit, next(iter(outputs), None))
            datamodels_pt.write(
                hidden, datamodels, standardised=units == "standardised", progress=tell
            )
            rows, content_id = runs_of(datamodels.document), datamodels.document["content_id"]
        else:
            pinned = source("eval" if to == "truth" else "all")
            if to == "npy":
                npy.write(hidden, pinned, tell)
            elif to == "truth":
                truth.write(hidden, pinned, tell)
            else:
                _write_safetensors(hidden, study, pinned, fit, tell)
            rows, content_id = len(pinned), pinned.view.content_id()
    files = sorted(place.iterdir()) if place.is_dir() else [place]
    size = sum(file.stat().st_size for file in files)
    return Exported(tuple(map(str, files)), rows, size, content_id)


def _write_safetensors(
    path: Path, study: Study, source: Source, fit: str | None, tell: Count
) -> None:
    """Masks, outputs and columns, and the datamodels if there are any."""
    metadata: dict[str, object] = {"about": source.about()}
    streams = [*source.wide()]
    try:
        datamodels = Datamodels.choose(study, source.algorithm.name, fit)
    except NotFoundError:
        if fit:
            raise
    else:
        streams += datamodels.by_target()
        metadata["fit"] = {
            "fit": datamodels.document["fit"],
            "output": datamodels.document["output"],
            "content_id": datamodels.document["content_id"],
            "parameters": datamodels.document["parameters"],
        }
    streams += source.columns()
    named = own_names(streams)
    metadata["arrays"] = {
        new.name: old.name for new, old in zip(named, streams, strict=True) if old.dims[0] == "run"
    }
    safetensors.write(path, named, metadata, tell)
