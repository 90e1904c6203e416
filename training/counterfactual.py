"""Class probabilities of models trained on all data, before and after a transformation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmstore.core.threads import blas_threads
from dmstore.study.study import Study
from dmstore.training.worker import full_models

Transformation = Callable[[NDArray[np.uint8], float], NDArray[np.uint8]]


def probabilities(
    study: Study,
    algorithm: str,
    images: NDArray[np.uint8],
    transformation: Transformation,
    intensities: Sequence[float],
    label: int,
    *,
    models: int = 100,
    advance: Callable[[], None] = lambda: None,
) -> NDArray[np.float64]:
    """Softmax confidence in a class at each intensity (Definition 2, with L the confidence).

    Parameters
    ----------
    study : Study
    algorithm : str
    images : (example, height, width[, channel]) uint8
    transformation : callable
        Of images and an intensity.
    intensities : sequence of float
    label : int
        The class.
    models : int
        Models to train on all data, if there are none yet.
    advance : callable
        Called when the models are there, and after each intensity.

    Returns
    -------
    (intensity, model, example) float64
    """
    task, made = full_models(study, algorithm, models)
    advance()
    per_model = []
    with blas_threads(1):
        for intensity in intensities:
            logit: NDArray[Any] = task.logits(made, transformation(images, intensity)).astype(
                np.float64
            )
            logit -= logit.max(axis=2, keepdims=True)
            weight = np.exp(logit)
            per_model.append(weight[..., label] / weight.sum(axis=2))
            advance()
    return np.array(per_model)
