import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmstore.core import bits
from dmstore.errors import InputError
from dmstore.study import plan
from dmstore.study.plan import Block, Part

PINNED = "34506fafef0a4625"
PINNED_SEED = 1261914404133643564
PINNED_SPLIT = [
    "train",
    "train",
    "train",
    "train",
    "train",
    "train",
    "train",
    "holdout",
    "holdout",
    "train",
    "train",
    "train",
]


sizes_of = st.integers(1, 300) | st.integers(4000, 6000)


@given(st.integers(0, 2**63 - 1), st.integers(0, 2**40), sizes_of, st.floats(0.01, 0.99))
def test_mask_has_the_planned_size_and_is_the_smallest_outputs(seed, mask_id, train, alpha):
    mask = plan.make_mask(seed, mask_id, train, alpha)
    raw = np.random.Philox(key=np.array([seed, mask_id], dtype=np.uint64)).random_raw(train)
    count = int(np.floor(alpha * train))
    assert mask.sum() == count
    assert np.array_equal(np.flatnonzero(mask), np.sort(np.argsort(raw, kind="stable")[:count]))


def test_of_equal_numbers_the_first_are_seen(monkeypatch):
    class Stream:
        def random_raw(self, count):
            return np.array([7, 3, 7, 9, 7, 1], dtype=np.uint64)[:count]

    monkeypatch.setattr(np.random, "Philox", Stream)
    assert plan.make_mask(1, 0, 6, 4 / 6).tolist() == [True, True, True, False, False, True]


def test_masks_are_pinned():
    """Masks of a seed must never change: stores depend on them."""
    mask = plan.make_mask(12345, 6, 64, 0.5)
    assert bits.pack_rows(mask[None]).tobytes().hex() == PINNED
    assert plan.training_seed(1, "abc", 2) == PINNED_SEED
    assert plan.split_of(1, np.arange(12)).tolist() == PINNED_SPLIT


@given(st.integers(0, 9), st.integers(1, 400))
def test_masks_are_nested_in_alpha(mask_id, train):
    small = plan.make_mask(1, mask_id, train, 0.25)
    large = plan.make_mask(1, mask_id, train, 0.75)
    assert not (small & ~large).any()


blocks_of = st.lists(st.tuples(st.integers(1, 50), st.integers(1, 5)), min_size=1, max_size=4)


def chain(sizes):
    blocks, run, mask = [], 0, 0
    for runs, repeats in sizes:
        blocks.append(Block(run, runs, mask, repeats))
        run, mask = run + runs, mask + blocks[-1].masks
    return blocks


@given(blocks_of, st.integers(1, 7))
def test_parts_tile_the_plan(sizes, count):
    blocks = chain(sizes)
    parts = [plan.planned_runs(blocks, Part(i, count)) for i in range(1, count + 1)]
    assert sorted(np.concatenate(parts).tolist()) == plan.planned_runs(blocks).tolist()


@given(blocks_of)
def test_every_mask_has_its_repeats(sizes):
    blocks = chain(sizes)
    runs = plan.planned_runs(blocks)
    mask_id, repeat = plan.masks_of(runs, blocks), plan.repeats_of(runs, blocks)
    assert len({*zip(mask_id.tolist(), repeat.tolist(), strict=True)}) == len(runs)
    assert np.array_equal(np.unique(mask_id), np.arange(sum(b.masks for b in blocks)))
    assert plan.masks_of(np.array([-1, runs[-1] + 1]), blocks).tolist() == [-1, -1]


def test_splits_have_their_shares_and_survive_appends():
    split = plan.split_of(5, np.arange(20000))
    share = {name: (split == name).mean() for name in plan.SPLITS}
    assert abs(share["eval"] - 0.05) < 0.01
    assert abs(share["holdout"] - 0.10) < 0.01
    assert np.array_equal(plan.split_of(5, np.arange(500)), split[:500])
    assert np.array_equal(plan.split_of(5, np.array([7, 7, 3])), split[[7, 7, 3]])


def test_quarters_are_even_and_independent_of_splits():
    ids = np.arange(20000)
    quarter, split = plan.quarter_of(5, ids), plan.split_of(5, ids)
    assert np.allclose(np.bincount(quarter) / 20000, 0.25, atol=0.02)
    assert np.allclose(
        np.bincount(quarter[split == "holdout"]) / (split == "holdout").sum(), 0.25, atol=0.05
    )


def test_seeds_are_apart():
    seeds = {plan.training_seed(1, name, run) for name in ("a", "b") for run in range(1000)}
    assert len(seeds) == 2000
    assert max(seeds) < 2**63


@pytest.mark.parametrize(
    "text", ["0/3", "4/3", "3", "a/b", "1/0", "-1/2", "1/2/3", "", "1.0/2", "²/3"]
)
def test_bad_parts(text):
    with pytest.raises(InputError, match="part"):
        Part.parse(text)


def test_equal_foreign_masks_share_an_id():
    packed = np.array([[1, 2], [3, 4], [1, 2]], dtype=np.uint8)
    ids = plan.foreign_mask_ids(packed)
    assert ids[0] == ids[2] != ids[1]
    assert (ids >= 0).all()
