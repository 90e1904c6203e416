"""Class probabilities of models trained on all data, before and after a transformation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmstore.core.threads import blas_threads
from dmstore.study.study import Study
from dmstore.training.full import kept

Transformation = Callable[[NDArray[np.uint8], float], NDArray[np.uint8]]


def probabilities(
    study: Study,
    algorithm: str,
    images: NDArray[np.uint8],
    transformation: Transformation,
    intensities: Sequence[float],
    labels: Sequence[int],
    *,
    models: int = 100,
    advance: Callable[[], None] = lambda: None,
) -> NDArray[np.float32]:
    """Softmax confidence in classes at each intensity (Definition 2, with L the confidence).

    Parameters
    ----------
    study : Study
    algorithm : str
    images : (example, height, width[, channel]) uint8
    transformation : callable
        Of images and an intensity.
    intensities : sequence of float
    labels : sequence of int
        The classes.
    models : int
        Models to train on all data, if there are fewer.
    advance : callable
        Called when the models are there, and after each intensity.

    Returns
    -------
    (intensity, model, example, class) float32

    Raises
    ------
    InputError
        If the task cannot keep its models.
    """
    changed = [transformation(images, intensity) for intensity in intensities]
    parts: list[list[NDArray[np.float32]]] = [[] for _ in intensities]
    for number, (task, made) in enumerate(kept(study, algorithm, models)):
        if not number:
            advance()
        for step, inputs in enumerate(changed):
            with blas_threads(1):
                logit: NDArray[Any] = task.logits(made, inputs).astype(np.float64)
            logit -= logit.max(axis=2, keepdims=True)
            weight = np.exp(logit)
            share = weight[..., list(labels)] / weight.sum(axis=2, keepdims=True)
            parts[step].append(share.astype(np.float32))
            if not number:
                advance()
    return np.array([np.concatenate(part) for part in parts])
