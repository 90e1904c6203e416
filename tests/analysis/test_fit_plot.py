"""Figures of fits."""

import numpy as np
import pytest

from dmstore.analysis.pages import fit_plot
from dmstore.regression import lasso_path


@pytest.fixture(scope="module")
def fits():
    draw = np.random.default_rng(0)
    masks = draw.random((400, 30)) < 0.5
    outputs = masks[:, :6] @ draw.normal(size=(6, 9)) + draw.normal(0, 0.5, (400, 9))
    outputs[:, 4] = 1.0
    return {"one": lasso_path(masks, outputs), "other": lasso_path(~masks, outputs, lams=20)}


def test_holdout_curves_start_at_the_mean_and_end_at_the_best_error(fits):
    axes = fit_plot.holdout_curves(fits)
    median = next(line for line in axes.lines if line.get_label() == "one: median")
    assert median.get_xdata()[0] == pytest.approx(1.0)
    # No weights at lam_max: the error is that of the mean.
    assert median.get_ydata()[0] == pytest.approx(1.0)
    fitted = ~fits["one"].status.isin((3, 5))
    best = 1 - fits["one"].holdout_r2.values[fitted]
    assert np.median(best) <= median.get_ydata().min() < np.median(best) + 0.1


def test_histograms_leave_out_constant_targets(fits):
    for draw, name in ((fit_plot.sparsity, "nonzeros"), (fit_plot.holdout_r2, "holdout_r2")):
        axes = draw(fits)
        labels = [text.get_text() for text in axes.get_legend().get_texts()]
        values = fits["one"][name].values[np.arange(9) != 4]
        form = ".0f" if name == "nonzeros" else ".2f"
        assert labels[0] == f"one: median {np.median(values):{form}}"


def test_a_fit_of_nothing_but_constants_is_drawn(fits):
    nothing = fits["one"].isel(target=[4])
    assert not len(fit_plot.holdout_curves({"one": nothing}).collections)
    for draw in (fit_plot.sparsity, fit_plot.holdout_r2):
        labels = [text.get_text() for text in draw({"one": nothing}).get_legend().get_texts()]
        assert labels == ["one: median none"]
