"""How much memory there is, and large arrays that may lie on scratch instead."""

from __future__ import annotations

import errno
import os
import re
import resource
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmstore.core.cgroups import ROOT, free_memory
from dmstore.core.given import local_path
from dmstore.errors import InputError, StorageError, plain

# Share of what is free that a process takes by default.
_SHARE = 0.8
# More than any machine has.
_MOST = 10**18


def parse(size: str | float) -> int:
    """Bytes of a size such as ``8GB`` (8 * 10**9), ``8GiB`` (8 * 2**30) or 8589934592, as Dask reads them.

    Raises
    ------
    InputError
        If it is none, not positive, or absurdly large.
    """
    from dask.utils import parse_bytes

    text = str(size)
    try:
        # Dask takes a unit without a number for one of it.
        octets = parse_bytes(text) if any(map(str.isdigit, text)) else 0
    except (ValueError, OverflowError):
        octets = 0
    if not 1 <= octets < _MOST:
        msg = f"{size!r} is no size of memory; give one such as 8GB"
        raise InputError(msg)
    return octets


def available(root: Path = ROOT) -> int:
    """Bytes that this process may use: most of what is free, within the limits of its job or container."""
    free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        meminfo = (root / "proc/meminfo").read_text(encoding="ascii")
        line = re.search(r"MemAvailable:\s+(\d+) kB", meminfo)
        free = int(line[1]) * 1024 if line else free
    except OSError:
        pass
    limit = free_memory(root)
    return int(_SHARE * (free if limit is None else min(free, limit)))


def peak() -> int:
    """Bytes that this process has had at most, since it began."""
    try:
        # What getrusage says is not less than what the process that started this one had.
        line = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text("ascii"))
    except OSError:
        line = None
    unit = 1 if sys.platform == "darwin" else 1024
    return (
        int(line[1]) * 1024 if line else unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    )


def scratch_array(folder: str | Path | None, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    """Zeros in a file of `folder` that has no name, so that nothing is left of it.

    Raises
    ------
    StorageError
        If there is no room for it, or nothing can be written there.
    """
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    place = Path(folder or tempfile.gettempdir())
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            # Taken now: a full disk would end the process when a page is written.
            os.posix_fallocate(file.fileno(), 0, size)
            return np.memmap(file, dtype=dtype, mode="r+", shape=shape)
    except OSError as error:
        msg = f"{refused(place, size, error)}; name another directory with --scratch, or give more --memory"
        raise StorageError(msg) from error


def check_scratch(folder: str | os.PathLike[str] | None) -> None:
    """Say early that a directory for scratch is not there, before hours of work that may need it.

    Raises
    ------
    InputError
        If it is none.
    """
    if folder is not None and not local_path(folder).is_dir():
        msg = f"scratch {plain(os.fsdecode(folder))}: no such directory; make it first, on a fast disk"
        raise InputError(msg)


def refused(place: str | Path, size: int, error: OSError) -> str:
    """Why a directory does not take so many bytes of scratch."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    what = f"no room for {size / 1e9:.1f} GB of scratch" if full else "cannot be written to"
    return f"{place}: {what} ({error.strerror or error})"
