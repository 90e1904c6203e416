"""Workers that share what is undone by claims, ends that are asked for, and checkpoints within a run."""

import collections
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import Done, dying, examples

import dmstore
from dmstore import provenance
from dmstore.cli.watching import said
from dmstore.errors import InputError
from dmstore.study import failures
from dmstore.study.claims import Claims, workers
from dmstore.study.plan import Part
from dmstore.training import RunWriter, checkpoint, ending, worker
from dmstore.training.checkpoint import Checkpoint, Checkpoints
from dmstore.training.ending import Ended
from dmstore.training.sharing import SharedWork
from dmstore.upkeep.activity import activity
from dmstore.upkeep.maintenance import vacuum


def make(place, log, task="Slow", runs=12, **config):
    study = dmstore.create_study(place, examples(), seed=3)
    study.add_algorithm(
        "a", runs=runs, task=f"slow_task:{task}", config={"log": str(log), **config}
    )
    return study


def trained(log):
    return collections.Counter(int(line.split()[0]) for line in log.read_text().splitlines())


@pytest.mark.parametrize("place", ["directory", "memory"])
def test_three_workers_train_each_run_once(tmp_path, place):
    log = tmp_path / "log"
    path = tmp_path / "s.dm" if place == "directory" else "memory://three-workers/s"
    study = make(path, log, seconds=0.02, batch=2)
    done, threads = [], []
    for _ in range(3):
        opened = dmstore.open_study(path)

        def work(opened=opened):
            done.append(worker.train(opened, "a", part="next"))

        threads.append(threading.Thread(target=work))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(done) == 12
    assert set(trained(log).values()) == {1}
    assert len(study.runs("a").run) == 12
    assert not list(study.objects.entries("algorithms/a/claims/"))


def test_claims_of_a_killed_worker_expire(tmp_path, monkeypatch):
    study = make(tmp_path / "s.dm", tmp_path / "log", runs=40, batch=5)
    algorithm = study.algorithm("a")
    dead = Claims(study.objects, algorithm.prefix, algorithm.uuid, 5)
    assert dead.claim(1, 1, [5, 6]) is not None
    assert dead.claim(1, 1, [5, 6]) is None
    assert workers(study.objects, algorithm.prefix) != {}
    monkeypatch.setattr("dmstore.training.sharing._WAIT", -1.0)
    assert worker.train(study, "a", part="next") == 35
    assert study.algorithm("a").pending().tolist() == [5, 6, 7, 8, 9]
    (mine,) = study.objects.entries("algorithms/a/claims/")
    os.utime(tmp_path / "s.dm" / mine.name, (time.time() - 301,) * 2)
    assert worker.train(study, "a", part="next") == 5
    assert set(trained(tmp_path / "log").values()) == {1}
    (left,) = study.objects.entries("algorithms/a/claims/")
    assert vacuum(study, grace=0)["a"].removed == ()
    os.utime(tmp_path / "s.dm" / left.name, (0, 0))
    assert vacuum(study)["a"].removed == (left.name,)


def test_a_worker_waits_for_what_others_leave(tmp_path, monkeypatch):
    study = make(tmp_path / "s.dm", tmp_path / "log", batch=5)
    looks = []

    def taken(self):
        looks.append(1)
        return ({0}, {0: 1}) if len(looks) < 6 else (set(), {0: 1})

    monkeypatch.setattr(Claims, "taken", taken)
    assert worker.train(study, "a", part="next", claims_expire=0.5) == 12


def test_two_workers_on_one_part_store_each_run_once(tmp_path):
    study = make(tmp_path / "s.dm", tmp_path / "log")
    other = dmstore.open_study(study.path)
    opened, before = other.algorithm("a"), study.algorithm("a").pending(Part(1, 2))
    assert worker.train(study, "a", part=Part(1, 2)) == 6
    # The other one looked before anything was stored.
    with RunWriter(other, "a", part="1/2") as writer:
        task = worker.make_task(other, opened.task, opened.config, ["margin"])
        runs = writer.describe(before)
        writer.append_many(runs, **task.train(runs))
    assert len(study.runs("a").run) == 6
    assert study.runs("a").attrs["conflicts"] == 0
    ended = Done("train", study.path, "a", "--part", "1/2", "-Q", "--json")
    assert (ended.returncode, json.loads(ended.stdout)["trained"]) == (0, 0)


def test_a_part_that_has_no_runs_is_refused(tmp_path):
    study = make(tmp_path / "s.dm", tmp_path / "log", runs=3)
    with pytest.raises(InputError, match="has 3 runs planned"):
        worker.train(study, "a", part=Part(4, 9))


def start(study, *arguments):
    command = [sys.executable, "-m", "dmstore", "train", study.path, "a", "--json", "-Q"]
    path = os.pathsep.join([str(Path(__file__).parent.parent / "support"), *sys.path])
    return subprocess.Popen(
        [*command, *arguments],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )


def wait_for_lines(log, count):
    for _ in range(3000):
        if log.exists() and len(log.read_text().splitlines()) >= count:
            return
        time.sleep(0.02)
    raise AssertionError


def test_sigterm_stores_what_is_finished_and_ends_with_3(tmp_path):
    study = make(tmp_path / "s.dm", tmp_path / "log", seconds=0.3, runs=500)
    process = start(study, "--part", "next")
    wait_for_lines(tmp_path / "log", 3)
    process.send_signal(signal.SIGTERM)
    said = json.loads(process.communicate()[0])
    assert process.returncode == 3
    assert said["trained"] >= 2
    assert len(study.runs("a").run) == said["trained"] == len(trained(tmp_path / "log"))
    assert not list(study.objects.entries("algorithms/a/claims/"))


def test_a_run_that_outlasts_the_patience_is_given_up(tmp_path, monkeypatch):
    study = make(tmp_path / "s.dm", tmp_path / "log")
    monkeypatch.setattr(ending, "PATIENCE", 0.05)

    def train(self, runs):
        if runs[0].id == 2:
            signal.raise_signal(signal.SIGTERM)
            for _ in range(100_000):
                threading.Event().wait(0.01)
        return {"margin": np.array([self.output(run) for run in runs])}

    monkeypatch.setattr("slow_task.Slow.train", train)
    ended = Done("train", study.path, "a", "-Q", "--json")
    assert ended.returncode == 3
    assert json.loads(ended.stdout)["trained"] == 2
    assert study.runs("a").run.values.tolist() == [0, 1]


@pytest.mark.parametrize("how", ["raise", "kill"])
def test_a_run_goes_on_where_its_checkpoint_was_bit_for_bit(tmp_path, how):
    whole = make(tmp_path / "whole.dm", tmp_path / "log0", "Resumable", runs=2)
    worker.train(whole, "a", checkpoint_every=1e-9)
    # A killed process for the first run alone: they are slow to start.
    runs = 2 if how == "raise" else 1
    study = make(tmp_path / "s.dm", tmp_path / "log", "Resumable", runs=runs, die=13, how=how)
    place = tmp_path / "s.dm.checkpoints" / "a"
    for death in range(runs):
        if how == "kill":
            process = start(study, "--checkpoint-every", "0.0001")
            process.communicate()
            assert process.returncode == -signal.SIGKILL
        else:
            with pytest.raises(KeyboardInterrupt):
                worker.train(study, "a", checkpoint_every=1e-9)
        assert place.is_dir()
        assert len(study.algorithm("a").pending()) == runs - death
    assert not list((tmp_path / "s.dm").rglob("*checkpoint*"))
    worker.train(study, "a", checkpoint_every=1e-9)
    assert np.array_equal(study.runs("a").margin.values, whole.runs("a").margin.values[:runs])
    assert not place.parent.exists()
    steps = [line.split() for line in (tmp_path / "log").read_text().splitlines()]
    # By the clock of a process the last steps, or all, may not have been due when it was killed.
    if how == "raise":
        assert all([str(run), "13"] in steps for run in range(runs))
    else:
        assert steps


def test_a_checkpoint_of_anything_else_is_not_used(tmp_path, caplog):
    study = make(tmp_path / "s.dm", tmp_path / "log", "Resumable")
    algorithm = study.algorithm("a")
    first, second = algorithm.describe(np.arange(2))
    kept = Checkpoints(algorithm, tmp_path / "c", 5.0)
    kept.of([first]).save(b"data")
    assert kept.of([first]).load() == b"data"
    assert kept.of([second]).load() is None
    assert kept.of([first, second]).load() is None
    first.mask[0] ^= True
    assert kept.of([first]).load() is None
    first.mask[0] ^= True
    study.add_algorithm("b", runs=2, task="slow_task:Resumable", config={"log": "x"})
    assert Checkpoints(study.algorithm("b"), tmp_path / "c", 5.0).of([first]).load() is None
    (path,) = (tmp_path / "c" / "a").iterdir()
    raw = path.read_bytes()
    path.write_bytes(raw[:-1] + b"!")
    assert kept.of([first]).load() is None
    assert "damaged" in caplog.text
    path.write_bytes(raw)
    kept.forget([first])
    assert not (tmp_path / "c").exists()


def test_a_checkpoint_is_due_after_its_time_and_when_the_end_is_near(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(checkpoint.time, "monotonic", lambda: now[0])
    stop = []
    one = Checkpoint(tmp_path / "d" / "x", b"k" * 32, 10.0, lambda: bool(stop))
    assert not one.due()
    now[0] = 110.0
    assert one.due()
    one.save(b"1")
    assert not one.due()
    stop.append(1)
    assert one.due()
    with pytest.raises(Ended):
        one.save(b"2")
    assert one.load() == b"2"


def test_a_full_disk_keeps_the_checkpoint_before_and_the_run(tmp_path, monkeypatch, caplog):
    one = Checkpoint(tmp_path / "x", b"k" * 32, 10.0)
    one.save(b"1")

    def full(file):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint.os, "fsync", full)
    one.save(b"2")
    one.save(b"3")
    assert one.load() == b"1"
    assert caplog.text.count("the disk is full") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--checkpoint-every", "10m"], "has no 'train_resumable'"),
        (["--part", "third"], "I/N"),
        (["--part", "next", "--claims-expire", "0"], "more than 0 seconds"),
        (["--part", "4/3"], "count from 1"),
    ],
)
def test_bad_arguments(tmp_path, arguments, words):
    study = make(tmp_path / "s.dm", tmp_path / "log")
    ended = Done("train", study.path, "a", *arguments)
    assert ended.returncode in (1, 2)
    assert words in ended.stderr
    assert not (tmp_path / "log").exists()


def test_a_study_in_a_bucket_has_no_place_beside_it(tmp_path):
    study = make("memory://beside/s", tmp_path / "log", "Resumable", runs=1)
    with pytest.raises(InputError, match="--checkpoints DIR"):
        worker.train(study, "a", checkpoint_every=5.0)
    assert worker.train(study, "a", checkpoint_every=5.0, checkpoints=tmp_path / "c") == 1


def test_a_full_disk_keeps_what_was_stored(tmp_path, monkeypatch):
    study = make(tmp_path / "s.dm", tmp_path / "log", "Slow")
    worker.train(study, "a", part=Part(1, 2))

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("dmstore.storage.objects.posix.create_file", full)
    ended = Done("train", study.path, "a", "-Q")
    assert ended.returncode == 1
    assert "the disk is full" in ended.stderr
    assert not list(study.objects.entries("algorithms/a/failures/"))
    monkeypatch.undo()
    assert len(study.runs("a").run) == 6
    assert Done("train", study.path, "a", "-Q").returncode == 0


def test_status_watch_says_how_training_goes(tmp_path, monkeypatch):
    study = make(tmp_path / "s.dm", tmp_path / "log", batch=2)
    worker.train(study, "a", part=Part(1, 2))
    algorithm = study.algorithm("a")
    Claims(study.objects, algorithm.prefix, algorithm.uuid, 2).claim(0, 1, [1])
    failures.record(study.objects, algorithm.prefix, algorithm.uuid, 3, "RuntimeError: bad")
    host = provenance.host()
    looks = []

    def sleep(seconds):
        looks.append(seconds)
        if len(looks) == 1:
            worker.train(dmstore.open_study(study.path), "a", part="next", claims_expire=0.01)

    monkeypatch.setattr(
        "dmstore.cli.watching.time", SimpleNamespace(**vars(time) | {"sleep": sleep})
    )
    ended = Done("status", study.path, "--watch", "--every", "7s")
    assert (ended.returncode, looks) == (0, [7.0])
    lines = ended.stdout.splitlines()
    assert "a: 6 runs stored of 12, 5 pending, 1 failed, " in lines[0]
    assert " an hour, " in lines[0]
    assert lines[1].startswith(f"  {host}: 6 runs lately, the last ")
    assert lines[1].endswith("1 worker at work")
    assert lines[2] == f"  last failure: run 3 on {host}: RuntimeError: bad"
    assert "a: 11 runs stored of 12, 1 failed, " in lines[3]
    ended = Done("status", study.path, "a", "--watch", "--json")
    look = json.loads(ended.stdout)["algorithms"]["a"]
    assert (look["stored"], look["pending"], look["failed"]) == (11, 0, 1)
    assert look["hosts"][host]["runs"] == 11
    assert look["seconds_left"] == 0
    assert Done("status", study.path, "--every", "7s").returncode == 2


def test_ctrl_c_ends_the_watch(tmp_path, monkeypatch):
    study = make(tmp_path / "s.dm", tmp_path / "log", batch=2)
    monkeypatch.setattr("dmstore.cli.watching.activity", dying(lambda *a: None, 1)[0])
    assert Done("status", study.path, "--watch").returncode == 0


def test_one_worker_does_not_take_the_whole_of_a_small_plan(tmp_path):
    study = make(tmp_path / "s.dm", tmp_path / "log", runs=20)
    with SharedWork(
        study.algorithm("a"),
        100,
        study.algorithm("a").pending,
        stop=lambda: False,
        flush=lambda: None,
    ) as shared:
        batches = shared.batches()
        sizes = [len(next(batches)) for _ in range(7)]
    assert sorted(sizes) == [2, 3, 3, 3, 3, 3, 3]


def test_the_rate_is_not_that_of_one_write(tmp_path):
    """A batch comes in at once: how long it took shows once the next one is there."""
    study = make(tmp_path / "s.dm", tmp_path / "log", runs=100)
    now = time.time_ns() // 10**6

    def store(first, ago):
        ids = range(first, first + 40)
        with RunWriter(study, "a") as writer:
            writer.append_many(ids, margin=np.zeros((40, 23)), time=[now - 1000 * ago] * 40)

    store(0, 2)
    look = activity(study, "a")
    assert (look["stored"], look["rate"], look["seconds_left"]) == (40, None, None)
    assert "too few came in to say how long" in next(said("a", look))
    store(40, 0)
    rate = activity(study, "a")["rate"]
    assert 40 / 30 * 3600 < rate <= 40 / 2 * 3600
