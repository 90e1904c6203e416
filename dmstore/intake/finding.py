"""Which sources there are at the paths of an ingest, and in which order they are taken."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path

from dmstore import readers
from dmstore.errors import InputError
from dmstore.readers.source import FAULTS, Request, Source


def find_sources(
    paths: Iterable[str | Path],
    format: str,
    request: Request,
    say: Callable[[str], None] | None = None,
) -> tuple[deque[Source], list[str], list[str]]:
    """Open everything that is named.

    Parameters
    ----------
    paths : iterable of path
    format : str
        One of :data:`dmstore.readers.FORMATS`, or ``auto``.
    request : Request
        What to take from sources.
    say : callable, optional
        Called with a line on each source that was recognised.

    Returns
    -------
    sources : deque of Source
        Those that are taken whole come first, so that they are put together before others are stored.
    errors : list of str
        A line on each path that cannot be opened.
    notes : list of str
        A line on each kind of thing in a directory that is not taken.

    Raises
    ------
    InputError
        If there is none at all, or none in a directory; if `paths` is one path and no list, whose
        letters would be taken for paths.
    """
    if isinstance(paths, str | bytes | Path):
        msg = f"sources {str(paths)!r}: expected a list of paths; write [{str(paths)!r}]"
        raise InputError(msg)
    queue: list[Source] = []
    errors: list[str] = []
    notes: list[str] = []
    for path in paths:
        try:
            kind = readers.sniff(path) if format == "auto" else format
            opened, left_out = readers.open_sources(path, kind, request)
        except FAULTS as error:
            errors.append(str(error))
            continue
        if not opened:
            msg = f"{path}: no .{kind} file in this directory"
            if format == "auto":
                msg += ", and nothing else that is known; say what it is with --format"
            raise InputError(msg)
        for source in opened:
            if say and source.title:
                say(f"{source.path}: {source.format}: {source.title}")
        queue += opened
        notes += left_out
    if not queue and not errors:
        msg = "no files to ingest; name .npz files, directories or other sources"
        raise InputError(msg)
    return deque(sorted(queue, key=lambda source: not source.whole)), errors, notes
