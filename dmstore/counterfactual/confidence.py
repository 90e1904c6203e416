"""What a stored output says of a class: its probability, or the margin of targets that are of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmstore.errors import InputError
from dmstore.schema.typed_documents import AlgorithmOutput

Floats = NDArray[np.float64]
PROBABILITY, MARGIN = "probability", "margin"
# From what says most to what says least.
_ORDER = ("logit", "probability", "log_odds", "loss", "margin")


@dataclass(frozen=True)
class Reading:
    """How confidence is read from an output.

    Attributes
    ----------
    output : str
    measure : {"probability", "margin"}
        What it gives.
    any_class : bool
        Whether it says something of every class; else of each target's label alone.
    """

    output: str
    measure: str
    any_class: bool


def reading(
    declared: Mapping[str, AlgorithmOutput], classes: int, output: str | None = None
) -> Reading:
    """How confidence is read from outputs, from the one that says most.

    Parameters
    ----------
    declared : mapping
        Outputs that every algorithm has.
    classes : int
    output : str, optional
        From this one.

    Returns
    -------
    Reading

    Raises
    ------
    InputError
        If none of them says anything of a class, or `output` does not.
    """
    if output is not None and output not in declared:
        msg = f"output {output!r} is not one of these models' ({', '.join(sorted(declared))})"
        raise InputError(msg)
    for name in _ORDER if output is None else (output,):
        if name not in declared or name not in _ORDER:
            continue
        by_class = "class" in declared[name]["dims"]
        if name == "logit" and not by_class:
            continue
        measure = MARGIN if name == "margin" and classes != 2 else PROBABILITY
        return Reading(name, measure, by_class or classes == 2)
    said = f"output {output!r} says" if output else f"outputs {', '.join(sorted(declared))} say"
    msg = f"{said} nothing of a class; store logit, probability, log_odds, loss or margin"
    raise InputError(msg)


def confidence(how: Reading, values: NDArray[Any], label: NDArray[np.int64], number: int) -> Floats:
    """What an output says of a class.

    Parameters
    ----------
    how : Reading
    values : (model, example[, class]) number
    label : (example,) int64
    number : int
        The class.

    Returns
    -------
    (model, example) float64
        NaN where it says nothing: of another class than the example's label.
    """
    values = values.astype(np.float64)
    if values.ndim == 3:
        if how.output == "probability":
            return np.asarray(values[..., number])
        values -= values.max(axis=2, keepdims=True)
        weight = np.exp(values)
        return np.asarray(weight[..., number] / weight.sum(axis=2))
    if how.output in ("log_odds", "margin") and how.measure == PROBABILITY:
        # Not by exp of a large number.
        values = 0.5 * (1 + np.tanh(values / 2))
    elif how.output == "loss":
        values = np.exp(-values)
    own = label[None] == number
    return np.where(own, values, 1 - values if how.any_class else np.nan)


def chosen(
    how: Reading, label: NDArray[np.int64], number: int, on: str, class_name: str
) -> NDArray[np.int64]:
    """Which examples a class's confidence is averaged over: (chosen,) int64.

    Parameters
    ----------
    how : Reading
    label : (example,) int64
    number : int
    on : {"all", "others", "class"}
        All of them, those of other classes, or those of the class.
    class_name : str
        For error texts.

    Raises
    ------
    InputError
        If the output says nothing of them, or none is left.
    """
    own = label == number
    if not how.any_class and on != "class":
        rest = "differs from the label's" if on == "others" else "is not the label"
        msg = f"{how.output!r} says what a model thinks of each target's own label, and nothing of {class_name!r} where that {rest}; give --on class, or store logit"
        raise InputError(msg)
    rows = {"all": np.ones(len(label), dtype=bool), "others": ~own, "class": own}[on]
    if not rows.any():
        what = {"all": "no target", "others": "no target of another class"}.get(on, "no target")
        msg = f"{what} is left for class {class_name!r}"
        raise InputError(msg)
    return np.flatnonzero(rows)
