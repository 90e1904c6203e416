"""Results on stdout, progress on stderr."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import click

from dmstore.errors import plain
from dmstore.study.display import counted as counted
from dmstore.study.display import size as size


def emit(
    result: Mapping[str, Any] | Sequence[Mapping[str, Any]], lines: list[str], *, as_json: bool
) -> None:
    """Print a result: as lines for people, or as one JSON value."""
    if as_json:
        click.echo(json.dumps(_clean(result), allow_nan=False))
    else:
        for line in lines:
            click.echo("\n".join(map(plain, line.split("\n"))))


def _clean(value: Any) -> Any:
    """JSON has no NaN: null stands for it."""
    if isinstance(value, Mapping):
        return {str(key): _clean(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def span(first: int, count: int) -> str:
    """So many runs, by their ids."""
    return f"run {first}" if count == 1 else f"runs {first} to {first + count - 1}"


class Progress:
    """One moving line on a terminal; elsewhere a plain line every tenth or minute.

    With a `delay` nothing is shown of what takes no longer than so many seconds. A `share` is shown where
    steps are not worth counting.
    """

    def __init__(
        self, what: str, *, quiet: bool = False, delay: float = 0.0, share: bool = False
    ) -> None:
        self._delay = delay
        self._share = share
        self._what = what
        self._quiet = quiet
        self._terminal = sys.stderr.isatty()
        self._started = time.monotonic()
        self._first: int | None = None
        self._last = (-1, 0.0)
        self._open = False

    def __call__(self, what: str, done: int, total: int) -> None:
        """Report `done` of `total`; see :data:`dmstore.core.progress.Progress`."""
        if self._quiet or not total:
            return
        now = time.monotonic()
        if self._first is None:
            self._first = done
        if now - self._started < self._delay:
            return
        tenth, when = self._last
        if self._terminal:
            if now - when < 0.1 and done < total:
                return
            width = 30
            filled = width * done // total
            click.echo(
                f"\r{self._what} [{'#' * filled}{'.' * (width - filled)}] {self._said(done, total)}{self._left(done, total)}  ",
                err=True,
                nl=False,
            )
            self._open = True
            if done >= total:
                self.close()
        elif done * 10 // total != tenth or now - when >= 60:
            click.echo(
                f"{self._what}: {self._said(done, total)}{self._left(done, total)}", err=True
            )
        self._last = (done * 10 // total, now)

    def _said(self, done: int, total: int) -> str:
        return f"{100 * done // total} %" if self._share else f"{done}/{total}"

    def _left(self, done: int, total: int) -> str:
        fresh = done - (self._first or 0)
        if fresh <= 0 or done >= total:
            return ""
        seconds = (time.monotonic() - self._started) / fresh * (total - done)
        return f", {seconds:.0f} s left" if seconds < 120 else f", {seconds / 60:.0f} min left"

    def close(self) -> None:
        """End the moving line."""
        if self._open:
            click.echo("", err=True)
            self._open = False
