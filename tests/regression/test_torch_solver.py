"""Solver ``torch`` against ``gram``: the same lam, weights and certificates, on hard designs too."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from designs import DESIGNS, make, statistics

from dmstore.errors import InputError
from dmstore.regression import lasso_path
from dmstore.regression.problem.block import Designs
from dmstore.regression.problem.block_arrays import NOT_CONVERGED
from dmstore.regression.problem.design import Design
from dmstore.regression.problem.parameters import Parameters
from dmstore.regression.solvers import lasso, shared, torch_design, torch_solver, torch_steps

no_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
DEVICES = ["cpu", pytest.param("cuda", marks=no_cuda)]


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch):
    monkeypatch.setenv("DMSTORE_DEVICE", "cpu")


def distance(found, expected):
    """Norm of the difference, relative to the norm: (…, target)."""
    size = np.linalg.norm(expected, axis=-1)
    return np.linalg.norm(found - expected, axis=-1) / np.where(size > 0, size, 1)


def check_equal(found, expected):
    """Whether what two solvers say of the same targets is the same within tolerance."""
    assert set(found) == set(expected)
    for name, values in expected.items():
        assert found[name].shape == values.shape
        assert found[name].dtype == values.dtype
    assert np.array_equal(found["lam_path"], expected["lam_path"], equal_nan=True)
    assert found["kkt"].max() <= 1e-4
    assert np.abs(found["gap"]).max() < 1e-6
    assert (found["status"] != NOT_CONVERGED).all()
    same = found["lam"] == expected["lam"]
    for target in np.flatnonzero(~same):
        curve = expected["holdout_mse"][target]
        chosen = np.flatnonzero(expected["lam_path"][target] == found["lam"][target])
        assert curve[chosen] <= (1 + 1e-6) * np.nanmin(curve)
    assert same.mean() >= 0.5
    assert np.array_equal(found["status"][same], expected["status"][same])
    for name in ("weight", "weight_half"):
        if name in expected:
            assert distance(found[name], expected[name])[..., same].max() <= 1e-4
    assert np.allclose(found["bias"][same], expected["bias"][same], rtol=1e-5, atol=1e-5)
    assert np.allclose(
        found["holdout_r2"][same], expected["holdout_r2"][same], atol=1e-3, equal_nan=True
    )


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", DESIGNS)
def test_equal_to_gram(name, device, monkeypatch):
    monkeypatch.setenv("DMSTORE_DEVICE", device)
    # The solvers stop at different points within the tolerance; on such designs that shows.
    for module in (shared, torch_solver):
        monkeypatch.setattr(module, "PATH_TOLERANCE", 1e-6)
    for module in (lasso, torch_solver):
        monkeypatch.setattr(module, "PARTS_TOLERANCE", 1e-7)
    masks, outputs = make(**DESIGNS[name])
    designs, said = statistics(masks, outputs)
    parameters = Parameters(tolerance=1e-7)
    expected = lasso.fit_block(designs, said, parameters)
    check_equal(torch_solver.fit_block(designs, said, parameters), expected)


def test_default_tolerances_give_the_same_choice():
    designs, said = statistics(*make(runs=900, train=120, targets=9))
    expected = lasso.fit_block(designs, said, Parameters())
    found = torch_solver.fit_block(designs, said, Parameters(), threads=2)
    assert np.array_equal(found["lam"], expected["lam"])
    assert distance(found["weight"], expected["weight"]).max() <= 1e-4
    assert np.array_equal(np.isnan(found["holdout_mse"]), np.isnan(expected["holdout_mse"]))


def test_plain_arrays():
    masks, outputs = make(runs=900, train=120, targets=9)
    expected = lasso_path(masks, outputs)
    found = lasso_path(masks, outputs, solver="torch", threads=2)
    assert found.attrs["solver"] == "torch"
    assert set(found.data_vars) == set(expected.data_vars)
    assert np.array_equal(found["lam"], expected["lam"])
    assert distance(found["weight"].values, expected["weight"].values).max() <= 1e-4
    assert (found["kkt"] <= 1e-4).all()


def test_equal_columns_share_what_they_predict():
    """Their weights are not unique; the sum is."""
    masks, outputs = make(runs=600, train=60, targets=4)
    masks[:, 30:] = masks[:, :30]
    designs, said = statistics(masks, outputs)
    expected = lasso.fit_block(designs, said, Parameters(halves=False))
    found = torch_solver.fit_block(designs, said, Parameters(halves=False))
    assert found["kkt"].max() <= 1e-4
    assert np.array_equal(found["lam"], expected["lam"])
    merged = [w["weight"][:, :30].astype(float) + w["weight"][:, 30:] for w in (found, expected)]
    assert distance(*merged).max() <= 1e-4


def test_units_in_all_runs_or_none_have_no_weight():
    masks, outputs = make(runs=600, train=40, targets=3)
    masks[:, 3], masks[:, 7] = True, False
    designs, said = statistics(masks, outputs)
    found = torch_solver.fit_block(designs, said, Parameters())
    for name in ("weight", "weight_half"):
        assert (found[name][..., [3, 7]] == 0).all()
        assert (found[name] != 0).any()


def test_nearly_as_many_weights_as_runs_converge():
    draw = np.random.default_rng(0)
    masks = np.array([draw.permutation(400) < 200 for _ in range(90)])
    outputs = masks @ (draw.standard_t(3, (400, 6)) * 0.3)
    designs, said = statistics(masks, outputs, parts=1)
    parameters = Parameters(lam_ratio=1e-3, patience=0, halves=False)
    found = torch_solver.fit_block(designs, said, parameters)
    assert found["nonzeros"].max() > 60
    assert found["kkt"].max() <= 1e-4
    assert (found["status"] != NOT_CONVERGED).all()


def test_constant_outputs_and_no_holdout_runs():
    masks, outputs = make(runs=300, train=30, targets=3)
    outputs[:, 1] = 5.25
    designs, said = statistics(masks, outputs, parts=1)
    parameters = Parameters(halves=False, lams=12)
    check_equal(
        torch_solver.fit_block(designs, said, parameters),
        lasso.fit_block(designs, said, parameters),
    )
    none, nothing = statistics(masks, outputs, parts=1, holdout=0.0)
    found = torch_solver.fit_block(none, nothing, parameters)
    expected = lasso.fit_block(none, nothing, parameters)
    assert np.array_equal(found["lam"], expected["lam"])
    assert np.array_equal(found["status"], expected["status"])
    assert distance(found["weight"], expected["weight"]).max() <= 1e-4


@pytest.mark.parametrize("kind", ["uint16", "memory map", "held on the device"])
def test_grams_of_other_kinds(kind, tmp_path, monkeypatch):
    masks, outputs = make(runs=500, train=70, targets=4)
    designs, said = statistics(masks, outputs, parts=1)
    parameters = Parameters(halves=False)
    expected = torch_solver.fit_block(designs, said, parameters)
    monkeypatch.setattr(torch_design, "SLAB", 8 * 70 * 16)

    def other(design, name):
        gram = design.gram
        if kind == "memory map":
            gram.tofile(tmp_path / name)
            gram = np.memmap(tmp_path / name, dtype=gram.dtype, mode="r", shape=gram.shape)
        else:
            # Counts beyond int16, where a sign would show.
            gram = gram.astype(np.uint16)
        return Design(design.runs, gram)

    if kind == "held on the device":
        real = torch_solver.Covariance
        monkeypatch.setattr(torch_solver, "Covariance", lambda d, v: real(d, v, hold=True))
    changed = Designs(
        *(other(getattr(designs, name), name) for name in ("train", "holdout", "everything"))
    )
    found = torch_solver.fit_block(changed, said, parameters)
    assert np.array_equal(found["lam"], expected["lam"])
    assert distance(found["weight"], expected["weight"]).max() <= 1e-6


def test_counts_beyond_int16():
    gram = np.array([[60000, 40000], [40000, 65535]], dtype=np.uint16)
    device = torch.device("cpu")
    both = torch.arange(2)
    for hold in (False, True):
        found = torch_design.Covariance(Design(65535, gram), device, hold=hold).exact(both, both)
        share = gram / 65535.0
        assert np.allclose(found, share - np.outer(np.diagonal(share), np.diagonal(share)))
    # What is held for a Gram goes with it.
    assert id(gram) in torch_design._held
    key = id(gram)
    del gram
    assert key not in torch_design._held


def test_a_working_set_that_does_not_fit_is_split(monkeypatch):
    designs, said = statistics(*make(runs=600, train=150, targets=8), parts=1)
    parameters = Parameters(halves=False)
    expected = torch_solver.fit_block(designs, said, parameters)
    sizes = []
    real = torch_steps.WorkingSet.add

    def add(self, wanted, targets):
        sizes.append(targets)
        real(self, wanted, targets)

    monkeypatch.setattr(torch_steps.WorkingSet, "add", add)
    monkeypatch.setattr(torch_solver, "room", lambda device: 4 * 60**2)
    found = torch_solver.fit_block(designs, said, parameters)
    assert max(sizes) == 8
    assert min(sizes) == 1
    assert (found["status"] == expected["status"]).all()
    assert distance(found["weight"], expected["weight"]).max() <= 1e-4


def test_too_few_steps_are_said():
    designs, said = statistics(*make(runs=400, train=60, targets=3))
    found = torch_solver.fit_block(designs, said, Parameters(sweeps=1, halves=False))
    assert (found["status"] == NOT_CONVERGED).all()


def test_cancelled_block_stops_at_once():
    designs, said = statistics(*make(runs=400, train=60, targets=3))
    asked = []

    def cancelled():
        asked.append(1)
        return len(asked) > 3

    found = torch_solver.fit_block(designs, said, Parameters(), cancelled=cancelled)
    assert len(asked) < 10
    assert (found["weight"] == 0).all()


@pytest.mark.parametrize("name", ["cuda:99", "tpu", "cpu:1", "cuda:x"])
def test_a_device_that_is_not_there(name, monkeypatch):
    monkeypatch.setenv("DMSTORE_DEVICE", name)
    with pytest.raises(InputError, match="no such device"):
        torch_solver.require()


def test_threads_of_torch_are_given_back():
    before = torch.get_num_threads()
    designs, said = statistics(*make(runs=200, train=20, targets=2))
    torch_solver.fit_block(designs, said, Parameters(), threads=before + 1)
    assert torch.get_num_threads() == before
