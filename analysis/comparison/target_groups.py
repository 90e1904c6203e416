"""Groups of targets that a comparison speaks of: all, each class, each value of an annotation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

# A value that fewer targets have, or more values than that, make no groups.
_FEWEST, _MOST = 5, 50
ALL = "all targets"


@dataclass(frozen=True)
class Groups:
    """Groups of targets.

    Attributes
    ----------
    name : list of str
        The first is ``all targets``.
    member : (target, group) bool
    """

    name: list[str]
    member: NDArray[np.bool_]

    @classmethod
    def of_all(cls, targets: int) -> Groups:
        """One group of all targets."""
        return cls([ALL], np.ones((targets, 1), dtype=bool))


def target_groups(targets: xr.Dataset, class_names: Sequence[str]) -> Groups:
    """All targets, each class, and each value of every annotation that has few.

    Parameters
    ----------
    targets : Dataset
        A target set; annotations with one value per target count where they have 2 to 50 values, with 5 targets each.
    class_names : sequence of str

    Returns
    -------
    Groups
        Each set of targets once.
    """
    count = targets.sizes["target"]
    names, members = [ALL], [np.ones(count, dtype=bool)]
    for name in sorted(map(str, targets.variables), key=lambda one: (one != "label", one)):
        values = targets[name]
        # The train unit that a target is names no group.
        if (
            name in ("target", "train")
            or values.dims != ("target",)
            or values.dtype.kind not in "biuUTO"
        ):
            continue
        column = np.asarray(values.values).astype(str)
        if values.dtype.kind == "b":
            column = np.char.lower(column)
        distinct, where = np.unique(column, return_inverse=True)
        if not 2 <= len(distinct) <= _MOST:
            continue
        for number, value in enumerate(distinct.tolist()):
            member = where == number
            size = int(member.sum())
            if not _FEWEST <= size < count or value in ("", "nan", "None"):
                continue
            if any(np.array_equal(member, other) for other in members):
                continue
            said = class_names[int(value)] if name == "label" else f"{name}={value}"
            names.append(f"class {said}" if name == "label" else said)
            members.append(member)
    return Groups(names, np.stack(members, axis=1))
