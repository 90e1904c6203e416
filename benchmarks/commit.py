"""Four writers, 50 durable one-run commits each, 50,000 train units and 10,000 targets.

The peer writes the same bytes (packed mask and margins) with ``numpy.save``, fsync and rename: the
floor that the file system sets, with no zarr, no digests and no read-back.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import time
from pathlib import Path

import numpy as np

import dmstore
from dmstore.training import RunWriter

WRITERS, RUNS = 4, 50
TRAIN, TARGET = 50_000, 10_000


def _write(path: str, part: str) -> None:
    with RunWriter(path, "a", part=part, flush_runs=1) as writer:
        for run in writer.pending():
            writer.append(
                run, margin=np.random.default_rng(run.id).normal(size=TARGET).astype(np.float32)
            )


def _save(folder: str, part: int) -> None:
    mask = np.random.default_rng(part).integers(0, 256, TRAIN // 8).astype(np.uint8)
    for number in range(RUNS):
        name = Path(folder, f"{part}-{number}")
        with name.with_suffix(".part").open("wb") as file:
            np.save(file, mask)
            np.save(file, np.random.default_rng(number).normal(size=TARGET).astype(np.float32))
            file.flush()
            os.fsync(file.fileno())
        name.with_suffix(".part").rename(name.with_suffix(".npy"))
        descriptor = os.open(folder, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)


def _timed(target, arguments) -> float:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["zarr", "dmstore.training"])
    processes = [context.Process(target=target, args=a) for a in arguments]
    start = time.perf_counter()
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    if any(process.exitcode for process in processes):
        raise RuntimeError("a writer failed")
    return time.perf_counter() - start


def run() -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/study.dm"
        examples = {"train_label": np.zeros(TRAIN, int), "target_label": np.zeros(TARGET, int)}
        study = dmstore.create_study(path, examples, seed=0)
        study.add_algorithm("a", runs=WRITERS * RUNS)
        _timed(_save, [(folder, 99)])
        floor = _timed(_save, [(folder, i) for i in range(WRITERS)])
        ours = _timed(_write, [(path, f"{i}/{WRITERS}") for i in range(1, WRITERS + 1)])
        stored = len(study.algorithm("a").table.view())
    count = WRITERS * RUNS
    return {
        "acknowledged": count,
        "stored": stored,
        "commits_per_s": count / ours,
        "floor_per_s": count / floor,
        "ratio_to_floor": ours / floor,
    }
