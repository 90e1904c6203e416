"""ModelDiff from end to end: two fitted algorithms of a study to distinguishing subpopulations."""

from __future__ import annotations

import hashlib
import itertools
import json
import uuid
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from dmstore import schema
from dmstore.analysis.influence import relative_influence
from dmstore.analysis.normalize import normalize
from dmstore.analysis.pca import delta, explained_variance, leading, pca
from dmstore.analysis.residual import residual
from dmstore.analysis.similarity import cosine
from dmstore.analysis.subpopulation import subpopulation
from dmstore.errors import InputError
from dmstore.storage import groups, log
from dmstore.study import Study

_FOUND_AGAIN = 0.5


@dataclass(frozen=True)
class ComparisonParameters:
    """How to compare; see :func:`compare`."""

    components: int = 10
    top: int = 16
    heavy: int = 50
    center: bool = True
    random_state: int = 0


def compare(
    study: Study,
    a: str,
    b: str,
    *,
    components: int = 10,
    top: int = 16,
    heavy: int = 50,
    center: bool = True,
    random_state: int = 0,
) -> xr.Dataset:
    """Compare two algorithms of a study, and keep the result.

    Parameters
    ----------
    study : Study
    a, b : str
        Fitted algorithms.
    components : int
        Directions each way.
    top : int
        Targets in a subpopulation.
    heavy : int
        Heaviest train units to list for a direction.
    center : bool
        Whether PCA subtracts the mean residual.
    random_state : int

    Returns
    -------
    xarray.Dataset
        As in ``comparison.group.json``: directions, projections, explained variance and Delta(u)
        each way, cosine similarities with their ceiling, subpopulations and contrasts.

    Raises
    ------
    InputError
        If A is B, or they explain different outputs or targets.
    NotFoundError
        If one is not in the study or has no finished fit.

    References
    ----------
    ModelDiff, section 3 and Appendices A, D, F.1, F.2.
    """
    if a == b:
        msg = f"comparing {a!r} with itself tells nothing; name two algorithms"
        raise InputError(msg)
    parameters = ComparisonParameters(components, top, heavy, center, random_state)
    if min(components, top, heavy) < 1:
        msg = f"components {components}, top {top}, heavy {heavy}: all must be 1 or more"
        raise InputError(msg)
    fits = [study.newest_fit(name) for name in (a, b)]
    for key in ("output", "target_set"):
        if fits[0][key] != fits[1][key]:
            msg = f"{a!r} was fitted on {key} {fits[0][key]!r}, {b!r} on {fits[1][key]!r}; fit both on the same"
            raise InputError(msg)
    stated = {
        "fits": [fit["fit"] for fit in fits],
        "parameters": asdict(parameters),
        "study": study.uuid,
        "algorithms": [a, b],
        "format_version": schema.FORMAT_VERSION,
    }
    name = hashlib.sha256(json.dumps(stated, sort_keys=True).encode()).hexdigest()[:16]
    where = f"comparisons/{name}/"
    if not study.objects.exists(f"{where}complete.json"):
        document = {
            "comparison": name,
            "study": study.uuid,
            "algorithms": [a, b],
            "fits": [fit["fit"] for fit in fits],
            "content_ids": [fit["content_id"] for fit in fits],
            "parameters": asdict(parameters),
            "created": log.utc_now(),
            "software": log.software(),
        }
        study.objects.put_if_absent(
            f"{where}comparison.json", schema.dump_document("comparison", document)
        )
        arrays = _compute(study, a, b, parameters)
        path = f"comparison-{uuid.uuid4().hex[:8]}.zarr"
        groups.write_directory(
            study.objects, f"{where}{path}", schema.group_spec("comparison"), arrays
        )
        complete = {"path": path, "created": log.utc_now()}
        if not study.objects.put_if_absent(
            f"{where}complete.json", schema.dump_document("complete", complete)
        ):
            study.objects.delete(f"{where}{path}")
    return study.comparison(a, b, name)


def _compute(
    study: Study, a: str, b: str, parameters: ComparisonParameters
) -> dict[str, NDArray[Any]]:
    data = {name: study.datamodels(name).load() for name in (a, b)}
    weight = {name: data[name]["weight"] for name in (a, b)}
    unit = {name: normalize(weight[name]) for name in (a, b)}
    label = study.label()
    parts = all("weight_quarter" in data[name] for name in (a, b))
    included = ((weight[a] != 0).any("train") & (weight[b] != 0).any("train")).values
    unit_parts = {name: _parts(data[name], included) for name in (a, b)} if parts else {}
    per: dict[str, list[NDArray[Any]]] = {}
    for own, other in ((a, b), (b, a)):
        rest = residual(weight[own], weight[other])
        found = pca(
            rest,
            components=parameters.components,
            center=parameters.center,
            random_state=parameters.random_state,
        )
        direction = found["direction"]
        members = subpopulation(
            found["projection"], label, top=parameters.top, random_state=parameters.random_state
        )
        order = np.argsort(-np.abs(direction.values), axis=1, kind="stable")[:, : parameters.heavy]
        influence = [
            relative_influence(unit[own], unit[other], top[top >= 0]).values
            for top in members["subpopulation"].values[:, 0]
        ]
        made = {
            "direction": direction.values.astype(np.float32),
            "projection": found["projection"].values.astype(np.float32),
            "residual_variance": found["residual_variance"].values,
            "explained_variance": np.stack(
                [explained_variance(weight[on][included], direction).values for on in (a, b)],
                axis=1,
            ),
            "delta": delta(weight[own], weight[other], direction).values,
            "subpopulation": members["subpopulation"].values,
            "contrast": members["contrast"].values,
            "heaviest": order.astype(np.int64),
            "relative_influence": np.array(influence, dtype=np.float32),
        }
        if parts:
            made |= _out_of_sample(unit_parts[own], unit_parts[other], direction.values)
        for key, value in made.items():
            per.setdefault(key, []).append(value)
    count = min(len(value) for value in per["direction"])
    arrays = {
        key: np.stack([value[:count] if value.ndim else value for value in values])
        for key, values in per.items()
    }
    arrays |= {
        "algorithm": np.array([a, b]),
        "on": np.array([a, b]),
        "cosine": cosine(weight[a], weight[b]).values,
        "included": included,
    }
    if parts:
        half = {name: [data[name]["weight_half"].isel(half=h) for h in (0, 1)] for name in (a, b)}
        cross = [cosine(half[a][h], half[b][1 - h]).values for h in (0, 1)]
        arrays["cosine_cross"] = np.mean(cross, axis=0)
        arrays["cosine_ceiling"] = np.stack([cosine(*half[name]).values for name in (a, b)])
    return arrays


def _parts(data: xr.Dataset, included: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Unit datamodels of each quarter of the masks: (quarter, target, train)."""
    quarters = data["weight_quarter"].isel(target=included)
    return np.stack(
        [normalize(quarters.isel(quarter=q)).values for q in range(quarters.sizes["quarter"])]
    )


def _out_of_sample(
    own: NDArray[np.float64], other: NDArray[np.float64], direction: NDArray[np.float64]
) -> dict[str, NDArray[Any]]:
    """Delta(u) of directions found on some runs, measured on others; and what chance alone gives.

    Directions come from quarter i of the one algorithm's masks against quarter j of the other's,
    and are matched to those of the whole fit; the gap is measured on the two quarters that are
    left, in both orders. For the null the algorithm is compared with itself in the same way: its
    largest gap, over all choices and all directions, is noise alone, the noise that a run's
    targets share included.
    """
    pairs = list(itertools.permutations(range(4), 2))
    gaps = np.full((len(pairs), len(direction)), np.nan)
    null = 0.0
    for row, (i, j) in enumerate(pairs):
        k, m = (q for q in range(4) if q not in (i, j))
        found = _directions(own[i], other[j], len(direction))
        likeness = np.abs(direction @ found.T)
        match = likeness.argmax(axis=1)
        gap = (_explained(own[k], found) - _explained(other[m], found)) / 2
        gap += (_explained(own[m], found) - _explained(other[k], found)) / 2
        again = likeness.max(axis=1) >= _FOUND_AGAIN
        gaps[row, again] = gap[match[again]]
        noise = _directions(own[i], own[j], len(direction))
        null = max(null, float(np.abs(_explained(own[k], noise) - _explained(own[m], noise)).max()))
    seen = ~np.isnan(gaps)
    count = seen.sum(axis=0)
    mean = np.divide(
        np.nansum(gaps, axis=0), count, out=np.full(len(direction), np.nan), where=count > 0
    )
    return {"delta_out": mean, "found_again": count / len(pairs), "delta_null": np.array(null)}


def _directions(a: NDArray[np.float64], b: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    rest = a - (a * b).sum(axis=1, keepdims=True) * b
    return leading(rest - rest.mean(axis=0), min(count, *rest.shape), 0, exact=False)


def _explained(rows: NDArray[np.float64], direction: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(((rows @ direction.T) ** 2).mean(axis=0))
