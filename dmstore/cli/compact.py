"""``dmstore compact``."""

from __future__ import annotations

import click

from dmstore.cli import options, output


@click.command("compact")
@options.study
@options.maybe_algorithm
@options.quiet
@options.as_json
def command(path: str, algorithm: str | None, quiet: bool, as_json: bool) -> None:
    """Bring all runs of ALGORITHM (or of every algorithm) into one base.

    Safe at any time, from several hosts at once, while workers write.
    """
    from dmstore.study.study import open_study
    from dmstore.upkeep.maintenance import compact

    bars: dict[str, output.Progress] = {}

    def progress(name: str, done: int, total: int) -> None:
        bars.setdefault(name, output.Progress(f"compact {name}", quiet=quiet))(name, done, total)

    done = compact(open_study(path), algorithm, progress=progress)
    bases = {
        name: {
            "version": c.manifest.version,
            "absorbed": c.absorbed,
            "runs": c.manifest.base.runs if c.manifest.base else 0,
            "content_id": c.manifest.base.content_id if c.manifest.base else None,
        }
        for name, c in done.items()
    }
    output.emit(
        {"algorithms": bases},
        [
            f"{name}: {output.counted(c.manifest.base.runs if c.manifest.base else 0, 'run')} in "
            f"version {c.manifest.version}, {output.counted(c.absorbed, 'segment')} absorbed"
            for name, c in done.items()
        ],
        as_json=as_json,
    )
