"""What a training loop gives for its runs: which are outputs, which columns, and whether they have the right shapes."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmstore.core.tensors import to_numpy
from dmstore.errors import InputError
from dmstore.schema.group_specs import ArraySpec

Arrays = dict[str, NDArray[Any]]


def sort_given(
    values: Mapping[str, Any],
    specs: Iterable[ArraySpec],
    sizes: Mapping[str, int],
    count: int | None,
    where: str,
) -> tuple[Arrays, Arrays]:
    """Outputs and columns of runs, copied, with the run as first axis.

    Parameters
    ----------
    values : mapping
        What was given, by name.
    specs : iterable of ArraySpec
        The declared outputs.
    sizes : mapping
        Length of every dim but ``run``.
    count : int or None
        How many runs; None is one that was given without an axis for it.
    where : str
        For error texts.

    Returns
    -------
    outputs, columns : dict

    Raises
    ------
    InputError
        With everything that is missing or has another shape.
    """
    declared = {spec.name: spec for spec in specs}
    arrays = {name: np.array(to_numpy(v, f"{where}: {name}")) for name, v in values.items()}
    faults = given_faults({n: a.shape for n, a in arrays.items()}, declared, sizes, count)
    if faults:
        msg = f"{where}: {'; '.join(faults)}"
        raise InputError(msg)
    if count is None:
        arrays = {name: array[None] for name, array in arrays.items()}
    outputs = {name: arrays.pop(name) for name in declared}
    return outputs, arrays


def given_faults(
    shapes: Mapping[str, tuple[int, ...]],
    declared: Mapping[str, ArraySpec],
    sizes: Mapping[str, int],
    count: int | None,
) -> list[str]:
    """What is missing or has another shape than it should, each in a few words."""
    faults = []
    for name in [name for name in declared if name not in shapes]:
        near = difflib.get_close_matches(name, shapes.keys() - declared.keys(), 1)
        faults.append(f"no {name!r}" + (f" (is {near[0]!r} meant?)" if near else ""))
    for name, shape in shapes.items():
        if name in declared:
            faults += _output_fault(declared[name], shape, sizes, count)
        else:
            faults += _column_fault(name, shape, count, declared)
    return faults


def _output_fault(
    spec: ArraySpec, shape: tuple[int, ...], sizes: Mapping[str, int], count: int | None
) -> list[str]:
    """What is wrong with the shape of an output, and a guess at why; nothing if it is right."""
    dims = spec.dims[1:] if count is None else spec.dims
    wanted = tuple(sizes[dim] if dim != "run" else count or 0 for dim in dims)
    if shape == wanted:
        return []
    text = f"{spec.name} has shape {shape}, expected {wanted} ({', '.join(dims)})"
    own = sizes["target"]
    if shape == (*wanted, 1):
        text += ", so take its [..., 0]"
    elif shape == (1, *wanted):
        text += ", so take its [0]"
    elif "class" not in dims and len(shape) == len(wanted) + 1 and shape[:-1] == wanted:
        text += f", so it has a value per class; dmstore.training.{spec.name} makes one per target out of logits and labels"
    elif len(wanted) == 2 and shape == wanted[::-1]:
        text += ", so transpose it"
    elif len(shape) == len(wanted) and shape[: len(wanted) - 1] == wanted[:-1]:
        text += f": one value for each of the {own} targets, in their order"
    return [text]


def _column_fault(
    name: str, shape: tuple[int, ...], count: int | None, declared: Mapping[str, ArraySpec]
) -> list[str]:
    wanted = () if count is None else (count,)
    if shape == wanted:
        return []
    text = f"{name!r} has shape {shape}: it is no declared output ({', '.join(declared)}), and a column takes one value per run"
    if not shape and count is not None:
        text += f", shape {wanted}; give a list of {count}"
    return [text]
