"""``dmstore status``."""

from __future__ import annotations

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
    targets = ", ".join(f"{count} targets in {name!r}" for name, count in found["targets"].items())
    lines = [f"{found['study']}: {found['train']} train units, {targets}"]
    for name, entry in found["algorithms"].items():
        planned = (
            f" of {entry['planned']} planned"
            if entry["planned"] is not None
            else " (foreign masks)"
        )
        splits = ", ".join(f"{count} {split}" for split, count in entry["splits"].items())
        lines.append(
            f"  {name}: {entry['stored']} runs stored{planned}; {splits}; {output.size(entry['bytes'])}"
        )
        notes = [f"{entry['segments']} segments to compact"] if entry["segments"] else []
        notes += [f"{entry['conflicts']} conflicting rows"] if entry["conflicts"] else []
        notes += [f"tags {', '.join(entry['tags'])}"] if entry["tags"] else []
        notes += [
            f"fit {fit['fit']} of {fit['runs']} runs{'' if fit['complete'] else ', unfinished'}"
            f"{'' if fit['current'] else ', older than the runs stored'}"
            for fit in entry["fits"]
        ]
        if notes:
            lines.append(f"    {'; '.join(notes)}")
    lines += [f"  compared: {' and '.join(entry['algorithms'])}" for entry in found["comparisons"]]
    if not found["algorithms"]:
        lines.append("  no algorithms yet; add one with 'dmstore add'")
    output.emit(found, lines, as_json=as_json)
