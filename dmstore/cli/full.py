"""What ``dmstore train --full`` does; no command of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from dmstore.cli import output

if TYPE_CHECKING:
    from dmstore.study.plan import Part
    from dmstore.study.study import Study


def train_full_models(
    study: Study,
    algorithm: str,
    count: int,
    keep: bool | None,
    targets: list[str],
    part: Part | None,
    threads: int,
    *,
    quiet: bool,
    as_json: bool,
) -> None:
    """Train models on all data, ask them about target sets, and say what is left."""
    from dmstore.training.full import ask_full, train_full

    for name in targets:
        study.target_set(name)
    progress = output.Progress(f"train {algorithm} on all data", quiet=quiet, unit="models")
    trained = train_full(
        study, algorithm, count, keep=keep, part=part, threads=threads, progress=progress
    )
    progress.close()
    asked = {}
    for name in targets:
        progress = output.Progress(f"ask {algorithm} about {name}", quiet=quiet, unit="models")
        asked[name] = ask_full(
            study, algorithm, name, part=part, threads=threads, progress=progress
        )
        progress.close()
    left = len(study.full_models(algorithm, count).pending(part))
    text = f"{part.index}/{part.count}" if part else None
    lines = [
        f"{algorithm}: {output.counted(trained, 'model')} trained on all data, {left} pending{f' in part {text}' if part else ''}"
    ]
    lines += [
        f"  {name}: outputs of {output.counted(number, 'model')} stored"
        for name, number in asked.items()
    ]
    output.emit(
        {
            "algorithm": algorithm,
            "part": text,
            "trained": trained,
            "pending": left,
            "full": count,
            "asked": asked,
        },
        lines,
        as_json=as_json,
    )
    if left:
        raise click.exceptions.Exit(3)
