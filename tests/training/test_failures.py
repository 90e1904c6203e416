"""Runs that fail: recorded, passed over, tried again on request, and told from faults of the task."""

import json

import numpy as np
import pytest
from helpers import Done, examples, files

import dmstore
from dmstore.errors import InputError
from dmstore.study import failures
from dmstore.training import worker
from dmstore.upkeep.maintenance import status, vacuum
from dmstore.upkeep.verification import verify

RUNS = 12


@pytest.fixture
def make(tmp_path):
    study = dmstore.create_study(tmp_path / "s.dm", examples(), seed=3)

    def made(faults, batch=4):
        (tmp_path / "faults.json").write_text(json.dumps(faults))
        if "a" not in study.algorithms:
            config = {"log": str(tmp_path / "log"), "faults": str(tmp_path / "faults.json")}
            study.add_algorithm(
                "a", runs=RUNS, task="slow_task:Faulty", config={**config, "batch": batch}
            )
        return study

    return made


def failed(study):
    algorithm = study.algorithm("a")
    runs = failures.failed(algorithm.objects, algorithm.prefix, algorithm.pending())
    return {
        one["run"]: one["error"]
        for one in failures.read(algorithm.objects, algorithm.prefix, algorithm.uuid, runs)
    }


@pytest.mark.parametrize("batch", [1, 4, 50])
def test_failed_runs_stop_no_other_and_are_tried_again_on_request(make, tmp_path, batch):
    study = make({2: "nan", 3: "raise", 7: "shape"}, batch)
    assert worker.train(study, "a") == RUNS - 3
    said = failed(study)
    assert sorted(said) == [2, 3, 7]
    assert said[3] == "RuntimeError: loss is nan in step 3"
    assert "NaN" in said[2]
    assert "shape (1, 22)" in said[7]
    runs = study.runs("a")
    assert runs.run.values.tolist() == [0, 1, 4, 5, 6, 8, 9, 10, 11]
    assert np.allclose(runs.accuracy.values, runs.margin.values[:, 0])
    (tmp_path / "log").unlink()
    make({3: "raise"})
    assert worker.train(study, "a") == 0
    assert not (tmp_path / "log").exists()
    assert worker.train(study, "a", retry_failed=True) == 2
    assert sorted(failed(study)) == [3]
    make({})
    assert worker.train(study, "a", part="next", retry_failed=True) == 1
    assert failed(study) == {}
    assert not list(study.objects.entries("algorithms/a/claims/"))


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("shape", "10 runs in a row failed"),
        ("none", "returned NoneType"),
        ("raise", "loss is nan in step 3"),
        ("cuda", "No CUDA GPUs"),
        ("full", "No space left"),
    ],
)
@pytest.mark.parametrize("part", [None, "next"])
def test_a_fault_of_all_runs_blames_none(make, fault, words, part):
    study = make({-1: fault})
    with pytest.raises(InputError, match=words):
        worker.train(study, "a", part=part)
    assert failed(study) == {}
    assert not list(study.objects.entries("algorithms/a/failures/"))
    assert not list(study.objects.entries("algorithms/a/claims/"))
    make({0: "raise"})
    assert worker.train(study, "a", part=part) == RUNS - 1


def test_many_that_fail_again_are_said_to_stay_failed(make):
    study = make({0: "raise"})
    worker.train(study, "a")
    algorithm = study.algorithm("a")
    for number in range(1, RUNS):
        failures.record(algorithm.objects, algorithm.prefix, algorithm.uuid, number, "x: y")
    dmstore.retract(study, "a", [f"run=1-{RUNS - 1}"], reason="a test")
    make({-1: "raise"})
    with pytest.raises(
        InputError, match=r"10 runs that had failed before failed again.*stay failed; mend"
    ):
        worker.train(study, "a", retry_failed=True)
    assert sorted(failed(study)) == list(range(RUNS))


def test_the_command_line_says_what_failed(make, tmp_path):
    study = make({2: "nan", 3: "raise"})
    ended = Done("train", study.path, "a", "-Q", "--json")
    assert ended.returncode == 4
    assert json.loads(ended.stdout) == {
        "algorithm": "a",
        "part": None,
        "trained": 10,
        "pending": 0,
        "failed": 2,
    }
    ended = Done("train", study.path, "a", "-Q")
    assert "--retry-failed" in ended.stdout
    entry = status(study)["algorithms"]["a"]
    assert (entry["stored"], entry["pending"], entry["failed"]) == (10, 0, 2)
    assert [(one["run"], one["error"][:12]) for one in entry["failures"]] == [
        (3, "RuntimeError"),
        (2, "InputError: "),
    ]
    said = Done("status", study.path).stdout
    assert "2 runs failed" in said
    assert f"'dmstore train {study.path} a --retry-failed'" in said
    assert "run 3 on " in said
    assert "loss is nan" in said
    make({})
    assert Done("train", study.path, "a", "-Q", "--retry-failed").returncode == 0
    assert "failed" not in Done("status", study.path).stdout


def test_verify_vacuum_publish_and_remove_know_the_records(make, tmp_path):
    study = make({2: "nan", 3: "raise"})
    worker.train(study, "a")
    assert not list(verify(study))
    names = sorted(name for name in files(tmp_path / "s.dm") if "/failures/" in name)
    assert len(names) == 2
    vacuum(study, grace=0)
    assert all((tmp_path / "s.dm" / name).exists() for name in names)
    make({3: "raise"})
    worker.train(study, "a", retry_failed=True)
    vacuum(study)
    assert (tmp_path / "s.dm" / names[0]).exists()
    assert names[0] in vacuum(study, grace=0)["a"].removed
    assert sorted(failed(study)) == [3]
    assert Done("compact", study.path).returncode == 0
    assert Done("publish", study.path, tmp_path / "out").returncode == 0
    assert not [name for name in files(tmp_path / "out") if "/failures/" in name]
    path = tmp_path / "s.dm" / names[1]
    document = json.loads(path.read_text())
    path.write_text(json.dumps({**document, "run": 4}))
    (problem,) = verify(study)
    assert problem.where == names[1]
    assert "does not belong here" in problem.text
    path.write_text(json.dumps(document))
    study.algorithm("a").remove(reason="a test")
    assert (tmp_path / "s.dm" / names[1]).exists()


def test_an_algorithm_with_failures_alone_needs_no_reason_to_be_removed(make):
    study = make(dict.fromkeys(range(9), "raise"))
    study.algorithm("a").extend(1)
    worker.train(study, "a", part=None)
    study.add_algorithm("b", runs=2, task="slow_task:Slow")
    algorithm = study.algorithm("b")
    failures.record(algorithm.objects, algorithm.prefix, algorithm.uuid, 1, "E: x")
    algorithm.remove()
    assert "b" not in study.algorithms
