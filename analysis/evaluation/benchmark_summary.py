"""The table of a benchmark: plain numbers, and what is to be said of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from dmstore.analysis.evaluation.benchmark import DIM, PER_METHOD, TURNED, is_worse
from dmstore.analysis.evaluation.plain_numbers import mean, median, number

if TYPE_CHECKING:
    import xarray as xr

# With fewer masks intervals may hold the truth less often than they say.
FEW = 20


def summarise(result: xr.Dataset) -> dict[str, Any]:
    """The table of a benchmark as plain numbers; None where a figure is not known.

    Parameters
    ----------
    result : xarray.Dataset
        From :func:`benchmark`.

    Returns
    -------
    dict
        ``methods``: a list, best mean LDS first, of ``method``, ``kind``, ``lds``, ``lds_low``,
        ``lds_high`` (mean over targets), ``lds_median``, medians over targets ``kendall``,
        ``pearson``, ``r2``, ``mse``, further ``gap``, ``gap_low``, ``gap_high``, ``runs``,
        ``seen`` and ``note`` (of the sign of its scores); ``ceiling`` (mean over targets) and ``ceiling_targets`` that it is of;
        ``eval_runs``, ``eval_masks``, ``repeated_masks``, ``on_fitted_runs``, ``targets``; ``warnings``, a list of
        sentences.
    """
    methods = []
    for row in range(result.sizes[DIM]):
        one = result.isel({DIM: row})
        entry: dict[str, Any] = {
            "method": str(one[DIM].item()),
            "kind": str(one["kind"].item()),
        }
        for short, name in zip(("lds", "lds_low", "lds_high"), PER_METHOD[:3], strict=True):
            entry[short] = number(one[name].item())
        entry["lds_median"] = median(one["lds"].values)
        entry |= {k: median(one[k].values) for k in ("kendall", "pearson", "r2", "mse")}
        entry |= {k: number(one[k].item()) for k in PER_METHOD[3:]}
        runs = one["runs"].item()
        entry |= {"runs": int(runs) if np.isfinite(runs) else None, "seen": str(one["seen"].item())}
        entry["note"] = _note(entry, str(one["about"].item()), result.attrs.get("orientation", ""))
        methods.append(entry)
    methods.sort(key=lambda entry: -np.inf if entry["lds"] is None else entry["lds"], reverse=True)
    ceiling = result["ceiling"].values
    return {
        "methods": methods,
        "ceiling": mean(ceiling),
        "ceiling_targets": int(np.isfinite(ceiling).sum()),
        **{
            k: int(result.attrs.get(k, 0))
            for k in ("eval_runs", "eval_masks", "repeated_masks", "on_fitted_runs", "all_runs")
        },
        "targets": int(np.isfinite(result["lds"].values).any(axis=0).sum()),
        "warnings": _warnings(int(result.attrs.get("fewest_masks", FEW))),
    }


def _warnings(fewest: int) -> list[str]:
    """What is to be said of all figures of a benchmark."""
    if fewest >= FEW:
        return []
    return [
        f"as few as {fewest} masks judge a target: a 95 % interval from fewer than {FEW} may hold the truth less often than it says; train more runs"
    ]


def _note(entry: dict[str, Any], about: str, orientation: str) -> str:
    """What is to be said of the sign of a method's scores; empty where nothing is."""
    if about.startswith(TURNED):
        return about
    against = entry["kind"] == "scores" and entry["lds_high"] is not None and entry["lds_high"] < 0
    if against and is_worse(orientation):
        return "negative, as a larger output is a worse one: if larger scores mean better models, say so with --larger better"
    if against:
        return "negative: its scores say the reverse of what models do; is their sign that of another tool?"
    return ""
