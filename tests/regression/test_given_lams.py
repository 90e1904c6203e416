"""One lam, a grid of lams, and no penalty: in the place of each target's own path."""

import json
from dataclasses import asdict

import numpy as np
import pytest
from click.testing import CliRunner
from designs import make
from helpers import dying
from sklearn.linear_model import Lasso
from unit_targets import UNIT, make_study

import dmstore
from dmstore import cli
from dmstore.errors import InputError
from dmstore.regression import fit, lasso_path
from dmstore.regression.fitting import engine
from dmstore.regression.problem.block_arrays import AT_END, AT_START, FITTED, TOO_FEW_RUNS
from dmstore.regression.problem.parameters import Parameters, parse_grid
from dmstore.regression.solvers import unpenalised

UNITS = np.array([-1, 3, -1, 7])


def reference(masks, output, lam):
    found = Lasso(alpha=lam / 2, tol=1e-13, max_iter=1_000_000)
    return found.fit(masks.astype(float), output.astype(float))


def smallest(masks, output):
    """Weights and bias of the smallest norm, by least squares on the centred masks."""
    x = masks.astype(float) - masks.mean(axis=0)
    weight = np.linalg.lstsq(x, output - output.mean(), rcond=1e-10)[0]
    return weight, output.mean() - masks.mean(axis=0) @ weight


def rows_of(masks, unit):
    return ~masks[:, unit] if unit >= 0 else np.ones(len(masks), bool)


def test_one_lam_is_that_of_all_targets():
    masks, outputs = make(600, 80, 4)
    apart = np.arange(600) % 8 == 0
    found = lasso_path(masks, outputs, holdout=apart, lam=0.3, target_train=UNITS)
    assert (found.lam == 0.3).all()
    assert found.lam_path.shape == (4, 1)
    assert (found.status == FITTED).all()
    assert float(found.kkt.max()) <= 1e-4
    assert found.attrs["lam"] == 0.3
    for target, unit in enumerate(UNITS):
        rows = rows_of(masks, unit)
        other = reference(masks[rows], outputs[rows, target], 0.3)
        assert np.allclose(found.weight[target], other.coef_, atol=1e-4)
        fitted, held = rows & ~apart, rows & apart
        chosen = reference(masks[fitted], outputs[fitted, target], 0.3)
        error = np.mean((outputs[held, target] - chosen.predict(masks[held])) ** 2)
        baseline = np.mean((outputs[held, target] - outputs[fitted, target].mean()) ** 2)
        assert np.isclose(float(found.holdout_r2[target]), 1 - error / baseline, rtol=1e-2)


def test_a_grid_is_the_path_of_all_targets():
    masks, outputs = make(600, 80, 4)
    # The steps are uneven, and the first is above every target's largest lam.
    grid = [50.0, 2.0, 1.9, 0.2, 0.1, 0.09, 0.001]
    found = lasso_path(masks, outputs, lam_grid=grid, patience=0, target_train=UNITS)
    assert np.array_equal(found.lam_path, np.tile(grid, (4, 1)))
    assert np.isfinite(found.holdout_mse).all()
    assert float(found.kkt.max()) <= 1e-4
    for target, unit in enumerate(UNITS):
        lam = grid[int(np.argmin(found.holdout_mse.values[target]))]
        assert float(found.lam[target]) == lam
        rows = rows_of(masks, unit)
        other = reference(masks[rows], outputs[rows, target], lam)
        assert np.allclose(found.weight[target], other.coef_, atol=1e-4)
    ends = lasso_path(masks, outputs, lam_grid=[90.0, 80.0])
    assert (ends.status == AT_START).all()
    assert (ends.weight == 0).all()
    assert (lasso_path(masks, outputs, lam_grid=[90.0, 0.3]).status == AT_END).all()


def test_lams_above_every_weight_do_not_end_a_path():
    masks, outputs = make(600, 80, 4)
    # Twenty lams without any weight come first; their errors are the same, not worse.
    grid = np.geomspace(90.0, 0.01, 40)
    found = lasso_path(masks, outputs, lam_grid=grid, target_train=UNITS)
    assert (np.sum(grid > found.lam_max.values[:, None], axis=1) > 10).all()
    assert (found.holdout_r2 > 0).all()
    assert (found.nonzeros > 0).all()
    whole = lasso_path(masks, outputs, lam_grid=grid, patience=0, target_train=UNITS)
    assert np.array_equal(found.lam, whole.lam)
    assert np.array_equal(found.weight, whole.weight)


def test_the_first_lam_of_a_grid_may_have_weights():
    masks, outputs = make(600, 80, 4)
    found = lasso_path(masks, outputs, lam_grid=[0.1, 0.0001])
    best = found.status.values == AT_START
    assert best.any()
    assert (found.nonzeros.values[best] > 0).all()


FREE = {
    "plain": {"runs": 400, "train": 60},
    "fixed size": {"runs": 400, "train": 60, "fixed": True},
    "fewer runs than columns": {"runs": 120, "train": 200},
    "always or never": {"runs": 400, "train": 60, "still": 6},
    "offset": {"runs": 400, "train": 60},
}


@pytest.mark.parametrize("name", FREE)
def test_without_a_penalty_weights_are_those_of_the_smallest_norm(name):
    masks, outputs = make(**{"targets": 4, **FREE[name]})
    masks[:, 1] = masks[:, 2]
    if name == "offset":
        outputs += 1e5
    apart = np.arange(len(masks)) % 10 == 0
    found = lasso_path(masks, outputs, holdout=apart, lam=0, target_train=UNITS)
    assert float(found.kkt.max()) <= 1e-5
    assert float(found.gap.max()) <= 1e-9
    assert (found.status == FITTED).all()
    for target, unit in enumerate(UNITS):
        rows = rows_of(masks, unit)
        weight, bias = smallest(masks[rows], outputs[rows, target])
        scale = np.linalg.norm(weight)
        assert np.linalg.norm(found.weight[target] - weight) <= 1e-5 * scale
        assert abs(float(found.bias[target]) - bias) <= 1e-5 * scale
        fitted, held = rows & ~apart, rows & apart
        chosen, level = smallest(masks[fitted], outputs[fitted, target])
        error = np.mean((outputs[held, target] - level - masks[held] @ chosen) ** 2)
        assert np.isclose(float(found.holdout_mse[target, 0]), error, rtol=1e-6)


def test_fits_without_a_penalty_are_certified_for_what_is_stored():
    masks, outputs = make(400, 60, 1)
    found = lasso_path(masks, outputs, lam=0).isel(target=0)
    words = dmstore.core.bits.pack_runs(masks)
    free = unpenalised.MinimumNorm(dmstore.regression.problem.design.make_design(words, 400))
    x, y = masks - masks.mean(axis=0), outputs[:, 0] - outputs[:, 0].mean()
    moment, weight = x.T @ y / 400, found.weight.values.astype(float)
    assert free.certify(moment, y.var(), weight)[0] < 1e-5
    wrong = weight * 1.01
    kkt, gap = free.certify(moment, y.var(), wrong)
    lacks = np.mean((y - x @ wrong) ** 2) - np.mean((y - x @ smallest(masks, y)[0]) ** 2)
    assert np.isclose(gap, lacks / y.var(), rtol=1e-6)
    assert kkt > 1e-3


def test_what_says_nothing_makes_no_other_fit():
    assert Parameters(lam=0.1) == Parameters(lam=0.1, lams=20, lam_ratio=0.5, patience=0)
    grid = (0.2, 0.1)
    assert Parameters(lam_grid=grid) == Parameters(lam_grid=grid, lams=20, lam_ratio=0.5)
    assert Parameters(lam_grid=grid) != Parameters(lam_grid=grid, patience=0)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"lams": 1}, "1 lams.*give 2 lams or more"),
        ({"lam": -1.0}, "lam -1.0"),
        ({"lam": float("nan")}, "lam nan"),
        ({"lam": float("inf")}, "lam inf"),
        ({"lam_grid": (0.1, -1.0)}, r"-1.0 is no positive"),
        ({"lam_grid": (0.1, float("nan"))}, "nan is no positive"),
        ({"lam_grid": (float("inf"), 1.0)}, "inf is no positive"),
        ({"lam_grid": (0.1, 0.0)}, "stands alone"),
        ({"lam_grid": (0.3, 0.1, 0.1)}, "0.1 stands there twice"),
        ({"lam_grid": (0.1, 0.3, 0.5)}, "reversed"),
        ({"lam_grid": (0.5, 0.1, 0.3)}, "in no order"),
        ({"lam_grid": (0.5, 0.1), "lam": 0.1}, "one of the two"),
        ({"lam": 0.1, "solver": "torch"}, "need solver 'gram'"),
        ({"lam_grid": (0.5, 0.1), "solver": "fast_l1"}, "need solver 'gram'"),
    ],
)
def test_bad_lams_are_refused(given, words):
    with pytest.raises(InputError, match=words) as caught:
        Parameters(**given)
    assert "\n" not in str(caught.value)


def test_the_same_numbers_are_the_same_parameters():
    assert Parameters(lam=0).document() == Parameters(lam=-0.0).document()
    assert json.dumps(Parameters(lam=0).document()) == json.dumps(Parameters(lam=-0.0).document())
    assert Parameters(lam_grid=[2, 1]) == Parameters(lam_grid=(2.0, 1.0))
    assert parse_grid("2, 1,5e-1") == (2.0, 1.0, 0.5)
    for text in ("", "1,,2", "a"):
        with pytest.raises(InputError, match="commas"):
            parse_grid(text)


def test_too_many_columns_for_no_penalty_are_refused_before_any_work(tmp_path, monkeypatch):
    study, *_ = make_study(tmp_path / "s", UNIT, runs=100)
    monkeypatch.setattr(unpenalised, "MOST_TRAIN", 39)
    with pytest.raises(InputError, match="40 train units are too many"):
        fit(study, "a", lam=0)
    assert study.fits("a") == []


@pytest.mark.parametrize("parameters", [Parameters(lam=0.2), Parameters(lam=0)])
def test_halves_follow_in_a_study(tmp_path, parameters):
    study, masks, margin = make_study(tmp_path / "s", UNIT)
    done = fit(study, "a", **asdict(parameters))
    assert done.document["parameters"]["lam"] == parameters.lam
    found, algorithm = study.datamodels("a").load(), study.algorithm("a")
    mask_id = study.runs("a").mask_id.values
    used, quarter = study.runs("a").split.values != "eval", algorithm.quarter(mask_id)
    parts = [(found.weight, 1, used)]
    parts += [(found.weight_half[h], 2, used & (quarter // 2 == h)) for h in (0, 1)]
    for target in (0, 1, 299):
        for mine, share, chosen in parts:
            rows = chosen & rows_of(masks, UNIT[target])
            said = margin[rows, target]
            expected = (
                reference(masks[rows], said, 0.2 * np.sqrt(share)).coef_
                if parameters.lam
                else smallest(masks[rows], said)[0]
            )
            assert np.allclose(mine[target], expected, atol=3e-4)


def test_a_killed_fit_of_one_lam_goes_on(tmp_path, monkeypatch):
    study, *_ = make_study(tmp_path / "s", np.full(300, -1), runs=300)
    run, calls = dying(engine.stages.run, 2)
    monkeypatch.setattr(engine.stages, "run", run)
    with pytest.raises(KeyboardInterrupt):
        fit(study, "a", lam=0)
    done = fit(study, "a", lam=0)
    assert len(calls) == 3
    assert done.summary["worst_kkt"] <= 1e-5


def test_the_command_takes_a_lam_or_a_grid(tmp_path):
    study, *_ = make_study(tmp_path / "s", UNIT, runs=300)

    def call(*options):
        return CliRunner().invoke(
            cli.group, ["fit", str(study.path), "a", "--no-halves", "--quiet", "--json", *options]
        )

    for options in (["--lam", "0"], ["--lam", "0.2"], ["--lam-grid", "1,0.5,0.2"]):
        done = call(*options)
        assert done.exit_code == 0, done.output
    stated = [entry["parameters"] for entry in study.fits("a")]
    assert [(p["lam"], p["lam_grid"]) for p in stated] == [
        (0.0, []),
        (0.2, []),
        (None, [1.0, 0.5, 0.2]),
    ]
    for options in (["--lam", "nan"], ["--lam-grid", "1,2"], ["--lam-grid", "x"]):
        done = call(*options)
        assert done.exit_code != 0
        assert isinstance(done.exception, InputError | SystemExit)
    for options, words in (
        (["--lam", "0.2", "--patience", "1"], "--patience says nothing beside --lam"),
        (
            ["--lam-grid", "1,0.5", "--lam-ratio", "0.1"],
            "--lam-ratio says nothing beside --lam-grid",
        ),
        (["--lams", "1"], "1 is not in the range"),
    ):
        done = call(*options)
        assert done.exit_code == 2
        assert words in done.output
    done = call("--lam", "1e9")
    assert "lam is too large for them" in done.output
    assert len(study.fits("a")) == 4
    assert (study.datamodels("a").status != TOO_FEW_RUNS).all()
