"""``dmstore vacuum``."""

from __future__ import annotations

import click

from dmstore.cli import options, output


@click.command("vacuum")
@options.study
@options.maybe_algorithm
@click.option(
    "--grace",
    type=options.DURATION,
    default="7d",
    show_default=True,
    help="Keep what went out of use less than this ago: longer than any reader holds a view.",
)
@options.as_json
def command(path: str, algorithm: str | None, grace: float, as_json: bool) -> None:
    """Delete segments that a base has absorbed, bases that nothing refers to, and leftovers.

    Tagged bases and those of unfinished fits stay.
    """
    from dmstore.study.study import open_study
    from dmstore.upkeep.maintenance import vacuum

    done = vacuum(open_study(path), algorithm, grace=grace)
    removed = [name for result in done.values() for name in result.removed]
    total = sum(result.size for result in done.values())
    output.emit(
        {"removed": removed, "bytes": total},
        [
            f"{output.counted(len(removed), 'object')} deleted, {output.size(total)}"
            + (
                f"; what went out of use less than {grace / 86400:g} days ago is kept (--grace 0 deletes it now)"
                if grace
                else ""
            )
        ],
        as_json=as_json,
    )
