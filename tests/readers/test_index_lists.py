"""Lists of train units in place of masks: every container, both meanings, and lists that are none."""

import json

import numpy as np
import pytest
from helpers import Done

import dmstore
from dmstore.errors import InputError
from dmstore.intake.ingest import ingest
from dmstore.readers import index_lists, lists, open_source, sniff
from dmstore.readers.source import Request

TRAIN, TARGETS = 20, 7
DRAW = np.random.default_rng(5)
LISTS = [DRAW.permutation(TRAIN)[:size].tolist() for size in (9, 1, 12, 10, 20, 0)]
MARGIN = DRAW.normal(size=(6, TARGETS))
MASKS = np.array([np.isin(np.arange(TRAIN), one) for one in LISTS])
SEEN = Request(train=TRAIN, lists="seen")


def npz(path, **more):
    flat = np.concatenate([np.array(one, dtype=np.int32) for one in LISTS])
    offsets = np.concatenate([[0], np.cumsum([len(one) for one in LISTS])])
    np.savez(path, **{"indices": flat, "offsets": offsets, "margin": MARGIN, **more})
    return path


def document(path, content):
    path.write_text(json.dumps(content))
    return path


CONTAINERS = {
    "npz": lambda folder: npz(folder / "a.npz"),
    "object": lambda folder: document(
        folder / "a.json", {"indices": LISTS, "margin": MARGIN.tolist()}
    ),
    "list": lambda folder: document(folder / "a.json", LISTS),
}


@pytest.mark.parametrize("name", CONTAINERS)
@pytest.mark.parametrize("meaning", lists.MEANINGS)
def test_lists_become_masks(tmp_path, name, meaning):
    path = CONTAINERS[name](tmp_path)
    np.save(tmp_path / "m.npy", MARGIN)
    beside = {"margin": str(tmp_path / "m.npy")} if name == "list" else {}
    assert sniff(path) == "index-lists"
    source = open_source(path, "index-lists", Request(train=TRAIN, lists=meaning, outputs=beside))
    expected = MASKS if meaning == "seen" else ~MASKS
    places = np.array([0, 2, 3, 5])
    assert np.array_equal(source.masks(places), expected[places])
    rows = source.read(places, ["margin"])
    assert np.array_equal(rows.arrays["margin"], MARGIN[places])
    assert source.conventions == {"masks": f"lists of units {meaning}, as given"}
    assert meaning in source.title


def test_lists_of_one_length_and_run_ids(tmp_path):
    table = np.array([DRAW.permutation(TRAIN)[:8] for _ in range(4)], dtype=np.uint16)
    np.savez(
        tmp_path / "a.npz", indices=table, losses=MARGIN[:4], run=[7, 3, 9, 4], lr=[1, 2, 3, 4]
    )
    source = open_source(tmp_path / "a.npz", "index-lists", SEEN)
    assert source.ids.tolist() == [7, 3, 9, 4]
    assert [np.flatnonzero(row).tolist() for row in source.masks(np.arange(4))] == np.sort(
        table, axis=1
    ).tolist()
    assert set(source.outputs) == {"loss"}
    assert source.columns["lr"].tolist() == [1, 2, 3, 4]


def test_a_study_is_made_of_lists_and_keeps_what_they_mean(tmp_path):
    npz(tmp_path / "a.npz")
    arguments = ["ingest", tmp_path / "s.dm", "a", tmp_path / "a.npz", "--create", "--json"]
    for more, words in ([], "give --train"), (["--train", TRAIN], "--lists seen or"):
        done = Done(*arguments, *more)
        assert done.returncode == 1
        assert words in done.stdout + done.stderr
        assert not (tmp_path / "s.dm").exists()
    done = Done(*arguments, "--train", TRAIN, "--lists", "left-out")
    assert done.returncode == 0, done.stderr
    # A list of all units leaves an empty mask, and an empty list a full one.
    assert json.loads(done.stdout)["new"] == 6
    study = dmstore.open_study(tmp_path / "s.dm")
    runs = study.view("a").dataset.sortby("run")
    assert np.array_equal(runs.mask.values, ~MASKS)
    imported = study.algorithm("a").document["config"]["imported"]
    assert imported["conventions"]["masks"] == "lists of units left-out, as given"
    # The study knows how many units there are.
    again = ingest(study, "a", [tmp_path / "a.npz"], lists="left-out")
    assert (again.present, again.errors) == (6, [])
    assert "--lists seen or" in ingest(study, "a", [tmp_path / "a.npz"]).errors[0]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([[0, 1], [2, 20]], "list 1 holds 20, but there are 20 train units, counted from 0"),
        ([[1, 5], [2, 20]], "seem to be counted from 1"),
        ([[0, 1], [3, -1]], "list 1 holds -1"),
        ([[0, 1], [3, 3]], "list 1 holds 3 twice"),
        ([[0, 1], [3, 2.5]], "list 1 is float64"),
        ([[0, 1], [True, False]], "list 1 is bool"),
        ([[0, 1], ["3"]], "list 1 is <U1"),
        ([[0, 1], [[3]]], "list 1 is int64 (1, 1)"),
        ([[0, 1], [3, [4]]], "no array of numbers"),
        ([0, 1], "no list of lists"),
        ({"a": [[0]]}, "no list of lists 'indices'"),
    ],
)
def test_lists_that_are_no_lists_of_units_are_refused(tmp_path, given, words):
    np.save(tmp_path / "m.npy", MARGIN[:2])
    path = document(tmp_path / "a.json", given)
    with pytest.raises(InputError) as error:
        index_lists.open_source(
            path, Request(train=20, lists="seen", outputs={"margin": str(tmp_path / "m.npy")})
        )
    assert words in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"offsets": np.arange(7)}, "offsets do not cut 52 indices"),
        ({"offsets": np.array([0, 9, 5, 22, 32, 52, 52])}, "offsets do not cut"),
        ({"margin": MARGIN[:5]}, "margin has shape (5, 7), but there are masks of 6 runs"),
        ({"indices": MASKS.astype(np.int8)}, "twice, and a mask says only"),
        ({"indices": MASKS}, "expected a row of integers"),
    ],
)
def test_archives_that_lie_are_refused(tmp_path, more, words):
    with pytest.raises(InputError) as error:
        open_source(npz(tmp_path / "a.npz", **more), "index-lists", SEEN)
    assert words in str(error.value)


def test_flat_lists_need_offsets_and_lists_need_outputs(tmp_path):
    np.savez(tmp_path / "a.npz", indices=np.arange(5), margin=MARGIN)
    with pytest.raises(InputError, match="add 'offsets'"):
        open_source(tmp_path / "a.npz", "index-lists", SEEN)
    with pytest.raises(InputError, match="--output margin=FILE"):
        open_source(document(tmp_path / "a.json", LISTS), "index-lists", SEEN)
