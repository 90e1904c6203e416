"""How many models are trained at once: by what pays, and by memory."""

from __future__ import annotations

from typing import Any

import torch

from dmstore.errors import InputError
from dmstore.training.config import TrainingConfig
from dmstore.training.ensemble.convolutions import grouping_pays
from dmstore.training.loaders.tensors import TensorLoader
from dmstore.training.loop.precision import half

NETWORKS = ("linear", "mlp", "cnn")
# More gain nothing on a CPU, and what a step touches no longer fits its caches.
_CPU = {"linear": 32, "mlp": 64, "cnn": 8}
_GPU = {"linear": 1024, "mlp": 1024, "cnn": 64}
# Share of the memory that is free, and of a CPU's how much at all.
_SHARE = 0.25
_CPU_BYTES = 512 << 20
# Weights, momentum, gradient, a copy; values of a step beside its inputs.
_COPIES, _VALUES = 4, {"linear": 2, "mlp": 3, "cnn": 40}


def models_at_once(
    config: TrainingConfig, loader: Any, device: torch.device, parameters: int
) -> int:
    """How many models to train at once; 1 is the loop that trains one after another.

    Parameters
    ----------
    config : TrainingConfig
        ``together`` is what it should be, 0 chooses.
    loader : Loader
    device : torch.device
    parameters : int
        Numbers of one model.

    Raises
    ------
    InputError
        If the config asks for several and they cannot be.
    """
    why = _alone(config, loader, device)
    if why and config.together > 1:
        msg = f"together is {config.together}, but {why}; give together=1, or 0 to choose"
        raise InputError(msg)
    if why or config.together:
        return max(1, config.together)
    if config.model == "cnn" and device.type == "cpu" and not grouping_pays(loader.shape[-1]):
        return 1
    inputs = config.batch_size
    for side in loader.shape:
        inputs *= side
    size = 4 * (_COPIES * parameters + _VALUES[config.model] * inputs)
    if device.type == "cuda":
        room = _SHARE * torch.cuda.mem_get_info(device)[0]
        return max(1, min(_GPU[config.model], int(room // size)))
    return max(1, min(_CPU[config.model], _CPU_BYTES // size))


def _alone(config: TrainingConfig, loader: Any, device: torch.device) -> str:
    """Why models must be trained one after another; "" if they need not."""
    if config.model not in NETWORKS:
        return f"model {config.model} is trained one at a time; {', '.join(NETWORKS)} can be"
    if config.choose != "last":
        return f"choose is {config.choose!r}, which is for one model at a time"
    if config.compile:
        return "compile is for one model at a time"
    if not isinstance(loader, TensorLoader):
        return "the loader reads files; models at once need images in the study"
    if half(config, device) is torch.float16:
        return "precision fp16 is for one model at a time"
    return ""
