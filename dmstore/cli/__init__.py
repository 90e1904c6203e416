"""The command line. Commands are imported when they are called, so that ``--help`` is fast.

Imports: everything.
To add a command, a file with ``command`` and its line in ``COMMANDS``, tried in ``tests/cli``.
"""

from __future__ import annotations

import importlib
import io
import json
import logging
import sys
import traceback

import click

COMMANDS = {
    "demo": "The main job on real images: train, store, fit, compare, report.",
    "init": "Create a study from an examples file, or from a data set on disk.",
    "annotate": "Add labels, groups, images or texts to a set of examples.",
    "targets": "Add a target set to a study.",
    "beton": "Write a study's images as one file for the loader ffcv.",
    "features": "Keep features of a frozen network, for heads to train on.",
    "recipes": "List the learning algorithms that come with dmstore.",
    "add": "Add a learning algorithm to a study.",
    "remove": "Take an algorithm that was added by mistake out of a study.",
    "extend": "Plan more runs of an algorithm.",
    "task": "Try a training task on three runs and say what is wrong with it.",
    "train": "Train the pending runs of an algorithm, or of one part of it.",
    "submit": "Submit workers to a cluster, through submitit.",
    "ingest": "Store runs from workers' files, or from what other tools have.",
    "retract": "Take runs of a faulty host out of every later view.",
    "writer": "Print the one-file writer, for workers that cannot install dmstore.",
    "export": "Write runs, datamodels or the plan in another tool's format.",
    "status": "Say what a study holds and what is still to do.",
    "verify": "Read everything and say what is wrong.",
    "compact": "Bring all runs of an algorithm into one base.",
    "vacuum": "Delete what nothing refers to any more.",
    "doctor": "Find out what a file system or bucket guarantees.",
    "torture": "Try to make a storage lose runs.",
    "tag": "Give a state of an algorithm's runs a name.",
    "publish": "Publish a study to a directory, one .zip or a bucket.",
    "pull": "Copy a published study, check it, and make it one to extend.",
    "diff": "Say how two studies or snapshots differ.",
    "fit": "Fit one lasso per target.",
    "evaluate": "Score a fit on runs that nothing was fitted on.",
    "compare": "Compare two fitted algorithms, or two files of scores.",
    "contrast": "Say how much a group of train units moves groups of targets; no fit is needed.",
    "caption": "Say in words what the ends of a comparison's directions show.",
    "transform": "Draw targets before and after a transformation.",
    "counterfactual": "Check a difference by changing the inputs.",
    "removal": "Check a difference by training without some train units.",
    "report": "Write the page that shows a comparison.",
}


# Which extra brings a package that a command may miss.
_EXTRAS = {
    "numba": "fit",
    "distributed": "cluster",
    "submitit": "submit",
    "llvmlite": "fit",
    "scipy": "analysis",
    "sklearn": "analysis",
    "matplotlib": "analysis",
    "jinja2": "analysis",
    "PIL": "vision",
    "torch": "torch",
    "torchvision": "vision",
    "ffcv": "ffcv",
    "open_clip": "captions",
    "wordfreq": "captions",
}


class _Lazy(click.Group):
    """A group that knows its commands by name and imports one only when it is called."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"dmstore.cli.{name}").command
        return command

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


class _Warnings(logging.Handler):
    """What the library warns of, a line each."""

    def emit(self, record: logging.LogRecord) -> None:
        from dmstore.errors import plain

        click.echo(f"warning: {plain(' '.join(record.getMessage().split()))}", err=True)


def _say_versions(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    if not value:
        return
    from dmstore import __version__
    from dmstore.schema.documents import FORMAT_VERSION

    major = FORMAT_VERSION.split(".")[0]
    click.echo(f"dmstore {__version__}; writes store format {FORMAT_VERSION}, reads format {major}")
    context.exit()


@click.group(
    cls=_Lazy,
    context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "DMSTORE"},
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_say_versions,
    help="Say the version, and the store formats that it writes and reads.",
)
@click.option("-v", "--verbose", count=True, help="Log what is done (-v); show tracebacks (-vv).")
def group(verbose: int) -> None:
    """Store the runs of learning algorithms, fit datamodels from them, and show where two differ.

    \b
    Start with:
      dmstore demo
    Exit codes: 0 done; 1 the input is bad, or something was refused or found wrong; 2 not a command
    that --help allows; 3 not complete yet; 4 complete but for runs that failed (train).
    """
    # The one log handler, on stderr; the library itself never installs any.
    if verbose:
        logging.basicConfig(
            stream=sys.stderr, level=logging.INFO, format="%(levelname)s %(name)s: %(message)s"
        )
    else:
        logger = logging.getLogger("dmstore")
        if not any(isinstance(handler, _Warnings) for handler in logger.handlers):
            logger.addHandler(_Warnings(logging.WARNING))


def main(arguments: list[str] | None = None) -> None:
    """Run a command and exit: one-line errors on stderr, or as JSON with ``--json``."""
    given = sys.argv[1:] if arguments is None else arguments
    # What a terminal or a pipe cannot show must not end a command that has done its work.
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")
    as_json = "--json" in given
    very = (
        any(item.startswith("-v") and item.count("v") >= 2 for item in given)
        or given.count("-v") >= 2
    )
    try:
        code = group.main(args=given, prog_name="dmstore", standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except click.exceptions.Exit as error:
        sys.exit(error.exit_code)
    except click.ClickException as error:
        if as_json:
            _print_error("usage", error.format_message(), as_json=True)
        else:
            error.show()
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):
        click.echo(
            "interrupted; what was stored stays stored, the same command goes on where it was",
            err=True,
        )
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
    except Exception as error:  # noqa: BLE001 - the last resort: users get one line, -vv the rest
        if very:
            traceback.print_exc()
        kind, message, code = _explain(error)
        _print_error(kind, message, as_json=as_json)
        sys.exit(code)


def _explain(error: Exception) -> tuple[str, str, int]:
    from dmstore.errors import DmstoreError, IncompleteError

    if isinstance(error, DmstoreError):
        return error.kind, str(error), 3 if isinstance(error, IncompleteError) else 1
    if isinstance(error, OSError):
        from dmstore.storage.objects.refusals import storage_error

        return "storage", str(storage_error(error, error.filename or "storage")), 1
    if isinstance(error, ImportError):
        extra = _EXTRAS.get((error.name or "").split(".")[0])
        if extra:
            return (
                "missing-dependency",
                f"{error.name} is not installed; pip install 'dmstore[{extra}]'",
                1,
            )
    if isinstance(error, MemoryError):
        return "memory", "not enough memory; use a machine with more, or smaller input", 1
    return (
        "internal",
        f"{type(error).__name__}: {error}; this is a fault of dmstore, please report it with -vv",
        1,
    )


def _print_error(kind: str, message: str, *, as_json: bool) -> None:
    from dmstore.errors import plain

    line = plain(" ".join(message.split()))
    if as_json:
        click.echo(json.dumps({"error": {"kind": kind, "message": line}}))
    else:
        click.echo(f"error: {line}", err=True)
