"""``dmstore compare STUDY A B`` of a whole study, from the compressed store, and what of it is reading.

Two algorithms with the same linear effects of train units on targets, up to the scale of each target and to features that
one of them alone uses. Runs are made of these effects; fits are the effects with an error of their own in each half of the masks,
written as ``dmstore fit`` writes them, since a lasso of this size takes hours. A store that is there is
left alone, and one that was begun is finished.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import csr_array

import dmstore
from dmstore.analysis.experiment.projections import sparse_products
from dmstore.core import bits
from dmstore.regression.fitting.blocks import Blocks, join
from dmstore.regression.fitting.fit_document import begun, describe, pinned
from dmstore.regression.fitting.run_groups import Runs
from dmstore.regression.problem.packing import padded
from dmstore.regression.problem.parameters import Parameters
from dmstore.storage.acts.fill import fill
from dmstore.storage.table.rows import Rows, row_digests
from dmstore.study import results
from dmstore.study.algorithm import Algorithm
from dmstore.study.study import Study

# Targets, train units, runs, components.
SIZES = {
    "small": (2_000, 10_000, 10_000, 100),
    "medium": (5_000, 25_000, 25_000, 100),
    "paper": (10_000, 50_000, 50_000, 100),
}
NAMES = ("a", "b")
# Share of weights that is not zero, groups of targets that have units in common, features of one algorithm alone, and the share
# of the targets that use one.
DENSITY, GROUPS, FEATURES, USERS = 0.015, 100, 15, 0.05
CLASSES = 10
_ROWS = 4096


class Truth:
    """Effects of train units under both algorithms: (target, train) csr_array each; the features that one alone uses.

    Attributes
    ----------
    effects : pair of (target, train) csr_array
    feature : pair of list of (train units, targets) int64
    group : (target,) int64
    """

    def __init__(self, targets: int, train: int) -> None:
        draw = np.random.default_rng(0)
        size = int(DENSITY * train)
        pool = [draw.choice(train, 2 * size, replace=False) for _ in range(GROUPS)]
        shared = [draw.normal(size=2 * size) for _ in pool]
        self.group = draw.integers(0, GROUPS, targets)
        self.feature = [
            [
                (
                    draw.choice(train, train // 200, replace=False),
                    np.flatnonzero(draw.random(targets) < USERS),
                )
                for _ in range(FEATURES)
            ]
            for _ in NAMES
        ]
        uses = np.zeros((2, FEATURES, targets), dtype=bool)
        for one, features in zip(uses, self.feature, strict=True):
            for row, (_, who) in zip(one, features, strict=True):
                row[who] = True
        rows: tuple[list[csr_array], list[csr_array]] = ([], [])
        for target in range(targets):
            common = np.zeros(train, dtype=np.float32)
            common[draw.choice(train, size // 4, replace=False)] = draw.normal(size=size // 4)
            some = draw.random(2 * size) < 0.25
            common[pool[self.group[target]][some]] = shared[self.group[target]][some]
            for way, into in enumerate(rows):
                row = common.copy()
                for place in np.flatnonzero(uses[way, :, target]):
                    row[self.feature[way][place][0]] += 1.5 / (1 + 0.2 * place)
                into.append(csr_array((np.exp(0.3 * draw.normal()) * row)[None]))
        self.effects = tuple(_stacked(some, train) for some in rows)


def _stacked(rows: list[csr_array], train: int) -> csr_array:
    counts = [len(row.data) for row in rows]
    content = (
        np.concatenate([row.data for row in rows]).astype(np.float32),
        np.concatenate([row.indices for row in rows]),
        np.cumsum([0, *counts]),
    )
    return csr_array(content, shape=(len(rows), train))


def make(path: Path, size: str) -> None:
    """The study, as far as it is not there yet."""
    targets, train, runs, _ = SIZES[size]
    truth = Truth(targets, train)
    if not (path / "study.json").exists():
        units, who = truth.feature[0][0]
        dmstore.create_study(
            path,
            {
                "train_label": np.zeros(train, dtype=np.int64),
                "target_label": truth.group % CLASSES,
                "train_marked": np.isin(np.arange(train), units),
                "target_marked": np.isin(np.arange(targets), who),
                "class_name": np.array([f"kind {k}" for k in range(CLASSES)]),
            },
            seed=0,
        )
    study = dmstore.open_study(path)
    for number, name in enumerate(NAMES):
        if name not in study.algorithms:
            study.add_algorithm(name, runs=runs)
        algorithm = study.algorithm(name)
        if not len(algorithm.table.view()):
            effects = truth.effects[number]
            print(f"{name}: {runs} runs", file=sys.stderr, flush=True)
            assert fill(algorithm.table, _runs(algorithm, effects, number, runs), runs)
        _fit(study, algorithm, truth.effects[number], number)


def _runs(algorithm: Algorithm, effects: csr_array, number: int, runs: int) -> Iterator[Rows]:
    """Runs with as much noise as signal."""
    noise = np.sqrt(np.asarray(effects.multiply(effects).sum(axis=1)).ravel() / 4)
    noise = noise.astype(np.float32)
    for start in range(0, runs, _ROWS):
        draw = np.random.default_rng([1, number, start])
        run = np.arange(start, min(start + _ROWS, runs))
        # Without repeats a mask has the number of its run.
        mask = algorithm.masks(run)
        values = noise * draw.standard_normal((len(run), len(noise)), dtype=np.float32)
        values += sparse_products(padded(bits.pack_runs(mask)), effects)[: len(run)]
        columns = {"time": np.zeros(len(run), np.int64), "host": np.full(len(run), "benchmark")}
        rows = Rows(run, {"mask": mask, "margin": values}, columns)
        made = algorithm.complete(rows, "benchmark", planned_masks=True)
        digest = row_digests(made.run, made.arrays, algorithm.table.spec)
        yield Rows(made.run, made.arrays, made.columns, digest)


def _fit(study: Study, algorithm: Algorithm, effects: csr_array, number: int) -> None:
    """Write a fit of the algorithm's runs, block by block, through what a fit is written by."""
    parameters = Parameters()
    view = pinned(study, algorithm)
    stated = describe(
        study, algorithm, view, Runs(algorithm, view, "margin", parts=2), "margin", parameters
    )
    where = f"datamodels/{algorithm.name}/{stated['fit']}/"
    if results.is_complete(study.objects, where):
        return
    targets = effects.shape[0]
    with begun(study, where, stated):
        blocks = Blocks(study.objects, where, targets, 1)
        for block in blocks.todo(1):
            start, stop = blocks.bounds(block)
            draw = np.random.default_rng([2, number, block])
            # Of halves that know nothing of each other's noise.
            weight = [_estimated(effects[start:stop], share, draw) for share in (0.7, 1.0, 1.0)]
            blocks.store(block, 1, _arrays(weight, parameters.lams))
            print(f"{algorithm.name}: fit to {stop}", file=sys.stderr, flush=True)
        join(study.objects, where, targets, dict)


def _estimated(effects: csr_array, share: float, draw: np.random.Generator) -> np.ndarray:
    """Effects as a fit finds them: most of them, each with an error, and a few that are none."""
    values = effects.toarray()
    errors = 1 + np.float32(0.2 * share) * draw.standard_normal(values.shape, dtype=np.float32)
    values *= errors * (draw.random(values.shape, dtype=np.float32) < 1 - 0.1 * share)
    extra = int(DENSITY / 5 * values.shape[1])
    for row in values:
        row[draw.choice(len(row), extra, replace=False)] += 0.3 * share * draw.normal(size=extra)
    return np.asarray(values)


def _arrays(weight: list[np.ndarray], lams: int) -> dict[str, np.ndarray]:
    """The arrays of a block of a fit; what describes the path is made up."""
    count = len(weight[0])
    ones = np.ones(count)
    return {
        "weight": weight[0],
        "weight_half": np.stack(weight[1:]),
        "bias": 0 * ones,
        "lam": 0.1 * ones,
        "lam_max": ones,
        "lam_path": np.tile(np.geomspace(1, 0.01, lams), (count, 1)),
        "holdout_mse": np.ones((count, lams)),
        "holdout_r2": 0.5 * ones,
        "kkt": 1e-6 * ones,
        "gap": 1e-6 * ones,
        "nonzeros": np.count_nonzero(weight[0], axis=1).astype(np.int32),
        "sweeps": np.ones(count, dtype=np.int32),
        "status": np.zeros(count, dtype=np.int8),
    }


# In processes of their own: all that a comparison reads, and the comparison; each tells seconds by what was done.
_READ = """
from dmstore import open_study
from dmstore.analysis.comparison.measured import fits_of_halves, runs_to_measure
from dmstore.analysis.experiment.reading import read_arms
from dmstore.analysis.geometry.rows import unit_rows
study, names = open_study(sys.argv[1]), ("a", "b")
data = [study.datamodels(name) for name in names]
progress("fits", 0, 1)
for one in data:
    unit_rows(one["weight"])
    fits_of_halves(one)
progress("masks", 0, 1)
runs = runs_to_measure(study, names, [one.attrs["fit"] for one in data])
arms = read_arms(study, tuple(runs), "margin", threads=cores())
progress("outputs", 0, 1)
targets = data[0].sizes["target"]
for start in range(0, targets, 256):
    for halves in arms:
        for arm in halves:
            arm.outputs(start, min(start + 256, targets))
found = {}
"""
_COMPARE = """
import xarray
from dmstore import open_study
from dmstore.analysis import compare
with blas_threads(cores()):
    made = compare(open_study(sys.argv[1]), "a", "b", components=int(sys.argv[2]), progress=progress)
found = {"comparison": made.attrs["comparison"]}
"""
_CHILD = """
import json, resource, sys, time
from dmstore.core.threads import blas_threads, cores
spent, last = {}, ["start", time.perf_counter(), time.process_time()]
def progress(what, done, total):
    wall, cpu = time.perf_counter(), time.process_time()
    before = spent.setdefault(last[0], [0.0, 0.0])
    before[0], before[1] = before[0] + wall - last[1], before[1] + cpu - last[2]
    last[:] = [what, wall, cpu]
%s
progress("", 0, 1)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
print(json.dumps({"found": found, "spent": spent, "peak_gb": peak}))
"""


def _process(work: str, *arguments: object) -> dict[str, Any]:
    """What a process found, its seconds by what it did, of the wall and of processors, and its memory."""
    start = time.perf_counter()
    command = [sys.executable, "-c", _CHILD % work, *map(str, arguments)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    found["wall_s"] = time.perf_counter() - start
    found["cpu_s"] = sum(cpu for _, cpu in found["spent"].values())
    return found


def run(size: str = "small", store: str | None = None) -> dict[str, Any]:
    """Make the study, read what a comparison reads, compare, and hold what is found against what was planted."""
    targets, train, runs, components = SIZES[size]
    folder = Path(store or tempfile.mkdtemp(prefix="dmstore-benchmark-"))
    path = folder / f"{size}.dm"
    try:
        folder.mkdir(exist_ok=True, parents=True)
        make(path, size)
        shutil.rmtree(path / "comparisons", ignore_errors=True)
        reading, comparing = _process(_READ, path), _process(_COMPARE, path, components)
        found = _planted(path, Truth(targets, train))
    finally:
        if store is None:
            shutil.rmtree(folder)
    result = {"targets": targets, "train": train, "runs": runs, "components": components}
    for name, one in (("read", reading), ("compare", comparing)):
        result |= {f"{name}_{key}": one[key] for key in ("wall_s", "cpu_s", "peak_gb")}
        for what, (wall, cpu) in one["spent"].items():
            result |= {f"{name}_{what}_wall_s": wall, f"{name}_{what}_cpu_s": cpu}
    return {**result, **found}


def _planted(path: Path, truth: Truth) -> dict[str, float]:
    """How near the planted features a comparison's directions are, and what it says of them."""
    made = dmstore.open_study(path).comparison(*NAMES)
    direction, q = made["direction"].values, made["q"].values
    result: dict[str, float] = {}
    for way, features in enumerate(truth.feature):
        units = np.zeros((len(features), direction.shape[2]), dtype=np.float32)
        for row, (some, _) in zip(units, features, strict=True):
            row[some] = 1 / np.sqrt(len(some))
        # Features that are as strong share directions: how much of each lies in those beyond chance.
        beyond = direction[way][q[way] <= made.attrs["fdr"]]
        held = np.linalg.norm(units @ beyond.T, axis=1)
        result |= {
            f"{NAMES[way]}_beyond_chance": float(len(beyond)),
            f"{NAMES[way]}_least_planted": float(held.min()),
        }
    effects = [one.astype(np.float64) for one in truth.effects]
    length = [np.sqrt(np.asarray(one.multiply(one).sum(axis=1)).ravel()) for one in effects]
    true = np.asarray(effects[0].multiply(effects[1]).sum(axis=1)).ravel() / (length[0] * length[1])
    low, high = (
        made["similarity"].values + side * 1.96 * made["similarity_error"].values
        for side in (-1, 1)
    )
    result["similarity"] = float(made["group_similarity"].values[0])
    result["similarity_true"] = float(true.mean())
    known = np.isfinite(low)
    result["told_by_themselves"] = float(known.mean())
    result["intervals_hold"] = float(((low <= true) & (true <= high))[known].mean())
    return result
