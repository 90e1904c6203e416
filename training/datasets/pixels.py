"""The images of a study, found again: in the study itself, or as files by their ids.

A study of large images holds thumbnails; its columns ``file`` and ``digest`` say which files the images are.
"""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from dmstore.core.given import local_path
from dmstore.errors import InputError, plain
from dmstore.training.datasets.pictures import digest, read_file

if TYPE_CHECKING:
    import xarray as xr

    from dmstore.study.study import Study

VARIABLE = "DMSTORE_DATA"
_SAMPLE = 32


def folder_of(data: str | Path | None) -> Path | None:
    """The folder of the images: as given, else what ``DMSTORE_DATA`` says.

    Parameters
    ----------
    data : path or str, optional

    Returns
    -------
    path or None
    """
    said = data or os.environ.get(VARIABLE)
    return local_path(said) if said else None


def examples_of(study: Study, part: str) -> xr.Dataset:
    """Ids and columns of ``train``, ``test`` or another target set."""
    return study.train if part == "train" else study.target_set(part)


def files(study: Study, part: str, data: str | Path | None = None) -> list[Path] | None:
    """The image files of a set, in the order of its ids.

    Parameters
    ----------
    study : Study
    part : str
        ``train``, ``test`` or another target set.
    data : path or str, optional
        The data set's folder; what ``DMSTORE_DATA`` says by default.

    Returns
    -------
    list of path, or None
        None where the study itself holds the images.

    Raises
    ------
    InputError
        If the folder is not said or not there, or files are gone.
    """
    columns = examples_of(study, part)
    if "file" not in columns:
        return None
    folder = folder_of(data)
    count = columns.sizes["train" if part == "train" else "target"]
    if folder is None:
        msg = f"{study.path}: the {count} images of {part!r} are files elsewhere; name their folder with --data DIR or {VARIABLE}"
        raise InputError(msg)
    if not folder.is_dir():
        msg = f"{folder}: no such folder; name that of the study's images with --data DIR or {VARIABLE}"
        raise InputError(msg)
    listings: dict[Path, set[str]] = {}
    paths, gone = [], []
    for name, file in zip(study.ids(part).tolist(), columns["file"].values.tolist(), strict=True):
        path = _first(folder, _places(file, name), listings)
        if path is None:
            gone.append(file)
        else:
            paths.append(path)
    if gone:
        other = len(gone) == count
        remedy = "is it the folder of this data set?" if other else "restore them from a copy"
        msg = f"{folder}: {len(gone)} of the {count} images of {part!r} are not there, such as {plain(gone[0])}; {remedy}"
        raise InputError(msg)
    return paths


def check(
    study: Study,
    part: str,
    data: str | Path | None = None,
    *,
    sample: int = _SAMPLE,
    random_state: Any = None,
) -> list[Path] | None:
    """Find the image files of a set, and compare the digests of a sample with those of the study.

    Parameters
    ----------
    study : Study
    part : str
        ``train``, ``test`` or another target set.
    data : path or str, optional
        The data set's folder.
    sample : int
        How many files are read: another sample each time, so that many workers together read many.
    random_state : optional
        Of the sample.

    Returns
    -------
    list of path, or None
        As :func:`files`.

    Raises
    ------
    InputError
        If files are gone or are not those that the study was made of.
    """
    paths = files(study, part, data)
    columns = examples_of(study, part)
    if paths is None or "digest" not in columns:
        return paths
    draw = np.random.default_rng(random_state)
    chosen = draw.choice(len(paths), min(sample, len(paths)), replace=False)
    digests = columns["digest"].values
    other = [place for place in chosen if digest(read_file(paths[place])) != digests[place]]
    if other:
        first = paths[other[0]]
        if len(other) == len(chosen):
            msg = f"{first.parent}: none of {len(chosen)} images of {part!r} that were compared is the one that {study.path} was made of; name that data set with --data DIR or {VARIABLE}"
        else:
            msg = f"{first}: not the file that {study.path} was made of ({len(other)} of {len(chosen)} that were compared differ); restore it from a copy"
        raise InputError(msg)
    return paths


def _places(file: str, name: str) -> list[PurePosixPath]:
    """Where an image may lie: as the study says, by its id, or without a folder of its class."""
    at = [PurePosixPath(file), PurePosixPath(name)]
    at.append(at[1].parent.parent / at[1].name)
    # A study may come from anybody: its paths stay in the folder that the user named.
    return [path for path in at if path.parts and not path.is_absolute() and ".." not in path.parts]


def _first(
    folder: Path, places: list[PurePosixPath], listings: dict[Path, set[str]]
) -> Path | None:
    """The first place that exists; folders are listed once, as asking for each file takes minutes on NFS."""
    for place in places:
        path = folder / place
        if path.parent not in listings:
            try:
                listings[path.parent] = {entry.name for entry in path.parent.iterdir()}
            except OSError:
                listings[path.parent] = set()
        if path.name in listings[path.parent]:
            return path
    return None
