"""A folder of images: ``train/CLASS/…`` and ``test/CLASS/…`` (or ``val/CLASS/…``), of any sizes."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from dmstore.core.progress import Progress
from dmstore.errors import InputError
from dmstore.training.datasets.dataset import Examples, Listed, by_prefix, limited
from dmstore.training.datasets.pictures import SUFFIXES, columns_of

_TEST = ("test",)
_VALIDATION = ("val", "validation", "valid")


def examples(root: Path, *, limit: int | None = None, progress: Progress | None = None) -> Examples:
    """Read the folder: classes are the folders of ``train``, in the order of their names.

    Where there is both ``test`` and ``val``, ``val`` becomes the target set ``validation``. Small images of one size
    are held by the study itself.

    Parameters
    ----------
    root : path
    limit : int, optional
        Examples a class and set.
    progress : callable, optional

    Raises
    ------
    InputError
        If folders are missing, empty, or of a class that ``train`` does not have.
    """
    test, validation = _first(root, _TEST), _first(root, _VALIDATION)
    if not (root / "train").is_dir() or not (test or validation):
        msg = f"{root}: no folders 'train' and 'test' (or 'val') there; an image folder has train/CLASS/… and test/CLASS/…"
        raise InputError(msg)
    names = _classes(root / "train")
    folders = {"train": "train", "test": test or validation}
    if test and validation:
        folders["validation"] = validation
    sets = {name: limited(_listed(root, folder, names), limit) for name, folder in folders.items()}
    made = columns_of(root, sets, whole=True, progress=progress)
    further = {name: columns for name, columns in made.items() if name == "validation"}
    return Examples(by_prefix(made["train"], made["test"], names), further)


def files_below(folder: Path) -> list[Path]:
    """Images in a folder and the folders in it, by name; hidden ones are left out."""
    images = []
    for place, inside, names in os.walk(folder, followlinks=True):
        inside[:] = sorted(name for name in inside if not name.startswith("."))
        images += [
            Path(place) / name
            for name in names
            if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES
        ]
    return sorted(images)


def _first(root: Path, names: tuple[str, ...]) -> str:
    return next((name for name in names if (root / name).is_dir()), "")


def _classes(folder: Path) -> list[str]:
    return sorted(
        entry.name
        for entry in folder.iterdir()
        if entry.is_dir() and not entry.name.startswith(".")
    )


def _listed(root: Path, folder: str, names: list[str]) -> Listed:
    unknown = sorted(set(_classes(root / folder)) - set(names))
    if unknown:
        msg = f"{root / folder / unknown[0]}: 'train' has no class {unknown[0]!r} (it has {', '.join(names[:5])}{', …' * (len(names) > 5)}); rename or remove the folder"
        raise InputError(msg)
    files: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(names):
        inside = [path.relative_to(root).as_posix() for path in files_below(root / folder / name)]
        if not inside and folder == "train":
            msg = f"{root / folder / name}: no images in it; add some, or remove the folder"
            raise InputError(msg)
        files += inside
        labels += [label] * len(inside)
    return Listed(files, {"label": np.array(labels, dtype=np.int64)})
