"""The types of the documents are those of the schemas, and a type checker takes them at their word."""

import copy
import importlib.util
import re
import subprocess
import sys
import types
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
from paths import ROOT

from dmstore.schema import typed_documents

spec = importlib.util.spec_from_file_location(
    "generator_of_types", ROOT / "docs/typed_documents.py"
)
generator = importlib.util.module_from_spec(spec)
spec.loader.exec_module(generator)

SCHEMAS = generator.schemas()
MODULES = generator.modules(SCHEMAS)
PLAIN = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}


@pytest.mark.parametrize("name", MODULES)
def test_the_modules_are_made_of_the_schemas(name):
    text = (ROOT / "dmstore/schema" / name).read_text(encoding="utf-8")
    assert text == MODULES[name], "run 'python docs/typed_documents.py --write'"


# Without the generator: what the types say, back in the words of a schema


def said_by(hint):
    """What a schema says of a value of this type."""
    parts = get_args(hint)
    if get_origin(hint) is types.UnionType:
        entries = [said_by(part) for part in parts]
        merged = {key: value for entry in entries for key, value in entry.items()}
        return {**merged, "type": [entry["type"] for entry in entries]}
    if get_origin(hint) is Literal:
        return {"enum": list(parts)}
    if hint in PLAIN:
        return {"type": PLAIN[hint]}
    if get_origin(hint) is list:
        return {"type": "array", "items": said_by(parts[0])}
    if get_origin(hint) is dict:
        free = {} if parts[1] is Any else {"additionalProperties": said_by(parts[1])}
        return {"type": "object", **free}
    hints = get_type_hints(hint)
    keys = {key: said_by(inner) for key, inner in hints.items()}
    return {"type": "object", "properties": keys, "required": sorted(hint.__required_keys__)}


def bare(entry):
    """A schema without what no type says: bounds, patterns, descriptions."""
    kept = {key: entry[key] for key in ("type", "enum") if key in entry}
    for key in ("items", "additionalProperties"):
        if key in entry:
            kept[key] = bare(entry[key])
    if "properties" in entry:
        kept["properties"] = {key: bare(inner) for key, inner in entry["properties"].items()}
        kept["required"] = sorted(entry.get("required", ()))
    return kept


@pytest.mark.parametrize("kind", SCHEMAS)
def test_a_type_says_what_its_schema_says(kind):
    wanted = bare(SCHEMAS[kind])
    for key in generator.HEAD:
        del wanted["properties"][key]
        wanted["required"].remove(key)
    name = f"{''.join(part.capitalize() for part in kind.split('_'))}Document"
    assert said_by(getattr(typed_documents, name)) == wanted


# A schema that changes


def objects_in(entry):
    """An entry of a schema and those inside it, as far as they are objects with stated keys."""
    if "properties" in entry:
        yield entry
    inner = [*entry.get("properties", {}).values()]
    inner += [entry[key] for key in ("items", "additionalProperties") if key in entry]
    for one in inner:
        yield from objects_in(one)


def gain(entry, key):
    entry["properties"]["of_later_days"] = {"type": "string"}


def lose(entry, key):
    del entry["properties"][key]


def retype(entry, key):
    wider = {"type": ["boolean", "null"]}
    entry["properties"][key] = wider if entry["properties"][key] != wider else {"type": "string"}


def require_or_not(entry, key):
    required = entry.get("required", [])
    left = [name for name in required if name != key]
    entry["required"] = left if key in required else [*required, key]


def choose_more(entry, key):
    entry["properties"][key]["enum"].append("another")


PLACES = [
    (kind, number, key)
    for kind, schema in SCHEMAS.items()
    for number, entry in enumerate(objects_in(schema))
    for key in entry["properties"]
    if key not in generator.HEAD
]


@pytest.mark.parametrize("change", [gain, lose, retype, require_or_not, choose_more])
def test_another_schema_makes_other_types(change):
    changed = 0
    for kind, number, key in PLACES:
        schemas = copy.deepcopy(SCHEMAS)
        entry = list(objects_in(schemas[kind]))[number]
        if change is choose_more and "enum" not in entry["properties"][key]:
            continue
        change(entry, key)
        changed += 1
        assert generator.modules(schemas) != MODULES, (kind, number, key)
    assert changed > 1


def test_what_has_no_type_is_refused():
    schemas = copy.deepcopy(SCHEMAS)
    schemas["tag"]["properties"]["name"] = {"type": "decimal"}
    with pytest.raises(ValueError, match=r"tag\.name: type 'decimal'"):
        generator.modules(schemas)


# A type checker


# Each line that is wrong, with what is to be said of it.
CHECKED = """
from dmstore.schema.documents import dump_document, load_document
from dmstore.schema.typed_documents import TagDocument

fit = load_document("fit", b"", "here")
fit["content"]  # TypedDict "FitDocument" has no key "content"
fit["runs"]["test"]  # TypedDict "FitRuns" has no key "test"
fit["version"] + "1"  # Unsupported operand types
fit["runs"]["eval"] + fit["version"]
load_document("fitt", b"", "here")  # No overload variant
load_document("algorithm", b"", "here")["sampling"] == "planed"  # Non-overlapping equality check
load_document("algorithm", b"", "here")["sampling"] == "planned"
tag: TagDocument = {"name": "a", "version": 1, "base": "b"}  # Missing key "content_id"
tag = {"name": "a", "version": 1, "base": "b", "content_id": "c", "run": 1}  # Extra key "run"
dump_document("tag", fit)  # No overload variant
dump_document("tag", tag)
"""


def test_a_type_checker_sees_a_misspelt_key(tmp_path):
    pytest.importorskip("mypy")
    snippet = tmp_path / "snippet.py"
    snippet.write_text(CHECKED)
    modules = [ROOT / "dmstore/schema" / name for name in ("documents.py", *MODULES)]
    # These modules alone: what is checked here needs none of what they import.
    options = ["--strict", "--config-file=", "--follow-imports=skip", "--no-site-packages"]
    options += ["--cache-dir", str(tmp_path / "cache"), "--hide-error-context"]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *options, *map(str, modules), str(snippet)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    found = dict(re.findall(r"snippet\.py:(\d+): error: (.*)", done.stdout))
    wanted = {
        str(number): line.partition("  # ")[2]
        for number, line in enumerate(CHECKED.splitlines(), 1)
        if "  # " in line
    }
    assert found.keys() == wanted.keys(), done.stdout + done.stderr
    for number, text in wanted.items():
        assert text in found[number]
