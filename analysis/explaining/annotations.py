"""What is known of examples as columns to score: values of a class or group, and numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import xarray as xr

# Members that a value must have, and others.
FEWEST = 5
# Values of one annotation, the most frequent ones; and different numbers that are values too.
_MOST, _MOST_NUMBERS = 50, 20


@dataclass(frozen=True)
class Annotation:
    """One annotation.

    Attributes
    ----------
    name : str
    known : (example,) bool
    values : list of str
        As people write them.
    member : (example, value) bool
    number : (example,) float64 or None
        NaN where it is not known.
    number_name : str
        What the number is: the annotation, or the length of a text.
    """

    name: str
    known: NDArray[np.bool_]
    values: list[str]
    member: NDArray[np.bool_]
    number: NDArray[np.float64] | None
    number_name: str


def annotated(data: xr.Dataset, class_names: list[str]) -> list[Annotation]:
    """What is known of examples, one value each: numbers, texts and bools, no images.

    Parameters
    ----------
    data : xarray.Dataset
        One variable an annotation.
    class_names : list of str
        What ``label`` counts.
    """
    made = []
    for name, one in data.data_vars.items():
        if one.ndim == 1:
            made.append(_annotation(str(name), np.asarray(one.values), class_names))
    # The class first: others are looked at within it.
    return sorted(made, key=lambda one: one.name != "label")


def _annotation(name: str, values: NDArray[Any], class_names: list[str]) -> Annotation:
    text = values.dtype.kind in "OTU"
    if text:
        values = values.astype(str)
    known = values != "" if text else np.ones(len(values), dtype=bool)
    if values.dtype.kind == "f":
        known = np.isfinite(values)
    different, counts = np.unique(values[known], return_counts=True)
    total = int(known.sum())
    number, number_name = None, name
    if text and len(different) > _MOST:
        number, number_name = np.array([float(len(value)) for value in values]), f"length of {name}"
    elif not text and name != "label" and values.dtype.kind in "iuf" and len(different) > 2:
        number = np.where(known, values.astype(np.float64), np.nan)
    usable = (counts >= FEWEST) & (counts <= total - FEWEST)
    if number is not None and not text and len(different) > _MOST_NUMBERS:
        usable[:] = False
    order = np.argsort(-counts[usable], kind="stable")[:_MOST]
    kept = different[usable][order]
    if len(different) == 2 and len(kept) == 2 and name != "label":
        # Either says all: that which is, or the rarer one.
        kept = kept[kept.astype(bool)] if values.dtype.kind == "b" else kept[1:]
    member = np.stack([known & (values == value) for value in kept], axis=1) if len(kept) else None
    empty = np.zeros((len(values), 0), dtype=bool)
    shown = [_shown(name, value, class_names) for value in kept]
    return Annotation(name, known, shown, empty if member is None else member, number, number_name)


def _shown(name: str, value: Any, class_names: list[str]) -> str:
    if name == "label":
        return class_names[int(value)] if int(value) < len(class_names) else str(int(value))
    if isinstance(value, np.bool_):
        return "true" if value else "false"
    if isinstance(value, np.floating) and float(value).is_integer():
        return str(int(value))
    return str(value)
