"""``dmstore verify``."""

from __future__ import annotations

import click

from dmstore.cli import options, output


@click.command("verify")
@options.study
@options.maybe_algorithm
@options.as_json
def command(path: str, algorithm: str | None, as_json: bool) -> None:
    """Read all of STUDY (or of one algorithm), recompute every digest, and say what is wrong.

    STUDY may be a URL. A published study is checked against its index.json too.
    """
    from dmstore.sharing.checking import check_index, read_index
    from dmstore.study.study import open_study
    from dmstore.upkeep.verification import verify

    study = open_study(path)
    problems = list(verify(study, algorithm))
    index = None if algorithm else read_index(study.objects)
    if index is not None:
        problems += check_index(study.objects, index)
    names = [algorithm] if algorithm else study.algorithms
    rows = 0 if problems else sum(len(study.algorithm(name).table.view()) for name in names)
    output.emit(
        {"study": study.path, "runs": rows, "problems": [vars(problem) for problem in problems]},
        [f"{p.kind}: {p.where}: {p.text}" for p in problems]
        or [
            f"{study.path}: {output.counted(rows, 'run')} of {output.counted(len(names), 'algorithm')} verified, nothing wrong"
        ],
        as_json=as_json,
    )
    if problems:
        raise click.exceptions.Exit(1)
