"""Statistical quality: correlations against SciPy, known truths, outside scores, the curve, the command."""

import errno
import json
import shutil
import sys

import numpy as np
import pytest
import xarray as xr
from commands import run, run_json
from helpers import examples
from scipy.stats import kendalltau, pearsonr, spearmanr

import dmstore
from dmstore.analysis import benchmark, evaluate, learning_curve
from dmstore.analysis.evaluation import rank_statistics
from dmstore.analysis.evaluation.baselines import baselines
from dmstore.analysis.evaluation.benchmark import Method, judge
from dmstore.analysis.evaluation.benchmark_summary import summarise
from dmstore.analysis.evaluation.curve_summary import kept_curve
from dmstore.analysis.evaluation.eval_runs import Truth, predict, read_truth
from dmstore.analysis.evaluation.learning_curve import _steps
from dmstore.analysis.evaluation.noise_ceiling import noise_ceiling
from dmstore.analysis.evaluation.score_matrix import read_scores
from dmstore.errors import InputError, NotFoundError
from dmstore.regression import fit, lasso_path
from dmstore.storage.objects.local import LocalObjects
from dmstore.storage.objects.refusals import storage_error
from dmstore.storage.table.rows import Rows

TRAIN, TARGET = 40, 12


def store(algorithm, count, noise=1.0, seed=0):
    """Store runs whose margins follow planted weights; returns the weights (target, train)."""
    draw = np.random.default_rng(seed)
    weight = draw.standard_t(3, (TARGET, TRAIN)) * (draw.random((TARGET, TRAIN)) < 0.3)
    ids = np.arange(count)
    mask = np.array([one.mask for one in algorithm.describe(ids)])
    signal = mask @ weight.T
    margin = signal + 5 + noise * signal.std(axis=0) * draw.normal(size=signal.shape)
    arrays = {"mask": mask, "margin": margin.astype("f4")}
    fixed = {"time": np.zeros(count, int), "host": np.full(count, "h")}
    algorithm.table.append(algorithm.complete(Rows(ids, arrays, fixed), "test"))
    return weight


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """A fitted study with known weights and two runs a mask; its path, weights and fit."""
    path = tmp_path_factory.mktemp("evaluate") / "s.dm"
    study = dmstore.create_study(path, examples(train=TRAIN, target=TARGET), seed=1)
    weight = store(study.add_algorithm("a", runs=1600, repeats=2, outputs=["margin"]), 1600)
    small = study.add_algorithm("small", runs=40, repeats=2, outputs=["margin"])
    store(small, 40)
    return path, weight, fit(study, "a").document


@pytest.fixture
def opened(planted, tmp_path):
    """A copy of it that a test may write to."""
    shutil.copytree(planted[0], tmp_path / "s.dm")
    return dmstore.open_study(tmp_path / "s.dm")


# Correlations


@pytest.mark.parametrize("masks", [2, 3, 15, 16, 17, 33, 100])
@pytest.mark.parametrize("ties", ["none", "one", "both"])
def test_correlations_are_scipys(masks, ties):
    draw = np.random.default_rng(masks)
    a = draw.normal(size=(9, masks))
    b = a + draw.normal(size=(9, masks))
    if ties != "none":
        b = np.round(b)
    if ties == "both":
        a = draw.integers(0, 3, (9, masks)).astype(float)
    varied = np.flatnonzero((np.ptp(a, axis=1) > 0) & (np.ptp(b, axis=1) > 0))
    assert len(varied)
    for own, reference in (
        (rank_statistics.spearman, spearmanr),
        (rank_statistics.kendall, kendalltau),
        (rank_statistics.pearson, pearsonr),
    ):
        expected = [reference(a[row], b[row]).statistic for row in varied]
        assert np.allclose(own(a, b)[varied], expected)
        assert own(a, np.ones_like(a)).tolist() == [0] * 9


def test_a_row_with_nan_has_correlation_0():
    a = np.random.default_rng(0).normal(size=(3, 20))
    b = a.copy()
    b[1, 4] = np.nan
    for correlation in (rank_statistics.spearman, rank_statistics.kendall, rank_statistics.pearson):
        for found in (correlation(a, b), correlation(b, a)):
            assert found.tolist() == [pytest.approx(1), 0, pytest.approx(1)]
    assert np.isnan(rank_statistics.ranks(b)).all(axis=1).tolist() == [False, True, False]


def test_pearson_of_numbers_far_from_one():
    a = np.random.default_rng(0).normal(size=(3, 50))
    b = a + 0.5
    for factor in (1e-300, 1e-200, 1e160, 1e300):
        assert np.allclose(rank_statistics.pearson(a * factor, b), 1)


@pytest.mark.parametrize(("masks", "targets"), [(12, 20), (60, 100)])
def test_the_interval_of_the_mean_lds_covers_that_over_fresh_masks(masks, targets):
    """Ranks among few masks correlate less than among many; the interval is about many."""
    draw = np.random.default_rng(0)
    # Two normal variables whose correlation is that of a prediction with its own noise.
    true = 6 / np.pi * np.arcsin(0.8**0.5 / 2)
    weight = rank_statistics.resampling(masks, 100, 0)
    inside = low_only = 0
    for _ in range(40):
        predicted = draw.normal(size=(targets, masks))
        outputs = predicted + 0.5 * draw.normal(size=(targets, masks))
        a, b = rank_statistics.ranks(predicted), rank_statistics.ranks(outputs)
        lds = rank_statistics.pearson(a, b)
        more = rank_statistics.few_masks(lds, rank_statistics.kendall(a, b), masks)
        draws = weight @ rank_statistics.influence(a, b).mean(axis=0)
        low, high = rank_statistics.interval(draws, lds.mean(), masks=masks, shift=more.mean())
        assert low <= lds.mean() <= high
        inside += low < true < high
        plain = rank_statistics.interval(draws, lds.mean())
        low_only += plain[1] < true
    assert inside >= 35
    assert low_only > 8


@pytest.mark.parametrize("ties", [False, True])
def test_influence_is_what_leaving_a_mask_out_changes(ties):
    draw = np.random.default_rng(0)
    a, b = draw.normal(size=(2, 1, 300))
    b += a
    if ties:
        a, b = np.round(a), np.round(2 * b)
    found = rank_statistics.influence(rank_statistics.ranks(a), rank_statistics.ranks(b))[0]
    whole = spearmanr(a[0], b[0]).statistic
    left = [spearmanr(np.delete(a[0], i), np.delete(b[0], i)).statistic for i in range(300)]
    jackknife = 299 * (whole - np.array(left))
    assert np.corrcoef(found, jackknife)[0, 1] > 0.999
    assert found.std() == pytest.approx(jackknife.std(), rel=0.03)
    assert not rank_statistics.influence(rank_statistics.ranks(a), np.zeros_like(b)).any()


@pytest.mark.parametrize(("masks", "correlation"), [(10, 0.5), (10, 0.8), (20, 0.5), (20, 0.8)])
def test_the_interval_of_a_single_target_covers_its_lds_over_fresh_masks(masks, correlation):
    draw = np.random.default_rng(masks)
    studies = 4000
    predicted = draw.normal(size=(studies, masks))
    outputs = correlation * predicted
    outputs += (1 - correlation**2) ** 0.5 * draw.normal(size=predicted.shape)
    a, b = rank_statistics.ranks(predicted), rank_statistics.ranks(outputs)
    lds = rank_statistics.pearson(a, b)
    more = rank_statistics.few_masks(lds, rank_statistics.kendall(a, b), masks)
    draws = rank_statistics.resampling(masks, 400, 0) @ rank_statistics.influence(a, b).T
    low, high = rank_statistics.interval(draws, lds, masks=masks, shift=more)
    assert (low >= -1).all()
    assert (high <= 1).all()
    true = 6 / np.pi * np.arcsin(correlation / 2)
    inside = (low <= true) & (true <= high)
    assert 0.93 <= inside.mean() <= 0.97


def test_an_interval_on_fishers_scale_is_that_formula():
    draws = np.random.default_rng(0).normal(0.7, 0.1, 100_000)
    low, high = rank_statistics.interval(draws, np.array(0.7), masks=30, shift=0.02)
    wider = (30 / 29) ** 0.5 * 2.045230 / 1.959964
    ends = np.arctanh(0.72) + np.array([-1, 1]) * 1.96 * 0.1 * wider / (1 - 0.71**2)
    assert [float(low), float(high)] == pytest.approx(np.tanh(ends).tolist(), abs=3e-3)
    # Differences have no such scale.
    ends = 0.72 + np.array([-1, 1]) * 1.96 * 0.1 * wider
    plain = rank_statistics.interval(draws, np.array(0.7), masks=30, shift=0.02, difference=True)
    assert np.array(plain).tolist() == pytest.approx(ends.tolist(), abs=3e-3)
    # All masks in the right order.
    for masks in (8, 1000):
        sure = rank_statistics.interval(np.zeros(50), np.array(1.0), masks=masks)
        assert sure[0] >= 0.999
        assert sure[1] == 1


@pytest.mark.parametrize("repeats", [2, 3, 4])
@pytest.mark.parametrize("noise", [0.3, 1.0, 2.0])
def test_ceiling_is_what_the_truth_reaches(repeats, noise):
    draw = np.random.default_rng(repeats)
    truth = np.repeat(draw.normal(size=(300, 80)), repeats, axis=0)
    values = truth + noise * draw.normal(size=truth.shape)
    group = np.repeat(np.arange(300), repeats)
    reached = rank_statistics.spearman(
        truth[::repeats].T, rank_statistics.average(values, group)
    ).mean()
    assert noise_ceiling(values, group).mean() == pytest.approx(reached, abs=0.015)


@pytest.mark.parametrize(("signal", "bound"), [(0.0, 0.08), (0.3, 0.02), (0.6, 0.02)])
def test_ceiling_without_signal_is_0_and_of_little_signal_is_not_low(signal, bound):
    draw = np.random.default_rng(3)
    truth = np.repeat(signal * draw.normal(size=(100, 400)), 2, axis=0)
    found = noise_ceiling(truth + draw.normal(size=truth.shape), np.repeat(np.arange(100), 2))
    reached = 6 / np.pi * np.arcsin(signal / np.sqrt(signal**2 + 0.5) / 2)
    assert found.mean() == pytest.approx(reached, abs=bound)


def test_ceiling_with_unequal_repeats_and_without():
    draw = np.random.default_rng(0)
    group = np.repeat(np.arange(400), np.tile([1, 2, 3, 5], 100))
    truth = draw.normal(size=(400, 60))
    values = truth[group] + draw.normal(size=(len(group), 60))
    order = draw.permutation(len(group))
    values, group = values[order], group[order]
    reached = rank_statistics.spearman(truth.T, rank_statistics.average(values, group)).mean()
    assert noise_ceiling(values, group).mean() == pytest.approx(reached, abs=0.02)
    assert np.isnan(noise_ceiling(values[:9], np.arange(9))).all()
    constant = np.column_stack([values[:, 0], np.ones(len(values))])
    assert np.isnan(noise_ceiling(constant, group)).tolist() == [False, True]


def test_repeats_are_averaged():
    values = np.array([[1.0, 5.0], [2.0, 0.0], [3.0, 7.0], [4.0, 1.0]])
    found = rank_statistics.average(values, np.array([1, 0, 1, 1]))
    assert np.allclose(found, [[2, 8 / 3], [0, 13 / 3]])


# Predictions


def test_predictions_sparse_and_dense_alike():
    draw = np.random.default_rng(0)
    mask = draw.random((30, 400)) < 0.5
    dense = draw.normal(size=(300, 400))
    sparse = dense * (draw.random(dense.shape) < 0.02)
    for weight in (dense, sparse, dense.astype("f4"), xr.DataArray(sparse), 1000 + dense):
        exact = np.asarray(weight, float) @ mask.T
        assert np.abs(predict(weight, mask) - exact).max() < 1e-4
    assert np.allclose(predict(np.full((2, 400), 0.1), mask[:1]), 0.1 * mask[0].sum())
    assert np.allclose(predict(1e300 * dense, mask), 1e300 * (dense @ mask.T), atol=1e295)


STEPS = {
    "signs": (1, 0, "f4"),
    "scaled signs": (1, 0.7, "f4"),
    "tenths": (30, 0.1, "f4"),
    "thirds": (30, 1 / 3, "f8"),
    "float16": (30, 2**-7, "f2"),
    "int8": (128, 0, "i1"),
}


@pytest.mark.parametrize("case", STEPS)
def test_predictions_that_are_equal_sums_tie(case):
    """Dense scores of few values: their ranks are those of sums of integers."""
    largest, step, dtype = STEPS[case]
    draw = np.random.default_rng(0)
    mask = draw.random((150, 300)) < 0.5
    whole = draw.integers(-largest, largest, (6, 300))
    exact = whole @ mask.T
    outputs = exact + draw.normal(size=exact.shape) * exact.std()
    predicted = predict((whole * (step or 1)).astype(dtype), mask)
    assert [len(np.unique(row)) for row in predicted] == [len(np.unique(row)) for row in exact]
    for correlation in (rank_statistics.spearman, rank_statistics.kendall, rank_statistics.pearson):
        expected = correlation(exact.astype(float), outputs)
        assert np.allclose(correlation(predicted, outputs), expected, atol=1e-7, rtol=0)


def test_what_is_not_equal_does_not_tie():
    draw = np.random.default_rng(0)
    mask = draw.random((300, 400)) < 0.5
    weight = draw.normal(size=(3, 400)).astype("f4")
    # One unit outweighs all others by far, which rank the masks within it all the same.
    weight[1, 0] = 1e6
    found = predict(weight, mask)
    assert [len(np.unique(row)) for row in found] == [300] * 3
    assert np.allclose(found, weight.astype(float) @ mask.T, atol=1e-3, rtol=0)
    # A small unit beside a few large ones is more than rounding.
    few = np.array([[1, 1, 1, 1e-6]], dtype="f4")
    every = (np.arange(16)[:, None] >> np.arange(4) & 1).astype(bool)
    assert len(np.unique(predict(few, every))) == 8
    # Equal scores at masks of one size predict one number, which is no correlation.
    even = np.argsort(draw.random((50, 400)), axis=1) < 200
    flat = predict(np.full((1, 400), 0.1), even)
    for correlation in (rank_statistics.spearman, rank_statistics.kendall, rank_statistics.pearson):
        assert correlation(flat, draw.normal(size=(1, 50))).tolist() == [0]


def test_equal_means_of_repeats_tie():
    values = np.array([[0.1], [0.2], [0.3], [0.3], [0.2], [0.1], [9.0]])
    found = rank_statistics.average(values, np.array([0, 0, 0, 1, 1, 1, 2]))[0]
    assert found[0] == found[1] < found[2]


def test_a_prediction_does_not_depend_on_its_neighbours():
    draw = np.random.default_rng(0)
    mask = draw.random((200, 400)) < 0.5
    weight = draw.normal(size=(20, 400)).astype("f4")
    weight[:2] = 0
    weight[0, 7], weight[1, [5, 9]] = 0.3, 0.1
    # Indicators of a class, as a score file may hold them.
    weight[2:4] = 0.7 * (draw.random((2, 400)) < 0.2)
    found = predict(weight, mask)
    assert [len(np.unique(row)) for row in found[:2]] == [2, 3]
    counts = [mask[:, row > 0].sum(axis=1) for row in weight[2:4]]
    assert [len(np.unique(row)) for row in found[2:4]] == [len(np.unique(c)) for c in counts]
    assert np.array_equal(found[:4], predict(weight[:4], mask))
    assert np.allclose(found, weight.astype(float) @ mask.T, atol=1e-4)


def test_baselines_of_train_units_are_of_runs_that_did_not_see_them():
    draw = np.random.default_rng(0)
    mask = draw.random((3000, 40)) < 0.5
    # Two targets are memorised where they were seen; the first also depends on two other units.
    outputs = 50.0 * mask[:, [3, 8]] + draw.normal(size=(3000, 2))
    outputs[:, 0] += 4 * mask[:, 5] - 2 * mask[:, 6]
    kept = np.arange(3000) < 200
    runs = xr.Dataset(
        {"mask": (("run", "train"), mask), "margin": (("run", "target"), outputs)},
        coords={"split": ("run", np.where(kept, "eval", "train"))},
    )
    labels = np.arange(40) % 2, np.array([1, 0])
    plain = baselines(runs, "margin", mask[kept], labels=labels)
    found = baselines(runs, "margin", mask[kept], labels=labels, unit=np.array([3, -1]))
    for name, values in found.items():
        assert np.allclose(values[1], plain[name][1]), name
    judged = kept & ~mask[:, 3]
    for name, values in found.items():
        error = ((values[0][judged[kept]] - outputs[judged, 0]) ** 2).mean()
        assert error < (2.2 if name == "empirical influence" else 6.5), (name, error)
    unseen = ~kept & ~mask[:, 3]
    assert np.allclose(found["mean"][0], outputs[unseen, 0].mean())
    share = mask[:, labels[0] == 1].mean(axis=1)
    distinct = [len(np.unique(mask[kept][:, labels[0] == own].sum(axis=1))) for own in labels[1]]
    assert [len(np.unique(row)) for row in found["class mean"]] == distinct
    slope, level = np.polyfit(share[unseen], outputs[unseen, 0], 1)
    assert np.allclose(found["class mean"][0], level + slope * share[kept])


def test_baselines_are_what_they_say(planted):
    study = dmstore.open_study(planted[0])
    runs = study.runs("a").load()
    truth = read_truth(runs, "margin")
    labels = (study.label("train"), study.label())
    found = baselines(runs, "margin", truth.mask, labels=labels)
    used = runs["split"].values != "eval"
    mask, margin = runs["mask"].values[used], runs["margin"].values[used].astype(float)
    mean = margin.mean(axis=0)
    assert np.allclose(found["mean"], np.repeat(mean[:, None], len(truth.mask), axis=1))
    influence = np.array(
        [margin[mask[:, i]].mean(axis=0) - margin[~mask[:, i]].mean(axis=0) for i in range(TRAIN)]
    )
    expected = mean[:, None] + ((truth.mask - mask.mean(axis=0)) @ influence).T
    assert np.allclose(found["empirical influence"], expected, atol=1e-4)
    for target in (0, 5):
        own = labels[0] == labels[1][target]
        share = mask[:, own].mean(axis=1)
        line = np.polyfit(share, margin[:, target], 1)
        predicted = np.polyval(line, truth.mask[:, own].mean(axis=1))
        assert np.allclose(found["class mean"][target], predicted)
    few = baselines(runs, "margin", truth.mask, targets=np.array([5, 2]), labels=labels)
    for name, values in few.items():
        assert np.allclose(values, found[name][[5, 2]], atol=1e-5)


def test_units_that_every_run_saw_have_no_influence(planted):
    runs = dmstore.open_study(planted[0]).runs("a").load()
    mask = runs["mask"].values.copy()
    mask[:, 3], mask[:, 4] = True, False
    runs["mask"] = (("run", "train"), mask)
    wanted = np.zeros((2, TRAIN), dtype=bool)
    wanted[0, 3], wanted[1, 4] = True, True
    found = baselines(runs, "margin", wanted)
    assert "class mean" not in found
    values = found["empirical influence"]
    assert np.isfinite(values).all()
    assert np.allclose(values[:, 0], values[:, 1])


# Judging methods


def test_known_truth(planted):
    path, weight, _ = planted
    study = dmstore.open_study(path)
    random = np.random.default_rng(5).normal(size=weight.shape)
    found = benchmark(study, "a", scores={"truth": weight, "random": random, "minus": -7 * weight})
    lds = dict(zip(found["predictor"].values.tolist(), found["mean_lds"].values, strict=True))
    ceiling = float(found["ceiling"].mean())
    assert lds["truth"] == pytest.approx(ceiling, abs=0.05)
    assert lds["minus"] == pytest.approx(-lds["truth"])
    assert 0.6 < lds["fit"] <= lds["truth"] + 0.02
    assert lds["fit"] > lds["empirical influence"] > lds["class mean"]
    assert lds["mean"] == 0
    assert abs(lds["random"]) < 0.15
    inside = (found["mean_lds_low"] <= found["mean_lds"]) & (
        found["mean_lds"] <= found["mean_lds_high"]
    )
    assert inside.all()
    assert float(found["gap"].sel(predictor="fit")) == 0
    assert float(found["gap_low"].sel(predictor="random")) > 0
    r2 = found["r2"].median("target")
    assert float(r2.sel(predictor="fit")) > float(r2.sel(predictor="empirical influence"))
    assert abs(float(r2.sel(predictor="mean"))) < 0.1
    assert np.isnan(r2.sel(predictor="truth"))
    assert not found["seen"].values.any()
    assert found["target"].values.tolist() == study.targets["target"].values.tolist()
    table = summarise(found)
    assert [entry["lds"] for entry in table["methods"]] == sorted(lds.values(), reverse=True)
    assert table["ceiling"] == pytest.approx(ceiling)
    assert table["repeated_masks"] == table["eval_masks"]


def test_figures_of_one_target_by_hand(opened):
    study = opened
    found = benchmark(study, "a", baselines=False, resamples=50)
    runs = study.runs("a").load()
    runs = runs.isel(run=runs["split"].values == "eval")
    models = study.datamodels("a").load()
    margin = runs["margin"].groupby("mask_id").mean().values[:, 4].astype(float)
    mask = runs["mask"].isel(run=np.unique(runs["mask_id"], return_index=True)[1]).values
    predicted = mask @ models["weight"].values[4].astype(float) + models["bias"].values[4]
    one = found.isel(predictor=0, target=4)
    assert float(one["lds"]) == pytest.approx(spearmanr(predicted, margin).statistic, abs=1e-6)
    assert float(one["kendall"]) == pytest.approx(kendalltau(predicted, margin).statistic, abs=1e-6)
    assert float(one["pearson"]) == pytest.approx(pearsonr(predicted, margin).statistic, abs=1e-6)
    error = np.mean((predicted - margin) ** 2)
    assert float(one["mse"]) == pytest.approx(error, rel=1e-5)
    assert float(one["r2"]) == pytest.approx(1 - error / margin.var(), rel=1e-5)
    kept = evaluate(study, "a", resamples=50)
    assert kept["lds"] == pytest.approx(float(found["lds"].mean()))


def test_an_evaluation_is_computed_once_and_old_ones_are_completed(opened, monkeypatch):
    first = evaluate(opened, "a", resamples=20)
    name = next(
        n
        for n in opened.objects.children(f"datamodels/a/{first.attrs['fit']}/")
        if n.startswith("evaluation-")
    )
    place = f"datamodels/a/{first.attrs['fit']}/{name}"
    document = json.loads(opened.objects.get(place))
    with monkeypatch.context() as patch:
        patch.setattr(sys.modules["dmstore.analysis.evaluation.evaluate"], "benchmark", None)
        assert evaluate(opened, "a", resamples=20).identical(first)
    del document["results"]["kendall"]
    opened.objects.replace(place, json.dumps(document).encode())
    assert evaluate(opened, "a", resamples=20).identical(first)


def test_a_constant_target_is_left_out_and_counted(planted, tmp_path):
    study = dmstore.create_study(tmp_path / "s.dm", examples(train=TRAIN, target=TARGET), seed=1)
    algorithm = study.add_algorithm("a", runs=200, outputs=["margin"])
    ids = np.arange(200)
    mask = np.array([one.mask for one in algorithm.describe(ids)])
    margin = (mask @ np.random.default_rng(0).normal(size=(TRAIN, TARGET))).astype("f4")
    margin[:, 3] = 2
    fixed = {"time": np.zeros(200, int), "host": np.full(200, "h")}
    rows = Rows(ids, {"mask": mask, "margin": margin}, fixed)
    algorithm.table.append(algorithm.complete(rows, "test"))
    found = benchmark(study, "a", scores={"x": np.ones((TARGET, TRAIN))})
    assert np.isnan(found["lds"].values[:, 3]).all()
    assert np.isnan(found["ceiling"]).all()
    assert summarise(found)["targets"] == TARGET - 1
    assert summarise(found)["ceiling"] is None
    # Masks of one size: the sum of equal scores says nothing.
    assert float(found["mean_lds"].sel(predictor="x")) == 0


# Outside scores


def test_score_files(planted, opened, tmp_path):
    _, weight, _ = planted
    np.save(tmp_path / "plain.npy", weight.T)
    np.savez(
        tmp_path / "named.npz",
        weight=weight,
        bias=np.full(TARGET, 5.0),
        train_id=opened.ids("train"),
        target_id=opened.ids("test"),
        fitted_runs=np.array([], dtype=int),
    )
    folder = tmp_path / "trak"
    (folder / "scores").mkdir(parents=True)
    (folder / "experiments.json").write_text("{}")
    file = np.lib.format.open_memmap(folder / "scores" / "quick.mmap", "w+", "f4", (TRAIN, TARGET))
    file[:] = weight.T
    file.flush()
    run("export", opened.path, "a", "--to", "datamodels.pt", tmp_path / "own.pt", "-Q")
    run(
        *("export", opened.path, "a", "--to", "datamodels.pt", tmp_path / "std.pt", "-Q"),
        *("--units", "standardised"),
    )
    paths = [tmp_path / n for n in ("plain.npy", "named.npz", "trak", "own.pt", "std.pt")]
    options = [{} if p.name != "named.npz" else {"units": "raw"} for p in paths]
    found = benchmark(opened, "a", scores=paths, options=options, baselines=False)
    lds = found["mean_lds"].sel(predictor=["plain", "named", "quick"]).values
    assert np.allclose(lds, lds[0], atol=1e-3)
    assert found["r2"].sel(predictor="plain").isnull().all()
    assert (found["r2"].sel(predictor="named") > 0).all()
    assert found["runs"].sel(predictor="named") == 0
    own = found.sel(predictor="fit")
    for name in ("own", "std"):
        for figure in ("lds", "r2", "mse"):
            assert np.allclose(found[figure].sel(predictor=name), own[figure], atol=1e-2), name


def scores(**change):
    return np.random.default_rng(0).normal(size=(TARGET, TRAIN)), change


def bad(study, tmp_path):
    """Name to what is given as scores, and words of the error."""
    rng = np.random.default_rng(0)
    good = rng.normal(size=(TARGET, TRAIN))
    ids = {"train": study.ids("train"), "target": study.ids("test")}
    labelled = xr.DataArray(good, dims=("target", "train"), coords=ids)
    np.save(tmp_path / "small.npy", good[:, 1:])
    np.save(tmp_path / "nan.npy", np.where(good > 2, np.nan, good))
    turned = study.ids("train")[::-1]
    np.savez(tmp_path / "order.npz", weight=good, train_id=turned)
    np.savez(tmp_path / "few.npz", weight=good, target_id=study.ids("test")[:3])
    eval_run = study.runs("a")
    eval_run = eval_run["run"].values[eval_run["split"].values == "eval"]
    np.savez(tmp_path / "seen.npz", weight=good, fitted_runs=eval_run[:2])
    np.savez(tmp_path / "ids.npz", weight=good, fitted_runs=np.array([0.5]))
    elsewhere = {"study": "f" * 32, "content_id": study.view("a").content_id}
    return {
        "no file": (tmp_path / "none.npy", "none.npy"),
        "shape": (tmp_path / "small.npy", "do not fit 12 targets, 40 train units"),
        "nan": (tmp_path / "nan.npy", "not finite"),
        "order": (tmp_path / "order.npz", "train_id differs from the study's ids at 40 places"),
        "few ids": (tmp_path / "few.npz", "target_id has shape (3,)"),
        "seen": (tmp_path / "seen.npz", "fitted on 2 of these runs"),
        "run ids": (tmp_path / "ids.npz", "must list run ids"),
        "array shape": (good.T, "transpose them"),
        "array nan": (good * np.nan, "finite numbers"),
        "masked": (np.ma.masked_greater(good, 2), "values are masked"),
        "masked, labelled": (labelled.copy(data=np.ma.masked_greater(good, 2)), "finite numbers"),
        "bias": (xr.Dataset({"weight": labelled, "bias": labelled[:, 0] * np.nan}), "bias has"),
        "dims": (xr.DataArray(good), "scores have 'target' and 'train'"),
        "coordinates": (labelled.isel(train=slice(None, None, -1)), "train differs"),
        "no weight": (xr.Dataset({"w": labelled}), "has no 'weight'"),
        "another split": (labelled.assign_attrs(elsewhere), "same runs in another study"),
        "attribute": (labelled.assign_attrs(fitted_runs=eval_run[:1]), "fitted on 1 of these runs"),
    }


BAD = (
    *("no file", "shape", "nan", "order", "few ids", "seen", "run ids", "array shape"),
    *(
        "array nan",
        "masked",
        "masked, labelled",
        "bias",
        "dims",
        "coordinates",
        "no weight",
        "another split",
        "attribute",
    ),
)


@pytest.mark.parametrize("case", BAD)
def test_bad_scores(opened, tmp_path, case):
    item, words = bad(opened, tmp_path)[case]
    with pytest.raises(InputError) as caught:
        benchmark(opened, "a", scores={case: item}, baselines=False)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    if case in ("seen", "another split", "attribute"):
        assert "--force" in str(caught.value)
        found = benchmark(opened, "a", scores={case: item}, baselines=False, force=True)
        assert [bool(seen) for seen in found["seen"].values] == [False, True]


def test_names_are_told_apart(opened, tmp_path):
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        np.save(tmp_path / folder / "s.npy", scores()[0])
    paths = [tmp_path / "x" / "s.npy", tmp_path / "y" / "s.npy"]
    found = benchmark(opened, "a", scores=paths, baselines=False, resamples=5)
    assert found["predictor"].values.tolist() == ["fit", "x-s", "y-s"]
    with pytest.raises(InputError, match="two methods would be called"):
        benchmark(opened, "a", scores=[paths[0], paths[0]], baselines=False)
    with pytest.raises(InputError, match="two methods would be called 'mean'"):
        benchmark(opened, "a", scores={"mean": scores()[0]})


def test_a_square_file_needs_its_orientation(tmp_path):
    study = dmstore.create_study(tmp_path / "s.dm", examples(train=12, target=12), seed=1)
    np.save(tmp_path / "s.npy", np.eye(12))
    with pytest.raises(InputError, match=r"--orientation target-train or train-target$"):
        read_scores(study, tmp_path / "s.npy", "test")
    assert read_scores(study, tmp_path / "s.npy", "test", orientation="train-target").name == "s"


def test_scores_without_a_fit(opened):
    with pytest.raises(NotFoundError, match="has no finished fit"):
        benchmark(opened, "small")
    with pytest.raises(NotFoundError, match=r"not in this study"):
        benchmark(opened, "none", scores={"x": scores()[0]})
    with pytest.raises(InputError, match="has no output 'loss'"):
        benchmark(opened, "small", scores={"x": scores()[0]}, output="loss")
    with pytest.raises(
        NotFoundError, match=r"no finished fit of output 'loss'; .* a --output loss"
    ):
        benchmark(opened, "a", output="loss")
    with pytest.raises(InputError, match="not 'loss'"):
        benchmark(opened, "a", output="loss", fit=opened.newest_fit("a")["fit"])
    with pytest.raises(InputError, match="resamples"):
        benchmark(opened, "a", resamples=0)


def test_an_output_is_judged_by_a_fit_of_it(opened):
    algorithm = opened.add_algorithm("two", runs=300, outputs=["margin", "loss"])
    draw, ids = np.random.default_rng(0), np.arange(300)
    mask = np.array([one.mask for one in algorithm.describe(ids)])
    margin = (mask @ draw.normal(size=(TRAIN, TARGET))).astype("f4")
    fixed = {"time": np.zeros(300, int), "host": np.full(300, "h")}
    rows = Rows(ids, {"mask": mask, "margin": margin, "loss": np.exp(-margin / 4)}, fixed)
    algorithm.table.append(algorithm.complete(rows, "test"))
    named = {of: fit(opened, "two", output=of).document["fit"] for of in ("margin", "loss")}
    for of, name in named.items():
        found = benchmark(opened, "two", output=of, baselines=False, resamples=10)
        assert found.attrs["fit"] == name
        assert float(found.mean_lds[0]) > 0.9
        curve = learning_curve(opened, "two", output=of, targets=3, shares=(1.0,), resamples=10)
        assert curve.attrs["fit"] == name


# Fitted runs


def test_fitted_runs_are_refused_unless_forced(opened):
    with pytest.raises(InputError, match=r"eval masks, at least 5 are needed.*--force"):
        benchmark(opened, "small", scores={"x": scores()[0]})
    found = benchmark(opened, "small", scores={"x": scores()[0]}, force=True)
    assert found.attrs["on_fitted_runs"] == 1
    assert found.attrs["eval_masks"] == 20
    seen = dict(zip(found["predictor"].values.tolist(), found["seen"].values.tolist(), strict=True))
    assert "these runs" in seen["mean"]
    assert seen["x"] == ""
    fit(opened, "small")
    with pytest.raises(InputError, match="--force"):
        evaluate(opened, "small")
    out, _ = run("evaluate", opened.path, "small", "--force", "-Q")
    assert out.startswith("warning: no runs of small are reserved")
    found = run_json("evaluate", opened.path, "small", "--force", "-Q")
    assert found["on_fitted_runs"] == 1
    assert "fitted on these runs" in next(m for m in found["methods"] if m["kind"] == "fit")["seen"]
    kept = opened.objects.children(f"datamodels/small/{found['fit']}/")
    assert not [name for name in kept if name.startswith("evaluation")]


def test_a_fit_that_kept_nothing_is_refused(opened):
    document = opened.newest_fit("a")
    place = f"datamodels/a/{document['fit']}/fit.json"
    stored = json.loads(opened.objects.get(place))
    stored["runs"] = {**stored["runs"], "eval": 0}
    opened.objects.replace(place, json.dumps(stored).encode())
    with pytest.raises(InputError, match=r"kept only 0 of these runs.*fit\.json.*--force"):
        benchmark(opened, "a")


# Benchmarks that were made elsewhere


def test_an_algorithm_for_evaluation_only_is_a_benchmark(opened, tmp_path):
    """All its runs judge, nothing is fitted on them, and what it says of that survives publishing."""
    made = opened.add_algorithm("bench", runs=60, repeats=2, outputs=["margin"], split="eval")
    weight = store(made, 60)
    assert opened.algorithm("bench").document["split"] == "eval"
    assert "split" not in opened.algorithm("small").document
    with pytest.raises(InputError, match="for evaluation only"):
        fit(opened, "bench")
    with pytest.raises(InputError, match="for evaluation only"):
        learning_curve(opened, "bench")
    np.save(tmp_path / "truth.npy", weight)
    run("publish", opened.path, tmp_path / "p.zip", "-Q", "--licence", "CC0-1.0")
    for place in (opened.path, tmp_path / "p.zip"):
        found = run_json("evaluate", place, "bench", "--scores", tmp_path / "truth.npy", "-Q")
        assert (found["eval_masks"], found["eval_runs"]) == (30, 60)
        (one,) = found["methods"]
        assert (one["method"], one["seen"]) == ("truth", "")
        assert one["lds"] > 0.5
    out, _ = run("evaluate", opened.path, "bench", "--scores", tmp_path / "truth.npy", "-Q")
    assert out.startswith("bench: no fit; 12 targets and 30 eval masks")
    out, _ = run("add", opened.path, "more", "--split", "eval", "--runs", 5)
    assert "for evaluation only" in out
    assert run_json("status", opened.path)["algorithms"]["bench"]["splits"]["eval"] == 60


def test_a_benchmark_is_ingested_for_evaluation_only(tmp_path):
    draw = np.random.default_rng(0)
    folder, weight = tmp_path / "bench", draw.normal(size=(6, 30))
    folder.mkdir()
    mask = draw.random((20, 30)) < 0.5
    np.save(folder / "masks.npy", mask)
    np.save(folder / "margins.npy", mask @ weight.T)
    np.save(tmp_path / "w.npy", weight)
    command = ("ingest", tmp_path / "s.dm", "b", folder, "--create", "-Q")
    run(*command, "--split", "eval")
    found = run_json("evaluate", tmp_path / "s.dm", "b", "--scores", tmp_path / "w.npy", "-Q")
    assert found["eval_masks"] == 20
    assert found["methods"][0]["lds"] == pytest.approx(1)
    _, err = run(*command[:4], "--split", "eval", code=2)
    assert "go with --create" in err
    run("add", tmp_path / "s.dm", "c", "--sampling", "foreign")
    _, err = run("ingest", tmp_path / "s.dm", "c", *command[3:], "--split", "eval", code=1)
    assert "not for evaluation only" in err


def test_all_runs_judge_scores_that_were_made_elsewhere(opened, tmp_path):
    truth = {"x": scores()[0]}
    found = benchmark(opened, "small", scores=truth, all_runs=True)
    assert found.attrs["eval_masks"] == 20
    assert summarise(found)["warnings"] == []
    assert found["predictor"].values.tolist() == ["x"]
    assert not found["seen"].values.any()
    # What a file says that it was fitted on is left out, and other runs of these masks with it.
    np.savez(tmp_path / "s.npz", weight=scores()[0], fitted_runs=np.array([0, 3]))
    found = benchmark(opened, "small", scores=[tmp_path / "s.npz"], all_runs=True)
    assert (found.attrs["eval_masks"], found.attrs["eval_runs"]) == (18, 36)
    out, _ = run(
        *("evaluate", opened.path, "small", "--all-runs", "-Q"),
        *("--scores", tmp_path / "s.npz"),
    )
    assert "18 masks of all runs" in out
    # Of so few masks no interval is certain.
    said = "as few as 18 masks judge a target: a 95 % interval from fewer than 20 may hold the truth less often"
    assert f"warning: {said}" in out
    (warning,) = summarise(found)["warnings"]
    assert warning.startswith(said)
    with pytest.raises(InputError, match="alone; give scores"):
        benchmark(opened, "small", all_runs=True)
    # A fit of the study saw its runs, but those that it reserves.
    run("export", opened.path, "a", "--to", "datamodels.pt", tmp_path / "own.pt", "-Q")
    with pytest.raises(InputError, match="on runs of this study"):
        benchmark(opened, "a", scores=[tmp_path / "own.pt"], all_runs=True)


def test_what_cannot_be_kept_is_printed_all_the_same(opened, monkeypatch):
    def refuse(self, name, *_):
        raise storage_error(OSError(errno.EROFS, "Read-only file system"), name)

    monkeypatch.setattr(LocalObjects, "put_if_absent", refuse)
    monkeypatch.setattr(LocalObjects, "replace", refuse)
    out, _ = run(
        *("evaluate", opened.path, "a", "--no-baselines", "--resamples", 20, "-Q"),
        *("--curve", "--targets", 2, "--shares", 1),
    )
    assert out.startswith("a, fit ")
    assert "not kept beside the fit: " in out
    assert "read-only; mount it for writing" in out
    found = run_json("evaluate", opened.path, "a", "--no-baselines", "--resamples", 20, "-Q")
    assert found["lds"] > 0.5
    assert "read-only" in found["not_kept"]
    assert evaluate(opened, "a", resamples=20)["lds"] == pytest.approx(found["lds"])


# Losses


def test_scores_that_mean_better_models_are_turned_for_a_loss(opened, tmp_path):
    algorithm = opened.add_algorithm("two", runs=400, outputs=["loss"])
    draw, ids = np.random.default_rng(0), np.arange(400)
    mask = np.array([one.mask for one in algorithm.describe(ids)])
    weight = draw.normal(size=(TARGET, TRAIN)).astype("f4")
    loss = np.exp(-(mask @ weight.T) / 4).astype("f4")
    fixed = {"time": np.zeros(400, int), "host": np.full(400, "h")}
    algorithm.table.append(algorithm.complete(Rows(ids, {"mask": mask, "loss": loss}, fixed), "t"))
    folder = tmp_path / "trak" / "scores"
    folder.mkdir(parents=True)
    (tmp_path / "trak" / "experiments.json").write_text("{}")
    file = np.lib.format.open_memmap(folder / "quick.mmap", "w+", "f4", (TRAIN, TARGET))
    file[:] = weight.T
    file.flush()
    np.savez(tmp_path / "k.npz", all_modules=weight)
    np.save(tmp_path / "plain.npy", weight)
    np.save(tmp_path / "said.npy", weight)
    names = ("trak", "k.npz", "plain.npy", "said.npy")
    options = [{}, {}, {}, {"larger": "better"}]
    found = benchmark(
        *(opened, "two"),
        scores=[tmp_path / name for name in names],
        options=options,
        output="loss",
        baselines=False,
    )
    by = {entry["method"]: entry for entry in summarise(found)["methods"]}
    assert all(by[name]["lds"] > 0.9 for name in ("quick", "k", "said"))
    assert all(by[name]["note"].startswith("turned") for name in ("quick", "k", "said"))
    assert by["plain"]["lds"] < -0.9
    assert "--larger better" in by["plain"]["note"]
    out, _ = run(
        *("evaluate", opened.path, "two", "--output", "loss", "--no-baselines", "-Q"),
        *("--scores", tmp_path / "plain.npy"),
    )
    assert "plain: negative" in out


# Learning curve


def test_steps_take_shares_of_masks_and_whole_masks():
    mask_id = np.repeat(np.arange(100), 3)
    free = mask_id >= 20
    step = _steps(mask_id, free, (0.25, 0.5, 0.75), 0)
    assert (step[~free] == -1).all()
    assert [int((step == number).sum()) for number in range(3)] == [60, 60, 60]
    assert (step.reshape(100, 3) == step[::3, None]).all()
    assert (_steps(mask_id, free, (1.0,), 0)[free] == 0).all()


def found_weights(study, curve):
    weight = study.datamodels("a").sel(target=curve["target"])["weight"].values.astype(float)
    return weight / np.linalg.norm(weight, axis=1, keepdims=True)


def test_learning_curve(planted):
    study = dmstore.open_study(planted[0])
    found = learning_curve(study, "a", targets=7)
    runs = found["runs"].values
    total = planted[2]["runs"]["train"] + planted[2]["runs"]["holdout"]
    assert runs[-1] == total
    assert (np.diff(runs) > 0).all()
    assert found.sizes["target"] == 7
    mean = found["mean_lds"].values
    assert mean[-1] > mean[0] + 0.02
    assert (
        (found["mean_lds_low"] <= found["mean_lds"]) & (found["mean_lds"] <= found["mean_lds_high"])
    ).all()
    # The last step is the fit itself.
    whole = benchmark(study, "a", baselines=False).sel(predictor="fit", target=found["target"])
    assert np.allclose(found["lds"].values[-1], whole["lds"], atol=0.01)
    assert np.allclose(found["r2"].values[-1], whole["r2"], atol=1e-3)
    stored = study.datamodels("a").sel(target=found["target"])
    assert np.allclose(found["lam"].values[-1], stored["lam"])
    assert (found["kkt"] <= 1e-4).all()
    cosine = found["cosine"].mean("target").values
    assert np.allclose(np.diagonal(cosine), 1)
    assert np.allclose(cosine, cosine.T)
    assert (np.diff(cosine[:, -1]) > 0).all()
    explained = found["explained_variance"]
    count = int(np.isfinite(explained.values[-1, -1]).sum())
    assert count == 7
    own = explained.values[-1, -1, :count]
    # Unit rows: all their variance lies along as many components as rows, most along the first.
    assert np.isclose(own.sum(), 1)
    assert (np.diff(own) <= 1e-12).all()
    unit = found_weights(study, found)
    singular = np.linalg.svd(unit, compute_uv=False)
    assert np.allclose(own, singular**2 / len(unit), atol=2e-3)
    # No other directions explain more of a sample than its own.
    total = explained.cumsum("component").values[..., :count]
    assert (total[:, -1] <= total[-1, -1] + 1e-9).all()
    assert np.array_equal(found["lds"], learning_curve(study, "a", targets=7)["lds"])


def test_a_step_is_a_fit_of_its_own_runs(planted):
    """Sums of Grams give what a fit of just these runs gives."""
    study = dmstore.open_study(planted[0])
    found = learning_curve(study, "a", targets=3, shares=(0.25, 0.5))
    runs = study.runs("a").load()
    step = _steps(runs["mask_id"].values, runs["split"].values != "eval", (0.25, 0.5), 0)
    own = runs.isel(run=step >= 0).sel(target=found["target"])
    direct = lasso_path(
        own["mask"].values, own["margin"].values, holdout=own["split"].values == "holdout"
    )
    assert found["runs"].values[-1] == len(own["run"])
    assert np.allclose(found["lam"].values[-1], direct["lam"])
    assert np.allclose(found["nonzeros"].values[-1], direct["nonzeros"], atol=2)


def test_curve_of_few_runs_and_bad_requests(opened):
    with pytest.raises(InputError, match="eval masks"):
        learning_curve(opened, "small")
    for shares in ([], [0.5, 0.25], [0.0, 1.0], [0.5, 1.5]):
        with pytest.raises(InputError, match="must ascend"):
            learning_curve(opened, "a", shares=shares)
    with pytest.raises(InputError, match="targets"):
        learning_curve(opened, "a", targets=0)
    with pytest.raises(InputError, match="too few runs"):
        learning_curve(opened, "a", shares=(0.001,))
    found = learning_curve(opened, "a", targets=2, shares=(0.001, 0.5))
    assert found.attrs["skipped"] == 1
    assert found.sizes["runs"] == 1


# The command


def test_command(planted, opened, tmp_path):
    np.save(tmp_path / "truth.npy", planted[1])
    out, err = run(
        *("evaluate", opened.path, "a", "--scores", tmp_path / "truth.npy"),
        *("--curve", "--targets", 5, "--resamples", 50),
    )
    assert out.startswith("a, fit ")
    assert "noise ceiling 0." in out
    for name in ("truth", "fit", "empirical influence", "class mean", "mean", "learning curve"):
        assert f"{name} " in out
    assert "baselines of a: " in err
    found = run_json(
        *("evaluate", opened.path, "a", "--scores", tmp_path / "truth.npy", "-Q"),
        *("--curve", "--targets", 5, "--resamples", 50, "--no-baselines"),
    )
    assert {entry["method"] for entry in found["methods"]} == {"fit", "truth"}
    assert found["lds"] == pytest.approx(found["methods"][1]["lds"])
    assert found["curve"]["targets"] == 5
    assert found["curve"]["steps"][-1]["cosine"][-1] == pytest.approx(1, abs=1e-6)
    kept = opened.objects.children(f"datamodels/a/{found['fit']}/")
    assert len([name for name in kept if name.startswith("curve-")]) == 1


def test_the_report_shows_the_curve(opened):
    from dmstore.analysis import compare, report

    other = opened.add_algorithm("b", runs=400, outputs=["margin"])
    store(other, 400, seed=2)
    fit(opened, "b")
    compare(opened, "a", "b", components=2, top=3)
    report(opened, "a", "b")
    page = next((opened.objects.path("comparisons/")).glob("*/report.html"))
    assert "Would more runs help?" not in page.read_text()
    for name in ("a", "b"):
        run("evaluate", opened.path, name, "--curve", "--targets", 4, "--resamples", 20, "-Q")
    report(opened, "a", "b")
    text = page.read_text()
    assert "Would more runs help?" in text
    assert "b: LDS" in text
    assert "noise ceiling of the LDS" in text
    assert text.count("share of variance explained</text>") == 2
    # Of the runs that the fit stands on, before one of others that was made later.
    (kept,) = opened.objects.path("datamodels/a/").glob("*/curve-*.json")
    document = json.loads(kept.read_text())
    other = {**document, "content_id": "0" * 64, "created": "2999-01-01T00:00:00Z", "results": {}}
    kept.with_name("curve-other.json").write_text(json.dumps(other))
    (newest,) = (f for f in opened.fits("a") if f["complete"])
    assert kept_curve(opened, "a", newest["fit"]) == document["results"]
    kept.with_name("curve-other.json").unlink()
    for kept in opened.objects.path("datamodels/a/").glob("*/curve-*.json"):
        document = json.loads(kept.read_text())
        for step in document["results"]["steps"]:
            del step["explained"]
        kept.write_text(json.dumps(document))
    report(opened, "a", "b")
    assert "share of variance explained" not in page.read_text()


def test_a_published_study_is_a_benchmark(opened, tmp_path):
    np.save(tmp_path / "x.npy", scores()[0])
    run(*("publish", opened.path, tmp_path / "p.zip", "-Q", "--licence", "CC0-1.0"))
    found = run_json("evaluate", tmp_path / "p.zip", "a", "--scores", tmp_path / "x.npy", "-Q")
    assert {"fit", "x"} <= {entry["method"] for entry in found["methods"]}
    assert evaluate(dmstore.open_study(tmp_path / "p.zip"), "a")["lds"] == pytest.approx(
        found["lds"]
    )


WRONG = {
    "options": (["--key", "a", "--key", "b", "--scores", "x.npy"], 2, "--key is given 2 times"),
    "key alone": (["--key", "a"], 2, "for 0 --scores"),
    "units": (["--scores", "x.npy", "--units", "metres"], 2, "metres"),
    "forced curve": (["--curve", "--force"], 2, "leave --force or --curve out"),
    "targets": (["--targets", "0"], 2, "0 is not in the range"),
    "targets of no curve": (["--targets", "5"], 2, "--targets is of the learning curve"),
    "shares of no curve": (["--shares", "1"], 2, "--shares is of the learning curve"),
    "no file": (["--scores", "none.npy"], 1, "none.npy"),
    "no fit": (["--fit", "abc"], 1, "has no fit 'abc'"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_use(opened, tmp_path, monkeypatch, case):
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", scores()[0])
    arguments, code, words = WRONG[case]
    out, err = run("evaluate", opened.path, "a", *arguments, "-Q", code=code)
    assert words in err
    assert out == ""


def test_targets_that_are_train_units_are_judged_on_runs_that_did_not_see_them():
    from scipy.stats import spearmanr

    draw = np.random.default_rng(5)
    mask = draw.random((200, 12)) < 0.5
    unit = np.array([-1, 3, 7])
    weight = draw.normal(size=(3, 12))
    weight[1, 3] = weight[2, 7] = 0
    values = (mask @ weight.T) + draw.normal(size=(200, 3)) * 0.3
    values[:, 1] += 50 * mask[:, 3]
    values[:, 2] -= 50 * mask[:, 7]
    truth = Truth(mask, values, np.arange(200), np.arange(200), fitted=False, unit=unit)
    method = Method("fit", "fit", weight @ mask.T, 100, "")
    found = judge([method], truth, 50, 0)
    for target, own in enumerate(unit):
        used = np.ones(200, bool) if own < 0 else ~mask[:, own]
        expected = spearmanr(method.predicted[target][used], values[used, target]).statistic
        assert np.isclose(found.lds.values[0, target], expected)
        assert expected > 0.9
        assert found.lds_low.values[0, target] < expected < found.lds_high.values[0, target]
        assert found.r2.values[0, target] > 0.8
    assert np.isclose(found.mean_lds.values[0], found.lds.values[0].mean())
    assert np.isnan(found.ceiling.values).all()


def test_a_target_without_a_datamodel_predicts_nothing():
    """As of a train unit that all fitted runs saw: its bias is NaN, and must not be ranked."""
    draw = np.random.default_rng(2)
    mask = draw.random((60, 8)) < 0.5
    values = mask @ draw.normal(size=(8, 2))
    truth = Truth(mask, values, np.arange(60), np.arange(60), fitted=False, unit=np.full(2, -1))
    predicted = values.T.copy()
    predicted[1] = np.nan
    found = judge([Method("fit", "fit", predicted, 10, "")], truth, 30, 0).isel(predictor=0)
    assert found.lds.values.tolist() == [pytest.approx(1), 0]
    assert found.kendall.values.tolist() == [pytest.approx(1), 0]
    assert found.lds_low.values[1] == found.lds_high.values[1] == 0
    assert found.r2.values[0] == pytest.approx(1)
    assert np.isnan(found.r2.values[1])
    assert np.isnan(found.mse.values[1])
    assert float(found.mean_lds) == pytest.approx(0.5)
