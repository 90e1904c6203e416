"""Analysis functions against formulas and libraries."""

import numpy as np
import pytest
import xarray as xr
from sklearn.decomposition import PCA

from dmstore import analysis
from dmstore.errors import InputError

TRAIN, TARGET = 30, 50


def weights(seed, zero=()):
    values = np.random.default_rng(seed).normal(size=(TARGET, TRAIN))
    values[list(zero)] = 0
    return xr.DataArray(
        values,
        dims=("target", "train"),
        coords={"train": np.arange(TRAIN), "target": np.arange(TARGET)},
    )


def test_normalize():
    unit = analysis.normalize(weights(0, zero=[3]))
    length = np.linalg.norm(unit.values, axis=1)
    assert np.allclose(np.delete(length, 3), 1)
    assert length[3] == 0
    assert unit.attrs["zero_rows"] == 1


def test_weights_that_are_not_known_are_refused():
    good = weights(0)
    gap = good.copy(data=np.ma.masked_equal(good.values, good.values[2, 3]))
    for use in (
        lambda: analysis.normalize(gap),
        lambda: analysis.cosine(good, gap),
        lambda: analysis.modeldiff(
            good.to_dataset(name="weight"), gap.to_dataset(name="weight"), names=("a", "b")
        ),
    ):
        with pytest.raises(InputError, match="nan at target 2, train unit 3"):
            use()


def test_residual_is_orthogonal_and_has_its_length():
    a, b = weights(0, zero=[1]), weights(1, zero=[2])
    found = analysis.residual(a, b)
    unit_b = analysis.normalize(b)
    assert np.allclose((found.residual * unit_b).sum("train"), 0)
    cosine = analysis.cosine(a, b).values
    kept = found.included.values
    assert kept.sum() == TARGET - 2
    assert np.isnan(cosine[[1, 2]]).all()
    assert np.allclose(
        np.linalg.norm(found.residual.values[kept], axis=1), np.sqrt(1 - cosine[kept] ** 2)
    )
    direct = [
        x @ y / np.linalg.norm(x) / np.linalg.norm(y)
        for x, y in zip(a.values[kept], b.values[kept], strict=True)
    ]
    assert np.allclose(cosine[kept], direct)


@pytest.mark.parametrize("shape", ["wide", "tall"])
def test_pca_is_scikit_learns(shape):
    a, b = weights(0, zero=[4]), weights(1)
    if shape == "wide":
        a, b = a.isel(target=slice(20)), b.isel(target=slice(20))
    rest = analysis.residual(a, b)
    found = analysis.pca(rest, components=5)
    rows = rest.residual.values[rest.included.values]
    reference = PCA(5, svd_solver="full").fit(rows)
    assert np.allclose(np.abs((found.direction.values * reference.components_).sum(axis=1)), 1)
    assert np.allclose(found.residual_variance, reference.explained_variance_ratio_)
    assert np.allclose(found.direction.values @ found.direction.values.T, np.eye(5), atol=1e-10)
    along = found.projection.values
    assert np.isnan(along[:, 4]).all()
    assert (np.nanmax(along, axis=1) >= -np.nanmin(along, axis=1)).all()
    assert np.allclose(along[:, 0], rest.residual.values[0] @ found.direction.values.T)
    again = analysis.pca(rest, components=5)
    assert np.array_equal(found.direction, again.direction)


def test_uncentred_pca_keeps_a_common_difference():
    draw = np.random.default_rng(0)
    b = weights(1)
    common = np.zeros(TRAIN)
    common[0] = 50
    rest = analysis.residual(b + common + draw.normal(size=(TARGET, TRAIN)) * 0.1, b)
    uncentred = analysis.pca(rest, components=1, center=False).direction.values[0]
    centred = analysis.pca(rest, components=1).direction.values[0]
    assert abs(uncentred[0]) > 0.9
    assert abs(centred[0]) < abs(uncentred[0])


def test_directions_that_are_rounding_have_no_variance():
    """Differences in two directions alone: the other eight are what rounding leaves."""
    draw = np.random.default_rng(0)
    one = draw.normal(size=(30, 20))
    one /= np.linalg.norm(one, axis=1, keepdims=True)
    within = draw.normal(size=(30, 2)) @ np.eye(20)[:2]
    one[:, :2] = 0
    a = xr.DataArray(one + within, dims=("target", "train"))
    b = xr.DataArray(one, dims=("target", "train"))
    for dtype in ("f8", "f4"):
        # Residuals of B in A's directions have ranks of their own.
        rest = analysis.residual(b.astype(dtype), a.astype(dtype))
        flat = rest.assign(
            residual=rest["residual"]
            @ xr.DataArray(np.diag([1.0] * 2 + [0] * 18), dims=("train", "unit"))
        )
        flat = flat.assign(residual=flat["residual"].rename(unit="train"))
        found = analysis.pca(flat, components=10)
        assert (found["residual_variance"].values > 0).tolist() == [True] * 2 + [False] * 8
    for other in (a * 3, -a, a.astype("f4"), a.astype("f2")):
        found = analysis.pca(analysis.residual(a.astype("f4"), other), components=10)
        assert not found["residual_variance"].any()


def test_explained_variance_and_delta():
    a, b = weights(0, zero=[0]), weights(1)
    direction = xr.DataArray(np.eye(TRAIN)[:3], dims=("component", "train"))
    unit = a.values[1:] / np.linalg.norm(a.values[1:], axis=1, keepdims=True)
    assert np.allclose(analysis.explained_variance(a, direction), (unit[:, :3] ** 2).mean(axis=0))
    gap = analysis.delta(a, b, direction)
    common = [weight.isel(target=slice(1, None)) for weight in (a, b)]
    own, other = (analysis.explained_variance(weight, direction) for weight in common)
    assert np.allclose(gap, own - other)
    everything = xr.DataArray(np.eye(TRAIN), dims=("component", "train"))
    assert np.isclose(analysis.explained_variance(a, everything).sum(), 1)


def test_one_direction_is_taken_and_other_dims_are_named():
    a, b = weights(0), weights(1)
    direction = xr.DataArray(np.eye(TRAIN)[:3], dims=("component", "train"))
    for one in (direction[1], direction.assign_coords(component=range(3)).sel(component=1)):
        gap = analysis.delta(a, b, one)
        assert gap.dims == ()
        assert np.isclose(gap, analysis.delta(a, b, direction)[1])
    residuals = analysis.residual(a, b)
    projection = analysis.pca(residuals, components=2).projection
    several = direction.expand_dims(algorithm=2)
    for call, words in (
        (lambda: analysis.delta(a, b, several), "choose along 'algorithm'"),
        (lambda: analysis.delta(a, b, direction[:, 1:]), "not have the same train ids"),
        (lambda: analysis.normalize(a[0]), r"isel\(target=\[0\]\)"),
        (lambda: analysis.cosine(a[0], b[0]), r"isel\(target=\[0\]\)"),
        (lambda: analysis.residual(a.values, b.values), "no labelled array"),
        (lambda: analysis.relative_influence(a[0], b[0], np.array([0])), "keep 'target'"),
        (lambda: analysis.subpopulation(projection[0], np.zeros(TARGET, int)), "'component'"),
        (lambda: analysis.pca(residuals.residual), "residual"),
        (lambda: analysis.modeldiff(a, b, components="x"), "components 'x': give a whole"),
        (lambda: analysis.modeldiff(a, b, random_state=-1), "random_state -1"),
    ):
        with pytest.raises(InputError, match=words):
            call()


def test_modeldiff_takes_arrays_and_needs_no_names():
    a, b = weights(0), weights(1)
    named = analysis.modeldiff(
        a.to_dataset(name="weight"), b.to_dataset(name="weight"), names=("a", "b"), components=2
    )
    assert named.identical(analysis.modeldiff(a.T, b, components=2))


def test_proposition_1_factor():
    """On raw rows, sensitivity to inclusion probabilities (1 + u) / 2 is a quarter of (theta.u)^2."""
    draw = np.random.default_rng(0)
    theta, u = draw.normal(size=TRAIN), draw.uniform(-1, 1, TRAIN)
    masks = draw.random((200_000, TRAIN))
    shift = ((masks < (1 + u) / 2) @ theta).mean() - ((masks < 0.5) @ theta).mean()
    assert np.isclose(shift**2, (theta @ u) ** 2 / 4, rtol=0.05, atol=1e-3)


def test_subpopulation_and_contrast():
    draw = np.random.default_rng(3)
    projection = xr.DataArray(draw.normal(size=(2, 40)), dims=("component", "target"))
    projection[0, 5] = np.nan
    label = draw.integers(0, 3, 40)
    found = analysis.subpopulation(projection, label, top=6, random_state=1)
    values = projection.values[0]
    order = [i for i in np.argsort(-np.nan_to_num(values, nan=-99)) if i != 5]
    assert found.subpopulation.values[0, 0].tolist() == order[:6]
    assert found.subpopulation.values[0, 1].tolist() == order[::-1][:6]
    for component in range(2):
        for end in range(2):
            members = found.subpopulation.values[component, end]
            others = found.contrast.values[component, end]
            there = others >= 0
            assert there.sum() >= 4
            assert not set(others[there]) & set(members)
            assert len(set(others[there])) == there.sum()
            assert (label[others[there]] == label[members[there]]).all()
            assert 5 not in others or component == 1


def test_relative_influence():
    a, b = weights(0), weights(1)
    found = analysis.relative_influence(a, b, np.array([2, 5]))
    expected = np.abs(a.values[[2, 5]]).sum(axis=0) - np.abs(b.values[[2, 5]]).sum(axis=0)
    assert np.allclose(found, expected)


def test_effect_and_its_interval():
    draw = np.random.default_rng(0)
    by_model, by_example = draw.normal(0, 0.03, (1, 60, 1)), draw.normal(0, 0.02, (1, 1, 80))
    change = 0.1 + by_model + by_example + draw.normal(0, 0.01, (1, 60, 80))
    before = np.full((1, 60, 80), 0.3)
    found = analysis.effect({"a": np.concatenate([before, before + change])}, [0, 1])
    assert np.isclose(found.effect.values[0, 1], change.mean())
    assert found.effect.values[0, 0] == 0
    width = float(found.effect_high.values[0, 1] - found.effect_low.values[0, 1])
    # Both clusters count: the standard error is that of 60 models and 80 examples, not of 4,800.
    expected = 2 * 1.96 * np.sqrt(0.03**2 / 60 + 0.02**2 / 80)
    assert 0.7 * expected < width < 1.4 * expected
    with pytest.raises(InputError, match="start with 0"):
        analysis.effect({"a": before}, [1])


def changed(seed, studies, models, examples=40):
    """As intensities, before and after so many changes of mean 0, with parts of models, examples and both."""
    draw = np.random.default_rng(seed)
    parts = ((models, 1), (1, examples), (models, examples))
    change = sum(draw.normal(0, 0.02, (studies + 1, *shape)) for shape in parts)
    change[0] = 0
    return analysis.effect({"a": 0.5 + change}, range(studies + 1)).isel(
        algorithm=0, intensity=slice(1, None)
    )


@pytest.mark.parametrize("models", [2, 3, 5])
def test_the_interval_of_an_effect_covers_with_few_models(models):
    found = changed(models, 600, models)
    inside = ((found.effect_low < 0) & (found.effect_high > 0)).mean()
    assert 0.93 < inside < 0.98


def test_one_model_has_no_interval():
    found = changed(0, 2, 1)
    assert np.isfinite(found.effect).all()
    assert np.isnan(found.effect_low).all()
    assert np.isnan(found.effect_high).all()


def test_misaligned_algorithms_are_refused():
    a = weights(0)
    with pytest.raises(InputError, match="train ids"):
        analysis.residual(a, a.isel(train=slice(20)))
    with pytest.raises(InputError, match="target ids"):
        analysis.cosine(a, a.assign_coords(target=np.arange(TARGET) + 1))


def test_nothing_to_compare():
    zero = weights(0) * 0
    with pytest.raises(InputError, match="non-zero"):
        analysis.pca(analysis.residual(zero, weights(1)))
