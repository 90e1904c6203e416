"""Compacting a study of Living17's size: 120,000 runs, 88,400 train units, 3,400 targets.

The peer is a plain copy of the segments with fsync.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time

import numpy as np

from benchmarks.tools import make_study, margins, measured
from dmstore.storage.acts.compact import compact
from dmstore.storage.table import segment
from dmstore.storage.table.rows import Rows
from dmstore.study.study import open_study

RUNS, TRAIN, TARGET, BATCH = 120_000, 88_400, 3_400, 256


def _prepare(path: str, runs: int) -> None:
    algorithm = make_study(path, TRAIN, TARGET).add_algorithm("a", sampling="foreign", alpha=None)
    values = margins(0, BATCH, TARGET)
    draw = np.random.default_rng(0)
    fsync, os.fsync = os.fsync, lambda fd: None
    try:
        for start in range(0, runs, BATCH):
            ids = np.arange(start, min(start + BATCH, runs))
            raw = draw.bytes(len(ids) * TRAIN // 8)
            bits = np.unpackbits(np.frombuffer(raw, np.uint8)).view(bool)
            arrays = {"mask": bits.reshape(len(ids), TRAIN), "margin": values[: len(ids)]}
            columns = {"time": ids, "host": np.full(len(ids), "h")}
            rows = algorithm.complete(Rows(ids, arrays, columns), "benchmark")
            content = segment.encode(rows, algorithm.table.spec, algorithm.table.identity)
            name = f"{algorithm.table.prefix}segments/{start % 256:02x}/{start:013d}-{start:032x}.zarr.zip"
            algorithm.objects.put_if_absent(name, content)
    finally:
        os.fsync = fsync


def _compact(path: str) -> int:
    return compact(open_study(path).algorithm("a").table).absorbed


def run(runs: int = RUNS) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/study.dm"
        _prepare(path, runs)
        os.sync()
        segments = f"{path}/algorithms/a/runs/segments"
        start = time.perf_counter()
        shutil.copytree(segments, f"{folder}/copy")
        os.sync()
        copy = time.perf_counter() - start
        shutil.rmtree(f"{folder}/copy")
        absorbed, seconds, peak = measured(_compact, path)
    return {
        "runs": runs,
        "segments": absorbed,
        "seconds": seconds,
        "copy_s": copy,
        "ratio_to_copy": seconds / copy,
        "peak_compact_gb": peak,
    }
