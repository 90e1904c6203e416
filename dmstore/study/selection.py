"""Choosing runs by what they carry: ``host=node17``, ``time>=2026-11-01``, ``run=5,7,10-20``."""

from __future__ import annotations

import datetime
import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmstore.core import listed
from dmstore.errors import InputError
from dmstore.storage.table.view import View

_FORM = re.compile(r"\s*([A-Za-z_][A-Za-z0-9_]*)\s*(!=|<=|>=|=|<|>)\s*(.+?)\s*", re.DOTALL)
_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


@dataclass(frozen=True)
class Condition:
    """One condition on a per-run column."""

    column: str
    compare: str
    value: str

    @classmethod
    def parse(cls, text: str) -> Condition:
        """Read ``COLUMN=VALUE``, ``!=``, ``<``, ``<=``, ``>`` or ``>=``.

        Raises
        ------
        InputError
            If the text is not of that form.
        """
        match = _FORM.fullmatch(text)
        if not match:
            msg = f"condition {text!r} is not of the form COLUMN=VALUE (or !=, <, <=, >, >=), such as host=node17"
            raise InputError(msg)
        return cls(*match.groups())


def select(view: View, conditions: Sequence[str]) -> NDArray[np.bool_]:
    """Which rows of a view meet all conditions.

    Parameters
    ----------
    view : View
    conditions : sequence of str
        As :meth:`Condition.parse` reads them; ``=`` and ``!=`` take several values with commas, and
        for integers ranges such as ``10-20``; ``time`` takes dates.

    Returns
    -------
    (run,) bool

    Raises
    ------
    InputError
        If there is no condition, no such column, or a value does not fit the column.
    """
    conditions = listed.texts(conditions, "where")
    if not conditions:
        msg = "no condition; say which runs are meant, such as host=node17"
        raise InputError(msg)
    chosen = np.ones(len(view), dtype=bool)
    spec = view.spec()
    wide = {array.name for array in view.table.spec.rows()} | {"row_digest"}
    known = [name for name in spec.arrays if name not in wide]
    for text in conditions:
        condition = Condition.parse(text)
        if condition.column not in known:
            msg = f"condition {text!r}: runs have no column {condition.column!r}; they have {', '.join(known)}"
            raise InputError(msg)
        values = view.read([condition.column])[condition.column]
        chosen &= meets(values, text)
    return chosen


def meets(values: NDArray[Any], text: str) -> NDArray[np.bool_]:
    """Which values of a column meet a condition: (run,) bool. Raises InputError as :func:`select`."""
    return _meets(values, Condition.parse(text), text)


def _meets(values: NDArray[Any], condition: Condition, text: str) -> NDArray[np.bool_]:
    if condition.compare in _COMPARE and values.dtype.kind not in "biuf":
        msg = f"condition {text!r}: {condition.column!r} holds texts, which have no order here; use = or !="
        raise InputError(msg)
    if condition.compare in _COMPARE:
        return np.asarray(
            _COMPARE[condition.compare](values, _value(values, condition, condition.value, text)),
            dtype=bool,
        )
    meets = np.zeros(len(values), dtype=bool)
    for part in condition.value.split(","):
        bounds = re.fullmatch(r"\s*([0-9]+)\s*-\s*([0-9]+)\s*", part)
        if bounds and values.dtype.kind in "iu":
            meets |= (values >= int(bounds[1])) & (values <= int(bounds[2]))
        else:
            meets |= np.asarray(values == _value(values, condition, part.strip(), text), dtype=bool)
    return ~meets if condition.compare == "!=" else meets


def _value(values: NDArray[Any], condition: Condition, part: str, text: str) -> Any:
    kind = values.dtype.kind
    try:
        if condition.column == "time" and not part.lstrip("-").isdigit():
            moment = datetime.datetime.fromisoformat(part)
            if moment.tzinfo is None:
                moment = moment.replace(tzinfo=datetime.UTC)
            return int(moment.timestamp() * 1000)
        if kind in "iu":
            return int(part)
        if kind == "f":
            return float(part)
        if kind == "b":
            return {"true": True, "1": True, "false": False, "0": False}[part.lower()]
    except (ValueError, KeyError, OverflowError):
        wanted = {"i": "an integer", "u": "an integer", "f": "a number", "b": "true or false"}[kind]
        if condition.column == "time":
            wanted = (
                "a date such as 2026-11-01 or 2026-11-01T12:00 (UTC), or milliseconds since 1970"
            )
        msg = f"condition {text!r}: {part!r} is not {wanted}"
        raise InputError(msg) from None
    return part
