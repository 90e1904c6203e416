"""``dmstore status``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import click

from dmstore.cli import options, output

# Failures that are shown, and how much of each.
_MOST_FAILURES, _WIDEST = 5, 160


@click.command("status")
@options.study
@options.maybe_algorithm
@click.option(
    "--watch", is_flag=True, help="Go on saying how training goes, until all is done or Ctrl-C."
)
@click.option(
    "--every",
    type=options.DURATION,
    default="10s",
    show_default=True,
    metavar="DURATION",
    help="With --watch: how often to look.",
)
@options.as_json
def command(path: str, algorithm: str | None, watch: bool, every: float, as_json: bool) -> None:
    """Say what STUDY holds, or ALGORITHM of it alone, and what is still to do.

    With --watch: runs an hour of the last 15 minutes, the hosts that they came from, failures, and when all
    will be there; with --json one object per look.
    """
    from dmstore.study.study import open_study
    from dmstore.upkeep.maintenance import status

    if watch:
        from dmstore.cli import watching

        watching.watch(open_study(path), algorithm, every, as_json=as_json)
        return
    if options.given("every"):
        msg = "--every says how often --watch looks; give --watch too"
        raise click.UsageError(msg)
    state = status(open_study(path), algorithm)
    output.emit(state, list(_lines(state)), as_json=as_json)


def _lines(state: Mapping[str, Any]) -> Iterator[str]:
    targets = ", ".join(
        f"{output.counted(count, 'target')} in {name!r}" for name, count in state["targets"].items()
    )
    yield f"{state['study']}: {output.counted(state['train'], 'train unit')}, {targets}; {output.size(state['bytes'])}"
    noted = {name: names for name, names in state["annotations"].items() if names}
    if noted:
        yield "  annotations: " + "; ".join(f"{k}: {', '.join(v)}" for k, v in noted.items())
    for name, entry in state["algorithms"].items():
        yield from _algorithm_lines(state["study"], name, entry)
    for name, reason in state["removed"].items():
        yield f"  {name}: removed{f' ({reason})' if reason else ''}"
    newest = {(frozenset(c["algorithms"]), c["where"]): c for c in state["comparisons"]}
    for entry in newest.values():
        seen = ""
        if (shown := entry["detectable"]) is not None:
            seen = (
                f"; these runs would have shown a direction of {shown:.1%} of the datamodels, and twice as many would show one of half that size"
                if shown < 1
                else "; these runs are too few to show any direction"
            )
        where = f" where {entry['where']}" if entry["where"] else ""
        yield f"  compared: {' and '.join(entry['algorithms'])}{where}{seen}"
    if not state["algorithms"]:
        yield "  no algorithms yet; add one with 'dmstore add'"


def _algorithm_lines(path: str, name: str, entry: Mapping[str, Any]) -> Iterator[str]:
    from dmstore.study.conditions import accuracy_text, mixed
    from dmstore.upkeep.retraction import retracted_text

    planned = (
        f" of {entry['planned']} planned" if entry["planned"] is not None else " (foreign masks)"
    )
    splits = (
        ", ".join(f"{count} {split}" for split, count in entry["splits"].items())
        if entry["splits"]
        else "splits unknown until 'dmstore compact'"
    )
    yield f"  {name}: {output.counted(entry['stored'], 'run')} stored{planned}; {splits}; {output.size(entry['bytes'])}"
    notes = [f"{output.counted(entry['pending'], 'run')} pending"] if entry["pending"] else []
    notes += _tidiness(entry)
    notes += [f"tags {', '.join(entry['tags'])}"] if entry["tags"] else []
    notes += [
        f"fit {fit['fit']} of {output.counted(fit['runs'], 'run')}{'' if fit['complete'] else ', unfinished'}"
        f"{'' if fit['current'] else ', older than the runs stored'}"
        for fit in entry["fits"]
    ]
    notes += [accuracy_text(entry["accuracy"])] if entry["accuracy"] else []
    if notes:
        yield f"    {'; '.join(notes)}"
    yield from (f"    {line}" for line in mixed(entry["conditions"]))
    if entry["full"]:
        asked = [
            f"{count} on {label.split(':')[2]}" if label.count(":") > 1 else f"{count} stored"
            for label, count in entry["full"].items()
        ]
        yield f"    models trained on all data: {', '.join(asked)}"
    if entry["removals"]:
        count = sum(entry["removals"].values())
        yield f"    models trained without some train units, and controls of such: {count} of {output.counted(len(entry['removals']), 'kind')}"
    if entry["failed"]:
        yield f"    {output.counted(entry['failed'], 'run')} failed; 'dmstore train {path} {name} --retry-failed' tries again"
        for one in entry["failures"][:_MOST_FAILURES]:
            yield f"      run {one['run']} on {one['host']}: {one['error'][:_WIDEST]}"
    if entry["unreferenced"]:
        yield f"    {output.counted(len(entry['unreferenced']), 'base')} that no log entry names: an ingest or a copy was interrupted; 'dmstore verify' tells more"
    # An older fit has been replaced, so only the newest of an output is worth a warning.
    newest = {fit["output"]: fit for fit in entry["fits"] if fit["complete"]}
    for fit in newest.values():
        if fit["retracted"]:
            yield f"    {retracted_text(fit['version'], fit['retracted'])}"
    blocks = entry["blocks"]
    for block in blocks if len(blocks) > 1 or any(b["repeats"] > 1 for b in blocks) else []:
        repeats = f", {block['repeats']} a mask" if block["repeats"] > 1 else ""
        bad = f", {block['failed']} failed" if block["failed"] else ""
        yield f"    {output.span(block['first_run'], block['runs'])}{repeats}: {block['stored']} stored, {block['pending']} pending{bad}"
    for target_set, on in entry["outputs_on"].items():
        more = [f"{on['pending']} pending"] if on["pending"] else ["complete"]
        more += _tidiness(on)
        yield f"    on {target_set!r}: outputs of {output.counted(on['stored'], 'run')}; {'; '.join(more)}; {output.size(on['bytes'])}"


def _tidiness(entry: Mapping[str, Any]) -> list[str]:
    """What a table holds beside its visible rows."""
    kinds = {
        "retracted": ("row", " retracted"),
        "segments": ("segment", " to compact"),
        "conflicts": ("conflicting row", ""),
    }
    return [
        f"{output.counted(entry[key], noun)}{after}"
        for key, (noun, after) in kinds.items()
        if entry[key]
    ]
