"""``dmstore retract``."""

from __future__ import annotations

from typing import Any

import click

from dmstore.cli import options, output


def _conditions(
    context: click.Context, parameter: click.Parameter, value: tuple[str, ...]
) -> tuple[str, ...]:
    from dmstore.errors import InputError
    from dmstore.study.selection import Condition

    try:
        for text in value:
            Condition.parse(text)
    except InputError as error:
        raise click.BadParameter(str(error)) from None
    return value


@click.command("retract")
@options.study
@options.algorithm
@click.option(
    "--where",
    multiple=True,
    required=True,
    metavar="CONDITION",
    callback=_conditions,
    help="host=node17, time>=2026-11-01, run=5,7,10-20, accuracy<0.2; of several, all must hold.",
)
@click.option("--reason", default=None, help="Why; stands in the log for ever.")
@click.option("--restore", is_flag=True, help="Undo: only run=… is possible then.")
@click.option("--full", is_flag=True, help="Models trained on all data instead.")
@options.removal
@click.option("--dry-run", is_flag=True, help="Only count the runs.")
@options.as_json
def command(
    path: str,
    algorithm: str,
    where: tuple[str, ...],
    reason: str | None,
    restore: bool,
    full: bool,
    removal: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Take runs of ALGORITHM out of every later view, because a host or a setting was faulty.

    \b
    Earlier snapshots, tags and fits stay what they were. Retracted runs count as not trained, so
    'dmstore train' trains them again.

    \b
    Example:
      dmstore retract cifar.dm high-noise --where host=node17 --reason "bad memory"
    """
    from dmstore.study.study import open_study
    from dmstore.upkeep.retraction import meant, restore_runs, retract_runs

    if not (reason or dry_run):
        msg = "say why with --reason"
        raise click.UsageError(msg)
    opened = meant(open_study(path), algorithm, full=full, removal=removal)
    act: Any = restore_runs if restore else retract_runs
    retracted = act(opened, where, reason=reason or "", dry_run=dry_run)
    done = "restored" if restore else "retracted"
    would = f"would be {done}" if dry_run else done
    lines = [f"{opened.name}: {output.counted(len(retracted.rows), 'run')} {would}"]
    if restore:
        lines += _seen(retracted.visible, retracted.behind, len(retracted.rows))
    elif not retracted.rows:
        lines += _there(opened, where)
    output.emit(
        {
            "algorithm": algorithm,
            "runs_of": opened.name,
            done: len(retracted.rows),
            "runs": [run for run, _ in retracted.rows],
            "version": retracted.version,
            "dry_run": dry_run,
            **({"visible": retracted.visible} if restore else {}),
        },
        lines,
        as_json=as_json,
    )


def _there(algorithm: Any, where: tuple[str, ...]) -> list[str]:
    """Values that the columns of the conditions have, for who mistyped one."""
    import numpy as np

    from dmstore.study.selection import Condition

    view = algorithm.table.view()
    lines = []
    for name in dict.fromkeys(Condition.parse(text).column for text in where):
        values = np.unique(view.read([name])[name])
        more = f", … ({len(values)} values)" if len(values) > 6 else ""
        lines.append(f"  {name} is {', '.join(map(str, values[:6]))}{more}")
    return lines


def _seen(visible: int, behind: int, restored: int) -> list[str]:
    """What is seen of restored runs, and what to do about the others."""
    lines = [f"  {visible} of them visible again"]
    if behind:
        lines.append(f"  {behind} stand behind another run of their id, which is stored too")
    if absent := restored - visible - behind:
        lines.append(
            f"  {absent} are not stored any more: store them again with 'dmstore ingest' or 'dmstore train'"
        )
    return lines
