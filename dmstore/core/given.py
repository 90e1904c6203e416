"""What callers give: paths as people write them, seeds, numbers of threads."""

from __future__ import annotations

import operator
import os
from pathlib import Path
from typing import Any

from dmstore.core.threads import cores
from dmstore.errors import InputError, plain

# Threads that may be asked for on fewer cores.
_PLENTY = 64


def local_path(path: str | os.PathLike[str]) -> Path:
    """A path on this machine, ``~`` for the home of its user, as shells have it.

    Raises
    ------
    InputError
        If it is no path, or holds a NUL.
    """
    try:
        text = os.fsdecode(path)
    except TypeError:
        msg = f"{plain(repr(path))[:100]} is no path; give a text or a pathlib.Path"
        raise InputError(msg) from None
    if "\0" in text:
        msg = f"'{plain(text)[:100]}': no path holds a NUL; give another"
        raise InputError(msg)
    return Path(text).expanduser() if text.startswith("~/") or text == "~" else Path(text)


def seed_of(random_state: Any) -> int:
    """The seed of a generator of random numbers.

    Raises
    ------
    InputError
        If it is no whole number from 0.
    """
    try:
        seed = operator.index(random_state)
    except TypeError:
        seed = -1
    if seed < 0:
        msg = f"random_state {random_state!r}: give a whole number from 0"
        raise InputError(msg)
    return seed


def threads_of(threads: Any) -> int:
    """Threads to use: so many, or all cores where nothing is said; far more than there are cores are no help and take minutes to start.

    Raises
    ------
    InputError
        If it is no whole number from 1.
    """
    if threads is None:
        return cores()
    try:
        count = operator.index(threads)
    except TypeError:
        count = 0
    if count < 1:
        msg = f"threads {threads!r}: give a whole number from 1, or None for all cores"
        raise InputError(msg)
    return min(count, max(cores(), _PLENTY))
