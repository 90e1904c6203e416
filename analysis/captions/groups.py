"""Which targets a caption of a direction's end is proposed by, and which it is tested on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Places = NDArray[np.int64]
# Of a class to each of the subpopulation, at most.
RATIO = 4
# Without so many in either half nothing is tested.
FEWEST = 8
_SHARE, _LEAST, _LARGEST = 10, 48, 200


@dataclass(frozen=True)
class Halves:
    """A subpopulation and its contrast, in two halves: the first proposes captions, the second tests them.

    Attributes
    ----------
    members, contrast : tuple of (target,) int64
        Positions of targets, of the first half and of the second.
    """

    members: tuple[Places, Places]
    contrast: tuple[Places, Places]

    @property
    def enough(self) -> bool:
        """Whether either half has enough to say anything."""
        return min(map(len, (*self.members, *self.contrast))) >= FEWEST


def default_size(targets: int) -> int:
    """Targets of an end: a tenth of all, from 48 to 200, and a quarter at most."""
    return max(1, min(max(_LEAST, min(_LARGEST, targets // _SHARE)), targets // 4))


def halves(
    projection: NDArray[np.floating], label: Places, size: int, draw: np.random.Generator
) -> Halves:
    """The targets with the largest projections, others of their classes, and both split at random.

    Parameters
    ----------
    projection : (target,) float
        NaN targets are left out.
    label : (target,) int64
        Classes to match; all 0 for a contrast of any other targets.
    size : int
        Targets of the subpopulation.
    draw : numpy.random.Generator

    Returns
    -------
    Halves
        Up to four others for each; a target without any other of its class is left out.
    """
    valid = np.flatnonzero(~np.isnan(projection))
    order = valid[np.argsort(-projection[valid], kind="stable")]
    inside, outside = order[:size], order[size:]
    members: tuple[list[Places], list[Places]] = ([], [])
    contrast: tuple[list[Places], list[Places]] = ([], [])
    placed = 0
    for value in np.unique(label[inside]):
        own = inside[label[inside] == value]
        others = draw.permutation(outside[label[outside] == value])
        # Of a class that is nearly all inside, those furthest along.
        own = draw.permutation(own[: len(others)])
        each = min(RATIO, len(others) // max(1, len(own)))
        beside = others[: each * len(own)].reshape(len(own), -1) if len(own) else others[:0]
        # Classes with odd numbers take turns, so that halves are of one size.
        half = (placed + np.arange(len(own))) % 2
        placed += len(own)
        for k in (0, 1):
            members[k].append(own[half == k])
            contrast[k].append(beside[half == k].ravel())
    empty = [np.zeros(0, dtype=np.int64)]
    one, two, three, four = (np.concatenate(empty + part) for part in (*members, *contrast))
    return Halves((one, two), (three, four))
