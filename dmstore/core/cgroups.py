"""What the control groups of Linux leave to this process: a job's of SLURM, a container's, a user's slice.

A process is in a group that ``/proc/self/cgroup`` names, and every group above it limits it too. In a
container the name may be the host's, with the group itself mounted as the root: so each group that is
there counts, from the root down to its own.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

ROOT = Path("/")


def free_memory(root: Path = ROOT) -> int | None:
    """Bytes that the tightest group still gives, where one has a limit; files that it may drop count as free.

    Parameters
    ----------
    root : path
        Where ``/proc`` and ``/sys`` are.

    Returns
    -------
    int or None
        None without a limit.
    """
    free: list[int] = []
    for folder in _groups(root, "memory"):
        for limit, used, dropped in (
            ("memory.max", "memory.current", "inactive_file"),
            ("memory.high", "memory.current", "inactive_file"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ):
            most, taken = _number(folder / limit), _number(folder / used)
            if most is not None and taken is not None:
                line = re.search(rf"^{dropped} (\d+)$", _text(folder / "memory.stat"), re.MULTILINE)
                free.append(max(0, most - max(0, taken - (int(line[1]) if line else 0))))
    return min(free, default=None)


def quota(root: Path = ROOT) -> int | None:
    """Cores that the tightest quota of time is worth, rounded up.

    Parameters
    ----------
    root : path
        Where ``/proc`` and ``/sys`` are.

    Returns
    -------
    int or None
        At least 1; None without a quota.
    """
    worth: list[int] = []
    for folder in _groups(root, "cpu"):
        pairs = [_text(folder / "cpu.max").split()]
        pairs.append([_text(folder / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period")])
        for pair in pairs:
            # "max" or -1: no quota.
            if len(pair) == 2 and all(map(str.isdecimal, pair)) and int(pair[1]):
                worth.append(max(1, math.ceil(int(pair[0]) / int(pair[1]))))
    return min(worth, default=None)


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """Folders of every group that this process is in and that has to do with the controller."""
    mounts = root / "sys/fs/cgroup"
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        if names and controller not in names.split(","):
            continue
        parts = [part for part in PurePosixPath(path).parts if part not in ("/", "..")]
        # One hierarchy for all; or one a controller, under its names, with a link for each.
        for mount in (mounts, mounts / "unified") if not names else {names, controller}:
            for depth in range(len(parts) + 1):
                yield mounts / mount / Path(*parts[:depth])


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.isdecimal() else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
