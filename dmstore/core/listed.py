"""Lists of texts from callers: one text is no list of its letters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from dmstore.errors import InputError


def texts(values: Any, what: str) -> tuple[str, ...]:
    """A list of texts as a tuple.

    Parameters
    ----------
    values : iterable of str
    what : str
        What they are, for error texts.

    Raises
    ------
    InputError
        If it is one text, whose letters would be taken for it, or holds what is no text.
    """
    if isinstance(values, str | bytes):
        msg = f"{what} {values!r}: expected a list; write [{values!r}]"
        raise InputError(msg)
    if isinstance(values, Iterable) and not isinstance(values, Mapping):
        listed = tuple(values)
        if all(isinstance(value, str) for value in listed):
            return listed
    msg = f"{what} {values!r}: expected a list of texts"
    raise InputError(msg)


def pairs(values: Any, what: str) -> dict[str, str]:
    """A mapping of texts to texts; None is an empty one.

    Parameters
    ----------
    values : mapping or None
    what : str
        What it is, for error texts.

    Raises
    ------
    InputError
        If it is none.
    """
    if values is None:
        return {}
    if isinstance(values, Mapping):
        named = dict(values)
        if all(isinstance(text, str) for pair in named.items() for text in pair):
            return named
    msg = f"{what} {values!r}: expected a mapping of names to keys, such as {{'margin': 'margins'}}"
    raise InputError(msg)
