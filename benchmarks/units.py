"""Targets that are train units, each on the runs that did not see it, against ordinary targets.

The same outputs are fitted twice: as targets that share one design, and as targets each of which has
a design of its own. `ratio` is the time of one over that of the other, without the Gram that ordinary
targets share; at the size `paper` only the latter are fitted, as they need no Gram.
"""

from __future__ import annotations

import time

import numpy as np

from dmstore.core import bits
from dmstore.core.threads import cores
from dmstore.regression.fitting import stages
from dmstore.regression.kernels import bit_planes
from dmstore.regression.problem.block import Designs, Outputs
from dmstore.regression.problem.design import make_design
from dmstore.regression.problem.moments import make_moments
from dmstore.regression.problem.own_runs import OwnGroups
from dmstore.regression.problem.packing import padded
from dmstore.regression.problem.parameters import Parameters
from dmstore.regression.problem.thread_pool import Work
from dmstore.regression.solvers.lasso import fit_block
from dmstore.regression.solvers.own_runs import OwnBlock

SIZES = {"small": (20_000, 5_000, 64), "medium": (50_000, 10_000, 32), "paper": (50_000, 50_000, 4)}


def problem(runs: int, train: int, targets: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Packed masks and outputs of two groups of runs, with 60 heavy-tailed influences a target and
    as much noise as signal."""
    draw = np.random.default_rng(0)
    influence = np.zeros((targets, train))
    for row in influence:
        row[draw.choice(train, 60, replace=False)] = draw.standard_t(3, 60)
    words, outputs = [], []
    for count in (runs - runs // 10, runs // 10):
        inside = bits.pack_runs(np.ones((count, 1), bool))
        drawn = np.frombuffer(draw.bytes(8 * train * inside.size), np.uint64)
        words.append(padded(drawn.reshape(train, -1) & inside))
        said = np.zeros((targets, bits.WORD * words[-1].shape[1]))
        for row, weight in zip(said, -influence, strict=True):
            bit_planes.take_columns(words[-1], np.flatnonzero(weight), weight, row)
        noise = np.sqrt((influence**2).sum(axis=1) / 4)
        outputs.append(said[:, :count].T + draw.normal(size=(count, targets)) * noise)
    return words, outputs


def own_groups(words: list[np.ndarray], outputs: list[np.ndarray], unit: np.ndarray) -> OwnGroups:
    return OwnGroups.of(
        words, outputs, np.concatenate(outputs).mean(axis=0), unit, [None] * len(words)
    )


def ordinary(
    words: list[np.ndarray], outputs: list[np.ndarray], threads: int
) -> tuple[float, dict[str, np.ndarray]]:
    """Seconds of all targets without their Gram, and what was found."""
    shift = np.concatenate(outputs).mean(axis=0)
    fit, check = (
        make_design(w, len(y), threads=threads) for w, y in zip(words, outputs, strict=True)
    )
    said, checked = (make_moments(w, y, shift) for w, y in zip(words, outputs, strict=True))
    designs = Designs(fit, check, fit + check)
    start = time.perf_counter()
    found = fit_block(
        designs,
        Outputs(said, checked, said + checked, shift),
        Parameters(halves=False),
        threads=threads,
    )
    return time.perf_counter() - start, found


def run(size: str = "small") -> dict[str, float]:
    runs, train, targets = SIZES[size]
    threads, parameters = cores(), Parameters(halves=False)
    steps = stages.all_stages(1, halves=False)
    warm = problem(600, 80, 4)
    ordinary(*warm, threads)
    stages.run(steps, OwnBlock(own_groups(*warm, np.arange(4))), parameters, {}, Work())
    words, outputs = problem(runs, train, targets)
    result = {}
    if size != "paper":
        shared, found = ordinary(words, outputs, threads)
        result = {
            "ordinary_ms": 1e3 * shared * threads / targets,
            "ordinary_nonzeros": float(np.median(found["nonzeros"])),
        }
    groups = own_groups(words, outputs, np.arange(targets))
    start = time.perf_counter()
    own = stages.run(steps, OwnBlock(groups), parameters, {}, Work(threads))
    seconds = time.perf_counter() - start
    if size != "paper":
        result["ratio"] = seconds / shared
    return {
        "own_ms": 1e3 * seconds * threads / targets,
        "own_nonzeros": float(np.median(own["nonzeros"])),
        "worst_kkt": float(own["kkt"].max()),
        **result,
    }
