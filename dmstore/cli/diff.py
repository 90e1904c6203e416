"""``dmstore diff``."""

from __future__ import annotations

from typing import Any

import click

from dmstore.cli import options, output


@click.command("diff")
@click.argument("x", type=click.Path())
@click.argument("y", type=click.Path())
@click.option("--exit-code", is_flag=True, help="Exit with 3 where they differ.")
@options.as_json
def command(x: str, y: str, exit_code: bool, as_json: bool) -> None:
    """Say how X and Y differ: STUDY, STUDY@ALGORITHM or STUDY@ALGORITHM:TAG; STUDY may be a URL.

    Runs are the same only where id and content are, as their digests say: whether all of a copy can be
    read, 'dmstore verify' tells. Exits with 0 also where X and Y differ, since 1 is an
    error; see --exit-code.

    \b
    Example:
      dmstore diff cifar.dm@plain:v1 https://example.org/cifar-published@plain
    """
    from dmstore.sharing.difference import diff

    differences = diff(x, y)
    output.emit(differences, _lines(differences), as_json=as_json)
    if exit_code and not differences["equal"]:
        raise click.exceptions.Exit(3)


def _lines(differences: dict[str, Any]) -> list[str]:
    lines = [f"X: {differences['x']}", f"Y: {differences['y']}"]
    names = {True: "the same", False: "different", None: "in one only"}
    lines.append(
        ", ".join(
            f"{what} {names[same]}"
            for what, same in (
                *differences["study"].items(),
                *((f"ids of {name}", same) for name, same in differences["ids"].items()),
            )
        )
    )
    for side in ("x", "y"):
        lines += [f"  only in {side.upper()}: {name}" for name in differences[f"only_{side}"]]
    titles = {"only_x": "only in X", "only_y": "only in Y", "differing": "of other content"}
    lines += [
        f"  annotations {titles[kind]}: {', '.join(names)}"
        for kind, names in (differences["annotations"] or {}).items()
        if names
    ]
    for name, entry in differences["algorithms"].items():
        lines += _algorithm(name, entry)
    lines.append("equal" if differences["equal"] else "different")
    return lines


def _algorithm(name: str, entry: dict[str, Any]) -> list[str]:
    if entry["equal"]:
        return [
            f"  {name}: equal, {output.counted(entry['x']['runs'], 'run')}, {entry['x']['content_id']}"
        ]
    lines = _rows(f"  {name}", entry)
    for target_set, outputs in (entry["outputs"] or {}).items():
        if not outputs["equal"]:
            lines += _rows(f"  {name}, outputs on {target_set}", outputs)
    for label, models in (entry["models"] or {}).items():
        if not models["equal"]:
            lines += _rows(f"  {name}:{label}", models, "model")
    if entry["declared"]:
        lines.append(f"    declared otherwise: {', '.join(entry['declared'])}")
    for side in ("x", "y"):
        lines += [
            f"    planned only in {side.upper()}: {output.counted(block['runs'], 'run')} from {block['first_run']}"
            for block in entry[f"plan_only_{side}"]
        ]
        lines += [
            f"    {what} only in {side.upper()}: {name}"
            for what in ("fit", "removal")
            for name in entry[f"{what}s_only_{side}"]
        ]
    return lines


def _rows(title: str, entry: dict[str, Any], what: str = "run") -> list[str]:
    counts = (
        f"{output.counted(entry['shared'], what)} in both, {entry['only_x']['count']} only in X, "
        f"{entry['only_y']['count']} only in Y, {entry['conflicting']['count']} of the same id with other content"
    )
    return [f"{title}: {counts}"] + [
        f"    {text}: {', '.join(map(str, entry[kind]['run']))}{', …' if entry[kind]['count'] > len(entry[kind]['run']) else ''}"
        for kind, text in (
            ("only_x", f"{what}s only in X"),
            ("only_y", f"{what}s only in Y"),
            ("conflicting", f"{what}s of other content"),
        )
        if entry[kind]["count"]
    ]
