"""Figures of fits: how well holdout runs are predicted, and how sparse datamodels are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from dmstore.analysis.plot.drawing import MORE, figure, first_of, legend_above
from dmstore.regression.problem.block_arrays import UNFITTED

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from dmstore.analysis.plot.drawing import Entries

# Arrays of a fit that figures need: those without the train units.
NEEDED = ("lam_path", "lam_max", "holdout_mse", "holdout_r2", "nonzeros", "status")
_SAMPLE = 8
_BINS = 30


def holdout_curves(
    fits: Mapping[str, xr.Dataset], axes: Axes | None = None, *, random_state: int = 0
) -> Axes:
    """Holdout error along the path: median and quartiles of the targets, and a sample of them.

    Errors are relative to that of the mean of the runs fitted on. A target that left the path counts
    with its last error from there on. Lam is a share of each target's lam_max, but where a grid is the path of
    all, in all fits, it is lam itself. A fit of one lam has no curve.

    Parameters
    ----------
    fits : mapping
        Name of an algorithm to its fit, as :meth:`dmstore.Study.datamodels` gives it.
    axes : matplotlib axes, optional
    random_state : int
        Draws the sample.
    """
    axes = axes if axes is not None else figure()[1]
    first, last = 0.0, np.inf
    entries: Entries = []
    grid = all(_shared(fit) for fit in fits.values())
    for (name, fit), color in zip(fits.items(), MORE, strict=False):
        share, error = _curves(fit)
        if not len(error) or len(share) < 2 or _shared(fit) != grid:
            entries += zip(axes.plot([], [], color=color), [f"{name}: none"], strict=True)
            continue
        draw = np.random.default_rng(random_state)
        for row in draw.permutation(len(error))[:_SAMPLE]:
            axes.plot(share, error[row], color=color, linewidth=0.6, alpha=0.3)
        low, middle, high = np.quantile(_kept(error), [0.25, 0.5, 0.75], axis=0)
        axes.fill_between(share, low, high, color=color, alpha=0.18, linewidth=0)
        lines = axes.plot(share, middle, color=color, linewidth=1.8)
        entries += zip(lines, [f"{name}: median"], strict=True)
        first, last = max(first, float(share[0])), min(last, float(share[-1]))
    axes.axhline(1.0, color="#6b7280", linewidth=0.8, linestyle="--")
    axes.set_xscale("log")
    axes.set_xlim(*((first, last) if first > last else (1.0, 0.01)))
    axes.set_xlabel("lam" if grid else "lam as a share of lam_max")
    axes.set_ylabel("holdout error over that of the mean")
    legend_above(axes, entries, 9)
    return axes


def sparsity(fits: Mapping[str, xr.Dataset], axes: Axes | None = None) -> Axes:
    """Numbers of non-zero weights of the targets.

    Parameters
    ----------
    fits, axes
        See :func:`holdout_curves`.
    """
    axes = axes if axes is not None else figure()[1]
    _histograms(axes, {n: f["nonzeros"].values[_fitted(f)] for n, f in fits.items()}, ".0f")
    axes.set_xlabel("non-zero weights of a datamodel")
    return axes


def holdout_r2(fits: Mapping[str, xr.Dataset], axes: Axes | None = None) -> Axes:
    """Share of the variance of the holdout runs that datamodels explain.

    Parameters
    ----------
    fits, axes
        See :func:`holdout_curves`.
    """
    axes = axes if axes is not None else figure()[1]
    _histograms(axes, {n: f["holdout_r2"].values[_fitted(f)] for n, f in fits.items()}, ".2f")
    axes.set_xlabel("holdout R²")
    return axes


def _fitted(fit: xr.Dataset) -> NDArray[np.bool_]:
    fitted: NDArray[np.bool_] = ~np.isin(fit["status"].values, UNFITTED)
    return fitted


def _shared(fit: xr.Dataset) -> bool:
    """Whether one grid of lams is the path of all targets."""
    paths = fit["lam_path"].values[_fitted(fit)]
    return len(paths) > 1 and bool((paths == paths[0]).all())


def _curves(fit: xr.Dataset) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lam (path,), over lam_max unless all targets share it, and errors over that of the mean (target, path)."""
    error = fit["holdout_mse"].values[_fitted(fit)]
    r2 = fit["holdout_r2"].values[_fitted(fit)]
    known = np.isfinite(r2) & (r2 < 1)
    error, r2 = error[known], r2[known]
    if not len(error):
        return np.zeros(0), error
    lam = fit["lam_path"] if _shared(fit) else fit["lam_path"] / fit["lam_max"]
    share = lam.values[_fitted(fit)][known][0]
    return share, error * ((1 - r2) / np.nanmin(error, axis=1))[:, None]


def _kept(error: NDArray[np.float64]) -> NDArray[np.float64]:
    """Errors (target, path), the last one in the place of those that are not known."""
    steps = np.where(np.isfinite(error), np.arange(error.shape[1]), 0)
    return np.take_along_axis(error, np.maximum.accumulate(steps, axis=1), axis=1)


def _histograms(axes: Axes, values: Mapping[str, NDArray[np.float64]], form: str) -> None:
    finite = {name: v[np.isfinite(v)] for name, v in values.items()}
    everything = np.concatenate([np.zeros(0), *finite.values()])
    edges = np.histogram_bin_edges(everything, bins=_BINS)
    entries: Entries = []
    for (name, finite_values), color in zip(finite.items(), MORE, strict=False):
        middle = format(np.median(finite_values), form) if len(finite_values) else "none"
        _, _, bars = axes.hist(
            finite_values,
            bins=edges.tolist(),
            histtype="step",
            color=color,
            linewidth=1.6,
        )
        entries.append((first_of(bars), f"{name}: median {middle}"))
    axes.set_ylabel("targets")
    legend_above(axes, entries, 9)
