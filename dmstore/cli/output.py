"""Results on stdout, progress on stderr."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import click

from dmstore.core.meter import Meter
from dmstore.errors import plain
from dmstore.study.display import counted as counted
from dmstore.study.display import size as size

# How far a command is.
Progress = Meter


class Stages:
    """A meter for each stage that a command goes through, in words, with what it counts.

    `stages` has the words and what is counted, by the name that is told; without what is counted a share is shown.
    """

    def __init__(
        self, stages: Mapping[str, tuple[str, str]], *, quiet: bool = False, delay: float = 0.0
    ) -> None:
        self._stages = stages
        self._quiet = quiet
        self._delay = delay
        self._now = ""
        self._meter: Meter | None = None

    def __call__(self, what: str, done: int, total: int) -> None:
        """Report `done` of `total` of the stage `what`; another stage ends the one before."""
        if what != self._now or self._meter is None:
            self.close()
            words, unit = self._stages.get(what, (what, ""))
            self._now = what
            self._meter = Meter(words, quiet=self._quiet, unit=unit, delay=self._delay)
        self._meter(what, done, total)

    def close(self) -> None:
        """End the line of the stage."""
        if self._meter is not None:
            self._meter.close()
            self._meter = None


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
