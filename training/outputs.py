"""Output functions of classifiers, as the paper defines them. Pure functions of logits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray


def margin(logit: NDArray[Any], label: NDArray[Any]) -> NDArray[Any]:
    """Correct-class margin: logit of the label less the largest other logit (paper B.3).

    Parameters
    ----------
    logit : (run, target, class) float
    label : (target,) int

    Returns
    -------
    (run, target) float
    """
    own = np.take_along_axis(logit, label[None, :, None].astype(np.intp), axis=2)[..., 0]
    others = logit.copy()
    others[:, np.arange(len(label)), label] = -np.inf
    return np.asarray(own - others.max(axis=2))


def prediction(logit: NDArray[Any], label: NDArray[Any]) -> NDArray[Any]:
    """Index of the class with the largest logit: (run, target) int64.

    The table makes it what is declared, and refuses a class that does not fit.
    """
    return np.asarray(logit.argmax(axis=2).astype(np.int64))


def loss(logit: NDArray[Any], label: NDArray[Any]) -> NDArray[Any]:
    """Cross-entropy of the label, in nat: (run, target) float."""
    own = np.take_along_axis(logit, label[None, :, None].astype(np.intp), axis=2)[..., 0]
    top = logit.max(axis=2)
    return np.asarray(top + np.log(np.exp(logit - top[..., None]).sum(axis=2)) - own)


def log_odds(logit: NDArray[Any], label: NDArray[Any]) -> NDArray[Any]:
    """log(p / (1 - p)) of the label's probability p, as TRAK has it: (run, target) float."""
    own = np.take_along_axis(logit, label[None, :, None].astype(np.intp), axis=2)[..., 0]
    others = logit.copy()
    others[:, np.arange(len(label)), label] = -np.inf
    top = others.max(axis=2)
    return np.asarray(own - top - np.log(np.exp(others - top[..., None]).sum(axis=2)))


def _logit(logit: NDArray[Any], label: NDArray[Any]) -> NDArray[Any]:
    return logit


FUNCTIONS: dict[str, Callable[[NDArray[Any], NDArray[Any]], NDArray[Any]]] = {
    "margin": margin,
    "log_odds": log_odds,
    "prediction": prediction,
    "loss": loss,
    "logit": _logit,
}
