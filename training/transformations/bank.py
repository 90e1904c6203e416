"""Pictures of the user's: one file, a folder of images, or an ``.npz``."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dmstore.errors import InputError, MissingDependencyError
from dmstore.training.transformations.drawing import Images

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".ppm", ".pgm", ".tif", ".tiff")
# Sides of a picture that is worth pasting: a header may state any.
_LARGEST = 1 << 26


def read_bank(path: str | Path) -> list[Images]:
    """Read pictures, in the order of their names.

    Parameters
    ----------
    path : path
        An image file, a folder of them, or an ``.npz`` whose array ``image`` (or only array) is uint8
        (picture, height, width[, channel]).

    Returns
    -------
    list of (height, width, 3) uint8

    Raises
    ------
    InputError
        If there is nothing, or something cannot be read.
    MissingDependencyError
        If Pillow is needed and not there.
    """
    place = Path(path)
    if place.suffix == ".npz" and place.is_file():
        return _arrays(place)
    if place.is_dir():
        files = sorted(p for p in place.iterdir() if p.suffix.lower() in SUFFIXES)
        if not files:
            msg = f"{place}: no image in this folder; it needs files such as a.png (known: {', '.join(SUFFIXES)})"
            raise InputError(msg)
        return [_file(one) for one in files]
    if not place.is_file():
        msg = f"{place}: no such file or folder; give an image, a folder of images, or an .npz"
        raise InputError(msg)
    return [_file(place)]


def _file(path: Path) -> Images:
    try:
        from PIL import Image
    except ImportError as error:
        msg = "image files need Pillow; pip install 'dmstore[analysis]', or give an .npz"
        raise MissingDependencyError(msg) from error
    try:
        with Image.open(path) as opened:
            if opened.width * opened.height > _LARGEST:
                msg = (
                    f"{path}: {opened.width} x {opened.height} pixels are too many; make it smaller"
                )
                raise InputError(msg)
            return np.asarray(opened.convert("RGB"), dtype=np.uint8)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        if isinstance(error, InputError):
            raise
        msg = f"{path}: cannot be read as an image ({' '.join(str(error).split())[:200]}); remove or replace it"
        raise InputError(msg) from None


def _arrays(path: Path) -> list[Images]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            names = list(arrays.files)
            name = "image" if "image" in names else names[0] if len(names) == 1 else ""
            values = arrays[name] if name else None
    except (OSError, ValueError, KeyError, EOFError, IndexError) as error:
        msg = f"{path}: cannot be read ({' '.join(str(error).split())[:200]}); give an .npz that NumPy wrote"
        raise InputError(msg) from None
    if values is None:
        msg = f"{path}: has the arrays {', '.join(names) or 'none'}; call the pictures 'image'"
        raise InputError(msg)
    if values.dtype == np.uint8 and values.ndim == 3:
        values = values[..., None]
    if values.dtype != np.uint8 or values.ndim != 4 or values.shape[3] not in (1, 3, 4):
        msg = f"{path}: pictures are {values.dtype} {values.shape}, expected uint8 (picture, height, width[, 1, 3 or 4])"
        raise InputError(msg)
    if not values.size:
        msg = f"{path}: has no pictures"
        raise InputError(msg)
    return [np.repeat(one, 3, axis=2) if one.shape[2] == 1 else one[..., :3] for one in values]
