"""The registry of solvers, and the adapter to fast_l1 with a stand-in for the package."""

import importlib.machinery
import importlib.util
import json
import os
import signal
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from designs import make, statistics
from helpers import fill

from dmstore.errors import InputError, MissingDependencyError
from dmstore.regression.problem.block_arrays import CONSTANT, NOT_CONVERGED
from dmstore.regression.problem.parameters import Parameters
from dmstore.regression.solvers import lasso as gram
from dmstore.regression.solvers import registry


def test_gram_is_the_default_and_names_are_checked():
    assert Parameters().solver == "gram"
    assert registry.load("gram") is gram.fit_block
    with pytest.raises(InputError, match="gram, torch, fast_l1"):
        Parameters(solver="adelie")
    with pytest.raises(InputError, match="gram, torch, fast_l1"):
        registry.load("adelie")


@pytest.mark.parametrize("name", ["torch", "fast_l1"])
def test_without_torch_the_text_says_what_to_install(name, monkeypatch):
    for module in [m for m in sys.modules if m.startswith("dmstore.regression.solvers.torch_")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "torch", None)
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n: None if n == "torch" else real(n))
    with pytest.raises(MissingDependencyError, match=r"pip install 'dmstore\[torch\]'") as caught:
        registry.load(name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["gram", "torch"])
def test_rounding_of_sums_in_float32_is_not_fitted(name):
    """Outputs that change in holdout runs alone, and masks that never change."""
    if name == "torch":
        pytest.importorskip("torch")
    fit_block = registry.load(name)
    draw = np.random.default_rng(0)
    masks, apart = draw.random((1000, 50)) < 0.5, np.arange(1000) < 100
    saturated = np.full((1000, 2), 0.999, dtype=np.float32)
    saturated[[3, 50], [0, 1]] = 0.2, 0.4
    noise = draw.normal(size=(1000, 2)).astype(np.float32)
    for seen, said in ((masks, saturated), (np.ones_like(masks), noise)):
        found = fit_block(*statistics(seen, said, parts=1, apart=apart), Parameters(halves=False))
        assert (found["status"] == CONSTANT).all()
        assert not found["weight"].any()
        assert not found["sweeps"].any()
        assert np.allclose(found["bias"], said.mean(axis=0), atol=1e-6)


def lasso(z, y, lam, weight):
    """Minimise |y - zw|^2 / 2n + lam |w|_1 by coordinate descent; weight (unit, target)."""
    weight = weight.copy()
    gram, moment = z.T @ z / len(z), z.T @ y / len(z)
    for _ in range(3000):
        before = weight.copy()
        for j in range(len(weight)):
            left = moment[j] - gram[j] @ weight + gram[j, j] * weight[j]
            weight[j] = np.sign(left) * np.maximum(np.abs(left) - lam, 0) / gram[j, j]
        if np.abs(weight - before).max() < 1e-11:
            break
    return weight


def stand_in(torch, calls):
    """A ``fast_l1.regressor`` with the interface and the conventions of the package."""

    def train_saga(
        weight,
        bias,
        loader,
        val_loader,
        *,
        lr,
        start_lams,
        lam_decay,
        num_lambdas,
        early_stop_freq=2,
        early_stop_eps=1e-5,
        logdir=None,
        update_bias=True,
        min_lams_to_try=10,
    ):
        print("epoch: 0")
        rows = [(x.double().numpy(), y.double().numpy(), i) for x, y, i in loader]
        x, y = (np.concatenate([batch[part] for batch in rows]) for part in (0, 1))
        calls.append((x, y, start_lams, early_stop_eps, lr))
        mean, sd = x.mean(axis=0), x.std(axis=0)
        z, found = (x - mean) / sd, weight.double().numpy()
        lams = start_lams.double().numpy()
        best, lowest = lams.copy(), np.full(len(lams), np.inf)
        for _ in range(num_lambdas):
            found = lasso(z, y, lams, found)
            for v, w, _ in val_loader or []:
                error = ((w.double().numpy() - (v.double().numpy() - mean) / sd @ found) ** 2).mean(
                    axis=0
                )
                best = np.where(error <= lowest, lams, best)
                lowest = np.minimum(lowest, error)
            lams = lams * lam_decay
        weight[:] = torch.from_numpy(found)
        return torch.from_numpy(best).float()

    module = types.ModuleType("fast_l1.regressor")
    module.train_saga = train_saga
    return module


@pytest.fixture
def package(monkeypatch):
    """The adapter on the CPU, beside the stand-in; gives the calls of it."""
    torch = pytest.importorskip("torch")
    from dmstore.regression.solvers import fast_l1_solver

    calls = []
    for name, module in {
        "cupy": types.ModuleType("cupy"),
        "fast_l1": types.ModuleType("fast_l1"),
        "fast_l1.regressor": stand_in(torch, calls),
    }.items():
        module.__spec__ = importlib.machinery.ModuleSpec(name, None)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(fast_l1_solver, "DEVICE", "cpu")
    return calls


def equal_deviations(runs=320, train=24, targets=3):
    """Masks whose columns all have one deviation, in the train runs and in all of them."""
    masks, _ = make(runs, train, targets)
    apart = np.arange(runs) % 8 == 0
    draw = np.random.default_rng(5)
    for rows in (np.flatnonzero(apart), np.flatnonzero(~apart)):
        half = np.arange(len(rows)) < len(rows) // 2
        masks[rows] = np.array([draw.permutation(half) for _ in range(train)]).T
    weight = np.random.default_rng(1).standard_t(3, (train, targets))
    signal = masks @ weight
    return masks, signal + draw.normal(size=signal.shape) * signal.std(), apart


def test_results_are_in_raw_units_and_certified(package, capfd):
    from dmstore.regression.solvers import fast_l1_solver

    masks, outputs, apart = equal_deviations()
    masks = np.column_stack([masks, np.ones(len(masks), bool), np.zeros(len(masks), bool)])
    outputs[:, 1] = 2.5
    designs, said = statistics(masks, outputs, parts=1, apart=apart)
    parameters = Parameters(halves=False, lams=20, patience=0)
    expected = gram.fit_block(designs, said, parameters)
    found = registry.load("fast_l1")(designs, said, parameters)
    assert fast_l1_solver.DEVICE == "cpu"
    assert set(found) == set(expected)
    assert np.array_equal(found["lam"], expected["lam"])
    assert np.array_equal(found["status"], expected["status"])
    assert found["status"][1] == CONSTANT
    assert found["kkt"].max() <= 1e-4
    size = np.linalg.norm(expected["weight"], axis=1).clip(1e-9)
    assert (np.linalg.norm(found["weight"] - expected["weight"], axis=1) / size).max() <= 1e-4
    assert np.allclose(found["bias"], expected["bias"], atol=1e-3)
    assert np.allclose(found["holdout_r2"], expected["holdout_r2"], atol=1e-3, equal_nan=True)
    assert (found["weight"][:, -2:] == 0).all()
    # Nothing of what the package prints reaches standard output.
    assert capfd.readouterr() == ("", "")


def test_rows_have_the_moments_of_the_runs(package):
    masks, outputs = make(400, 30, 3)
    designs, said = statistics(masks, outputs, parts=1)
    registry.load("fast_l1")(designs, said, Parameters(halves=False, lams=3))
    x, y, start, *_ = package[0]
    train = designs.train
    covariance = train.gram / train.runs - np.outer(train.mean, train.mean)
    assert np.allclose(x.mean(axis=0), 0, atol=1e-6)
    assert np.allclose(x.T @ x / len(x), covariance, atol=1e-6)
    moment = said.train.product / train.runs - np.outer(train.mean, said.train.total / train.runs)
    assert np.allclose(x.T @ y / len(y), moment, atol=1e-5)
    # The path begins where all weights are 0: with the deviation, which the package leaves out.
    sd = np.sqrt(np.diagonal(covariance))
    assert np.allclose(start, np.abs(moment).max(axis=0) / np.sqrt((sd**2).mean()), rtol=1e-5)


def test_unequal_deviations_are_another_problem_and_said_to_be(package):
    masks, outputs = make(600, 30, 3, alpha=np.repeat([0.1, 0.5], 15))
    designs, said = statistics(masks, outputs)
    found = registry.load("fast_l1")(designs, said, Parameters(lams=10))
    assert (found["kkt"] > 1e-2).all()
    assert (found["status"] == NOT_CONVERGED).all()
    assert (found["weight_half"] != 0).any()


def test_an_unpenalised_choice_stands_at_the_end_of_the_path():
    pytest.importorskip("torch")
    from dmstore.regression.solvers.fast_l1_solver import position

    lams = np.geomspace(1, 0.01, 5)[None].repeat(3, axis=0)
    assert position(np.array([0.0, 1.0, 0.1001]), lams).tolist() == [4, 0, 2]


def test_epochs_end_and_ctrl_c_is_not_swallowed(package, monkeypatch):
    """The package returns what it has when it is interrupted: on purpose at the bound of epochs."""
    from dmstore.regression.solvers import fast_l1_solver

    passes = []

    def endless(weight, bias, loader, val_loader, **named):
        try:
            while True:
                passes.append(len(list(loader)))
        except KeyboardInterrupt:
            return named["start_lams"]

    monkeypatch.setattr(sys.modules["fast_l1.regressor"], "train_saga", endless)
    masks, outputs = make(200, 10, 2)
    designs, said = statistics(masks, outputs, parts=1)
    found = registry.load("fast_l1")(designs, said, Parameters(halves=False, lams=2, sweeps=5))
    assert 30 < len(passes) < 100
    assert (found["status"][found["kkt"] > 1e-4] == NOT_CONVERGED).all()

    def pressed(weight, bias, loader, val_loader, **named):
        try:
            os.kill(os.getpid(), signal.SIGINT)
            list(loader)
        except KeyboardInterrupt:
            return named["start_lams"]

    monkeypatch.setattr(sys.modules["fast_l1.regressor"], "train_saga", pressed)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        fast_l1_solver.fit_block(designs, said, Parameters(halves=False))
    assert signal.getsignal(signal.SIGINT) is before


def test_an_import_proves_no_device(package, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(MissingDependencyError, match=r"a CUDA device.*solver 'torch' needs no GPU"):
        registry.load("fast_l1")
    monkeypatch.delitem(sys.modules, "fast_l1.regressor")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(MissingDependencyError, match="cannot import the package"):
        registry.load("fast_l1")


def command(study, *arguments, code=0, **environment):
    """``dmstore fit`` as a user types it; stdout and stderr."""
    done = subprocess.run(
        [sys.executable, "-m", "dmstore", "fit", str(study.path), "alpha", "-Q", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )
    assert done.returncode == code, done.stderr
    return done.stdout, done.stderr


def test_the_solver_is_part_of_what_a_fit_is(study, algorithm):
    pytest.importorskip("torch")
    fill(algorithm, range(200))
    fits = [
        json.loads(command(study, "--solver", name, "--json", DMSTORE_DEVICE="cpu")[0])
        for name in ("gram", "torch", "torch")
    ]
    assert fits[0]["fit"] != fits[1]["fit"] == fits[2]["fit"]
    assert [fit["parameters"]["solver"] for fit in study.fits("alpha")] == ["gram", "torch"]
    first, second = (study.datamodels("alpha", fits[number]["fit"]).load() for number in (0, 1))
    assert np.array_equal(first.lam, second.lam)
    assert np.allclose(first.weight, second.weight, atol=1e-4 * float(abs(first.weight).max()))


def test_a_solver_that_is_not_there_writes_nothing(study, algorithm):
    fill(algorithm, range(100))
    before = sorted(Path(study.path).rglob("*"))
    _, said = command(study, "--solver", "fast_l1", code=1)
    assert "git+https://github.com/MadryLab/fast_l1" in said
    assert len(said.strip().splitlines()) == 1
    _, said = command(study, "--solver", "adelie", code=2)
    assert "'gram', 'torch', 'fast_l1'" in said
    if importlib.util.find_spec("torch"):
        _, said = command(study, "--solver", "torch", code=1, DMSTORE_DEVICE="cuda:99")
        assert "DMSTORE_DEVICE='cuda:99'" in said
    assert sorted(Path(study.path).rglob("*")) == before
