"""How far something is: the one way in which functions say it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

# Called with what is being done, steps done and steps in all.
Progress: TypeAlias = Callable[[str, int, int], None]
# The same of one thing that is done: steps done and steps in all.
Count: TypeAlias = Callable[[int, int], None]


def counting(progress: Progress | None, what: str) -> Count:
    """Steps of one thing, reported under its name; to nobody without `progress`."""

    def count(done: int, total: int) -> None:
        if progress:
            progress(what, done, total)

    return count
