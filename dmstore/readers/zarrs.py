"""Arrays in a zarr group of somebody else (format 2 or 3), read by rows.

Its metadata is checked before zarr sees it: some codecs of format 2 unpickle what they decode.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmstore.core import strictjson
from dmstore.errors import InputError
from dmstore.readers.files import LARGEST_ROW, check_inside, stretches
from dmstore.storage.table.rows import MOST_RUNS

_CODECS = {
    *("bytes", "endian", "transpose", "blosc", "zstd", "gzip", "zlib", "crc32c", "crc32"),
    *("sharding_indexed", "lz4", "lzma", "bz2", "shuffle", "delta", "bitround", "packbits"),
    *("fixedscaleoffset", "quantize", "astype", "adler32", "fletcher32"),
}
_LONGEST = 1 << 20


@dataclass(frozen=True)
class _ZarrArray:
    path: Path
    array: Any
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    missing: tuple[float, ...] = ()

    def rows(self, index: NDArray[np.int64]) -> NDArray[Any]:
        """The rows of these numbers, which ascend."""
        values = np.empty((len(index), *self.shape[1:]), dtype=self.dtype)
        try:
            for low, high in stretches(index):
                first = int(index[low])
                values[low:high] = self.array[first : first + high - low]
        except Exception as error:  # noqa: BLE001 - codecs raise anything on damaged chunks
            short = " ".join(f"{type(error).__name__}: {error}".split())[:120]
            msg = f"{self.path}: a chunk cannot be read ({short}); the array is damaged"
            raise InputError(msg) from None
        if self.missing and np.isin(values, self.missing).any():
            msg = f"{self.path}: holds {self.missing[0]:g}, which its attributes say stands for a missing value; leave these runs out"
            raise InputError(msg)
        return values


def is_group(path: Path) -> bool:
    """Whether a path looks like a zarr group."""
    return (path / "zarr.json").is_file() or (path / ".zgroup").is_file()


def open_zarr(path: Path) -> dict[str, Any]:
    """All arrays of numbers and bools directly below a group.

    Raises
    ------
    InputError
        If an array's metadata is damaged, absurd, or names a codec that is not taken.
    """
    arrays = {}
    for child in sorted(path.iterdir()):
        if not child.is_dir():
            continue
        document = next(
            (child / n for n in ("zarr.json", ".zarray") if (child / n).is_file()), None
        )
        if document is None:
            continue
        check_inside(document, path)
        metadata = _metadata(document)
        if document.name == "zarr.json" and metadata.get("node_type") != "array":
            continue
        if _check(child, metadata):
            arrays[child.name] = _open(child, _missing(child, metadata))
    return arrays


def _metadata(document: Path) -> dict[str, Any]:
    try:
        with document.open("rb") as file:
            raw = file.read(_LONGEST + 1)
        metadata = strictjson.parse(raw, _LONGEST)
    except (OSError, ValueError):
        metadata = None
    if not isinstance(metadata, dict):
        msg = f"{document}: is no zarr metadata; the array is damaged"
        raise InputError(msg)
    return metadata


def _check(path: Path, metadata: dict[str, Any]) -> bool:
    """Whether an array holds numbers or bools; refuses foreign codecs and absurd sizes."""
    second = metadata.get("zarr_format") == 2
    dtype = metadata.get("dtype" if second else "data_type")
    try:
        kind = np.dtype(str(dtype)).kind
    except TypeError:
        return False
    if kind not in "biuf" or not isinstance(dtype, str):
        return False
    names = list(_codec_names(metadata, second=second))
    unknown = [name for name in names if name not in _CODECS]
    if unknown:
        msg = f"{path}: is encoded with {unknown[0]!r}, which is not taken; write it with zarr's own codecs"
        raise InputError(msg)
    return True


def _missing(path: Path, metadata: dict[str, Any]) -> tuple[float, ...]:
    """Numbers that stand for missing ones by the conventions that netCDF and xarray share; NaN apart.

    Raises
    ------
    InputError
        If the numbers are packed by these conventions: what lies there is not what is meant.
    """
    attributes = metadata.get("attributes") or {}
    if (path / ".zattrs").is_file():
        attributes = _metadata(path / ".zattrs")
    packed = [name for name in ("scale_factor", "add_offset") if name in attributes]
    if packed:
        msg = f"{path}: its numbers are packed (attribute {packed[0]!r}); write it again as the floats that are meant"
        raise InputError(msg)
    stated = [attributes.get(name) for name in ("_FillValue", "missing_value")]
    return tuple(value for value in stated if isinstance(value, int | float))


def _codec_names(metadata: dict[str, Any], *, second: bool) -> Any:
    """Names of all codecs, without the prefix of numcodecs."""
    if second:
        entries = [*(metadata.get("filters") or ()), metadata.get("compressor")]
        yield from (str(e.get("id") if isinstance(e, dict) else e) for e in entries if e)
        return
    waiting = list(metadata.get("codecs") or ())
    while waiting:
        entry = waiting.pop()
        name = entry.get("name") if isinstance(entry, dict) else entry
        yield str(name).removeprefix("numcodecs.")
        inner = entry.get("configuration") if isinstance(entry, dict) else None
        if isinstance(inner, dict):
            waiting += [*(inner.get("codecs") or ()), *(inner.get("index_codecs") or ())]


def _open(path: Path, missing: tuple[float, ...]) -> _ZarrArray:
    import zarr

    try:
        array: Any = zarr.open_array(path, mode="r")
        shape, dtype = tuple(array.shape), np.dtype(array.dtype)
        chunk = math.prod(array.chunks) * dtype.itemsize
    except Exception as error:  # noqa: BLE001 - a hostile document can make zarr raise anything
        short = " ".join(f"{type(error).__name__}: {error}".split())[:120]
        msg = f"{path}: is no zarr array ({short}); it is damaged"
        raise InputError(msg) from None
    width = math.prod(shape[1:]) * dtype.itemsize
    if shape and (shape[0] > MOST_RUNS or width > LARGEST_ROW or chunk > LARGEST_ROW):
        msg = f"{path}: has shape {shape} in chunks of {chunk} bytes; rows and chunks of at most {LARGEST_ROW} bytes are taken"
        raise InputError(msg)
    return _ZarrArray(path, array, shape, dtype, missing)
