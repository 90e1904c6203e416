"""ModelDiff from end to end: two fitted algorithms of a study to distinguishing subpopulations."""

from __future__ import annotations

import hashlib
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

_EXCHANGES = 20


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
    label = study.targets["label"].values
    halves = all("weight_half" in data[name] for name in (a, b))
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
        parts = subpopulation(
            found["projection"], label, top=parameters.top, random_state=parameters.random_state
        )
        order = np.argsort(-np.abs(direction.values), axis=1, kind="stable")[:, : parameters.heavy]
        influence = [
            relative_influence(unit[own], unit[other], members[members >= 0]).values
            for members in parts["subpopulation"].values[:, 0]
        ]
        made = {
            "direction": direction.values.astype(np.float32),
            "projection": found["projection"].values.astype(np.float32),
            "residual_variance": found["residual_variance"].values,
            "explained_variance": np.stack(
                [explained_variance(weight[on], direction).values for on in (a, b)], axis=1
            ),
            "delta": delta(weight[own], weight[other], direction).values,
            "subpopulation": parts["subpopulation"].values,
            "contrast": parts["contrast"].values,
            "heaviest": order.astype(np.int64),
            "relative_influence": np.array(influence, dtype=np.float32),
        }
        if halves:
            made |= _out_of_sample(
                data[own]["weight_half"], data[other]["weight_half"], len(direction), parameters
            )
        for key, value in made.items():
            per.setdefault(key, []).append(value)
    count = min(len(value) for value in per["direction"])
    arrays = {key: np.stack([value[:count] for value in values]) for key, values in per.items()}
    rest = residual(weight[a], weight[b])
    arrays |= {
        "algorithm": np.array([a, b]),
        "on": np.array([a, b]),
        "cosine": cosine(weight[a], weight[b]).values,
        "included": rest["included"].values,
    }
    if halves:
        half = {name: [data[name]["weight_half"].isel(half=h) for h in (0, 1)] for name in (a, b)}
        cross = [cosine(half[a][h], half[b][1 - h]).values for h in (0, 1)]
        arrays["cosine_cross"] = np.mean(cross, axis=0)
        arrays["cosine_ceiling"] = np.stack([cosine(*half[name]).values for name in (a, b)])
    return arrays


def _out_of_sample(
    own: xr.DataArray, other: xr.DataArray, count: int, parameters: ComparisonParameters
) -> dict[str, NDArray[Any]]:
    """Delta(u) of directions from one half of the masks, measured on the other half.

    Both halves take either role and the two are averaged, component by component. The null does
    the same after the two algorithms are exchanged on a random half of the targets: if the
    algorithms did not differ, that would change nothing. Its largest value over 20 exchanges is
    kept, about the 95th percentile.
    """
    draw = np.random.default_rng(parameters.random_state)
    pair: NDArray[np.float64] = np.stack(
        [[normalize(data.isel(half=h)).values for h in (0, 1)] for data in (own, other)]
    )
    nonzero: NDArray[np.bool_] = np.not_equal(pair, 0)
    included = np.all(np.any(nonzero, axis=3), axis=(0, 1))
    pair = pair[:, :, included]
    if pair.shape[2] < 2:
        return {"delta_out": np.full(count, np.nan), "delta_null": np.full(count, np.nan)}
    nulls = []
    for _ in range(_EXCHANGES):
        swap: NDArray[np.bool_] = np.less(draw.random(pair.shape[2]), 0.5)
        exchanged = np.where(swap[None, None, :, None], pair[::-1], pair)
        nulls.append(_gap(exchanged, count, parameters))
    return {"delta_out": _gap(pair, count, parameters), "delta_null": np.max(nulls, axis=0)}


def _gap(
    pair: NDArray[np.float64], count: int, parameters: ComparisonParameters
) -> NDArray[np.float64]:
    """Mean over the two halves of the out-of-sample gap; `pair` is (algorithm, half, target, train)."""
    gaps = np.zeros((2, count))
    for h in (0, 1):
        a, b = pair[0, h], pair[1, h]
        rest = a - (a * b).sum(axis=1, keepdims=True) * b
        if parameters.center:
            rest = rest - rest.mean(axis=0)
        found = leading(rest, min(count, *rest.shape), parameters.random_state, exact=False)
        along = [((data[1 - h] @ found.T) ** 2).mean(axis=0) for data in pair]
        gaps[h, : len(found)] = along[0] - along[1]
    return np.asarray(gaps.mean(axis=0))
