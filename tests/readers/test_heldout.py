"""Runs in the shape that the README and demo.py of heldout-influence-estimation describe."""

import json

import numpy as np
import pytest
from helpers import Done

import dmstore
from dmstore.errors import InputError
from dmstore.readers import open_source, sniff
from dmstore.readers.source import Request

TRAIN, TEST, RUNS = 20, 9, (3, 0, 11, 7)
DRAW = np.random.default_rng(4)
SEEN = {run: DRAW.permutation(TRAIN)[:14] for run in RUNS}
RIGHT = {run: DRAW.random(TRAIN) < 0.8 for run in RUNS}
RIGHT_TEST = {run: DRAW.random(TEST) < 0.5 for run in RUNS}


def write(folder, run, **changes):
    """Each split in an order of its own, as an evaluation leaves it."""
    seen = DRAW.permutation(SEEN[run])
    left = DRAW.permutation(np.setdiff1d(np.arange(TRAIN), seen))
    test = DRAW.permutation(TEST)
    arrays = {
        "subsample_idx": SEEN[run],
        "index_train": seen,
        "correctness_train": RIGHT[run][seen],
        "index_removed": left,
        "correctness_removed": RIGHT[run][left],
        "index_test": test,
        "correctness_test": RIGHT_TEST[run][test],
    }
    (folder / str(run)).mkdir(parents=True, exist_ok=True)
    np.savez(folder / str(run) / "aux_arrays.npz", **{**arrays, **changes})


@pytest.fixture
def share(tmp_path):
    folder = tmp_path / "mnist" / "0.7"
    for run in RUNS:
        write(folder, run)
    return folder


def test_runs_come_in_with_their_numbers_and_in_the_order_of_examples(tmp_path, share):
    assert sniff(share) == "heldout-influence"
    done = Done("ingest", tmp_path / "s.dm", "a", share, "--create", "--json")
    assert json.loads(done.stdout)["new"] == 4, done.stderr
    study = dmstore.open_study(tmp_path / "s.dm")
    runs = study.view("a").dataset.sortby("run")
    assert runs.run.values.tolist() == [0, 3, 7, 11]
    assert study.algorithm("a").alpha == 14 / 20
    for run in RUNS:
        one = runs.sel(run=run)
        assert np.flatnonzero(one.mask.values).tolist() == sorted(SEEN[run])
        assert one.correctness_test.values.tolist() == RIGHT_TEST[run].tolist()
    output = study.algorithm("a").outputs["correctness_test"]
    assert output["function"] == "1 where the label was predicted, else 0"
    assert output["dtype"] == "int8"


def test_the_training_set_as_targets(share):
    source = open_source(
        share, "heldout-influence", Request(outputs={"correct": "correctness_train"})
    )
    rows = source.read(np.arange(4), ["correct"])
    assert np.array_equal(rows.arrays["correct"], [RIGHT[run] for run in sorted(RUNS)])
    assert source.target_train.tolist() == list(range(TRAIN))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"subsample_idx": np.arange(14)}, "name different units"),
        ({"index_test": np.zeros(TEST, dtype=int)}, "does not name each of 9 examples once"),
        ({"correctness_test": np.full(TEST, 2)}, "other values than 0 and 1"),
        ({"index_train": np.ones(14)}, "'index_train' is float64 (14,)"),
        ({"index_removed": np.arange(5)}, "is of 19 train units, but"),
    ],
)
def test_files_that_do_not_fit_are_refused(share, changes, words):
    write(share, 7, **changes)
    if "subsample_idx" in changes and sorted(SEEN[7]) == list(range(14)):
        pytest.fail("the changed list is the old one")
    with pytest.raises(InputError) as error:
        open_source(share, "heldout-influence", Request()).read(np.arange(4), ["correctness_test"])
    assert words in str(error.value)


def test_one_share_at_a_time_and_one_kind_of_target(share):
    write(share.parent / "0.1", 0)
    assert sniff(share.parent) == "heldout-influence"
    with pytest.raises(InputError, match=r"of the shares 0.1, 0.7; name the folder of one"):
        open_source(share.parent, "heldout-influence", Request())
    both = {"a": "correctness_test", "b": "correctness_train"}
    with pytest.raises(InputError, match="one at a time"):
        open_source(share, "heldout-influence", Request(outputs=both))
    with pytest.raises(InputError, match="has 20 train units, but the study has 21"):
        open_source(share, "heldout-influence", Request(train=21))
