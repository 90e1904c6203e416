"""Output functions, the dense task, workers, counterfactuals."""

from types import SimpleNamespace

import numpy as np
import pytest
from helpers import examples

import dmstore
from dmstore import counterfactual
from dmstore.errors import ExistsError, InputError
from dmstore.schema.group_specs import group_spec
from dmstore.storage.table.rows import Rows
from dmstore.storage.table.table import Table
from dmstore.study.plan import Part
from dmstore.training import outputs, transformations
from dmstore.training.counterfactual import probabilities
from dmstore.training.task import make_task
from dmstore.training.worker import train

TASK = "dmstore.training.tasks:dense"
PREDICTION = {"dims": ["run", "target"], "dtype": "int16", "function": "prediction"}
NAMES = ["margin", "prediction", "loss", "logit"]


@pytest.fixture
def trained(tmp_path):
    study = dmstore.create_study(tmp_path / "s", examples(train=60, target=20), seed=3)
    study.add_algorithm(
        "plain", runs=10, outputs=NAMES, task=TASK, config={"epochs": 3, "batch_size": 7}
    )
    return study


def test_output_functions_follow_their_definitions():
    logit = np.array([[[2.0, 1.0, 5.0], [0.0, 3.0, 3.0]]])
    label = np.array([0, 1])
    assert outputs.margin(logit, label).tolist() == [[-3.0, 0.0]]
    assert outputs.prediction(logit, label).tolist() == [[2, 1]]
    p = np.exp(logit) / np.exp(logit).sum(axis=2, keepdims=True)
    assert np.allclose(outputs.loss(logit, label), [[-np.log(p[0, 0, 0]), -np.log(p[0, 1, 1])]])
    assert logit[0, 0, 0] == 2.0


@pytest.mark.parametrize(("label", "fits"), [(32_767, True), (39_999, False)])
def test_a_class_that_does_not_fit_is_refused(label, fits):
    logit = np.zeros((1, 1, 40_000), np.float32)
    logit[0, 0, label] = 1
    found = outputs.prediction(logit, np.array([0]))
    assert found.tolist() == [[label]]
    spec = group_spec("outputs", {"prediction": PREDICTION})
    columns = {"time": np.zeros(1, int), "host": np.array(["h"])}
    columns["run_digest"] = np.zeros(1, np.uint64)
    table = Table(None, "", spec, {"target": 1}, {})
    rows = Rows(np.arange(1), {"prediction": found}, columns)
    if fits:
        assert table.check(rows, "x").arrays["prediction"].tolist() == [[label]]
        return
    with pytest.raises(InputError, match="do not fit int16"):
        table.check(rows, "x")


def test_worker_stores_consistent_outputs(trained):
    assert train(trained, "plain", part=Part(1, 3)) == 4
    assert train(trained, "plain") == 6
    assert train(trained, "plain") == 0
    runs = trained.runs("plain")
    logit, label = runs.logit.values, trained.targets.label.values
    assert logit.shape == (10, 20, 3)
    assert np.allclose(runs.margin.values, outputs.margin(logit, label))
    assert np.array_equal(runs.prediction.values, logit.argmax(axis=2))
    assert np.allclose(runs.accuracy.values, (logit.argmax(axis=2) == label).mean(axis=1))
    assert runs["class"].values.tolist() == ["class0", "class1", "class2"]


def test_a_run_follows_from_its_seed_and_mask_alone(trained):
    task = make_task(
        trained,
        TASK,
        {"epochs": 3, "paste_rows": [0], "paste_columns": [1], "paste_share": 0.5},
        NAMES,
    )
    runs = trained.algorithm("plain").describe(np.arange(10))
    together = task.train(runs)["logit"]
    alone = np.concatenate([task.train([run])["logit"] for run in runs[::-1]])[::-1]
    assert np.array_equal(together, alone)


@pytest.mark.parametrize("error", [ValueError("no\nepochs"), KeyError("x"), OSError("gone")])
def test_what_a_constructor_raises_is_said_of_the_task(trained, monkeypatch, error):
    def broken(study, config, names):
        raise error

    monkeypatch.setattr("linear_task.Linear", broken)
    with pytest.raises(InputError, match=f"cannot be made here: {type(error).__name__}: ") as said:
        make_task(trained, "linear_task:Linear", {}, NAMES)
    assert "\n" not in str(said.value)


def test_masks_of_different_sizes_train_in_one_call(trained):
    task = make_task(trained, TASK, {"epochs": 2, "batch_size": 7}, NAMES)
    draw = np.random.default_rng(0)
    masks = draw.random((6, 60)) < 0.5
    together = task.models(masks, range(6))
    for i in range(6):
        one = task.models(masks[i : i + 1], [i])
        assert np.array_equal(one["hidden"][0], together["hidden"][i])


def test_only_the_mask_is_seen(trained):
    """Changing an unseen training image must change nothing; changing a seen one must."""
    runs = trained.algorithm("plain").describe(np.arange(1))
    task = make_task(trained, TASK, {"epochs": 2}, NAMES)
    before = task.train(runs)["logit"]
    seen, unseen = np.flatnonzero(runs[0].mask)[0], np.flatnonzero(~runs[0].mask)[0]
    original = task._inputs.copy()
    task._inputs[unseen] += 1
    assert np.array_equal(task.train(runs)["logit"], before)
    task._inputs[:] = original
    task._inputs[seen] += 1
    assert not np.array_equal(task.train(runs)["logit"], before)


def test_one_step_is_the_gradient(trained):
    """A single full-batch step without momentum is -learning rate times the numerical gradient."""
    config = {
        "epochs": 1,
        "batch_size": 100,
        "learning_rate": 0.5,
        "momentum": 0.0,
        "hidden": 5,
        "init": 1.0,
    }
    task = make_task(trained, TASK, config, NAMES)
    still = make_task(trained, TASK, {**config, "learning_rate": 0.0}, NAMES)
    mask = np.ones((1, 60), dtype=bool)
    start, moved = still.models(mask, [4]), task.models(mask, [4])
    x, y = trained.train.image.values, trained.train.label.values

    def loss(models):
        logit = task.logits(models, x).astype(np.float64)
        return float(outputs.loss(logit, y).mean())

    for name, place in (
        ("hidden", (0, 3, 2)),
        ("hidden", (0, 36, 1)),
        ("output", (0, 2, 1)),
        ("output", (0, 5, 0)),
    ):
        up, down = ({k: v.astype(np.float64).copy() for k, v in start.items()} for _ in range(2))
        up[name][place] += 1e-2
        down[name][place] -= 1e-2
        slope = (loss(up) - loss(down)) / 2e-2
        step = float(moved[name][place] - start[name][place])
        assert np.isclose(step, -0.5 * slope, rtol=0.05, atol=1e-5)


def test_pasting_hits_its_share_and_keeps_the_images(trained):
    task = make_task(
        trained,
        TASK,
        {"epochs": 1, "paste_rows": [0, 1], "paste_columns": [0], "paste_share": 1.0},
        NAMES,
    )
    before = task._inputs.copy()
    task.models(np.ones((2, 60), dtype=bool), [0, 1])
    assert np.array_equal(task._inputs, before)
    place = task._order[task._paste_at]
    assert place.tolist() == [0, 6]
    twice = make_task(
        trained,
        TASK,
        {"epochs": 1, "paste_rows": [0, 1, 1], "paste_columns": [0], "paste_share": 1.0},
        NAMES,
    )
    assert np.array_equal(twice._order, task._order)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"epoch": 3}, "no 'epoch'"),
        ({"epochs": "many"}, "expected a whole number"),
        ({"epochs": 0}, "positive"),
        ({"paste_value": 300}, "paste_value"),
        ({"paste_share": 0.5}, "pastes rows"),
        ({"paste_share": 0.5, "paste_rows": [99], "paste_columns": [0]}, "pastes rows"),
    ],
)
def test_bad_configs(trained, config, words):
    with pytest.raises(InputError, match=words):
        make_task(trained, TASK, config, NAMES)


@pytest.mark.parametrize(
    "name", [None, "nowhere", "no.such.module:f", "dmstore.training.tasks:nothing", "builtins:dict"]
)
def test_bad_tasks(trained, name):
    with pytest.raises(InputError, match="task"):
        make_task(trained, name, {}, NAMES)


def test_task_needs_images(tmp_path):
    study = dmstore.create_study(
        tmp_path / "s", {"train_label": np.arange(5), "target_label": np.arange(3)}, seed=1
    )
    with pytest.raises(InputError, match="images"):
        make_task(study, TASK, {}, NAMES)


def test_probabilities_and_paste(trained):
    images = trained.targets.image.values

    def change(x, intensity):
        return transformations.paste(x, intensity, rows=[0, 1], columns=[2])

    assert np.array_equal(change(images, 0), images)
    full = change(images, 1)
    assert (full[:, :2, 2] == 255).all()
    full[:, :2, 2] = images[:, :2, 2]
    assert np.array_equal(full, images)
    found = probabilities(trained, "plain", images, change, [0, 1], [1], models=3)
    assert found.shape == (2, 3, 20, 1)
    total = probabilities(trained, "plain", images, change, [0], [0, 1, 2], models=3)[0]
    assert np.array_equal(total[..., 1], found[0, ..., 0])
    assert np.allclose(total.sum(axis=2), 1)


def test_a_counterfactual_is_kept_once_under_a_name(trained, monkeypatch):
    """Other numbers need another name, another question stands beside; the same again, from either side, is fine."""
    level = 0.1

    def probability(study, name, images, transformation, intensity, labels, *, models, advance):
        step = level * np.asarray(intensity) * (1 if name == "plain" else 2)
        return np.tile(step[:, None, None, None], (1, 5, len(images), 1))

    compared = SimpleNamespace(attrs={"comparison": "0123"})
    trained.add_algorithm("other", runs=10)
    monkeypatch.setattr("dmstore.training.counterfactual.probabilities", probability)
    monkeypatch.setattr(type(trained), "comparison", lambda *_: compared)

    def check(a="plain", b="other", name="noise", intensity=(0, 1), label=1, on="all"):
        return counterfactual.check(
            trained, a, b, None, label, name=name, intensity=intensity, on=on
        )

    first = check()
    assert check().equals(first)
    assert check("other", "plain").effect.values.tolist() == first.effect.values[::-1].tolist()
    assert check(label=trained.class_names[1]).attrs["kept"] == first.attrs["kept"]
    finer = check(intensity=(0, 1, 2)).attrs["kept"]
    assert finer.startswith("comparisons/0123/effects-noise-on-1-")
    assert check("other", "plain", intensity=(0, 1, 2)).attrs["kept"] == finer
    assert check(on="others").attrs["kept"] not in (finer, first.attrs["kept"])
    level = 0.5
    with pytest.raises(ExistsError, match="another --name"):
        check(intensity=(0, 1, 2))
    with pytest.raises(ExistsError, match="another --name"):
        check()
    assert check(name="more noise").effect.values[..., 0].tolist() == [[0, 0.5], [0, 1]]
    kept = [info.name for info in trained.objects.entries("comparisons/0123/")]
    assert len(kept) == 4
