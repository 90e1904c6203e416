"""Output functions of classifiers. Pure functions of logits, of NumPy arrays or torch tensors.

All but ``prediction`` and ``loss`` are larger for a model that is surer of the label. Datamodels of the paper are of
``margin``, the correct-class margin (B.3). What is given as a torch tensor is computed by torch where it lies, and comes
back as a tensor; everything else by NumPy. Half precision is computed and given in float32.

Logits are (run, target, class), or (target, class) of one model. A binary classifier with one logit z, whose classes 0
and 1 have the logits 0 and z, gives (run, target), (run, target, 1), (target,) or (target, 1).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from dmstore.core.tensors import to_numpy
from dmstore.errors import InputError


def margin(logit: Any, label: Any) -> Any:
    """Correct-class margin: logit of the label less the largest other logit (paper B.3).

    Positive where the label is predicted. Of one logit z it is z for label 1, and -z for label 0.

    Parameters
    ----------
    logit : (run, target, class), (target, class), or of one logit (run, target[, 1]), (target[, 1])
    label : (target,) int
        From 0.

    Returns
    -------
    ([run,] target) float
        As `logit` is: a NumPy array or a tensor on its device, at least float32.

    Raises
    ------
    InputError
        If shapes do not fit, or a label is no class.
    """
    own, others = _own_and_others(logit, label)
    with np.errstate(invalid="ignore"):
        return own if others is None else own - _library(own).amax(others, axis=-1)


def log_odds(logit: Any, label: Any) -> Any:
    """log(p / (1 - p)) of the label's probability p: its logit less the log-sum-exp of the others (as TRAK has it).

    Positive where the label is more probable than all others together. Of one logit it is the margin.

    Parameters
    ----------
    logit : (run, target, class), (target, class), or of one logit (run, target[, 1]), (target[, 1])
    label : (target,) int
        From 0.

    Returns
    -------
    ([run,] target) float
        As `logit` is: a NumPy array or a tensor on its device, at least float32.

    Raises
    ------
    InputError
        If shapes do not fit, or a label is no class.
    """
    own, others = _own_and_others(logit, label)
    if others is None:
        return own
    lib = _library(own)
    with np.errstate(invalid="ignore", divide="ignore"):
        top = lib.amax(others, axis=-1)
        return own - top - lib.log(lib.sum(lib.exp(others - top[..., None]), axis=-1))


def loss(logit: Any, label: Any) -> Any:
    """Cross-entropy of the label, in nat: -log p of its probability p. Larger is worse.

    Exact to rounding for the surest models too, where 1 - p is smaller than what a float can tell from 0.

    Parameters
    ----------
    logit : (run, target, class), (target, class), or of one logit (run, target[, 1]), (target[, 1])
    label : (target,) int
        From 0.

    Returns
    -------
    ([run,] target) float
        As `logit` is: a NumPy array or a tensor on its device, at least float32.

    Raises
    ------
    InputError
        If shapes do not fit, or a label is no class.
    """
    odds = log_odds(logit, label)
    lib = _library(odds)
    return lib.logaddexp(-odds, lib.zeros_like(odds))


def probability(logit: Any, label: Any) -> Any:
    """Softmax probability of the label (of one logit: its sigmoid, or 1 less that for label 0). Larger is surer.

    Parameters
    ----------
    logit : (run, target, class), (target, class), or of one logit (run, target[, 1]), (target[, 1])
    label : (target,) int
        From 0.

    Returns
    -------
    ([run,] target) float
        As `logit` is: a NumPy array or a tensor on its device, at least float32.

    Raises
    ------
    InputError
        If shapes do not fit, or a label is no class.
    """
    nat = loss(logit, label)
    return _library(nat).exp(-nat)


def prediction(logit: Any, label: Any) -> Any:
    """Index of the class with the largest logit, the first of equal ones; of one logit, 1 where it is above 0.

    Parameters
    ----------
    logit : (run, target, class), (target, class), or of one logit (run, target[, 1]), (target[, 1])
    label : (target,) int
        From 0; says how many targets there are.

    Returns
    -------
    ([run,] target) int64
        The store makes it what is declared, and refuses a class that does not fit.

    Raises
    ------
    InputError
        If shapes do not fit, or a label is no class.
    """
    logit, _, binary = _arranged(logit, label)
    if binary:
        return (logit > 0) * _library(logit).ones_like(logit, dtype=_library(logit).int64)
    if _is_tensor(logit):
        return logit.argmax(-1)
    return np.asarray(logit.argmax(axis=-1).astype(np.int64))


def _logit(logit: Any, label: Any) -> Any:
    return logit


FUNCTIONS: dict[str, Callable[[Any, Any], Any]] = {
    "margin": margin,
    "log_odds": log_odds,
    "prediction": prediction,
    "loss": loss,
    "probability": probability,
    "logit": _logit,
}


def _is_tensor(value: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def _library(value: Any) -> Any:
    """What computes it: torch for its tensors, else NumPy. The functions used here have the same names in both."""
    return sys.modules["torch"] if _is_tensor(value) else np


def _own_and_others(logit: Any, label: Any) -> tuple[Any, Any]:
    """Logit of the label, and the logits with that one as -inf; for one logit, how far it is for the label, and None."""
    logit, label, binary = _arranged(logit, label)
    lib = _library(logit)
    if binary:
        return lib.where(label == 1, logit, -logit), None
    if _is_tensor(logit):
        is_own = label[:, None] == lib.arange(logit.shape[-1], device=logit.device)
        own = logit.gather(-1, label.expand(logit.shape[:-1])[..., None])[..., 0]
        return own, logit.masked_fill(is_own, -lib.inf)
    index = np.broadcast_to(label, logit.shape[:-1])[..., None]
    others = logit.copy()
    np.put_along_axis(others, index, -np.inf, axis=-1)
    return np.take_along_axis(logit, index, axis=-1)[..., 0], others


def _arranged(logit: Any, label: Any) -> tuple[Any, Any, bool]:
    """Logits in at least float32, labels of the same kind as integers, and whether there is one logit per target."""
    if not _is_tensor(logit):
        logit, label = to_numpy(logit, "logit"), to_numpy(label, "label")
        logit = logit.astype(np.result_type(logit.dtype, np.float32), copy=False)
    else:
        torch = sys.modules["torch"]
        label = torch.as_tensor(label, device=logit.device)
        logit = logit.to(torch.promote_types(logit.dtype, torch.float32))
    shape = tuple(logit.shape)
    if label.ndim != 1 or "float" in str(label.dtype):
        msg = f"label has shape {tuple(label.shape)} and dtype {label.dtype}; give one integer per target"
        raise InputError(msg)
    targets = len(label)
    of_all = len(shape) >= 2 and shape[-2] == targets
    of_one = len(shape) in (1, 2) and shape[-1] == targets
    if of_all and of_one and shape[-1] != 1:
        msg = f"logit has shape {shape}, which may be (target, class) or (run, target); give (1, target, class) or (run, target, 1)"
        raise InputError(msg)
    if not (of_all or of_one):
        msg = f"logit has shape {shape}, and there are {targets} labels; give (run, target, class), (target, class), or (run, target) of one logit"
        raise InputError(msg)
    binary = of_one or shape[-1] == 1
    if of_all and binary:
        logit = logit[..., 0]
    classes = 2 if binary else shape[-1]
    label = label.long() if _is_tensor(label) else label.astype(np.int64)
    wrong = label[(label < 0) | (label >= classes)]
    if len(wrong):
        msg = f"label {int(wrong[0])} is none of {classes} classes, 0 to {classes - 1}"
        if binary:
            msg += (
                "; one logit per target is for two classes, with more give logits (target, class)"
            )
        raise InputError(msg)
    return logit, label, binary
