"""Commands as a user types them, run in this process."""

import json

import pytest

from dmstore import cli


def run(*arguments, code=0):
    """Run a command in this process; returns stdout and stderr."""
    from contextlib import redirect_stderr, redirect_stdout
    from io import StringIO

    out, err = StringIO(), StringIO()
    with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as stop:
        cli.main([str(a) for a in arguments])
    assert stop.value.code == code, (out.getvalue(), err.getvalue())
    return out.getvalue(), err.getvalue()


def run_json(*arguments, code=0):
    return json.loads(run(*arguments, "--json", code=code)[0])
