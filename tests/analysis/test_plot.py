"""Figures of fits."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import matplotlib as mpl
import numpy as np
import pytest
import xarray as xr

from dmstore.analysis import plot
from dmstore.analysis.plot import drawing
from dmstore.regression import lasso_path


@pytest.fixture(scope="module")
def fits():
    draw = np.random.default_rng(0)
    masks = draw.random((400, 30)) < 0.5
    outputs = masks[:, :6] @ draw.normal(size=(6, 9)) + draw.normal(0, 0.5, (400, 9))
    outputs[:, 4] = 1.0
    return {"one": lasso_path(masks, outputs), "other": lasso_path(~masks, outputs, lams=20)}


def test_holdout_curves_start_at_the_mean_and_end_at_the_best_error(fits):
    axes = plot.holdout_curves(fits)
    median = next(line for line in axes.lines if line.get_label() == "one: median")
    assert median.get_xdata()[0] == pytest.approx(1.0)
    # No weights at lam_max: the error is that of the mean.
    assert median.get_ydata()[0] == pytest.approx(1.0)
    fitted = ~fits["one"].status.isin((3, 5))
    best = 1 - fits["one"].holdout_r2.values[fitted]
    assert np.median(best) <= median.get_ydata().min() < np.median(best) + 0.1


def test_histograms_leave_out_constant_targets(fits):
    for draw, name in ((plot.sparsity, "nonzeros"), (plot.holdout_r2, "holdout_r2")):
        axes = draw(fits)
        labels = [text.get_text() for text in axes.get_legend().get_texts()]
        values = fits["one"][name].values[np.arange(9) != 4]
        form = ".0f" if name == "nonzeros" else ".2f"
        assert labels[0] == f"one: median {np.median(values):{form}}"


def test_a_fit_of_nothing_but_constants_is_drawn(fits):
    nothing = fits["one"].isel(target=[4])
    assert not len(plot.holdout_curves({"one": nothing}).collections)
    for draw in (plot.sparsity, plot.holdout_r2):
        labels = [text.get_text() for text in draw({"one": nothing}).get_legend().get_texts()]
        assert labels == ["one: median none"]


# As TeX and as matplotlib's mathematics each of them is a fault, or nothing at all.
NAMES = ("_$x_1$ & 100%", "$\\frac{")


def with_names(fits):
    """Every figure that has names of algorithms or classes, as functions that draw it."""
    step = {"lds": 0.3, "lds_low": 0.2, "lds_high": 0.4, "r2": 0.1, "cosine": 0.5}
    step |= {"cosine_low": 0.4, "explained": [[0.5, 0.4]] * 2}
    curves = {name: {"steps": [{"runs": runs, **step} for runs in (100, 200)]} for name in NAMES}
    own = dict(zip(NAMES, fits.values(), strict=True))
    coords = {"algorithm": list(NAMES), "intensity": [0.0, 1.0]}
    effect = {
        key: (tuple(coords), np.full((2, 2), 0.1))
        for key in ("effect", "effect_low", "effect_high")
    }
    comparison = {
        "explained_variance": (("algorithm", "component", "on"), np.full((2, 3, 2), 0.1)),
        "residual_variance": (("algorithm", "component"), np.full((2, 3), 0.1)),
        "cosine": ("target", np.linspace(0, 1, 5)),
    }
    return {
        "directions": partial(plot.directions, xr.Dataset(comparison, coords)),
        "similarity": partial(plot.similarity, xr.Dataset(comparison, coords)),
        "effect": partial(plot.effect, xr.Dataset(effect, coords), label=NAMES[1]),
        "curve": partial(plot.learning_curve, curves),
        "size": partial(plot.sample_size, curves),
        "explained": partial(plot.explained_by_samples, curves, 0),
        "holdout": partial(plot.holdout_curves, own),
        "sparsity": partial(plot.sparsity, own),
        "r2": partial(plot.holdout_r2, own),
    }


def test_names_stand_as_they_are_whatever_the_users_settings(fits):
    draws = with_names(fits)
    plain = {key: drawing.svg(draw) for key, draw in draws.items()}
    for key, text in plain.items():
        for name in NAMES if key != "similarity" else NAMES[:1]:
            assert name.replace("&", "&amp;") in text, key
    with mpl.rc_context({"text.usetex": True, "lines.linewidth": 9, "svg.fonttype": "path"}):
        before = mpl.rcParams.copy()
        for key in ("directions", "r2"):
            assert drawing.svg(draws[key]) == plain[key]
        assert mpl.rcParams.copy() == before


def test_figures_in_threads_are_the_same_and_leave_the_settings(fits):
    before = mpl.rcParams.copy()
    draw = with_names(fits)["r2"]
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(drawing.svg, [draw] * 8))
    assert set(made) == {drawing.svg(draw)}
    assert mpl.rcParams.copy() == before
