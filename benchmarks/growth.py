"""Time and memory of each phase of a fit over runs, train units, targets and threads, and their exponents.

Each step is a store of its own, fitted in a process of its own; one size grows at a time. Seconds are
those of processors (of the clock over threads). The plot is ``docs/reference/growth.svg``.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import dmstore
from benchmarks.regression import make
from benchmarks.tools import measured
from dmstore.core import bits
from dmstore.core.threads import blas_threads, cores
from dmstore.regression import lasso_path
from dmstore.regression.fitting import stages
from dmstore.regression.fitting.engine import group_moments
from dmstore.regression.fitting.run_groups import Runs
from dmstore.regression.problem.moments import make_moments
from dmstore.regression.problem.packing import padded
from dmstore.regression.problem.parameters import Parameters
from dmstore.regression.problem.thread_pool import Work
from dmstore.regression.solvers.shared import SharedBlock

FIGURE = Path(__file__).parent.parent / "docs" / "reference" / "growth.svg"
BASE = {"runs": 16_384, "train": 2_048, "targets": 64, "threads": 1}
STEPS = {
    "runs": (8_192, 16_384, 32_768, 65_536),
    "train": (1_024, 2_048, 4_096, 8_192),
    "targets": (32, 64, 128, 256),
    "threads": tuple(2**n for n in range(cores().bit_length()) if 2**n <= cores()),
}
REPEATS = 2
SMALL = 3e-3
PHASES = ("read", "Gram", "moments", "choose", "refit")


@contextlib.contextmanager
def _phase(found: dict[str, float], name: str, clock: Any) -> Iterator[None]:
    """Time a block, and take the most memory that the process held during it."""
    # Linux forgets the peak so far.
    Path("/proc/self/clear_refs").write_text("5")
    before = _memory("VmRSS")
    start = clock()
    yield
    found[f"{name}_s"] = clock() - start
    found[f"{name}_gb"] = max(_memory("VmHWM") - before, 1e-6)


def _memory(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) * 1024 / 1e9


def phases(path: str, threads: int, clock: str) -> dict[str, float]:
    """Seconds and memory of the phases of a fit of a store, in this process."""
    found: dict[str, float] = {}
    clocks = {"wall": time.perf_counter, "processor": time.process_time}
    algorithm = dmstore.open_study(path).algorithm("a")
    parameters, work = Parameters(halves=False), Work(threads)
    targets = algorithm.table.sizes["target"]
    steps = stages.all_stages(1, halves=False)
    runs = Runs(algorithm, algorithm.table.view(), "margin", parts=1)
    sizes = runs.sizes
    # What is compiled is loaded before the clock starts.
    draw = np.random.default_rng(0)
    masks, noise = draw.random((200, 60)) < 0.5, draw.normal(size=(200, 2))
    lasso_path(masks, noise)
    make_moments(padded(bits.pack_runs(masks)), noise.astype(np.float16), np.zeros(2))
    with blas_threads(threads):
        with _phase(found, "read", clocks[clock]):
            words = runs.words(threads)
        with _phase(found, "Gram", clocks[clock]):
            made = stages.make_designs(steps[:1], words, sizes, _zeros, None, threads=threads)
        with _phase(found, "moments", clocks[clock]):
            outputs = runs.outputs(0, targets)
            said = [
                group_moments(outputs, group, slice(None), words[group], threads)
                for group in range(2)
            ]
        holdout = stages.check_designs(steps, words, sizes)

        def of(group: int) -> Any:
            return said[group]

        with _phase(found, "choose", clocks[clock]):
            designs = stages.by_groups(steps[:1], made, holdout)
            result = stages.run(
                steps[:1], SharedBlock(designs, of, outputs.shift), parameters, {}, work
            )
        before = steps[0], made[0]
        made = stages.make_designs(steps[1:], words, sizes, _zeros, before, threads=threads)
        with _phase(found, "refit", clocks[clock]):
            designs = stages.by_groups(steps[1:], made, {})
            result = stages.run(
                steps[1:], SharedBlock(designs, of, outputs.shift), parameters, result, work
            )
    return {**found, "nonzeros": float(np.median(result["nonzeros"]))}


def _zeros(train: int, dtype: Any) -> Any:
    return np.zeros((train, train), dtype=dtype)


def exponent(sizes: Any, values: Any) -> float:
    """Slope of values over sizes, both as logarithms, by least squares."""
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def run() -> dict[str, float]:
    found: dict[str, Any] = {}
    series: dict[str, list[dict[str, float]]] = {}
    for name, sizes in STEPS.items():
        clock = "wall" if name == "threads" else "processor"
        series[name] = []
        for size in sizes:
            which = {**BASE, name: size}
            threads = which.pop("threads")
            with tempfile.TemporaryDirectory(prefix="dmstore-growth-") as folder:
                path = Path(folder, "s.dm")
                make(path, **which)
                tries = [measured(phases, str(path), threads, clock)[0] for _ in range(REPEATS)]
                series[name].append({key: min(t[key] for t in tries) for key in tries[0]})
        for phase in PHASES:
            for unit in ("s", "gb") if name != "threads" else ("s",):
                values = [step[f"{phase}_{unit}"] for step in series[name]]
                # What takes less than this is lost in what the allocator keeps.
                if len(values) > 1 and (unit == "s" or min(values) > SMALL):
                    found[f"{phase}_{unit}_over_{name}"] = exponent(sizes, values)
        found[f"nonzeros_over_{name}"] = [step["nonzeros"] for step in series[name]]
    base = series["runs"][STEPS["runs"].index(BASE["runs"])]
    found |= {f"base_{key}": value for key, value in base.items()}
    draw(series)
    return found


def draw(series: dict[str, list[dict[str, float]]]) -> None:
    """Seconds of each phase over each size, as a small figure."""
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.ticker import FixedLocator, NullLocator

    colors = ("#6b7280", "#1b7f5c", "#c08a2d", "#b8382b", "#3b5b92")
    units = {"runs": "runs", "train": "train units", "targets": "targets", "threads": "threads"}
    figure = Figure(figsize=(9.6, 2.9), layout="constrained")
    panels = figure.subplots(1, 4, sharey=True)
    for axes, (name, steps) in zip(panels, series.items(), strict=True):
        sizes = STEPS[name]
        for phase, color in zip(PHASES, colors, strict=True):
            values = [step[f"{phase}_s"] for step in steps]
            axes.plot(sizes, values, color=color, marker="o", markersize=3.5, label=phase)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.xaxis.set_major_locator(FixedLocator(list(sizes)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axes.tick_params(labelsize=8)
        axes.set_xlabel(units[name])
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#e5e7eb", linewidth=0.6)
        axes.set_axisbelow(True)
    panels[0].set_ylabel("seconds")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=5, frameon=False, fontsize=9)
    style: Any = {"svg.fonttype": "none", "svg.hashsalt": "dmstore", "font.family": "sans-serif"}
    with mpl.rc_context(style):
        figure.savefig(FIGURE, metadata={"Date": None, "Creator": None})
