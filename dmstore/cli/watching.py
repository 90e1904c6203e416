"""``dmstore status --watch``: how training goes, again and again."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

import click

from dmstore.cli import output
from dmstore.errors import plain
from dmstore.study.study import Study
from dmstore.upkeep.activity import activity

_WIDEST = 160


def watch(study: Study, algorithm: str | None, every: float, *, as_json: bool) -> None:
    """Print how training goes until nothing is pending, or until Ctrl-C.

    Parameters
    ----------
    study : Study
    algorithm : str, optional
        All of them by default.
    every : float
        Seconds between two looks.
    as_json : bool
        One object a look instead of lines.
    """
    # On a terminal each look takes the place of the one before.
    terminal = sys.stdout.isatty() and not as_json
    shown = 0
    try:
        while True:
            names = [algorithm] if algorithm else study.algorithms
            looks = {name: activity(study, name) for name in names}
            if as_json:
                output.emit(
                    {"time": int(time.time() * 1000), "algorithms": looks}, [], as_json=True
                )
            else:
                lines = [line for name, look in looks.items() for line in said(name, look)]
                if shown:
                    click.echo(f"\x1b[{shown}A\x1b[J", nl=False)
                width = shutil.get_terminal_size().columns - 1 if terminal else None
                for line in lines or ["no algorithms yet; add one with 'dmstore add'"]:
                    click.echo(plain(line)[:width])
                shown = len(lines) if terminal else 0
            sys.stdout.flush()
            if not any(look["pending"] for look in looks.values()):
                return
            time.sleep(every)
    except KeyboardInterrupt:
        return


def said(name: str, look: Mapping[str, Any]) -> Iterator[str]:
    """What a look at an algorithm shows.

    Parameters
    ----------
    name : str
    look : mapping
        From :func:`dmstore.upkeep.activity.activity`.

    Yields
    ------
    str
    """
    of = f" of {look['planned']}" if look["planned"] is not None else ""
    parts = [
        f"{time.strftime('%H:%M:%S')} {name}: {output.counted(look['stored'], 'run')} stored{of}"
    ]
    if look["pending"]:
        parts.append(f"{look['pending']} pending")
    if look["failed"]:
        parts.append(f"{look['failed']} failed")
    if look["rate"]:
        parts.append(f"{look['rate']:.0f} an hour")
    if look["pending"]:
        left = look["seconds_left"]
        came = any(seen["runs"] for seen in look["hosts"].values())
        unknown = "too few came in to say how long" if came else "none came in lately"
        parts.append(f"{_duration(left)} left" if left is not None else unknown)
    yield ", ".join(parts)
    for host, seen in look["hosts"].items():
        words = []
        if seen["runs"]:
            ago = max(0.0, time.time() - seen["time"] / 1000)
            words.append(
                f"{output.counted(seen['runs'], 'run')} lately, the last {_duration(ago)} ago"
            )
        if seen["claims"]:
            words.append(f"{output.counted(seen['claims'], 'worker')} at work")
        yield f"  {host}: {', '.join(words)}"
    if bad := look["last_failure"]:
        yield f"  last failure: run {bad['run']} on {bad['host']}: {bad['error'][:_WIDEST]}"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172800 else f"{seconds / 86400:.1f} d"
