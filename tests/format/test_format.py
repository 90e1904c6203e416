"""The format as it is stated: schema files, the page that is made from them, documents of real stores."""

from __future__ import annotations

import copy
import importlib.util
import json
import re
import tarfile
import zipfile

import jsonschema
import numpy as np
import pytest
from helpers import examples as small_examples
from paths import ROOT

import dmstore
from dmstore.errors import FormatError
from dmstore.schema.documents import FORMAT_VERSION, dump_document, load_document
from dmstore.schema.names import reserved_names
from dmstore.sharing.publishing import publish
from dmstore.storage.table.rows import MAX_RUN
from dmstore.study import failures
from dmstore.study import removal as removals
from dmstore.study.claims import Claims
from dmstore.training import RunWriter

SCHEMAS = ROOT / "store_schemas"
FILES = {path.name: json.loads(path.read_text()) for path in SCHEMAS.glob("*.json")}
DOCUMENTS = {
    name.removesuffix(".document.json"): content
    for name, content in FILES.items()
    if name.endswith(".document.json")
}
GROUPS = {
    name.removesuffix(".group.json"): content
    for name, content in FILES.items()
    if name.endswith(".group.json")
}
PAGE = ROOT / "docs/reference/format.md"


def test_the_tables_of_the_page_are_those_of_the_schemas():
    spec = importlib.util.spec_from_file_location("tables", ROOT / "docs/tables.py")
    tables = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tables)
    text = PAGE.read_text(encoding="utf-8")
    assert tables.page(text) == text, "run 'python docs/tables.py --write'"
    for kind in (*DOCUMENTS, *GROUPS):
        assert f"#### {kind}\n" in text
    for key in ("`train.sha256`", "`outputs.*.dims[]`", "`objects[].sha256`", "`lam_path`"):
        assert key in text


def test_the_page_links_every_schema_and_its_own_sections():
    text = PAGE.read_text(encoding="utf-8")
    linked = set(re.findall(r"\(\.\./\.\./store_schemas/([^)]+)\)", text))
    assert linked == {n for n in FILES if n not in ("outputs.json", "group.schema.json")}
    headings = re.findall(r"^##+ (.+)$", text, re.M)
    anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    assert set(re.findall(r"\]\(#([^)]+)\)", text)) <= anchors


def test_numbers_of_the_page_are_those_of_the_code():
    """What no schema says and the page does."""
    from dmstore.sharing import pulling
    from dmstore.storage.table import segment
    from dmstore.study import algorithm, plan

    text = " ".join(PAGE.read_text(encoding="utf-8").split())
    assert f"`eval` where u < {plan.EVAL_SHARE:.2f}" in text
    assert f"`holdout` where u < {plan.EVAL_SHARE:.2f} + {plan.HOLDOUT_SHARE:.2f}" in text
    assert MAX_RUN == 2**62
    assert f"dmstore writes {segment.MAX_ROWS} rows at most" in text
    assert pulling.MOST_BRANCHES == 2**29
    assert algorithm.ANCHOR == "study.json"
    names = set(re.findall(r"`([a-z_]+)`", text.split("Neither may be (case aside)")[1][:500]))
    assert reserved_names() <= names


# The schema files themselves


@pytest.mark.parametrize("kind", DOCUMENTS)
def test_document_schemas_are_schemas(kind):
    found = DOCUMENTS[kind]
    jsonschema.Draft202012Validator.check_schema(found)
    assert found["$schema"] == jsonschema.Draft202012Validator.META_SCHEMA["$id"]
    assert found["title"] == kind
    assert found["properties"]["kind"] == {"const": kind}
    assert {"format_version", "kind"} <= set(found["required"]) <= set(found["properties"])
    # A minor version may add keys anywhere.
    assert '"additionalProperties": false' not in json.dumps(found)


def test_the_schema_of_groups_is_a_schema():
    jsonschema.Draft202012Validator.check_schema(FILES["group.schema.json"])


def check_group(content):
    jsonschema.Draft202012Validator(FILES["group.schema.json"]).validate(content)


@pytest.mark.parametrize("kind", GROUPS)
def test_groups_are_what_the_schema_of_groups_says(kind):
    found = GROUPS[kind]
    check_group(found)
    assert (found["kind"], found["format_version"]) == (kind, FORMAT_VERSION)
    for entry in found["arrays"].values():
        for lengths in ("chunks", "shards"):
            assert "*" in entry["dims"] or set(entry.get(lengths, {})) <= set(entry["dims"])
        for dim, length in entry.get("shards", {}).items():
            assert length == "all" or length % entry["chunks"][dim] == 0
    assert set(FILES["codecs.json"]["codecs"]) == {"bits", "bytes"}


WRONG = {
    "dtype": ("mask", {"dtype": "float128"}),
    "fill of integers": ("run", {"fill": 0.5}),
    "fill of texts": ("host", {"fill": None}),
    "codec of texts": ("host", {"codec": "bytes"}),
    "no codec": ("run", {"codec": None}),
    "bits of numbers": ("time", {"codec": "bits"}),
    "role": ("run", {"role": "output"}),
    "no dims": ("run", {"dims": []}),
    "dims twice": ("mask", {"dims": ["run", "run"]}),
    "chunk of 0": ("mask", {"chunks": {"run": 0}}),
    "unknown key": ("run", {"compression": "none"}),
    "no full stop": ("run", {"doc": "Run id"}),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_groups_are_seen(case):
    name, change = WRONG[case]
    found = copy.deepcopy(GROUPS["runs"])
    found["arrays"][name].update(change)
    with pytest.raises(jsonschema.ValidationError):
        check_group(found)


@pytest.mark.parametrize("key", ["key", "kind", "arrays", "output_layout", "columns"])
def test_groups_need_their_keys(key):
    found = {name: value for name, value in GROUPS["runs"].items() if name != key}
    with pytest.raises(jsonschema.ValidationError):
        check_group(found)


# Documents of real stores


def paths_of(entry, path=()):
    """Paths of all required keys: names, ``*`` for any key, ``[]`` for any item."""
    for key, inner in entry.get("properties", {}).items():
        if key in entry.get("required", ()):
            yield (*path, key)
        yield from inside(inner, (*path, key))


def inside(entry, path):
    yield from paths_of(entry, path)
    if isinstance(entry.get("additionalProperties"), dict):
        yield from inside(entry["additionalProperties"], (*path, "*"))
    if "items" in entry:
        yield from inside(entry["items"], (*path, "[]"))


REQUIRED = [(kind, path) for kind in sorted(DOCUMENTS) for path in paths_of(DOCUMENTS[kind])]


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    """All documents of the archived stores of format 1.0, by kind, and of what came after them."""
    folder = tmp_path_factory.mktemp("documents")
    with tarfile.open(ROOT / "tests/archives/v1.0/stores.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    raw = [path.read_bytes() for path in folder.rglob("*.json") if path.name != "zarr.json"]
    for path in folder.rglob("*.zip"):
        with zipfile.ZipFile(path) as archive:
            raw += [archive.comment] if archive.comment else []
            raw += [archive.read(name) for name in archive.namelist() if name == "index.json"]
    study = dmstore.create_study(folder / "later", small_examples(), seed=1)
    study.add_algorithm("a").give_task("module:function", {"epochs": 1})
    study.remove_algorithm("a", reason="a test")
    study.restore_algorithm("a")
    algorithm = study.algorithm("a")
    own = (study.objects, algorithm.prefix, algorithm.uuid)
    failures.record(*own, 3, failures.one_line(ValueError("a\nb")))
    assert Claims(*own, 2).claim(0, 1, [0, 1])
    raw += [path.read_bytes() for path in folder.glob("later/algorithms/a/*/*.json")]
    classes = len(study.class_names) or study.document["classes"]
    with RunWriter(study, "a", full=1) as writer:
        for run in writer.pending():
            count = study.document["targets"]["test"]["count"]
            writer.append(run, margin=np.zeros(count), logit=np.zeros((count, classes)))
    removal = removals.stated([1, 2], 3, algorithm.uuid)
    removals.add(study.objects, algorithm.prefix, removal)
    raw += [path.read_bytes() for path in folder.glob("later/algorithms/a/removals/*/*.json")]
    with RunWriter(study, "a", removal=removal["removal"], models=1) as writer:
        for run in writer.pending():
            writer.append(run, margin=np.zeros(count))
    publish(study, folder / "published")
    raw.append((folder / "published" / "index.json").read_bytes())
    found = {kind: [] for kind in DOCUMENTS}
    for document in map(json.loads, raw):
        found[document["kind"]].append(document)
    return found


def load(document):
    return load_document(document["kind"], json.dumps(document).encode(), "here")


@pytest.mark.parametrize("kind", sorted(DOCUMENTS))
def test_documents_of_a_real_study_are_valid(examples, kind):
    assert examples[kind]
    for document in examples[kind]:
        assert load(document) == document
        stated = {k: v for k, v in document.items() if k not in ("kind", "format_version")}
        assert json.loads(dump_document(kind, stated)) == document
        assert load({**document, "of_later_days": 1})["of_later_days"] == 1


def take(value, path):
    """The objects that hold the last key of a path."""
    if len(path) == 1:
        return [value]
    inner = []
    if path[0] == "[]":
        inner = value
    elif path[0] == "*":
        inner = list(value.values())
    elif isinstance(value.get(path[0]), dict | list):
        inner = [value[path[0]]]
    return [found for one in inner for found in take(one, path[1:])]


@pytest.mark.parametrize(("kind", "path"), REQUIRED, ids=lambda value: str(value))
def test_a_document_without_a_required_key_is_refused(examples, kind, path):
    having = [document for document in examples[kind] if take(document, path)]
    assert having
    for document in having:
        broken = copy.deepcopy(document)
        del take(broken, path)[0][path[-1]]
        with pytest.raises(FormatError, match=r"^here: ") as caught:
            load_document(kind, json.dumps(broken).encode(), "here")
        assert path[-1] in str(caught.value)


@pytest.mark.parametrize("kind", sorted(DOCUMENTS))
def test_documents_of_another_kind_or_version_are_refused(examples, kind):
    document = examples[kind][0]
    other = "plan" if kind != "plan" else "study"
    with pytest.raises(FormatError, match="here"):
        load_document(other, json.dumps(document).encode(), "here")
    with pytest.raises(FormatError, match=r"store format 2\.0.*install a dmstore that reads"):
        load({**document, "format_version": "2.0"})
    for bad in (None, 1, "1", "one", "1.0.0"):
        with pytest.raises(FormatError, match="no valid format_version"):
            load({**document, "format_version": bad})
