"""What the README says is run as it stands there."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.M | re.S)


def test_first_two_blocks_are_the_two_commands():
    demo, tests = blocks("bash")[:2]
    for block in (demo, tests):
        assert block.count("\n") == 1
        assert block.startswith("python3 -m venv .venv && .venv/bin/pip install -q -e ")
    assert demo.rstrip().endswith(".venv/bin/dmstore demo")
    assert tests.rstrip().endswith(".venv/bin/python -m pytest -q")


@pytest.mark.parametrize("count", [60, pytest.param(600, marks=pytest.mark.slow)])
def test_steps_by_hand_and_notebook(tmp_path, count):
    """The commands of "The same by hand", then the Python of the sections after it."""
    script = blocks("bash")[2].replace(
        "--runs 600", f"--runs {count * 3 if count == 60 else count}"
    )
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "nothing wrong" in done.stdout
    assert (tmp_path / done.stdout.split()[-7]).name or "report.html" in done.stdout
    for code in blocks("python"):
        found = subprocess.run(
            [sys.executable, "-W", "error", "-c", code.replace("runs=30", "runs=4")],
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert found.returncode == 0, found.stderr


def test_links_in_the_documents_exist():
    for document in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
            if not target.startswith("http"):
                assert (document.parent / target).exists(), (document, target)
