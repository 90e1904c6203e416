"""Reading a compacted store of 20,000 runs: columns, rows, and masks as words along the run axis.

The peer is zarr with chunks of 64 rows and zarr's own compressor, as a lab writes it without thinking.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable

import numpy as np
import zarr

from benchmarks.tools import make_study, margins
from dmstore.core import bits
from dmstore.intake.ingest import ingest  # noqa: F401 - the import is part of what a user has
from dmstore.storage.acts.compact import compact
from dmstore.storage.table.rows import Rows

RUNS, TRAIN, TARGET, COLUMNS = 20_000, 50_000, 10_000, 256


def best(function: Callable[[], object], times: int = 5) -> float:
    found = []
    for _ in range(times):
        start = time.perf_counter()
        function()
        found.append(time.perf_counter() - start)
    return min(found)


def run() -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        study = make_study(f"{folder}/study.dm", TRAIN, TARGET)
        algorithm = study.add_algorithm("a", sampling="foreign", alpha=None)
        peer = zarr.create_array(
            f"{folder}/rows.zarr", shape=(RUNS, TARGET), chunks=(64, TARGET), dtype="float32"
        )
        for start in range(0, RUNS, 500):
            draw = np.random.default_rng(start)
            values = margins(start, 500, TARGET)
            mask = draw.integers(0, 2, (500, TRAIN), dtype=np.uint8).view(bool)
            columns = {"time": np.zeros(500, np.int64), "host": np.full(500, "h")}
            rows = Rows(np.arange(start, start + 500), {"mask": mask, "margin": values}, columns)
            algorithm.table.append(algorithm.complete(rows, "benchmark"))
            peer[start : start + 500] = values
        start_compact = time.perf_counter()
        compact(algorithm.table)
        compaction = time.perf_counter() - start_compact
        view = algorithm.table.view()
        assert view.base is not None
        base = view.base
        by_zarr = best(lambda: base["margin"][:, 1000 : 1000 + COLUMNS])
        theirs = best(lambda: peer[:, 1000 : 1000 + COLUMNS])
        dataset = study.runs("a")
        across = best(lambda: dataset.margin.isel(target=slice(1000, 1000 + COLUMNS)).values)
        ours = best(lambda: dataset.margin.isel(target=slice(1024, 1024 + COLUMNS)).values)
        rows_s = best(lambda: view.read(["margin"], 5000, 5064))
        both_s = best(lambda: view.read(["mask", "margin"], 5000, 5064))
        mask = np.asarray(base["mask"][:4096])
        words = best(lambda: bits.pack_runs(mask))
        stored = sum(
            info.size for info in algorithm.objects.entries(algorithm.table.prefix + "base/")
        )
    return {
        "column_read_s": ours,
        "column_read_across_chunks_s": across,
        "column_read_by_plain_zarr_s": by_zarr,
        "row_chunked_zarr_s": theirs,
        "ratio": theirs / ours,
        "read_64_margin_rows_s": rows_s,
        "read_64_mask_and_margin_rows_s": both_s,
        "words_elements_per_s_a_core": mask.size / words,
        "compaction_s": compaction,
        "npy_over_stored": (RUNS * (TRAIN + 4 * TARGET)) / stored,
    }
