"""All datamodels of a store of paper size: holdout choice among 50 lams and refit, certified.

The store is made with known sparse truth (60 heavy-tailed influences a target, a dense small part, as much
noise as signal) and then fitted by ``dmstore fit`` in a process of its own, store reads included.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import dmstore
from dmstore.schema import known_outputs
from dmstore.storage.fill import fill
from dmstore.storage.segment import Rows, row_digests

SIZES = {
    "small": (20_000, 2_000, 512),
    "waterbirds": (50_000, 4_795, 5_794),
    "cifar10": (50_000, 50_000, 10_000),
    "living17": (120_000, 88_400, 3_400),
}
# Deviation of the weights that all units have. What is far below the error of one weight still adds up over
# many units and runs: at Living17 size .02 would make the best lasso one of 5,000 weights.
DENSE = {"living17": 0.01}
_ROWS = 4096


def make(
    path: Path, runs: int, train: int, targets: int, seed: int = 0, dense: float = 0.02
) -> None:
    """A compacted store of so many runs, whose outputs follow from sparse truth."""
    draw = np.random.default_rng(seed)
    study = dmstore.create_study(
        path,
        {"train_id": np.arange(train).astype(str), "target_id": np.arange(targets).astype(str)},
        seed=seed,
    )
    margin = {**known_outputs()["margin"], "dtype": "float16"}
    algorithm = study.add_algorithm("a", sampling="foreign", alpha=0.5, outputs={"margin": margin})
    truth = draw.standard_normal((train, targets), dtype=np.float32) * np.float32(dense)
    for target in range(targets):
        truth[draw.choice(train, 60, replace=False), target] += draw.standard_t(3, 60)
    # A mask of two equally likely values has variance 1/4.
    noise = np.sqrt(np.einsum("ij,ij->j", truth, truth) / 4)

    def rows() -> Iterator[Rows]:
        for start in range(0, runs, _ROWS):
            count = min(_ROWS, runs - start)
            octets = np.frombuffer(draw.bytes(count * -(-train // 8)), np.uint8)
            mask = np.unpackbits(octets.reshape(count, -1), axis=1, count=train).view(bool)
            values = mask.astype(np.float32) @ truth
            values += noise * draw.standard_normal(values.shape, dtype=np.float32)
            made = algorithm.complete(
                Rows(
                    np.arange(start, start + count),
                    {"mask": mask, "margin": values},
                    {"time": np.zeros(count, np.int64), "host": np.full(count, "benchmark")},
                ),
                "benchmark",
            )
            digest = row_digests(made.run, made.arrays, algorithm.table.spec)
            yield Rows(made.run, made.arrays, made.columns, digest)

    assert fill(algorithm.table, rows(), runs) is not None


# Fits in a process of its own, and says how long it was at what.
_CHILD = """
import json, resource, sys, time
from dmstore import open_study
from dmstore.memory import parse
from dmstore.regression import fit
from dmstore.regression.path import Parameters
spent, last = {}, [time.perf_counter()]
def progress(what, done, total):
    now = time.perf_counter()
    spent[what] = spent.get(what, 0.0) + now - last[0]
    last[0] = now
    if done * 10 // total != (done - 1) * 10 // total:
        print(what, done, total, round(sum(spent.values())), file=sys.stderr, flush=True)
memory = parse(sys.argv[2]) if sys.argv[2] else None
found = fit(open_study(sys.argv[1]), "a", parameters=Parameters(halves=False), memory=memory, progress=progress)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
print(json.dumps({**found.summary, "peak_gb": peak, "spent": spent}))
"""


def run(
    size: str = "small",
    store: str | None = None,
    memory: str | None = None,
    targets: str | None = None,
) -> dict[str, Any]:
    runs, train, all_targets = SIZES[size]
    count = min(int(targets or all_targets), all_targets)
    folder = Path(store or tempfile.mkdtemp(prefix="dmstore-benchmark-"))
    path = folder / f"{size}-{count}.dm"
    try:
        made = time.perf_counter()
        if not path.exists():
            folder.mkdir(exist_ok=True, parents=True)
            make(path, runs, train, count, dense=DENSE.get(size, 0.02))
        made = time.perf_counter() - made
        shutil.rmtree(path / "datamodels", ignore_errors=True)
        environment = {k: v for k, v in os.environ.items() if k != "OPENBLAS_CORETYPE"}
        command = [sys.executable, "-c", _CHILD, str(path), memory or ""]
        start = time.perf_counter()
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=environment)
        seconds = time.perf_counter() - start
        summary = json.loads(done.stdout.splitlines()[-1])
    finally:
        if store is None:
            shutil.rmtree(folder)
    spent = summary["spent"]
    by_target = (spent["fit"] + spent.get("join", 0.0)) / count
    return {
        "size": size,
        "runs": runs,
        "train": train,
        "targets": count,
        "seconds": seconds,
        "ms_a_target": 1e3 * by_target,
        # By the time a target of those fitted; the same as `seconds` where all were.
        "seconds_all_targets": seconds + by_target * (all_targets - count),
        **{f"{what}_s": value for what, value in spent.items()},
        "peak_gb": summary["peak_gb"],
        "worst_kkt": summary["worst_kkt"],
        "holdout_r2": summary["holdout_r2"][1],
        "nonzeros": summary["nonzeros"][1],
        "not_converged": summary["status"]["not_converged"],
        "make_s": made,
    }
