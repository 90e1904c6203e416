"""Fits on a dask cluster: real schedulers and worker processes, kills, and what users get wrong."""

import contextlib
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from helpers import Done, dying

import dmstore
from dmstore.core import bits
from dmstore.errors import IncompleteError, InputError, StorageError
from dmstore.regression import fit
from dmstore.regression.fitting import cluster, engine, study_fit
from dmstore.regression.fitting.gram_tiles import GramTiles
from dmstore.regression.fitting.stages import all_stages
from dmstore.regression.problem.design import count_gram
from dmstore.regression.problem.packing import padded
from dmstore.storage.table.rows import Rows

distributed = pytest.importorskip("distributed")
TRAIN, TARGETS, RUNS = 80, 1100, 400
PARAMETERS = {"lams": 8}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A study with planted outputs in five blocks of targets, and what a fit of it without a cluster says."""
    folder = tmp_path_factory.mktemp("cluster")
    draw = np.random.default_rng(2)
    study = dmstore.create_study(
        folder / "study.dm",
        {"train_label": np.arange(TRAIN) % 2, "target_label": np.arange(TARGETS) % 2},
        seed=9,
    )
    algorithm = study.add_algorithm("a", runs=RUNS)
    weight = draw.normal(size=(TRAIN, TARGETS)) * (draw.random((TRAIN, TARGETS)) < 0.2)
    ids = np.arange(RUNS)
    masks = np.array([run.mask for run in algorithm.describe(ids)])
    margin = masks @ weight + draw.normal(size=(RUNS, TARGETS))
    columns = {"time": ids, "host": np.full(RUNS, "h")}
    algorithm.table.append(
        algorithm.complete(Rows(ids, {"mask": masks, "margin": margin}, columns), "x")
    )
    shutil.copytree(folder / "study.dm", folder / "alone.dm")
    alone = dmstore.open_study(folder / "alone.dm")
    fit(alone, "a", **PARAMETERS, threads=2)
    return folder / "study.dm", alone.datamodels("a").load()


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """Cores that are busy with other tests are no fault."""
    monkeypatch.setattr(cluster, "_ANSWER", 60)


@pytest.fixture
def study(made, tmp_path):
    shutil.copytree(made[0], tmp_path / "study.dm")
    return dmstore.open_study(tmp_path / "study.dm")


def same(study, made):
    found = study.datamodels("a").load()
    assert set(found.variables) == set(made[1].variables)
    return all(
        np.array_equal(values.values, made[1][name].values, equal_nan=values.dtype.kind == "f")
        for name, values in found.variables.items()
    )


@pytest.fixture
def scheduler():
    """A scheduler in this process, and a function that starts a worker process for it."""
    with (
        distributed.LocalCluster(
            n_workers=0, dashboard_address=":0", silence_logs="CRITICAL"
        ) as running,
        contextlib.ExitStack() as stack,
    ):

        def start(limit="0"):
            address = running.scheduler_address
            return stack.enter_context(cluster.local_worker(address, 1, limit))

        yield running, start


@pytest.mark.parametrize("scratch", [False, True])
def test_a_killed_worker_changes_no_bit(study, made, scheduler, tmp_path, monkeypatch, scratch):
    """One of two workers is killed while it has a block; the other does it again."""
    running, start = scheduler
    workers = [start(), start()]
    killed = []
    if not scratch:
        # As where a worker has room for few Grams; the second is made from the first.
        monkeypatch.setattr(
            engine.stages, "passes", lambda steps, _: [steps[:1], steps[1:2], steps[2:]]
        )

    def progress(what, done, total):
        if what == "fit" and done and not killed:
            workers[0].send_signal(signal.SIGKILL)
            killed.append(workers[0].wait())

    done = fit(
        study,
        "a",
        **PARAMETERS,
        cluster=running.scheduler_address,
        scratch=tmp_path if scratch else None,
        progress=progress,
    )
    assert killed == [-signal.SIGKILL]
    assert workers[1].poll() is None
    assert done.summary["targets"] == TARGETS
    assert same(study, made)
    assert [path.name for path in tmp_path.iterdir()] == ["study.dm"]


@pytest.mark.slow
def test_a_lost_cluster_keeps_what_is_done(study, made, scheduler, tmp_path, monkeypatch):
    """The cluster goes in the middle of the second pass; the fit is finished without one."""
    running, start = scheduler
    start()
    monkeypatch.setattr(
        engine.stages, "passes", lambda steps, _: [steps[:1], steps[1:3], steps[3:]]
    )
    seen = []

    def progress(what, done, total):
        seen.append((what, done, total))
        # Each pass is told of, and each block: all five have been through the path, and two through two refits.
        if [one for one, *_ in seen].count("fit") == 1 + 5 + 1 + 2:
            running.close()

    def go(**options):
        return fit(study, "a", **PARAMETERS, progress=progress, **options)

    with pytest.raises(IncompleteError, match="the scheduler is gone; what is done is kept"):
        go(cluster=running.scheduler_address, scratch=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["study.dm"]
    blocks = sorted(p.name for p in tmp_path.glob("study.dm/datamodels/a/*/blocks/*"))
    assert [name.split(".")[0][5:] for name in blocks].count("-1") in (2, 3)
    assert [name.split(".")[0][5:] for name in blocks].count("-3") in (2, 3)
    assert len(blocks) == 5
    monkeypatch.undo()
    go()
    assert same(study, made)


def test_local_workers_go_on_with_blocks_that_are_there(study, made, capfd, monkeypatch):
    run, _calls = dying(engine.stages.run, 3)
    monkeypatch.setattr(engine.stages, "run", run)
    with pytest.raises(KeyboardInterrupt):
        fit(study, "a", **PARAMETERS)
    monkeypatch.undo()
    arguments = ["fit", study.path, "a", "--lams", "8", "--cluster", "local:2", "--json"]
    done = Done(*arguments)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["targets"] == TARGETS
    assert "fit a: 0 %" in done.stderr
    assert same(study, made)
    # Nothing is left to do, so nothing is started.
    assert Done(*arguments[:-3], "--cluster", "tcp://127.0.0.1:1").returncode == 0
    assert capfd.readouterr().err == ""


def test_workers_that_cannot_do_it(study, scheduler, monkeypatch):
    running, start = scheduler
    start()

    def go(**options):
        fit(study, "a", **PARAMETERS, cluster=running.scheduler_address, **options)

    with pytest.raises(InputError, match="memory are too little"):
        go(memory=1000)
    with pytest.raises(
        StorageError,
        match=r"/nowhere/at/all: cannot be written to .* that all workers see with --scratch",
    ):
        go(scratch="/nowhere/at/all")
    assert study.fits("a") == []
    with monkeypatch.context() as patched:
        patched.setattr(dmstore, "__version__", "99.1")
        with pytest.raises(
            InputError, match=r"worker tcp.* has dmstore .* begun by 99\.1; install"
        ):
            go()
    # The place of the study has another one.
    study.objects.root = Path(study.path).rename(study.path + "-elsewhere")
    real = study_fit.Job.of

    def elsewhere(*given, **named):
        return dataclasses.replace(real(*given, **named), path=study.path)

    monkeypatch.setattr(study_fit.Job, "of", elsewhere)
    with pytest.raises(InputError, match=r"does not see the study at .*no study there.*same path"):
        go()
    dmstore.create_study(study.path, {"train_label": [0, 1] * 10, "target_label": [0, 1]}, seed=1)
    with pytest.raises(InputError, match=r"does not see the study at .*same path"):
        go()


def test_a_block_that_ends_workers_ends_the_fit(study, scheduler, monkeypatch):
    running, start = scheduler
    monkeypatch.setattr(cluster, "_DEATHS", 2)
    monkeypatch.setattr(cluster.cluster_worker, "look", lambda *_: os._exit(3))
    start(), start()
    with pytest.raises(IncompleteError, match="2 workers were lost at one task"):
        fit(study, "a", **PARAMETERS, cluster=running.scheduler_address)
    monkeypatch.setattr(cluster, "_WORKERS", 1)
    with pytest.raises(IncompleteError, match=r"no worker for 1 s \(none\); start some"):
        fit(study, "a", **PARAMETERS, cluster=running.scheduler_address)


def test_workers_without_memory_are_not_waited_for(study, scheduler, monkeypatch):
    running, start = scheduler
    monkeypatch.setattr(cluster, "_WORKERS", 1)
    # A limit that any process is above of.
    monkeypatch.setenv("DASK_DISTRIBUTED__WORKER__MEMORY__PAUSE", "0.001")
    start("1GB")
    with distributed.Client(running, set_as_default=False) as client:
        client.wait_for_workers(1)
    with pytest.raises(IncompleteError, match=r"no worker for 1 s \(all .* limit of memory\)"):
        fit(study, "a", **PARAMETERS, cluster=running.scheduler_address)


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("tcp://127.0.0.1:1", "no dask scheduler answers there"),
        ("nonsense://x:1", "no dask scheduler answers there"),
        ("local:0", "at least one worker"),
    ],
)
def test_no_cluster_there(study, address, words, monkeypatch):
    monkeypatch.setattr(cluster, "_ANSWER", 1)
    done = Done("fit", study.path, "a", "--cluster", address)
    assert done.returncode == 1
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_without_distributed(study, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    done = Done("fit", study.path, "a", "--cluster", "local:2")
    assert done.returncode == 1
    assert "pip install 'dmstore[cluster]'" in done.stderr


@pytest.mark.parametrize(("train", "rows"), [(3, 2), (97, 50), (130, 2048), (200, 48), (101, 49)])
def test_tiles_are_counted_again_and_in_any_order(tmp_path, train, rows):
    draw = np.random.default_rng(train)
    masks = [draw.random((runs, train)) < 0.4 for runs in (70, 300, 5, 64)]
    words = [padded(bits.pack_runs(group)) for group in masks]
    steps = all_stages(2, halves=True)
    tiles = GramTiles.create(tmp_path, "fit", len(steps), train, "uint16", rows)
    bounds = tiles.bounds()
    for first, last in [*bounds[::-1], *bounds]:
        tiles.count(steps, words, first, last, threads=2)
    for step, design in zip(steps, tiles.designs(steps, list(map(len, masks))), strict=True):
        expected = count_gram([words[group] for group in step.groups])
        assert np.array_equal(design.gram, expected)
        assert design.runs == sum(len(masks[group]) for group in step.groups)
    tiles.remove()
    with pytest.raises(InputError, match="must be a directory that all workers see"):
        tiles.count(steps, words, 0, 1, threads=1)


def test_sigterm_takes_workers_along(study):
    command = [sys.executable, "-m", "dmstore", "fit", study.path, "a", "--cluster", "local:1"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    worker = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while not (children := worker.read_text().split()):
        time.sleep(0.1)
    # What is killed while a worker is being started leaves it to end by itself, half a minute later.
    time.sleep(1)
    process.terminate()
    assert process.wait(30) == 143
    assert not any(Path(f"/proc/{child}").exists() for child in children)
