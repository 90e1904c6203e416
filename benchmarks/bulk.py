"""Bulk ingest, 64 runs a batch of 50,000 train units and 10,000 targets, two writers.

The peer is the disk: half of what it writes in one sequential stream, or 1,500 runs a second, whichever
is less.
"""

from __future__ import annotations

import tempfile

import numpy as np

from benchmarks.tools import disk_rate, make_study, margins, timed
from dmstore.study.study import open_study
from dmstore.training import RunWriter

TRAIN, TARGET, BATCH, BATCHES, WRITERS = 50_000, 10_000, 64, 64, 2


def _write(path: str, part: str) -> None:
    values = margins(0, BATCH, TARGET)
    with RunWriter(path, "a", part=part, flush_runs=BATCH) as writer:
        for runs in writer.pending(batch=BATCH):
            writer.append_many(runs, margin=values)


def run() -> dict[str, float]:
    count = BATCH * BATCHES * WRITERS
    with tempfile.TemporaryDirectory() as folder:
        rate = disk_rate(folder)
        path = f"{folder}/study.dm"
        study = make_study(path, TRAIN, TARGET)
        study.add_algorithm("a", runs=count)
        seconds = timed(_write, [(path, f"{i}/{WRITERS}") for i in range(1, WRITERS + 1)])
        algorithm = open_study(path).algorithm("a")
        stored = len(algorithm.table.view())
        size = sum(info.size for info in algorithm.objects.entries(algorithm.table.prefix))
    a_run = size / count
    wanted = min(1500.0, rate / 2 / a_run)
    return {
        "runs_per_s": count / seconds,
        "wanted_per_s": wanted,
        "ratio": count / seconds / wanted,
        "stored": stored,
        "bytes_a_run": a_run,
        "disk_mb_per_s": rate / 1e6,
        "masks_made_and_checked": float(np.float64(count)),
    }
