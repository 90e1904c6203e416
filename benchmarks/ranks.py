"""Ranks and correlations of many targets at once: `dmstore.analysis` against `scipy.stats` on the same rows.

In blocks of targets, as `evaluate` asks for them, and one target at a time, as it does for targets that
are train units. Half of the rows have ties. Best of some turns each; memory is the peak of one turn
beyond its arguments, as NumPy reports it.
"""

from __future__ import annotations

import time
import tracemalloc
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from dmstore.analysis.evaluation import rank_statistics
from dmstore.analysis.evaluation.eval_runs import TARGETS
from dmstore.core.threads import blas_threads

# Targets, masks, and targets a block.
SIZES = ((10_000, 100, TARGETS), (10_000, 200, TARGETS), (2_000, 1_000, TARGETS), (1_000, 100, 1))
REPEATS = 5


def rows(targets: int, masks: int) -> tuple[np.ndarray, np.ndarray]:
    """Predictions, every other row of them with ties, and outputs."""
    draw = np.random.default_rng(0)
    outputs = draw.normal(size=(targets, masks))
    predicted = outputs + draw.normal(size=outputs.shape)
    predicted[::2] = np.round(predicted[::2], 1)
    return predicted, outputs


def ways() -> dict[str, tuple[Callable[..., Any], Callable[..., Any]]]:
    """Ours and SciPy's, by name."""
    from scipy import stats

    return {
        "ranks": (lambda a, _: rank_statistics.ranks(a), lambda a, _: stats.rankdata(a, axis=1)),
        "pearson": (rank_statistics.pearson, lambda a, b: stats.pearsonr(a, b, axis=1).statistic),
        "kendall": (
            rank_statistics.kendall,
            lambda a, b: stats.kendalltau(a, b, axis=1, method="asymptotic").statistic,
        ),
    }


def blocks(
    predicted: np.ndarray, outputs: np.ndarray, size: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for start in range(0, len(predicted), size):
        yield predicted[start : start + size], outputs[start : start + size]


def best(way: Callable[..., Any], pairs: list[tuple[np.ndarray, np.ndarray]]) -> float:
    start = time.process_time()
    for a, b in pairs:
        way(a, b)
    return time.process_time() - start


def peak(way: Callable[..., Any], pair: tuple[np.ndarray, np.ndarray]) -> int:
    tracemalloc.start()
    way(*pair)
    found = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return found


def run() -> dict[str, Any]:
    lines = []
    found: dict[str, Any] = {}
    with blas_threads(1), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for targets, masks, size in SIZES:
            pairs = list(blocks(*rows(targets, masks), size))
            for name, both in ways().items():
                seconds = [np.inf, np.inf]
                for _ in range(REPEATS):
                    # In turn: other work on the machine hits both alike.
                    seconds = [min(s, best(w, pairs)) for s, w in zip(seconds, both, strict=True)]
                memory = [peak(way, pairs[0]) / 1e6 for way in both]
                found[f"ratio_{name}_{targets}x{masks}_by_{size}"] = seconds[1] / seconds[0]
                cells = (name, f"{targets:,} x {masks:,} by {size}", *(f"{s:.3f}" for s in seconds))
                cells += (f"{seconds[1] / seconds[0]:.2f}", *(f"{m:.2f}" for m in memory))
                lines.append(f"| {' | '.join(cells)} |")
    return {**found, "table": "\n" + "\n".join(lines)}
