"""Four writers, 50 durable one-run commits each, 50,000 train units and 10,000 targets.

Peers: icechunk on the same disk (append to one array each of ids, masks and margins, tried again after a
conflict), of which is also counted what it lost; and bare ``numpy.save`` with fsync and rename, the floor
that the file system sets.
"""

from __future__ import annotations

import os
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.tools import make_study, margins, timed
from dmstore.study.study import open_study
from dmstore.training import RunWriter

WRITERS, RUNS = 4, 50
TRAIN, TARGET = 50_000, 10_000


def _write(path: str, part: str) -> None:
    with RunWriter(path, "a", part=part, flush_runs=1) as writer:
        for run in writer.pending():
            writer.append(run, margin=margins(run.id, 1, TARGET)[0])


def _save(folder: str, part: int) -> None:
    mask = np.random.default_rng(part).integers(0, 256, TRAIN // 8).astype(np.uint8)
    for number in range(RUNS):
        name = Path(folder, f"{part}-{number}")
        with name.with_suffix(".part").open("wb") as file:
            np.save(file, mask)
            np.save(file, margins(number, 1, TARGET)[0])
            file.flush()
            os.fsync(file.fileno())
        name.with_suffix(".part").rename(name.with_suffix(".npy"))
        descriptor = os.open(folder, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)


def _repository(path: str, *, create: bool) -> Any:
    import icechunk

    warnings.simplefilter("ignore")
    storage = icechunk.local_filesystem_storage(path)
    return icechunk.Repository.create(storage) if create else icechunk.Repository.open(storage)


def _prepare_icechunk(path: str) -> None:
    import zarr

    session = _repository(path, create=True).writable_session("main")
    group = zarr.create_group(session.store)
    group.create_array("run", shape=(0,), chunks=(1,), dtype="int64")
    group.create_array("mask", shape=(0, TRAIN // 8), chunks=(1, TRAIN // 8), dtype="uint8")
    group.create_array("margin", shape=(0, TARGET), chunks=(1, TARGET), dtype="float32")
    session.commit("empty")


def _icechunk(path: str, part: int) -> None:
    import icechunk
    import zarr

    warnings.simplefilter("ignore")
    repository = _repository(path, create=False)
    mask = np.random.default_rng(part).integers(0, 256, (1, TRAIN // 8)).astype(np.uint8)
    for number in range(RUNS):
        values = margins(number, 1, TARGET)
        while True:
            session = repository.writable_session("main")
            group = zarr.open_group(session.store, mode="a")
            group["run"].append(np.array([part * RUNS + number]))
            group["mask"].append(mask)
            group["margin"].append(values)
            try:
                session.commit("one run")
            except icechunk.ConflictError:
                continue
            break


def _stored_by_icechunk(path: str) -> int:
    import zarr

    session = _repository(path, create=False).readonly_session("main")
    return len(set(zarr.open_group(session.store, mode="r")["run"][:].tolist()))


def run() -> dict[str, float]:
    count = WRITERS * RUNS
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/study.dm"
        make_study(path, TRAIN, TARGET).add_algorithm("a", runs=count)
        timed(_save, [(folder, 99)])
        floor = timed(_save, [(folder, i) for i in range(WRITERS)])
        ours = timed(_write, [(path, f"{i}/{WRITERS}") for i in range(1, WRITERS + 1)])
        stored = len(open_study(path).algorithm("a").table.view())
        result = {
            "acknowledged": count,
            "lost": count - stored,
            "commits_per_s": count / ours,
            "numpy_save_per_s": count / floor,
        }
        try:
            import icechunk  # noqa: F401
        except ImportError:
            return result
        _prepare_icechunk(f"{folder}/ice")
        peer = timed(_icechunk, [(f"{folder}/ice", i) for i in range(WRITERS)])
        lost = count - _stored_by_icechunk(f"{folder}/ice")
        return {
            **result,
            "icechunk_per_s": count / peer,
            "icechunk_lost": lost,
            "ratio": peer / ours,
        }


def overhead() -> dict[str, float]:
    """Share of the time that eight loops of one run a second spend in a ``RunWriter``."""
    seconds, writers = 40, 8
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/study.dm"
        make_study(path, TRAIN, TARGET).add_algorithm("a", runs=seconds * writers)
        logs = [f"{folder}/{i}" for i in range(writers)]
        timed(_loop, [(path, f"{i + 1}/{writers}", log, seconds) for i, log in enumerate(logs)])
        spent = [float(Path(log).read_text()) for log in logs]
    return {"share": sum(spent) / (seconds * writers), "worst_share": max(spent) / seconds}


def _loop(path: str, part: str, log: str, seconds: int) -> None:
    spent = 0.0
    start = time.perf_counter()
    with RunWriter(path, "a", part=part) as writer:
        for number, run in enumerate(writer.pending()):
            values = margins(run.id, 1, TARGET)[0]
            time.sleep(max(0.0, start + number + 1 - time.perf_counter()))
            before = time.perf_counter()
            writer.append(run, margin=values)
            spent += time.perf_counter() - before
        before = time.perf_counter()
    Path(log).write_text(str(spent + time.perf_counter() - before))
