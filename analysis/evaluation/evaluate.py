"""Statistical quality of a fit in a few numbers, kept beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from dmstore import provenance
from dmstore.analysis.evaluation.benchmark import FIT, benchmark
from dmstore.analysis.evaluation.benchmark_summary import summarise
from dmstore.analysis.evaluation.plain_numbers import median
from dmstore.errors import StorageError
from dmstore.schema.documents import dump_document, load_document
from dmstore.schema.typed_documents import EvaluationDocument
from dmstore.storage.published.published import ReadOnly
from dmstore.study.study import Study, check_opened

if TYPE_CHECKING:
    import xarray as xr

_KEPT = (
    *("lds", "lds_low", "lds_high", "lds_median", "r2", "holdout_r2"),
    *("kendall", "pearson", "mse", "ceiling", "eval_runs", "eval_masks", "targets"),
)


def evaluate(
    study: Study,
    algorithm: str,
    *,
    fit: str | None = None,
    resamples: int = 1000,
    random_state: int = 0,
) -> xr.Dataset:
    """LDS of a fit on the eval runs, with a bootstrap interval; computed once a snapshot.

    :func:`dmstore.analysis.benchmark` gives the same for every target, with baselines and
    outside scores beside it.

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
    xarray.Dataset
        One number each: ``lds`` (mean over targets), ``lds_low`` and ``lds_high`` (95 %), ``lds_median``,
        medians over targets ``r2``, ``mse``, ``kendall`` and ``pearson`` on eval runs, ``ceiling`` (mean; NaN
        without repeats), ``holdout_r2`` (median), ``eval_runs``, ``eval_masks``, ``targets``. Attributes
        ``algorithm`` and ``fit``.

    Raises
    ------
    NotFoundError
        If there is no finished fit.
    InputError
        If there are fewer than 5 eval masks, or the fit has seen them.
    """
    check_opened(study)
    import xarray as xr

    numbers = figures(study, algorithm, fit=fit, resamples=resamples, random_state=random_state)
    return xr.Dataset(
        {key: np.nan if numbers[key] is None else numbers[key] for key in _KEPT},
        attrs={"algorithm": algorithm, "fit": numbers["fit"]},
    )


def figures(
    study: Study,
    algorithm: str,
    *,
    fit: str | None = None,
    resamples: int = 1000,
    random_state: int = 0,
) -> dict[str, Any]:
    """The numbers of :func:`evaluate` for a page: None where one is not known."""
    named = study.newest_fit(algorithm, fit)["fit"]
    parameters = {"resamples": resamples, "random_state": random_state}
    name = _name(algorithm, named, study.view(algorithm).content_id)
    if study.objects.exists(name):
        kept = load_document("evaluation", study.objects.get(name), name)
        if kept.get("parameters") == parameters and kept["results"].keys() >= set(_KEPT):
            return {"algorithm": algorithm, "fit": kept["fit"], **kept["results"]}
    result = benchmark(
        study, algorithm, fit=named, baselines=False, resamples=resamples, random_state=random_state
    )
    return keep(study, result)


def keep(study: Study, result: xr.Dataset) -> dict[str, Any]:
    """The numbers of the fit in a benchmark, stored beside the fit where the study can be written.

    Parameters
    ----------
    study : Study
    result : xarray.Dataset
        From :func:`dmstore.analysis.benchmark`, with a fit.

    Returns
    -------
    dict
        ``algorithm``, ``fit`` and the numbers of :func:`evaluate`; None where one is not known. ``not_kept``: why the
        storage did not take them; empty if it did, or if they are not to be stored.
    """
    attrs = result.attrs
    table = summarise(result)
    own = next(entry for entry in table["methods"] if entry["method"] == FIT)
    holdout = study.datamodels(attrs["algorithm"], attrs["fit"])["holdout_r2"].values
    known = {**own, **table, "holdout_r2": median(holdout)}
    results = {key: known[key] for key in _KEPT}
    not_kept = ""
    if not (own["seen"] or isinstance(study.objects, ReadOnly)):
        document: EvaluationDocument = {
            "fit": attrs["fit"],
            "study": study.uuid,
            "algorithm": attrs["algorithm"],
            "content_id": attrs["content_id"],
            "eval_runs": results["eval_runs"],
            "parameters": {key: attrs[key] for key in ("resamples", "random_state")},
            "results": results,
            "created": provenance.utc_now(),
            "software": provenance.software(),
        }
        name = _name(attrs["algorithm"], attrs["fit"], attrs["content_id"])
        try:
            study.objects.put_if_absent(name, dump_document("evaluation", document))
        except StorageError as error:
            # The numbers are what was asked for; that they stand beside the fit only spares another call.
            not_kept = str(error)
    return {"algorithm": attrs["algorithm"], "fit": attrs["fit"], **results, "not_kept": not_kept}


def _name(algorithm: str, fit: str, content_id: str) -> str:
    return f"datamodels/{algorithm}/{fit}/evaluation-{content_id[:16]}.json"
