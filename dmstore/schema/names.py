"""What parts of a study, outputs and columns may be called."""

from __future__ import annotations

import functools
import re

from dmstore.errors import InputError
from dmstore.schema.group_specs import group_spec

NAME_RULE = "letters, digits, '.', '_' and single '-', not starting with '.' or '-'"


_NAME = re.compile(r"(?!.*--)[A-Za-z0-9_][A-Za-z0-9._-]{0,99}", re.ASCII)


_COLUMN = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,99}", re.ASCII)


def reserved_names() -> set[str]:
    """Names that an output or a per-run column of a run cannot have."""
    return {
        "train_label",
        "target_label",
        *group_spec("runs").arrays,
        "train",
        "target",
        "class",
        "byte",
        "split",
        "mask_packed",
        "study",
        "algorithm",
        "label",
    }


@functools.cache
def _reserved() -> frozenset[str]:
    return frozenset(taken.lower() for taken in reserved_names())


def check_name(name: str, what: str) -> str:
    """Return a valid name of a part of a study.

    Raises
    ------
    InputError
        If the name breaks the rule.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        msg = f"{what} name {name!r} is not allowed; use 1 to 100 {NAME_RULE}"
        raise InputError(msg)
    return name


def check_column_name(name: str, where: str) -> None:
    """Refuse a name that a per-run column or an output cannot have.

    Raises
    ------
    InputError
        If it is reserved (case aside) or not an identifier.
    """
    if name.lower() in _reserved():
        msg = f"{where}: {name!r} is a reserved name; call it something else"
        raise InputError(msg)
    if not _COLUMN.fullmatch(name):
        msg = f"{where}: the name {name!r} is not allowed; use up to 100 letters, digits and '_', a letter first"
        raise InputError(msg)
