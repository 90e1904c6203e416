"""What a file system or bucket guarantees, found out by trying, and said in words."""

from __future__ import annotations

import os
import re
import stat
import statistics
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from dmstore.errors import DmstoreError, InputError
from dmstore.storage.location import open_location
from dmstore.storage.objects import posix, probe
from dmstore.storage.objects.local import LocalObjects
from dmstore.storage.objects.objects import Objects
from dmstore.storage.objects.permissions import differing, permissions_of, user_name
from dmstore.storage.objects.remote import RemoteObjects
from dmstore.study.display import size

RACES = 20
_PATIENCE = 90.0
_NETWORK = ("nfs", "nfs4", "lustre", "cifs", "smb3", "ceph", "gpfs", "beegfs", "glusterfs", "9p")


@dataclass(frozen=True)
class Finding:
    """One thing that was tried.

    Attributes
    ----------
    name : str
    level : {"ok", "note", "wrong"}
        Whether it is as it should be, worth knowing, or a guarantee that does not hold.
    text : str
    needed_by : tuple of str
        What is unsafe without it: ``ingest``, ``compact``.
    """

    name: str
    level: str
    text: str
    needed_by: tuple[str, ...] = ()


@dataclass(frozen=True)
class Diagnosis:
    """All findings, and what is safe there."""

    path: str
    findings: tuple[Finding, ...]

    def safe(self, what: str) -> bool:
        """Whether ``ingest`` or ``compact`` may be trusted there."""
        return not any(f.level == "wrong" and what in f.needed_by for f in self.findings)


def diagnose(path: str | Path) -> Diagnosis:
    """Try a place out. Everything that is written there is deleted again.

    Parameters
    ----------
    path : path or str
        A directory that exists, or a URL of a bucket (with or without a prefix).

    Raises
    ------
    InputError
        If the directory does not exist, or the place is read-only by nature.
    """
    objects = open_location(path)
    if isinstance(objects, LocalObjects) and not objects.root.is_dir():
        msg = f"{path}: no such directory; name one on the file system that you want to try"
        raise InputError(msg)
    if str(path).startswith(("http://", "https://")):
        msg = f"{path}: a web server is read-only; name a bucket or a directory"
        raise InputError(msg)
    area = f"dmstore-doctor-{uuid.uuid4().hex[:12]}"
    tries: list[Callable[[Objects, str], Iterator[Finding]]] = [_write_and_read]
    if isinstance(objects, LocalObjects):
        tries += [_file_system, _links, _rename, _sharing]
    tries += [_exclusive, _listing, _clock, _deletion]
    findings: list[Finding] = []
    try:
        for attempt in tries:
            try:
                findings += attempt(objects, area)
            except (DmstoreError, OSError) as error:
                text = f"failed: {error}"
                name = attempt.__name__.strip("_").replace("_", " ")
                findings.append(Finding(name, "wrong", text, ("ingest", "compact")))
                break
    finally:
        try:
            objects.delete(area)
        except (DmstoreError, OSError) as error:
            findings.append(Finding("cleaning up", "note", f"{area} could not be deleted: {error}"))
    return Diagnosis(objects.url, tuple(findings))


def _write_and_read(objects: Objects, area: str) -> Iterator[Finding]:
    content = os.urandom(1 << 20)
    times = []
    for number in range(5):
        start = time.perf_counter()
        objects.put_if_absent(f"{area}/content/{number}", content)
        times.append(time.perf_counter() - start)
    both = ("ingest", "compact")
    if objects.get(f"{area}/content/0") != content:
        yield Finding("write and read", "wrong", "what is read is not what was written", both)
        return
    yield Finding(
        "write and read",
        "ok",
        f"1 MB is stored durably in {1000 * statistics.median(times):.1f} ms (median of 5)",
    )
    if objects.tail(f"{area}/content/0", 100) != content[-100:]:
        yield Finding("reading a part", "wrong", "the end of an object is not its end", both)
    elif isinstance(objects, RemoteObjects) and not objects.serves_ranges(f"{area}/content/0"):
        text = "byte ranges are not served: whole objects are read, and columns of a base cannot be"
        yield Finding("reading a part", "wrong", text, ("compact",))
    else:
        yield Finding("reading a part", "ok", "byte ranges are served")


def _file_system(objects: Objects, area: str) -> Iterator[Finding]:
    assert isinstance(objects, LocalObjects)
    kind = _kind(objects.root)
    free = os.statvfs(objects.root)
    room = f"{size(free.f_bavail * free.f_frsize)} free"
    if kind in _NETWORK:
        text = (
            f"{kind}, {room}: other hosts may see new files late (NFS: up to a minute); vacuum with "
            f"the default grace of days, and run 'dmstore torture' from several hosts"
        )
        yield Finding("file system", "note", text)
    elif kind in ("tmpfs", "ramfs", "overlay"):
        text = f"{kind}, {room}: it may not outlive this machine or container"
        yield Finding("file system", "note", text)
    else:
        yield Finding("file system", "ok", f"{kind}, {room}")
    path = objects.path(f"{area}/sync")
    times = []
    for number in range(5):
        handle = os.open(f"{path}{number}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.write(handle, os.urandom(1 << 16))
            start = time.perf_counter()
            os.fsync(handle)
            times.append(time.perf_counter() - start)
        finally:
            os.close(handle)
    posix.sync_path(path.parent)
    median = 1000 * statistics.median(times)
    if median < 0.02:
        text = f"returns in {median:.3f} ms, faster than any disk: it may do nothing, so that a power cut loses runs"
        yield Finding("fsync", "note", text)
    else:
        yield Finding("fsync", "ok", f"files and directories, {median:.1f} ms a file")


def _kind(path: Path) -> str:
    """Type of the file system that a path is on, by the longest mount point above it."""
    best = ("", "unknown")
    try:
        lines = Path("/proc/mounts").read_text("utf-8", "surrogateescape").split("\n")
    except OSError:
        return best[1]
    for line in filter(None, lines):
        # Spaces and line ends of a path are escaped in octal, other white space is not.
        escaped, kind = line.split(" ")[1:3]
        point = re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), escaped)
        if path.is_relative_to(point) and len(point) >= len(best[0]):
            best = (point, kind)
    return best[1]


def _links(objects: Objects, area: str) -> Iterator[Finding]:
    assert isinstance(objects, LocalObjects)
    one, two = objects.path(f"{area}/link-1"), objects.path(f"{area}/link-2")
    one.write_bytes(b"1")
    try:
        os.link(one, two)
    except OSError as error:
        text = f"none ({error.strerror}): nothing can be committed here; use another file system or a bucket"
        yield Finding("hard links", "wrong", text, ("ingest", "compact"))
        return
    if one.stat().st_nlink == 2 and one.samefile(two):
        yield Finding("hard links", "ok", "made, counted and recognised")
    else:
        text = "made, but their count is wrong: a lost reply would look like a lost race"
        yield Finding("hard links", "wrong", text, ("compact",))


def _rename(objects: Objects, area: str) -> Iterator[Finding]:
    assert isinstance(objects, LocalObjects)
    one, two = objects.path(f"{area}/directory-1"), objects.path(f"{area}/directory-2")
    for path in (one, two):
        path.mkdir()
        (path / "content").write_bytes(b"1")
    try:
        one.rename(two)
    except OSError:
        yield Finding("rename", "ok", "a directory does not replace one that holds something")
    else:
        text = "a directory replaces another that is not empty: make studies from one host only"
        yield Finding("rename", "note", text)


def _sharing(objects: Objects, area: str) -> Iterator[Finding]:
    """Whether the group of a directory may use all that is in it."""
    assert isinstance(objects, LocalObjects)
    like = permissions_of(objects.root)
    shut = [path for path in differing(objects.root) if area not in path.parts]
    if not like.directory & stat.S_IWGRP:
        text = f"{like}: one person writes here ('chmod -R g+rwX' and 'chmod g+s' share it with a group)"
        yield Finding("sharing", "ok", text)
    elif shut:
        text = (
            f"{like}; but {len(shut)} files and folders are not open to this group, the first {shut[0]}: "
            f"others stop there, so have its owner ({user_name(shut[0].lstat().st_uid)}) run 'chmod -R g+rwX {objects.root}'"
        )
        yield Finding("sharing", "wrong", text, ("ingest", "compact"))
    else:
        yield Finding("sharing", "ok", f"{like}: all that is here is open to this group")


def _exclusive(objects: Objects, area: str) -> Iterator[Finding]:
    needed = ("compact",)
    name = f"{area}/once"
    if not objects.put_if_absent(name, b"1") or objects.put_if_absent(name, b"2"):
        text = "a name that exists is overwritten: two commits could both succeed, and one be lost"
        yield Finding("create if absent", "wrong", text, needed)
        return
    winners = [probe.race(objects) for _ in range(RACES)]
    if max(winners) > 1 or min(winners) < 1:
        text = f"of {probe.RACERS} who created one name at once, up to {max(winners)} succeeded ({RACES} races)"
        yield Finding("create if absent", "wrong", text, needed)
    else:
        text = f"exactly one of {probe.RACERS} succeeded in each of {RACES} races"
        yield Finding("create if absent", "ok", text)


def _listing(objects: Objects, area: str) -> Iterator[Finding]:
    delays = []
    for number in range(3):
        name = f"{area}/listed/{number}"
        objects.put_if_absent(name, b"1")
        start = time.monotonic()
        while name not in {info.name for info in objects.entries(f"{area}/listed/")}:
            if time.monotonic() - start > _PATIENCE:
                text = f"a new object is not listed after {_PATIENCE:.0f} s: runs would stay unseen"
                yield Finding("listing", "wrong", text, ("ingest", "compact"))
                return
            time.sleep(0.05)
        delays.append(time.monotonic() - start)
    if max(delays) < 1:
        yield Finding(
            "listing", "ok", f"new objects are listed within {max(delays):.2f} s on this host"
        )
    else:
        text = f"new objects are listed after {max(delays):.0f} s: readers are that late, nothing is lost"
        yield Finding("listing", "note", text)


def _clock(objects: Objects, area: str) -> Iterator[Finding]:
    start = time.time()
    theirs = objects.now()
    ours = (start + time.time()) / 2
    skew = theirs - ours
    if abs(skew) > 5:
        text = (
            f"the storage's clock is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} this host's; "
            f"nothing depends on it, but times of runs will look odd"
        )
        yield Finding("clock", "note", text)
    else:
        yield Finding("clock", "ok", f"within {max(abs(skew), 0.1):.1f} s of this host's")


def _deletion(objects: Objects, area: str) -> Iterator[Finding]:
    objects.delete(f"{area}/content")
    if objects.entries(f"{area}/content/"):
        text = "deleted objects are still listed: vacuum frees nothing for now"
        yield Finding("deletion", "note", text)
    else:
        yield Finding("deletion", "ok", "deleted objects are gone from listings")
