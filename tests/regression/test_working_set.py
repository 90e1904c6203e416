"""Working sets in bounded memory: what does not fit is made again, and nothing else changes."""

import numba
import numpy as np
import pytest

from dmstore.core import bits
from dmstore.regression.kernels import descent, path, working_set
from dmstore.regression.problem.design import make_design
from dmstore.regression.problem.moments import make_moments
from dmstore.regression.problem.packing import padded
from dmstore.regression.problem.parameters import Parameters
from dmstore.regression.problem.thread_pool import Work
from dmstore.regression.solvers import lasso
from dmstore.regression.solvers.shared import SharedBlock, precisions

RUNS, TRAIN, TARGETS, HELD = 1500, 160, 3, 200


@numba.njit
def rows_of(source, steps, flat, place):
    """The covariance as rows are made of it, after it has grown in steps."""
    old, place[1], fits, part = 0, 0, True, source
    for new in steps:
        part = cut(source, new)
        fits = working_set.extend(part, old, new, flat, place)
        old = new
    found, spare = np.empty((old, old), flat.dtype), np.empty(old, flat.dtype)
    for a in range(old):
        near, far = working_set.row_of(part, flat, place, a, spare)
        found[a, : len(near)], found[a, len(near) :] = near, far
    return found, fits


def cut(source, new):
    raise NotImplementedError


@numba.extending.overload(cut)
def _cut(source, new):
    if len(source) == 5:
        return lambda source, new: (
            source[0],
            source[1][:new],
            source[2][:new],
            source[3],
            source[4],
        )
    return lambda source, new: (source[0][:new], source[1][:new], source[2], source[3])


@pytest.fixture(scope="module")
def masks():
    return np.random.default_rng(0).random((RUNS, TRAIN)) < np.linspace(0.1, 0.9, TRAIN)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("dtype", [np.int16, np.float32, np.float64])
def test_rows_are_the_same_in_any_memory(masks, dtype, packed):
    members = np.random.default_rng(1).permutation(TRAIN)
    unit = working_set.quantum_of(RUNS) if dtype == np.int16 else 1.0
    design = make_design(bits.pack_runs(masks), RUNS)
    if packed:
        source = padded(bits.pack_runs(masks))[members], design.mean[members], RUNS, unit
    else:
        source = design.gram, members, design.mean[members], RUNS, unit
    expected = np.cov(masks[:, members].T.astype(float), bias=True)
    np.fill_diagonal(expected, 0.0)
    steps = np.array([3, 40, 41, 99, TRAIN])
    first = None
    for side in (TRAIN, 99, 40, 17, 1):
        found, fits = rows_of(source, steps, np.empty(side**2, dtype), np.zeros(2, np.int64))
        assert fits
        atol = 0.6 * unit if unit < 1 else 1e-7
        assert np.allclose(found * unit, expected, rtol=0, atol=atol)
        first = found if first is None else first
        assert np.array_equal(found, first), side


def test_rows_of_another_length_are_moved(masks):
    """A thread's memory begins with rows as long as those of the target before."""
    design = make_design(bits.pack_runs(masks), RUNS)
    source = design.gram, np.arange(TRAIN), design.mean, RUNS, 1.0
    steps, place = np.array([5, 60, TRAIN]), np.zeros(2, np.int64)
    flat = np.empty(400**2, np.float64)
    first, _ = rows_of(source, steps, flat, place)
    for side in (place[0], 0, 7, 61, 300, 400):
        place[0] = side
        again, _ = rows_of(source, steps, flat, place)
        assert place[0] >= max(side, TRAIN)
        assert np.array_equal(first, again)


def test_large_systems_are_solved_as_small_ones(masks):
    """Beyond some weights by conjugate gradients, whatever memory holds of them."""
    design = make_design(bits.pack_runs(masks), RUNS)
    active = np.flatnonzero(np.random.default_rng(3).random(TRAIN) < 0.7)
    right = np.random.default_rng(4).normal(size=len(active))
    expected = np.linalg.solve(np.cov(masks[:, active].T.astype(float), bias=True), right)
    source = design.gram, np.arange(TRAIN), design.mean, RUNS, 1.0
    for side in (TRAIN, 30):
        flat, place = np.empty(side**2), np.zeros(2, np.int64)
        rows_of(source, np.array([TRAIN]), flat, place)
        for solve, tolerance in ((descent._eliminate, 1e-9), (descent._conjugate, 1e-3)):
            variance = design.mean - design.mean**2
            found = solve(source, flat, place, variance, active, right, np.empty(TRAIN))
            assert np.abs(found - expected).max() < tolerance * np.abs(expected).max(), solve


def problem(masks):
    draw = np.random.default_rng(2)
    weight = draw.normal(size=(masks.shape[1], TARGETS))
    outputs = masks @ (weight * (draw.random(weight.shape) < 0.5))
    outputs += draw.normal(size=outputs.shape)
    parts = []
    for rows in (slice(HELD, None), slice(0, HELD)):
        words = bits.pack_runs(masks[rows])
        parts += [
            make_design(words, len(masks[rows])),
            make_moments(words, outputs[rows], outputs.mean(axis=0)),
        ]
    designs = {(0,): parts[0], (1,): parts[2]}
    return SharedBlock(designs, [parts[1], parts[3]].__getitem__, outputs.mean(axis=0))


def fitted(given, patience, memory):
    parameters = Parameters(halves=False, patience=patience)
    found = lasso.choose(given, (0,), (1,), parameters, Work(2, memory=memory))
    lasso.refit(given, (0,), parameters, found, Work(2, memory=memory))
    return found


@pytest.mark.parametrize("patience", [5, 0])
def test_fits_are_the_same_in_any_memory(masks, patience):
    given = problem(masks)
    expected = fitted(given, patience, 1 << 30)
    assert (expected["nonzeros"] > 40).all()
    for memory in (2 * 8 * 90**2, 2 * 8 * 20**2, 16):
        found = fitted(given, patience, memory)
        for name, values in expected.items():
            assert np.array_equal(found[name], values, equal_nan=True), (name, memory)


def test_covariances_beyond_16_bits_are_kept_in_float32(masks):
    """Equal columns covary as much as one varies, which integers do not reach to."""
    twice = np.concatenate([masks, masks[:, :5]], axis=1)
    given = problem(twice)
    fitted_of, held_of = given.over((0,))(0), given.over((1,))(0)
    lams = Parameters().path(fitted_of.lam_max())
    held = path.Held(held_of._runs.design.words, held_of._said(), held_of.count)
    converged = []
    for kept, dtype, quantum in precisions(fitted_of.count):
        found = path.choose(
            fitted_of._fitted(),
            held,
            lams,
            path.Limits(4e-3, 500, 5),
            np.empty(50),
            path.Memory(*Work(memory=1 << 20).flat(kept, given.train), quantum),
            np.empty((2, 2 + path.ABREAST, given.train), dtype),
        )
        converged.append(found[-1])
    assert converged == [False, True, True]
    found = fitted(given, 5, 1 << 20)
    assert (found["kkt"] < 1e-4).all()
    assert (found["status"] != 4).all()
