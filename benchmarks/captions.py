"""Captions: how often one is claimed where there is none, how often a planted one is found, and how fast they are ranked.

``python -m benchmarks captions [--size small|medium]``
"""

from __future__ import annotations

import resource
import time
from typing import Any

import numpy as np

from dmstore.analysis.captions import groups, ranking
from dmstore.analysis.experiment.inference import discovery_rates

_CAPTIONS, _DIM, _ENDS = 2000, 64, 20
_PLANTED = 7


def _space(draw: np.random.Generator, targets: int, classes: int) -> tuple[Any, Any, Any]:
    """Embeddings of images, with classes and a few strong axes, of captions near them, and classes."""
    label = draw.integers(0, classes, targets)
    axes = draw.normal(size=(12, _DIM))
    images = draw.normal(size=(classes, _DIM))[label] + draw.normal(size=(targets, _DIM)) * 0.5
    images += draw.standard_t(5, size=(targets, 12)) @ axes * 0.4
    captions = draw.normal(size=(_CAPTIONS, 12)) @ axes + draw.normal(size=(_CAPTIONS, _DIM))
    captions[_PLANTED] = draw.normal(size=_DIM)
    unit = [one / np.linalg.norm(one, axis=1, keepdims=True) for one in (images, captions)]
    return unit[0].astype(np.float32), unit[1].astype(np.float32), label


def claims(
    draw: np.random.Generator,
    *,
    targets: int = 1000,
    classes: int = 10,
    size: int | None = None,
    share: float = 0.0,
    strength: float = 0.0,
    likeness: float = 0.0,
    count: int = 20,
    ends: int = _ENDS,
    fdr: float = 0.05,
    lists: int = 1,
) -> dict[str, Any]:
    """One study: whether any caption is claimed of ends that have none, and the planted one of the end that has one.

    `share` of the targets have a feature that moves their projection on the first direction by `strength` deviations, and
    their embedding towards the caption by `likeness` (of its length). The captions come in so many `lists`, as whoever tries
    several has them.
    """
    images, captions, label = _space(draw, targets, classes)
    projections = draw.normal(size=(ends, targets)) + draw.normal(size=(ends, classes))[:, label]
    if share:
        has = draw.random(targets) < share
        projections[0, has] += strength
        images[has] += likeness * captions[_PLANTED]
        images /= np.linalg.norm(images, axis=1, keepdims=True)
    about = ranking.centred(images, label, np.ones(targets, dtype=bool))
    size = size or groups.default_size(targets)
    splits = [groups.halves(row, label, size, draw) for row in projections]
    parts = [
        list(ranking.ranked(ranking.Cosines(about, part), splits, label, count))
        for part in np.array_split(captions, lists)
    ]
    found = parts[0]
    rates = discovery_rates([np.concatenate([one.p for one in part]) for part in parts])
    q = np.concatenate([one.reshape(ends, -1) for one in rates], axis=1)
    first = found[0].caption[q[0, : len(found[0].caption)] <= fdr]
    null = q[1:] if share else q
    return {
        "any": bool((null <= fdr).any()),
        "found": bool(_PLANTED in first),
        "first": bool(share and found[0].caption[0] == _PLANTED),
        "paper": bool(share and found[0].paper[0] == _PLANTED),
        "p": float(np.mean(np.concatenate([one.p for one in found[1:]]) < 0.05)),
    }


def speed(
    captions: int = 20_000, images: int = 10_000, dim: int = 512, ends: int = 40
) -> dict[str, float]:
    """Seconds and memory for all ends of ten directions each way, once everything is embedded."""
    draw = np.random.default_rng(0)
    made = [draw.normal(size=(n, dim)).astype(np.float32) for n in (images, captions)]
    made = [one / np.linalg.norm(one, axis=1, keepdims=True) for one in made]
    label = draw.integers(0, 10, images)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    scores = ranking.Cosines(ranking.centred(made[0], label, np.ones(images, dtype=bool)), made[1])
    size = groups.default_size(images)
    rows = draw.normal(size=(ends, images))
    list(ranking.ranked(scores, [groups.halves(row, label, size, draw) for row in rows], label, 20))
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"seconds": seconds, "embeddings_mb": before / 1024, "peak_mb": peak / 1024}


_SIZES = {"small": 20, "medium": 200, "paper": 1000}


def _shares(count: int, **options: Any) -> dict[str, float]:
    studies = [claims(np.random.default_rng(seed), **options) for seed in range(count)]
    return {key: float(np.mean([one[key] for one in studies])) for key in studies[0]}


def run(size: str = "small") -> dict[str, Any]:
    """Shares of studies, and the speed."""
    count = _SIZES[size]
    null = _shares(count)
    made: dict[str, Any] = {
        **{f"ranking_{key}": value for key, value in speed().items()},
        "studies": count,
        "null_any_caption": null["any"],
        "null_p_below_.05": null["p"],
        "null_few_classes": _shares(count, targets=500, classes=3)["any"],
    }
    for targets in (500, 2000):
        for likeness in (0.15, 0.3):
            for top in (16, 32, None):
                one = _shares(
                    max(10, count // 4),
                    targets=targets,
                    size=top,
                    share=0.1,
                    strength=2.0,
                    likeness=likeness,
                    ends=8,
                )
                where = f"targets_{targets}_likeness_{likeness}_top_{top or 'default'}"
                made[where] = (
                    f"found {one['found']:.2f}, first {one['first']:.2f}, first by the paper's score {one['paper']:.2f}"
                )
    return made
