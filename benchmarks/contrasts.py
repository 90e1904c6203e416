"""Do the intervals and p-values of `contrast` hold what they promise? Simulated studies with known truth.

A study has linear outputs whose weights do not add up to 0, noise of each target's own and common to all, and ridge
fits of either half, too small by a lot, which no estimate may show. A and B have the same truth, so that each difference
that is claimed is false. `covers` is the share of 95 % intervals of A's effects that hold the truth, `covers_difference`
that of the differences, `claimed` the share of differences with p below .05, `any` how often any pair of a study is
claimed at a false discovery rate of .05, and `plain` the width of intervals with fits over that without.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dmstore.analysis.experiment.arms import Halves, arms_of
from dmstore.analysis.experiment.effects import Fits, effects
from dmstore.analysis.experiment.inference import discovery_rates, two_sided
from dmstore.core.threads import blas_threads

TRAIN, TARGETS = 60, 24


@dataclass(frozen=True)
class Side:
    """How one algorithm of a simulated study is run."""

    masks: int = 240
    alpha: float = 0.5
    noise: float = 1.0
    common: float = 0.0
    tails: bool = False
    repeats: int = 1
    bernoulli: bool = False
    own: bool = False
    fitted: bool = True


@dataclass(frozen=True)
class Setting:
    """Two algorithms of the same truth."""

    a: Side = field(default_factory=Side)
    b: Side = field(default_factory=Side)


SETTINGS = {
    "equal": Setting(),
    "no fits": Setting(Side(fitted=False), Side(fitted=False)),
    "one fit": Setting(Side(), Side(fitted=False)),
    "own masks": Setting(Side(), Side(own=True)),
    "alpha .3": Setting(Side(), Side(alpha=0.3, own=True)),
    "alpha .8 and .2": Setting(Side(alpha=0.8), Side(alpha=0.2, own=True)),
    "a quarter of the runs": Setting(Side(), Side(masks=60)),
    "four times the noise": Setting(Side(), Side(noise=4.0)),
    "common noise": Setting(Side(common=3.0), Side()),
    "heavy tails": Setting(Side(tails=True), Side(tails=True)),
    "repeats": Setting(Side(repeats=3), Side()),
    "Bernoulli masks": Setting(Side(bernoulli=True), Side(bernoulli=True, own=True)),
    "40 masks": Setting(Side(masks=40), Side(masks=40)),
    "24 masks": Setting(Side(masks=24), Side(masks=24, own=True)),
    "all at once": Setting(
        Side(common=2.0, tails=True), Side(masks=100, alpha=0.3, noise=3.0, own=True, repeats=2)
    ),
}


def masks(draw: np.random.Generator, side: Side) -> np.ndarray:
    """(mask, train) bool."""
    if side.bernoulli:
        return draw.random((side.masks, TRAIN)) < side.alpha
    order = draw.random((side.masks, TRAIN)).argsort(axis=1)
    return order < int(side.alpha * TRAIN)


def outputs(
    draw: np.random.Generator, mask: np.ndarray, weight: np.ndarray, side: Side
) -> np.ndarray:
    """Means over the runs of each mask: (mask, target)."""
    signal = mask @ weight.T
    shape = (side.repeats, *signal.shape)
    noise = draw.standard_t(3, shape) if side.tails else draw.normal(size=shape)
    shared = draw.normal(size=(side.repeats, len(mask), 1))
    scale = np.sqrt((weight**2).sum(axis=1) / 4)
    noise = side.noise * noise + side.common * shared
    return np.asarray(signal + scale * noise.mean(axis=0))


def ridge(mask: np.ndarray, values: np.ndarray) -> Any:
    """Fits that are too small: (target, train) csr."""
    from scipy.sparse import csr_array

    x = mask - mask.mean(axis=0)
    gram = x.T @ x + 0.5 * len(x) * np.eye(TRAIN)
    weight = np.linalg.solve(gram, x.T @ (values - values.mean(axis=0))).T
    # As a lasso leaves most weights 0.
    weight[np.abs(weight) < np.quantile(np.abs(weight), 0.5)] = 0
    return csr_array(weight.astype(np.float32))


def run_of(
    draw: np.random.Generator, weight: np.ndarray, side: Side, mask: np.ndarray
) -> tuple[Halves, Fits | None]:
    """One algorithm's runs, and the fits of their halves."""
    values = outputs(draw, mask, weight, side)
    half = (np.arange(len(mask)) % 2).astype(np.int64)
    ids = np.arange(len(mask)) + 1000 * side.own
    size = int(side.alpha * TRAIN) / TRAIN
    arms = arms_of(mask, values, half, mask_id=ids, rate=None if side.bernoulli else size)
    fits = [ridge(mask[half == h], values[half == h]) for h in (0, 1)]
    return arms, (lambda h, start, stop: fits[h][start:stop]) if side.fitted else None


def study(seed: int, setting: Setting) -> dict[str, float]:
    """One simulated study: shares over all pairs of groups."""
    draw = np.random.default_rng(seed)
    weight = draw.normal(0.3, 1.0, (TARGETS, TRAIN)) * (draw.random((TARGETS, TRAIN)) < 0.3)
    weight[: TARGETS // 3, :12] += 0.5
    train, target = np.zeros((TRAIN, 3)), np.zeros((TARGETS, 3))
    for group, (first, last) in enumerate(((0, 12), (12, 30), (30, 33))):
        train[first:last, group] = 1 / (last - first)
        target[group * TARGETS // 3 : (group + 1) * TARGETS // 3, group] = 3 / TARGETS
    mask = masks(draw, setting.a)
    mask_b = masks(draw, setting.b) if setting.b.own else mask[: setting.b.masks]
    made = [
        run_of(draw, weight, side, one) for side, one in ((setting.a, mask), (setting.b, mask_b))
    ]
    arms = [one for one, _ in made]
    planned = [not side.bernoulli for side in (setting.a, setting.b)]
    found = effects(arms, train, target, fits=[fit for _, fit in made], planned=planned)
    bare = effects(arms, train, target, planned=planned)
    effect = train.T @ weight.T @ target
    if not setting.a.bernoulli:
        everywhere = weight.mean(axis=1) @ target
        effect = (effect - everywhere) * TRAIN / (TRAIN - 1)
    p, low, high = two_sided(found.estimate, found.error, found.freedom)
    q = discovery_rates([p[2].ravel()])[0]
    return {
        "covers": float(((low[0] <= effect) & (effect <= high[0])).mean()),
        "covers_difference": float(((low[2] <= 0) & (high[2] >= 0)).mean()),
        "claimed": float((p[2] < 0.05).mean()),
        "any": float((q <= 0.05).any()),
        "plain": float((found.error[2] / bare.error[2]).mean()),
        "bias": float(((found.estimate[0] - effect) / found.error[0]).mean()),
    }


def rates(setting: Setting, studies: int) -> dict[str, float]:
    """Means over simulated studies."""
    with blas_threads(1):
        rows = [study(seed, setting) for seed in range(studies)]
    return {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}


def run(size: str = "small") -> dict[str, Any]:
    studies = {"small": 200, "medium": 500, "paper": 2000}[size]
    result: dict[str, Any] = {}
    lines = []
    for name, setting in SETTINGS.items():
        found = rates(setting, studies)
        result[f"contrast_{name.replace(' ', '_')}"] = found["covers_difference"]
        lines.append([name, *(f"{value:.3f}" for value in found.values())])
    table = "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)
    return {**result, "table": f"\n{table}"}
