"""Do the intervals of `evaluate` and of counterfactual effects hold what they promise? Simulations with known truth.

`lds` draws studies of linear outputs with noise (of each target's own, and common to all), a good and a worse estimate
of the weights; their LDS over very many fresh masks is the truth. `covers` is the share of studies
whose 95 % interval holds it, `gap_covers` that of the interval of the good one's lead, `claimed` how often two estimates of equal
merit are said to differ (5 % is right), and `power` how often the good one is said to be ahead of the worse one.
`contrasts` (its own module, and a benchmark by itself) are effects of groups of train units.
`ceiling` compares the mean noise ceiling with what the truth reaches, `effects` is the coverage of mean changes of a probability.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks import contrasts, differences
from dmstore.analysis import effect
from dmstore.analysis.evaluation.benchmark import Method, judge
from dmstore.analysis.evaluation.eval_runs import Truth
from dmstore.analysis.evaluation.noise_ceiling import noise_ceiling
from dmstore.core.threads import blas_threads

FEATURES = 40
# Error of the estimates' weights, as a share of the weights.
ESTIMATES = {"good": 0.7, "as good": 0.7, "worse": 1.0}
# Targets, masks, noise of each target and noise common to targets, as shares of the signal.
LDS = (
    (1, 10, 1.0, 0.0),
    *((20, masks, 1.0, 0.0) for masks in (5, 8, 10, 20, 60, 200)),
    *((20, 10, *noise) for noise in ((0.3, 0.0), (3.0, 0.0), (1.0, 3.0))),
    *((200, masks, 1.0, 0.0) for masks in (20, 60, 200)),
    *((200, 60, *noise) for noise in ((0.3, 0.0), (1.0, 1.0), (3.0, 0.0))),
)
SIGNALS = {
    "none": (0.0, 0.0),
    "weak": (0.3, 0.3),
    "0 to weak": (0.0, 0.4),
    "0 to strong": (0.0, 1.5),
}
CEILING = ((30, 2), (100, 2), (100, 4), (300, 2))
# Models, examples; standard deviations of models, examples and both.
EFFECTS = tuple((models, examples) for models in (2, 3, 5, 10) for examples in (10, 100))
PARTS = ((1.0, 0.0, 0.3), (1.0, 1.0, 1.0), (0.3, 1.0, 1.0))


def outputs(
    draw: np.random.Generator, weight: np.ndarray, masks: int, noise: float, common: float
) -> tuple[np.ndarray, np.ndarray]:
    """What masks are, as normal numbers, and what models say: (mask, feature) and (mask, target).

    Normal, so that the truth is known exactly: sums of many units are nearly so.
    """
    seen = draw.normal(size=(masks, weight.shape[1]))
    own = noise * draw.normal(size=(masks, len(weight)))
    # How a target takes what is common to all is its own.
    shared = common * draw.normal(size=(masks, 1)) * np.sign(weight[:, 0])
    return seen, seen @ weight.T + np.linalg.norm(weight, axis=1) * (own + shared)


def reached(weight: np.ndarray, scores: np.ndarray, noise: float, common: float) -> np.ndarray:
    """LDS over very many masks: Spearman's rho of two normal sums, from their correlation: (target,)."""
    length = np.linalg.norm(weight, axis=1) * np.linalg.norm(scores, axis=1)
    correlation = (weight * scores).sum(axis=1) / length / np.sqrt(1 + noise**2 + common**2)
    return np.asarray(np.arcsin(correlation / 2) * 6 / np.pi)


def lds(seed: int, targets: int, masks: int, noise: float, common: float) -> dict[str, float]:
    """One study: what held, 1 or 0 each."""
    draw = np.random.default_rng(seed)
    weight = draw.normal(size=(targets, FEATURES))
    scores = {
        name: weight + error * draw.normal(size=weight.shape) for name, error in ESTIMATES.items()
    }
    true = {name: reached(weight, one, noise, common) for name, one in scores.items()}
    seen, values = outputs(draw, weight, masks, noise, common)
    methods = [
        Method(name, "fit" if name == "good" else "scores", one @ seen.T, 0, "")
        for name, one in scores.items()
    ]
    count = np.arange(masks)
    truth = Truth(
        np.zeros((masks, 1), dtype=bool), values, count, count, False, np.full(targets, -1)
    )
    found = judge(methods, truth, 1000, seed)

    def holds(name: str, what: str, value: float) -> float:
        one = found.sel(predictor=name)
        return float(one[f"{what}_low"] <= value <= one[f"{what}_high"])

    good = found.sel(predictor="good")
    single = (good["lds_low"] <= true["good"]) & (true["good"] <= good["lds_high"])
    lead = float(true["good"].mean() - true["worse"].mean())
    return {
        "covers": holds("good", "mean_lds", float(true["good"].mean())),
        "covers_target": float(single.mean()),
        "gap_covers": holds("worse", "gap", lead),
        "claimed": 1 - holds("as good", "gap", float(true["good"].mean() - true["as good"].mean())),
        "power": float(found["gap_low"].sel(predictor="worse") > 0),
    }


def ceiling(seed: int, masks: int, repeats: int, low: float, high: float) -> dict[str, float]:
    """One study: the mean noise ceiling, and what the truth reaches over many masks."""
    draw = np.random.default_rng(seed)
    signal = draw.uniform(low, high, 300)
    truth = np.repeat(draw.normal(size=(masks, len(signal))), repeats, axis=0)
    values = truth * signal + draw.normal(size=truth.shape)
    # Spearman's rho of two normal variables, from their correlation.
    best = np.arcsin(signal / np.sqrt(signal**2 + 1 / repeats) / 2) * 6 / np.pi
    own = noise_ceiling(values, np.repeat(np.arange(masks), repeats))
    return {"ceiling": float(own.mean()), "reached": float(best.mean())}


def effects(models: int, examples: int, parts: tuple[float, ...], studies: int = 1000) -> float:
    """Share of intervals that hold the true effect."""
    draw = np.random.default_rng(models)
    shapes = ((models, 1), (1, examples), (models, examples))
    change: Any = sum(
        0.02 * part * draw.normal(size=(studies + 1, *shape))
        for part, shape in zip(parts, shapes, strict=True)
    )
    change[0] = 0
    found = effect({"a": 0.5 + change}, range(studies + 1)).isel(intensity=slice(1, None))
    return float(((found["effect_low"] < 0) & (found["effect_high"] > 0)).mean())


def _mean(rows: list[dict[str, float]]) -> dict[str, float]:
    return {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}


def run(size: str = "small") -> dict[str, Any]:
    studies = {"small": 100, "medium": 500, "paper": 1000}[size]
    lines, result = [], {}
    with blas_threads(1):
        for setting in LDS:
            rates = _mean([lds(seed, *setting) for seed in range(studies)])
            result[f"lds_{'_'.join(map(str, setting))}"] = rates["covers"]
            lines.append([*setting, *(f"{rate:.3f}" for rate in rates.values())])
        for masks, repeats in CEILING:
            for name, signal in SIGNALS.items():
                found = _mean([ceiling(seed, masks, repeats, *signal) for seed in range(10)])
                result[f"ceiling_{masks}_{repeats}_{name}"] = found["ceiling"] - found["reached"]
                lines.append(
                    [masks, repeats, name, f"{found['ceiling']:.3f}", f"{found['reached']:.3f}"]
                )
        for models, examples in EFFECTS:
            covers = [effects(models, examples, parts) for parts in PARTS]
            result[f"effect_{models}_{examples}"] = min(covers)
            lines.append([models, examples, *(f"{rate:.3f}" for rate in covers)])
    table = "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)
    groups, whole = contrasts.run(size), differences.run(size)
    return {
        **result,
        **groups,
        **whole,
        "table": f"\n{table}",
        "contrast_table": groups["table"],
        "difference_table": whole["table"],
    }
