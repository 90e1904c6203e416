"""Workers whose runs differ by more than masks and seeds: what says so, and what it reads for that."""

import numpy as np
import pytest
from commands import run, run_json

import dmstore
from dmstore.storage.acts.compact import compact
from dmstore.study import conditions
from dmstore.training import recipe
from dmstore.training.full import train_full
from dmstore.training.worker import train
from dmstore.upkeep.maintenance import status
from dmstore.upkeep.retraction import retract

torch = pytest.importorskip("torch")

TRAIN, TARGETS, RUNS = 40, 8, 12


@pytest.fixture
def study(tmp_path):
    draw = np.random.default_rng(0)
    given = {}
    for name, count in (("train", TRAIN), ("target", TARGETS)):
        given[f"{name}_label"] = np.arange(count) % 2
        given[f"{name}_features"] = draw.standard_normal((count, 5)).astype(np.float32)
    made = dmstore.create_study(tmp_path / "s.dm", given, seed=1)
    values = {"model": "linear", "features": "features", "epochs": 1, "together": 4}
    made.add_algorithm("a", runs=RUNS, task=recipe.TASK, config=recipe.resolve("mlp", values))
    return made


@pytest.fixture
def cpu(monkeypatch):
    def become(**flags):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: flags, raising=False)

    return become


def some(study, batches):
    """Train so many batches of four."""
    left = iter(range(batches))
    return train(study, "a", stop=lambda: next(left, None) is None)


def test_a_worker_on_another_cpu_says_that_it_mixes(study, cpu, caplog):
    cpu()
    some(study, 1)
    assert not caplog.records
    some(study, 1)
    assert not caplog.records
    assert not list(conditions.mixed(status(study)["algorithms"]["a"]["conditions"]))
    cpu(amx_bf16=True)
    some(study, 1)
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.startswith("a: stored runs have precision float32 (8 runs)")
    assert "bfloat16" in said
    assert "--set precision=float32" in said
    for _ in range(2):
        kept = run_json("status", study.path)["algorithms"]["a"]["conditions"]
        assert kept["precision"] == {"float32": 8, "bfloat16": 4}
        assert kept["device"] == {"cpu": RUNS}
        lines = [line for line in run("status", study.path)[0].splitlines() if "unlike" in line]
        assert len(lines) == 1
        assert "precision: float32 (8 runs), bfloat16 (4 runs)" in lines[0]
        compact(study.algorithm("a").table)
    out, err = run("train", study.path, "a")
    assert "unlike precision" in out
    # Nothing is left to train, so that there is nothing to warn of.
    assert "warning" not in err
    caplog.clear()
    train_full(study, "a", 2)
    assert "a: stored runs have precision float32" in caplog.text
    # The remedy for what is stored.
    cpu()
    retract(study, "a", ["precision=bfloat16"], reason="another CPU")
    assert "warning" not in run("train", study.path, "a")[1]
    assert status(study)["algorithms"]["a"]["conditions"]["precision"] == {"float32": RUNS}


def test_a_held_precision_is_not_mixed(study, cpu, caplog):
    config = {**study.algorithm("a").config, "precision": "float32"}
    study.add_algorithm("held", runs=RUNS, task=recipe.TASK, config=config)
    for flags in ({}, {"amx_bf16": True}):
        cpu(**flags)
        left = iter(range(1))
        train(study, "held", stop=lambda left=left: next(left, None) is None)
    assert not caplog.records
    assert conditions.stored(study.algorithm("held"))["precision"] == {"float32": 8}


def test_only_columns_are_read_and_damage_stops_no_worker(study, cpu, monkeypatch):
    cpu()
    some(study, 1)
    view = study.algorithm("a").table.view()
    asked = []
    read = type(view).read

    def reading(self, names, *args):
        asked.extend(names)
        return read(self, names, *args)

    monkeypatch.setattr(type(view), "read", reading)
    assert conditions.stored(study.algorithm("a"))["precision"] == {"float32": 4}
    assert set(asked) == {"precision", "loader", "device"}

    def gone(*_):
        raise FileNotFoundError

    monkeypatch.setattr(type(view), "read", gone)
    assert conditions.stored(study.algorithm("a")) == {}
    assert some(study, 1) == 4


def test_columns_of_other_tasks_mean_what_they_mean(study):
    study.add_algorithm("own", runs=4)
    with dmstore.training.RunWriter(study, "own") as writer:
        for run in writer.pending():
            writer.append(run, margin=np.zeros(TARGETS), device=f"cuda:{run.id}")
    assert status(study)["algorithms"]["own"]["conditions"] == {}


def test_a_checkpoint_of_another_precision_is_not_taken_up(study, tmp_path):
    from dmstore.training.checkpoint import Checkpoints

    algorithm = study.algorithm("a")
    runs = algorithm.describe(algorithm.pending()[:2])

    def of(precision):
        given = {"precision": precision}
        return Checkpoints(algorithm, tmp_path / "kept", 1, conditions=given).of(runs)

    of("float32").save(b"state")
    assert of("float32").load() == b"state"
    assert of("bfloat16").load() is None


def test_the_command_warns_when_it_begins(study, cpu):
    cpu()
    some(study, 1)
    cpu(amx_bf16=True)
    lines = run("train", study.path, "a", "-Q")[1].splitlines()
    (said,) = [line for line in lines if "warning" in line]
    assert (
        "a: stored runs have precision float32 (4 runs), those of this worker will have bfloat16"
        in said
    )


def test_accuracy_is_told(study, cpu):
    cpu()
    assert status(study)["algorithms"]["a"]["accuracy"] is None
    assert "on average" not in run("status", study.path)[0]
    some(study, 2)
    seen = study.runs("a")["accuracy"].values
    kept = run_json("status", study.path)["algorithms"]["a"]["accuracy"]
    assert kept == {"mean": pytest.approx(seen.mean()), "least": seen.min()}
    expected = f"accuracy {seen.mean():.3g} on average, {seen.min():.3g} at least"
    assert expected in run("status", study.path)[0]
    assert "on average" in run("train", study.path, "a")[0]


def test_what_is_called_accuracy_and_is_no_number_is_left_alone(study):
    with dmstore.training.RunWriter(study, "a") as writer:
        for one in writer.pending():
            writer.append(one, margin=np.zeros(TARGETS), accuracy="good")
    assert status(study)["algorithms"]["a"]["accuracy"] is None
