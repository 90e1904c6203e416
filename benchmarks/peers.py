"""Lasso paths of a sample of targets by every peer that is installed, at equal or better KKT.

All solve the same problem on the same lams, two processes (ours: threads) of one core each, side by
side; seconds are those of processors, halved, so that other work on the machine counts little. Peers
are given what suits them best: the covariance of masks and outputs where they take it, else a
square root of it, which has train rows in place of runs. Making these is not timed. A peer's
tolerance is tightened until its worst KKT violation, in float64 from the integer Gram as ours, is
no more than 1e-4 lam; it is compared with ours at a violation that is no larger than that. A fit goes along the path in float32, because it only chooses lam, and solves in
float64 at the lam that is chosen: that is timed as well, and `fit_s_a_target` is all that a fit does.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import dmstore
from benchmarks.peer import LIMIT
from benchmarks.regression import SIZES, make
from dmstore.regression.fitting.engine import group_moments
from dmstore.regression.fitting.run_groups import Runs
from dmstore.regression.kernels import gradient, popcount
from dmstore.regression.kernels import path as kernels
from dmstore.regression.problem.block import Designs, Outputs
from dmstore.regression.problem.design import Design, make_design
from dmstore.regression.problem.moments import Moments
from dmstore.regression.problem.parameters import PATH_TOLERANCE, Parameters
from dmstore.regression.problem.thread_pool import Work
from dmstore.regression.solvers.lasso import fit_block
from dmstore.regression.solvers.shared import precisions

PROCESSES = 2
REPEATS = 3
OURS = 16
KKT = 1e-4
# Of ours, until the violation is below that of most peers.
TOLERANCES = (4e-3, 1e-3, 1e-4, 1e-5, 1e-6)
# Peer: targets, what it is given, and tolerances to try until one reaches the KKT violation asked for.
PEERS: dict[str, tuple[int, str, Sequence[float]]] = {
    "scikit-learn": (8, "covariance", (1e-5, 1e-6, 1e-7, 1e-8, 1e-9, 1e-10, 1e-11)),
    "skglm": (4, "covariance", (1e-4, 4e-5, 1e-5)),
    "celer": (2, "square root", (1e-3, 5e-4, 2e-4, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9)),
    "python-glmnet": (2, "square root", (1e-9, 1e-11)),
    "adelie": (4, "covariance", (1e-7, 1e-8, 1e-9, 1e-10, 1e-11, 1e-12)),
    "scm2cpp-learn": (8, "covariance", (1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7)),
}


@dataclass(frozen=True)
class Sample:
    """A design of paper size with a sample of its targets.

    Attributes
    ----------
    train, holdout : Design
    said, checked : Moments
        Of the runs fitted on and of the holdout runs.
    shift : (target,) float64
    """

    train: Design
    holdout: Design
    said: Moments
    checked: Moments
    shift: NDArray[np.float64]

    @property
    def moment(self) -> NDArray[np.float64]:
        """Covariance of masks and outputs: (target, train)."""
        mean = self.said.total / self.said.runs
        return self.said.product.T / self.said.runs - mean[:, None] * self.train.mean


def sample(size: str) -> Sample:
    """Masks and outputs as the benchmark ``regression`` makes them, for few targets."""
    runs, train, _ = SIZES[size]
    with tempfile.TemporaryDirectory(prefix="dmstore-benchmark-") as folder:
        path = Path(folder, "s.dm")
        make(path, runs, train, OURS)
        algorithm = dmstore.open_study(path).algorithm("a")
        table = Runs(algorithm, algorithm.table.view(), "margin", parts=1)
        words, outputs = table.words(PROCESSES), table.outputs(0, OURS)
    designs = [
        make_design(w, n, threads=PROCESSES) for w, n in zip(words, table.sizes, strict=True)
    ]
    said, checked = (
        group_moments(outputs, group, slice(None), words[group], PROCESSES) for group in range(2)
    )
    return Sample(designs[0], designs[1], said, checked, outputs.shift)


def ours(
    data: Sample, lams: NDArray[np.float64], precision: int, tolerance: float
) -> tuple[float, float]:
    """Seconds a target and worst KKT violation of our path, at all lams, to a tolerance.

    The precision is 0 for that in which a fit goes along the path, -1 for float64.
    """
    design, moment, (targets, steps) = data.train, data.moment, lams.shape
    words, work = data.holdout.words[:, : popcount.LANES].copy(), Work(PROCESSES)
    nothing = np.zeros(64 * words.shape[1])
    kept, dtype, quantum = precisions(design.runs)[precision]
    train = len(design.mean)

    def solve(target: int, last: int) -> NDArray[Any]:
        weight, *_ = kernels.choose(
            kernels.Fitted(design.gram, design.mean, moment[target], design.runs, 0.0),
            kernels.Held(words, nothing, 0),
            lams[target, :last],
            kernels.Limits(tolerance, 20000, 0),
            np.empty(last),
            kernels.Memory(*work.flat(kept, train), quantum),
            np.empty((2, 2 + kernels.ABREAST, train), dtype=dtype),
        )
        return np.asarray(weight, dtype=np.float64)

    def check(target: int) -> None:
        for last in range(1, steps + 1):
            weight = solve(target, last)
            worst[target] = max(worst[target], violation(data, lams, target, last - 1, weight))

    def clock(target: int) -> None:
        start = time.thread_time()
        solve(target, steps)
        spent[target] = min(spent[target], time.thread_time() - start)

    solve(0, 2)
    spent, worst = np.full(targets, np.inf), np.zeros(targets)
    for _ in range(REPEATS):
        work.each(clock, targets)
    work.each(check, targets)
    return float(spent.mean()) / PROCESSES, float(worst.max())


def violation(
    data: Sample, lams: NDArray[np.float64], target: int, step: int, weight: Any
) -> float:
    """Largest KKT violation relative to lam, in float64 from the integers."""
    design = data.train
    found = gradient.certify(
        design.gram, design.mean, data.moment[target], design.runs, 1.0, weight, lams[target, step]
    )
    return float(found[0])


def write(data: Sample, lams: NDArray[np.float64], folder: str) -> None:
    """What peers are given."""
    design = data.train
    mean = design.mean
    covariance = design.gram / design.runs - np.outer(mean, mean)
    root = np.linalg.cholesky(covariance).T * np.sqrt(design.train)
    for name, values in (
        ("covariance", covariance),
        ("root", root),
        ("moment", data.moment.T),
        ("all", lams),
    ):
        np.save(Path(folder, f"{name}.npy"), values)


def solve(python: str, name: str, folder: str, targets: int, tolerance: float) -> dict[str, Any]:
    """Let the processes of a peer solve so many targets, and time it."""
    lams = np.load(Path(folder, "all.npy"))[:targets]
    np.save(Path(folder, "lam.npy"), lams)
    threads = {f"{n}_NUM_THREADS": "1" for n in ("OMP", "OPENBLAS", "MKL", "NUMBA")}
    environment = {k: v for k, v in os.environ.items() if k != "OPENBLAS_CORETYPE"} | threads
    script = str(Path(__file__).with_name("peer.py"))
    with contextlib.ExitStack() as stack:
        children = [
            stack.enter_context(
                subprocess.Popen(
                    [python, "-W", "ignore", script, name, folder, str(n), str(PROCESSES), str(tolerance)],
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
                )
            )
            for n in range(PROCESSES)
        ]  # fmt: skip
        try:
            said = [json.loads(child.stdout.readline() or "{}") for child in children]
            if any("version" not in answer for answer in said):
                why = said[0].get("absent")
                return {"absent": "not installed" if why else "failed"}
            for child in children:
                child.stdin.write("go\n")
                child.stdin.flush()
            done = [child.communicate()[0] for child in children]
        finally:
            for child in children:
                child.kill()
    if not all(done):
        return {**said[0], "over": LIMIT}
    spent = sum(json.loads(line)["seconds"] for line in done) / PROCESSES
    weights = np.zeros((targets, lams.shape[1], len(np.load(Path(folder, "moment.npy"), "r"))))
    for n in range(PROCESSES):
        weights[n::PROCESSES] = np.load(Path(folder, f"weight-{n}.npy"))
    return {**said[0], "seconds": spent / targets, "weights": weights}


def measure(python: str, name: str, data: Sample, lams: Any, folder: str) -> dict[str, Any]:
    """A peer at the first tolerance that reaches the KKT violation asked for.

    A target a process tells most tolerances from one another; then the whole sample is solved.
    """
    targets, given, tolerances = PEERS[name]
    found: dict[str, Any] = {"given": given}
    for tolerance in tolerances:
        for count in sorted({PROCESSES, targets}):
            answer = solve(python, name, folder, count, tolerance)
            found |= {key: answer[key] for key in answer if key != "weights"}
            if "weights" not in answer:
                return found
            worst = max(
                violation(data, lams, target, step, answer["weights"][target, step])
                for target in range(count)
                for step in range(lams.shape[1])
            )
            found |= {"worst_kkt": worst, "tolerance": tolerance, "targets": count}
            print(name, found, file=sys.stderr, flush=True)
            if worst > KKT:
                break
        else:
            return found
    return found


def run(size: str = "small", peer: str | None = None, python: str | None = None) -> dict[str, Any]:
    data = sample(size)
    parameters = Parameters(halves=False)
    largest = 2 * np.abs(data.moment).max(axis=1)
    lams = largest[:, None] * np.geomspace(1.0, parameters.lam_ratio, parameters.lams)
    designs = Designs(data.train, data.holdout, data.train + data.holdout)
    outputs = Outputs(data.said, data.checked, data.said + data.checked, data.shift)
    fitted = fit_block(designs, outputs, parameters, threads=PROCESSES)
    spent = []
    for _ in range(REPEATS):
        start = time.process_time()
        fit_block(designs, outputs, parameters, threads=PROCESSES)
        spent.append(time.process_time() - start)
    whole = min(spent) / OURS / PROCESSES
    exact = [ours(data, lams, -1, tolerance) for tolerance in TOLERANCES]
    own, worst = next(one for one in exact if one[1] <= KKT)
    coarse, coarse_worst = ours(data, lams, 0, PATH_TOLERANCE)
    found: dict[str, Any] = {
        "size": size,
        "seconds_a_target": own,
        "worst_kkt": worst,
        "float32_s_a_target": coarse,
        "float32_worst_kkt": coarse_worst,
        "fit_s_a_target": whole,
        "fit_worst_kkt": float(fitted["kkt"].max()),
        "fit_lams": float(np.isfinite(fitted["holdout_mse"]).sum(axis=1).mean()),
        "fit_nonzeros": float(np.median(fitted["nonzeros"])),
    }
    given = "integer Gram"
    rows = [
        ("dmstore, float64", dmstore.__version__, f"{s:.4f}", "1", f"{kkt:.1e}", given)
        for s, kkt in exact
    ]
    rows.append(("dmstore, as a fit goes", "", f"{coarse:.4f}", "", f"{coarse_worst:.1e}", given))
    with tempfile.TemporaryDirectory(prefix="dmstore-peers-") as folder:
        write(data, lams, folder)
        for name in PEERS if peer is None else [peer]:
            result = measure(python or sys.executable, name, data, lams, folder)
            # Against ours at a violation that is no larger, or the smallest that was tried.
            equal = result.get("worst_kkt", KKT)
            other = next((one for one in exact if one[1] <= equal), exact[-1])
            rows.append((name, *_row(result, other)))
            found[f"ratio_{name}"] = result.get("seconds", np.nan) / other[0]
    found["table"] = "\n" + "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return found


def _row(result: dict[str, Any], own: tuple[float, float]) -> tuple[str, str, str, str, str]:
    """Version, seconds a target, ratio to ours (and its violation), worst KKT violation, what it was given."""
    if "absent" in result:
        return (result["absent"], "", "", "", "")
    if "over" in result:
        return (result["version"], f"over {LIMIT} s a process", "", "", result["given"])
    spent = result["seconds"]
    return (
        result["version"],
        f"{spent:.3f}",
        f"{spent / own[0]:.1f} ({own[1]:.1e})",
        f"{result['worst_kkt']:.1e}",
        result["given"],
    )
