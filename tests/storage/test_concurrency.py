"""Several processes at once, some of them killed."""

import multiprocessing
import os
import time
from pathlib import Path

import numpy as np
import pytest
from helpers import examples, make_rows

import dmstore
from dmstore.storage.acts.compact import compact
from dmstore.upkeep.maintenance import vacuum
from dmstore.upkeep.verification import verify

context = multiprocessing.get_context("forkserver")


def _append(path, first, count, log):
    """Append one-run batches; write each id to `log` once it is acknowledged."""
    algorithm = dmstore.open_study(path).algorithm("alpha")
    with Path(log).open("a") as file:
        for run in range(first, first + count):
            algorithm.table.append(make_rows(algorithm, [run]))
            file.write(f"{run}\n")
            file.flush()
            os.fsync(file.fileno())


def _maintain(path):
    while True:
        compact(dmstore.open_study(path).algorithm("alpha").table)
        vacuum(dmstore.open_study(path), grace=0)
        time.sleep(0.02)


def _study(tmp_path):
    path = tmp_path / "study.dm"
    dmstore.create_study(path, examples(), seed=3).add_algorithm(
        "alpha", runs=5000, outputs=["margin", "prediction"]
    )
    return str(path)


def _acknowledged(logs):
    """Ids on whole lines: the last one may be cut by a kill."""
    texts = [Path(log).read_text() for log in logs if Path(log).exists()]
    return {int(line) for text in texts for line in text[: text.rfind("\n") + 1].split()}


def _check(path, acknowledged):
    study = dmstore.open_study(path)
    algorithm = study.algorithm("alpha")
    view = algorithm.table.view()
    assert acknowledged <= set(view.run.tolist())
    assert len(set(view.run.tolist())) == len(view)
    assert view.conflicts == ()
    found = view.read(["mask", "margin", "prediction"])
    expected = make_rows(algorithm, view.run).arrays
    assert all(np.array_equal(found[key], expected[key]) for key in found)
    assert list(verify(study)) == []
    return view


def test_four_writers_lose_nothing(tmp_path):
    path = _study(tmp_path)
    logs = [str(tmp_path / f"log{i}") for i in range(4)]
    writers = [
        context.Process(target=_append, args=(path, 50 * i, 50, log)) for i, log in enumerate(logs)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(120)
        assert writer.exitcode == 0
    acknowledged = _acknowledged(logs)
    assert len(acknowledged) == 200
    assert len(_check(path, acknowledged)) == 200


@pytest.mark.parametrize("rounds", [6, pytest.param(60, marks=pytest.mark.slow)])
def test_kill_writers_and_maintainers(tmp_path, rounds):
    """Writers, compactors and vacuums with no grace, each killed at a random moment."""
    path = _study(tmp_path)
    draw = np.random.default_rng(0)
    logs, first = [], 0
    for _ in range(rounds):
        processes = [context.Process(target=_maintain, args=(path,)) for _ in range(2)]
        for _ in range(3):
            logs.append(str(tmp_path / f"log{len(logs)}"))
            processes.append(context.Process(target=_append, args=(path, first, 25, logs[-1])))
            first += 25
        for process in processes:
            process.start()
        # On a busy machine it takes a while until there is anything to lose.
        deadline = time.monotonic() + 60
        while not _acknowledged(logs[-3:]) and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(float(draw.uniform(0.1, 1.2)))
        for process in draw.permutation(np.array(processes, dtype=object)):
            process.kill()
            time.sleep(float(draw.uniform(0, 0.05)))
        for process in processes:
            process.join(30)
    acknowledged = _acknowledged(logs)
    assert acknowledged
    _check(path, acknowledged)
    compact(dmstore.open_study(path).algorithm("alpha").table)
    vacuum(dmstore.open_study(path), grace=0)
    _check(path, acknowledged)


def test_readers_see_whole_views_meanwhile(tmp_path):
    path = _study(tmp_path)
    writer = context.Process(target=_append, args=(path, 0, 80, str(tmp_path / "log")))
    keeper = context.Process(target=_maintain, args=(path,))
    writer.start()
    keeper.start()
    algorithm = dmstore.open_study(path).algorithm("alpha")
    seen = set()
    while writer.is_alive():
        # What was stored while the view listed one directory after the other may be in it or not;
        # whatever stood there before is.
        before = (tmp_path / "log").read_text().split() if (tmp_path / "log").exists() else []
        view = algorithm.table.view()
        runs = set(view.run.tolist())
        assert len(runs) == len(view)
        assert seen | {int(run) for run in before} <= runs <= set(range(80))
        seen = runs
    keeper.kill()
    keeper.join()
    assert len(_check(path, set(range(80)))) == 80


def test_two_processes_extend_a_plan_once_each(tmp_path):
    path = _study(tmp_path)
    algorithm = dmstore.open_study(path).algorithm("alpha")
    other = dmstore.open_study(path).algorithm("alpha")
    algorithm.extend(10)
    other.extend(10)
    blocks = algorithm.blocks
    assert [(b.first_run, b.first_mask) for b in blocks] == [(0, 0), (5000, 5000), (5010, 5010)]
