"""Examples as a page shows them: ids, classes, texts, a few columns and thumbnails."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from dmstore.analysis.pages.sheets import ACROSS, PER_SHEET, Sheets, sheets
from dmstore.core.texts import text
from dmstore.errors import InputError

# A page shows the beginning of a long text, and as many columns as a table has room for.
_TEXT, _VALUE, _COLUMNS = 400, 60, 8
_EXACT = 2**53
# A column of which so many values differ, and which are so long, is what the examples are and no annotation.
_DISTINCT, _LONG = 0.5, 20


def described(
    examples: xr.Dataset, dim: str, positions: NDArray[np.int64], class_names: Sequence[str]
) -> dict[str, Any]:
    """What is said of some examples, as JSON holds it.

    Parameters
    ----------
    examples : Dataset
        Dim `dim`.
    dim : str
        ``train`` or ``target``.
    positions : (unit,) int64
        Which of them.
    class_names : sequence of str

    Returns
    -------
    dict
        ``ids``, ``labels`` (numbers of classes, or None), ``texts`` (or None), ``columns``: name to values.
    """
    shown = text_column(examples, dim)
    columns = {}
    for name, array in examples.variables.items():
        if array.dims != (dim,) or str(name) in (dim, "label", shown):
            continue
        values = np.asarray(array.values)[positions]
        columns[str(name)] = [_value(one) for one in values.tolist()]
        if len(columns) == _COLUMNS:
            break
    labels = examples["label"].values if "label" in examples and class_names else None
    return {
        "ids": [str(one) for one in np.asarray(examples[dim].values)[positions].tolist()],
        "labels": None if labels is None else np.asarray(labels)[positions].tolist(),
        "texts": None
        if shown is None
        else [_beginning(str(one)) for one in text(examples[shown].values[positions]).tolist()],
        "columns": columns,
    }


def text_column(examples: xr.Dataset, dim: str) -> str | None:
    """The column that holds what the examples are, where they are texts: ``text``, or without images the longest texts."""
    texts = {
        str(name): array
        for name, array in examples.variables.items()
        if array.dims == (dim,) and str(name) != dim and array.dtype.kind in "OSTU"
    }
    if "text" in texts:
        return "text"
    if "image" in examples:
        return None
    best, longest = None, float(_LONG)
    for name, array in texts.items():
        values = text(np.asarray(array.values))
        length = float(np.mean(np.char.str_len(values))) if len(values) else 0.0
        if length >= longest and len(np.unique(values)) > _DISTINCT * len(values):
            best, longest = name, length
    return best


def drawn(
    examples: xr.Dataset, dim: str, positions: NDArray[np.int64], column: str = "image"
) -> Sheets | None:
    """Thumbnails of some examples; None where they have no images.

    Raises
    ------
    InputError
        If the column does not hold images.
    """
    if column not in examples:
        if column == "image":
            return None
        msg = f"image annotation {column!r}: the {dim} examples have no such column; they have {_listed(examples)}"
        raise InputError(msg)
    images = examples[column]
    grey_or_colour = images.ndim == 3 or (images.ndim == 4 and images.shape[3] in (1, 3, 4))
    if images.dims[0] != dim or images.dtype != np.uint8 or not grey_or_colour:
        if column == "image":
            return None
        msg = (
            f"image annotation {column!r}: is {images.dtype} {images.shape[1:]} per example, and images are uint8 "
            f"(height, width) or (height, width, 3)"
        )
        raise InputError(msg)
    return sheets(images, positions)


def layout(made: Sheets, urls: Sequence[str]) -> dict[str, Any]:
    """How a page finds a thumbnail, as JSON holds it."""
    return {
        "urls": list(urls),
        "cell": made.cell,
        "image": made.image,
        "across": ACROSS,
        "per": PER_SHEET,
    }


def _listed(examples: xr.Dataset) -> str:
    return ", ".join(str(name) for name in examples.data_vars) or "none"


def _value(one: Any) -> Any:
    """One value of a column: numbers in few digits, texts cut, None where it is missing."""
    if isinstance(one, float):
        return float(f"{one:.5g}") if np.isfinite(one) else None
    if isinstance(one, bool | int):
        # JavaScript would round a larger one.
        return one if abs(one) <= _EXACT else str(one)
    if isinstance(one, bytes):
        one = one.decode(errors="replace")
    said = str(one)
    return said if len(said) <= _VALUE else said[:_VALUE] + "…"


def _beginning(whole: str) -> str:
    return whole if len(whole) <= _TEXT else f"{whole[:_TEXT]}… ({len(whole):,} characters)"
