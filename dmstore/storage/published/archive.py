"""A published study in one ``.zip``: read where it lies, never unpacked, nothing in it trusted."""

from __future__ import annotations

import stat
import zipfile
import zlib
from pathlib import Path

from dmstore.core.zips import open_zip
from dmstore.errors import CorruptionError, FormatError, InputError, StudyNotFoundError
from dmstore.storage.published import index as indexes
from dmstore.storage.published.index import INDEX
from dmstore.storage.published.published import IndexedObjects

_LOCAL = b"PK\x03\x04"


class ZipObjects(IndexedObjects):
    """Objects of a published study in one archive.

    Parameters
    ----------
    path : path

    Raises
    ------
    StudyNotFoundError
        If there is no such file.
    InputError
        If it is no archive that 'dmstore publish' makes: a member is compressed, encrypted, a link,
        there twice, or has a name that no object of a study can have.
    """

    def __init__(self, path: str | Path) -> None:
        self.url = str(path)
        self._path = Path(path).absolute()
        self._starts: dict[str, int] = {}
        self.members = self._list()
        if INDEX not in self.members:
            msg = f"{self.url}: no {INDEX} at its root, so it is no published study; make one with 'dmstore publish'"
            raise StudyNotFoundError(msg)
        length = self.members[INDEX].file_size
        if length > indexes.LONGEST:
            raise self._bad(INDEX, f"has {length} bytes, more than an index can have")
        raw = self._whole(INDEX)
        self.index = indexes.load(raw, f"{self.url}/{INDEX}")
        for name, entry in self.index.entries.items():
            if name not in self.members or self.members[name].file_size != entry.size:
                msg = f"{self.url}: {name!r} is missing or has another length than the index says; fetch or publish the archive again"
                raise FormatError(msg)

    def _bad(self, name: str, why: str) -> InputError:
        return InputError(
            f"{self.url}: member {name[:100]!r} {why}; use an archive that 'dmstore publish' made"
        )

    def _list(self) -> dict[str, zipfile.ZipInfo]:
        try:
            with open_zip(self._path, stored=True) as archive:
                infos = archive.infolist()
                end = archive.start_dir
        except FileNotFoundError:
            msg = f"{self.url}: no such file"
            raise StudyNotFoundError(msg) from None
        except OSError as error:
            msg = f"{self.url}: cannot be read ({error.strerror or error})"
            raise InputError(msg) from None
        except Exception as error:  # noqa: BLE001 - a hostile archive can make the parser raise anything
            msg = f"{self.url}: no whole zip archive ({' '.join(str(error).split())[:150]}); use an archive that 'dmstore publish' made, or fetch it again"
            raise InputError(msg) from None
        members: dict[str, zipfile.ZipInfo] = {}
        for info in infos:
            name = info.orig_filename
            if info.is_dir() and info.file_size == 0 and indexes.is_safe(name.rstrip("/")):
                continue
            if not indexes.is_safe(name) or name != info.filename:
                raise self._bad(name, "has a name that no object of a study can have")
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in (0, stat.S_IFREG):
                raise self._bad(name, "is a link or a special file")
            if name in members:
                raise self._bad(name, "stands there twice")
            members[name] = info
        self._check_overlap(members, end)
        indexes.check_places(members, self.url)
        return members

    def _check_overlap(self, members: dict[str, zipfile.ZipInfo], end: int) -> None:
        """Members that share bytes would make an archive hold more than its size."""
        stop = 0
        for info in sorted(members.values(), key=lambda info: info.header_offset):
            if info.header_offset < stop:
                raise self._bad(info.filename, "overlaps another one")
            stop = info.header_offset + 30 + len(info.filename) + info.file_size
            if stop > end:
                raise self._bad(info.filename, "reaches beyond the end of its file")

    def _start(self, name: str) -> int:
        """Where the bytes of a member begin."""
        if name not in self._starts:
            info = self.members[name]
            with self._path.open("rb") as file:
                file.seek(info.header_offset)
                header = file.read(30)
                lengths = [int.from_bytes(header[at : at + 2], "little") for at in (26, 28)]
                if header[:4] != _LOCAL or file.read(lengths[0]) != name.encode():
                    raise self._bad(name, "is not where the archive's list says")
            self._starts[name] = info.header_offset + 30 + sum(lengths)
        return self._starts[name]

    def read(self, name: str, start: int, stop: int) -> bytes:
        """Bytes `start` to `stop` of an object."""
        size = self.members[name].file_size
        begin = self._start(name)
        with self._path.open("rb") as file:
            file.seek(begin + start)
            content = file.read(max(0, min(stop, size) - start))
        if len(content) != max(0, min(stop, size) - start):
            msg = f"{self.url}: {name!r} is cut short; fetch the archive again"
            raise CorruptionError(msg)
        return content

    def _whole(self, name: str) -> bytes:
        info = self.members[name]
        content = self.read(name, 0, info.file_size)
        if zlib.crc32(content) != info.CRC:
            msg = f"{self.url}: {name!r} does not match its checksum; fetch the archive again"
            raise CorruptionError(msg)
        return content

    def get(self, name: str) -> bytes:
        """See :meth:`Objects.get`."""
        return self._whole(name) if name == INDEX else super().get(name)
