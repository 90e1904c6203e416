"""The fit: exact Gram, parity with scikit-learn, certificates, hard designs, resume."""

import functools
import json
import operator
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
import scipy.sparse
from designs import check_path
from helpers import dying, make_rows
from sklearn.linear_model import Lasso

import dmstore
from dmstore.core import bits
from dmstore.errors import CorruptionError, IncompleteError, InputError
from dmstore.regression import fit, lasso_path
from dmstore.regression.fitting import engine, fit_document, memory_plan
from dmstore.regression.kernels import gradient
from dmstore.regression.problem.block_arrays import AT_START, CONSTANT, NOT_CONVERGED
from dmstore.regression.problem.design import make_design
from dmstore.regression.problem.moments import Moments, make_moments
from dmstore.regression.problem.packing import RunPacker
from dmstore.regression.problem.parameters import Parameters
from dmstore.storage.acts.compact import compact
from dmstore.storage.table.rows import Rows
from dmstore.upkeep.retraction import restore_runs, retract_runs


def problem(runs, train, targets=3, alpha=0.5, noise=1.0, seed=0):
    draw = np.random.default_rng(seed)
    masks = draw.random((runs, train)) < alpha
    weight = draw.standard_t(3, (train, targets)) * (draw.random((train, targets)) < 0.2)
    signal = masks @ weight
    return masks, signal + draw.normal(size=signal.shape) * noise * max(signal.std(), 0.1)


@pytest.mark.parametrize(
    ("runs", "train"), [(1, 1), (63, 31), (64, 32), (65, 33), (1000, 130), (5, 200), (129, 97)]
)
@pytest.mark.parametrize("threads", [1, 3])
def test_gram_is_exact(runs, train, threads):
    masks = np.random.default_rng(runs).random((runs, train)) < 0.4
    design = make_design(bits.pack_runs(masks), runs, threads=threads)
    assert np.array_equal(design.gram, masks.astype(int).T @ masks.astype(int))
    assert np.allclose(design.mean, masks.mean(axis=0))


@pytest.mark.parametrize("sizes", [[3, 1, 60], [1024, 5], [2000, 64, 64, 7], [0, 10], []])
def test_packer_takes_blocks_of_any_size(sizes):
    draw = np.random.default_rng(1)
    blocks = [draw.random((size, 11)) < 0.5 for size in sizes]
    packer = RunPacker(11)
    for block in blocks:
        packer.add(block)
    merged = np.concatenate([*blocks, np.empty((0, 11), bool)])
    assert packer.runs == len(merged)
    assert np.array_equal(bits.unpack_runs(packer.finish(), len(merged)), merged)


def test_statistics_add_up():
    masks, outputs = problem(3000, 50)
    words = bits.pack_runs(masks)
    shift = outputs.mean(axis=0)
    whole = make_moments(words, outputs, shift)
    parts = [
        make_moments(bits.pack_runs(masks[s]), outputs[s], shift)
        for s in (slice(1000), slice(1000, None))
    ]
    summed: Moments = parts[0] + parts[1]
    assert np.allclose(whole.product, masks.T @ (outputs - shift))
    assert np.allclose(summed.product, whole.product)
    assert np.allclose(summed.square, whole.square)
    assert np.array_equal(summed.lowest, whole.lowest)


def direct_violation(masks, output, weight, bias, lam):
    """Largest violation of optimality, from the masks themselves in float64."""
    gradient = 2 * masks.astype(float).T @ (output - bias - masks @ weight) / len(masks)
    zero = weight == 0
    return max(
        np.maximum(np.abs(gradient[zero]) - lam, 0).max(initial=0),
        np.abs(gradient[~zero] - lam * np.sign(weight[~zero])).max(initial=0),
    )


DESIGNS = {
    "plain": {"runs": 600, "train": 80},
    "fewer runs than columns": {"runs": 120, "train": 300},
    "alpha .1": {"runs": 800, "train": 60, "alpha": 0.1},
    "alpha .9": {"runs": 800, "train": 60, "alpha": 0.9},
    "nearly no noise": {"runs": 400, "train": 50, "noise": 1e-3},
}


@pytest.mark.parametrize("name", DESIGNS)
def test_parity_with_scikit_learn(name):
    masks, outputs = problem(**DESIGNS[name])
    found = lasso_path(masks, outputs)
    assert float(found.kkt.max()) <= 1e-4
    for target in range(outputs.shape[1]):
        one = found.isel(target=target)
        lam = float(one.lam)
        reference = Lasso(alpha=lam / 2, tol=1e-13, max_iter=1_000_000).fit(
            masks.astype(float), outputs[:, target]
        )
        scale = np.linalg.norm(reference.coef_)
        assert np.linalg.norm(one.weight.values - reference.coef_) <= 1e-4 * scale
        assert abs(float(one.bias) - reference.intercept_) <= 1e-4 * max(scale, 1)
        violation = direct_violation(
            masks, outputs[:, target], one.weight.values.astype(float), float(one.bias), lam
        )
        assert violation <= 1e-4 * lam
        assert abs(violation / lam - float(one.kkt)) < 1e-6
        assert 0 <= float(one.gap) < 1e-6
        assert int(one.nonzeros) == np.count_nonzero(reference.coef_)


def test_path_and_holdout_errors_match_scikit_learn():
    masks, outputs = problem(500, 60, targets=1)
    apart = np.arange(500) % 7 == 0
    found = lasso_path(masks, outputs, holdout=apart, patience=0).isel(target=0)
    check_path(found, masks[~apart], outputs[~apart, 0], masks[apart], outputs[apart, 0])
    lams = found.lam_path.values
    assert np.isclose(lams[-1] / lams[0], 0.01)


def test_patience_leaves_the_path():
    masks, outputs = problem(300, 100, noise=3)
    found = lasso_path(masks, outputs, patience=5)
    full = lasso_path(masks, outputs, patience=0)
    assert np.isnan(found.holdout_mse.values).any()
    assert np.isfinite(full.holdout_mse.values).all()
    assert np.allclose(found.lam, full.lam)
    for target in range(3):
        curve = found.holdout_mse.values[target]
        tried = np.isfinite(curve).sum()
        assert tried == len(curve) or np.nanargmin(curve) == tried - 6


def test_hard_columns_and_constant_outputs():
    masks, outputs = problem(400, 40, targets=4)
    masks[:, 0], masks[:, 1], masks[:, 3] = False, True, masks[:, 2]
    outputs[:, 1] = 5.25
    outputs[:, 2] = np.random.default_rng(0).normal(size=400)
    found = lasso_path(masks, outputs)
    assert (found.weight.values[:, :2] == 0).all()
    assert found.status.values[1] == CONSTANT
    assert float(found.bias[1]) == 5.25
    assert float(found.lam[1]) == 0
    assert np.isnan(found.holdout_r2.values[1])
    assert not np.isnan(found.kkt.values).any()
    assert float(found.kkt.max()) <= 1e-4
    if found.status.values[2] == AT_START:
        assert int(found.nonzeros[2]) == 0


def test_a_share_may_be_a_number_of_numpy():
    masks, outputs = problem(100, 10)
    found = [lasso_path(masks, outputs, holdout=kind(0.25)) for kind in (float, np.float32)]
    assert found[0].identical(found[1])


@pytest.mark.parametrize(("offset", "scale"), [(1e6, 1.0), (0.0, 1e-8), (-3e4, 1e3)])
def test_weights_do_not_depend_on_offset_or_units(offset, scale):
    masks, outputs = problem(500, 60)
    plain = lasso_path(masks, outputs)
    moved = lasso_path(masks, outputs * scale + offset)
    assert np.allclose(moved.weight / scale, plain.weight, rtol=1e-3, atol=1e-4)
    assert np.allclose(moved.lam / scale, plain.lam, rtol=1e-5)


def test_dask_and_single_target_input():
    masks, outputs = problem(3000, 40, targets=1)
    plain = lasso_path(masks, outputs)
    lazy = lasso_path(
        da.from_array(masks, chunks=(700, 13)), da.from_array(outputs[:, 0], chunks=500)
    )
    assert np.array_equal(plain.weight, lazy.weight)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"masks": np.full((30, 4), 0.5)}, "0.5 in run 0, unit 0; expected True or 1"),
        ({"masks": np.full((30, 4), "a")}, "expected bool"),
        ({"masks": np.zeros(30)}, r"expected \(run, train\)"),
        ({"outputs": np.zeros(29)}, "masks of 30 runs and outputs of 29"),
        ({"outputs": np.full(30, np.nan)}, "nan in run 0, target 0; leave out"),
        ({"outputs": np.full(30, 1j)}, "expected real numbers"),
        ({"outputs": np.array(["a"] * 30)}, "expected real numbers"),
        ({"outputs": np.zeros((30, 0))}, "none of them empty"),
        ({"holdout": 0.0}, "holdout"),
        ({"holdout": 1.0}, "holdout"),
        ({"holdout": float("nan")}, "holdout"),
        ({"holdout": np.ones(29, bool)}, r"holdout bool \(29,\): expected a share"),
        ({"holdout": [1, 2, 3]}, r"holdout int64 \(3,\): expected a share"),
        ({"holdout": np.ones(30, bool)}, "holdout of 30 of 30 runs leaves no runs to fit on"),
        ({"lams": 0}, "2 lams or more"),
        ({"lam_ratio": -1.0}, "between 0 and 1"),
        ({"lam_ratio": float("nan")}, "between 0 and 1"),
        ({"lam_ratio": 1.0}, "50 lams that do not decrease"),
        ({"outputs": np.full(30, 1e31)}, "scale outputs to below 1e"),
        ({"tolerance": 0.0}, "between 0 and 1"),
        ({"masks": scipy.sparse.csr_array(np.eye(30))}, r"sparse matrix.*give masks.toarray\(\)"),
        ({"outputs": scipy.sparse.coo_array(np.eye(30))}, "sparse matrix"),
        ({"masks": [[True], [True, False]]}, "masks: .*give rows of equal length"),
        ({"outputs": [[1.0], [1.0, 2.0]]}, "outputs: .*give rows of equal length"),
        ({"masks": np.ma.masked_array(np.eye(30), np.eye(30))}, "masks: 30 values are masked"),
        ({"outputs": np.ma.masked_equal(np.arange(30.0), 3)}, "outputs: 1 values are masked"),
        (
            {"outputs": da.from_array(np.ma.masked_equal(np.arange(30.0), 3), asarray=False)},
            "outputs: 1 values are masked",
        ),
        (
            {"masks": da.from_array(np.ma.masked_array(np.eye(30), np.eye(30)), asarray=False)},
            "masks: 30 values are masked",
        ),
        ({"target_train": np.ma.masked_equal([3], 3)}, "target_train: 1 values are masked"),
        ({"holdout": np.ma.masked_equal(np.arange(30) > 20, True)}, "holdout: 9 values are masked"),
        ({"lam_grid": "1,2"}, "give a list of numbers"),
        ({"lam_grid": [1, "a"]}, "give a list of numbers"),
        ({"lam_grid": 0.5}, "give a list of numbers.*lam"),
        ({"lam_grid": [10**400]}, "give a list of numbers"),
        ({"lam_grid": [[0.1], [0.2, 0.3]]}, "give a list of numbers"),
        ({"lam": 10**400}, "lam: is too large"),
        ({"lam": "a"}, "lam 'a': give a number"),
        ({"lams": 10**9}, "10000 lams or fewer"),
        ({"sweeps": 2**40}, "2147483647 of the others"),
        ({"folds": 10**20}, "2147483647 of the others"),
        ({"folds": 10**8}, r"folds of \d+ different masks"),
        ({"holdout": "x"}, "holdout 'x': expected a share"),
        ({"holdout": None}, "holdout None: expected a share"),
        ({"random_state": -1}, "random_state -1: give a whole number"),
        ({"random_state": "seed"}, "random_state 'seed': give a whole number"),
        ({"random_state": 0.5}, "random_state 0.5"),
        ({"threads": -1}, "threads -1: give a whole number from 1"),
        ({"threads": "2"}, "threads '2'"),
        ({"halves": "no"}, "leave halves out"),
        ({"scratch": "/nope"}, "scratch /nope: no such directory"),
        ({"scratch": "/no\0pe"}, "no path holds a NUL"),
        ({"memory": "much"}, "no size of memory"),
    ],
)
def test_bad_arguments(change, words):
    draw = np.random.default_rng(0)
    good = {"masks": draw.random((30, 4)) < 0.5, "outputs": draw.normal(size=30)}
    with pytest.raises(InputError, match=words):
        lasso_path(**{**good, **change})


def test_certificate_sees_wrong_weights():
    masks, outputs = problem(300, 30, targets=1)
    found = lasso_path(masks, outputs).isel(target=0)
    design = make_design(bits.pack_runs(masks), 300)
    moments = make_moments(bits.pack_runs(masks), outputs, outputs.mean(axis=0))
    moment = moments.product[:, 0] / 300 - design.mean * moments.total[0] / 300
    weight = found.weight.values.astype(float)
    variance = float(outputs.var())

    def certify(w):
        return gradient.certify(
            design.gram, design.mean, moment, 300, variance, w, float(found.lam)
        )

    good, wrong = certify(weight), certify(weight * 1.01)
    assert good[0] < 1e-4 < wrong[0]
    assert good[1] < 1e-6 < wrong[1]
    missing = weight.copy()
    missing[np.argmax(np.abs(missing))] = 0
    assert certify(missing)[0] > 1e-2


@pytest.fixture
def fitted(tmp_path):
    """A study with planted linear outputs, 500 runs."""
    draw = np.random.default_rng(2)
    study = dmstore.create_study(
        tmp_path / "s",
        {"train_label": np.arange(40) % 2, "target_label": np.arange(300) % 2},
        seed=9,
    )
    algorithm = study.add_algorithm("a", runs=500)
    weight = draw.normal(size=(40, 300)) * (draw.random((40, 300)) < 0.2)
    ids = np.arange(500)
    masks = np.array([run.mask for run in algorithm.describe(ids)])
    margin = masks @ weight + draw.normal(size=(500, 300)) * 0.5
    columns = {"time": ids, "host": np.full(500, "h")}
    algorithm.table.append(
        algorithm.complete(Rows(ids, {"mask": masks, "margin": margin}, columns), "x")
    )
    return study, weight, masks, margin


def test_fit_uses_train_and_holdout_and_never_eval(fitted):
    study, weight, masks, margin = fitted
    done = fit(study, "a")
    split = study.runs("a").split.values
    used = split != "eval"
    assert done.document["runs"] == {
        name: int((split == name).sum()) for name in ("train", "holdout", "eval")
    }
    found = study.datamodels("a")
    assert found.weight.dims == ("target", "train")
    stored = margin.astype(np.float32)
    for target in (0, 150, 299):
        lam = float(found.lam[target])
        reference = Lasso(alpha=lam / 2, tol=1e-12, max_iter=100000).fit(
            masks[used].astype(float), stored[used, target].astype(float)
        )
        assert np.allclose(found.weight[target], reference.coef_, atol=1e-5)
    assert done.summary["worst_kkt"] <= 1e-4
    correlation = np.corrcoef(found.weight.values.ravel(), weight.T.ravel())[0, 1]
    assert correlation > 0.95


@pytest.mark.parametrize("outlier", [0.5, 1e30])
def test_eval_runs_change_no_bit_of_a_fit(study, tmp_path, outlier):
    study.add_algorithm("a", runs=200, outputs=["margin"])
    shutil.copytree(study.path, tmp_path / "other.dm")
    found = []
    for one in (study, dmstore.open_study(tmp_path / "other.dm")):
        algorithm = one.algorithm("a")
        rows = make_rows(algorithm, range(200))
        margin = rows.arrays["margin"].copy()
        if found:
            margin[algorithm.split(rows.columns["mask_id"]) == "eval"] += np.float32(outlier)
        algorithm.table.append(replace(rows, arrays={**rows.arrays, "margin": margin}))
        fit(one, "a")
        found.append(one.datamodels("a").load())
    assert all(
        found[0][name].identical(found[1][name]) for name in ("weight", "bias", "lam", "kkt")
    )


def test_halves_are_fits_of_disjoint_runs(fitted):
    study, _, masks, margin = fitted
    fit(study, "a")
    found = study.datamodels("a")
    algorithm = study.algorithm("a")
    mask_id = study.runs("a").mask_id.values
    used, quarter = study.runs("a").split.values != "eval", algorithm.quarter(mask_id)
    assert "weight_quarter" not in found
    for half in (0, 1):
        rows = used & (quarter // 2 == half)
        reference = Lasso(
            alpha=float(found.lam[7]) * np.sqrt(2) / 2, tol=1e-12, max_iter=100000
        ).fit(masks[rows].astype(float), margin.astype(np.float32)[rows, 7].astype(float))
        assert np.allclose(found.weight_half[half, 7], reference.coef_, atol=1e-4)


def test_interrupted_fit_goes_on(fitted, monkeypatch):
    study, *_ = fitted
    run, calls = dying(engine.stages.run, 2)
    monkeypatch.setattr(engine.stages, "run", run)
    with pytest.raises(KeyboardInterrupt):
        fit(study, "a")
    with pytest.raises(dmstore.errors.NotFoundError):
        study.datamodels("a")
    resumed = fit(study, "a")
    assert len(calls) == 3
    monkeypatch.undo()
    assert fit(study, "a").document == resumed.document
    whole = study.datamodels("a").load()
    assert whole.sizes["target"] == 300
    assert whole.target.values.tolist() == list(range(300))
    assert (whole.kkt <= 1e-4).all()


def test_fit_is_pinned_and_new_runs_make_a_new_fit(fitted):
    study, *_ = fitted
    first = fit(study, "a")
    before = study.datamodels("a", first.document["fit"]).weight.values
    algorithm = study.algorithm("a")
    algorithm.extend(20)
    algorithm.table.append(make_rows(algorithm, range(500, 520)))
    second = fit(study, "a")
    assert second.document["fit"] != first.document["fit"]
    assert second.document["content_id"] != first.document["content_id"]
    assert np.array_equal(study.datamodels("a", first.document["fit"]).weight.values, before)
    assert study.datamodels("a").attrs["fit"] == second.document["fit"]


def test_the_newest_fit_is_that_of_the_latest_moment(fitted):
    """Whether it is written in whole seconds, as before, or finer, and in whatever time zone."""
    study, *_ = fitted
    moments = {
        0: "",
        1: "some day",
        2: "2026-01-01T09:00:00.5+02:00",
        3: "2026-01-01T07:00:01+00:00",
        4: "2026-01-01T07:00:01.000001",
    }
    done = fit(study, "a").document
    (path,) = Path(study.path).glob("datamodels/a/*/")
    expected = []
    for number, moment in moments.items():
        name = f"{9 - number}" * 16
        shutil.copytree(path, path.with_name(name))
        document = {**done, "fit": name, "created": moment}
        (path.with_name(name) / "fit.json").write_text(json.dumps(document))
        expected.append(name)
    expected[:2] = sorted(expected[:2])
    shutil.rmtree(path)
    assert [f["fit"] for f in study.fits("a")] == expected
    assert study.datamodels("a").attrs["fit"] == expected[-1]


def test_vacuum_keeps_the_base_of_an_unfinished_fit(fitted, monkeypatch):
    from dmstore.upkeep.maintenance import compact, vacuum

    study, *_ = fitted
    monkeypatch.setattr(
        engine.stages, "run", lambda *a, **k: (_ for _ in ()).throw(KeyboardInterrupt)
    )
    with pytest.raises(KeyboardInterrupt):
        fit(study, "a")
    monkeypatch.undo()
    base = study.fits("a")[0]["base"]
    algorithm = study.algorithm("a")
    algorithm.extend(20)
    algorithm.table.append(make_rows(algorithm, range(500, 520)))
    compact(study)
    vacuum(study, grace=0)
    assert base in {f"base/{name}" for name in study.objects.children("algorithms/a/runs/base/")}


def test_a_fit_resumes_on_the_base_that_it_began_with(fitted, monkeypatch, tmp_path):
    """Also when the rows of the newest base stand in another order."""
    study, *_ = fitted
    shutil.copytree(study.path, tmp_path / "clean")
    clean = dmstore.open_study(tmp_path / "clean")
    fit(clean, "a")
    algorithm = study.algorithm("a")
    before = algorithm.table.view()
    again = Rows(before.run[:10], *_parts(before, 10))
    monkeypatch.setattr(
        engine.stages, "run", lambda *a, **k: (_ for _ in ()).throw(KeyboardInterrupt)
    )
    with pytest.raises(KeyboardInterrupt):
        fit(study, "a")
    monkeypatch.undo()
    retract_runs(algorithm, ["run=0-9"], reason="suspect")
    compact(algorithm.table)
    restore_runs(algorithm, ["run=0-9"], reason="it was fine")
    algorithm.table.append(again)
    done = fit(study, "a")
    compact(algorithm.table)
    assert algorithm.table.view().run[0] == 10
    assert done.document["base"] != algorithm.table.view().manifest.base.path
    found, expected = study.datamodels("a"), clean.datamodels("a")
    assert np.array_equal(found.lam, expected.lam)
    assert np.array_equal(found.weight, expected.weight)


def _parts(view, count):
    """Arrays and columns of the first rows of a view."""
    names = [spec.name for spec in view.table.spec.rows()]
    columns = [n for n in view.spec().arrays if n not in (*names, "run", "row_digest")]
    return view.read(names, 0, count), view.read(columns, 0, count)


def test_a_resumed_fit_checks_its_document(fitted, monkeypatch):
    study, *_ = fitted
    monkeypatch.setattr(
        engine.stages, "run", lambda *a, **k: (_ for _ in ()).throw(KeyboardInterrupt)
    )
    with pytest.raises(KeyboardInterrupt):
        fit(study, "a")
    monkeypatch.undo()
    (path,) = Path(study.path).glob("datamodels/a/*/fit.json")
    document = json.loads(path.read_text())
    document["runs"]["train"] += 1
    document["runs"]["eval"] -= 1
    path.write_text(json.dumps(document))
    with pytest.raises(CorruptionError, match="run the fit again"):
        fit(study, "a")


@pytest.mark.parametrize(
    ("name", "value"), [("parameters", {"lams": 3}), ("content_id", "0" * 64), ("output", "other")]
)
def test_a_fit_json_of_another_fit_is_refused(fitted, monkeypatch, name, value):
    study, *_ = fitted
    monkeypatch.setattr(
        engine.Fitting, "run", lambda self, blocks: (_ for _ in ()).throw(KeyboardInterrupt)
    )
    with pytest.raises(KeyboardInterrupt):
        fit(study, "a", lams=4, halves=False)
    monkeypatch.undo()
    path = max(Path(study.path).glob("datamodels/a/*/fit.json"), key=lambda p: p.stat().st_mtime)
    before = json.loads(path.read_text())
    changed = {**before, name: {**before[name], **value} if isinstance(value, dict) else value}
    path.write_text(json.dumps(changed))
    with pytest.raises(CorruptionError, match=rf"fit\.json: says {name} .* move its folder away"):
        fit(study, "a", lams=4, halves=False)
    assert json.loads(path.read_text()) == changed
    assert not (path.parent / "complete.json").exists()


def test_a_retraction_as_a_fit_begins_is_not_fitted_on(fitted, monkeypatch):
    study, *_ = fitted
    real, calls = fit_document.compact, []

    def late(table):
        calls.append(table)
        real(table)
        if len(calls) == 1:
            retract_runs(study.algorithm("a"), ["run=0-9"], reason="test")

    monkeypatch.setattr(fit_document, "compact", late)
    done = fit(study, "a")
    assert len(calls) == 2
    view = study.algorithm("a").table.view()
    assert sum(done.document["runs"].values()) == len(view) == 490
    assert done.document["content_id"] == view.content_id()
    # One that never ends is given up.
    number = iter(range(10, 100))

    def again(table):
        real(table)
        retract_runs(study.algorithm("a"), [f"run={next(number)}"], reason="test")

    monkeypatch.setattr(fit_document, "compact", again)
    with pytest.raises(IncompleteError, match="run it again"):
        fit(study, "a")


@pytest.mark.parametrize(
    ("output", "words"),
    [("prediction", "one float a target"), ("loss", "declares"), ("mask", "declares")],
)
def test_outputs_that_cannot_be_fitted(study, algorithm, output, words):
    algorithm.table.append(make_rows(algorithm, range(100)))
    with pytest.raises(InputError, match=words):
        fit(study, "alpha", output=output)


def test_too_few_runs(study, algorithm):
    algorithm.table.append(make_rows(algorithm, range(19)))
    with pytest.raises(InputError, match="at least 20"):
        fit(study, "alpha")


def test_parameters_are_checked():
    for wrong in ({"patience": -1}, {"halves": "no"}, {"halves": 1}, {"lam_grid": "12"}):
        with pytest.raises(InputError):
            Parameters(**wrong)


def test_a_unit_that_is_constant_in_a_half_gets_no_weight_there():
    """Few runs at a small alpha: a column may be constant within a half of them."""
    from dmstore.regression.problem.block import Designs, Outputs
    from dmstore.regression.solvers.lasso import fit_block

    draw = np.random.default_rng(0)
    masks = draw.random((80, 60)) < 0.08
    outputs = masks @ draw.normal(size=(60, 2)) + draw.normal(size=(80, 2)) * 0.1
    groups = [np.arange(80) % 2 == half for half in (0, 1)]
    shift = outputs.mean(axis=0)
    designs = [make_design(bits.pack_runs(masks[g]), int(g.sum())) for g in groups]
    moments = [make_moments(bits.pack_runs(masks[g]), outputs[g], shift) for g in groups]

    def total(parts):
        return functools.reduce(operator.add, parts)

    everything, said = total(designs), total(moments)
    result = fit_block(
        Designs(everything, designs[0], everything, tuple(designs)),
        Outputs(said, moments[0], said, shift, tuple(moments)),
        Parameters(),
    )
    constant = 0
    for half, group in enumerate(groups):
        still = masks[group].all(axis=0) | ~masks[group].any(axis=0)
        constant += still.sum()
        assert (result["weight_half"][half][:, still] == 0).all()
        for target in range(2):
            lam = result["lam"][target] * np.sqrt(2)
            reference = Lasso(alpha=lam / 2, tol=1e-12, max_iter=100000).fit(
                masks[group].astype(float), outputs[group, target]
            )
            # Few runs make equal columns, so weights are not unique; what they predict is.
            found = masks[group] @ result["weight_half"][half, target]
            assert np.allclose(
                found - found.mean(),
                reference.predict(masks[group]) - outputs[group, target].mean(),
                atol=1e-3,
            )
    assert constant > 0


def test_nearly_as_many_weights_as_runs_converge():
    """Flat problems, where coordinate descent alone takes forever, are certified too."""
    draw = np.random.default_rng(0)
    masks = np.array([draw.permutation(400) < 200 for _ in range(90)])
    outputs = masks @ (draw.standard_t(3, (400, 6)) * 0.3)
    found = lasso_path(masks, outputs, lam_ratio=1e-3, patience=0)
    assert int(found.nonzeros.max()) > 60
    assert float(found.kkt.max()) <= 1e-4
    assert (found.status != NOT_CONVERGED).all()


def test_labels_are_kept_and_dask_arrays_are_read_in_blocks(monkeypatch):
    import xarray as xr

    from dmstore.regression.fitting import array_fit

    masks, outputs = problem(300, 20, targets=7)
    labelled = lasso_path(
        xr.DataArray(masks, dims=("run", "train"), coords={"train": [f"u{n}" for n in range(20)]}),
        xr.DataArray(outputs, dims=("run", "target"), coords={"target": np.arange(7) + 100}),
    )
    assert labelled.target.values.tolist() == list(range(100, 107))
    assert labelled.train.values[3] == "u3"
    monkeypatch.setattr(array_fit, "TARGETS", 3)
    # No room for two Grams: a pass for each stage.
    monkeypatch.setattr(memory_plan, "available", lambda: 1)
    asked = []

    def block(values):
        asked.append(values.shape)
        return values

    lazy = da.from_array(outputs, chunks=(300, 3)).map_blocks(block, dtype=float, meta=outputs[:0])
    found = lasso_path(da.from_array(masks, chunks=(77, 20)), lazy)
    assert asked == [(300, 3), (300, 3), (300, 1)] * 2
    for name, values in lasso_path(masks, outputs).items():
        # Products with other targets beside them are rounded otherwise.
        assert np.allclose(found[name], values, rtol=1e-6, atol=1e-12, equal_nan=True), name
        assert np.allclose(labelled[name], values, rtol=1e-6, atol=1e-12, equal_nan=True), name


def test_peak_memory_is_that_of_the_process_alone():
    ballast = np.ones(40_000_000)
    code = "from dmstore.core.memory import peak; print(peak())"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert 1e7 < int(said.stdout) < ballast.nbytes


@pytest.mark.parametrize("patience", [1, 2, 5])
@pytest.mark.parametrize(
    "change",
    [{}, {"lams": 12}, {"lam_grid": [8.0, 3.0, 1.0, 0.9, 0.8, 0.1, 0.05, 0.045]}],
    ids=["path", "leaps", "grid"],
)
@pytest.mark.parametrize(("runs", "train"), [(900, 120), (150, 400)])
def test_a_path_that_is_left_says_what_a_whole_one_does(runs, train, change, patience):
    masks, outputs = problem(runs, train, targets=12)
    left = lasso_path(masks, outputs, patience=patience, **change)
    whole = lasso_path(masks, outputs, patience=0, **change)
    assert np.isfinite(whole.holdout_mse).all()
    there = np.isfinite(left.holdout_mse.values)
    assert there.any()
    assert not there.all() or (patience == 5 and "lam_grid" in change)
    ratio = left.holdout_mse.values / whole.holdout_mse.values
    assert np.allclose(ratio[there], 1, atol=2e-3)
    for target in range(12):
        errors = left.holdout_mse.values[target][there[target]]
        assert float(left.lam[target]) == float(left.lam_path[target, np.argmin(errors)])
        # It left because so many errors were larger than the smallest before them.
        larger = errors > np.minimum.accumulate(errors)
        last = larger[len(errors) - patience :]
        assert len(errors) == there.shape[1] or last.sum() == patience


def test_runs_are_put_in_one_order_and_numbers_are_taken():
    import xarray as xr

    masks, outputs = problem(300, 20, targets=2)
    plain = lasso_path(masks, outputs)
    label = {"run": np.arange(300) + 7}
    seen = xr.DataArray(masks, dims=("run", "train"), coords=label)
    said = xr.DataArray(outputs, dims=("run", "target"), coords=label)
    for one, other in (
        (seen, said[::-1]),
        (seen.T, said.T),
        (seen.astype(int), said),
        (da.from_array(masks.astype(float), chunks=(90, 20)), outputs),
    ):
        found = lasso_path(one, other)
        for name, values in plain.items():
            assert np.array_equal(found[name], values, equal_nan=True), name
    with pytest.raises(InputError, match="different labels along 'run'"):
        lasso_path(seen, said.assign_coords(run=np.arange(300)))
    held = xr.DataArray(np.arange(300) % 7 == 0, dims="run", coords=label)
    unit = xr.DataArray([-1, 4], dims="target", coords={"target": ["x", "y"]})
    plain = lasso_path(masks, outputs, holdout=held.values, target_train=unit.values)
    named = said.assign_coords(target=["x", "y"])
    found = lasso_path(seen, named[::-1], holdout=held[::-1], target_train=unit[::-1])
    for name, values in plain.items():
        assert np.array_equal(found[name], values, equal_nan=True), name
    with pytest.raises(InputError, match="holdout and masks have different labels along 'run'"):
        lasso_path(seen, said, holdout=held.assign_coords(run=np.arange(300)))


def test_layout_and_pandas_change_nothing_but_the_labels():
    import pandas as pd

    masks, outputs = problem(300, 20, targets=2)
    plain = lasso_path(masks, outputs)
    ids, names = [f"r{n}" for n in range(300)], [f"u{n}" for n in range(20)]
    seen = pd.DataFrame(masks, index=ids, columns=names)
    said = pd.DataFrame(outputs, index=ids, columns=["x", "y"])
    several = seen.set_axis(pd.MultiIndex.from_product([["a", "b"], range(10)]), axis=1)
    for one, other in (
        (np.asfortranarray(masks), np.asfortranarray(outputs)),
        (masks.tolist(), outputs.tolist()),
        (np.ma.masked_array(masks, False), np.ma.masked_array(outputs, False)),
        (seen, said),
        (seen, said[::-1]),
        (several, said),
        (seen.astype(int), outputs),
    ):
        result = lasso_path(one, other)
        for name, values in plain.items():
            assert np.array_equal(result[name], values, equal_nan=True), name
    labelled = lasso_path(seen, said)
    assert labelled.train.values.tolist() == names
    assert labelled.target.values.tolist() == ["x", "y"]
    single = lasso_path(
        seen, said["y"][::-1], holdout=pd.Series(np.arange(300) % 7 == 0, ids)[::-1]
    )
    alone = lasso_path(masks, outputs[:, 1], holdout=np.arange(300) % 7 == 0)
    assert np.array_equal(single.weight, alone.weight)
    with pytest.raises(InputError, match="different labels along 'run'"):
        lasso_path(seen, said.set_axis(range(300)))


def test_a_result_can_be_saved(tmp_path):
    found = lasso_path(*problem(60, 5, targets=2))
    found.to_netcdf(tmp_path / "found.nc", engine="scipy")
    assert found.attrs["tolerance"] == 1e-5
    assert "lam" not in found.attrs


def test_parameters_may_be_numbers_of_numpy():
    given = Parameters(
        lams=np.int64(20), folds=np.int8(3), tolerance=np.float64(1e-4), lam_ratio=1e-2
    )
    assert given == Parameters(lams=20, folds=3, tolerance=1e-4)
    assert json.loads(json.dumps(given.document()))["lams"] == 20
    for given, words in (({"lams": 20.5}, "lams 20.5"), ({"tolerance": "x"}, "tolerance 'x'")):
        with pytest.raises(InputError, match=f"{words}: give a"):
            Parameters(**given)
