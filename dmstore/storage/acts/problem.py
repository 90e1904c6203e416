"""What verification says."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: its kind, the object, and what it is."""

    kind: str
    where: str
    text: str
