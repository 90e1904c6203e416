"""Every Python and shell block of the README and of the documentation runs, or says why not.

A comment right before a block says what is to be known of it:

- ``<!-- not run: WHY -->``: it is left out;
- ``<!-- run with: OLD -> NEW -->``: smaller numbers, so that it takes seconds;
- ``<!-- file: NAME -->``: it is saved under that name, not run;
- ``<!-- needs: torch -->``: it is left out where that package is not installed.

``<!-- starts with: digits -->`` anywhere in a page puts a small study of two fitted and compared algorithms,
``digits.dm``, where the blocks run; ``<!-- needs: torch -->`` before the first heading holds for the whole page. The
blocks of a page run in order in one folder; Python blocks with no shell block between them are one session.
"""

import importlib.util
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


def missing(text):
    """Packages that a text says it needs, and that are not installed."""
    needed = re.findall(r"<!-- needs: (\w+) -->", text)
    return [name for name in needed if importlib.util.find_spec(name) is None]


def blocks(page):
    """Kind and code of the blocks of a page that are to be run, those that are one session together.

    A block that is to be saved has the name of its file in the place of the kind.
    """
    found = []
    for match in _BLOCK.finditer(page.read_text(encoding="utf-8")):
        notes, kind, code = match["notes"], match["kind"], match["code"]
        if re.search(r"<!-- not run: \S.* -->", notes):
            continue
        if missing(notes):
            continue
        for old, new in re.findall(r"<!-- run with: (.*?) -> (.*?) -->", notes):
            assert old in code, (page, old)
            code = code.replace(old, new)
        if name := re.search(r"<!-- file: (.*?) -->", notes):
            found.append((name[1], code))
            continue
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
        python -c "import numpy, dmstore.demo as d; numpy.savez('digits.npz', **{k: v[:200] if k.startswith('target') else v for k, v in d.digits().items()})"
        dmstore init digits.dm --examples digits.npz --seed 0
        dmstore add digits.dm plain --runs 180 --task dmstore.training.tasks:dense
        echo '{"paste_rows": [0, 1], "paste_columns": [0, 1], "paste_share": 0.5}' > pasted.json
        dmstore add digits.dm pasted --runs 180 --task dmstore.training.tasks:dense --config pasted.json
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
    text = page.read_text(encoding="utf-8")
    if absent := missing(re.split(r"^# ", text, maxsplit=1, flags=re.M)[0]):
        pytest.skip(f"needs {', '.join(absent)}")
    if "<!-- starts with: digits -->" in text:
        shutil.copytree(request.getfixturevalue("digits"), tmp_path / "digits.dm")
    for kind, code in blocks(page):
        if "." in kind:
            (tmp_path / kind).write_text(code, encoding="utf-8")
            continue
        assert kind in ("python", "bash"), f"{page}: say ```bash or ```python, not ```{kind}"
        run(tmp_path, kind, code)
