"""A comparison of some targets alone: those of a class, of a group, or of a list of ids."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from dmstore.core import listed
from dmstore.core.given import local_path
from dmstore.errors import InputError
from dmstore.study.selection import Condition, meets


@dataclass(frozen=True)
class Restriction:
    """Targets that a comparison is about.

    Attributes
    ----------
    positions : (chosen,) int64
        Ascending.
    said : str
        What was asked for; of a file its name and the digest of its ids.
    """

    positions: NDArray[np.int64]
    said: str

    @property
    def stated(self) -> dict[str, Any]:
        """What is kept with the parameters."""
        return {"where": self.said, "targets": len(self.positions)}


def restriction(
    where: Sequence[str], targets: xr.Dataset, class_names: Sequence[str] = ()
) -> Restriction | None:
    """Targets that meet all conditions.

    Parameters
    ----------
    where : sequence of str
        ``COLUMN=VALUE`` (or ``!=``, ``<``, ``<=``, ``>``, ``>=``) on a column of the targets, ``target`` for ids;
        or a file with one target id a line.
    targets : Dataset
        Ids as the coordinate ``target``, columns of one value per target; a lazy one is computed where it is asked for.
    class_names : sequence of str
        So that ``label`` takes names too.

    Returns
    -------
    Restriction or None
        None without conditions.

    Raises
    ------
    InputError
        If a condition has another form, there is no such column or id, a file cannot be read, or fewer
        than two targets are left.
    """
    if not listed.texts(where, "where"):
        return None
    chosen, name = _chosen(where, targets, class_names)
    if chosen.sum() < 2:
        msg = f"where {name}: {int(chosen.sum())} of {len(chosen)} targets; a comparison needs two or more"
        raise InputError(msg)
    return Restriction(np.flatnonzero(chosen), name)


def positions(
    where: Sequence[str], targets: xr.Dataset, class_names: Sequence[str] = ()
) -> NDArray[np.int64]:
    """Positions of the targets that meet all conditions, one at least; all of them without conditions.

    Parameters
    ----------
    where, targets, class_names
        As of :func:`restriction`.

    Returns
    -------
    (chosen,) int64
        Ascending.

    Raises
    ------
    InputError
        If a condition cannot be used, or no target is left.
    """
    chosen, name = _chosen(where, targets, class_names)
    if not chosen.any():
        msg = f"where {name}: no target of {len(chosen)}"
        raise InputError(msg)
    return np.flatnonzero(chosen)


def _chosen(
    where: Sequence[str], targets: xr.Dataset, class_names: Sequence[str]
) -> tuple[NDArray[np.bool_], str]:
    """Which targets meet all conditions, and what was asked for."""
    ids = targets["target"].values
    chosen, said = np.ones(len(ids), dtype=bool), []
    for text in listed.texts(where, "where"):
        try:
            condition = Condition.parse(text)
        except InputError:
            listed_ids, name = _listed(text)
            chosen &= _among(ids, listed_ids, text)
            said.append(name)
            continue
        values = _column(targets, condition.column, text)
        if condition.column == "label":
            text = _numbered(condition, class_names)
        chosen &= meets(values, text)
        said.append(f"{condition.column}{condition.compare}{condition.value}")
    return chosen, ", ".join(said)


def spread(comparison: xr.Dataset, chosen: Restriction, target: xr.DataArray) -> xr.Dataset:
    """A comparison of some targets among all of them: the others are not included, and have no numbers.

    Parameters
    ----------
    comparison : xarray.Dataset
        From :func:`dmstore.analysis.modeldiff`, of the chosen targets in their order.
    chosen : Restriction
    target : (target,)
        All ids.
    """
    positions, count = chosen.positions, len(target)
    wide: dict[str, Any] = {}
    for name, array in comparison.data_vars.items():
        values = array.values
        if "target" in array.dims:
            fill = False if values.dtype == bool else np.nan
            whole = np.full((*values.shape[:-1], count), fill, dtype=values.dtype)
            whole[..., positions] = values
            values = whole
        elif name in ("subpopulation", "contrast"):
            values = np.where(values >= 0, positions[values], -1)
        wide[str(name)] = (array.dims, values)
    coords: Mapping[Any, Any] = {
        name: value for name, value in comparison.coords.items() if "target" not in value.dims
    }
    result = xr.Dataset(wide, coords={**coords, "target": target.values})
    return result.assign_attrs({**comparison.attrs, **chosen.stated})


def left_out(comparison: xr.Dataset) -> int:
    """How many of the targets that a comparison is about have no datamodel under one of the two."""
    about = comparison.attrs.get("targets", comparison.sizes["target"])
    return int(about - comparison["included"].values.sum())


def _column(targets: xr.Dataset, name: str, text: str) -> NDArray[Any]:
    known = [str(key) for key, array in targets.variables.items() if array.dims == ("target",)]
    if name not in known:
        msg = f"condition {text!r}: targets have no column {name!r}; they have {', '.join(known)}"
        raise InputError(msg)
    return np.asarray(targets[name].values)


def _numbered(condition: Condition, class_names: Sequence[str]) -> str:
    """A condition on classes with their numbers in place of names."""
    numbers = {name: str(row) for row, name in enumerate(class_names)}
    parts = (part.strip() for part in condition.value.split(","))
    value = ",".join(p if p.lstrip("-").isdigit() else numbers.get(p, p) for p in parts)
    return f"{condition.column}{condition.compare}{value}"


def _listed(text: str) -> tuple[list[str], str]:
    """The ids in a file, and what it is called."""
    path = local_path(text)
    if not path.is_file():
        msg = f"where {text!r}: neither a condition such as label=9 nor a file of target ids"
        raise InputError(msg)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        msg = f"{path}: cannot be read as text ({error}); give a file with one target id a line"
        raise InputError(msg) from None
    ids = sorted({line.strip() for line in lines} - {""})
    digest = hashlib.sha256("\n".join(ids).encode()).hexdigest()
    return ids, f"{path.name} ({len(ids)} ids, sha256 {digest[:12]})"


def _among(ids: NDArray[Any], wanted: list[str], text: str) -> NDArray[np.bool_]:
    known = [str(one) for one in ids.tolist()]
    lost = sorted(set(wanted) - set(known))
    if lost:
        msg = f"{text}: {len(lost)} of its ids are no targets, the first {lost[0]!r}; give one target id a line"
        raise InputError(msg)
    return np.isin(np.array(known), wanted)
