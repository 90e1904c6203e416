"""What the runs of a study say of a comparison of two of its fits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from dmstore.analysis.comparison.differences import differences
from dmstore.analysis.comparison.modeldiff import rank
from dmstore.analysis.comparison.parameters import ComparisonParameters
from dmstore.analysis.comparison.target_groups import target_groups
from dmstore.analysis.experiment.arms import Halves
from dmstore.analysis.experiment.reading import Pinned, pin, read_arms
from dmstore.analysis.geometry.rows import sparse_rows
from dmstore.core.memory import available, parse
from dmstore.core.progress import Progress, counting
from dmstore.core.threads import side_by_side
from dmstore.schema.group_specs import group_spec
from dmstore.study.study import Study

_HALVES = "weight_half"
# The process with what it imports.
_BASE = 450_000_000


def runs_to_measure(study: Study, algorithms: Sequence[str], fits: list[str]) -> list[Pinned]:
    """The runs of the algorithms, pinned; none where a fit has no halves, which find what runs then measure."""
    data = (study.datamodels(name, fit) for name, fit in zip(algorithms, fits, strict=True))
    if not all(_HALVES in one for one in data):
        return []
    return [pin(study, name) for name in algorithms]


def fits_of_halves(data: xr.Dataset) -> list[Any]:
    """Datamodels from half 0 and from half 1 of the masks: (target, train) csr_array each."""
    return [sparse_rows(data[_HALVES].isel(half=h)) for h in (0, 1)]


def on_varied_units(
    arms: tuple[Halves, Halves], fits: list[list[Any]]
) -> tuple[tuple[Halves, Halves], list[list[Any]]]:
    """Both algorithms on the units that masks of both vary.

    What a unit does that all or none of the runs of one algorithm saw is not known of that algorithm, so that it
    must not count as a difference.
    """
    from scipy.sparse import diags_array

    varied = np.logical_and(*(halves[0].spread > 0 for halves in arms))
    if varied.all():
        return arms, fits
    a, b = (
        tuple(replace(arm, rate=np.where(varied, arm.rate, 1.0)) for arm in halves)
        for halves in arms
    )
    kept = [
        [(one @ diags_array(varied.astype(one.dtype))).tocsr() for one in pair] for pair in fits
    ]
    return ((a[0], a[1]), (b[0], b[1])), kept


def with_measured(
    result: xr.Dataset,
    study: Study,
    runs: list[Pinned],
    data: list[xr.Dataset],
    output: str,
    target_set: str,
    positions: NDArray[np.int64] | None,
    parameters: ComparisonParameters,
    *,
    threads: int,
    memory: int | str | None = None,
    progress: Progress | None = None,
) -> xr.Dataset:
    """Add to a comparison what is beyond chance in it.

    Parameters
    ----------
    result : Dataset
        From :func:`dmstore.analysis.modeldiff`.
    study : Study
    runs : list of Pinned
        Of both algorithms.
    data : list of Dataset
        Their datamodels, of the targets that are compared.
    output, target_set : str
    positions : (target,) int64, optional
        Those of the compared targets in their set; all without.
    parameters : ComparisonParameters
    threads : int
    memory : int or str, optional
        Bytes that the process may take; most of what is free by default.
    progress : callable, optional
        Called with ``read``, ``propose`` and ``measure``, steps done and steps in all.
    """
    arms = read_arms(
        study,
        tuple(runs),
        output,
        threads=threads,
        positions=positions,
        progress=counting(progress, "read"),
    )
    with side_by_side(threads) as pool:
        fits: list[list[Any]] = list(pool.map(fits_of_halves, data))
    taken = _BASE + sum(one.data.nbytes + one.indices.nbytes for pair in fits for one in pair)
    words = {id(arm.masks): arm.masks.words.nbytes for halves in arms for arm in halves}
    taken += sum(words.values())
    halves, fits = on_varied_units((arms[0], arms[1]), fits)
    left = available() if memory is None else parse(memory) - taken
    targets = study.target_set(target_set)
    if positions is not None:
        targets = targets.isel(target=positions)
    made = differences(
        halves,
        (fits[0], fits[1]),
        result["projection"].values,
        rank(result),
        target_groups(targets, study.class_names),
        parameters,
        threads=threads,
        memory=left,
        proposing=counting(progress, "propose"),
        progress=counting(progress, "measure"),
    )
    spec = group_spec("comparison").arrays
    return result.assign({key: (spec[key].dims, value) for key, value in made.items()})
