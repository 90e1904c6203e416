"""Targets that are train units: each on the runs that did not see it, and on no other."""

import dataclasses
import shutil

import dask.array as da
import numpy as np
import pytest
from click.testing import CliRunner
from designs import DESIGNS, check_path, make
from helpers import dying
from sklearn.linear_model import Lasso
from unit_targets import UNIT, make_study

from dmstore import cli
from dmstore.core import bits
from dmstore.errors import InputError
from dmstore.regression import fit, lasso_path
from dmstore.regression.fitting import engine
from dmstore.regression.problem.block_arrays import CONSTANT, NOT_CONVERGED, TOO_FEW_RUNS
from dmstore.regression.problem.own_runs import OwnRuns
from dmstore.regression.problem.packing import padded


def reference(masks, output, lam):
    found = Lasso(alpha=lam / 2, tol=1e-13, max_iter=1_000_000)
    return found.fit(masks.astype(float), output.astype(float))


def violation(masks, output, weight, bias, lam):
    """Largest violation of optimality relative to lam, from the masks themselves."""
    gradient = 2 * masks.astype(float).T @ (output - bias - masks @ weight) / len(masks)
    off = np.where(weight == 0, np.abs(gradient) - lam, np.abs(gradient - lam * np.sign(weight)))
    return max(off.max(), 0) / lam


@pytest.mark.parametrize("name", DESIGNS)
def test_each_target_equals_scikit_learn_on_its_own_runs(name):
    masks, outputs = make(**{"targets": 4, **DESIGNS[name]})
    unit = np.array([-1, 3, masks.shape[1] // 2, 0])
    found = lasso_path(masks, outputs, target_train=unit)
    assert float(found.kkt.max()) <= 1e-4
    for target, one in enumerate(unit):
        rows = ~masks[:, one] if one >= 0 else np.ones(len(masks), bool)
        mine = found.isel(target=target)
        lam, weight = float(mine.lam), mine.weight.values.astype(float)
        other = reference(masks[rows], outputs[rows, target], lam)
        # Few runs make equal columns, so that weights are not unique; what they predict is.
        predicted = masks[rows] @ weight + float(mine.bias)
        scale = np.std(other.predict(masks[rows]))
        assert np.allclose(predicted, other.predict(masks[rows]), atol=2e-4 * max(scale, 1e-3))
        assert one < 0 or weight[one] == 0
        worst = violation(masks[rows], outputs[rows, target], weight, float(mine.bias), lam)
        assert abs(worst - float(mine.kkt)) < 1e-5
        assert -1e-9 <= float(mine.gap) < 1e-6


def test_path_and_holdout_errors_are_those_of_the_own_runs():
    masks, outputs = make(500, 60, 1)
    apart = np.arange(500) % 7 == 0
    found = lasso_path(masks, outputs, holdout=apart, patience=0, target_train=[9])
    found = found.isel(target=0)
    rows = ~apart & ~masks[:, 9]
    held = apart & ~masks[:, 9]
    check_path(found, masks[rows], outputs[rows, 0], masks[held], outputs[held, 0])


def test_what_the_runs_that_saw_it_say_changes_nothing():
    masks, outputs = make(500, 60, 2)
    apart = np.arange(500) % 7 == 0
    unit = [4, 7]
    plain = lasso_path(masks, outputs, holdout=apart, target_train=unit)
    other = outputs + 100.0 * masks[:, unit]
    moved = lasso_path(masks, other, holdout=apart, target_train=unit)
    # The shift is the mean over all runs, and rounds differently.
    assert np.allclose(moved.weight, plain.weight, atol=1e-5)
    assert np.allclose(moved.bias, plain.bias, atol=1e-4)
    mixed = lasso_path(masks, outputs, holdout=apart, target_train=[-1, 7])
    alone = lasso_path(masks, outputs, holdout=apart)
    assert np.array_equal(mixed.weight[0], alone.weight[0])
    assert np.array_equal(mixed.weight[1], plain.weight[1])
    assert not np.array_equal(alone.weight[1], plain.weight[1])


@pytest.mark.parametrize("train", [1, 3, 17, 20, 33])
@pytest.mark.parametrize("groups", [1, 3])
def test_the_gradient_is_as_exact_as_asked_for(train, groups):
    draw = np.random.default_rng(train)
    sizes = [70 + 500 * g for g in range(groups)]
    masks = [draw.random((n, train)) < 0.4 for n in sizes]
    said = [draw.normal(size=n) * 10.0 for n in sizes]
    words = [padded(bits.pack_runs(part)) for part in masks]
    outputs, used = [], []
    for group, part in zip(words, said, strict=True):
        count = 64 * group.shape[1]
        outputs.append(np.concatenate([part, np.full(count - len(part), 7.0)]))
        used.append(np.arange(count) < len(part))
    runs = OwnRuns(words, np.concatenate(outputs), np.concatenate(used), 0)
    left = ~np.concatenate(masks)[:, 0]
    x, y = np.concatenate(masks)[left].astype(float), np.concatenate(said)[left]
    weight = draw.normal(size=train)
    residual = y - x @ weight
    expected = (x - x.mean(0)).T @ (residual - residual.mean()) / len(x)
    assert runs.count == len(x)
    assert np.allclose(runs.mean, x.mean(0))
    assert np.isclose(runs.variance, y.var())
    for precision in (0.1, 1e-4, 1e-8, 0.0):
        assert np.abs(runs.rest(weight, precision) - expected).max() <= precision + 1e-12
    assert runs.rest(weight, 0.0)[0] == 0
    assert np.isclose(runs.error(weight, 1.5), np.mean((residual - 1.5) ** 2))


def test_units_that_nearly_all_runs_saw_have_a_status_that_says_so():
    masks, outputs = make(400, 40, 6)
    apart = np.arange(400) % 10 == 0
    draw = np.random.default_rng(1)
    masks[:, 0] = True
    masks[:, 1] = ~np.isin(np.arange(400), draw.choice(np.flatnonzero(~apart), 19, replace=False))
    masks[:, 2] = ~np.isin(np.arange(400), draw.choice(np.flatnonzero(~apart), 60, replace=False))
    masks[:, 3] = False
    masks[~apart, 4] = draw.random((~apart).sum()) < 0.5
    outputs[~masks[:, 4], 4] = 2.5
    unit = [0, 1, 2, 3, 4, -1]
    found = lasso_path(masks, outputs, holdout=apart, target_train=unit)
    assert found.status.values[:3].tolist() == [TOO_FEW_RUNS] * 3
    assert (found.weight.values[:3] == 0).all()
    assert np.isnan(found.lam.values[:3]).all()
    assert np.isnan(found.kkt.values[:3]).all()
    assert np.isnan(found.bias.values[0])
    assert np.isclose(float(found.bias[2]), outputs[~masks[:, 2], 2].mean())
    # A unit that no run saw is fitted on all of them.
    rows = np.ones(400, bool)
    other = reference(masks[rows], outputs[:, 3], float(found.lam[3]))
    assert np.allclose(found.weight[3], other.coef_, atol=1e-4)
    assert int(found.status[4]) == CONSTANT
    assert float(found.bias[4]) == 2.5
    assert int(found.status[5]) not in (CONSTANT, TOO_FEW_RUNS, NOT_CONVERGED)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([0], "expected integers"),
        ([0.0, 1.0], "expected integers"),
        ([0, 60], r"columns \[60\]"),
        ([-2, 1], r"columns \[-2\]"),
    ],
)
def test_units_that_are_no_columns_are_refused(given, words):
    masks, outputs = make(100, 60, 2)
    with pytest.raises(InputError, match=words):
        lasso_path(masks, outputs, target_train=given)


def test_dask_arrays_and_several_threads_give_the_same():
    masks, outputs = make(700, 50, 3)
    plain = lasso_path(masks, outputs, target_train=[1, -1, 2], threads=1)
    lazy = lasso_path(
        da.from_array(masks, chunks=(300, 13)), outputs, target_train=[1, -1, 2], threads=3
    )
    assert np.array_equal(plain.weight, lazy.weight)


@pytest.fixture
def fitted(tmp_path):
    """A study of two blocks of targets, every third of which is a train unit."""
    return make_study(tmp_path / "s", UNIT)


def test_a_fit_of_a_study_uses_own_runs_in_every_stage(fitted):
    study, masks, margin = fitted
    done = fit(study, "a")
    assert done.summary["worst_kkt"] <= 1e-4
    assert done.summary["status"]["not_converged"] == 0
    found, algorithm = study.datamodels("a").load(), study.algorithm("a")
    mask_id = study.runs("a").mask_id.values
    used, quarter = study.runs("a").split.values != "eval", algorithm.quarter(mask_id)
    parts = [("weight", 1, 0, used)]
    parts += [("weight_half", 2, h, used & (quarter // 2 == h)) for h in (0, 1)]
    for target in (0, 1, 99, 299):
        for name, share, number, chosen in parts:
            rows = chosen if UNIT[target] < 0 else chosen & ~masks[:, UNIT[target]]
            lam = float(found.lam[target]) * np.sqrt(share)
            other = reference(masks[rows], margin[rows, target], lam)
            mine = found[name] if share == 1 else found[name][number]
            assert np.allclose(mine[target], other.coef_, atol=2e-4), (name, target)
    assert (found.weight.values[UNIT >= 0, UNIT[UNIT >= 0]] == 0).all()


def test_memory_for_one_gram_gives_the_same(fitted, monkeypatch):
    study, *_ = fitted
    fit(study, "a")
    expected = study.datamodels("a").load()
    shutil.rmtree(f"{study.path}/datamodels")
    real = engine.Fitting.room

    def small(self, words):
        return dataclasses.replace(real(self, words), stages=1)

    monkeypatch.setattr(engine.Fitting, "room", small)
    fit(study, "a")
    found = study.datamodels("a").load()
    assert np.array_equal(found.lam, expected.lam)
    assert np.array_equal(found.status, expected.status)
    for name in ("weight", "weight_half"):
        assert np.array_equal(found[name], expected[name])


def test_targets_that_are_all_units_need_no_gram_and_a_killed_fit_goes_on(tmp_path, monkeypatch):
    study, masks, margin = make_study(tmp_path / "s", np.arange(300) % 40)
    monkeypatch.setattr(engine.stages, "make_designs", None)
    run, calls = dying(engine.stages.run, 2)
    monkeypatch.setattr(engine.stages, "run", run)
    with pytest.raises(KeyboardInterrupt):
        fit(study, "a")
    done = fit(study, "a")
    assert len(calls) == 3
    found = study.datamodels("a").load()
    assert done.summary["worst_kkt"] <= 1e-4
    rows = (study.runs("a").split.values != "eval") & ~masks[:, 299 % 40]
    other = reference(masks[rows], margin[rows, 299], float(found.lam[299]))
    assert np.allclose(found.weight[299], other.coef_, atol=1e-4)


def test_the_command_warns_of_units_that_all_runs_saw(tmp_path):
    study, *_ = make_study(tmp_path / "s", UNIT, runs=40)
    done = CliRunner().invoke(cli.group, ["fit", str(study.path), "a", "--no-halves"])
    assert done.exit_code == 0, done.output
    summary = fit(study, "a", halves=False).summary
    count = summary["status"]["too_few_runs"]
    assert count > 0
    assert f"{count} of 300 targets are train units that all or nearly all runs saw" in done.output
