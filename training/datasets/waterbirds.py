"""Waterbirds: birds pasted on land and water, as ``waterbird_complete95_forest2water2`` with its ``metadata.csv``."""

from __future__ import annotations

import csv
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from dmstore.core.progress import Progress
from dmstore.errors import InputError, plain
from dmstore.training.datasets.dataset import Examples, Listed, by_prefix, limited
from dmstore.training.datasets.pictures import columns_of, id_of

FOLDER = "waterbird_complete95_forest2water2"
SOURCE = "https://nlp.stanford.edu/data/dro/waterbird_complete95_forest2water2.tar.gz"
CLASSES = ("landbird", "waterbird")
_PLACES = ("land", "water")
# Sets by the numbers of the column `split`.
_SETS = ("train", "validation", "test")
_NEEDED = ("img_filename", "y", "split", "place")
# What the whole data set has, by set.
_WHOLE = {"train": 4795, "validation": 1199, "test": 5794}


def examples(root: Path, *, limit: int | None = None, progress: Progress | None = None) -> Examples:
    """Read the folder: split 0 is train, 2 the targets, 1 the target set ``validation``.

    Columns: ``label`` (landbird, waterbird), ``place`` (land, water), ``group`` (both), ``bird`` (the species, from its
    folder), and ``scene`` where ``place_filename`` tells it.

    Parameters
    ----------
    root : path
        The folder, or the one that it is in.
    limit : int, optional
        Examples a class and set.
    progress : callable, optional

    Raises
    ------
    InputError
        If it is not there, or ``metadata.csv`` cannot be used.
    """
    folder = next((at for at in (root, root / FOLDER) if (at / "metadata.csv").is_file()), None)
    if folder is None:
        msg = f"{root}: no {FOLDER} with metadata.csv there; get it from {SOURCE} and unpack it"
        raise InputError(msg)
    listed = _listed(root, folder)
    notes = [
        f"{name}: {len(one.files)} images, the whole data set has {_WHOLE[name]}"
        for name, one in listed.items()
        if len(one.files) != _WHOLE[name] and limit is None
    ]
    sets = {
        name: limited(one, limit)
        for name, one in listed.items()
        if one.files or name != "validation"
    }
    made = columns_of(root, sets, progress=progress)
    further = {name: columns for name, columns in made.items() if name == "validation"}
    return Examples(by_prefix(made["train"], made["test"], CLASSES), further, notes)


def _listed(root: Path, folder: Path) -> dict[str, Listed]:
    where = folder / "metadata.csv"
    rows = _rows(where)
    missing = [row["img_filename"] for row in rows if not (folder / row["img_filename"]).is_file()]
    if missing:
        msg = f"{folder}: {len(missing)} of the {len(rows)} images of metadata.csv are not there, such as {missing[0]}; unpack {SOURCE} again"
        raise InputError(msg)
    listed = {}
    for split, name in enumerate(_SETS):
        own = [row for row in rows if row["split"] == split]
        columns: dict[str, Any] = {
            "label": np.array([row["y"] for row in own], dtype=np.int64),
            "place": np.array([_PLACES[row["place"]] for row in own]),
            "group": np.array([f"{CLASSES[row['y']]} on {_PLACES[row['place']]}" for row in own]),
            "bird": np.array([_bird(row["img_filename"]) for row in own]),
        }
        scenes = [PurePosixPath(row["place_filename"]).parent.name for row in own]
        if all(scenes):
            columns["scene"] = np.array(scenes)
        ids = [row["img_filename"] for row in own]
        inside = folder.relative_to(root)
        files = [(inside / file).as_posix() for file in ids]
        listed[name] = Listed(files, columns, [id_of(file) for file in ids])
    return listed


def _bird(file: str) -> str:
    """Species of an image in a folder such as ``001.Black_footed_Albatross``."""
    name = PurePosixPath(file).parent.name
    number, dot, species = name.partition(".")
    return (species if dot and number.isdecimal() else name).replace("_", " ")


def _rows(where: Path) -> list[dict[str, Any]]:
    try:
        with where.open(newline="", encoding="utf-8") as table:
            reader = csv.DictReader(table)
            rows = list(reader)
            header = reader.fieldnames or []
    except (OSError, UnicodeError, csv.Error) as error:
        msg = f"{where}: cannot be read as a table ({plain(str(error))}); unpack {SOURCE} again"
        raise InputError(msg) from None
    lacking = [name for name in _NEEDED if name not in header]
    if lacking:
        msg = f"{where}: has no column {lacking[0]!r} (it has {', '.join(map(plain, header))}); it is not the metadata of Waterbirds"
        raise InputError(msg)
    made = []
    for line, row in enumerate(rows, 2):
        numbers = {
            name: _number(row[name], most, f"{where}, line {line}: {name}")
            for name, most in (("y", 1), ("split", 2), ("place", 1))
        }
        file = str(row["img_filename"] or "")
        path = PurePosixPath(file)
        if not path.parts or path.is_absolute() or ".." in path.parts:
            msg = f"{where}, line {line}: img_filename {plain(file)!r} is no path inside the folder; restore the file"
            raise InputError(msg)
        scene = str(row.get("place_filename") or "")
        made.append({**numbers, "img_filename": path.as_posix(), "place_filename": scene})
    return made


def _number(text: str | None, most: int, where: str) -> int:
    if text is None or not text.strip().isdecimal() or int(text) > most:
        msg = (
            f"{where} is {plain(str(text))!r}, expected 0 to {most}; restore the file from {SOURCE}"
        )
        raise InputError(msg)
    return int(text)
