"""Lasso path, holdout and choice of lam for 64 targets; the peer is scikit-learn's ``lasso_path``
with the Gram given, one target after the other, solved to no better a certificate."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from sklearn.linear_model import lasso_path as sklearn_path

from dmstore.regression import lasso_path

RUNS, TRAIN, TARGETS = 5000, 1000, 64


def problem(
    runs: int = RUNS, train: int = TRAIN, targets: int = TARGETS, seed: int = 0
) -> tuple[Any, Any]:
    """Masks and outputs with 60 heavy-tailed influences a target and as much noise as signal."""
    draw = np.random.default_rng(seed)
    masks = draw.random((runs, train)) < 0.5
    weight = np.zeros((train, targets))
    for target in range(targets):
        weight[draw.choice(train, 60, replace=False), target] = draw.standard_t(3, 60)
    signal = masks @ weight
    return masks, signal + draw.normal(size=signal.shape) * signal.std(axis=0)


def run() -> dict[str, float]:
    masks, outputs = problem()
    lasso_path(masks[:200], outputs[:200, :1])
    start = time.perf_counter()
    found = lasso_path(masks, outputs, patience=0, threads=1)
    ours = time.perf_counter() - start
    x = masks - masks.mean(axis=0)
    start = time.perf_counter()
    gram = x.T @ x
    worst = 0.0
    for target in range(8):
        y = outputs[:, target] - outputs[:, target].mean()
        lams = found.lam_path.values[target]
        _, coefs, _ = sklearn_path(x, y, alphas=lams / 2, precompute=gram, Xy=x.T @ y, tol=1e-5)
        gradient = 2 * (x.T @ y - gram @ coefs[:, -1]) / RUNS
        active = coefs[:, -1] != 0
        gap = np.abs(gradient[active] - lams[-1] * np.sign(coefs[active, -1])).max()
        worst = max(worst, float(gap / lams[-1]))
    peer = (time.perf_counter() - start) / 8 * TARGETS
    return {
        "seconds": ours,
        "scikit_learn_s": peer,
        "ratio": peer / ours,
        "worst_kkt": float(found.kkt.max()),
        "scikit_learn_worst_kkt": worst,
    }
