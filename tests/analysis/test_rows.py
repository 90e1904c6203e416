"""Rows of datamodels, sparse: against the dense matrix that they come from."""

import sys

import dask.array as da
import dask.callbacks
import numpy as np
import pytest
import xarray as xr

from dmstore.analysis import (
    cosine,
    delta,
    explained_variance,
    modeldiff,
    normalize,
    pca,
    relative_influence,
    residual,
    subpopulation,
)
from dmstore.analysis.comparison import room
from dmstore.analysis.comparison.modeldiff import rank
from dmstore.analysis.geometry import products, rows, subspace
from dmstore.analysis.geometry.differences import PlainMatrix
from dmstore.analysis.geometry.rows import sparse_rows
from dmstore.core import memory
from dmstore.errors import InputError


def sparse_weight(targets=30, train=71, share=0.1, seed=0):
    draw = np.random.default_rng(seed)
    values = np.where(draw.random((targets, train)) < share, draw.normal(size=(targets, train)), 0)
    values[min(7, targets - 1)] = 0
    return xr.DataArray(values.astype(np.float32), dims=("target", "train"))


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
@pytest.mark.parametrize("chunks", [None, {"target": 4, "train": 50}, {"train": 9}])
def test_sparse_rows(dtype, chunks):
    weight = sparse_weight().astype(dtype)
    given = weight if chunks is None else weight.chunk(chunks)
    for turned in (given, given.T):
        read = sparse_rows(turned, block=8)
        assert read.dtype == (np.float64 if dtype == "f8" else np.float32)
        assert read.indices.dtype == read.indptr.dtype == np.int32
        assert read.has_canonical_format
        np.testing.assert_array_equal(read.toarray(), weight.values)


def test_sparse_rows_read_each_chunk_once_and_no_more_than_a_block():
    asked = []

    def stored(block_info=None):
        asked.append(block_info[None]["array-location"][0])
        return np.zeros(block_info[None]["chunk-shape"], np.float32)

    chunks = ((256,) * 3, (50_000,))
    values = da.map_blocks(stored, chunks=chunks, dtype=np.float32, meta=np.zeros((0, 0), "f4"))
    assert sparse_rows(xr.DataArray(values, dims=("target", "train"))).nnz == 0
    assert asked == [(0, 256), (256, 512), (512, 768)]


def test_sparse_rows_name_the_weight_that_is_not_finite():
    weight = sparse_weight()
    weight[20, 3] = np.nan
    with pytest.raises(InputError, match="nan at target 20, train unit 3"):
        sparse_rows(weight, block=8)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("width", [np.int32, np.int64])
@pytest.mark.parametrize("count", [1, 9, 16, 37])
def test_products_compiled_or_not_are_those_of_dense_rows(dtype, width, count, monkeypatch):
    monkeypatch.setattr(products, "_COMPILED", 0)
    matrix = sparse_rows(sparse_weight(200, 90).astype(dtype))
    matrix.indices, matrix.indptr = matrix.indices.astype(width), matrix.indptr.astype(width)
    columns = np.random.default_rng(1).normal(size=(90, count)).astype(dtype)
    made = products.Product(matrix, 1)(columns)
    assert made.dtype == dtype
    # Sums of some nine products, each rounded.
    tolerance = 32 * np.finfo(dtype).eps
    np.testing.assert_allclose(made, matrix.toarray() @ columns, atol=tolerance, rtol=0)
    np.testing.assert_array_equal(products.Product(matrix, 3)(columns), made)
    monkeypatch.setattr(products, "_compiled_times", lambda: None)
    np.testing.assert_allclose(products.Product(matrix, 1)(columns), made, atol=tolerance, rtol=0)


def test_products_do_without_numba(monkeypatch):
    for name in ("compiled", "sparse"):
        monkeypatch.delitem(sys.modules, f"dmstore.regression.kernels.{name}", raising=False)
    monkeypatch.setitem(sys.modules, "numba", None)
    assert products._compiled_times() is None


def in_memory(a, b, parameters):
    """The same from the functions for arrays, one way after the other: what stands in the documentation."""
    own = {}
    for way, (mine, theirs) in enumerate(((a, b), (b, a))):
        made = pca(residual(mine, theirs), components=parameters["components"])
        own[way] = {
            "direction": made["direction"].values,
            "projection": made["projection"].values,
            "residual_variance": made["residual_variance"].values,
            "delta": delta(mine, theirs, made["direction"]).values,
        }
        included = (mine != 0).any("train") & (theirs != 0).any("train")
        own[way]["explained_variance"] = np.stack(
            [explained_variance(one[included], made["direction"]).values for one in (a, b)], axis=1
        )
        members = subpopulation(
            made["projection"], np.zeros(a.sizes["target"], int), top=parameters["top"]
        )
        own[way]["subpopulation"] = members["subpopulation"].values
        own[way]["contrast"] = members["contrast"].values
        order = np.argsort(-np.abs(made["direction"].values), axis=1, kind="stable")
        own[way]["heaviest"] = order[:, :50]
        own[way]["relative_influence"] = np.array(
            [
                relative_influence(normalize(mine), normalize(theirs), top[top >= 0]).values
                for top in members["subpopulation"].values[:, 0]
            ]
        )
    return {key: np.stack([own[0][key], own[1][key]]) for key in own[0]}


def pair(targets, train, share):
    """Two sets of datamodels with much in common, and a few features that one has alone."""
    draw = np.random.default_rng(5)
    both = sparse_weight(targets, train, share, seed=1).values
    found = []
    for way in (0, 1):
        own = both + 0.5 * sparse_weight(targets, train, share / 2, seed=2 + way).values
        for feature in range(6):
            units = draw.choice(train, 8, replace=False)
            who = draw.choice(targets, targets // 4, replace=False)
            own[np.ix_(who, units)] += 1.2 / (1 + 0.4 * feature)
        own[3 + way] = 0
        found.append(xr.DataArray(own.astype(np.float32), dims=("target", "train")))
    return found


@pytest.mark.parametrize(
    ("shape", "share"), [((90, 140), 0.1), ((140, 60), 0.1), ((90, 140), 0.9), ((140, 60), 0.9)]
)
@pytest.mark.parametrize("exact", [True, False])
def test_modeldiff_is_the_same_from_rows_sparse_and_dense_lazy_or_not(
    shape, share, exact, monkeypatch
):
    if not exact:
        monkeypatch.setattr(subspace, "EXACT", 0)
    a, b = pair(*shape, share)
    parameters = {"components": 4, "top": 5}
    expected = in_memory(a, b, parameters)
    lazy = [one.chunk(target=32, train=50) for one in (a, b)]
    for given in ((a, b), lazy):
        found = modeldiff(*given, threads=2, **parameters)
        for name, values in expected.items():
            if name == "heaviest" and not exact:
                continue
            tolerance = 1e-6 if exact else 2e-3 if name in ("direction", "projection") else 1e-4
            np.testing.assert_allclose(
                found[name].values, values, atol=tolerance, rtol=0, err_msg=name
            )
        np.testing.assert_allclose(found["cosine"], cosine(a, b), atol=1e-6)


def test_what_stands_on_scratch_is_the_same(monkeypatch):
    a, b = pair(60, 90, 0.9)
    expected = modeldiff(a, b, components=3)
    used = []
    monkeypatch.setattr(
        rows,
        "scratch_array",
        lambda *given: used.append(given) or memory.scratch_array(*given),
    )
    monkeypatch.setattr(room.Room, "dense", 0)
    xr.testing.assert_identical(modeldiff(a, b, components=3), expected)
    assert len(used) == 2


@pytest.mark.parametrize("dense", [0, 1])
def test_one_of_the_two_is_dense(dense):
    pairs = [pair(60, 90, share)[row] for row, share in enumerate((0.1, 0.9))]
    if dense == 0:
        pairs = pairs[::-1]
    expected = in_memory(*pairs, {"components": 3, "top": 5})
    found = modeldiff(*pairs, components=3, top=5)
    np.testing.assert_allclose(found["direction"], expected["direction"], atol=1e-6)


def test_directions_go_on_until_they_are_those_of_the_whole_spectrum():
    """Singular values that fall slowly: a few steps are not enough."""
    draw = np.random.default_rng(0)
    left, right = (np.linalg.qr(draw.normal(size=(size, 400)))[0] for size in (400, 900))
    values = (left * 1.01 ** -np.arange(400.0)) @ right.T
    shares = []
    found = subspace._lanczos(PlainMatrix(values), 10, 0, shares.append)
    found = subspace._orthonormal(values.T @ found)
    assert np.abs((found * right[:, :10].T).sum(axis=1)).min() > 0.9999
    np.testing.assert_allclose(found @ found.T, np.eye(10), atol=1e-12)
    assert shares == sorted(shares)


def test_no_directions_beyond_the_rank(monkeypatch):
    """Residuals of rank 2: what Lanczos gives after that is orthonormal, and counts as nothing."""
    monkeypatch.setattr(subspace, "EXACT", 0)
    draw = np.random.default_rng(0)
    shared = np.zeros((2, 200))
    shared[:, :2] = np.eye(2)
    base = draw.normal(size=(300, 1)) * np.r_[0, 0, np.ones(198)]
    a = base + draw.normal(size=(300, 2)) @ shared
    found = modeldiff(*(xr.DataArray(x, dims=("target", "train")) for x in (a, base)), components=6)
    assert rank(found)[0] == 2
    direction = found["direction"].values[0]
    np.testing.assert_allclose(direction @ direction.T, np.eye(6), atol=1e-5)


def test_memory_that_does_not_do_is_said_before_anything_is_read():
    a, b = pair(60, 90, 0.1)
    with pytest.raises(InputError, match=r"needs 0\.45 GB, and may take 0\.10 GB"):
        modeldiff(a, b, memory="100MB")
    fit = xr.Dataset(
        {"weight": a, "nonzeros": ("target", np.full(60, 2 * 10**8))},
    )
    monkey = room.Room(None, 10**5, 10**6, 10)
    with pytest.raises(InputError, match=r"needs \d+\.\d\d GB"):
        monkey.check([room.stated_nonzeros(fit)] * 2)


def test_progress_is_told_and_ends():
    a, b = pair(60, 90, 0.1)
    said = []
    modeldiff(a, b, progress=lambda *given: said.append(given))
    assert said == sorted(said)
    assert said[-1] == ("compare", 1000, 1000)


def test_notebook_functions_stay_lazy_and_are_the_same(monkeypatch):
    a, b = pair(60, 90, 0.1)
    for one in (a, b):
        one.coords["train"] = [f"u{i}" for i in range(90)]
    lazy = [one.chunk(target=13, train=20) for one in (a, b)]
    direction = pca(residual(a, b), components=3)["direction"]
    computed = []
    with dask.callbacks.Callback(start=computed.append):
        found = {
            "normalize": normalize(lazy[0]),
            "cosine": cosine(*lazy),
            "residual": residual(*lazy)["residual"],
            "included": residual(*lazy)["included"],
            "explained_variance": explained_variance(lazy[0], direction),
            "one": explained_variance(lazy[0], direction[1]),
            "delta": delta(*lazy, direction),
        }
    assert not computed
    expected = {
        "normalize": normalize(a),
        "cosine": cosine(a, b),
        "residual": residual(a, b)["residual"],
        "included": residual(a, b)["included"],
        "explained_variance": explained_variance(a, direction),
        "one": explained_variance(a, direction[1]),
        "delta": delta(a, b, direction),
    }
    for name, values in expected.items():
        assert found[name].chunks is not None, name
        assert found[name].dims == values.dims, name
        xr.testing.assert_allclose(found[name].compute(), values, atol=1e-12)
    assert found["normalize"].chunks == ((13, 13, 13, 13, 8), (90,))
    bad = lazy[0].copy()
    bad[20, 3] = np.nan
    unit = normalize(bad)
    with pytest.raises(InputError, match="nan at target 20, train unit 3"):
        unit.compute()
    assert np.isfinite(unit[30:].values).all()
