"""Options that several commands share, stated once."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

if TYPE_CHECKING:
    from dmstore.study.plan import Part

# Where image files are: said on the command line or in the environment, heard by workers' processes too.
DATA = "DMSTORE_DATA"
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class _Duration(click.ParamType[float]):
    name = "duration"

    def convert(
        self, value: object, parameter: click.Parameter | None, context: click.Context | None
    ) -> float:
        match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([smhd]?)", str(value))
        if not match:
            self.fail(f"{value!r} is no duration; write 0, 90s, 30m, 12h or 7d", parameter, context)
        return float(match[1]) * _UNITS[match[2] or "s"]


class _Part(click.ParamType["Part"]):
    name = "part"

    def convert(
        self, value: object, parameter: click.Parameter | None, context: click.Context | None
    ) -> Part:
        from dmstore.errors import InputError
        from dmstore.study.plan import Part

        try:
            return Part.parse(str(value))
        except InputError as error:
            self.fail(str(error), parameter, context)


class _PartOrNext(click.ParamType["Part | str"]):
    name = "part"

    def convert(
        self, value: object, parameter: click.Parameter | None, context: click.Context | None
    ) -> Part | str:
        return "next" if value == "next" else _Part().convert(value, parameter, context)


DURATION = _Duration()
SEED = click.IntRange(0, 2**63 - 1)
study = click.argument("path", metavar="STUDY", type=click.Path())
algorithm = click.argument("algorithm")
maybe_algorithm = click.argument("algorithm", required=False)
as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
quiet = click.option("-Q", "--quiet", is_flag=True, help="No progress on stderr.")
data = click.option(
    "--data",
    type=click.Path(),
    envvar=DATA,
    default=None,
    expose_value=False,
    callback=lambda context, parameter, value: os.environ.update({DATA: value} if value else {}),
    help=f"Folder of the study's image files, where it holds thumbnails; {DATA} by default.",
)
threads = click.option(
    "--threads", type=click.IntRange(1), default=None, help="Threads; all cores by default."
)
memory = click.option(
    "--memory",
    default=None,
    metavar="SIZE",
    help="Memory to take, such as 8GB; most of what is free by default.",
)
part = click.option(
    "--part", type=_Part(), metavar="I/N", default=None, help="Only part I of N, counted from 1."
)
part_or_next = click.option(
    "--part",
    type=_PartOrNext(),
    metavar="I/N|next",
    default=None,
    help="Only part I of N, counted from 1; or next: what is still undone, shared with all others that do the same.",
)
retry_failed = click.option(
    "--retry-failed", is_flag=True, help="Try runs that failed before once more."
)
checkpoint_every = click.option(
    "--checkpoint-every",
    type=DURATION,
    default=None,
    metavar="DURATION",
    help="Save runs that are not finished so often, such as 10m, so that they go on after a kill.",
)
checkpoints = click.option(
    "--checkpoints",
    type=click.Path(path_type=Path),
    default=None,
    metavar="DIR",
    help="Where to keep them; STUDY.checkpoints by default.",
)
claims_expire = click.option(
    "--claims-expire",
    type=DURATION,
    default="5m",
    show_default=True,
    metavar="DURATION",
    help="With --part next: when the runs of a worker that was killed are free for others.",
)


def find_tasks_here() -> None:
    """Let a task be found that lives beside the scripts it belongs to, in the working directory."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)


def worker_arguments(
    *,
    retry_failed: bool,
    checkpoint_every: float | None,
    checkpoints: Path | None,
    claims_expire: float,
) -> list[str]:
    """The options of a worker, as the command line of another process takes them."""
    arguments = ["--claims-expire", f"{claims_expire:f}s"]
    if retry_failed:
        arguments.append("--retry-failed")
    if checkpoint_every is not None:
        arguments += ["--checkpoint-every", f"{checkpoint_every:f}s"]
    if checkpoints is not None:
        arguments += ["--checkpoints", str(checkpoints.absolute())]
    return arguments


def given(name: str) -> bool:
    """Whether a parameter of the command that runs stands on its command line."""
    return click.get_current_context().get_parameter_source(name) is ParameterSource.COMMANDLINE
