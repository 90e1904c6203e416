"""Where two algorithms predict the same class, and whether directions outlast what they predict differently (Appendix F.4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from dmstore.analysis.comparison.modeldiff import rank
from dmstore.analysis.comparison.where import Restriction
from dmstore.errors import InputError
from dmstore.schema.typed_documents import ComparisonDocument
from dmstore.study.study import Study, check_opened

PREDICTION = "prediction"
AGREE = "modal predictions agree"
# Predictions that are in memory at once.
_BLOCK = 1 << 24


def modal_prediction(study: Study, algorithm: str, target_set: str | None = None) -> xr.Dataset:
    """The class that most runs of an algorithm predict for each target.

    Parameters
    ----------
    study : Study
    algorithm : str
        Its runs need the output ``prediction``; all that are stored count.
    target_set : str, optional
        The algorithm's own by default.

    Returns
    -------
    xarray.Dataset
        ``mode`` (target,) int64, of equally frequent classes the smallest; ``share`` (target,) float64, of the runs that predict
        it. Attributes ``algorithm``, ``runs`` and ``content_id`` of these.

    Raises
    ------
    NotFoundError
        If there is no such algorithm or set.
    InputError
        If it has no output ``prediction``, or no runs.
    """
    check_opened(study)
    declared = study.algorithm(algorithm).outputs
    if PREDICTION not in declared or list(declared[PREDICTION]["dims"]) != ["run", "target"]:
        msg = f"algorithm {algorithm!r} has no output 'prediction' (it has {', '.join(sorted(declared))}), so nothing says which class its runs predict; record it with the runs, or leave the agreement out"
        raise InputError(msg)
    view = study.view(algorithm, target_set)
    if not len(view):
        msg = f"algorithm {algorithm!r} has no runs, so nothing says which class they predict; train some"
        raise InputError(msg)
    said = view.dataset[PREDICTION]
    runs, targets = said.shape
    mode, share = np.empty(targets, dtype=np.int64), np.empty(targets)
    step = max(1, _BLOCK // runs)
    for start in range(0, targets, step):
        values = np.asarray(said.isel(target=slice(start, start + step)).values)
        known, place = np.unique(values, return_inverse=True)
        width = values.shape[1]
        place = place.reshape(values.shape) * width + np.arange(width)
        counts = np.bincount(place.ravel(), minlength=len(known) * width).reshape(-1, width)
        part = slice(start, start + width)
        mode[part], share[part] = known[counts.argmax(axis=0)], counts.max(axis=0) / runs
    return xr.Dataset(
        {"mode": ("target", mode), "share": ("target", share)},
        coords={"target": said["target"]} if "target" in said.coords else None,
        attrs={"algorithm": algorithm, "runs": runs, "content_id": view.content_id},
    )


@dataclass(frozen=True)
class Agreement:
    """Targets on which the modal predictions of two algorithms agree.

    Attributes
    ----------
    agrees : (target,) bool
    content_ids : list of str
        Of the runs of both.
    """

    agrees: NDArray[np.bool_]
    content_ids: list[str]

    def among(self, chosen: Restriction | None) -> Restriction:
        """These targets among those that were chosen before.

        Raises
        ------
        InputError
            If fewer than two are left.
        """
        before = np.arange(len(self.agrees)) if chosen is None else chosen.positions
        positions = before[self.agrees[before]]
        said = AGREE if chosen is None else f"{chosen.said}, {AGREE}"
        if len(positions) < 2:
            msg = f"where {said}: {len(positions)} of {len(before)} targets; a comparison needs two or more"
            raise InputError(msg)
        return Restriction(positions, said)


def agreement(study: Study, a: str, b: str, target_set: str | None = None) -> Agreement:
    """Where most runs of both algorithms predict the same class.

    Parameters
    ----------
    study : Study
    a, b : str
    target_set : str, optional

    Raises
    ------
    InputError, NotFoundError
        As :func:`modal_prediction`.
    """
    modes = [modal_prediction(study, name, target_set) for name in (a, b)]
    agrees = modes[0]["mode"].values == modes[1]["mode"].values
    return Agreement(agrees, [one.attrs["content_id"] for one in modes])


def without_agreement(
    comparisons: Sequence[ComparisonDocument], document: ComparisonDocument
) -> ComparisonDocument | None:
    """The newest comparison of the same fits and targets whatever is predicted for them; None if there is none.

    Parameters
    ----------
    comparisons : sequence of dict
        Oldest first.
    document : dict
        Of targets on which predictions agree.
    """
    where = str(document["parameters"].get("where", "")).removesuffix(AGREE).removesuffix(", ")
    for one in reversed(comparisons):
        stated = one["parameters"]
        same = set(one["fits"]) == set(document["fits"]) and "agree" not in stated
        if same and str(stated.get("where", "")) == where:
            found: ComparisonDocument = one
            return found
    return None


def direction_likeness(comparison: xr.Dataset, other: xr.Dataset) -> xr.Dataset:
    """Whether the directions of one comparison are found in another of the same algorithms (Table 2).

    Parameters
    ----------
    comparison, other : Dataset
        From :func:`dmstore.analysis.compare`, such as of all targets, and of those on which predictions agree.

    Returns
    -------
    xarray.Dataset
        ``likeness`` (algorithm, component) float64: largest absolute cosine with a direction of `other`, NaN for directions that are
        rounding alone; ``match`` (algorithm, component) int64: which that is, from 0, -1 for none.

    Raises
    ------
    InputError
        If they are of other algorithms, or train units differ.
    """
    names = [[str(name) for name in one["algorithm"].values] for one in (comparison, other)]
    if set(names[0]) != set(names[1]):
        msg = f"comparisons of {' and '.join(names[0])} and of {' and '.join(names[1])}: give two of the same algorithms"
        raise InputError(msg)
    if comparison.sizes["train"] != other.sizes["train"]:
        msg = "the two comparisons do not have the same train ids; give two of one study"
        raise InputError(msg)
    shape = comparison["direction"].shape[:2]
    likeness, match = np.full(shape, np.nan), np.full(shape, -1, dtype=np.int64)
    real = rank(other)
    for row, (name, count) in enumerate(zip(names[0], rank(comparison), strict=True)):
        theirs = names[1].index(name)
        if not count or not real[theirs]:
            continue
        first = comparison["direction"].values[row, :count].astype(np.float64)
        second = other["direction"].values[theirs, : real[theirs]].astype(np.float64)
        cosine = np.abs(first @ second.T)
        likeness[row, :count], match[row, :count] = cosine.max(axis=1), cosine.argmax(axis=1)
    dims = ("algorithm", "component")
    return xr.Dataset(
        {"likeness": (dims, likeness), "match": (dims, match)}, coords={"algorithm": names[0]}
    )
