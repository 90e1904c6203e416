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
    from dmstore.study.algorithm import Algorithm
    from dmstore.study.plan import Part
    from dmstore.study.study import Study

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


def runs_of(study: Study, algorithm: str, removal: str | None, models: int | None) -> Algorithm:
    """Runs of an algorithm, or the models of a removal of it."""
    if removal is None:
        if models is not None:
            raise click.UsageError("--models goes with --removal")
        return study.algorithm(algorithm)
    return study.removal_runs(algorithm, removal, models)


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
    removal: str | None = None,
    models: int | None = None,
) -> list[str]:
    """The options of a worker, as the command line of another process takes them."""
    arguments = ["--claims-expire", f"{claims_expire:f}s"]
    if removal is not None:
        arguments += ["--removal", removal, *(["--models", str(models)] if models else [])]
    if retry_failed:
        arguments.append("--retry-failed")
    if checkpoint_every is not None:
        arguments += ["--checkpoint-every", f"{checkpoint_every:f}s"]
    if checkpoints is not None:
        from dmstore.study.outside import outside_studies

        arguments += ["--checkpoints", str(outside_studies(checkpoints).absolute())]
    return arguments


def given(name: str) -> bool:
    """Whether a parameter of the command that runs stands on its command line."""
    return click.get_current_context().get_parameter_source(name) is ParameterSource.COMMANDLINE


def numbers(context: click.Context, parameter: click.Parameter, value: str | None) -> list[float]:
    """A list of numbers with commas between; empty where none is given."""
    if value is None:
        return []
    try:
        return [float(item) for item in value.split(",")]
    except ValueError:
        raise click.BadParameter(f"{value!r} is no list of numbers such as 0,0.5,1") from None


bank = click.option(
    "--bank",
    type=click.Path(),
    metavar="DIR|NPZ",
    help="Pictures for face-patch: a folder of images, or an .npz.",
)
place = click.option(
    "--place",
    type=click.Choice(["random", "corner", "center"]),
    default=None,
    help="Where patches go; random by default, pictures of a bank into corners.",
)
transformation_seed = click.option(
    "--seed",
    type=SEED,
    default=0,
    show_default=True,
    help="Seed of places and pictures; each example has its own, which follows from its id.",
)


def once(context: click.Context, parameter: click.Parameter, value: tuple[str, ...]) -> str | None:
    """What an option says that may stand there once; click itself takes the last of several and says nothing."""
    if len(value) > 1:
        msg = f"stands there {len(value)} times; give it once"
        raise click.BadParameter(msg)
    return value[0] if value else None


of_class = click.option(
    "--class",
    "label",
    multiple=True,
    callback=once,
    help="Targets of this class alone.",
)
where = click.option(
    "--where",
    multiple=True,
    metavar="CONDITION",
    help="These targets alone: label=9, place!=water, target=17,23, or a file of ids; repeat for several.",
)
full = click.option(
    "--full",
    type=click.IntRange(1),
    default=None,
    metavar="N",
    help="Train N models on all data instead (the paper: 500), for counterfactual checks.",
)
removal = click.option(
    "--removal",
    default=None,
    metavar="ID",
    help="Models of this removal instead, as 'dmstore removal --no-train' names it.",
)
models = click.option(
    "--models",
    type=click.IntRange(1),
    default=None,
    metavar="N",
    help="With --removal: how many models there are to be; 10 by default.",
)
no_keep = click.option(
    "--keep/--no-keep",
    "keep",
    default=None,
    help="With --full: keep the models, or their outputs alone; kept by default where the task can.",
)


def texts(context: click.Context, parameter: click.Parameter, value: str | None) -> list[str]:
    """A list of names with commas between; empty where none is given."""
    return [item.strip() for item in (value or "").split(",") if item.strip()]


full_targets = click.option(
    "--targets",
    callback=texts,
    default=None,
    metavar="SET,SET,…",
    help="With --full: store what the kept models say on these target sets too.",
)
