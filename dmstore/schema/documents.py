"""Documents: JSON that is held to its file in ``store_schemas/`` when it is written and when it is read."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping
from typing import Any

from dmstore.core import strictjson, validation
from dmstore.errors import FormatError, plain
from dmstore.schema.files import read_schema
from dmstore.schema.typed_functions import dumps_by_kind, loads_by_kind

FORMAT_VERSION = "1.0"


def check_version(payload: Mapping[str, Any], where: str) -> None:
    """Refuse an unknown major format version.

    Raises
    ------
    FormatError
        Naming the place, its version and the version that this software reads.
    """
    version = payload.get("format_version")
    if not isinstance(version, str) or not re.fullmatch(r"[0-9]+\.[0-9]+", version):
        msg = f"{where}: no valid format_version, so this is not a dmstore file or it is damaged"
        raise FormatError(msg)
    if version.split(".")[0] != FORMAT_VERSION.split(".")[0]:
        msg = (
            f"{where}: written in store format {version}, this dmstore reads format "
            f"{FORMAT_VERSION}; install a dmstore that reads format {version.split('.')[0]}"
        )
        raise FormatError(msg)


@dumps_by_kind
def dump_document(kind: str, payload: Mapping[str, Any]) -> bytes:
    """Bytes of a document, checked against its schema before anything is written.

    For type checkers the kind says what the payload must be: see :mod:`dmstore.schema.typed_documents`.
    """
    document = {"format_version": FORMAT_VERSION, "kind": kind, **payload}
    _check_document(kind, document, f"new {kind} document")
    return (json.dumps(document, indent=2, sort_keys=True, allow_nan=False) + "\n").encode()


@loads_by_kind
def load_document(kind: str, raw: bytes, where: str, *, lists: tuple[str, ...] = ()) -> Any:
    """Parse and check a stored document.

    Parameters
    ----------
    kind : str
        Name of a ``*.document.json``.
    raw : bytes
    where : str
        For error texts.
    lists : tuple of str
        Long lists, of which only the first item is checked here: the caller checks the rest, faster.

    Returns
    -------
    dict
        What the document says. For type checkers it has the type of the kind, as in
        :mod:`dmstore.schema.typed_documents`.

    Raises
    ------
    FormatError
        If it is no JSON object, of another format version, or breaks its schema.
    """
    try:
        document = strictjson.parse(raw)
    except ValueError as error:
        msg = f"{where}: not valid JSON ({error}); the file is damaged, restore it from a copy"
        raise FormatError(msg) from None
    if not isinstance(document, dict):
        msg = f"{where}: not a JSON object, so this is not a dmstore document"
        raise FormatError(msg)
    check_version(document, where)
    short = {key: document[key][:1] for key in lists if isinstance(document.get(key), list)}
    _check_document(kind, {**document, **short}, where)
    return document


def _check_document(kind: str, document: Mapping[str, Any], where: str) -> None:
    import jsonschema

    validator = _validator(kind)
    error = next(
        iter(sorted(validator.iter_errors(document), key=lambda e: list(map(str, e.path)))), None
    )
    if isinstance(error, jsonschema.ValidationError):
        place = "/".join(str(part) for part in error.path) or "document"
        # Names and values of strangers, of any length.
        msg = f"{where}: {plain(place)[:100]}: {plain(error.message)[:300]}"
        raise FormatError(msg)


@functools.cache
def _validator(kind: str) -> Any:
    return validation.validator(read_schema(f"{kind}.document.json"))
