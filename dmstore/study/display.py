"""What a study holds in a few lines, from listings and small documents alone."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dmstore.errors import DmstoreError, StudyNotFoundError
from dmstore.schema import schema
from dmstore.storage.objects.objects import Objects
from dmstore.storage.table import log

if TYPE_CHECKING:
    from dmstore.storage.table.table import Table
    from dmstore.study.algorithm import Algorithm
    from dmstore.study.study import Study

# Segments whose ids are read for a line of text: each costs one small read.
_MOST_SEGMENTS = 64


@dataclass(frozen=True)
class Facts:
    """A title, labelled lines, and a table below them."""

    title: str
    lines: list[tuple[str, str]]
    header: tuple[str, ...] = ()
    rows: list[tuple[str, ...]] = field(default_factory=list)


def size(count: float) -> str:
    """Bytes for people."""
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


def rows_stored(table: Table) -> str:
    """Rows of a table: exact while few segments wait, else those of the base and what waits."""
    manifest = log.newest(table.objects, table.prefix)
    hidden = {*manifest.absorbed, *manifest.removed}
    waiting = [name for name in table.segment_names() if name not in hidden]
    base = manifest.base.runs if manifest.base else 0
    if not waiting:
        return str(base)
    if len(waiting) <= _MOST_SEGMENTS:
        return str(len(table.view()))
    return f"{base} and {counted(len(waiting), 'segment')}"


def _require(objects: Objects) -> None:
    if not objects.exists("study.json"):
        msg = f"{objects.url}: study.json is gone, so the study was deleted or moved"
        raise StudyNotFoundError(msg)


def of_algorithm(algorithm: Algorithm) -> Facts:
    """Facts of an algorithm: runs done of planned, alpha, outputs, size."""
    _require(algorithm.objects)
    planned = f" of {algorithm.planned_count()}" if algorithm.planned else ""
    stored = algorithm.objects.entries(algorithm.prefix)
    return Facts(
        f"dmstore algorithm {algorithm.name}",
        [
            ("runs", f"{rows_stored(algorithm.table)}{planned}"),
            ("alpha", f"{algorithm.alpha}, {algorithm.document['sampling']} sampling"),
            ("outputs", ", ".join(sorted(algorithm.outputs))),
            ("stored", size(sum(info.size for info in stored))),
        ],
    )


def of_study(study: Study) -> Facts:
    """Facts of a study: its sets, its algorithms with their runs, fits and sizes, comparisons."""
    _require(study.objects)
    rows: list[tuple[str, ...]] = []
    for name in study.algorithms:
        algorithm = study.algorithm(name)
        planned = f" of {algorithm.planned_count()}" if algorithm.planned else ""
        fits = [fit["complete"] for fit in study.fits(name)]
        stored = study.objects.entries(algorithm.prefix)
        rows.append(
            (
                name,
                f"{rows_stored(algorithm.table)}{planned}",
                f"{algorithm.alpha}",
                f"{sum(fits)}{f' and {len(fits) - sum(fits)} unfinished' if not all(fits) else ''}",
                size(sum(info.size for info in stored)),
            )
        )
    sets = ", ".join(f"{entry['count']} in {name}" for name, entry in study.target_sets.items())
    lines = [
        ("train units", f"{study.document['train']['count']}"),
        ("targets", sets),
        ("algorithms", "" if rows else "none yet"),
        (
            "compared",
            ", ".join(" and ".join(entry["algorithms"]) for entry in study.comparisons()),
        ),
    ]
    title = about(study).get("title")
    return Facts(
        f"dmstore study {study.path}",
        [("title", str(title))] * bool(title) + [line for line in lines if line[1]],
        ("algorithm", "runs", "alpha", "fits", "stored"),
        rows,
    )


def about(study: Study) -> Mapping[str, Any]:
    """The newest title, authors and licence of a study."""
    found = [name for name in study.objects.children("about/") if name.endswith(".json")]
    if not found:
        return {}
    where = f"about/{max(found)}"
    return schema.load_document("about", study.objects.get(where), where)


def guarded(make: Callable[[], Facts], title: str) -> Facts:
    """The facts, or one line that says why there are none: a repr never raises."""
    try:
        return make()
    except (DmstoreError, OSError) as error:
        return Facts(title, [("cannot be read", " ".join(str(error).split()))])


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
