"""Which device there is, and in which precision it trains fastest without harm."""

from __future__ import annotations

import torch

from dmstore.errors import InputError
from dmstore.training.config import TrainingConfig

_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def device_of(name: str = "auto") -> torch.device:
    """The device to train on.

    Parameters
    ----------
    name : str
        ``auto``, ``cpu``, ``cuda``, ``cuda:1`` and what else torch knows.

    Raises
    ------
    InputError
        If it is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        msg = f"device {name!r} is none that torch knows; give cpu or cuda"
        raise InputError(msg) from error
    if device.type == "cuda" and not torch.cuda.is_available():
        msg = f"device {name!r}: torch sees no CUDA here; give cpu, or install a build of torch with CUDA"
        raise InputError(msg)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        msg = f"device {name!r}: torch sees {torch.cuda.device_count()} of them"
        raise InputError(msg)
    return device


def half(config: TrainingConfig, device: torch.device) -> torch.dtype | None:
    """The type that the forward pass is computed in; None for float32.

    Raises
    ------
    InputError
        If the config asks for one that the device does not do.
    """
    name = config.precision
    if name == "auto":
        if device.type == "cpu":
            dense = config.model in ("mlp", "linear")
            # One small product at a time is over before its conversion pays.
            alone = config.together == 1 or config.choose != "last" or config.compile
            fast = not (dense and alone) and _cpu_multiplies_bf16(dense=dense)
            return torch.bfloat16 if fast else None
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    if name == "fp16" and device.type == "cpu":
        msg = "precision fp16 is for GPUs; give bf16 or float32 on a CPU"
        raise InputError(msg)
    return _TYPES.get(name)


def _cpu_multiplies_bf16(*, dense: bool) -> bool:
    """Whether the CPU multiplies bfloat16 itself; where it does not, that is slower than float32.

    Parameters
    ----------
    dense : bool
        Of heads and dense nets, which are bound by memory: it pays with a matrix unit alone.
    """
    try:
        known = torch.cpu.get_capabilities()
    except AttributeError:
        # Before torch 2.10 nothing tells of matrix units; what this tells of may be emulated.
        check = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
        flags = torch.backends.cpu.get_cpu_capability()
        return not dense and bool(check and check()) and "AVX512" in flags
    names = ("amx_bf16",) if dense else ("amx_bf16", "avx512_bf16")
    return any(known.get(name, False) for name in names)
