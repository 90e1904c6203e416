"""Bytes of a compacted base against ``.npy``: masks of one byte an element, margins as float32."""

from __future__ import annotations

import tempfile

import numpy as np

from benchmarks.tools import make_study, margins
from dmstore.storage.acts.compact import compact
from dmstore.storage.table.rows import Rows

RUNS, TRAIN, TARGET = 4096, 50_000, 10_000


def run() -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        algorithm = make_study(f"{folder}/s.dm", TRAIN, TARGET).add_algorithm(
            "a", sampling="foreign", alpha=None
        )
        for start in range(0, RUNS, 512):
            mask = np.random.default_rng(start).integers(0, 2, (512, TRAIN), np.uint8).view(bool)
            arrays = {"mask": mask, "margin": margins(start, 512, TARGET)}
            columns = {"time": np.zeros(512, np.int64), "host": np.full(512, "h")}
            rows = Rows(np.arange(start, start + 512), arrays, columns)
            algorithm.table.append(algorithm.complete(rows, "benchmark"))
        manifest = compact(algorithm.table).manifest
        assert manifest.base is not None
        where = f"{algorithm.table.prefix}{manifest.base.path}/"
        stored = {
            name: sum(info.size for info in algorithm.objects.entries(f"{where}{name}/"))
            for name in ("mask", "margin")
        }
    return {
        "mask_ratio": RUNS * TRAIN / stored["mask"],
        "margin_ratio": RUNS * TARGET * 4 / stored["margin"],
    }
