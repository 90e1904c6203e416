"""CIFAR-10 as its authors give it: ``cifar-10-batches-bin``, ``cifar-10-batches-py``, or an ``.npz`` of arrays.

The Python version is pickled; its batches are walked opcode by opcode and nothing in them is run.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmstore.core.npz import NpzReader
from dmstore.core.progress import Progress
from dmstore.errors import InputError
from dmstore.readers import torch_pickle
from dmstore.readers.torch_numpy import Array
from dmstore.training.datasets.dataset import Columns, Examples, by_prefix, first_of_each

SOURCE = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
_TRAIN = tuple(f"data_batch_{number}" for number in range(1, 6))
_TEST = ("test_batch",)
_SIDE = 32
_PIXELS = 3 * _SIDE * _SIDE
_WHOLE = {"train": 50_000, "test": 10_000}
# Names of train images and labels, test images and labels, as people save them.
_NAMES = (
    ("x_train", "y_train", "x_test", "y_test"),
    ("train_image", "train_label", "target_image", "target_label"),
    ("train_images", "train_labels", "test_images", "test_labels"),
    ("train_data", "train_labels", "test_data", "test_labels"),
)


def examples(root: Path, *, limit: int | None = None, progress: Progress | None = None) -> Examples:
    """Read CIFAR-10. Ids are an image's own place, such as ``test_batch/17`` (of an ``.npz``: ``test/17``).

    Columns: ``label``, ``image``, and ``filename`` where the data set tells it (the Python version).

    Parameters
    ----------
    root : path
        A folder that is or holds ``cifar-10-batches-bin`` or ``cifar-10-batches-py``, or the ``.npz`` file.
    limit : int, optional
        Examples a class and set.
    progress : callable, optional
        Not called: nothing here takes long.

    Raises
    ------
    InputError
        If it is not there, or a file is not of CIFAR-10.
    """
    sets = _read(root)
    notes = []
    for name, columns in sets.items():
        count = len(columns["label"])
        if count != _WHOLE[name] and limit is None:
            notes.append(f"{name}: {count} images, CIFAR-10 has {_WHOLE[name]}")
        kept = first_of_each(columns["label"], limit)
        sets[name] = {key: values[kept] for key, values in columns.items()}
    return Examples(by_prefix(sets["train"], sets["test"], CLASSES), {}, notes)


def _read(root: Path) -> dict[str, Columns]:
    if root.is_file():
        return _arrays(root)
    for folder in (root, root / "cifar-10-batches-bin"):
        if (folder / "data_batch_1.bin").is_file():
            return _sets(folder, ".bin", _binary)
    for folder in (root, root / "cifar-10-batches-py"):
        if (folder / "data_batch_1").is_file():
            return _sets(folder, "", _pickled)
    archive = next((path.name for path in sorted(root.glob("cifar-10-*.tar.gz"))), None)
    remedy = f"unpack {archive}" if archive else f"get {SOURCE} and unpack it"
    msg = f"{root}: no cifar-10-batches-bin or cifar-10-batches-py there; {remedy}"
    raise InputError(msg)


def _sets(folder: Path, suffix: str, read: Any) -> dict[str, Columns]:
    sets = {}
    for name, batches in (("train", _TRAIN), ("test", _TEST)):
        parts = []
        for batch in batches:
            path = folder / f"{batch}{suffix}"
            if not path.is_file():
                msg = f"{path}: not there; unpack the whole of {SOURCE}"
                raise InputError(msg)
            columns = read(path)
            count = len(columns["label"])
            _check_labels(columns["label"], path)
            parts.append({"id": np.array([f"{batch}/{i}" for i in range(count)]), **columns})
        sets[name] = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    return sets


def _binary(path: Path) -> Columns:
    """A batch of the binary version: a byte of label and three planes of pixels each."""
    raw = np.fromfile(path, dtype=np.uint8)
    if not raw.size or raw.size % (1 + _PIXELS):
        msg = f"{path}: has {raw.size} bytes, no whole number of images (of {1 + _PIXELS} bytes); it is cut or another file, get {SOURCE} again"
        raise InputError(msg)
    rows = raw.reshape(-1, 1 + _PIXELS)
    return {"image": _planes(rows[:, 1:]), "label": rows[:, 0].astype(np.int64)}


def _pickled(path: Path) -> Columns:
    """A batch of the Python version, read without unpickling."""
    said = torch_pickle.parse(path.read_bytes(), str(path), arrays=True, python2=True)
    batch = said if isinstance(said, dict) else {}
    data, labels, names = (batch.get(key) for key in ("data", "labels", "filenames"))
    if (
        not isinstance(data, Array)
        or data.values is None
        or not isinstance(labels, list)
        or not all(type(label) is int for label in labels)
        or data.values.dtype != np.uint8
        or data.values.shape != (len(labels), _PIXELS)
    ):
        msg = f"{path}: holds no data (image, {_PIXELS}) uint8 with a label each, as a batch of CIFAR-10 does; get {SOURCE} again"
        raise InputError(msg)
    columns: Columns = {"image": _planes(data.values), "label": np.array(labels, dtype=np.int64)}
    if isinstance(names, list) and len(names) == len(labels):
        columns["filename"] = np.array([str(name) for name in names])
    return columns


def _planes(rows: NDArray[Any]) -> NDArray[np.uint8]:
    """Images (image, height, width, 3) of rows of a plane a colour."""
    return np.ascontiguousarray(rows.reshape(-1, 3, _SIDE, _SIDE).transpose(0, 2, 3, 1))


def _check_labels(labels: NDArray[Any], where: Path) -> None:
    if labels.dtype.kind not in "iu" or labels.ndim != 1 or not labels.size:
        msg = (
            f"{where}: labels are {labels.dtype} {labels.shape}, expected one whole number an image"
        )
        raise InputError(msg)
    if labels.min() < 0 or labels.max() >= len(CLASSES):
        place = int(np.flatnonzero((labels < 0) | (labels >= len(CLASSES)))[0])
        msg = f"{where}: image {place} has label {labels[place]}, and CIFAR-10 has 0 to {len(CLASSES) - 1}; it is damaged or another data set"
        raise InputError(msg)


def _arrays(path: Path) -> dict[str, Columns]:
    """CIFAR-10 in an ``.npz``."""
    with NpzReader(path) as reader:
        names = next((names for names in _NAMES if set(names) <= reader.headers.keys()), None)
        if names is None:
            held = ", ".join(reader.headers)
            msg = f"{path}: holds {held}; give {', '.join(_NAMES[0])}, or the files of {SOURCE}"
            raise InputError(msg)
        arrays = [reader.load(name) for name in names]
    return dict(_of_arrays(path, names, arrays))


def _of_arrays(
    path: Path, names: tuple[str, ...], arrays: list[NDArray[Any]]
) -> Iterator[tuple[str, Columns]]:
    for set_name, at in (("train", 0), ("test", 2)):
        image, label = arrays[at], arrays[at + 1].squeeze()
        shapes = ((_SIDE, _SIDE, 3), (3, _SIDE, _SIDE), (_PIXELS,))
        if (
            image.dtype != np.uint8
            or image.shape[1:] not in shapes
            or label.shape != image.shape[:1]
        ):
            msg = f"{path}: {names[at]} is {image.dtype} {image.shape} with {names[at + 1]} {arrays[at + 1].shape}; CIFAR-10's are uint8 (image, 32, 32, 3) with a label each"
            raise InputError(msg)
        _check_labels(label, path)
        yield (
            set_name,
            {
                "id": np.array([f"{set_name}/{place}" for place in range(len(label))]),
                "image": image if image.shape[1:] == shapes[0] else _planes(image),
                "label": label.astype(np.int64),
            },
        )
