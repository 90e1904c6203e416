"""Choice of lam by folds: errors, lam and refit against scikit-learn, in arrays and in a study."""

import dataclasses
import shutil
from dataclasses import asdict

import numpy as np
import pytest
from click.testing import CliRunner
from designs import make
from helpers import dying
from sklearn.linear_model import Lasso
from sklearn.linear_model import lasso_path as sklearn_path
from unit_targets import UNIT, make_study

from dmstore import cli
from dmstore.core import bits
from dmstore.errors import InputError
from dmstore.regression import fit, lasso_path
from dmstore.regression.fitting import engine, stages
from dmstore.regression.fitting.array_inputs import _holdout, folds_of
from dmstore.regression.problem.block_arrays import CONSTANT, TOO_FEW_RUNS
from dmstore.regression.problem.design import count_gram
from dmstore.regression.problem.packing import padded
from dmstore.regression.problem.parameters import Parameters


def errors_of(masks, output, fold, rows, lams):
    """Mean squared error of each lam over all folds, and that of the mean."""
    errors, baseline = np.zeros(len(lams)), 0.0
    for number in range(fold.max() + 1):
        fitted, held = rows & (fold != number), rows & (fold == number)
        x, y = masks[fitted].astype(float), output[fitted]
        _, coefs, _ = sklearn_path(
            x - x.mean(0), y - y.mean(), alphas=lams / 2, tol=1e-12, max_iter=100000
        )
        predicted = y.mean() + (masks[held] - x.mean(0)) @ coefs
        errors += ((output[held, None] - predicted) ** 2).sum(axis=0)
        baseline += ((output[held] - y.mean()) ** 2).sum()
    return errors / rows.sum(), baseline / rows.sum()


def check(found, masks, output, fold, rows):
    lams = found.lam_path.values
    x, y = masks[rows].astype(float), output[rows]
    assert np.isclose(lams[0], 2 * np.abs((x - x.mean(0)).T @ (y - y.mean())).max() / len(y))
    errors, baseline = errors_of(masks, output, fold, rows, lams)
    assert np.allclose(found.holdout_mse.values, errors, rtol=2e-3)
    # Paths are walked in float32: of errors that are nearly equal either may be the smallest.
    best = int(np.argmin(np.abs(lams - float(found.lam))))
    assert np.isclose(float(found.lam), lams[best])
    assert errors[best] <= errors.min() * (1 + 1e-3)
    assert np.isclose(float(found.holdout_r2), 1 - errors[best] / baseline, rtol=5e-3, atol=1e-4)
    other = Lasso(alpha=lams[best] / 2, tol=1e-13, max_iter=1_000_000).fit(x, y)
    assert np.allclose(found.weight, other.coef_, atol=1e-4)


@pytest.mark.parametrize("folds", [2, 5])
def test_errors_lam_and_weights_are_those_of_cross_validation(folds):
    masks, outputs = make(500, 50, 3)
    unit = np.array([-1, 4, -1])
    found = lasso_path(masks, outputs, folds=folds, patience=0, target_train=unit)
    assert float(found.kkt.max()) <= 1e-4
    sets = folds_of(masks, folds, 0)
    assert (np.sum(sets, axis=0) == 1).all()
    fold = np.argmax(sets, axis=0)
    for target in range(3):
        rows = ~masks[:, unit[target]] if unit[target] >= 0 else np.ones(500, bool)
        check(found.isel(target=target), masks, outputs[:, target], fold, rows)


def test_repeats_of_a_mask_stay_together():
    masks, outputs = make(300, 40, 1)
    repeated = np.repeat(masks, 3, axis=0)
    for group in folds_of(repeated, 4, 7):
        assert np.isin(group.reshape(-1, 3).sum(axis=1), (0, 3)).all()
        assert 60 <= group.sum() / 3 <= 90
    found = lasso_path(repeated, np.repeat(outputs, 3, axis=0), folds=4, random_state=7)
    assert float(found.kkt.max()) <= 1e-4
    for share, held in ((0.1, 30), (0.001, 1), (0.5, 150)):
        apart = _holdout(share, repeated, 7).reshape(-1, 3)
        assert (apart[:, 0] == apart[:, 1]).all()
        assert (apart[:, 0] == apart[:, 2]).all()
        assert apart[:, 0].sum() == held
    assert _holdout(0.1, masks, 7).sum() == 30


def test_a_lam_that_a_fold_did_not_reach_has_no_error():
    masks, outputs = make(300, 100, 2, noise=3)
    found = lasso_path(masks, outputs, folds=3, patience=3)
    full = lasso_path(masks, outputs, folds=3, patience=0)
    assert np.isnan(found.holdout_mse.values).any()
    assert np.isfinite(full.holdout_mse.values).all()
    there = np.isfinite(found.holdout_mse.values)
    assert np.array_equal(found.holdout_mse.values[there], full.holdout_mse.values[there])


def test_one_lam_no_penalty_and_constant_outputs_by_folds():
    masks, outputs = make(400, 30, 3)
    outputs[:, 1] = 2.5
    masks[:, 5] = np.arange(400) > 25
    unit = [-1, -1, 5]
    for lam in (0.3, 0):
        found = lasso_path(masks, outputs, folds=4, lam=lam, target_train=unit)
        assert found.status.values[1:].tolist() == [CONSTANT, TOO_FEW_RUNS]
        assert float(found.lam[0]) == lam
        assert 0 < float(found.holdout_r2[0]) < 1
        assert float(found.kkt[0]) <= 1e-4
        assert np.isclose(float(found.bias[2]), outputs[~masks[:, 5], 2].mean())
        assert (found.weight.values[1:] == 0).all()
        assert np.isnan(found.lam.values[2])


@pytest.mark.parametrize("train", [2, 3, 70])
def test_counts_are_taken_away_exactly(train):
    draw = np.random.default_rng(0)
    masks = [draw.random((runs, train)) < 0.5 for runs in (700, 900, 65)]
    words = [padded(bits.pack_runs(part)) for part in masks]
    gram = count_gram(words[:2])
    count_gram(words[2:], into=gram, less=words[:1])
    left = np.concatenate(masks[1:]).astype(int)
    assert np.array_equal(gram, left.T @ left)


@pytest.mark.parametrize("room", [1, 2, 9])
def test_designs_follow_from_those_before(room):
    draw = np.random.default_rng(1)
    runs = [200, 190, 210, 205, 195, 30, 60, 10]
    masks = [draw.random((count, 50)) < 0.5 for count in runs]
    words = [padded(bits.pack_runs(part)) for part in masks]
    for number_of_folds, parts in ((8, 1), (4, 2), (0, 2)):
        steps = stages.all_stages(parts, halves=parts == 2, number_of_folds=number_of_folds)
        before = None
        for group in stages.passes(steps, room):
            designs = stages.make_designs(
                group, words, runs, lambda n, dtype: np.zeros((n, n), dtype), before, threads=2
            )
            for stage, design in zip(group, designs, strict=True):
                chosen = np.concatenate([masks[g] for g in stage.groups]).astype(int)
                assert design.runs == len(chosen)
                assert np.array_equal(design.gram, chosen.T @ chosen)
            before = (group[-1], designs[-1]) if len(designs) == 1 else None


def test_folds_of_a_study_resumed(tmp_path, monkeypatch):
    study, masks, margin = make_study(tmp_path / "s", UNIT)
    parameters = Parameters(folds=3, patience=0)
    run, _calls = dying(engine.stages.run, 7)
    room = engine.Fitting.room
    monkeypatch.setattr(
        engine.Fitting,
        "room",
        lambda self, words: dataclasses.replace(room(self, words), stages=1),
    )
    monkeypatch.setattr(engine.stages, "run", run)
    with pytest.raises(KeyboardInterrupt):
        fit(study, "a", **asdict(parameters))
    done = fit(study, "a", **asdict(parameters))
    assert done.document["parameters"]["folds"] == 3
    assert done.summary["worst_kkt"] <= 1e-4
    found, algorithm = study.datamodels("a").load(), study.algorithm("a")
    used = study.runs("a").split.values != "eval"
    mask_id = study.runs("a").mask_id.values
    fold, quarter = algorithm.fold(mask_id, 3), algorithm.quarter(mask_id)
    for target in (0, 1, 298, 299):
        rows = used if UNIT[target] < 0 else used & ~masks[:, UNIT[target]]
        check(found.isel(target=target), masks, margin[:, target], fold, rows)
        rows = rows & (quarter >= 2)
        other = Lasso(alpha=float(found.lam[target]) / np.sqrt(2), tol=1e-12, max_iter=100000)
        other.fit(masks[rows].astype(float), margin[rows, target])
        assert np.allclose(found.weight_half[1, target], other.coef_, atol=3e-4)
    # With room for all stages at once, the same.
    monkeypatch.undo()
    shutil.rmtree(f"{study.path}/datamodels")
    fit(study, "a", **asdict(parameters))
    again = study.datamodels("a").load()
    assert np.array_equal(again.lam, found.lam)
    assert np.allclose(again.weight, found.weight, atol=1e-7)


def test_bad_folds(tmp_path):
    for folds in (-1, 1):
        with pytest.raises(InputError, match="2 or more"):
            Parameters(folds=folds)
    with pytest.raises(InputError, match="need solver 'gram'"):
        Parameters(folds=5, solver="torch")
    masks, outputs = make(60, 20, 1)
    with pytest.raises(InputError, match="61 folds of 60"):
        lasso_path(masks, outputs, folds=61)
    study, *_ = make_study(tmp_path / "s", UNIT, runs=60)
    for folds in (60, 10**8):
        with pytest.raises(InputError, match="leave one of them empty"):
            fit(study, "a", folds=folds)
    assert study.fits("a") == []
    done = CliRunner().invoke(cli.group, ["fit", str(study.path), "a", "--folds", "2", "--quiet"])
    assert done.exit_code == 0, done.output
    assert study.fits("a")[0]["parameters"]["folds"] == 2
