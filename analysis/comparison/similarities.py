"""How alike any number of algorithms are: a matrix of similarities, and the order that brings alike ones together (Figure 18)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from dmstore.analysis.comparison.measured import (
    fits_of_halves,
    on_varied_units,
    runs_to_measure,
)
from dmstore.analysis.comparison.where import restriction
from dmstore.analysis.experiment.alike import pair_similarity
from dmstore.analysis.experiment.reading import read_arms
from dmstore.analysis.geometry.dims import with_dims
from dmstore.analysis.geometry.rows import dots, rows_of
from dmstore.analysis.geometry.similarity import aligned
from dmstore.core.given import threads_of
from dmstore.core.progress import Progress, counting
from dmstore.core.threads import blas_threads
from dmstore.errors import InputError
from dmstore.study.study import Study, check_opened


def cosines(datamodels: Mapping[str, xr.Dataset | xr.DataArray]) -> xr.Dataset:
    """Cosine similarity of the datamodels of every pair of algorithms (Appendix F.1).

    Parameters
    ----------
    datamodels : mapping
        Name to ``weight`` (target, train), in memory or lazy, of the same targets and train units; read once each, kept sparse.

    Returns
    -------
    xarray.Dataset
        ``cosine`` (algorithm, other) float64: mean over targets with both datamodels, 1 on the diagonal; ``cosine_of_target``
        (algorithm, other, target) float64, NaN where either is all zero; ``order`` (leaf,) int64: positions of the algorithms as
        average linkage over 1 - cosine puts them side by side; ``linkage`` (merge, 4) float64, as SciPy has it.

    Raises
    ------
    InputError
        If there are fewer than two, or train units or targets differ.
    """
    names = list(datamodels)
    if len(names) < 2:
        msg = f"{len(names)} algorithms; name two or more"
        raise InputError(msg)
    arrays = [with_dims(one, "target", "train") for one in datamodels.values()]
    for other in arrays[1:]:
        aligned(arrays[0], other)
    rows = rows_of(arrays)
    targets = arrays[0].sizes["target"]
    each = np.full((len(names), len(names), targets), np.nan)
    for k, one in enumerate(rows):
        each[k, k, one.nonzero] = 1.0
    for i, j in combinations(range(len(names)), 2):
        known = rows[i].nonzero & rows[j].nonzero
        each[i, j] = each[j, i] = np.where(known, dots(rows[i], rows[j]), np.nan)
    value = np.array([[_mean(one) for one in row] for row in each])
    np.fill_diagonal(value, 1.0)
    coords = {"target": arrays[0]["target"]} if "target" in arrays[0].coords else {}
    made = xr.Dataset(
        {
            "cosine": (("algorithm", "other"), value),
            "cosine_of_target": (("algorithm", "other", "target"), each),
        },
        coords={"algorithm": names, "other": names, **coords},
    )
    return with_order(made, value)


def similarities(
    study: Study,
    algorithms: Sequence[str],
    *,
    where: Sequence[str] = (),
    threads: int | None = None,
    random_state: int = 0,
    progress: Progress | None = None,
) -> xr.Dataset:
    """How alike any number of fitted algorithms of a study are, noise taken out where their runs are there.

    Parameters
    ----------
    study : Study
    algorithms : sequence of str
        Two or more, each fitted, on one output and one target set.
    where : sequence of str
        Only targets that meet all of these conditions, as :func:`dmstore.analysis.compare` takes them.
    threads : int, optional
        All cores by default.
    random_state : int
        Draws the sketch of train units, where there are many.
    progress : callable, optional
        Called with ``masks`` and ``similarity``, steps done and steps in all.

    Returns
    -------
    xarray.Dataset
        As of :func:`dmstore.analysis.cosines`; where all fits have halves also ``similarity`` and ``similarity_error`` (algorithm, other)
        float64: noise-free cosine over all targets, as comparisons of two have it, and its standard error; NaN where datamodels are too
        weak to be measured; 1 and 0 on the diagonal. The order follows it where it is known of all pairs, else the cosine; the
        attribute ``by`` says which.

    Raises
    ------
    InputError
        If there are fewer than two algorithms, one is named twice, or they explain different outputs or targets.
    NotFoundError
        If one is not in the study or has no finished fit.
    """
    check_opened(study)
    names = list(algorithms)
    if len(names) < 2:
        msg = f"{len(names)} algorithms; name two or more"
        raise InputError(msg)
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        msg = f"algorithm {twice[0]!r} is named twice; name each once"
        raise InputError(msg)
    fits = [study.newest_fit(name) for name in names]
    for key in ("output", "target_set"):
        for name, fit in zip(names[1:], fits[1:], strict=True):
            if fit[key] != fits[0][key]:
                msg = f"{names[0]!r} was fitted on {key} {fits[0][key]!r}, {name!r} on {fit[key]!r}; fit all on the same"
                raise InputError(msg)
    target_set = fits[0]["target_set"]
    data = [study.datamodels(name, fit["fit"]) for name, fit in zip(names, fits, strict=True)]
    chosen = restriction(where, study.target_set(target_set), study.class_names)
    if chosen:
        data = [one.isel(target=chosen.positions) for one in data]
    made = cosines(dict(zip(names, data, strict=True)))
    about = chosen.stated if chosen else {}
    made = made.assign_attrs(fits=[fit["fit"] for fit in fits], **about)
    pinned = runs_to_measure(study, names, [fit["fit"] for fit in fits])
    if not pinned:
        return made
    count = threads_of(threads)
    with blas_threads(count):
        arms = read_arms(
            study,
            tuple(pinned),
            fits[0]["output"],
            threads=count,
            positions=chosen.positions if chosen else None,
            progress=counting(progress, "masks"),
        )
        halves = [fits_of_halves(one) for one in data]
        value, error = np.eye(len(names)), np.zeros((len(names), len(names)))
        pairs = list(combinations(range(len(names)), 2))
        tell = counting(progress, "similarity")
        for done, (i, j) in enumerate(pairs):
            of_pair, their_fits = on_varied_units((arms[i], arms[j]), [halves[i], halves[j]])
            similar = pair_similarity(of_pair, their_fits, threads=count, random_state=random_state)
            value[i, j] = value[j, i] = similar.group[0]
            error[i, j] = error[j, i] = similar.group_error[0]
            tell(done + 1, len(pairs))
    dims = ("algorithm", "other")
    made = made.assign(similarity=(dims, value), similarity_error=(dims, error))
    return with_order(made, value, "similarity") if np.isfinite(value).all() else made


def with_order(similar: xr.Dataset, value: NDArray[np.float64], by: str = "cosine") -> xr.Dataset:
    """Add ``order`` and ``linkage`` of average linkage over 1 less the similarity; unknown ones count as the least alike."""
    from scipy.cluster.hierarchy import leaves_list, linkage, optimal_leaf_ordering
    from scipy.spatial.distance import squareform

    known = value[np.isfinite(value)]
    distance = 1 - np.where(np.isfinite(value), value, known.min(initial=0.0))
    # Noise carries similarities beyond 1.
    distance = np.clip((distance + distance.T) / 2, 0, None)
    np.fill_diagonal(distance, 0)
    condensed = squareform(distance, checks=False)
    tree = optimal_leaf_ordering(linkage(condensed, method="average"), condensed)
    order = leaves_list(tree).astype(np.int64)
    return similar.assign(order=("leaf", order), linkage=(("merge", "part"), tree)).assign_attrs(
        by=by
    )


def _mean(values: NDArray[np.float64]) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")
