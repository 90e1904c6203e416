"""A page with what lies beside it, as files: in a study, in a folder, or in one zip."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import xarray as xr
from zarr.storage import MemoryStore

from dmstore.analysis.pages.page import Page
from dmstore.analysis.pages.page_data import PageData
from dmstore.analysis.plot.figure_file import write_whole
from dmstore.errors import DmstoreError, InputError
from dmstore.storage.objects.objects import Objects
from dmstore.storage.objects.refusals import storage_error
from dmstore.storage.objects.zarr_internals import consolidate
from dmstore.storage.table.groups import zip_bytes
from dmstore.study.annotation import portable
from dmstore.study.outside import outside_studies

STEM = "report"


def files_of(page: Page, comparison: xr.Dataset, stem: str = STEM) -> dict[str, bytes]:
    """Everything that belongs to a page: name to content, the page itself last.

    Parameters
    ----------
    page : Page
        Made with ``folder=stem``.
    comparison : Dataset
    stem : str
        What the files are called.
    """
    assert page.made is not None
    return {
        **{f"{stem}/{name}": content for name, content in page.files.items()},
        f"{stem}.json": page.json.encode(),
        f"{stem}.zarr.zip": _zarr(labelled(comparison, page.made)),
        f"{stem}.html": page.html.encode(),
    }


def labelled(comparison: xr.Dataset, made: PageData) -> xr.Dataset:
    """The comparison with the most influential train units of each target under each algorithm beside it."""
    data = comparison.drop_attrs(deep=False).assign_attrs(
        {k: v for k, v in comparison.attrs.items() if isinstance(v, str | int | float)}
    )
    if made.influences is None:
        return data
    unit = made.influences.unit
    dims = ("algorithm", "target", "place")
    return data.assign(
        influential=(dims, made.shown[unit] * (unit >= 0) - (unit < 0)),
        influence=(dims, made.influences.weight),
    )


def _zarr(data: xr.Dataset) -> bytes:
    store = MemoryStore()
    plain = data.copy()
    for name in plain.variables:
        plain[name].encoding = {}
        if plain[name].dtype.kind not in "biufOSU":
            # Texts of a width of their own.
            plain[name] = plain[name].astype(str)
    portable(plain).to_zarr(store, mode="w", zarr_format=3, consolidated=False)
    consolidate(store)
    return zip_bytes(store)


def put(objects: Objects, where: str, files: dict[str, bytes]) -> None:
    """Write a page into a study, the page itself last; what an earlier page left beside it goes."""
    for name, content in files.items():
        objects.replace(f"{where}{name}", content)
    for child in objects.children(f"{where}{STEM}/"):
        if f"{STEM}/{child}" not in files:
            objects.delete(f"{where}{STEM}/{child}")


def check_out(out: str | Path) -> Path:
    """Refuse a place that no page can be written to, before anything is computed for it.

    Returns
    -------
    path
        Ends in ``.html`` or ``.zip``, or is a folder.

    Raises
    ------
    InputError
        If it is of another kind, its folder is not there, or what is no page's would be written over.
    """
    place = outside_studies(out)
    if not place.parent.is_dir():
        msg = f"{place}: no folder {place.parent}; make it first"
        raise InputError(msg)
    if is_file(place):
        if place.is_dir():
            msg = f"{place}: is a folder; give a file that ends in .html or .zip, or a folder without such an ending"
            raise InputError(msg)
    elif place.exists() and not place.is_dir():
        msg = f"{place}: is a file that ends neither in .html nor in .zip; choose another place"
        raise InputError(msg)
    page = place if is_file(place) else place / f"{STEM}.html"
    if page.suffix.lower() == ".html" and not page.exists():
        # Without its page, what is called like a page's data is somebody's own.
        for ending in (".json", ".zarr.zip"):
            own = page.with_name(f"{page.stem}{ending}")
            if own.exists():
                msg = f"{own}: is there and no page's, and the data of the page would be written over it; choose another place"
                raise InputError(msg)
    return place


def is_file(place: Path) -> bool:
    """Whether a place is one file, by its ending."""
    return place.suffix.lower() in (".html", ".zip")


def stem_of(out: Path | None) -> str:
    """What the files of a page are called."""
    return out.stem if out is not None and out.suffix.lower() == ".html" else STEM


def write(out: Path, files: dict[str, bytes]) -> Path:
    """Write a page outside of its study, in the place of what is there.

    Returns
    -------
    path
        What to open.

    Raises
    ------
    StorageError
        If it cannot be written.
    """
    try:
        if out.suffix.lower() == ".zip":
            write_whole(out, _zipped(files))
            return out
        folder = out.parent if is_file(out) else out
        for name, content in files.items():
            place = folder / name
            place.parent.mkdir(parents=True, exist_ok=True)
            write_whole(place, content)
    except OSError as error:
        if isinstance(error, DmstoreError):
            raise
        raise storage_error(error, out) from error
    return folder / next(name for name in files if name.endswith(".html"))


def _zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), content)
    return buffer.getvalue()
