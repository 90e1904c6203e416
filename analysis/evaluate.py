"""Statistical quality of datamodels, on runs that nothing was fitted on."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmstore import schema
from dmstore.errors import InputError
from dmstore.storage import log
from dmstore.study import Study

_FEWEST = 5


def evaluate(
    study: Study,
    algorithm: str,
    *,
    fit: str | None = None,
    resamples: int = 1000,
    random_state: int = 0,
) -> dict[str, Any]:
    """LDS of a fit on the eval runs, with a bootstrap interval; computed once a snapshot.

    The linear datamodeling score of a target is the Spearman correlation, over masks, of the
    outputs that its datamodel predicts and those that runs had (repeats of a mask averaged).

    Parameters
    ----------
    study : Study
    algorithm : str
    fit : str, optional
        The newest complete one by default.
    resamples : int
        Bootstrap resamples of the eval masks.
    random_state : int

    Returns
    -------
    dict
        ``lds`` (mean over targets), ``lds_low`` and ``lds_high`` (95 %), ``lds_median``, ``r2``
        (median over targets on eval runs), ``holdout_r2`` (median), ``eval_runs``, ``eval_masks``,
        ``targets``.

    Raises
    ------
    NotFoundError
        If there is no finished fit.
    InputError
        If there are fewer than 5 eval masks.
    """
    datamodels = study.datamodels(algorithm, fit)
    output = datamodels.attrs["output"]
    runs = study.runs(algorithm)
    name = f"datamodels/{algorithm}/{datamodels.attrs['fit']}/evaluation-{runs.attrs['content_id'][:16]}.json"
    parameters = {"resamples": resamples, "random_state": random_state}
    if study.objects.exists(name):
        kept = schema.load_document("evaluation", study.objects.get(name), name)
        if kept["parameters"] == parameters:
            return {"algorithm": algorithm, "fit": kept["fit"], **kept["results"]}
    chosen = np.flatnonzero(runs["split"].values == "eval")
    mask_id = runs["mask_id"].values[chosen]
    unique, first, inverse = np.unique(mask_id, return_index=True, return_inverse=True)
    if len(unique) < _FEWEST:
        msg = f"algorithm {algorithm!r} has {len(unique)} eval masks, at least {_FEWEST} are needed; train more runs"
        raise InputError(msg)
    masks = runs["mask"].isel(run=chosen[first]).values
    outputs = _average(
        runs[output].isel(run=chosen).values.astype(np.float64), inverse.ravel(), len(unique)
    )
    weight = datamodels["weight"].values.astype(np.float64)
    predicted = masks.astype(np.float64) @ weight.T + datamodels["bias"].values
    varies = np.ptp(outputs, axis=0) > 0
    correlation = spearman(predicted, outputs)
    spread = _bootstrap(predicted[:, varies], outputs[:, varies], resamples, random_state)
    variance = ((outputs - outputs.mean(axis=0)) ** 2).mean(axis=0)
    error = ((outputs - predicted) ** 2).mean(axis=0)
    r2 = 1 - error[varies] / variance[varies]
    results = {
        "lds": _number(correlation[varies].mean() if varies.any() else np.nan),
        "lds_low": _number(spread[0]),
        "lds_high": _number(spread[1]),
        "lds_median": _number(np.median(correlation[varies]) if varies.any() else np.nan),
        "r2": _number(np.median(r2) if varies.any() else np.nan),
        "holdout_r2": _number(
            np.nanmedian(datamodels["holdout_r2"].values)
            if np.isfinite(datamodels["holdout_r2"].values).any()
            else np.nan
        ),
        "eval_runs": len(chosen),
        "eval_masks": len(unique),
        "targets": int(varies.sum()),
    }
    document = {
        "fit": datamodels.attrs["fit"],
        "study": study.uuid,
        "algorithm": algorithm,
        "content_id": runs.attrs["content_id"],
        "eval_runs": results["eval_runs"],
        "parameters": parameters,
        "results": results,
        "created": log.utc_now(),
        "software": log.software(),
    }
    study.objects.put_if_absent(name, schema.dump_document("evaluation", document))
    return {"algorithm": algorithm, "fit": datamodels.attrs["fit"], **results}


def spearman(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Spearman correlation of the columns of two arrays: (mask, target) each, to (target,).

    A constant column gives 0.
    """
    from scipy.stats import rankdata

    return _pearson(rankdata(a, axis=0), rankdata(b, axis=0))


def _pearson(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    a = a - a.mean(axis=0)
    b = b - b.mean(axis=0)
    scale = np.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0))
    correlation: NDArray[np.float64] = np.divide(
        (a * b).sum(axis=0), scale, out=np.zeros(a.shape[1]), where=scale > 0
    )
    return correlation


def _average(
    values: NDArray[np.float64], group: NDArray[np.int64], count: int
) -> NDArray[np.float64]:
    total = np.zeros((count, values.shape[1]))
    np.add.at(total, group, values)
    return total / np.bincount(group, minlength=count)[:, None]


def _bootstrap(
    predicted: NDArray[np.float64], outputs: NDArray[np.float64], resamples: int, random_state: int
) -> tuple[float, float]:
    """95 % interval of the mean LDS over targets, masks resampled.

    Ranks stay those of the whole sample: ranking a resample again would count its ties as noise.
    """
    from scipy.stats import rankdata

    masks, targets = outputs.shape
    if not targets:
        return np.nan, np.nan
    draw = np.random.default_rng(random_state)
    weight = draw.multinomial(masks, np.full(masks, 1 / masks), resamples) / masks
    a, b = (rankdata(values, axis=0) - (masks + 1) / 2 for values in (predicted, outputs))
    mean_a, mean_b = weight @ a, weight @ b
    covariance = weight @ (a * b) - mean_a * mean_b
    scale = np.sqrt(np.maximum((weight @ a**2 - mean_a**2) * (weight @ b**2 - mean_b**2), 0))
    correlation = np.divide(covariance, scale, out=np.zeros_like(scale), where=scale > 1e-12)
    means = correlation.mean(axis=1)
    # A correlation of few masks is biased towards 0, and resampling adds the same bias once more.
    shift = spearman(predicted, outputs).mean() - means.mean()
    low, high = np.percentile(means, [2.5, 97.5]) + shift
    return float(low), float(min(high, 1.0))


def _number(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None
