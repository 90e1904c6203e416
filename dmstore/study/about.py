"""What a study says of itself: title, authors, licence, citation. The newest document wins."""

from __future__ import annotations

import re
from typing import cast

from dmstore.schema.documents import load_document
from dmstore.schema.typed_documents import AboutDocument
from dmstore.storage.objects.objects import Objects

_STATED = ("title", "authors", "licence", "citation", "doi")


def about_names(objects: Objects) -> list[str]:
    """Names of the about documents, oldest first; whatever else lies there is somebody's own."""
    names = [n for n in objects.children("about/") if re.fullmatch(r"[0-9]{4,18}\.json", n)]
    return sorted(names, key=lambda name: int(name.removesuffix(".json")))


def read_about(objects: Objects) -> AboutDocument:
    """The newest about document's ``title``, ``authors``, ``licence``, ``citation``, ``doi``."""
    names = about_names(objects)
    if not names:
        return {}
    where = f"about/{names[-1]}"
    document = load_document("about", objects.get(where), where)
    stated = {key: document.get(key) for key in _STATED if document.get(key)}
    return cast(AboutDocument, stated)


def updated(before: AboutDocument, stated: AboutDocument) -> AboutDocument:
    """What a study says of itself once some of it is stated anew; what is empty is not."""
    return cast(AboutDocument, {**before, **{key: v for key, v in stated.items() if v}})
