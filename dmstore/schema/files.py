"""The files of ``store_schemas/``, read once."""

from __future__ import annotations

import functools
import importlib.resources
import json
from typing import Any


@functools.cache
def read_schema(name: str) -> Any:
    """The content of a file of ``store_schemas/``."""
    path = importlib.resources.files("dmstore.store_schemas").joinpath(name)
    return json.loads(path.read_text(encoding="utf-8"))
