"""Popcount Gram against float32 BLAS at its best, on the same masks, threads and runs.

BLAS is given the masks as float32 already, unpacked and in the order of axes that suits it better,
and half of the product alone (``ssyrk``) where that is faster; popcount is given packed words and
makes both halves. With all cores by the clock, and with one by the time of the processor (`core_`).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from dmstore.core import bits
from dmstore.core.threads import blas_threads, cores
from dmstore.regression.problem.design import count_gram
from dmstore.regression.problem.packing import padded

RUNS, TRAIN = 20_480, 4_096
REPEATS = 5


def measure() -> dict[str, float]:
    from scipy.linalg.blas import ssyrk

    draw = np.random.default_rng(0)
    masks = draw.integers(0, 2, (RUNS, TRAIN), np.uint8).view(bool)
    words = padded(bits.pack_runs(masks))
    rows = masks.astype(np.float32)
    other, columns = rows.copy(), np.asfortranarray(rows)
    threads = cores()
    assert (count_gram([words], threads=threads) == rows.T @ rows).all()
    # Other work on the machine hits all of them alike, in turn.
    ways: dict[str, Callable[[int], Any]] = {
        "popcount": lambda threads: count_gram([words], threads=threads),
        "sgemm": lambda _: rows.T @ other,
        "sgemm, columns": lambda _: columns.T @ other,
        "ssyrk": lambda _: ssyrk(1.0, rows.T),
        "ssyrk, columns": lambda _: ssyrk(1.0, columns, trans=1),
    }
    wall = dict.fromkeys(ways, np.inf)
    core = dict.fromkeys(ways, np.inf)
    for _ in range(REPEATS):
        for name, way in ways.items():
            for count, clock, best in (
                (threads, time.perf_counter, wall),
                (1, time.process_time, core),
            ):
                with blas_threads(count):
                    start = clock()
                    way(count)
                    best[name] = min(best[name], clock() - start)
    found: dict[str, float] = {}
    for title, best in (("", wall), ("core_", core)):
        blas = min(seconds for name, seconds in best.items() if name != "popcount")
        found |= {
            f"{title}popcount_s": best["popcount"],
            f"{title}blas_s": blas,
            f"{title}sgemm_s": min(best["sgemm"], best["sgemm, columns"]),
            f"{title}ratio": blas / best["popcount"],
        }
    return {**found, "runs_x_pairs_per_s": RUNS * TRAIN * (TRAIN + 1) / 2 / wall["popcount"]}


def run() -> dict[str, float]:
    if "OPENBLAS_CORETYPE" not in os.environ:
        return measure()
    # It chooses slower kernels, and is read when NumPy is loaded.
    environment = {k: v for k, v in os.environ.items() if k != "OPENBLAS_CORETYPE"}
    code = "import json; from benchmarks.gram import measure; print(json.dumps(measure()))"
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment
    )
    found: dict[str, float] = json.loads(done.stdout)
    return found
