"""Shadow models in the shape in which LiRA's own train.py, inference.py and score.py write them."""

import json

import numpy as np
import pytest
from helpers import Done

import dmstore
from dmstore.errors import InputError
from dmstore.intake.ingest import ingest
from dmstore.readers import open_source, sniff
from dmstore.readers.source import Request

TRAIN, CLASSES, MODELS = 24, 3, 12
DRAW = np.random.default_rng(2)
LABEL = DRAW.integers(0, CLASSES, TRAIN)
# Each unit is kept by exactly half of the models.
KEEP = DRAW.random((MODELS, TRAIN)).argsort(0) < MODELS // 2


def scores_of(logits):
    """Log odds of the label from logits (example, shift, augmentation, class), by their definition."""
    p = np.exp(logits - np.logaddexp.reduce(logits, axis=3, keepdims=True)).astype(np.float64)
    true = np.take_along_axis(p, LABEL[: len(p), None, None, None], axis=3)[..., 0].mean(1)
    return np.log(true + 1e-45) - np.log(1 - true + 1e-45)


def models(folder, augmentations=2, examples=TRAIN, count=MODELS):
    logits = np.random.default_rng(3).normal(size=(count, examples, 1, augmentations, CLASSES))
    logits = logits.astype(np.float32)
    folder.mkdir()
    np.save(folder / "x_train.npy", np.zeros((TRAIN, 2, 2, 3)))
    np.save(folder / "y_train.npy", LABEL)
    for number in range(count):
        one = folder / f"experiment-{number}_{count}"
        (one / "logits").mkdir(parents=True)
        (one / "scores").mkdir()
        np.save(one / "keep.npy", KEEP[number])
        (one / "hparams.json").write_text(json.dumps({"arch": "wrn28-2", "seed": 1000 + number}))
        for epoch, values in (10, logits[number] * 0), (100, logits[number]):
            np.save(one / f"logits/{epoch:010d}.npy", values)
            np.save(one / f"scores/{epoch:010d}.npy", scores_of(values))
    return folder, logits


def test_the_last_epoch_is_the_largest_number(tmp_path):
    path, logits = models(tmp_path / "exp", augmentations=1, count=3)
    for file in path.rglob("0000000*.npy"):
        file.rename(file.with_name(f"{int(file.stem) // 10}.npy".replace("1.npy", "9.npy")))
    assert {f.name for f in path.rglob("scores/*")} == {"9.npy", "10.npy"}
    source = open_source(path, "lira", Request())
    rows = source.read(np.arange(3), ["log_odds"])
    assert np.allclose(rows.arrays["log_odds"], [scores_of(one)[:, 0] for one in logits])


def test_models_are_runs_and_targets_are_train_units(tmp_path):
    path, logits = models(tmp_path / "exp", augmentations=1)
    assert sniff(path) == "lira"
    done = Done("ingest", tmp_path / "s.dm", "wrn", path, "--create", "--json")
    assert json.loads(done.stdout)["new"] == MODELS, done.stderr
    study = dmstore.open_study(tmp_path / "s.dm")
    assert study.target_train().tolist() == list(range(TRAIN))
    runs = study.view("wrn").dataset.sortby("run")
    assert runs.run.values.tolist() == list(range(MODELS))
    assert np.array_equal(runs.mask.values, KEEP)
    assert np.array_equal(runs.log_odds.values, [scores_of(one)[:, 0] for one in logits])
    assert runs.seed.values.tolist() == list(range(1000, 1000 + MODELS))
    assert set(runs.epoch.values) == {100}
    output = study.algorithm("wrn").outputs["log_odds"]
    assert output["orientation"] == "larger is more confident in the label"
    assert "as LiRA scores it" in output["function"]


def test_augmentations_are_chosen_not_guessed(tmp_path):
    path, logits = models(tmp_path / "exp", examples=20)
    with pytest.raises(InputError, match=r"under 2 augmentations.*log_odds=scores/0"):
        open_source(path, "lira", Request())
    expected = np.array([scores_of(one) for one in logits])
    places = np.array([0, 3, 11])
    for key, values in {"0": expected[..., 0], "1": expected[..., 1]}.items():
        source = open_source(path, "lira", Request(outputs={"log_odds": f"scores/{key}"}))
        assert np.array_equal(source.read(places, ["log_odds"]).arrays["log_odds"], values[places])
        assert f"augmentation {key}" in source.outputs["log_odds"].about["function"]
    asked = {"log_odds": "scores/mean", "logit": "logits/1"}
    source = open_source(path, "lira", Request(outputs=asked))
    rows = source.read(places, list(asked))
    assert np.array_equal(rows.arrays["log_odds"], expected.mean(2)[places])
    assert np.array_equal(rows.arrays["logit"], logits[places][:, :, 0, 1])
    # Targets are the examples that were looked at; all train units stay in the masks.
    assert (source.train, source.targets, source.outputs["logit"].classes) == (TRAIN, 20, CLASSES)
    assert source.target_train.tolist() == list(range(20))
    with pytest.raises(InputError, match="no 'scores/2'; it holds scores/0, scores/1, scores/mean"):
        open_source(path, "lira", Request(outputs={"log_odds": "scores/2"}))


def test_a_study_must_know_that_targets_are_train_units(tmp_path):
    path, _ = models(tmp_path / "exp", augmentations=1)
    ids = {"train_id": np.arange(TRAIN).astype(str), "target_id": np.arange(TRAIN).astype(str)}
    unknowing = dmstore.create_study(tmp_path / "a.dm", ids, seed=1)
    knowing = dmstore.create_study(
        tmp_path / "b.dm", {**ids, "target_train": np.arange(TRAIN)}, seed=1
    )
    for study, new in (unknowing, 0), (knowing, MODELS):
        study.add_algorithm("a", sampling="foreign", alpha=None, outputs=["log_odds"])
        result = ingest(study, "a", [path])
        assert result.new == new
        assert bool(result.errors) == (not new)
    np.savez(tmp_path / "examples.npz", **ids)
    done = Done(
        *("ingest", tmp_path / "c.dm", "a", path),
        *("--create", "--examples", tmp_path / "examples.npz"),
    )
    assert done.returncode == 1
    assert "'target_train' in the examples" in done.stderr
    assert not (tmp_path / "c.dm").exists()


def test_unfinished_and_odd_models(tmp_path):
    path, _ = models(tmp_path / "exp", augmentations=1, count=4)
    (path / "experiment-1_4/scores/0000000010.npy").unlink()
    (path / "experiment-1_4/scores/0000000100.npy").unlink()
    source = open_source(path, "lira", Request())
    assert source.ids.tolist() == [0, 2, 3]
    assert source.notes == ["1 models have no scores; left out"]
    np.save(path / "experiment-2_4/scores/0000000100.npy", np.zeros((TRAIN - 1, 1)))
    with pytest.raises(InputError, match=r"experiment-2_4.*one kind at a time"):
        open_source(path, "lira", Request())
    np.save(path / "experiment-2_4/keep.npy", KEEP[2][:5])
    with pytest.raises(InputError, match=r"keep.npy: is bool"):
        open_source(path, "lira", Request(outputs={"logit": "logits"}))
    with pytest.raises(InputError, match="no 'margins'"):
        open_source(path, "lira", Request(outputs={"margin": "margins"}))
    for file in path.glob("*/scores/*"):
        file.unlink()
    with pytest.raises(InputError, match="none with scores; run LiRA's"):
        open_source(path, "lira", Request())
