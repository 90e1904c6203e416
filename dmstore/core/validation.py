"""JSON Schema as it is meant: Python's own integers, and patterns that end where they say."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any


def validator(document_schema: Any) -> Any:
    """A validator of JSON Schema 2020-12 that takes nothing which Python would take otherwise."""
    import jsonschema

    def is_integer(_: Any, value: Any) -> bool:
        # Not 1.0, which JSON Schema takes for an integer.
        return type(value) is int

    def pattern(_: Any, wanted: str, value: Any, __: Any) -> Iterator[jsonschema.ValidationError]:
        # In Python alone '$' stands before a newline at the end too.
        if isinstance(value, str) and not re.search(re.sub(r"\$$", r"\\Z", wanted), value):
            yield jsonschema.ValidationError(f"{value!r} does not match {wanted!r}")

    base: Any = jsonschema.Draft202012Validator
    extend: Any = jsonschema.validators.extend
    checker = base.TYPE_CHECKER.redefine("integer", is_integer)
    return extend(base, {"pattern": pattern}, type_checker=checker)(document_schema)
