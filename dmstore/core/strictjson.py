"""JSON from anywhere: bounded before it is parsed, and one document whoever reads it.

Nothing is taken that another parser could read as something else: names that stand there twice, NaN,
numbers that no float holds, half of a surrogate pair.
"""

from __future__ import annotations

import json
import math
from typing import Any

# The longest document: a log entry with half a million retracted rows.
LONGEST = 1 << 26
# A value takes some hundred bytes of memory, however few it takes in the text.
MOST_VALUES = 1 << 21
_DEEPEST = 64
_TOO_DEEP = f"more than {_DEEPEST} levels of lists and objects"


def parse(raw: bytes, longest: int = LONGEST, most: int = MOST_VALUES) -> Any:
    """What a document says.

    Parameters
    ----------
    raw : bytes
        UTF-8.
    longest : int
        Bytes that such a document can have.
    most : int
        Values that it can have.

    Raises
    ------
    ValueError
        If it is no JSON, too long, too deep, or ambiguous.
    """
    if len(raw) > longest:
        msg = f"{len(raw)} bytes, and at most {longest} are read"
        raise ValueError(msg)
    openings = raw.count(b"[") + raw.count(b"{")
    if openings + raw.count(b",") > most:
        msg = f"more than {most} values"
        raise ValueError(msg)
    try:
        value = json.loads(
            raw.decode(),
            object_pairs_hook=_unique,
            parse_constant=_no_constant,
            parse_float=_finite,
        )
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    if openings > _DEEPEST and _is_deep(value):
        raise ValueError(_TOO_DEEP)
    # Half a surrogate pair can be escaped, and then is no text that could be printed or stored.
    if b"\\ud" in raw or b"\\uD" in raw:
        json.dumps(value, ensure_ascii=False).encode()
    return value


def _is_deep(document: Any) -> bool:
    level = [document] if isinstance(document, dict | list) else []
    for _ in range(_DEEPEST):
        level = [
            child
            for node in level
            for child in (node.values() if isinstance(node, dict) else node)
            if isinstance(child, dict | list)
        ]
    return bool(level)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        msg = "a name stands there twice"
        raise ValueError(msg)
    return members


def _no_constant(name: str) -> None:
    msg = f"{name} is no JSON number"
    raise ValueError(msg)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        msg = f"{text[:40]} is no number that a float holds"
        raise ValueError(msg)
    return number
