"""``compare`` of two files of scores as fits leave them, sparse: against modeldiff's own functions on the same files.

Each in a process of its own, from the ``.npy`` to directions and variances both ways. How close directions
are is told where the whole spectrum can be had. A peer that is not installed is left out.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

SIZES = {
    "small": (600, 2_000, 20),
    "medium": (5_000, 25_000, 100),
    "paper": (10_000, 50_000, 100),
    "living17": (3_400, 88_400, 100),
}
# Share of weights that is not zero, groups of targets that have units in common, and features of one algorithm alone.
DENSITY, GROUPS, FEATURES = 0.015, 100, 15
# Targets up to which the whole spectrum is computed, and a peer that holds everything is run unasked.
MOST = 5_000
BLOCK = 500


def made_up(folder: Path, targets: int, train: int) -> None:
    """``A.npy`` and ``B.npy``: units that groups of targets share, units of a target, noise, and features of either alone."""
    draw = np.random.default_rng(0)
    size = int(DENSITY * train)
    pool = [draw.choice(train, 2 * size, replace=False) for _ in range(GROUPS)]
    shared = [draw.normal(size=2 * size) for _ in pool]
    group = draw.integers(0, GROUPS, targets)
    features = [
        [
            (draw.choice(train, train // 200, replace=False), draw.random(targets) < 0.05)
            for _ in range(FEATURES)
        ]
        for _ in range(2)
    ]
    files = [
        np.lib.format.open_memmap(folder / f"{name}.npy", "w+", np.float32, (targets, train))
        for name in "AB"
    ]
    for target in range(targets):
        units, weights = pool[group[target]], shared[group[target]]
        some = draw.random(len(units)) < 0.25
        common = weights[some] + 0.5 * draw.normal(size=some.sum())
        own, own_weights = draw.choice(train, size // 4), draw.normal(size=size // 4)
        for file, alone in zip(files, features, strict=True):
            row = np.zeros(train)
            row[draw.choice(train, size // 4)] = 0.7 * draw.normal(size=size // 4)
            row[own] = own_weights
            row[units[some]] = common * (1 + 0.2 * draw.normal(size=len(common)))
            for place, (marked, who) in enumerate(alone):
                if who[target]:
                    row[marked[draw.random(len(marked)) < 0.5]] += 2 / (1 + 0.3 * place)
            file[target] = row


def _process(python: str, script: str, *arguments: object) -> dict[str, Any] | None:
    """What a process says in its last line; None where it is not installed there."""
    # Of one thread: where a machine is busy, two wait for each other and count it as work.
    environment = {
        "OMP_NUM_THREADS": "1",
        **os.environ,
        "PYTHONPATH": str(Path(__file__).parent.parent),
    }
    done = subprocess.run(
        [python, str(Path(__file__).with_name(script)), *map(str, arguments)],
        check=False,
        capture_output=True,
        text=True,
        env=environment,
    )
    if done.returncode:
        raise RuntimeError(f"{script} {arguments}: {done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def run(size: str = "small", peer: str | None = None, python: str | None = None) -> dict[str, Any]:
    """Seconds, memory and closeness; ``peer`` runs modeldiff at any size, ``none`` at no size."""
    targets, train, count = SIZES[size]
    result: dict[str, Any] = {"targets": targets, "train": train, "components": count}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        made_up(folder, targets, train)
        names = ["ours"]
        if peer != "none" and (peer is not None or targets <= MOST):
            names.append("modeldiff")
        if targets <= MOST:
            names.append("exact")
        for one in names:
            interpreter = python if one == "modeldiff" and python else sys.executable
            found = _process(interpreter, "comparison_process.py", one, folder, count)
            if found is None or "absent" in found:
                print(f"modeldiff is not installed ({found}): left out", file=sys.stderr)
                continue
            print(one, found, file=sys.stderr, flush=True)
            result |= {f"{one}_{key}": value for key, value in found.items()}
        result |= _closeness(folder)
    if "modeldiff_cpu_s" in result:
        result["times_faster_cpu"] = result["modeldiff_cpu_s"] / result["ours_cpu_s"]
        result["share_of_memory"] = result["ours_peak_gb"] / result["modeldiff_peak_gb"]
    return result


def _closeness(folder: Path) -> dict[str, float]:
    """Smallest |cosine| of directions one by one, and of centred variances the largest difference where they are the same."""
    there = {path.stem: np.load(path) for path in folder.glob("*.npz")}
    result = {}
    pairs = (("ours", "exact"), ("modeldiff", "exact"), ("ours", "modeldiff"))
    for a, b in (pair for pair in pairs if set(pair) <= set(there)):
        cosine = np.abs((there[a]["direction"] * there[b]["direction"]).sum(axis=2))
        result[f"least_cosine_{a}_{b}"] = float(cosine.min())
        result[f"least_cosine_of_first_20_{a}_{b}"] = float(cosine[:, :20].min())
        if "variance" in there[a] and "variance" in there[b]:
            apart = np.abs(there[a]["variance"] - there[b]["variance"])[cosine > 0.9999]
            result["variances_apart"] = float(apart.max())
    return result
