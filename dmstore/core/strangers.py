"""What a file is when it is not what it is called: said instead of "no zip" or "no array"."""

from __future__ import annotations

from pathlib import Path

import numpy as np

# First bytes, and what a file that begins so is, with the remedy.
_STARTS = (
    (
        b"version https://git-lfs",
        "is a pointer of Git LFS and not the file itself; run 'git lfs pull'",
    ),
    (
        b"/annex/objects/",
        "is a pointer of git-annex and not the file itself; run 'git annex get'",
    ),
    (b"\0\5\x16\7", "is macOS's note beside a file and not the file itself; leave it out"),
    (b"\x89HDF\r\n", "is an HDF5 file; save its arrays with numpy.savez"),
    (b"\x1f\x8b", "is compressed with gzip; unpack it first"),
    (b"<!doctype html", "is a web page and no file of arrays; download the file itself"),
    (b"<html", "is a web page and no file of arrays; download the file itself"),
)
_LONGEST = 32


def stranger(path: Path) -> str | None:
    """What a file that cannot be read as it is called is instead; None where that is not known.

    Parameters
    ----------
    path : Path

    Returns
    -------
    str or None
        What it is and the remedy, such as ``is a pointer of Git LFS …``.
    """
    try:
        with path.open("rb") as file:
            start = file.read(_LONGEST)
    except OSError:
        return None
    for bytes_of_it, what in _STARTS:
        if start.lower().startswith(bytes_of_it.lower()):
            return what
    return None


def unusable(dtype: np.dtype[np.generic]) -> str:
    """Why arrays of a dtype are not taken, and the remedy.

    Parameters
    ----------
    dtype : numpy.dtype
    """
    if dtype.hasobject:
        return "which would need unpickling, and nothing is unpickled; store numbers, bools or fixed-width text"
    return {
        "c": "and complex numbers are not taken; store real and imaginary part as two arrays",
        "M": "and dates are not taken; store milliseconds since 1970, values.astype('datetime64[ms]').astype('int64')",
        "m": "and time spans are not taken; store them as numbers",
        "V": "which NumPy has no numbers for (bfloat16 and float8 are saved so); store them as float32",
    }.get(dtype.kind, "and that is not taken; store numbers, bools or fixed-width text")
