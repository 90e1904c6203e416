"""Prints the tables of ``format.md`` from ``store_schemas/``; with ``--write`` puts them there.

python docs/tables.py --write
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
SCHEMAS = DOCS.parent / "store_schemas"
PAGE = DOCS / "reference" / "format.md"
BEGIN, END = "<!-- tables: begin -->\n", "<!-- tables: end -->\n"


def _read(ending: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for path in sorted(SCHEMAS.glob(f"*{ending}")):
        yield path.name, json.loads(path.read_text(encoding="utf-8"))


def _row(*cells: object) -> str:
    return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"


def _text(description: str) -> str:
    return description.replace("<", "\\<")


def _lengths(lengths: Mapping[str, int | str] | None, dims: list[str]) -> str:
    return " by ".join(str((lengths or {}).get(dim, "all")) for dim in dims)


def _group(name: str, group: Mapping[str, Any]) -> list[str]:
    lines = [
        f"#### {group['kind']}",
        "",
        f"[{name}](../../store_schemas/{name}): {_text(group['doc'])}",
        "",
    ]
    lines += [_row("array", "dims", "dtype", "fill", "role", "codec", "chunks", "shards", "")]
    lines += [_row(*["---"] * 9)]
    entries = dict(group["arrays"])
    if "output_layout" in group:
        layout = {**group["output_layout"], "dims": ["run", "target", "[class]"]}
        what = {"dtype": "as declared", "fill": "NaN, 0 of integers", "role": "output"}
        entries["each output"] = {**layout, **what, "doc": "As `algorithm.json` declares it."}
    for array, entry in entries.items():
        dims = entry["dims"]
        fill = '""' if entry["fill"] == "" else json.dumps(entry["fill"]).strip('"')
        lines.append(
            _row(
                f"`{array}`" + (", optional" if entry.get("optional") else ""),
                ", ".join(dims),
                entry["dtype"],
                fill,
                entry["role"],
                entry["codec"] or "text",
                _lengths(entry.get("chunks"), dims),
                _lengths(entry["shards"], dims) if entry.get("shards") else "none",
                entry["doc"],
            )
        )
    if group["columns"]:
        lines += ["", "Further arrays of dims (run) are the writer's own columns."]
    return [*lines, ""]


def _type(entry: Mapping[str, Any]) -> str:
    if "const" in entry:
        return f"`{entry['const']}`"
    if "enum" in entry:
        return " or ".join(f"`{value}`" for value in entry["enum"])
    kind = entry.get("type", "any")
    kinds = [kind] if isinstance(kind, str) else kind
    text = " or ".join(kinds)
    bounds = [
        f"{sign} {entry[key]}"
        for key, sign in (
            ("minimum", "≥"),
            ("maximum", "≤"),
            ("exclusiveMinimum", ">"),
            ("exclusiveMaximum", "<"),
        )
        if key in entry
    ]
    if "pattern" in entry:
        bounds.append(f"`{entry['pattern']}`")
    return ", ".join([text, *bounds])


def _keys(entry: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str, bool, str]]:
    """Keys of an object, those inside it after it: name, type, whether required, what it is."""
    for key, inner in entry.get("properties", {}).items():
        name = f"{prefix}{key}"
        yield name, _type(inner), key in entry.get("required", ()), inner.get("description", "")
        yield from _inside(inner, name)


def _inside(entry: Mapping[str, Any], name: str) -> Iterator[tuple[str, str, bool, str]]:
    yield from _keys(entry, f"{name}.")
    further = entry.get("additionalProperties")
    if isinstance(further, Mapping):
        if "properties" not in further:
            yield f"{name}.*", _type(further), False, ""
        yield from _inside(further, f"{name}.*")
    if items := entry.get("items"):
        if "properties" not in items:
            yield f"{name}[]", _type(items), False, ""
        yield from _inside(items, f"{name}[]")


def _document(name: str, document: Mapping[str, Any]) -> list[str]:
    lines = [f"#### {document['title']}", ""]
    lines += [f"[{name}](../../store_schemas/{name}): {_text(document['description'])}", ""]
    lines += [_row("key", "type", "required", ""), _row(*["---"] * 4)]
    lines += [
        _row(f"`{key}`", kind, "yes" if required else "", text)
        for key, kind, required, text in _keys(document)
    ]
    return [*lines, ""]


def tables() -> str:
    """All tables, as they stand in the page."""
    lines = ["### Documents", ""]
    for name, document in _read(".document.json"):
        lines += _document(name, document)
    lines += ["### Groups", ""]
    for name, group in _read(".group.json"):
        lines += _group(name, group)
    return "\n".join(lines)


def page(text: str) -> str:
    """The page with the tables as they should be."""
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n{tables()}\n{END}{rest.split(END)[1]}"


if __name__ == "__main__":
    if sys.argv[1:] == ["--write"]:
        PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    else:
        sys.stdout.write(tables())
