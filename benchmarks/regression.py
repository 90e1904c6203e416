"""All datamodels of a store of paper size: holdout choice among 50 lams and refit, certified.

The store is made with known sparse truth (60 heavy-tailed influences a target, a dense small part, as much
noise as signal) and then fitted by ``dmstore fit`` in a process of its own, store reads included. Weights of a sample
of targets are compared with those of a linear system over their support, made of the runs in float64: with the
signs and the gradient of all columns certified, that is the lasso's solution. ``ratio`` is how much longer a target takes each
peer that is installed, where a peer can hold the problem (:mod:`benchmarks.peers`).
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
from dmstore.schema.group_specs import known_outputs
from dmstore.storage.acts.fill import fill
from dmstore.storage.table.rows import Rows, row_digests

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
# Targets whose weights are compared, and the largest number of train units whose covariance peers are given.
_COMPARED, _HELD = 4, 10_000


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
from dmstore.core.memory import parse
from dmstore.regression import fit
from dmstore.regression.problem.parameters import Parameters
spent, last = {}, [time.perf_counter()]
def progress(what, done, total):
    now = time.perf_counter()
    spent[what] = spent.get(what, 0.0) + now - last[0]
    last[0] = now
    if done * 10 // total != (done - 1) * 10 // total:
        print(what, done, total, round(sum(spent.values())), file=sys.stderr, flush=True)
memory = parse(sys.argv[2]) if sys.argv[2] else None
halves = sys.argv[3] == "halves"
found = fit(open_study(sys.argv[1]), "a", halves=halves, memory=memory, progress=progress)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
print(json.dumps({**found.summary, "peak_gb": peak, "spent": spent}))
"""


def distance(path: Path, targets: int) -> float:
    """The largest norm by which weights are off, over that of the weights, among a sample of targets."""
    study = dmstore.open_study(path)
    fit, runs = study.datamodels("a"), study.runs("a")
    used = np.flatnonzero(runs["split"].values != "eval")
    chosen = np.linspace(0, targets - 1, min(_COMPARED, targets)).astype(int)
    weights = [fit.weight[target].values.astype(np.float64) for target in chosen]
    supports = [np.flatnonzero(weight) for weight in weights]
    said = runs["margin"].isel(target=chosen).values[used].astype(np.float64)
    said -= said.mean(axis=0)
    sums = [np.zeros((len(support), len(support) + 2)) for support in supports]
    for start in range(0, len(used), _ROWS):
        rows = used[start : start + _ROWS]
        masks = runs["mask"][rows[0] : rows[-1] + 1].values[rows - rows[0]]
        for place, (support, total) in enumerate(zip(supports, sums, strict=True)):
            mask = masks[:, support].astype(np.float64)
            beside = np.column_stack([said[start : start + _ROWS, place], np.ones(len(rows))])
            total += mask.T @ np.column_stack([mask, beside])
    worst = 0.0
    for target, weight, support, total in zip(chosen, weights, supports, sums, strict=True):
        mean = total / len(used)
        level = mean[:, -1]
        half = 0.5 * float(fit.lam[target]) * np.sign(weight[support])
        covariance = mean[:, :-2] - np.outer(level, level)
        exact = np.linalg.solve(covariance, mean[:, -2] - half)
        off = np.linalg.norm(exact - weight[support]) / max(np.linalg.norm(exact), 1e-300)
        worst = max(worst, float(off))
    return worst


def run(
    size: str = "small",
    store: str | None = None,
    memory: str | None = None,
    targets: str | None = None,
    peer: str | None = None,
    python: str | None = None,
    halves: str | None = None,
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
        command = [sys.executable, "-c", _CHILD, str(path), memory or "", halves or ""]
        start = time.perf_counter()
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=environment)
        seconds = time.perf_counter() - start
        summary = json.loads(done.stdout.splitlines()[-1])
        off = distance(path, count)
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
        "largest_distance": off,
        # Peers fit no halves.
        "ratio": _ratio(size, peer, python) if train <= _HELD and not halves else {},
        "make_s": made,
    }


def _ratio(size: str, peer: str | None, python: str | None) -> dict[str, float | None]:
    """Seconds a target of each peer over ours; None of what is not installed."""
    # Made of this module.
    from benchmarks import peers

    found = peers.run(size, peer, python)
    named = {k.removeprefix("ratio_"): v for k, v in found.items() if k.startswith("ratio_")}
    return {name: None if np.isnan(value) else round(value, 2) for name, value in named.items()}
