"""The numbers of a learning curve, and where they are kept beside a fit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dmstore import provenance
from dmstore.analysis.evaluation.plain_numbers import mean, median, number, quantile
from dmstore.errors import StorageError
from dmstore.schema.documents import dump_document, load_document
from dmstore.schema.typed_documents import EvaluationDocument
from dmstore.storage.published.published import ReadOnly
from dmstore.study.results import name_of
from dmstore.study.study import Study

if TYPE_CHECKING:
    import xarray as xr


def summarise_curve(curve: xr.Dataset) -> dict[str, Any]:
    """A learning curve as plain numbers; None where a figure is not known.

    Parameters
    ----------
    curve : xarray.Dataset
        From :func:`dmstore.analysis.learning_curve`.

    Returns
    -------
    dict
        ``steps``: a list of ``runs``, ``lds``, ``lds_low``, ``lds_high`` (mean over targets), medians
        over targets ``r2``, ``holdout_r2`` and ``nonzeros``, ``worst_kkt``, and ``cosine``: mean with the
        datamodels of each other step, in order; ``cosine_low``: the 5 % quantile; ``explained``: for each
        other step, the shares of its variance along the components of this one. ``targets``, ``skipped``
        steps of too few runs, ``eval_masks``.
    """
    steps = []
    for row, runs in enumerate(curve["runs"].values.tolist()):
        one = curve.isel(runs=row)
        entry: dict[str, Any] = {"runs": runs}
        for short in ("lds", "lds_low", "lds_high"):
            entry[short] = number(one[f"mean_{short}"].item())
        entry |= {k: median(one[k].values) for k in ("r2", "holdout_r2", "nonzeros")}
        entry["worst_kkt"] = number(one["kkt"].values.max())
        cosine = one["cosine"].values
        entry["cosine"] = [mean(values) for values in cosine]
        entry["cosine_low"] = [quantile(values, 0.05) for values in cosine]
        entry["explained"] = [
            [number(share) for share in shares] for shares in one["explained_variance"].values
        ]
        steps.append(entry)
    return {
        "steps": steps,
        "targets": curve.sizes["target"],
        "skipped": int(curve.attrs["skipped"]),
        "eval_masks": int(curve.attrs["eval_masks"]),
    }


def keep_curve(study: Study, curve: xr.Dataset) -> dict[str, Any]:
    """The numbers of a learning curve, stored beside the fit, so that a report shows them.

    Without a fit, and in a published study, they are returned alone.

    Parameters
    ----------
    study : Study
    curve : xarray.Dataset
        From :func:`dmstore.analysis.learning_curve`.

    Returns
    -------
    dict
        As of :func:`summarise_curve`, and ``not_kept``: why the storage did not take it; empty if it did.
    """
    attrs, results, not_kept = curve.attrs, summarise_curve(curve), ""
    if attrs["fit"] and not isinstance(study.objects, ReadOnly):
        parameters = {
            **{k: attrs[k] for k in ("resamples", "random_state", "shares")},
            "targets": results["targets"],
        }
        stated = name_of(parameters, 8)
        document: EvaluationDocument = {
            "fit": attrs["fit"],
            "study": study.uuid,
            "algorithm": attrs["algorithm"],
            "content_id": attrs["content_id"],
            "eval_runs": attrs["eval_runs"],
            "parameters": parameters,
            "results": results,
            "created": provenance.utc_now(),
            "software": provenance.software(),
        }
        name = f"{_place(attrs['algorithm'], attrs['fit'])}{attrs['content_id'][:16]}-{stated}.json"
        # Made again it is the newest again.
        try:
            study.objects.replace(name, dump_document("evaluation", document))
        except StorageError as error:
            not_kept = str(error)
    return {**results, "not_kept": not_kept}


def kept_curve(study: Study, algorithm: str, fit: str) -> dict[str, Any] | None:
    """The newest learning curve that was kept beside a fit, as of :func:`summarise_curve`.

    One of the runs that the fit stands on goes before those of more or other runs.
    """
    folder, _, start = _place(algorithm, fit).rpartition("/")
    curves = [
        load_document("evaluation", study.objects.get(f"{folder}/{name}"), name)
        for name in study.objects.children(f"{folder}/")
        if name.startswith(start) and name.endswith(".json")
    ]
    content_id = study.newest_fit(algorithm, fit)["content_id"]
    newest = max(
        curves,
        key=lambda document: (
            document["content_id"] == content_id,
            str(document.get("created", "")),
        ),
        default=None,
    )
    return newest["results"] if newest else None


def _place(algorithm: str, fit: str) -> str:
    return f"datamodels/{algorithm}/{fit}/curve-"
