"""A study made of a data set on disk."""

from __future__ import annotations

import importlib
from pathlib import Path

from dmstore.core.given import local_path
from dmstore.core.progress import Progress
from dmstore.errors import InputError
from dmstore.schema.typed_documents import AboutDocument
from dmstore.study.creation import create_study
from dmstore.study.study import Study
from dmstore.training.datasets.dataset import Examples

# Name to what it is made of.
DATASETS = {
    "cifar10": "CIFAR-10: cifar-10-batches-bin, cifar-10-batches-py, or an .npz of its arrays",
    "waterbirds": "Waterbirds: waterbird_complete95_forest2water2 with its metadata.csv",
    "living17": "Living17: an ImageNet folder with train and val",
    "imagefolder": "train/CLASS/… and test/CLASS/… (or val/CLASS/…), images of any size",
}


def make_study(
    path: str | Path,
    dataset: str,
    root: str | Path,
    *,
    seed: int | None = None,
    limit: int | None = None,
    about: AboutDocument | None = None,
    progress: Progress | None = None,
) -> tuple[Study, list[str]]:
    """Create a study of a data set. Images that are files stay where they are.

    Parameters
    ----------
    path : path or str
        Where the study is made.
    dataset : str
        One of :data:`DATASETS`.
    root : path or str
        The folder (of ``cifar10`` also the ``.npz`` file) that the user has.
    seed : int, optional
        Masks, splits and training seeds follow from it.
    limit : int, optional
        Only the first so many examples of each class of each set, to try something out.
    about : mapping, optional
        ``title``, ``authors``, ``licence``, ``citation``, ``doi``.
    progress : callable, optional
        Called with ``thumbnails``, images read and images in all.

    Returns
    -------
    study : Study
    notes : list of str
        What is unusual about the data, for people.

    Raises
    ------
    InputError
        If the data set is not known, is not there, or cannot be used.
    ExistsError
        If there is something at `path`.
    """
    if dataset not in DATASETS:
        msg = f"data set {dataset!r} is not known; give {', '.join(DATASETS)}"
        raise InputError(msg)
    place = local_path(root)
    if not place.exists():
        msg = f"{place}: not there; name the folder that holds the data set"
        raise InputError(msg)
    module = importlib.import_module(f"dmstore.training.datasets.{dataset}")
    made: Examples = module.examples(place.resolve(), limit=limit, progress=progress)
    study = create_study(path, made.arrays, seed=seed, about=about, target_sets=made.target_sets)
    return study, made.notes
