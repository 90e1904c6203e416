"""What a published study says of itself: about, README.md and CITATION.cff."""

from __future__ import annotations

import json
from collections.abc import Mapping

from dmstore.schema.documents import dump_document
from dmstore.schema.typed_documents import (
    AboutDocument,
    IndexAlgorithm,
    StudyDocument,
    StudyTarget,
)
from dmstore.storage.objects.objects import Objects
from dmstore.study.about import about_names, read_about, updated


def about_items(objects: Objects, stated: AboutDocument) -> tuple[dict[str, bytes], list[str]]:
    """A further about document if `stated` says something new, and the names of those there are."""
    names = about_names(objects)
    before = read_about(objects)
    after = updated(before, stated)
    new = {}
    if after != before or not names:
        number = int(names[-1].removesuffix(".json")) + 1 if names else 1
        # No time in it: publishing again gives the same bytes.
        new[f"about/{number:04d}.json"] = dump_document("about", after)
    return new, [f"about/{name}" for name in names]


def readme(
    about: AboutDocument,
    study: StudyDocument,
    sets: Mapping[str, StudyTarget],
    algorithms: Mapping[str, IndexAlgorithm],
    size: int,
    bases: Mapping[str, str],
    *,
    ids: bool,
    images: bool,
) -> bytes:
    """The page for people who find the study without dmstore."""
    title = _line(about.get("title") or f"dmstore study {study['uuid'][:8]}")
    targets = ", ".join(f"{entry['count']} targets ({name})" for name, entry in sets.items())
    lines = [
        f"# {title}",
        "",
        "Runs of learning algorithms on random subsets of one training set, in the format of dmstore:",
        "what each trained model saw (`mask`), what it said on every target, and what was fitted on that.",
        "",
        f"- {study['train']['count']} train units, {targets}, {size / 1e6:.1f} MB",
        f"- licence: {_line(about.get('licence') or 'not stated; ask the authors')}",
    ]
    if about.get("authors"):
        lines.append(f"- authors: {_line(', '.join(about['authors']))}")
    if about.get("doi"):
        lines.append(f"- doi: {_line(about['doi'])}")
    if not ids:
        lines.append(
            "- ids are withheld: examples are known by their positions; `study.json` has a sha256 of the ids, so that holders of the same ids can check them"
        )
    if not images:
        lines.append("- images are left out")
    lines += ["", "| algorithm | runs | version | content id |", "|---|---|---|---|"]
    lines += [
        f"| {name} | {entry['runs']} | {entry['version']} | {entry['content_id'] or '-'} |"
        for name, entry in algorithms.items()
    ]
    if about.get("citation"):
        lines += ["", "How to cite:", "", f"> {_line(about['citation'])}"]
    lines += [
        "",
        "With dmstore (`pip install 'dmstore[remote]'`), from this directory, archive or URL:",
        "",
        "```python",
        "import dmstore",
        "",
        'study = dmstore.open_study("URL or path")',
        "```",
        "",
        "`dmstore pull SRC STUDY` makes a verified copy that can be extended; `dmstore verify` checks this",
        "one against `index.json`, which lists every object with its length and sha256.",
    ]
    if bases:
        name, base = next(iter(bases.items()))
        lines += [
            "",
            "Without it: every group is plain zarr version 3.",
            "",
            "```python",
            "import xarray",
            "",
            f'runs = xarray.open_zarr("{base}")  # {name}: mask (run, train), outputs (run, target)',
            "```",
        ]
    return ("\n".join(lines) + "\n").encode()


def citation(about: AboutDocument, study: StudyDocument) -> bytes | None:
    """A ``CITATION.cff``, or None where no authors are stated, which such a file must have."""
    if not about.get("authors"):
        return None
    lines = [
        "cff-version: 1.2.0",
        "message: Please cite this data set as stated here.",
        "type: dataset",
        f"title: {json.dumps(_line(about.get('title') or 'dmstore study ' + study['uuid']))}",
        "authors:",
        *(f"  - name: {json.dumps(_line(name))}" for name in about["authors"]),
    ]
    if about.get("doi"):
        lines.append(f"doi: {json.dumps(_line(about['doi']))}")
    # Every string of JSON is one of YAML.
    return ("\n".join(lines) + "\n").encode()


def _line(text: str) -> str:
    return " ".join(text.split())
