"""What the README says is run as it stands there."""

import re

import pytest
from paths import ROOT

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


def prose(document):
    """A document without its code, where brackets and signs mean other things."""
    return re.sub(r"^```.*?^```$", "", document.read_text(encoding="utf-8"), flags=re.M | re.S)


def anchors(document):
    """Anchors of a document's headings, as the site and GitHub make them."""
    names = re.findall(r"^#{1,3} (.*)$", prose(document), re.M)
    names = [re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", name) for name in names]
    return {re.sub(r"[^\w\- ]", "", name.lower()).strip().replace(" ", "-") for name in names}


DOCUMENTS = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md")))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_in_the_documents_exist(document):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(document)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        linked = document.parent / path if path else document
        assert linked.exists(), target
        if anchor and linked.suffix == ".md":
            assert anchor in anchors(linked), target
