"""Living17 without subpopulation shift, from an ImageNet folder: the same four classes of each kind in train and test."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from dmstore.core.progress import Progress
from dmstore.errors import InputError, plain
from dmstore.training.datasets.dataset import Examples, Listed, by_prefix, limited
from dmstore.training.datasets.imagefolder import files_below
from dmstore.training.datasets.living17_classes import SUPERCLASSES
from dmstore.training.datasets.pictures import columns_of

SOURCE = "https://image-net.org/download.php (ILSVRC2012, training and validation images)"
# Where train and val lie below what people call their ImageNet folder.
INSIDE = (".", "ILSVRC/Data/CLS-LOC", "Data/CLS-LOC")
# Lists that say which class each image of a flat val folder has.
LISTS = (
    "LOC_val_solution.csv",
    "imagenet_2012_validation_synset_labels.txt",
    "validation_synset_labels.txt",
    "synset_labels.txt",
    "val_labels.txt",
)
_TRAIN, _TEST = 88_400, 3_400
_CLASS = re.compile(r"\bn\d{8}\b")
_IMAGE = re.compile(r"ILSVRC2012_val_(\d{8})")


def examples(root: Path, *, limit: int | None = None, progress: Progress | None = None) -> Examples:
    """Read the folder: ``train/nXXXXXXXX/*.JPEG``, and ``val`` by class or flat with a list of classes.

    Columns: ``label`` (the kind), ``subclass`` (the ImageNet class) and ``wnid`` (its WordNet id). Ids are
    ``train/WNID/NAME`` and ``val/WNID/NAME`` whatever the layout is, so that two labs have the same.

    Parameters
    ----------
    root : path
        The folder with ``train`` and ``val``, or the root of an unpacked ILSVRC.
    limit : int, optional
        Examples a superclass and set.
    progress : callable, optional

    Raises
    ------
    InputError
        If folders or the list are missing, or a class has no images.
    """
    inside = next((place for place in INSIDE if (root / place / "train").is_dir()), None)
    if inside is None or not (root / inside / "val").is_dir():
        lacking = "val" if inside is not None else "train"
        msg = f"{root}: no ImageNet folder ({lacking!r} is not there); get it from {SOURCE}, and unpack each class into train/nXXXXXXXX and the validation images into val"
        raise InputError(msg)
    base = root / inside
    train = _listed(root, _by_class(base / "train"), "train")
    test = _listed(root, _validation(root, base), "val")
    notes = [
        f"{name}: {len(listed.files)} images, Living17 of the whole of ImageNet has {whole}"
        for name, listed, whole in (("train", train, _TRAIN), ("test", test, _TEST))
        if len(listed.files) != whole and limit is None
    ]
    sets = {"train": limited(train, limit), "test": limited(test, limit)}
    made = columns_of(root, sets, progress=progress)
    return Examples(by_prefix(made["train"], made["test"], list(SUPERCLASSES)), {}, notes)


def _by_class(folder: Path) -> dict[str, list[Path]]:
    """Images of each class that is wanted, where each class has a folder."""
    return {
        wnid: files_below(folder / wnid) for classes in SUPERCLASSES.values() for wnid in classes
    }


def _validation(root: Path, base: Path) -> dict[str, list[Path]]:
    images = _by_class(base / "val")
    if any(images.values()):
        return images
    flat = [path for path in files_below(base / "val") if _IMAGE.match(path.stem)]
    places = [place / name for place in (root, base, base / "val") for name in LISTS]
    source = next((place for place in places if place.is_file()), None)
    if not flat or source is None:
        msg = f"{base / 'val'}: neither folders of classes (nXXXXXXXX) nor a list of classes of its images; put {LISTS[0]} or {LISTS[1]} beside it"
        raise InputError(msg)
    classes = _classes(source)
    for path in flat:
        wnid = classes.get(path.stem)
        if wnid is None:
            msg = f"{source}: does not say which class {path.name} has; give the list of all 50,000 validation images"
            raise InputError(msg)
        if wnid in images:
            images[wnid].append(path)
    return images


def _classes(source: Path) -> dict[str, str]:
    """Class of each validation image: a line an image, which names it or stands at its number."""
    try:
        lines = source.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeError) as error:
        msg = f"{source}: cannot be read ({plain(str(error))}); copy it again"
        raise InputError(msg) from None
    classes = {}
    number = 0
    for line in lines:
        wnid, image = _CLASS.search(line), _IMAGE.search(line)
        if wnid:
            number = int(image[1]) if image else number + 1
            classes[f"ILSVRC2012_val_{number:08d}"] = wnid[0]
    return classes


def _listed(root: Path, images: dict[str, list[Path]], part: str) -> Listed:
    empty = [wnid for wnid, paths in images.items() if not paths]
    if empty:
        msg = f"{root}: {len(empty)} of the {len(images)} ImageNet classes of Living17 have no images in {part!r}, such as {empty[0]}; get them from {SOURCE}"
        raise InputError(msg)
    rows = [
        (label, wnid, name, path)
        for label, classes in enumerate(SUPERCLASSES.values())
        for wnid, name in classes.items()
        for path in images[wnid]
    ]
    return Listed(
        [path.relative_to(root).as_posix() for *_, path in rows],
        {
            "label": np.array([label for label, *_ in rows], dtype=np.int64),
            "subclass": np.array([name for _, _, name, _ in rows]),
            "wnid": np.array([wnid for _, wnid, _, _ in rows]),
        },
        [f"{part}/{wnid}/{path.name}" for _, wnid, _, path in rows],
    )
