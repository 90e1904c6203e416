"""``dmstore status``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import click

from dmstore.cli import options, output


@click.command("status")
@options.study
@options.as_json
def command(study: str, as_json: bool) -> None:
    """Say what STUDY holds and what is still to do."""
    from dmstore.maintenance import status
    from dmstore.study import open_study

    found = status(open_study(study))
    output.emit(found, list(_lines(found)), as_json=as_json)


def _lines(found: Mapping[str, Any]) -> Iterator[str]:
    targets = ", ".join(f"{count} targets in {name!r}" for name, count in found["targets"].items())
    yield f"{found['study']}: {found['train']} train units, {targets}; {output.size(found['bytes'])}"
    noted = {name: names for name, names in found["annotations"].items() if names}
    if noted:
        yield "  annotations: " + "; ".join(f"{k}: {', '.join(v)}" for k, v in noted.items())
    for name, entry in found["algorithms"].items():
        yield from _algorithm_lines(name, entry)
    for entry in found["comparisons"]:
        yield f"  compared: {' and '.join(entry['algorithms'])}"
    if not found["algorithms"]:
        yield "  no algorithms yet; add one with 'dmstore add'"


def _algorithm_lines(name: str, entry: Mapping[str, Any]) -> Iterator[str]:
    planned = (
        f" of {entry['planned']} planned" if entry["planned"] is not None else " (foreign masks)"
    )
    splits = (
        ", ".join(f"{count} {split}" for split, count in entry["splits"].items())
        if entry["splits"]
        else "splits unknown until 'dmstore compact'"
    )
    yield f"  {name}: {entry['stored']} runs stored{planned}; {splits}; {output.size(entry['bytes'])}"
    notes = [f"{entry['pending']} runs pending"] if entry["pending"] else []
    notes += [f"{entry['retracted']} rows retracted"] if entry["retracted"] else []
    notes += [f"{entry['segments']} segments to compact"] if entry["segments"] else []
    notes += [f"{entry['conflicts']} conflicting rows"] if entry["conflicts"] else []
    notes += [f"tags {', '.join(entry['tags'])}"] if entry["tags"] else []
    notes += [
        f"fit {fit['fit']} of {fit['runs']} runs{'' if fit['complete'] else ', unfinished'}"
        f"{'' if fit['current'] else ', older than the runs stored'}"
        for fit in entry["fits"]
    ]
    if notes:
        yield f"    {'; '.join(notes)}"
    blocks = entry["blocks"]
    for block in blocks if len(blocks) > 1 or any(b["repeats"] > 1 for b in blocks) else []:
        last = block["first_run"] + block["runs"] - 1
        repeats = f", {block['repeats']} a mask" if block["repeats"] > 1 else ""
        yield f"    runs {block['first_run']} to {last}{repeats}: {block['stored']} stored, {block['pending']} pending"
    for target_set, on in entry["outputs_on"].items():
        more = [f"{on['pending']} pending"] if on["pending"] else ["complete"]
        more += [f"{on['retracted']} rows retracted"] if on["retracted"] else []
        more += [f"{on['segments']} segments to compact"] if on["segments"] else []
        more += [f"{on['conflicts']} conflicting rows"] if on["conflicts"] else []
        yield f"    on {target_set!r}: outputs of {on['stored']} runs; {'; '.join(more)}; {output.size(on['bytes'])}"
