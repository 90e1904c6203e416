"""Image files: read, made small for pages, and digested so that they are known again."""

from __future__ import annotations

import hashlib
import io
import unicodedata
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dmstore.core.memory import scratch_array
from dmstore.core.progress import Progress, counting
from dmstore.core.strangers import stranger
from dmstore.core.threads import cores
from dmstore.errors import InputError, MissingDependencyError, StorageError, plain
from dmstore.training.datasets.dataset import Columns, Listed

if TYPE_CHECKING:
    from PIL.Image import Image

# Longest side of a thumbnail.
SIDE = 64
SUFFIXES = {".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".tif", ".tiff", ".webp", ".gif"}
_TOGETHER = 32
# Thumbnails beyond this lie in a file, whose pages the system may take back.
_MOST_IN_MEMORY = 256 << 20
_PAPER = 255


def decode(raw: bytes, where: str | Path, *, small: bool = False) -> Image:
    """An image as 8-bit RGB.

    Parameters
    ----------
    raw : bytes
        Content of the file.
    where : str or path
        For error texts.
    small : bool
        Only as large as a thumbnail, which is quicker.

    Returns
    -------
    PIL.Image.Image

    Raises
    ------
    InputError
        If it is no image, is cut, or has more than 8 bits a channel.
    MissingDependencyError
        If Pillow is not installed.
    """
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError as error:
        msg = "reading image files needs Pillow; pip install 'dmstore[vision]'"
        raise MissingDependencyError(msg) from error
    try:
        image = Image.open(io.BytesIO(raw))
        deep = image.mode in ("I", "F") or image.mode.startswith("I;")
        if not deep:
            # Palettes are made smaller by picking pixels, so they become colours first.
            if small and image.mode in ("RGB", "L", "CMYK"):
                image.thumbnail((SIDE, SIDE))
            image = image.convert("RGB")
            if small:
                image.thumbnail((SIDE, SIDE))
            return image
    except Exception as error:  # noqa: BLE001 - bytes from anywhere can make a decoder raise anything
        other = stranger(Path(where))
        # Pillow names the buffer of bytes by its address, which tells nobody anything.
        known = "" if isinstance(error, UnidentifiedImageError) else plain(str(error))
        why = f" ({' '.join(known.split())[:120]})" if known else ""
        msg = f"{where}: {other or f'no image that can be read{why}; copy it again'}"
        raise InputError(msg) from None
    msg = f"{where}: has more than 8 bits a channel ({image.mode}); save it as 8-bit RGB"
    raise InputError(msg)


def digest(raw: bytes) -> str:
    """The digest of a file's bytes that stands in the column ``digest``."""
    return hashlib.blake2b(raw, digest_size=16).hexdigest()


def columns_of(
    root: Path,
    sets: Mapping[str, Listed],
    *,
    whole: bool = False,
    progress: Progress | None = None,
) -> dict[str, Columns]:
    """Columns of sets of image files: ``id``, ``image``, ``file``, ``digest``, and those that are listed.

    Parameters
    ----------
    root : path
        The data set's folder.
    sets : mapping
        Name to the set's files.
    whole : bool
        Where all images have one size of at most 64 pixels, ``image`` holds the images themselves, and
        there is no ``file`` and no ``digest``.
    progress : callable, optional
        Called with ``thumbnails``, images read and images in all.

    Raises
    ------
    InputError
        If images cannot be read: how many, and the first of them.
    """
    for name, listed in sets.items():
        if not listed.files:
            msg = f"{root}: no images for {name!r}; is it the whole data set?"
            raise InputError(msg)
    shape = _one_size(root, sets) if whole else None
    tell = counting(progress, "thumbnails")
    total, done = sum(len(listed.files) for listed in sets.values()), 0
    made: dict[str, Columns] = {}
    refused: list[InputError] = []
    for name, listed in sets.items():
        image = _room((len(listed.files), *(shape or (SIDE, SIDE)), 3))
        digests = [""] * len(listed.files)

        def read(
            start: int, listed: Listed = listed, image: Any = image, digests: list[str] = digests
        ) -> tuple[int, list[InputError]]:
            wrong = []
            files = listed.files[start : start + _TOGETHER]
            for place, file in enumerate(files, start):
                try:
                    raw = read_file(root / file)
                    digests[place] = digest(raw)
                    image[place] = _framed(decode(raw, root / file, small=not shape), image.shape)
                except InputError as error:
                    wrong.append(error)
            return len(files), wrong

        tell(done, total)
        with ThreadPoolExecutor(cores()) as pool:
            for count, wrong in pool.map(read, range(0, len(listed.files), _TOGETHER)):
                done += count
                refused += wrong
                tell(done, total)
        made[name] = _columns(listed, image, digests, whole=shape is not None)
    if len(refused) == 1:
        raise refused[0]
    if refused:
        msg = f"{len(refused)} of {total} images cannot be used; the first: {refused[0]}"
        raise InputError(msg)
    return made


def read_file(path: Path) -> bytes:
    """The bytes of a file.

    Raises
    ------
    InputError
        If they cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        msg = f"{path}: cannot be read ({error.strerror or error}); is the data set whole?"
        raise InputError(msg) from None


def id_of(file: str) -> str:
    """The id of an image: its path, in the composed form of its letters that ids have."""
    return unicodedata.normalize("NFC", file)


def _columns(
    listed: Listed, image: NDArray[Any], digests: list[str], *, whole: bool
) -> dict[str, NDArray[Any]]:
    made: Columns = {
        "id": np.array(listed.ids or [id_of(file) for file in listed.files]),
        "image": image,
        **listed.columns,
    }
    if not whole:
        made |= {"file": np.array(listed.files), "digest": np.array(digests)}
    return made


def _room(shape: tuple[int, ...]) -> NDArray[Any]:
    if int(np.prod(shape)) <= _MOST_IN_MEMORY:
        return np.zeros(shape, dtype=np.uint8)
    try:
        return scratch_array(None, shape, np.uint8)
    except StorageError as error:
        said, _, _ = str(error).partition(";")
        msg = f"{said}; name another directory with the variable TMPDIR"
        raise StorageError(msg) from error


def _one_size(root: Path, sets: Mapping[str, Listed]) -> tuple[int, int] | None:
    """Height and width of all images, if they are the same and small; only headers are read."""
    try:
        from PIL import Image
    except ImportError:
        return None
    size: tuple[int, int] | None = None
    for listed in sets.values():
        for file in listed.files:
            try:
                with Image.open(root / file) as image:
                    own = (image.height, image.width)
            except Exception:  # noqa: BLE001 - told when it is read
                return None
            if max(own) > SIDE or own != (size or own):
                return None
            size = own
    return size


def _framed(image: Image, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """An image in the middle of a square of paper."""
    pixels = np.asarray(image)
    height, width = pixels.shape[:2]
    if (height, width) == shape[1:3]:
        return pixels
    framed = np.full(shape[1:], _PAPER, dtype=np.uint8)
    top, left = (shape[1] - height) // 2, (shape[2] - width) // 2
    framed[top : top + height, left : left + width] = pixels
    return framed
