import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from dmstore.core import bits

masks = arrays(bool, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=150))


@given(masks)
def test_rows_round_trip(mask):
    packed = bits.pack_rows(mask)
    assert packed.shape == (len(mask), -(-mask.shape[1] // 8))
    assert np.array_equal(bits.unpack_rows(packed, mask.shape[1]), mask)
    big = np.packbits(mask, axis=1)
    assert np.array_equal(bits.unpack_rows(big, mask.shape[1], "big"), mask)


@given(masks)
def test_runs_round_trip_and_count(mask):
    words = bits.pack_runs(mask)
    assert words.dtype == np.uint64
    assert np.array_equal(bits.unpack_runs(words, len(mask)), mask)
    assert np.array_equal(np.bitwise_count(words).sum(axis=1), mask.sum(axis=0))


@given(st.integers(1, 40))
def test_bit_order_is_little(unit):
    mask = np.zeros((1, 41), dtype=bool)
    mask[0, unit] = True
    assert bits.pack_rows(mask)[0, unit // 8] == 1 << (unit % 8)
