"""Solver ``torch`` on the CPU against ``gram``: the same block of targets, path, holdout and refit."""

from __future__ import annotations

import os
import time

import numpy as np

from benchmarks.fit import problem
from dmstore.core import bits
from dmstore.core.threads import cores
from dmstore.regression.problem.block import Designs, Outputs
from dmstore.regression.problem.design import make_design
from dmstore.regression.problem.moments import make_moments
from dmstore.regression.problem.parameters import Parameters
from dmstore.regression.solvers import registry

RUNS, TRAIN, TARGETS = 20000, 2000, 128


def statistics(masks: np.ndarray, outputs: np.ndarray) -> tuple[Designs, Outputs]:
    """Designs and outputs of a block; every tenth run chooses lam."""
    apart = np.arange(len(masks)) % 10 == 0
    shift = outputs.mean(axis=0)
    words = [bits.pack_runs(masks[rows]) for rows in (~apart, apart)]
    fit, check = (
        make_design(w, int(rows.sum()), threads=cores())
        for w, rows in zip(words, (~apart, apart), strict=True)
    )
    said, checked = (
        make_moments(w, outputs[rows], shift)
        for w, rows in zip(words, (~apart, apart), strict=True)
    )
    return Designs(fit, check, fit + check), Outputs(said, checked, said + checked, shift)


def run() -> dict[str, float]:
    os.environ.setdefault("DMSTORE_DEVICE", "cpu")
    small = statistics(*problem(300, 80, 4))
    designs, outputs = statistics(*problem(RUNS, TRAIN, TARGETS))
    parameters = Parameters(halves=False)
    found, seconds = {}, {}
    for name in ("gram", "torch"):
        solve = registry.load(name)
        solve(*small, parameters, threads=cores())
        start = time.perf_counter()
        found[name] = solve(designs, outputs, parameters, threads=cores())
        seconds[name] = time.perf_counter() - start
    ours, other = (found[name]["weight"].astype(float) for name in ("gram", "torch"))
    distance = np.linalg.norm(ours - other, axis=1) / np.linalg.norm(ours, axis=1)
    return {
        "gram_s": seconds["gram"],
        "torch_s": seconds["torch"],
        "ratio": seconds["torch"] / seconds["gram"],
        "gram_worst_kkt": float(found["gram"]["kkt"].max()),
        "torch_worst_kkt": float(found["torch"]["kkt"].max()),
        "same_lam": float((found["gram"]["lam"] == found["torch"]["lam"]).mean()),
        "largest_distance": float(distance.max()),
    }
