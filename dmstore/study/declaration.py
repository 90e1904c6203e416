"""How an algorithm is declared: its outputs, checked when it is made and when it is opened."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from dmstore.errors import FormatError, InputError
from dmstore.schema import schema


def declare_outputs(
    outputs: Sequence[str] | Mapping[str, Mapping[str, Any]],
) -> dict[str, dict[str, Any]]:
    """Declarations of outputs from known names or from full entries.

    Parameters
    ----------
    outputs : sequence of str, or mapping
        ``["margin", "logit:float16"]``, or name to ``dtype``, ``dims``, ``function``,
        ``orientation`` and ``units``.

    Raises
    ------
    InputError
        For an unknown or reserved name.
    """
    if not outputs:
        msg = "an algorithm needs at least one output, such as 'margin'"
        raise InputError(msg)
    if isinstance(outputs, Mapping):
        declared = {name: dict(entry) for name, entry in outputs.items()}
    else:
        known = schema.known_outputs()
        declared = {}
        for text in outputs:
            name, _, dtype = text.partition(":")
            if name not in known:
                msg = (
                    f"output {name!r} is not known; use {', '.join(known)}, or declare it in Python"
                )
                raise InputError(msg)
            declared[name] = {**known[name], **({"dtype": dtype} if dtype else {})}
    for name, entry in declared.items():
        schema.check_column_name(name, "output")
        if list(entry.get("dims", ()))[:2] != ["run", "target"]:
            msg = f"output {name!r} has dims {entry.get('dims')}; they begin with run, target"
            raise InputError(msg)
    return declared


def check(document: Mapping[str, Any], name: str, sets: Collection[str], where: str) -> None:
    """Check a stored declaration as far as its schema does not.

    Parameters
    ----------
    document : mapping
        ``algorithm.json``.
    name : str
        Of the directory that it is in.
    sets : collection of str
        Target sets that the study was made with.
    where : str
        For error texts.

    Raises
    ------
    FormatError
        If it is of another algorithm or set, or could not have been made.
    """
    if document["name"] != name or document["target_set"] not in sets:
        msg = f"{where}: is of algorithm {document['name'][:40]!a} and target set {document['target_set'][:40]!a}, so it does not belong here; remove it"
        raise FormatError(msg)
    if document["sampling"] == "planned" and document["alpha"] is None:
        msg = f"{where}: planned sampling without an alpha; restore the file from a copy"
        raise FormatError(msg)
    try:
        declare_outputs(document["outputs"])
    except InputError as error:
        msg = f"{where}: {error}"
        raise FormatError(msg) from None
