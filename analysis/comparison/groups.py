"""Groups of train units and of targets as people name them: an annotation, a condition, a file of ids, a direction."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dmstore.core.given import local_path
from dmstore.errors import InputError
from dmstore.readers.columns import read_columns
from dmstore.study.selection import Condition, meets

if TYPE_CHECKING:
    import xarray as xr

Floats = NDArray[np.float64]
# Different values of an annotation that are groups: of texts and classes, and of numbers.
_MOST, _MOST_NUMBERS = 200, 50
_LISTED = 12
_FILES = (".txt", ".csv", ".npy", ".json", ".npz")


@dataclass(frozen=True)
class Side:
    """Train units or targets, with what is known of them.

    Attributes
    ----------
    name : str
        ``train``, or that of the target set.
    what : str
        ``train unit`` or ``target``.
    data : xarray.Dataset
        Their annotations, along one dim.
    ids : (example,) str
    class_names : list of str
    """

    name: str
    what: str
    data: xr.Dataset
    ids: NDArray[np.str_]
    class_names: list[str]

    @property
    def is_train(self) -> bool:
        """Whether these are train units."""
        return self.what == "train unit"

    def annotations(self) -> list[str]:
        """Those with one value per example."""
        return [str(name) for name, one in self.data.data_vars.items() if one.ndim == 1]

    def column(self, name: str, spec: str) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """An annotation and where it is known: two (example,) arrays.

        Raises
        ------
        InputError
            If there is none of the name with one value per example.
        """
        known = self.annotations()
        if name not in known:
            there = f"; it has {', '.join(known)}" if known else ", and no other"
            kind = "is no number, text or bool an example" if name in self.data else "is not there"
            whose = "annotation" if spec == name else f"{spec!r}: annotation"
            msg = f"{whose} {name!r} of {self.name!r} {kind}{there}; 'dmstore annotate' adds more"
            raise InputError(msg)
        values = np.asarray(self.data[name].values)
        if values.dtype.kind == "f":
            return values, ~np.isnan(values)
        if values.dtype.kind in "OTU":
            values = values.astype(str)
            return values, values != ""
        return values, np.ones(len(values), dtype=bool)


@dataclass
class Groups:
    """Groups of one side.

    Attributes
    ----------
    names : list of str
    weight : list of (example,) float64
        1 / size for the members of a group; a direction as it was given.
    means : list of bool
        False for a direction.
    notes : list of str
        What was left out.
    """

    names: list[str] = field(default_factory=list)
    weight: list[Floats] = field(default_factory=list)
    means: list[bool] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, name: str, members: NDArray[np.bool_]) -> None:
        """Add a group, once."""
        if name not in self.names:
            self.names.append(name)
            self.weight.append(members / max(1, int(members.sum())))
            self.means.append(True)

    def take(self, name: str, values: NDArray[Any], side: Side) -> None:
        """Add a group, given by true and false, or a direction."""
        if values.dtype == bool:
            if not values.any():
                msg = f"{name}: names no {side.what}; give at least {1 + side.is_train}"
                raise InputError(msg)
            _check_size(values, side, name)
            self.add(name, values)
        elif name not in self.names:
            self.names.append(name)
            self.weight.append(values.astype(np.float64))
            self.means.append(False)

    def array(self) -> Floats:
        """(example, group) float64."""
        return np.stack(self.weight, axis=1)


def named_groups(side: Side, given: Mapping[str, Any]) -> Groups:
    """Groups of arrays: name to (example,) bool, or numbers, which are a direction over train units.

    Raises
    ------
    InputError
    """
    groups = Groups()
    for name, values in given.items():
        groups.take(str(name), _direction(side, np.asarray(values), None, repr(name)), side)
    return groups


def read_groups(side: Side, specs: Sequence[str]) -> Groups:
    """Groups by what was asked for.

    Parameters
    ----------
    side : Side
    specs : sequence of str
        Each a name of an annotation, all of whose values are groups; a condition such as ``marked=true``, or several
        with `` & `` between; or a file of ids or, for train units, of a direction.

    Raises
    ------
    InputError
        In one line, with what there is.
    """
    groups = Groups()
    for spec in specs:
        if is_file(spec):
            _add_file(groups, side, spec)
        elif re.search(r"[=<>]", spec):
            groups.add(spec, _condition(groups, side, spec))
        else:
            _add_values(groups, side, spec)
    return groups


def is_file(spec: str) -> bool:
    """Whether a group is given by a file: by its ending, or since there is one of the name."""
    return spec.lower().endswith(_FILES) or (
        "/" in spec and not re.search(r"[=<>]", spec) and Path(spec).is_file()
    )


def _shown(side: Side, name: str, value: Any) -> str:
    """A value as people write it: class names, true and false, whole numbers without a point."""
    if name == "label" and side.class_names:
        return side.class_names[int(value)]
    if isinstance(value, bool | np.bool_):
        return "true" if value else "false"
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return str(value)


def _left_out(groups: Groups, side: Side, name: str, known: NDArray[np.bool_]) -> None:
    missing = int((~known).sum())
    note = f"{missing} of {len(known)} {side.what}s have no {name!r} and are in no group"
    if missing and note not in groups.notes:
        groups.notes.append(note)


def _add_values(groups: Groups, side: Side, name: str) -> None:
    """One group for each value of an annotation."""
    values, known = side.column(name, name)
    _left_out(groups, side, name, known)
    found, counts = np.unique(values[known], return_counts=True)
    numbers = values.dtype.kind in "iuf" and name != "label"
    if len(found) > (_MOST_NUMBERS if numbers else _MOST):
        example = _shown(side, name, found[len(found) // 2])
        form = f"{name}<{example}" if numbers else f"{name}={example[:40]}"
        msg = f"{name!r} of {side.name!r} has {len(found)} different values; give a condition in place of it, such as '{form}'"
        raise InputError(msg)
    fewest = 2 if side.is_train else 1
    small = [_shown(side, name, v) for v in found[counts < fewest]]
    kept = found[counts >= fewest]
    if not len(found):
        msg = f"{name!r} of {side.name!r} has no value at all, so it makes no groups; annotate under another name"
        raise InputError(msg)
    if side.is_train and len(found) == 1 and known.all():
        msg = f"{name!r} of {side.name!r} is {_shown(side, name, found[0])!r} everywhere, so it makes no groups; give another annotation"
        raise InputError(msg)
    if not len(kept):
        msg = f"{name!r} of {side.name!r} has another value for each {side.what}, and a group needs two; give a condition"
        raise InputError(msg)
    if small:
        more = f" and {len(small) - 3} more" if len(small) > 3 else ""
        groups.notes.append(
            f"{name!r} has a single {side.what} with {', '.join(small[:3])}{more}: left out, a group needs two"
        )
    for value in kept:
        groups.add(f"{name}={_shown(side, name, value)}", known & (values == value))


def _condition(groups: Groups, side: Side, spec: str) -> NDArray[np.bool_]:
    """Members by one or several conditions."""
    members = np.ones(len(side.ids), dtype=bool)
    for text in spec.split(" & "):
        condition = Condition.parse(text)
        values, known = side.column(condition.column, text)
        _left_out(groups, side, condition.column, known)
        if condition.column == "label" and condition.compare in ("=", "!="):
            text = _by_number(side, condition, text)
        members &= known & meets(values, text)
    if not members.any():
        named = [Condition.parse(text).column for text in spec.split(" & ")]
        msg = f"{spec!r}: no {side.what} of {side.name!r} is so; {_there(side, named)}"
        raise InputError(msg)
    _check_size(members, side, spec)
    return members


def _by_number(side: Side, condition: Condition, text: str) -> str:
    """A condition on classes, which may be given by name, as one on their numbers."""
    numbers = []
    for part in (one.strip() for one in condition.value.split(",")):
        if part in side.class_names:
            numbers.append(str(side.class_names.index(part)))
        elif re.fullmatch(r"[0-9]+(\s*-\s*[0-9]+)?", part):
            numbers.append(part)
        else:
            msg = f"{text!r}: class {part!r} is not in the study; {_there(side, ['label'])}"
            raise InputError(msg)
    return f"label{condition.compare}{','.join(numbers)}"


def _there(side: Side, names: Sequence[str]) -> str:
    """What values some annotations have."""
    said = []
    for name in dict.fromkeys(names):
        values, known = side.column(name, name)
        found = np.unique(values[known])
        if len(found) > _LISTED and found.dtype.kind in "iuf":
            said.append(f"{name!r} goes from {found[0]} to {found[-1]}")
            continue
        shown = ", ".join(_shown(side, name, v)[:40] for v in found[:_LISTED])
        more = f" and {len(found) - _LISTED} more" if len(found) > _LISTED else ""
        said.append(f"{name!r} is {shown or 'nothing'}{more}")
    return "; ".join(said)


def _check_size(members: NDArray[np.bool_], side: Side, spec: str) -> None:
    if side.is_train and members.sum() == 1:
        msg = f"{spec!r}: a group of one train unit ({str(side.ids[members][0])!r}); a group needs two, or give a direction that is 1 there"
        raise InputError(msg)
    if side.is_train and members.all():
        msg = f"{spec!r}: is all {len(members)} train units, and one more of all has no effect to measure; give a part of them"
        raise InputError(msg)


def _add_file(groups: Groups, side: Side, spec: str) -> None:
    """A group by a list of ids, or a direction."""
    # Ids alone are a group, a number beside each is a direction.
    if spec.lower().endswith(".txt"):
        values = np.isin(side.ids, _known_ids(side, _read_one(spec, "id"), spec))
    else:
        columns = read_columns(spec, None if spec.lower().endswith((".csv", ".npz")) else "value")
        ids = columns.pop("id", None)
        if len(columns) > 1 or not (columns or ids is not None):
            msg = f"{spec}: holds {', '.join(columns) or 'nothing'}; give a column 'id', or 'id' and one number, or one number a train unit"
            raise InputError(msg)
        value = next(iter(columns.values()), None)
        if value is None or (ids is None and value.dtype.kind in "OSTU"):
            values = np.isin(side.ids, _known_ids(side, ids if ids is not None else value, spec))
        else:
            values = _direction(side, value, ids, spec)
    groups.take(local_path(spec).stem, values, side)


def _read_one(spec: str, name: str) -> NDArray[Any]:
    values = read_columns(spec, name)[name]
    return np.array([str(one).strip() for one in values if str(one).strip()], dtype=str)


def _known_ids(side: Side, given: Any, spec: str) -> NDArray[np.str_]:
    ids = np.asarray(given).astype(str).ravel()
    strange = ids[~np.isin(ids, side.ids)]
    if len(strange):
        msg = f"{spec}: {str(strange[0])[:60]!r} is no id of a {side.what} of {side.name!r} ({len(strange)} of {len(ids)} are not); its ids are such as {str(side.ids[0])!r}"
        raise InputError(msg)
    return ids


def _direction(
    side: Side, value: NDArray[Any], ids: NDArray[Any] | None, spec: str
) -> NDArray[Any]:
    """One number, or true and false, for each example."""
    if value.dtype.kind not in "biuf" or value.ndim != 1:
        msg = f"{spec}: holds {value.dtype} of shape {value.shape}; give one number for each {side.what}, or ids"
        raise InputError(msg)
    if not np.isfinite(value.astype(np.float64)).all():
        msg = f"{spec}: holds NaN or infinity; give a number for each unit, 0 for none"
        raise InputError(msg)
    if ids is not None:
        named = _known_ids(side, ids, spec)
        if len(np.unique(named)) != len(named):
            msg = f"{spec}: an id is there twice; give each once"
            raise InputError(msg)
        order = np.argsort(side.ids)
        whole = np.zeros(len(side.ids), dtype=value.dtype)
        whole[order[np.searchsorted(side.ids, named, sorter=order)]] = value
        value = whole
    if len(value) != len(side.ids):
        msg = f"{spec}: has {len(value)} values, but there are {len(side.ids)} {side.what}s in {side.name!r}"
        raise InputError(msg)
    if value.dtype == bool:
        return value
    if not side.is_train:
        msg = f"{spec}: numbers are a direction over train units; of targets give ids, or true and false"
        raise InputError(msg)
    if not value.any() or np.ptp(value) == 0:
        msg = f"{spec}: is {value[0]} for every train unit, and has no effect to measure; give a direction that varies"
        raise InputError(msg)
    return value.astype(np.float64)
