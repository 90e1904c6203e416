"""Makes the types of the documents from ``store_schemas/``: two modules of ``dmstore/schema/``.

python docs/typed_documents.py --write
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
SCHEMAS = ROOT / "store_schemas"
PLACE = ROOT / "dmstore/schema"
# Every document begins with these: ``dump_document`` adds them, ``load_document`` checks them.
HEAD = ("format_version", "kind")
_WIDTH = 100
_PLAIN = {
    "string": "str",
    "integer": "int",
    "number": "float",
    "boolean": "bool",
    "null": "None",
}
_TYPES = '''"""What each document says: a type a kind, made of ``store_schemas/``. Do not edit it by hand.

``python docs/typed_documents.py --write`` makes this module. A document has ``format_version`` and
``kind`` besides; ``dump_document`` adds them, and ``load_document`` checks them.
"""

from typing import Any, Literal, NotRequired, TypedDict

{values}


{objects}
'''
_FUNCTIONS = '''"""The types of ``dump_document`` and ``load_document``, kind by kind. Do not edit it by hand.

``python docs/typed_documents.py --write`` makes this module.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, Protocol, overload

from dmstore.schema.typed_documents import (
{names}
)

Lists = tuple[str, ...]


class DumpDocument(Protocol):
    """The type of ``dump_document``: each kind takes its own document."""

{dumps}


class LoadDocument(Protocol):
    """The type of ``load_document``: each kind gives its own document."""

{loads}


def dumps_by_kind(function: Callable[..., bytes]) -> DumpDocument:
    """The same function, with the types of :class:`DumpDocument`."""
    return function


def loads_by_kind(function: Callable[..., Any]) -> LoadDocument:
    """The same function, with the types of :class:`LoadDocument`."""
    return function
'''


def schemas() -> dict[str, dict[str, Any]]:
    """The schemas of all documents, by kind."""
    ending = ".document.json"
    return {
        path.name.removesuffix(ending): json.loads(path.read_text(encoding="utf-8"))
        for path in sorted(SCHEMAS.glob(f"*{ending}"))
    }


def modules(documents: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """The modules for some documents, by file name."""
    return {
        "typed_documents.py": Types(documents).text(),
        "typed_functions.py": _functions({kind: _document(kind) for kind in documents}),
    }


def _camel(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("_"))


def _document(kind: str) -> str:
    return f"{_camel(kind)}Document"


def _functions(names: Mapping[str, str]) -> str:
    dumps, loads = [], []
    for kind, name in names.items():
        key = f'kind: Literal["{kind}"]'
        dumps.append(_overload(f"self, {key}, payload: {name}", "bytes"))
        loads.append(_overload(f"self, {key}, raw: bytes, where: str, *, lists: Lists = ()", name))
    imports = "\n".join(f"    {name}," for name in sorted(names.values()))
    return _FUNCTIONS.format(names=imports, dumps="\n".join(dumps), loads="\n".join(loads))


def _overload(parameters: str, result: str) -> str:
    """A method, broken into lines where the formatter breaks it."""
    line = f"    def __call__({parameters}) -> {result}: ..."
    if len(line) > _WIDTH:
        line = f"    def __call__(\n        {parameters}\n    ) -> {result}: ..."
    return f"    @overload\n{line}"


class Types:
    """The types of some documents, each after those that it is made of.

    An object inside a document is a type too, called by the keys that lead to it; of what a list or an
    object with free keys holds, the name is that of one of them.
    """

    def __init__(self, documents: Mapping[str, Mapping[str, Any]]) -> None:
        self._values: dict[str, str] = {}
        self._objects: dict[str, str] = {}
        for kind, schema in documents.items():
            keys = {key: entry for key, entry in schema["properties"].items() if key not in HEAD}
            self._object(_document(kind), _camel(kind), kind, {**schema, "properties": keys})

    def text(self) -> str:
        """The module that states them."""
        values, objects = self._values.values(), self._objects.values()
        return _TYPES.format(values="\n".join(values), objects="\n\n\n".join(objects))

    def _object(self, name: str, prefix: str, path: str, schema: Mapping[str, Any]) -> str:
        lines = []
        for key, entry in schema["properties"].items():
            hint = self._hint(prefix + _camel(key), f"{path}.{key}", entry)
            required = key in schema.get("required", ())
            lines.append(f"    {key}: {hint if required else f'NotRequired[{hint}]'}")
        kind, _, inside = path.partition(".")
        said = schema.get("description", f"``{inside}`` of the document ``{kind}``.")
        head = f'class {name}(TypedDict):\n    """{said}"""\n\n'
        return self._add(self._objects, name, head + "\n".join(lines))

    def _hint(self, name: str, path: str, entry: Mapping[str, Any]) -> str:
        """The type of a value, which is called `name` if it is one that has a name."""
        if "enum" in entry:
            return self._choice(name, entry["enum"])
        types = entry.get("type", ())
        types = [types] if isinstance(types, str) else types
        return " | ".join(self._single(one, name, path, entry) for one in types) or "Any"

    def _single(self, one: str, name: str, path: str, entry: Mapping[str, Any]) -> str:
        if one in _PLAIN:
            return _PLAIN[one]
        if one == "object" and "properties" in entry:
            return self._object(name, name, path, entry)
        if one not in ("array", "object"):
            msg = f"{path}: type {one!r} is not known here"
            raise ValueError(msg)
        key, mark = ("items", "[]") if one == "array" else ("additionalProperties", ".*")
        held = entry.get(key)
        hint = self._hint(name.removesuffix("s"), path + mark, held) if held else "Any"
        return f"list[{hint}]" if one == "array" else f"dict[str, {hint}]"

    def _choice(self, name: str, values: list[str]) -> str:
        inner = ", ".join(json.dumps(value) for value in values)
        line = f"{name} = Literal[{inner}]"
        if len(line) > _WIDTH:
            line = f"{name} = Literal[\n    {inner}\n]"
        return self._add(self._values, name, line)

    def _add(self, known: dict[str, str], name: str, text: str) -> str:
        if name in (self._values.keys() | self._objects.keys()):
            msg = f"two types would be called {name}"
            raise ValueError(msg)
        known[name] = text
        return name


if __name__ == "__main__":
    for file, content in modules(schemas()).items():
        if sys.argv[1:] == ["--write"]:
            (PLACE / file).write_text(content, encoding="utf-8")
        else:
            sys.stdout.write(content)
