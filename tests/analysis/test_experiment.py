"""Runs as an experiment: against all masks there are, plain formulas, scipy and simulations."""

import itertools

import numpy as np
import pytest
from scipy import stats
from scipy.sparse import csr_array

from dmstore.analysis.experiment import inference
from dmstore.analysis.experiment.arms import arms_of
from dmstore.analysis.experiment.halves import Half, squares, studentised
from dmstore.analysis.experiment.measure import Proposal, measure
from dmstore.analysis.experiment.projections import (
    accumulate,
    dense_products,
    sketch,
    sparse_products,
)
from dmstore.core import bits
from dmstore.errors import InputError
from dmstore.regression.problem.packing import padded

# Every mask of 4 of 8 units, and every mask of 8 units: sums over them are what is expected.
OF_ONE_SIZE = np.array(
    [[i in chosen for i in range(8)] for chosen in itertools.combinations(range(8), 4)]
)
ALL = np.array(list(itertools.product([False, True], repeat=8)))
# Unit 0 is seen by three quarters of these, unit 1 by one quarter.
UNEQUAL = np.array(
    [[a or b, c and d, *rest] for a, b, c, d, *rest in itertools.product([False, True], repeat=10)]
)
TARGETS = 6


def in_both_halves(mask, said, **options):
    """Arms in either half of which each mask stands once."""
    half = np.repeat([0, 1], len(mask))
    return arms_of(np.concatenate([mask, mask]), np.concatenate([said, said]), half, **options)


def weights(seed, mean=0.5):
    return np.random.default_rng(seed).normal(mean, 1.0, (TARGETS, 8))


def fit_of(weight):
    return csr_array(weight.astype(np.float32))


def measured(arms, fits, direction, weight, groups=None, **options):
    """Both halves with the same fits and proposals."""
    proposal = Proposal(np.atleast_2d(direction), np.atleast_2d(weight))
    groups = np.ones((len(np.atleast_2d(weight)[0]), 1), dtype=bool) if groups is None else groups
    fits = tuple([one, one] if not isinstance(one, list) else one for one in fits)
    return measure(arms, fits, (proposal, proposal), groups, **options)


# Projections.


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("runs", [5, 700])
def test_products_of_packed_masks_are_numpys(runs, threads):
    draw = np.random.default_rng(runs)
    mask = draw.random((runs, 33)) < 0.4
    words = padded(bits.pack_runs(mask))
    weight = draw.normal(size=(7, 33)) * (draw.random((7, 33)) < 0.3)
    weight[2] = 0
    made = sparse_products(words, fit_of(weight), threads)
    assert np.allclose(made[:runs], mask @ weight.T, atol=1e-5)
    assert not made[runs:].any()
    columns = draw.normal(size=(33, 4)).astype(np.float32)
    assert np.allclose(dense_products(words, columns)[:runs], mask @ columns, atol=1e-5)


def test_dense_products_go_through_words_in_parts(monkeypatch):
    from dmstore.analysis.experiment import projections

    draw = np.random.default_rng(0)
    mask = draw.random((2000, 9)) < 0.4
    columns = draw.normal(size=(9, 2)).astype(np.float32)
    monkeypatch.setattr(projections, "_PANEL", (5, 4))
    made = dense_products(padded(bits.pack_runs(mask)), columns)
    assert np.allclose(made[:2000], mask @ columns, atol=1e-5)


@pytest.mark.parametrize("rows", [0, 1, 6])
def test_a_product_is_added_in_place(rows):
    draw = np.random.default_rng(rows)
    left, right, into = (
        draw.normal(size=shape).astype(np.float32) for shape in ((rows, 5), (5, 70), (rows, 70))
    )
    wanted = into + left @ right
    accumulate(left, right, into)
    assert np.allclose(into, wanted, atol=1e-5)


def test_a_sketch_keeps_inner_products():
    assert sketch(1024, 512) is None
    once = sketch(3000, 64, 1)
    assert once.shape == (3000, 64)
    assert (once != sketch(3000, 64, 1)).nnz == 0
    assert (once != sketch(3000, 64, 2)).nnz > 0
    # A length is kept but for what two units have in common: each alone is exact.
    assert np.allclose((once.multiply(once)).sum(axis=1), 1)


@pytest.mark.parametrize("peaky", [False, True])
def test_inner_products_on_a_sketch_are_unbiased_and_cosines_as_near_as_said(peaky):
    draw = np.random.default_rng(0)
    base, other = draw.normal(size=(2, 3000))
    if peaky:
        # Nearly all of either vector's length is in a few units, which are largely the same.
        base *= np.where(np.arange(3000) < 12, 1.0, 0.01)
        other *= np.where(np.arange(3000) % 300 < 6, 1.0, 0.01)
    base /= np.linalg.norm(base)
    other -= base * (base @ other)
    other /= np.linalg.norm(other)
    near = 0.6 * base + 0.8 * other
    drawn = [sketch(3000, 64, seed) for seed in range(400)]
    left, right = (np.array([one @ columns for columns in drawn]) for one in (base, near))
    inner, cosine = (left * right).sum(axis=1), np.empty(400)
    cosine = inner / np.linalg.norm(left, axis=1) / np.linalg.norm(right, axis=1)
    # Var = (|x|^2 |y|^2 + (x.y)^2 - 2 sum of x^2 y^2) / size, as of dense signs.
    variance = (1 + 0.36 - 2 * (base**2 * near**2).sum()) / 64
    assert abs(inner.mean() - 0.6) < 4 * np.sqrt(variance / 400)
    assert inner.var() == pytest.approx(variance, rel=0.25)
    # (1 - .36) / sqrt(64) = .08; less where vectors have few units.
    assert abs(cosine.mean() - 0.6) < 0.02
    assert cosine.std() == pytest.approx(0.08, rel=0.15) if not peaky else cosine.std() < 0.088


# What a half says, over all masks there are.


def as_masks_see(mask, f, u):
    """f . u as these masks see it: for masks of one size a unit stands in the place of another."""
    f, u = np.asarray(f, dtype=np.float64), np.asarray(u, dtype=np.float64)
    if mask is not OF_ONE_SIZE:
        return (f * u).sum(axis=-1)
    return 8 / 7 * ((f - f.mean(axis=-1, keepdims=True)) * u).sum(axis=-1)


@pytest.mark.parametrize("mask", [OF_ONE_SIZE, ALL, UNEQUAL], ids=["one size", "all", "unequal"])
@pytest.mark.parametrize("fitted", [False, True])
@pytest.mark.parametrize("columned", [False, True])
def test_coordinates_are_exact_for_any_fit(mask, fitted, columned):
    theta = [weights(1), weights(2)]
    f = [weights(3).astype(np.float32), weights(4).astype(np.float32)]
    if not fitted:
        # Not quite nothing, so that there is a reference.
        f = [1e-6 * one for one in f]
    arms = [in_both_halves(mask, mask @ one.T + 7.0) for one in theta]
    draw = np.random.default_rng(5)
    direction = draw.normal(size=(3, 8))
    columns = fit_of(draw.normal(size=(8, 5))) if columned else None
    half = Half((arms[0][0], arms[1][0]), columns, direction)
    half.load(slice(0, TARGETS), [fit_of(one) for one in f])
    unit = [one / np.linalg.norm(one, axis=1, keepdims=True) for one in f]
    # B's turned where it points away from A's.
    unit[1] *= np.where((unit[0] * unit[1]).sum(axis=1) < 0, -1, 1)[:, None]
    v = unit[0] + unit[1]
    v /= np.linalg.norm(v, axis=1, keepdims=True)
    # A covariance of a sample is taken over one less than all.
    more = len(mask) / (len(mask) - 1)

    def expected(i, u):
        return more * as_masks_see(mask, theta[i] - f[i], u) + as_masks_see(mask, f[i], u)

    on = np.eye(8) if columns is None else columns.toarray().T
    for i in (0, 1):
        for k, u in enumerate(direction):
            assert np.allclose(half.along[i][:, k], expected(i, u), atol=2e-4)
        for k, u in enumerate(on):
            assert np.allclose(half.sketch[i][:, k], expected(i, u), atol=2e-4)
        assert np.allclose(half.reference[i], expected(i, v), atol=2e-4)
        assert np.allclose(half.apart[i], expected(i, unit[0] - unit[1]), atol=2e-4)
    assert np.allclose(half.inverse, 1 / np.prod([np.linalg.norm(x, axis=1) for x in f], axis=0))


def test_how_far_masks_have_one_size_is_counted():
    assert in_both_halves(OF_ONE_SIZE, np.zeros((70, 1)))[0].fixed == 1
    assert in_both_halves(ALL, np.zeros((256, 1)))[0].fixed == 0
    draw = np.random.default_rng(0)
    fixed = [
        in_both_halves(draw.random((400, 30)) < 0.3, np.zeros((400, 1)))[0].fixed for _ in range(20)
    ]
    assert np.mean(fixed) < 0.05


# What is made of both halves.


def test_similarity_is_exact_where_fits_are():
    theta = [weights(1), weights(2)]
    theta[1][0] = 3 * theta[0][0]
    theta[1][1] = -2 * theta[0][1]
    centred = [one - one.mean(axis=1, keepdims=True) for one in theta]
    length = [np.linalg.norm(one, axis=1) for one in centred]
    true = (centred[0] * centred[1]).sum(axis=1) / length[0] / length[1]
    arms = tuple(in_both_halves(OF_ONE_SIZE, OF_ONE_SIZE @ one.T) for one in theta)
    groups = np.stack([np.ones(TARGETS), np.arange(TARGETS) < 2, np.arange(TARGETS) >= 2], axis=1)
    fits = tuple(fit_of(one) for one in theta)
    made = measured(arms, fits, np.eye(8)[:1], np.ones(TARGETS), groups > 0).similarity
    assert np.allclose(made.cosine, true, atol=1e-5)
    assert true[:2] == pytest.approx([1, -1])
    assert np.allclose(made.square, [(8 / 7 * one) ** 2 for one in length], rtol=1e-4)
    assert np.allclose(made.inner, true * np.sqrt(made.square.prod(axis=0)), atol=1e-3)
    assert np.allclose(made.group, [true.mean(), 0, true[2:].mean()], atol=1e-5)
    assert (made.error < 1e-4).all()


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("mask", [OF_ONE_SIZE, ALL], ids=["one size", "all"])
def test_equal_up_to_a_scale_of_each_target_is_no_difference(mask, shared):
    a, near = weights(1), weights(3)
    scale = np.geomspace(0.01, 100, TARGETS)[:, None]
    theta, f = (a, scale * a), (near, scale * near)
    ids = np.arange(2 * len(mask))
    arms = tuple(
        in_both_halves(mask, mask @ one.T, mask_id=ids + (0 if shared else i * 10**6))
        for i, one in enumerate(theta)
    )
    draw = np.random.default_rng(5)
    made = measured(
        arms, tuple(map(fit_of, f)), draw.normal(size=(4, 8)), draw.normal(size=(4, TARGETS))
    )
    for one in made.directions:
        assert np.abs(one.z).max() < 0.02
        assert (one.error > 0).all()


def test_a_copy_is_no_difference():
    """Where A and B say the same on the same masks, nothing is left but rounding, which is no evidence."""
    mask, said, fits, direction, weight = noisy_pair()
    half = np.arange(len(mask)) % 2
    for scale in (1.0, 3.0):
        pair = (said[0], np.float32(scale) * said[0].astype(np.float32))
        arms = tuple(arms_of(mask, one, half, rate=0.5) for one in pair)
        made = measured(arms, (fit_of(fits[0]), fit_of(scale * fits[0])), direction, weight)
        for z in (made.target_z, made.group_z, made.directions[0].z):
            assert (np.abs(z[np.isfinite(z)]) < 0.5).all()


def test_other_features_have_positive_determinants():
    a, b = weights(1), weights(2)
    arms = tuple(
        in_both_halves(ALL, ALL @ one.T, mask_id=i * 10**6 + np.arange(512))
        for i, one in enumerate((a, b))
    )
    off = [fit_of(one + 0.1 * weights(3)) for one in (a, b)]
    made = measured(arms, tuple(off), np.eye(8)[:1], np.ones(TARGETS))
    assert (made.target_z > 3).all()
    assert (made.group_z > 3).all()
    again = measured(arms[::-1], tuple(off[::-1]), np.eye(8)[:1], np.ones(TARGETS))
    assert np.allclose(again.target_z, made.target_z, rtol=1e-3)


def test_a_direction_that_a_alone_uses_is_as_long_as_it_is():
    """Along a unit vector that B's datamodels do not know: energy, effect and difference have their values."""
    a, b = weights(1, 0.0), weights(2, 0.0)
    b[:, 0] = 0
    arms = tuple(in_both_halves(ALL, ALL @ one.T) for one in (a, b))
    made = measured(arms, (fit_of(a), fit_of(b)), np.eye(8)[0], np.sign(a[:, 0])).directions[0]
    unit = [one / np.linalg.norm(one, axis=1, keepdims=True) for one in (a, b)]
    assert np.allclose(made.energy[:, 0], [(unit[0][:, 0] ** 2).mean(), 0], atol=1e-5)
    assert np.allclose(made.effect[:, 0], [np.abs(unit[0][:, 0]).mean(), 0], atol=1e-5)
    # B's turned where it points away from A's.
    turned = [unit[0], unit[1] * np.where((unit[0] * unit[1]).sum(axis=1) < 0, -1, 1)[:, None]]
    v = turned[0] + turned[1]
    v /= np.linalg.norm(v, axis=1, keepdims=True)
    p, q = ((one * v).sum(axis=1) for one in turned)
    difference = (np.abs(unit[0][:, 0]) * q).sum() / (p * q).sum()
    assert made.statistic[0] * made.scale[0] == pytest.approx(difference, abs=1e-4)


def noisy_pair(seed=0, runs=240, train=20, targets=9):
    draw = np.random.default_rng(seed)
    theta = [draw.normal(size=(targets, train)) for _ in range(2)]
    mask = draw.random((runs, train)).argsort(axis=1) < train // 2
    said = [mask @ one.T + draw.normal(size=(runs, targets)) for one in theta]
    fits = [one + 0.2 * draw.normal(size=one.shape) for one in theta]
    direction, weight = draw.normal(size=(2, train)), draw.normal(size=(2, targets))
    return mask, said, fits, direction, weight


def numbers(made):
    s = made.similarity
    return {
        "z": np.array([one.z for one in made.directions]),
        "difference": np.array([one.statistic * one.scale for one in made.directions]),
        "energy": np.array([one.energy for one in made.directions]),
        "target": made.target_z,
        "group": made.group_z,
        "cosine": s.cosine,
        "error": s.error,
        "of groups": np.stack([s.group, s.group_error]),
    }


@pytest.mark.parametrize(
    "kind", ["scales", "offsets", "order", "own sets", "own sets, order", "blocks", "threads"]
)
def test_what_says_nothing_of_algorithms_changes_nothing(kind, monkeypatch):
    mask, said, fits, direction, weight = noisy_pair()
    half, ids = np.arange(len(mask)) % 2, np.arange(len(mask)) + 5
    rate = 0.5
    draw = np.random.default_rng(9)

    def made(said, fits, order=(None, None), own=False, **options):
        arms = []
        for one, places in zip(said, order, strict=True):
            places = np.arange(len(mask)) if places is None else places
            sets = (arms[0][0].masks, arms[0][1].masks) if arms and not own else None
            arms.append(
                arms_of(
                    mask[places],
                    one[places],
                    half[places],
                    mask_id=ids[places],
                    rate=rate,
                    masks=sets,
                )
            )
        return numbers(
            measured(tuple(arms), tuple(map(fit_of, fits)), direction, weight, **options)
        )

    expected = made(said, fits)
    again = {
        "scales": lambda: made(
            [said[0], said[1] * np.geomspace(0.01, 100, 9)],
            [fits[0], fits[1] * np.geomspace(0.01, 100, 9)[:, None]],
        ),
        "offsets": lambda: made([said[0] + 1e6, said[1] - 1e6], fits),
        "order": lambda: made(said, fits, (p := draw.permutation(len(mask)), p)),
        "own sets": lambda: made(said, fits, own=True),
        "own sets, order": lambda: made(
            said, fits, (draw.permutation(len(mask)), draw.permutation(len(mask))), own=True
        ),
        "blocks": lambda: made(said, fits),
        "threads": lambda: made(said, fits, threads=2),
    }[kind]
    if kind == "blocks":
        from dmstore.analysis.experiment import measure as module

        monkeypatch.setattr(module, "_BLOCK", 4)
    for key, value in again().items():
        assert np.allclose(value, expected[key], rtol=1e-3, atol=1e-4), key


def test_shared_masks_are_known_by_their_ids():
    """Noise that A and B have in common on a mask cancels; on masks of their own it adds up."""
    mask, _, fits, direction, weight = noisy_pair()
    noise = np.random.default_rng(3).normal(size=(len(mask), 9)) * 5
    said, half = mask @ fits[0].T + noise, np.arange(len(mask)) % 2

    def error(far):
        arms = tuple(
            arms_of(mask, said, half, mask_id=np.arange(len(mask)) + i * far, rate=0.5)
            for i in (0, 1)
        )
        made = measured(arms, (fit_of(fits[0]),) * 2, direction, weight)
        return made.directions[0].error

    assert (error(0) < 0.011 * error(10**6)).all()


# Errors of sums over masks.


def test_squares_are_the_variance_of_a_mean():
    draw = np.random.default_rng(0)
    x, y = draw.exponential(size=(2, 50, 3))
    y += x
    a, b = ((one - one.mean(axis=0)).T / 50 for one in (x, y))
    used = np.ones(50, dtype=bool)
    none = np.zeros(0, dtype=np.int64)
    assert np.allclose(squares([a], None, [used]), x.var(axis=0, ddof=1) / 50)
    apart = squares([a, -b], (none, none), [used, used])
    assert np.allclose(apart, (x.var(axis=0, ddof=1) + y.var(axis=0, ddof=1)) / 50)
    # The jackknife of a difference of means: each mask left out once.
    every = np.arange(50)
    left = [
        np.delete(x, r, axis=0).mean(axis=0) - np.delete(y, r, axis=0).mean(axis=0) for r in every
    ]
    paired = squares([a, -b], (every, every), [used, used])
    assert np.allclose(paired, 49 * np.var(left, axis=0))
    # In another order, among bits that stand for nothing.
    order = draw.permutation(50)
    wide = np.concatenate([-b[:, order], np.zeros((3, 14))], axis=1)
    there = np.arange(64) < 50
    assert np.allclose(squares([a, wide], (order, every), [used, there]), paired)
    # What says the same under both cancels, but for what rounding may be.
    same = squares([a, -a], (every, every), [used, used])
    assert np.allclose(same, 2e-4 * x.var(axis=0, ddof=1) / 50)


def z_of_means(samples):
    """Sums over masks of one algorithm, one study a column."""
    n = len(samples)
    value = samples.mean(axis=0)
    used = [np.ones(n, dtype=bool), np.zeros(n, dtype=bool)]
    none = np.zeros(0, dtype=np.int64)
    influence = [(samples - value).T / n, np.zeros(samples.T.shape)]
    return value, *studentised(value, influence, (none, none), used)


def test_z_of_a_normal_mean_is_students():
    samples = np.random.default_rng(0).normal(0.2, 1.0, (400, 300))
    value, error, z = z_of_means(samples)
    assert np.allclose(error, stats.sem(samples, axis=0))
    expected = stats.norm.ppf(stats.t.cdf(value / error, 399))
    assert np.abs(z - expected).max() < 0.35
    assert np.abs(z - expected).mean() < 0.06
    assert stats.kstest(z - 0.2 * 20, "norm").pvalue > 0.01


def test_skewness_is_taken_out():
    samples = np.random.default_rng(1).exponential(size=(60, 20_000)) - 1
    value, error, z = z_of_means(samples)
    plain = stats.norm.ppf(stats.t.cdf(value / error, 59))
    rates = [[(sign * one > 1.96).mean() for sign in (-1, 1)] for one in (plain, z)]
    # Of 2.5 % on either side.
    assert rates[0][0] > 0.045
    assert rates[0][1] < 0.013
    assert np.allclose(rates[1], 0.025, atol=0.007)


def test_few_masks_with_long_tails_do_not_claim():
    draw = np.random.default_rng(2)
    samples = draw.normal(size=(30, 20_000)) * draw.normal(size=(30, 20_000))
    _, _, z = z_of_means(samples)
    assert (z > 1.645).mean() == pytest.approx(0.05, abs=0.014)
    assert (z > 3).mean() < 0.0025


def test_what_does_not_vary_has_no_z():
    _, error, z = z_of_means(np.ones((20, 2)))
    assert (error == 0).all()
    assert np.isnan(z).all()


# Similarity under noise.


def ridge(mask, said, by):
    seen = mask - mask.mean(axis=0)
    gram = seen.T @ seen + by * np.eye(mask.shape[1])
    return np.linalg.solve(gram, seen.T @ (said - said.mean(axis=0))).T


def similarities(cosine, shrunk=20.0, studies=80, runs=160, train=24, targets=20):
    """Of A with little noise and B with much: cosines of targets, and of all, over studies."""
    draw = np.random.default_rng(int(100 * cosine))
    kept = []
    for _ in range(studies):
        a, other = draw.normal(size=(2, targets, train))
        a -= a.mean(axis=1, keepdims=True)
        other -= other.mean(axis=1, keepdims=True)
        other -= a * ((a * other).sum(axis=1) / (a * a).sum(axis=1))[:, None]
        other *= (np.linalg.norm(a, axis=1) / np.linalg.norm(other, axis=1))[:, None]
        b = 3 * (cosine * a + np.sqrt(1 - cosine**2) * other)
        mask = draw.random((runs, train)).argsort(axis=1) < train // 2
        half = np.arange(runs) % 2
        arms, fits = [], []
        for theta, noise in ((a, 1.0), (b, 6.0)):
            said = mask @ theta.T + noise * draw.normal(size=(runs, targets))
            arms.append(arms_of(mask, said, half, rate=0.5))
            # What finds may be anything: heavily shrunk here.
            fits.append([fit_of(ridge(mask[half == h], said[half == h], shrunk)) for h in (0, 1)])
        made = measured(tuple(arms), tuple(fits), np.eye(train)[:1], np.ones(targets)).similarity
        strong = made.cosine[np.isfinite(made.cosine)]
        mean = strong.mean() if len(strong) else np.nan
        kept.append((mean, made.group[0], made.group_error[0]))
    return np.array(kept).T


# Fits that say next to nothing leave A and B what they have in common: misfit on the same masks.
@pytest.mark.parametrize(("cosine", "shrunk"), [(0.6, 20.0), (1.0, 20.0), (1.0, 1e6)])
def test_similarity_without_noise_is_not_moved_by_noise(cosine, shrunk):
    targets, group, error = similarities(cosine, shrunk)
    assert np.mean(group) == pytest.approx(cosine, abs=0.012)
    # Without a fit to take off, no target is strong enough to be measured by itself.
    known = targets[np.isfinite(targets)]
    assert len(known) == (0 if shrunk > 1e3 else len(targets))
    assert not len(known) or known.mean() == pytest.approx(cosine, abs=0.03)
    inside = np.abs(group - cosine) < 1.96 * error
    assert inside.mean() >= 0.88
    assert 0.8 < np.mean(error) / np.std(group) < 1.35


def test_targets_that_are_too_weak_are_not_measured():
    mask, said, fits, direction, weight = noisy_pair()
    draw = np.random.default_rng(4)
    said[1][:, 3] = draw.normal(size=len(mask))
    fits[1][3] = 0
    said[0][:, 5] = 2.0
    fits[0][5] = 0
    arms = tuple(arms_of(mask, one, np.arange(len(mask)) % 2, rate=0.5) for one in said)
    made = measured(arms, tuple(map(fit_of, fits)), direction, weight)
    assert np.flatnonzero(np.isnan(made.similarity.cosine)).tolist() == [3, 5]
    assert np.flatnonzero(np.isnan(made.similarity.error)).tolist() == [3, 5]
    assert np.isfinite(made.similarity.group).all()
    assert np.isfinite(made.group_z).all()
    assert np.isfinite(made.directions[0].z).all()


# From estimates to claims.


def weighted_claims(families, level):
    """Benjamini and Hochberg's procedure, each p-value over its family's share of the hypotheses, by its definition."""
    total, there = sum(map(len, families)), sum(len(p) > 0 for p in families)
    all_p = np.concatenate([p / (total / there / max(len(p), 1)) for p in families])
    most = max(
        (k for k in range(1, total + 1) if (all_p <= level * k / total).sum() >= k), default=0
    )
    return all_p <= level * most / total if most else np.zeros(total, dtype=bool)


@pytest.mark.parametrize("sizes", [(12,), (7, 7), (3, 40), (5, 0, 9)])
def test_discovery_rates(sizes):
    draw = np.random.default_rng(sum(sizes))
    families = [draw.random(size) ** 3 for size in sizes]
    made = inference.discovery_rates(families)
    assert [len(one) for one in made] == list(sizes)
    whole = np.concatenate(made)
    if len(set(sizes)) == 1:
        assert np.allclose(whole, stats.false_discovery_control(np.concatenate(families)))
    for level in np.linspace(0.013, 0.977, 30):
        assert ((whole <= level) == weighted_claims(families, level)).all()


def test_many_groups_cost_few_directions_no_more_than_as_many_directions():
    one, many = inference.discovery_rates([np.array([0.002, *[1.0] * 9]), np.ones(1000)])
    assert one[0] == pytest.approx(2 * 10 * 0.002)
    assert (many == 1).all()
    assert inference.discovery_rates([np.zeros(0), np.zeros(0)])[0].shape == (0,)


def test_either_half_and_mean_of_halves():
    z = np.array([[3.0, np.nan, np.nan, -2.0], [1.0, 2.0, np.nan, -3.0]])
    p = stats.norm.sf
    assert inference.either_half(z) == pytest.approx([2 * p(3), p(2), 1, 1])
    assert inference.mean_of_halves(z) == pytest.approx([p(2), 1, 1, p(-2.5)])


def test_directions_are_matched_by_what_they_do_to_targets():
    draw = np.random.default_rng(0)
    whole = draw.normal(size=(5, 40))
    order = np.array([3, 0, 4, 2, 1])
    half = np.empty((5, 40))
    # Signs and scales are nobody's business, nor are constants.
    half[order] = whole * np.array([1, -2, 3, -1, 0.5])[:, None] + 4
    half += 0.1 * draw.normal(size=half.shape)
    whole[:, 7] = np.nan
    place, like = inference.matched(whole, half)
    assert place.tolist() == order.tolist()
    assert (like > 0.6).all()
    place, like = inference.matched(whole, half[[3, 2]])
    assert place.tolist() == [0, -1, -1, 1, -1]
    assert np.isnan(like[[1, 2, 4]]).all()


def test_half_of_too_few_masks_is_refused():
    from dmstore.analysis.experiment.arms import check_enough

    mask = OF_ONE_SIZE[:19]
    arms = arms_of(mask, np.zeros((19, 1)), np.arange(19) % 2)
    with pytest.raises(InputError, match="'plain' has 9 masks in one half"):
        check_enough(arms, "plain")


def test_masks_of_one_size_and_others_are_measured_alike():
    """Of the same truth, whose units have much in common, which masks of one size do not see."""
    draw = np.random.default_rng(0)
    weight = 0.5 * draw.normal(size=(12, 40)) + 1.0
    sized = draw.random((800, 40)).argsort(axis=1).argsort(axis=1) < 20
    free = draw.random((800, 40)) < 0.5
    half = np.arange(800) % 2
    arms = [
        arms_of(mask, mask @ weight.T + draw.normal(size=(800, 12)), half, rate=0.5)
        for mask in (sized, free)
    ]
    assert arms[0][0].fixed == 1.0
    assert arms[1][0].fixed < 0.2
    fits = [csr_array((0.3 * weight).astype(np.float32))] * 2
    nothing = Proposal(np.zeros((1, 40), dtype=np.float32), np.zeros((1, 12)))
    found = measure(
        (arms[0], arms[1]), (fits, fits), (nothing, nothing), np.ones((12, 1), dtype=bool)
    ).similarity
    assert abs(found.group[0] - 1) < 3 * found.group_error[0] < 0.1
