"""Recipes and configs: the paper's values, every fault named, schedules and batches as pure functions."""

import json
from dataclasses import fields

import numpy as np
import pytest
from click.testing import CliRunner
from helpers import examples

import dmstore
from dmstore import cli
from dmstore.errors import InputError
from dmstore.training import recipe
from dmstore.training.config import TrainingConfig, explained
from dmstore.training.loop.batches import Seeds, epoch_batches
from dmstore.training.loop.schedule import learning_rate

# Paper B.2, and E.1 to E.3 and F.1 where they name values.
PAPER = {
    "cifar10-high-noise": {
        "model": "resnet9",
        "epochs": 100,
        "stop_loss": 0.01,
        "batch_size": 256,
        "learning_rate": 0.1,
        "momentum": 0.9,
        "weight_decay": 5e-4,
        "schedule": "step",
        "schedule_epochs": 20,
        "schedule_factor": 0.5,
        "crop": "pad",
        "crop_padding": 4,
        "flip": "random",
    },
    "cifar10-low-noise": {"batch_size": 1024, "learning_rate": 0.02, "schedule": "constant"},
    "living17-augmented": {
        "model": "resnet18",
        "epochs": 25,
        "batch_size": 1024,
        "learning_rate": 0.6,
        "schedule": "triangle",
        "peak_epoch": 12.0,
        "weight_decay": 5e-4,
        "label_smoothing": 0.1,
        "crop": "resized",
        "crop_scale": (0.08, 1.0),
        "flip": "random",
    },
    "living17-plain": {"crop": "none", "flip": "none", "label_smoothing": 0.1},
    "living17-crop-100": {"crop": "none", "flip": "random"},
    "waterbirds-pretrained": {
        "model": "resnet50",
        "weights": "IMAGENET1K_V1",
        "epochs": 50,
        "stop_loss": 0.01,
        "batch_size": 64,
        "learning_rate": 0.005,
        "schedule": "constant",
        "weight_decay": 1e-4,
        "crop": "none",
        "flip": "none",
        "choose": "validation",
    },
    "waterbirds-scratch": {
        "weights": "",
        "learning_rate": 0.01,
        "schedule": "step",
        "schedule_epochs": 15,
        "schedule_factor": 0.2,
    },
    "waterbirds-resnet18": {"model": "resnet18", "weights": "IMAGENET1K_V1"},
}


@pytest.mark.parametrize("name", PAPER)
def test_recipes_have_the_values_of_the_paper(name):
    config = recipe.find(name).config
    assert {key: getattr(config, key) for key in PAPER[name]} == PAPER[name]


def test_every_recipe_is_whole_and_resolves_to_every_value():
    for one in recipe.recipes():
        resolved = recipe.resolve(one.name)
        assert (resolved["recipe"], resolved["recipe_version"]) == (one.name, one.version)
        assert set(resolved) == set(TrainingConfig.__dataclass_fields__)
        assert one.title
        assert one.source


def test_all_faults_of_settings_are_said_at_once():
    with pytest.raises(InputError) as raised:
        recipe.resolve(
            "mlp", {"epoch": 3, "batch_size": "many", "momentum": 2, "model": "vgg", "flip": True}
        )
    for part in (
        "has no 'epoch' (is 'epochs' meant?)",
        "batch_size is 'many', expected a whole number",
        "momentum is 2, expected 0 to 1",
        "model is 'vgg', expected one of resnet9",
        "flip is True, expected one of none, random, alternating",
    ):
        assert part in str(raised.value)
    assert "it knows" not in str(raised.value)
    with pytest.raises(InputError) as raised:
        recipe.resolve("mlp", {"xyzzy": 3, "plugh": 1})
    assert str(raised.value).count("it knows recipe, ") == 1


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"crop_scale": [0.5, 0.1]}, "crop_scale is"),
        ({"crop_scale": [0.5, 2]}, "expected at most 1"),
        ({"schedule": "triangle", "peak_epoch": 15}, "peak_epoch is 15"),
        ({"features": "f", "model": "cnn"}, "features are for the models mlp and linear"),
        ({"weights": "x.pt", "model": "cnn"}, "weights are for ResNets"),
        ({"epochs": float("nan")}, "epochs is nan"),
    ],
)
def test_values_that_do_not_go_together_are_refused(changes, text):
    with pytest.raises(InputError, match=text.replace("(", r"\(")):
        recipe.resolve("small-cnn", changes)


def test_settings_are_json_or_text():
    assert recipe.settings(
        ["epochs=3", "model=mlp", "crop_scale=[0.1, 1]", "compile=true", "momentum=.5"]
    ) == {
        "epochs": 3,
        "model": "mlp",
        "crop_scale": [0.1, 1],
        "compile": True,
        "momentum": 0.5,
    }
    with pytest.raises(InputError, match="--set epochs, x: give key=value"):
        recipe.settings(["epochs", "x", "a=1"])


def test_a_recipe_is_shown_with_what_each_setting_is():
    said = explained(TrainingConfig)
    assert list(said) == [one.name for one in fields(TrainingConfig)]
    assert all(said.values())
    assert not any("\n" in text or "``" in text for text in said.values())
    shown = CliRunner().invoke(cli.group, ["recipes", "cifar10-low-noise"]).stdout
    (line,) = [line for line in shown.splitlines() if line.startswith("  stop_loss = ")]
    assert line.endswith(
        "Ends training once the mean training loss of an epoch is below; 0 never does."
    )


def test_the_command_lists_recipes_and_add_keeps_the_resolved_config(tmp_path):
    result = CliRunner().invoke(cli.group, ["recipes", "--json"])
    shown = json.loads(result.output)
    assert {"name", "dataset", "model"} <= shown[0].keys()
    assert len(shown) == len(recipe.recipes()) > 10
    dmstore.create_study(tmp_path / "s", examples(train=20, target=5), seed=0)
    arguments = ["add", str(tmp_path / "s"), "a", "--recipe", "cifar10-low-noise", "--runs", "4"]
    done = CliRunner().invoke(cli.group, [*arguments, "--set", "epochs=2", "--json"])
    assert done.exit_code == 0
    algorithm = dmstore.open_study(tmp_path / "s").algorithm("a")
    assert algorithm.task == recipe.TASK
    assert (algorithm.config["epochs"], algorithm.config["learning_rate"]) == (2, 0.02)
    assert algorithm.config["recipe"] == "cifar10-low-noise"


@pytest.mark.parametrize(
    ("values", "at", "rate"),
    [
        ({"schedule": "constant"}, (7, 0.5), 1.0),
        ({"schedule": "step", "schedule_epochs": 20, "schedule_factor": 0.5}, (19, 0.9), 1.0),
        ({"schedule": "step", "schedule_epochs": 20, "schedule_factor": 0.5}, (40, 0.0), 0.25),
        ({"schedule": "linear", "epochs": 10}, (5, 0.0), 0.5),
        ({"schedule": "triangle", "epochs": 25, "peak_epoch": 12}, (0, 0.0), 0.0),
        ({"schedule": "triangle", "epochs": 25, "peak_epoch": 12}, (6, 0.0), 0.5),
        ({"schedule": "triangle", "epochs": 25, "peak_epoch": 12}, (12, 0.0), 1.0),
        ({"schedule": "triangle", "epochs": 25, "peak_epoch": 12}, (24, 0.5), 0.5 / 13),
    ],
)
def test_schedules(values, at, rate):
    assert np.isclose(learning_rate(TrainingConfig(learning_rate=1.0, **values), *at), rate)


@pytest.mark.parametrize("batches", ["all", "whole"])
def test_an_epoch_takes_every_unit_once(batches):
    seen = np.flatnonzero(np.random.default_rng(0).random(100) < 0.5)
    made = epoch_batches(seen, TrainingConfig(batch_size=10, batches=batches), 5, 3)
    sizes = [len(batch) for batch in made]
    taken = np.concatenate(made)
    assert len(np.unique(taken)) == len(taken)
    assert set(taken) <= set(seen)
    assert len(taken) == (len(seen) if batches == "all" else len(seen) // 10 * 10)
    assert sizes[0] == 10
    again = epoch_batches(seen, TrainingConfig(batch_size=10, batches=batches), 5, 3)
    assert all(np.array_equal(a, b) for a, b in zip(made, again, strict=True))
    other = epoch_batches(seen, TrainingConfig(batch_size=10, batches=batches), 5, 4)
    assert not np.array_equal(made[0], other[0])


def test_one_unit_is_never_a_batch_alone():
    made = epoch_batches(np.arange(21), TrainingConfig(batch_size=10), 0, 0)
    assert [len(batch) for batch in made] == [10, 11]


def test_the_number_of_batches_is_rounded_at_random_without_bias():
    config = TrainingConfig(batch_size=10, batches="rounded")
    counts = [len(epoch_batches(np.arange(43), config, seed, 0)) for seed in range(2000)]
    assert set(counts) == {4, 5}
    # 4.3 on average; a standard error is .01.
    assert abs(np.mean(counts) - 4.3) < 0.04


def test_seeds_of_a_run_are_apart_and_may_be_held():
    first, second = (Seeds.of(seed, TrainingConfig()) for seed in (1, 2))
    values = [first.init, first.order, first.augmentation, second.init, second.order]
    assert len(set(values)) == 5
    held = Seeds.of(2, TrainingConfig(init_seed=7))
    assert held == Seeds(7, second.order, second.augmentation)
