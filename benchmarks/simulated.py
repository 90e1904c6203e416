"""Pairs of algorithms with known truth, fitted and compared as `compare` does it, without a store.

Two algorithms have the same linear effects of 240 train units on 150 targets of 8 classes, up to what the
condition says, or A uses 12 further units on a quarter of the targets, with a length of `effect` of their datamodels.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from dmstore.analysis.comparison.differences import differences
from dmstore.analysis.comparison.modeldiff import modeldiff
from dmstore.analysis.comparison.parameters import ComparisonParameters
from dmstore.analysis.comparison.target_groups import ALL, Groups
from dmstore.analysis.experiment.arms import Halves, arms_of
from dmstore.core import bits

TRAIN, TARGETS, RUNS, CLASSES = 240, 150, 1200, 8
NOISE = 2.2
_LAMS, _STEPS = 12, 25


@dataclass(frozen=True)
class Setting:
    """How one algorithm's runs are made."""

    runs: int = RUNS
    noise: float = NOISE
    common: float = 0.0
    alpha: float = 0.5
    scale: float = 0.0
    tails: bool = False
    link: bool = False
    repeats: int = 1
    bernoulli: bool = False


@dataclass(frozen=True)
class Condition:
    """What A and B are like; `shared` says whether mask m is the same for both."""

    a: Setting = field(default_factory=Setting)
    b: Setting = field(default_factory=Setting)
    shared: bool = True


NULLS = {
    "the same": Condition(),
    "B: 2 times the noise": Condition(b=Setting(noise=2 * NOISE)),
    "B: 4 times the noise": Condition(b=Setting(noise=4 * NOISE)),
    "B: half of the runs": Condition(b=Setting(runs=RUNS // 2)),
    "B: a quarter of the runs": Condition(b=Setting(runs=RUNS // 4)),
    "B: alpha .3": Condition(b=Setting(alpha=0.3)),
    "B: masks of its own": Condition(shared=False),
    "B: scales that differ by target": Condition(b=Setting(scale=0.5)),
    "A: strong noise common to targets": Condition(a=Setting(common=8.0)),
    "both: strong noise common to targets": Condition(Setting(common=8.0), Setting(common=8.0)),
    "heavy-tailed noise": Condition(Setting(tails=True), Setting(tails=True)),
    "a nonlinear link": Condition(Setting(link=True), Setting(link=True)),
    "two runs per mask": Condition(Setting(repeats=2), Setting(repeats=2)),
    "Bernoulli masks": Condition(Setting(bernoulli=True), Setting(bernoulli=True)),
    "Bernoulli masks of B's own": Condition(b=Setting(bernoulli=True), shared=False),
    "tails, link, common noise; B: half of the runs, twice the noise, scales": Condition(
        Setting(tails=True, link=True, common=2.5),
        Setting(tails=True, link=True, common=2.5, runs=RUNS // 2, noise=2 * NOISE, scale=0.5),
    ),
}


@dataclass(frozen=True)
class Pair:
    """Two fitted algorithms and what is true of them."""

    arms: tuple[Halves, Halves]
    halves: tuple[list[Any], list[Any]]
    weight: tuple[np.ndarray, np.ndarray]
    truth: tuple[np.ndarray, np.ndarray]
    label: np.ndarray
    planted: np.ndarray | None
    marked: np.ndarray | None


def simulate(condition: Condition, seed: int, effect: float = 0.0) -> Pair:
    """Draw one pair and fit both."""
    draw = np.random.default_rng(seed)
    label, weight, free = _truth(draw)
    truth = [weight, weight.copy()]
    planted = marked = None
    if effect:
        planted = np.zeros(TRAIN)
        planted[free[:12]] = 1 / np.sqrt(12)
        marked = draw.random(TARGETS) < 0.25
        length = np.linalg.norm(weight, axis=1)
        truth[0] = weight + np.outer(marked * length * effect, planted)
    settings = (condition.a, condition.b)
    shared = condition.shared and settings[0].alpha == settings[1].alpha
    masks: list[np.ndarray] = []
    for place, one in enumerate(settings):
        count = one.runs // one.repeats
        masks.append(masks[0][:count] if place and shared else _masks(draw, one, count))
    arms: list[Halves] = []
    fits: list[dict[str, np.ndarray]] = []
    for place, (one, mask, effects) in enumerate(zip(settings, masks, truth, strict=True)):
        group = np.repeat(np.arange(len(mask)), one.repeats)
        outputs = _outputs(draw, one, mask[group], effects)
        half = np.arange(len(mask)) % 2
        ids = np.arange(len(mask)) + (0 if shared or not place else 10**6)
        mean = outputs.reshape(len(mask), one.repeats, -1).mean(axis=1, dtype=np.float64)
        same = place and shared and len(mask) == len(masks[0])
        arms.append(
            arms_of(
                mask,
                mean,
                half,
                mask_id=ids,
                rate=None if one.bernoulli else int(one.alpha * TRAIN) / TRAIN,
                masks=(arms[0][0].masks, arms[0][1].masks) if same else None,
            )
        )
        fits.append(_fitted(mask[group], outputs, half[group]))
    sets = [[csr_array(one["weight_half"][h]) for h in (0, 1)] for one in fits]
    return Pair(
        (arms[0], arms[1]),
        (sets[0], sets[1]),
        (fits[0]["weight"], fits[1]["weight"]),
        (truth[0], truth[1]),
        label,
        planted,
        marked,
    )


def compared(pair: Pair, **options: Any) -> dict[str, Any]:
    """Arrays of the comparison of a pair, with the directions."""
    import xarray as xr

    parameters = ComparisonParameters(**options)
    data = [xr.Dataset({"weight": (("target", "train"), one)}) for one in pair.weight]
    whole = modeldiff(data[0], data[1], threads=1, **options)
    shown = (whole["residual_variance"].values > 0).sum(axis=1)
    member = pair.label[:, None] == np.arange(CLASSES)
    groups = Groups(
        [ALL, *(f"class {k}" for k in range(CLASSES))],
        np.concatenate([np.ones((TARGETS, 1), dtype=bool), member], axis=1),
    )
    made = differences(
        pair.arms, pair.halves, whole["projection"].values, shown.tolist(), groups, parameters
    )
    return {**made, "direction": whole["direction"].values}


def _truth(draw: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Classes of targets, effects (target, train), and units that nothing uses."""
    label = draw.integers(0, CLASSES, TARGETS)
    features = np.zeros((CLASSES, TRAIN))
    order = draw.permutation(TRAIN)
    for one in range(CLASSES):
        features[one, order[25 * one : 25 * one + 25]] = draw.uniform(0.5, 1.5, 25)
    uses = 0.15 * draw.normal(size=(TARGETS, CLASSES))
    uses[np.arange(TARGETS), label] += draw.uniform(0.6, 1.4, TARGETS)
    weight = uses @ features
    for target in range(TARGETS):
        weight[target, draw.choice(TRAIN, 6, replace=False)] += draw.normal(size=6)
    return label, weight, order[200:]


def _masks(draw: np.random.Generator, one: Setting, count: int) -> np.ndarray:
    raw = draw.random((count, TRAIN))
    if one.bernoulli:
        return raw < one.alpha
    return np.asarray(raw.argsort(axis=1).argsort(axis=1) < int(one.alpha * TRAIN))


def _outputs(
    draw: np.random.Generator, one: Setting, mask: np.ndarray, weight: np.ndarray
) -> np.ndarray:
    shape = (len(mask), TARGETS)
    # Of a variance of 3, so half of a standard normal's noise in the middle and far more in the tails.
    own = draw.standard_t(3, size=shape) if one.tails else draw.normal(size=shape)
    shared = draw.normal(size=(len(mask), 1)) * draw.uniform(0.5, 1.5, (1, TARGETS))
    said = mask @ weight.T + one.noise * own + one.common * shared
    if one.link:
        said = 8 * np.tanh((said - said.mean(axis=0)) / 8)
    return (np.exp(draw.normal(0, one.scale, TARGETS)) * said).astype(np.float32)


def _fitted(mask: np.ndarray, outputs: np.ndarray, half: np.ndarray) -> dict[str, np.ndarray]:
    """The lasso of all runs and of each half, at sqrt(2) times the lam: what `fit` makes, all targets at once.

    What finds may be anything, so these solve to a thousandth: thousands of pairs have to be fitted.
    """
    # By masks, so that repeats stay together; every tenth chooses lam.
    _, place = np.unique(bits.pack_rows(mask), axis=0, return_inverse=True)
    holdout = place.ravel() % 10 == 0
    train = _Gram(mask[~holdout], outputs[~holdout])
    largest = 2 * np.abs(train.moment).max(axis=0)
    weight = np.zeros_like(train.moment)
    best, error = largest.copy(), np.full(len(largest), np.inf)
    for ratio in np.geomspace(1, 0.01, _LAMS):
        weight = train.solved(largest * ratio, weight, _STEPS)
        left = outputs[holdout] - train.said(mask[holdout], weight)
        now = (left**2).mean(axis=0)
        best = np.where(now < error, largest * ratio, best)
        error = np.minimum(error, now)
    everything = _Gram(mask, outputs)
    weight = everything.solved(best, weight, 4 * _STEPS)
    halves = [
        # From 0: what the other half says must not come in by way of a start.
        _Gram(mask[half == h], outputs[half == h]).solved(best * np.sqrt(2), 0 * weight, 6 * _STEPS)
        for h in (0, 1)
    ]
    return {
        "weight": weight.T.astype(np.float32),
        "weight_half": np.stack(halves).transpose(0, 2, 1).astype(np.float32),
    }


class _Gram:
    """Least squares of some runs, centred."""

    def __init__(self, mask: np.ndarray, outputs: np.ndarray) -> None:
        seen = mask.astype(np.float64)
        self._mean, self._output = seen.mean(axis=0), outputs.mean(axis=0, dtype=np.float64)
        seen -= self._mean
        self._gram = seen.T @ seen / len(seen)
        self.moment = seen.T @ (outputs - self._output) / len(seen)
        self._step = 1 / (2 * float(np.linalg.eigvalsh(self._gram)[-1]))

    def solved(self, lam: np.ndarray, start: np.ndarray, steps: int) -> np.ndarray:
        """Accelerated proximal gradient steps: (train, target) weights."""
        weight, ahead, speed = start, start, 1.0
        for _ in range(steps):
            moved = ahead - 2 * self._step * (self._gram @ ahead - self.moment)
            after = np.sign(moved) * np.maximum(np.abs(moved) - self._step * lam, 0)
            faster = (1 + np.sqrt(1 + 4 * speed**2)) / 2
            ahead = after + (speed - 1) / faster * (after - weight)
            weight, speed = after, faster
        return weight

    def said(self, mask: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """Predictions for other runs."""
        return np.asarray(self._output + (mask - self._mean) @ weight)


def claims(pair: Pair, fdr: float = 0.05) -> dict[str, float]:
    """What a comparison says of one pair, next to what is true: numbers to average over pairs."""
    made = compared(pair, fdr=fdr)
    directions, groups = made["q"] <= fdr, made["group_q"] <= fdr
    z = made["half_z"][np.isfinite(made["half_z"])]
    true = _cosines(*pair.truth)
    low, high = (
        made["similarity"] + side * 1.96 * made["similarity_error"] for side in (-1.0, 1.0)
    )
    known = np.isfinite(low)
    whole = (
        abs(made["group_similarity"][0] - true.mean()) <= 1.96 * made["group_similarity_error"][0]
    )
    result = {
        "direction": float(directions.any()),
        "differs": float(directions.any() or groups.any()),
        "single": float((z > 1.645).mean()),
        "group": float((made["group_p"] <= 0.05).mean()),
        "similarity": float(made["group_similarity"][0] - true.mean()),
        "covers": float(whole),
        "covers target": float(((low <= true) & (true <= high))[known].mean()),
    }
    if pair.planted is not None:
        like = np.abs(made["direction"] @ pair.planted) > 0.5
        assert pair.marked is not None
        result["found"] = float((directions & like).any())
        uses = (pair.truth[0] - pair.truth[1]) @ pair.planted
        length = np.linalg.norm(pair.truth[1], axis=1)
        result["energy"] = float(((uses / length) ** 2).mean())
        result["detectable"] = float(made["detectable"][0])
    return result


def _cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.asarray((a * b).sum(axis=1) / length)


def rates(
    condition: Condition, studies: int, effect: float = 0.0, first: int = 0
) -> dict[str, float]:
    """Means over simulated pairs."""
    rows = [claims(simulate(condition, first + seed, effect)) for seed in range(studies)]
    return {key: float(np.nanmean([row[key] for row in rows])) for key in rows[0]}
