"""A study's images as one ``.beton`` file, which ffcv reads.

Written here and not by ffcv's writer, which waits for ever when a process of it dies of a bad image. Sets stand one after
the other, train units first, each in the order of the study; next to each image stands a number made of its set and
id, so that a file of another study, or of another order, is known. Version 2 of the format, the newest there is.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from dmstore.core.given import local_path
from dmstore.core.progress import Progress, counting
from dmstore.core.threads import cores
from dmstore.errors import InputError, StorageError
from dmstore.study.outside import outside_studies
from dmstore.training.datasets.pictures import decode, read_file
from dmstore.training.datasets.pixels import folder_of
from dmstore.training.loaders.sources import Source, source_of

if TYPE_CHECKING:
    from dmstore.study.study import Study

_HEADER = np.dtype(
    [("version", "<u2"), ("fields", "<u2"), ("page", "<u4"), ("samples", "<u8"), ("table", "<u8")],
    align=True,
)
_FIELD = np.dtype([("type", "u1"), ("name", "S16"), ("arguments", "V1024")])
_IMAGE = np.dtype([("mode", "u1"), ("width", "<u2"), ("height", "<u2"), ("address", "<u8")])
_SAMPLE = np.dtype([("image", _IMAGE), ("key", "<i8")], align=True)
_ALLOCATION = np.dtype([("sample", "<u8"), ("address", "<u8"), ("size", "<u8")])
_VERSION, _INT, _RGB = 2, 1, 2
_JPEG, _RAW = 0, 1
_PAGE = 8 << 20
# Images that may be ready and not written yet.
_AHEAD = 64


def place_of(study: Study, place: str | Path | None) -> Path:
    """Where a study's file is: as given, in the folder given, or beside the study.

    Raises
    ------
    InputError
        If nothing is given of a study that is not on this machine.
    """
    said = Path(study.path)
    name = f"{said.stem}.beton"
    if place is not None:
        given = local_path(place)
        return given / name if given.is_dir() else given
    if not said.is_dir():
        msg = f"{study.path}: its .beton file cannot lie beside it; name a path"
        raise InputError(msg)
    return said.with_name(name)


def find(study: Study, data: str | Path | None) -> Path:
    """The file of a study to read: the one given, else that in the folder of its images, else that beside the study."""
    folder = folder_of(data)
    if folder is not None:
        inside = place_of(study, folder)
        if inside.is_file() or folder.suffix == ".beton":
            return inside
    return place_of(study, None)


def sets_of(study: Study) -> list[str]:
    """Sets of a study in the order in which a file has them."""
    return ["train", *study.target_sets]


def keys_of(study: Study, part: str) -> NDArray[np.int64]:
    """The number that stands next to each image of a set: (example,) int64."""
    digests = (
        hashlib.blake2b(f"{part}\0{name}".encode(), digest_size=8).digest()
        for name in study.ids(part).tolist()
    )
    return np.frombuffer(b"".join(digests), dtype="<i8")


def write(
    study: Study,
    path: Path,
    *,
    data: str | Path | None = None,
    max_size: int | None = None,
    jpeg_quality: int = 90,
    progress: Progress | None = None,
) -> int:
    """Write the images of all sets. The file is there whole or not at all.

    Parameters
    ----------
    study : Study
    path : path
        Replaced if it is there.
    data : path or str, optional
        Folder of the image files.
    max_size : int, optional
        Longest side in px; larger images are made smaller.
    jpeg_quality : int
        Of images that are files, 1 to 100. A JPEG file that is small enough is taken as it is. Images that the study
        holds are stored as pixels.
    progress : callable, optional
        Called with ``images``, images written and images in all.

    Returns
    -------
    int
        Images written.

    Raises
    ------
    InputError
        If an image is gone, cannot be read, or is not that of the study.
    StorageError
        If the file cannot be written.
    """
    outside_studies(path)
    sources = [source_of(study, part, data) for part in sets_of(study)]
    keys = np.concatenate([keys_of(study, source.name) for source in sources])
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    tell = counting(progress, "images")
    try:
        with aside.open("wb") as file:
            _write(file, keys, _encoded(sources, max_size, jpeg_quality), tell)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError as error:
        if isinstance(error, InputError):
            raise
        msg = f"{path}: cannot be written ({error.strerror or error}); name another place with --output"
        raise StorageError(msg) from error
    finally:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)
    return len(keys)


def _write(
    file: BinaryIO,
    keys: NDArray[np.int64],
    encoded: Iterator[tuple[int, int, int, bytes]],
    tell: Any,
) -> None:
    samples = np.zeros(len(keys), dtype=_SAMPLE)
    samples["key"] = keys
    table = np.zeros(len(keys), dtype=_ALLOCATION)
    fields = np.zeros(2, dtype=_FIELD)
    fields["type"], fields["name"] = (_RGB, _INT), (b"image", b"key")
    start = _HEADER.itemsize + fields.nbytes
    place = -(-(start + samples.nbytes) // _PAGE) * _PAGE
    tell(0, len(keys))
    for number, (mode, width, height, raw) in enumerate(encoded):
        if len(raw) > _PAGE - place % _PAGE:
            # No image lies across two pages.
            place = -(-place // _PAGE) * _PAGE
        file.seek(place)
        file.write(raw)
        samples["image"][number] = (mode, width, height, place)
        table[number] = (number, place, len(raw))
        place += len(raw)
        tell(number + 1, len(keys))
    end = -(-place // _PAGE) * _PAGE
    file.seek(end)
    file.write(table.tobytes())
    file.seek(0)
    header = np.array([(_VERSION, 2, _PAGE, len(keys), end)], dtype=_HEADER)
    file.write(header.tobytes() + fields.tobytes() + samples.tobytes())


def _encoded(
    sources: list[Source], max_size: int | None, quality: int
) -> Iterator[tuple[int, int, int, bytes]]:
    """Mode, width, height and bytes of each image, in order; some are made ahead."""
    waiting: list[Future[tuple[int, int, int, bytes]]] = []
    with ThreadPoolExecutor(cores()) as pool:
        try:
            for source in sources:
                for position in range(len(source)):
                    waiting.append(pool.submit(_one, source, position, max_size, quality))
                    if len(waiting) > _AHEAD:
                        yield waiting.pop(0).result()
            while waiting:
                yield waiting.pop(0).result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _one(
    source: Source, position: int, max_size: int | None, quality: int
) -> tuple[int, int, int, bytes]:
    if source.values is not None:
        image = source.values[position]
        rgb = np.ascontiguousarray(
            np.broadcast_to(image.reshape(*image.shape[:2], -1), (*image.shape[:2], 3))
        )
        return _RAW, rgb.shape[1], rgb.shape[0], rgb.tobytes()
    assert source.files is not None
    path = source.files[position]
    raw = read_file(path)
    image = decode(raw, path)
    longest = max(image.size)
    if raw[:3] == b"\xff\xd8\xff" and (max_size is None or longest <= max_size) and _three(raw):
        return _JPEG, image.width, image.height, _within(raw, path)
    if max_size is not None and longest > max_size:
        share = max_size / longest
        image = image.resize([max(1, round(side * share)) for side in image.size], reducing_gap=3)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return _JPEG, image.width, image.height, _within(buffer.getvalue(), path)


def _three(raw: bytes) -> bool:
    """Whether a JPEG has three channels, which is all that ffcv decodes."""
    from PIL import Image

    with Image.open(io.BytesIO(raw)) as image:
        return bool(image.mode == "RGB")


def _within(raw: bytes, path: Path) -> bytes:
    if len(raw) > _PAGE:
        msg = f"{path}: has {len(raw)} bytes, and at most {_PAGE} fit; make images smaller with --max-size"
        raise InputError(msg)
    return raw


def check(path: Path, study: Study) -> dict[str, NDArray[np.uint64]]:
    """Numbers of the samples of each set of a study in a file.

    Parameters
    ----------
    path : path
    study : Study

    Returns
    -------
    dict
        Set to (example,) uint64.

    Raises
    ------
    InputError
        If it is no such file, or not that of the study.
    """
    remedy = f"write it with 'dmstore beton {study.path}'"
    samples = _samples(path, remedy)
    places, start = {}, 0
    for part in sets_of(study):
        keys = keys_of(study, part)
        own = samples["key"][start : start + len(keys)]
        if not np.array_equal(own, keys):
            if start == 0 or len(own):
                msg = f"{path}: its images are not those of {study.path} (set {part!r}); {remedy}"
                raise InputError(msg)
            # A target set that was added after the file was written.
            break
        places[part] = np.arange(start, start + len(keys), dtype=np.uint64)
        start += len(keys)
    return places


def one_size(path: Path) -> tuple[int, int] | None:
    """Height and width of all images of a file that was checked, where they have one."""
    images = _samples(path, "")["image"]
    sizes = np.unique(np.stack([images["height"], images["width"]]), axis=1)
    return (int(sizes[0, 0]), int(sizes[1, 0])) if sizes.shape[1] == 1 else None


def _samples(path: Path, remedy: str) -> NDArray[Any]:
    """Size, address and key of each image."""
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            header = np.frombuffer(file.read(_HEADER.itemsize), dtype=_HEADER)[0]
            fields = np.frombuffer(file.read(2 * _FIELD.itemsize), dtype=_FIELD)
            whole = (
                header["version"] == _VERSION
                and header["fields"] == 2
                and fields["type"].tolist() == [_RGB, _INT]
                and int(header["table"]) + int(header["samples"]) * _ALLOCATION.itemsize == size
            )
            count = int(header["samples"]) if whole else 0
            samples = np.fromfile(file, dtype=_SAMPLE, count=count)
    except FileNotFoundError:
        msg = f"{path}: not there; {remedy}"
        raise InputError(msg) from None
    except (OSError, ValueError, IndexError) as error:
        msg = f"{path}: cannot be read as a .beton file ({error}); {remedy}"
        raise InputError(msg) from None
    if not whole:
        msg = f"{path}: no file of a study's images, or it is cut; {remedy}"
        raise InputError(msg)
    return samples
