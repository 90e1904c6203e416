"""What the README says is run as it stands there."""

import re
import subprocess
import sys

import numpy as np
from helpers import Done
from paths import ROOT

import dmstore

# Longer texts belong to the pages of the site.
LINES = 130
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


def test_readme_is_short_and_its_picture_is_small():
    assert README.count("\n") <= LINES
    assert (ROOT / "docs" / "tutorial" / "page.png").stat().st_size < 150_000


def test_worked_examples_of_the_regression_page(tmp_path):
    page = (ROOT / "docs" / "explanation" / "fit.md").read_text()
    found = re.findall(r"^```python\n(.*?)^```$", page, re.M | re.S)
    assert len(found) == 2
    study = dmstore.create_study(
        tmp_path / "digits.dm",
        {"train_id": np.arange(30).astype(str), "target_id": np.arange(4).astype(str)},
        seed=0,
    )
    study.add_algorithm("plain", sampling="foreign")
    draw = np.random.default_rng(0)
    masks = draw.random((400, 30)) < 0.5
    np.savez(
        tmp_path / "runs.npz",
        run=np.arange(400),
        mask=masks,
        margin=masks @ draw.normal(size=(30, 4)),
    )
    assert Done("ingest", study.path, "plain", tmp_path / "runs.npz").returncode == 0
    for code in found:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", code],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr


def test_links_in_the_documents_exist():
    for document in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")):
        for target in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
            if not target.startswith("http"):
                assert (document.parent / target).exists(), (document, target)
