"""Facts as a few lines of text or a small table. Pure: what has facts says them itself."""

from __future__ import annotations

import html
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field

from dmstore.errors import DmstoreError


@dataclass(frozen=True)
class Facts:
    """A title, labelled lines, and a table below them."""

    title: str
    lines: list[tuple[str, str]]
    header: tuple[str, ...] = ()
    rows: list[tuple[str, ...]] = field(default_factory=list)


def size(count: float) -> str:
    """Bytes for people, in powers of 1000 as sizes are given (Dask's ``format_bytes`` has those of 1024)."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def counted(number: int, noun: str) -> str:
    """A number of things, in the singular where it is one."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def first_few(runs: Sequence[int]) -> str:
    """Ids for a line of text."""
    return ", ".join(map(str, runs[:5])) + (", …" if len(runs) > 5 else "")


class Displayed(ABC):
    """What has facts, and shows them as text and in a notebook. Showing never raises."""

    @abstractmethod
    def _title(self) -> str:
        """What it is called where it is displayed; may read nothing."""

    @abstractmethod
    def _facts(self) -> Facts:
        """What is to be said of it."""

    def _shown(self) -> Facts:
        try:
            return self._facts()
        except (DmstoreError, OSError) as error:
            return Facts(self._title(), [("cannot be read", " ".join(str(error).split()))])

    def __repr__(self) -> str:
        return as_text(self._shown())

    def _repr_html_(self) -> str:
        return as_html(self._shown())


def as_text(facts: Facts) -> str:
    """Facts as a few lines of text."""
    cells = [facts.header, *facts.rows] if facts.rows else []
    widths = [max(len(row[k]) for row in cells) for k in range(len(facts.header))] if cells else []
    lines = [f"  {name}: {value}" for name, value in facts.lines]
    lines += [
        "  "
        + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]
    return _plain("\n".join([f"<{facts.title}>", *lines]))


def _plain(text: str) -> str:
    """No control characters but line ends: a title from elsewhere must not drive the terminal."""
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)


def as_html(facts: Facts) -> str:
    """Facts as a small table; everything in it is escaped."""

    def row(cells: tuple[str, ...], tag: str) -> str:
        inner = "".join(f"<{tag}>{html.escape(_plain(cell))}</{tag}>" for cell in cells)
        return f"<tr>{inner}</tr>"

    top = f"<div><strong>{html.escape(_plain(facts.title))}</strong>"
    lines = "".join(
        f"<tr><th style='text-align:left'>{html.escape(_plain(name))}</th>"
        f"<td style='text-align:left'>{html.escape(_plain(value))}</td></tr>"
        for name, value in facts.lines
    )
    table = ""
    if facts.rows:
        body = "".join(row(cells, "td") for cells in facts.rows)
        table = f"<table><thead>{row(facts.header, 'th')}</thead><tbody>{body}</tbody></table>"
    return f"{top}<table>{lines}</table>{table}</div>"
