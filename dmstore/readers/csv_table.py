"""CSV as RFC 4180 has it, and what its columns are: bools, whole numbers, numbers or texts."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmstore.errors import InputError
from dmstore.study.display import counted, size

# What programs write where a number or a bool is not known.
GAPS = frozenset({"", "NA", "N/A", "NaN", "nan", "NULL", "null", "None", "<NA>"})
# Ids and names of classes are texts, also where they are written in digits.
_TEXTS = ("id", "name")
# As NumPy has texts: all as wide as the longest.
_MOST_BYTES = 1 << 32
_BOOLS = {"true": True, "false": False}
# A number as it is written: 007 is a text, and so is 1_000.
_WHOLE = re.compile(r"[+-]?(0|[1-9][0-9]*)", re.ASCII)
_NUMBER = re.compile(
    r"[+-]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?|[+-]?inf(inity)?",
    re.ASCII | re.I,
)
# Beyond it a float64 leaves whole numbers out.
EXACT = 1 << 53


def parse_csv(text: str, where: str) -> dict[str, NDArray[Any]]:
    """The columns of a CSV by its header line; a column ``id`` keeps its texts.

    Parameters
    ----------
    text : str
        Fields with commas, line ends or quotes stand in quotes. A blank line is no row, but an empty
        value where there is one column and rows follow.
    where : str
        For error texts.

    Returns
    -------
    dict
        Name to (row,) array.

    Raises
    ------
    InputError
        Naming the line and what is wrong with it.
    """
    rows = list(_rows(text, where))
    if len(rows) < 2:
        msg = (
            f"{where}: has no rows; a .csv of annotations has a header line and a line per example"
        )
        raise InputError(msg)
    header = rows[0][1]
    if len(set(header)) != len(header):
        msg = f"{where}: two columns of the header have one name"
        raise InputError(msg)
    for line, row in rows:
        if len(row) != len(header):
            msg = f"{where}: line {line} has {counted(len(row), 'field')}, the header {len(header)}"
            raise InputError(msg)
    lines = [line for line, _ in rows[1:]]
    columns = zip(*(row for _, row in rows[1:]), strict=True)
    return {
        name: texts(values, f"{where}: column {name!a}")
        if name.strip().casefold() in _TEXTS
        else _typed(values, lines, f"{where}: column {name!a}")
        for name, values in zip(header, columns, strict=True)
    }


def texts(values: Sequence[str], where: str) -> NDArray[np.str_]:
    """Texts as an array.

    Raises
    ------
    InputError
        If one is so long that the array, whose texts are all as wide, would be huge.
    """
    longest = max(map(len, values), default=0)
    if 4 * longest * len(values) > _MOST_BYTES:
        place = next(row for row, value in enumerate(values) if len(value) == longest)
        msg = f"{where}: {len(values)} texts as wide as the longest ({longest} characters, position {place}) take more than {size(_MOST_BYTES)}; shorten it"
        raise InputError(msg)
    return np.array(values, dtype=str)


def _rows(text: str, where: str) -> Iterator[tuple[int, list[str]]]:
    """Rows with the number of the line that each ends on."""
    # Not str.splitlines: it also splits at characters that may stand inside a text.
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    blank: list[int] = []
    width = 0
    try:
        for row in reader:
            if not row:
                blank.append(reader.line_num)
                continue
            if width == 1:
                yield from ((line, [""]) for line in blank)
            width = width or len(row)
            blank = []
            yield reader.line_num, row
    except csv.Error as error:
        msg = (
            f"{where}: line {reader.line_num} is no valid .csv ({error}); "
            f"quote fields with commas, quotes or line ends, and save longer texts as .json"
        )
        raise InputError(msg) from None


def _typed(values: Sequence[str], lines: Sequence[int], where: str) -> NDArray[Any]:
    """Bools or whole numbers if all are, numbers (NaN at gaps) if the others are, else the texts as they stand."""
    stripped = [value.strip() for value in values]
    known = [value for value in stripped if value not in GAPS]
    if known and all(value.lower() in _BOOLS for value in known):
        if len(known) < len(stripped):
            gap = next(row for row, value in enumerate(stripped) if value in GAPS)
            msg = (
                f"{where} holds true and false but for line {lines[gap]} ({values[gap]!a}), and a bool is one of the two; "
                f"write 1 and 0, which take gaps, or a word of three"
            )
            raise InputError(msg)
        return np.array([_BOOLS[value.lower()] for value in stripped])
    if not known or not all(map(_NUMBER.fullmatch, known)):
        return texts(values, where)
    whole = [int(value) for value in known if _WHOLE.fullmatch(value)]
    if len(whole) == len(stripped) and all(-(1 << 63) <= number < 1 << 63 for number in whole):
        return np.array(whole, dtype=np.int64)
    numbers = [np.nan if value in GAPS else float(value) for value in stripped]
    # What a number would not hold stays a text: digits of a long id, 1e999.
    beyond = np.isinf(numbers) & np.array(["inf" not in value.lower() for value in stripped])
    if beyond.any() or any(abs(number) > EXACT for number in whole):
        return texts(values, where)
    return np.array(numbers, dtype=np.float64)
