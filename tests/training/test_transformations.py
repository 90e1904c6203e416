"""Transformations of inputs: what they change, and that an example's pixels are its own."""

import json
import sys
import types

import numpy as np
import pytest
from helpers import Done, examples

import dmstore
from dmstore.errors import ExistsError, InputError
from dmstore.training.transformations import NAMES, Transformation, apply, choose, yellow
from dmstore.training.transformed import add_transformed

BANK = np.full((3, 9, 7, 3), [[[[10]]], [[[120]]], [[[240]]]], dtype=np.uint8)
IDS = ["a", "b", "c", "d", "e"]


@pytest.fixture
def bank(tmp_path):
    np.savez(tmp_path / "faces.npz", image=BANK)
    return tmp_path / "faces.npz"


def images(*shape):
    return np.random.default_rng(0).integers(40, 200, shape, dtype=np.uint8)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(5, 12, 16), (5, 16, 12, 1), (5, 12, 12, 3), (5, 9, 12, 4)])
def test_an_example_has_its_own_pixels_in_any_batch(name, shape, bank):
    chosen = choose(name, bank=bank if name == "face-patch" else None)
    before = images(*shape)
    copy = before.copy()
    assert np.array_equal(apply(chosen, before, IDS, 0), before)
    after = apply(chosen, before, IDS, 0.5, 3)
    assert (after.shape, after.dtype) == (before.shape, np.uint8)
    assert all((after[i] != before[i]).any() for i in range(5))
    order = [4, 2]
    assert np.array_equal(apply(chosen, before[order], ["e", "c"], 0.5, 3), after[order])
    assert not np.array_equal(apply(chosen, before, IDS, 0.5, 4), after)
    assert np.array_equal(before, copy)
    if shape[-1] == 4:
        assert np.array_equal(after[..., 3], before[..., 3])


def test_a_patch_is_a_share_of_the_shorter_side():
    before = np.zeros((2, 32, 48, 3), dtype=np.uint8)
    after = yellow(before, 0.25, np.array([1, 2], dtype=np.uint64))
    for image in after:
        rows, columns = np.nonzero(image[..., 0])
        assert (np.ptp(rows), np.ptp(columns), len(rows)) == (7, 7, 64)
        assert (image[rows, columns] == [255, 255, 0]).all()
    assert (yellow(before, 1.0, place="center")[:, :, 8:40] == [255, 255, 0]).all()
    assert (yellow(np.zeros((1, 4, 4), np.uint8), 0.5, place="center").max()) == 226


def test_pictures_of_a_bank_stand_in_corners(bank):
    ids = [str(number) for number in range(60)]
    before = np.full((60, 20, 20, 3), 7, dtype=np.uint8)
    after = apply(choose("face-patch", bank=bank), before, ids, 0.25)
    corners = after[:, [0, 0, 19, 19], [0, 19, 0, 19], 0]
    assert ((corners != 7).sum(axis=1) == 1).all()
    assert set(np.unique(corners)) == {7, 10, 120, 240}
    assert (corners != 7).any(axis=0).all()


def test_opacity_moves_pixels_in_proportion():
    before = images(1, 24, 24, 3)
    full, half = (
        apply(choose("spider-web"), before, ["x"], x).astype(int) - before for x in (1.0, 0.5)
    )
    assert np.abs(full - 2 * half).max() <= 2
    assert 0.05 < (full != 0).any(axis=-1).mean() < 0.9


def own(monkeypatch, function):
    monkeypatch.setitem(sys.modules, "own_change", types.SimpleNamespace(change=function))
    return choose("own_change:change")


def unseeded(images, intensity, seed):
    return np.random.default_rng().integers(0, 255, images.shape, dtype=np.uint8)


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (unseeded, "alone than with others"),
        (lambda images, intensity: images - images.mean(axis=0).astype(np.uint8), "alone"),
        (lambda images, intensity, seed: images[:, :3], r"expected uint8 \(5, 8, 8\)"),
        (lambda images, intensity: images * 1.0, "gave float64"),
        (lambda images, intensity: 1 / 0, "ZeroDivisionError"),
    ],
)
def test_a_function_that_is_no_transformation_is_refused(monkeypatch, function, words):
    chosen = own(monkeypatch, function)
    with pytest.raises(InputError, match=words):
        apply(chosen, images(5, 8, 8), IDS, 0.5)


def test_functions_of_two_and_of_three(monkeypatch):
    before = images(5, 8, 8)
    dark = own(monkeypatch, lambda images, intensity: (images * (1 - intensity)).astype(np.uint8))
    assert np.array_equal(apply(dark, before, IDS, 0.5), before // 2)
    seeded = own(
        monkeypatch,
        lambda images, _, seed: np.tile((seed % 250).astype(np.uint8)[:, None, None], (1, 8, 8)),
    )
    assert len(np.unique(apply(seeded, before, IDS, 0.5)[:, 0, 0])) > 1


@pytest.mark.parametrize(
    ("text", "options", "words"),
    [
        ("yelow", {}, "yellow-square, face-patch"),
        ("face-patch", {}, "--bank"),
        ("spider-web", {"place": "corner"}, "no place"),
        ("rectangles", {"bank": "x"}, "no bank"),
        ("no_such_module:f", {}, "cannot be imported"),
        ("gone.png", {}, "no such file"),
        ("face-patch", {"bank": "setup.cfg"}, "cannot be read as an image"),
    ],
)
def test_what_cannot_be_chosen_is_said(text, options, words):
    with pytest.raises(InputError, match=words):
        choose(text, **options)


def test_a_transformed_target_set_says_what_it_was_made_of(tmp_path):
    study = dmstore.create_study(tmp_path / "s", examples(train=20, target=12), seed=3)
    square = choose("yellow-square")
    assert add_transformed(study, "yellow-50", square, 0.5) == "new"
    assert add_transformed(study, "yellow-50", square, 0.5) == "present"
    with pytest.raises(ExistsError):
        add_transformed(study, "yellow-50", square, 0.6)
    made = study.target_set("yellow_50")
    assert made.equals(study.target_set("yellow-50"))
    assert made["base"].values.tolist() == study.ids("test").tolist()
    assert set(made["intensity"].values) == {0.5}
    assert made["label"].values.tolist() == study.label().tolist()
    assert (made["image"].values != study.targets["image"].values).any()
    with pytest.raises(InputError, match="transformed already"):
        add_transformed(study, "twice", square, 0.5, of="yellow_50")
    add_transformed(study, "some", square, 0.5, positions=np.array([3, 5]))
    assert np.array_equal(study.target_set("some")["image"].values, made["image"].values[[3, 5]])
    assert isinstance(square, Transformation)
    asked = (
        "targets",
        study.path,
        "yellow-25",
        "--transform",
        "yellow-square",
        "--intensity",
        0.25,
    )
    assert Done(*asked).stdout.startswith("yellow-25 (kept as yellow_25): 12 targets added")


def test_a_sheet_shows_what_was_before_and_says_where_intensities_are_one(tmp_path, study):
    """Of 6 x 6 pixels a quarter and .26 is the same square."""
    command = ("transform", study.path, "yellow-square", "--sheet", tmp_path / "x.png")
    done = Done(*command, "--intensity", "0.25,0.26,0.5", "--count", 3, "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["intensity"] == [0, 0.25, 0.26, 0.5]
    ids = study.ids("test").tolist()
    assert said["targets"] == [ids[0], ids[len(ids) // 2], ids[-1]]
    assert "at 0.25 and 0.26 makes the same" in done.stderr
    assert done.stderr.count("warning") == 1
    assert (tmp_path / "x.png").stat().st_size > 1000
