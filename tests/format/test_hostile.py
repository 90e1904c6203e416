"""What strangers may hand over: every command ends in one clear line, with bounded memory, nothing changed.

The cases stand in ``hostile.py``, which tries them in one process of limited memory.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import hostile
import pytest
from commands import run

from dmstore.errors import plain

EXPECTED = {
    **{name: words for name, (_, words) in {**hostile.CASES, **hostile.LINKS}.items()},
    **{name: words for name, (_, _, words) in hostile.FILES.items()},
}


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """What every command said of every case."""
    folder = tmp_path_factory.mktemp("hostile")
    path = os.pathsep.join([str(Path(hostile.__file__).parent), os.environ.get("PYTHONPATH", "")])
    # Each arena of a thread would reserve 64 MB of what is limited.
    environment = {**os.environ, "PYTHONPATH": path, "MALLOC_ARENA_MAX": "2"}
    done = subprocess.run(
        [sys.executable, hostile.__file__, folder, *EXPECTED],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = [json.loads(line) for line in done.stdout.splitlines()]
    return {entry.pop("case"): entry for entry in found}


@pytest.mark.parametrize("name", EXPECTED)
def test_nothing_but_a_clear_line(told, name):
    said = told[name]["said"]
    strange = {
        action: line
        for action, line in said.items()
        if line.startswith("not ours") or len(line.splitlines()) > 1 or len(line) > 3000
    }
    assert not strange
    assert any(re.search(EXPECTED[name], line) for line in said.values()), said
    assert told[name]["unchanged"]
    assert told[name]["kept"]


def test_terminals_are_not_steered(tmp_path):
    out, err = run("status", tmp_path / "a\x1b[2J\u202eb", code=1)
    assert not out
    assert "a\\x1b[2J\\u202eb" in err
    assert err.rstrip("\n").isprintable()
    assert plain("a\x07b\u2028c é 漢") == "a\\x07b\\u2028c é 漢"
