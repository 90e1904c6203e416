"""Designs that a solver must get right, and their statistics as a fit makes them."""

import numpy as np
from sklearn.linear_model import lasso_path as sklearn_path

from dmstore.core import bits
from dmstore.regression.fitting.stages import add
from dmstore.regression.problem.block import Designs, Outputs
from dmstore.regression.problem.design import make_design
from dmstore.regression.problem.moments import make_moments

DESIGNS = {
    "plain": {"runs": 600, "train": 80},
    "fixed size": {"runs": 600, "train": 80, "fixed": True},
    "fewer runs than columns": {"runs": 240, "train": 300, "share": 0.02},
    "alpha .1": {"runs": 800, "train": 60, "alpha": 0.1},
    "alpha .9": {"runs": 800, "train": 60, "alpha": 0.9},
    "mixed alphas": {"runs": 800, "train": 60, "alpha": np.repeat([0.1, 0.5, 0.9], 20)},
    "correlated": {"runs": 800, "train": 60, "groups": 20},
    "always or never": {"runs": 600, "train": 60, "still": 10},
    "nearly no noise": {"runs": 400, "train": 50, "noise": 1e-3},
}


def make(
    runs,
    train,
    targets=3,
    *,
    alpha=0.5,
    noise=1.0,
    share=0.2,
    groups=0,
    still=0,
    fixed=False,
    seed=0,
):
    """Masks and outputs; `groups` columns have a near copy each, `still` ones never change."""
    draw = np.random.default_rng(seed)
    masks = draw.random((runs, train)) < alpha
    if fixed:
        masks = np.argsort(draw.random((runs, train)), axis=1) < alpha * train
    copies = slice(groups, 2 * groups)
    masks[:, copies] = masks[:, :groups] ^ (draw.random((runs, groups)) < 0.05)
    masks[:, train - still :] = np.arange(still) % 2 == 0
    weight = draw.standard_t(3, (train, targets)) * (draw.random((train, targets)) < share)
    signal = masks @ weight
    return masks, signal + draw.normal(size=signal.shape) * noise * max(signal.std(), 0.1)


def _combine(parts):
    """Of train and holdout runs and of halves, from the groups' own."""
    count = len(parts) // 2
    train, holdout = add(parts[:count]), add(parts[count:])
    if count == 1:
        return train, holdout, ()
    return train, holdout, tuple(a + b for a, b in zip(parts[:2], parts[2:], strict=True))


def statistics(masks, outputs, *, parts=2, holdout=0.1, apart=None, seed=0):
    """Designs and outputs of a block, from as many parts of the runs."""
    draw = np.random.default_rng(seed)
    part = draw.integers(0, parts, len(masks))
    apart = draw.random(len(masks)) < holdout if apart is None else apart
    shift = outputs.mean(axis=0)
    designs, moments = [], []
    for held in (False, True):
        for number in range(parts):
            rows = (part == number) & (apart == held)
            words = bits.pack_runs(masks[rows])
            designs.append(make_design(words, int(rows.sum())))
            moments.append(make_moments(words, outputs[rows], shift))
    fit, check, halves = _combine(designs)
    said, checked, half = _combine(moments)
    return (
        Designs(fit, check, fit + check, halves),
        Outputs(said, checked, said + checked, shift, half),
    )


def check_path(found, masks, outputs, held, held_outputs):
    """One target of a `lasso_path` without patience is scikit-learn's path of these runs, judged by
    those held out.
    """
    x, y = masks.astype(float), outputs
    lams = found.lam_path.values
    assert np.isclose(lams[0], 2 * np.abs((x - x.mean(0)).T @ (y - y.mean())).max() / len(y))
    _, coefs, _ = sklearn_path(
        x - x.mean(0), y - y.mean(), alphas=lams / 2, tol=1e-12, max_iter=100000
    )
    errors = [
        np.mean((held_outputs - y.mean() - (held - x.mean(0)) @ coef) ** 2) for coef in coefs.T
    ]
    assert np.allclose(found.holdout_mse.values, errors, rtol=1e-3)
    best = int(np.argmin(errors))
    assert np.isclose(float(found.lam), lams[best])
    baseline = np.mean((held_outputs - y.mean()) ** 2)
    assert np.isclose(float(found.holdout_r2), 1 - errors[best] / baseline, rtol=1e-3)
