"""Every Python and shell block of the README and of the documentation runs, or says why not.

A comment right before a block says what is to be known of it:

- ``<!-- not run: WHY -->``: it is left out;
- ``<!-- run with: OLD -> NEW -->``: smaller numbers, so that it takes seconds.

``<!-- starts with: digits -->`` anywhere in a page puts a small study of two fitted and compared algorithms,
``digits.dm``, where the blocks run. The blocks of a page run in order in one folder; Python blocks with no shell block
between them are one session.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from paths import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
_BLOCK = re.compile(
    r"(?P<notes>(?:^<!-- [^\n]* -->\n+)*)^```(?P<kind>python|bash|shell|sh|console|pycon)\n(?P<code>.*?)^```$",
    re.M | re.S,
)


def blocks(page):
    """Kind and code of the blocks of a page that are to be run, those that are one session together."""
    found = []
    for match in _BLOCK.finditer(page.read_text(encoding="utf-8")):
        notes, kind, code = match["notes"], match["kind"], match["code"]
        if re.search(r"<!-- not run: \S.* -->", notes):
            continue
        for old, new in re.findall(r"<!-- run with: (.*?) -> (.*?) -->", notes):
            assert old in code, (page, old)
            code = code.replace(old, new)
        if kind == "python" and found and found[-1][0] == "python":
            found[-1] = (kind, found[-1][1] + code)
        else:
            found.append((kind, code))
    return found


RUN = [page for page in PAGES if blocks(page)]


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    """A study of two algorithms on scikit-learn's digits, with few runs, fitted and compared."""
    folder = tmp_path_factory.mktemp("digits")
    run(
        folder,
        "bash",
        """
        python -m dmstore.demo digits.npz
        dmstore init digits.dm digits.npz --seed 0
        dmstore add digits.dm plain --runs 180 --task dmstore.training.tasks:dense
        dmstore add digits.dm pasted --runs 180 --task dmstore.training.tasks:dense --config paste_share=.5
        for name in plain pasted; do
          dmstore train digits.dm $name -Q
          dmstore fit digits.dm $name -Q
        done
        dmstore compare digits.dm plain pasted -Q
        """,
    )
    return folder / "digits.dm"


def run(folder, kind, code):
    """Run one block as a reader would."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    command = (
        [sys.executable, "-W", "error", "-c", code]
        if kind == "python"
        else ["bash", "-euo", "pipefail", "-c", code]
    )
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{code}\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("page", RUN, ids=lambda page: str(page.relative_to(ROOT)))
def test_blocks_run_as_they_stand(page, tmp_path, request):
    if "<!-- starts with: digits -->" in page.read_text(encoding="utf-8"):
        shutil.copytree(request.getfixturevalue("digits"), tmp_path / "digits.dm")
    for kind, code in blocks(page):
        assert kind in ("python", "bash"), f"{page}: say ```bash or ```python, not ```{kind}"
        run(tmp_path, kind, code)
