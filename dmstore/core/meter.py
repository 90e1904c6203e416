"""How far something is, shown on stderr: a moving line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time

import click

from dmstore.core import waiting


class Meter:
    """One moving line on a terminal; elsewhere a plain line every tenth or minute.

    With a `delay` nothing is shown of what takes no longer than so many seconds. A `unit` names what is counted, such
    as ``runs``; without one the share that is done is shown. With `rate`, so many of them per second, minute or hour.
    """

    def __init__(
        self,
        what: str,
        *,
        quiet: bool = False,
        unit: str = "",
        delay: float = 0.0,
        rate: bool = False,
    ) -> None:
        self._delay = delay
        self._unit = unit
        self._rate = rate
        self._what = what
        self._quiet = quiet
        self._terminal = sys.stderr.isatty()
        self._started = time.monotonic()
        self._first: int | None = None
        self._last = (-1, 0.0)
        self._open = False
        self._wide = 0
        self._told: set[str] = set()
        self._now = (0, 0)

    def __call__(self, what: str, done: int, total: int) -> None:
        """Report `done` of `total`; see :data:`dmstore.core.progress.Progress`."""
        if self._quiet or not total:
            return
        now = time.monotonic()
        if self._first is None:
            self._first = done
            waiting.listen(self)
        self._now = (done, total)
        if now - self._started < self._delay:
            return
        tenth, when = self._last
        said = f"{self._said(done, total)}{self._fast(done)}{self._left(done, total)}"
        if self._terminal:
            if now - when < 0.1 and done < total:
                return
            self._draw(said)
            if done >= total:
                self.close()
        elif done * 10 // total != tenth or now - when >= 60:
            click.echo(f"{self._what}: {said}", err=True)
        self._last = (done * 10 // total, now)

    def _draw(self, said: str) -> None:
        """The moving line, over the one before."""
        done, total = self._now
        width = 30
        filled = width * done // total
        bar = f"[{'#' * filled}{'.' * (width - filled)}]"
        line = f"{self._what} {bar} {said}  "
        click.echo(f"\r{line.ljust(self._wide)}", err=True, nl=False)
        self._wide = len(line)
        self._open = True

    def waits(self, why: str) -> None:
        """Say that something else is waited for."""
        if time.monotonic() - self._started < self._delay:
            return
        if self._terminal:
            self._draw(f"{self._said(*self._now)}, {why}")
        elif why not in self._told:
            self._told.add(why)
            click.echo(f"{self._what}: {why}", err=True)

    def goes_on(self, seconds: float) -> None:
        """Count a wait that is over neither into the rate nor into the time that is left."""
        self._started += seconds

    def _said(self, done: int, total: int) -> str:
        return f"{done:,} of {total:,} {self._unit}" if self._unit else f"{100 * done // total} %"

    def _fast(self, done: int) -> str:
        fresh = done - (self._first or 0)
        if not self._rate or fresh <= 0:
            return ""
        a_second = fresh / max(time.monotonic() - self._started, 1e-9)
        for unit, seconds in (("s", 1), ("min", 60)):
            if a_second * seconds >= 1:
                return f", {_short(a_second * seconds)} {self._unit}/{unit}"
        return f", {_short(a_second * 3600)} {self._unit}/h"

    def _left(self, done: int, total: int) -> str:
        fresh = done - (self._first or 0)
        if fresh <= 0 or done >= total:
            return ""
        seconds = (time.monotonic() - self._started) / fresh * (total - done)
        return f", {duration(seconds)} left" if seconds >= 1 else ""

    def say(self, text: str) -> None:
        """End the moving line, and write one more."""
        self.close()
        if not self._quiet:
            click.echo(text, err=True)

    def close(self) -> None:
        """End the moving line."""
        waiting.forget(self)
        if self._open:
            click.echo("", err=True)
            self._open = False


def duration(seconds: float) -> str:
    """A time for people: in seconds, minutes, hours or days, whatever is no long number."""
    for limit, unit, size in ((120, "s", 1), (7200, "min", 60), (172_800, "h", 3600)):
        if seconds < limit:
            return f"{seconds / size:.0f} {unit}" if seconds >= 10 else f"{seconds:.2g} {unit}"
    return f"{seconds / 86_400:.0f} days"


def _short(number: float) -> str:
    return f"{number:.0f}" if number >= 100 else f"{number:.2g}"
