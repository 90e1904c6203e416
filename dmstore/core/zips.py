"""Zip archives from anywhere, opened without trusting their list of members."""

from __future__ import annotations

import contextlib
import io
import os
import zipfile
from pathlib import Path
from typing import BinaryIO

# The end record, its longest comment, and the pointer of a large archive before it.
_TAIL = 22 + 65535 + 20
_END, _LOCATOR, _END64 = b"PK\x05\x06", b"PK\x06\x07", b"PK\x06\x06"
# The longest list of members: half a million of them.
LONGEST_LIST = 1 << 26
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


def open_zip(
    path: str | Path | io.BytesIO, *, stored: bool = False, longest: int = LONGEST_LIST
) -> zipfile.ZipFile:
    """Open an archive whose list of members is bounded, and in which no bytes are counted twice.

    Parameters
    ----------
    path : path or file in memory
    stored : bool
        Refuse compressed members, so that nothing grows when it is read.
    longest : int
        Bytes of the list of members, which a parser takes into memory whole.

    Raises
    ------
    OSError
        If the file cannot be read.
    zipfile.BadZipFile
        If it is no such archive: a member is encrypted, packed in a rare way or there twice, or members
        claim more bytes than the file has.
    """
    with (
        contextlib.nullcontext(path)
        if isinstance(path, io.BytesIO)
        else Path(path).open("rb") as file
    ):
        size = file.seek(0, os.SEEK_END)
        if (length := list_length(file, size)) > min(size, longest):
            msg = f"it says that its list of members has {length} bytes"
            raise zipfile.BadZipFile(msg)
    archive = zipfile.ZipFile(path)
    try:
        _check(archive, size, (zipfile.ZIP_STORED,) if stored else _METHODS)
    except BaseException:
        archive.close()
        raise
    return archive


def list_length(file: BinaryIO, size: int) -> int:
    """Bytes of the list of members by the end record that :mod:`zipfile` will find; 0 without one."""
    start = max(0, size - _TAIL)
    file.seek(start)
    tail = file.read(_TAIL)
    # A record without a comment is looked for first.
    plain = tail[-22:-18] == _END and tail[-2:] == b"\0\0"
    end = len(tail) - 22 if plain else tail.rfind(_END)
    if end < 0:
        return 0
    length = int.from_bytes(tail[end + 12 : end + 16], "little")
    if end >= 20 and tail[end - 20 : end - 16] == _LOCATOR:
        # Either where the pointer says or just before it.
        for place in (int.from_bytes(tail[end - 12 : end - 4], "little"), start + end - 76):
            file.seek(max(0, min(place, size)))
            record = file.read(56)
            if record[:4] == _END64:
                length = max(length, int.from_bytes(record[40:48], "little"))
    return length


def _check(archive: zipfile.ZipFile, size: int, methods: tuple[int, ...]) -> None:
    seen, claimed = set(), 0
    for info in archive.infolist():
        name = info.filename
        if name in seen:
            msg = f"member {name[:80]!a} stands there twice"
            raise zipfile.BadZipFile(msg)
        if info.flag_bits & 1 or info.compress_type not in methods:
            how = "encrypted" if info.flag_bits & 1 else "compressed"
            msg = f"member {name[:80]!a} is {how} in a way that is not taken"
            raise zipfile.BadZipFile(msg)
        if info.compress_type == zipfile.ZIP_STORED and info.compress_size != info.file_size:
            msg = f"member {name[:80]!a} says two lengths"
            raise zipfile.BadZipFile(msg)
        seen.add(name)
        claimed += info.compress_size
    if claimed > size:
        msg = f"its members claim {claimed} bytes, and the file has {size}"
        raise zipfile.BadZipFile(msg)
