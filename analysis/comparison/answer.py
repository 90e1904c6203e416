"""What a comparison says in the end: whether two algorithms differ, how alike they are, where, and what it could have seen."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import xarray as xr

from dmstore.analysis.comparison.modeldiff import rank
from dmstore.analysis.comparison.target_groups import ALL

FDR = 0.05
_NORMAL = 1.959964
# From this similarity on a difference that is beyond chance is hardly one.
_ALIKE = 0.99
# Standard error from which on the interval of a difference holds nearly all that it may be.
_USELESS = 0.5


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval."""

    estimate: float
    low: float
    high: float


@dataclass(frozen=True)
class DirectionClaim:
    """What the runs say of one direction.

    Attributes
    ----------
    algorithm : str
        Whose residuals it is of.
    component : int
        From 0.
    estimate, standard_error : float
        Mean coordinate of unit datamodels along it under that algorithm, less that under the other; NaN where noise leaves nothing
        of it to be told, as without any signal.
    p, q : float
    energy : list of float
        Share of each algorithm's datamodels, noise taken out, in the order of the comparison; NaN as the estimate.
    beyond : bool
        Whether it is claimed at the stated false discovery rate.
    """

    algorithm: str
    component: int
    estimate: float
    standard_error: float
    p: float
    q: float
    energy: list[float]
    beyond: bool


@dataclass(frozen=True)
class GroupClaim:
    """What the runs say of one group of targets: how alike the algorithms are on it, and whether less than they would be by chance."""

    group: str
    targets: int
    similarity: Estimate
    p: float
    q: float
    beyond: bool


@dataclass(frozen=True)
class Answer:
    """What a comparison says.

    Attributes
    ----------
    measured : bool
        Whether anything was measured on runs; without, all else is empty.
    differs : bool
        Whether any direction or group of targets is beyond chance, or the one algorithm is the other's opposite.
    similarity : Estimate or None
        Over all targets, without noise; None where datamodels are too weak to be measured, so that its interval holds all
        from -1 to 1.
    directions : list of DirectionClaim
        Those that are more than rounding.
    groups : list of GroupClaim
        The least alike first.
    weak : int
        Targets of which a datamodel is too weak to be measured.
    detectable : float
        Share of an algorithm's datamodels along a direction that would be found and claimed in 80 % of studies
        like this one; NaN where it is not known.
    fdr : float
    """

    measured: bool
    differs: bool
    similarity: Estimate | None
    directions: list[DirectionClaim] = field(default_factory=list)
    groups: list[GroupClaim] = field(default_factory=list)
    weak: int = 0
    detectable: float = float("nan")
    fdr: float = FDR

    @property
    def hardly(self) -> bool:
        """Whether what differs is little: no direction, and every group that is beyond chance is alike for .99 at least."""
        claimed = [one.similarity.low for one in self.groups if one.beyond]
        some = any(one.beyond for one in self.directions)
        return self.differs and not some and bool(claimed) and min(claimed) >= _ALIKE


def answer(comparison: xr.Dataset) -> Answer:
    """Read the answer off a comparison.

    Parameters
    ----------
    comparison : Dataset
        From :func:`dmstore.analysis.compare`, or one that was kept.

    Returns
    -------
    Answer
    """
    if "q" not in comparison:
        return Answer(measured=False, differs=False, similarity=None)
    fdr = float(comparison.attrs.get("fdr", FDR))
    names = [str(name) for name in comparison["algorithm"].values]
    arrays = {
        key: comparison[key].values
        for key in ("difference", "difference_error", "p", "q", "energy")
    }
    directions = [
        _told(
            DirectionClaim(
                algorithm=names[row],
                component=k,
                estimate=float(arrays["difference"][row, k]),
                standard_error=float(arrays["difference_error"][row, k]),
                p=float(arrays["p"][row, k]),
                q=float(arrays["q"][row, k]),
                energy=arrays["energy"][row, k].tolist(),
                beyond=bool(arrays["q"][row, k] <= fdr),
            )
        )
        for row, count in enumerate(rank(comparison))
        for k in range(count)
    ]
    groups = _groups(comparison, fdr)
    whole = next((one.similarity for one in groups if one.group == ALL), None)
    # Of neither algorithm where nothing varies.
    shown = (
        np.asarray(comparison["detectable"].values) if "detectable" in comparison else np.array([])
    )
    detectable = float(np.max(shown[~np.isnan(shown)], initial=-np.inf))
    return Answer(
        measured=True,
        differs=any(one.beyond for one in directions)
        or any(one.beyond for one in groups)
        or (whole is not None and whole.high < 0),
        similarity=whole if whole and _says(whole) else None,
        directions=directions,
        groups=sorted(groups, key=_place),
        weak=int((np.isnan(comparison["similarity"].values) & comparison["included"].values).sum()),
        detectable=detectable if np.isfinite(detectable) else np.nan,
        fdr=fdr,
    )


def _told(one: DirectionClaim) -> DirectionClaim:
    """A direction without numbers of which noise leaves nothing: coordinates of unit vectors differ by two at most."""
    if one.beyond or 0 < one.standard_error < _USELESS:
        return one
    nothing = float("nan")
    return replace(
        one, estimate=nothing, standard_error=nothing, energy=[nothing for _ in one.energy]
    )


def _says(value: Estimate) -> bool:
    """Whether an interval leaves out anything that a cosine may be."""
    return bool(value.low > -1 or value.high < 1)


def _place(one: GroupClaim) -> tuple[bool, bool, float]:
    """Claimed ones first, then the least alike; NaN, which has no order, last."""
    estimate = one.similarity.estimate
    unknown = bool(np.isnan(estimate))
    return not one.beyond, unknown, 0.0 if unknown else estimate


def _groups(comparison: xr.Dataset, fdr: float) -> list[GroupClaim]:
    keys = ("group_similarity", "group_similarity_error", "group_p", "group_q", "group_size")
    value, error, p, q, size = (comparison[key].values for key in keys)
    return [
        GroupClaim(
            str(name),
            int(size[k]),
            Estimate(
                float(value[k]),
                float(value[k] - _NORMAL * error[k]),
                float(value[k] + _NORMAL * error[k]),
            ),
            float(p[k]),
            float(q[k]),
            bool(q[k] <= fdr),
        )
        for k, name in enumerate(comparison["group"].values)
    ]


def plain(said: Answer) -> dict[str, Any]:
    """The answer as JSON holds it: ``differs``, ``similarity``, ``directions``, ``groups`` and more."""
    from dataclasses import asdict

    made = asdict(said)
    return {key: finite(value) for key, value in made.items()}


def finite(value: Any) -> Any:
    """Numbers that JSON has, None for those that it has not."""
    if isinstance(value, dict):
        return {key: finite(one) for key, one in value.items()}
    if isinstance(value, list):
        return [finite(one) for one in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
