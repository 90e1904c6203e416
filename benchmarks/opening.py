"""Opening a study of 120,000 runs with 2,000 segments that no base has yet, and its status.

The peer is the listing of its directories alone.
"""

from __future__ import annotations

import os
import tempfile
import time

import numpy as np

from benchmarks.tools import make_study, measured
from dmstore.storage.acts.compact import compact
from dmstore.storage.table.rows import Rows
from dmstore.study.algorithm import Algorithm
from dmstore.study.study import open_study
from dmstore.upkeep.maintenance import status

TRAIN, TARGET, BASE, SEGMENTS = 64, 32, 104_000, 2000
RUNS = BASE + 8 * SEGMENTS


def _fill(algorithm: Algorithm, start: int, stop: int, batch: int) -> None:
    for first in range(start, stop, batch):
        ids = np.arange(first, min(first + batch, stop))
        draw = np.random.default_rng(first)
        arrays = {
            "mask": draw.random((len(ids), TRAIN)) < 0.5,
            "margin": draw.normal(size=(len(ids), TARGET)).astype(np.float32),
        }
        columns = {"time": ids, "host": np.full(len(ids), "h"), "accuracy": draw.random(len(ids))}
        algorithm.table.append(algorithm.complete(Rows(ids, arrays, columns), "benchmark"))


def _open(path: str) -> tuple[int, float, float]:
    start = time.perf_counter()
    view = open_study(path).algorithm("a").table.view()
    opened = time.perf_counter() - start
    start = time.perf_counter()
    open_study(path).runs("a")
    return len(view), opened, time.perf_counter() - start


def run() -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/study.dm"
        algorithm = make_study(path, TRAIN, TARGET).add_algorithm(
            "a", sampling="foreign", alpha=None
        )
        fsync, os.fsync = os.fsync, lambda fd: None
        try:
            _fill(algorithm, 0, BASE, 1000)
            compact(algorithm.table)
            _fill(algorithm, BASE, RUNS, 8)
        finally:
            os.fsync = fsync
        start = time.perf_counter()
        sum(len(files) for _, _, files in os.walk(path))
        listing = time.perf_counter() - start
        (count, opened, dataset), _, peak = measured(_open, path)
        _, status_s, _ = measured(_status, path)
    return {
        "runs": count,
        "open_s": opened,
        "runs_dataset_s": dataset,
        "status_s": status_s,
        "listing_s": listing,
        "peak_open_gb": peak,
    }


def _status(path: str) -> int:
    return int(status(open_study(path))["algorithms"]["a"]["stored"])
