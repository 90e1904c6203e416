"""Rows of datamodels, sparse: against the dense matrix that they come from."""

import dask.array as da
import numpy as np
import pytest
import xarray as xr

from dmstore.analysis.geometry.rows import sparse_rows
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
        rows = sparse_rows(turned, block=8)
        assert rows.dtype == (np.float64 if dtype == "f8" else np.float32)
        assert rows.indices.dtype == rows.indptr.dtype == np.int32
        assert rows.has_canonical_format
        np.testing.assert_array_equal(rows.toarray(), weight.values)


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
