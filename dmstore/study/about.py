"""What a study says of itself: title, authors, licence, citation. The newest document wins."""

from __future__ import annotations

from typing import Any

from dmstore.schema.documents import load_document
from dmstore.storage.objects.objects import Objects

_STATED = ("title", "authors", "licence", "citation", "doi")


def read_about(objects: Objects) -> dict[str, Any]:
    """The newest about document's ``title``, ``authors``, ``licence``, ``citation``, ``doi``."""
    names = [name for name in objects.children("about/") if name.endswith(".json")]
    if not names:
        return {}
    where = f"about/{max(names)}"
    document = load_document("about", objects.get(where), where)
    return {key: document[key] for key in _STATED if document.get(key)}
