"""What our own exports say of themselves, so that ingest takes them back as what they were.

Other tools' layouts have names of their own (``masks``, ``val_margins``), and no place for run ids or for what an
output means. ``dmstore.json`` beside them, or the metadata of a ``.safetensors`` file, says both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dmstore.core import strictjson
from dmstore.errors import InputError
from dmstore.readers.files import check_inside
from dmstore.readers.source import Request, T

NAME = "dmstore.json"
_LONGEST = 1 << 24
# What exports were called before they said it.
_FORMER = {"masks": "mask", "margins": "margin"}


@dataclass(frozen=True)
class Export:
    """What an export says of its arrays.

    Attributes
    ----------
    outputs : mapping
        Name to declaration.
    names : mapping
        Key in the export to the name here.
    """

    outputs: Mapping[str, Mapping[str, Any]]
    names: Mapping[str, str]

    def own(self, arrays: Mapping[str, T], request: Request) -> tuple[dict[str, T], Request]:
        """Arrays by their names here, and the request that asks for all outputs.

        Where the user names arrays, the arrays keep their keys.
        """
        if request.outputs or request.mask:
            return dict(arrays), request
        named = {self.names.get(key, key): array for key, array in arrays.items()}
        without = {self.names.get(key, key) for key in request.without}
        wanted = {name: name for name in self.outputs if name not in without}
        return named, replace(request, outputs=wanted)


def of_folder(folder: Path) -> Export | None:
    """What a folder's ``dmstore.json`` says; None where there is none.

    Raises
    ------
    InputError
        If it is damaged, or a link out of the folder.
    """
    where = folder / NAME
    if not where.is_file():
        return None
    check_inside(where, folder)
    try:
        document = strictjson.parse(where.read_bytes(), _LONGEST)
    except (OSError, ValueError) as error:
        raise _damaged(str(where), error) from None
    return of_document(document, str(where))


def of_texts(texts: Mapping[str, str], where: str) -> Export | None:
    """What the metadata of a ``.safetensors`` file says; None where it is not one of ours.

    Raises
    ------
    InputError
        If it is damaged.
    """
    if not {"about", "dims"} <= texts.keys():
        return None
    try:
        document = strictjson.parse(texts["about"].encode(), _LONGEST)
        names = strictjson.parse(texts.get("arrays", "{}").encode(), _LONGEST)
    except ValueError as error:
        raise _damaged(where, error) from None
    if not isinstance(document, dict) or not isinstance(document.get("outputs"), dict):
        return None
    return of_document({**document, "arrays": names}, where)


def of_document(document: Any, where: str) -> Export:
    """An export by its document.

    Raises
    ------
    InputError
        If it is no such document.
    """
    try:
        outputs = {str(name): dict(entry) for name, entry in document["outputs"].items()}
        former = {"val_margins": document["output"]} if "output" in document else _FORMER
        names = {str(key): str(name) for key, name in document.get("arrays", former).items()}
        if "output" in document:
            outputs = {document["output"]: outputs[document["output"]]}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _damaged(where, error) from None
    if len(set(names.values())) != len(names):
        raise _damaged(where, ValueError("two arrays of one name"))
    return Export(outputs, names)


def _damaged(where: str, error: Exception) -> InputError:
    short = " ".join(f"{type(error).__name__}: {error}".split())[:120]
    return InputError(
        f"{where}: does not say what an export of dmstore says ({short}); export again, or remove it"
    )
