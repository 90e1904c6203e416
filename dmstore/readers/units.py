"""Units of datamodels made elsewhere.

The regression of MadryLab/datamodels standardises mask columns and saves weights as it has them:
coefficient times column standard deviation, sqrt(alpha (1 - alpha)) in expectation, so half of the
weight in raw mask units at alpha = .5. A file alone cannot tell; the runs behind it can.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmstore.errors import InputError
from dmstore.readers.files import open_npy

KINDS = ("raw", "standardised")
_BLOCK = 1024
_MOST_TARGETS = 256


@dataclass(frozen=True)
class Units:
    """What is known of the units of weights.

    Attributes
    ----------
    kind : {"raw", "standardised"} or None
        None where nothing is known: the weights stay as they are.
    alpha : float
        Share of the training set that a run saw, for standardised weights.
    given : bool
        Whether the user said so, rather than the default of the format.
    runs : path, optional
        A folder with ``masks.npy`` (run, train) and ``margins.npy`` (run, target), and
        ``_completed.npy`` (run,) where not all are finished: then the units are measured.
    """

    kind: str | None = None
    alpha: float = 0.5
    given: bool = False
    runs: Path | None = None


@dataclass(frozen=True)
class Stated:
    """Units that a file states.

    Attributes
    ----------
    kind : {"raw", "standardised"}
    mean, deviation : (train,) float64, optional
        Of the mask columns; for standardised weights.
    """

    kind: str
    mean: NDArray[np.float64] | None = None
    deviation: NDArray[np.float64] | None = None


def raw_as_stated(
    weight: NDArray[Any], vectors: dict[str, NDArray[Any]], stated: Stated, where: str
) -> tuple[NDArray[Any], dict[str, NDArray[Any]], str]:
    """Bring weights, ``bias`` and ``lam`` from the units that their file states to raw mask units.

    Parameters
    ----------
    weight : (target, train) float
    vectors : dict
        ``bias`` and ``lam`` (target,), as far as the file has them.
    stated : Stated
    where : str
        For error texts.

    Returns
    -------
    weight, vectors : as given
    said : str
        What was done.

    Raises
    ------
    InputError
        If the means and deviations are not those of masks.
    """
    mean, deviation = stated.mean, stated.deviation
    if mean is None or deviation is None:
        return weight, vectors, "raw mask units (as the file says)"
    # Written so that NaN fails too.
    if (
        not ((mean >= 0).all() and (mean <= 1).all() and (deviation >= 0).all())
        or not (deviation <= 0.5 + 1e-6).all()
    ):
        msg = f"{where}: its mask_mean and mask_std are not those of masks; export the file again"
        raise InputError(msg)
    constant = deviation == 0
    if constant.any() and bool(weight[:, constant].any()):
        unit = int(np.flatnonzero(constant & np.asarray(weight.any(axis=0)))[0])
        msg = f"{where}: mask_std of train unit {unit} is 0, but it has weights; export the file again"
        raise InputError(msg)
    raw, bias = _from_standardised(
        weight, vectors.get("bias"), np.where(constant, 1, deviation).astype(weight.dtype), mean
    )
    vectors = dict(vectors)
    if bias is not None:
        vectors["bias"] = bias
    if "lam" in vectors:
        # Half the loss there and not here, and the weights' unit.
        vectors["lam"] = vectors["lam"] * (2 * deviation.mean())
    said = "converted to raw from standardised mask units (as the file says): divided by each column's standard deviation"
    return raw, vectors, said


def raw_units(
    weight: NDArray[Any], bias: NDArray[Any] | None, units: Units, where: str
) -> tuple[NDArray[Any], NDArray[Any] | None, str]:
    """Bring weights to raw mask units, as far as they can be told.

    Parameters
    ----------
    weight : (target, train) float
    bias : (target,) float, optional
    units : Units
    where : str
        For error texts.

    Returns
    -------
    weight, bias : arrays
    said : str
        What was found and done.

    Raises
    ------
    InputError
        If the runs do not fit, or their slope is that of neither kind.
    """
    if units.kind is not None and not 0 < units.alpha < 1:
        msg = f"alpha {units.alpha} is not allowed; give a share strictly between 0 and 1"
        raise InputError(msg)
    if units.runs is not None:
        return _measured(weight, bias, units.runs, where)
    if units.kind is None:
        return weight, bias, "not stated by the file, kept as they are"
    said = "as given" if units.given else "the format's default, not measured"
    if units.kind == "raw":
        return weight, bias, f"raw mask units ({said})"
    deviation = math.sqrt(units.alpha * (1 - units.alpha))
    weight, bias = _from_standardised(
        weight, bias, np.asarray(deviation, weight.dtype), np.asarray(units.alpha)
    )
    return (
        weight,
        bias,
        f"converted to raw from standardised mask units ({said}): divided by {deviation:.4g}, alpha {units.alpha:g}",
    )


def _from_standardised(
    weight: NDArray[Any], bias: NDArray[Any] | None, deviation: NDArray[Any], mean: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any] | None]:
    raw = np.divide(weight, deviation, dtype=weight.dtype)
    if bias is not None:
        bias = bias - np.asarray((raw.astype(np.float64) * mean).sum(axis=1))
    return raw, bias


def _measured(
    weight: NDArray[Any], bias: NDArray[Any] | None, folder: Path, where: str
) -> tuple[NDArray[Any], NDArray[Any] | None, str]:
    """Decide by the slope of outputs on predictions: 1 for raw weights, 1/sd for standardised."""
    slope, mean, deviation, count = slope_on_runs(weight, folder)
    if (deviation == 0).any():
        unit = int(np.flatnonzero(deviation == 0)[0])
        if bool(weight[:, deviation == 0].any()):
            msg = f"{folder}: all or none of the {count} runs saw train unit {unit}, which has weights; give the runs that were fitted on"
            raise InputError(msg)
        deviation = np.where(deviation == 0, 1, deviation)
    factor = 1 / float(deviation.mean())
    # Lasso shrinks, so that slopes lie somewhat above; between the two nothing can be told.
    gap = factor - 1
    finding = f"outputs of {count} runs have slope {slope:.2f} on what the weights predict"
    if 0.6 <= slope <= 1 + 0.4 * gap:
        return weight, bias, f"raw mask units (measured: {finding}; raw has 1)"
    if 1 + 0.6 * gap <= slope <= 1.6 * factor:
        raw, bias = _from_standardised(weight, bias, deviation.astype(weight.dtype), mean)
        return (
            raw,
            bias,
            f"converted to raw from standardised mask units (measured: {finding}; standardised has {factor:.2f}): "
            "divided by each column's standard deviation",
        )
    msg = (
        f"{where}: {finding}, which is neither that of raw (1) nor of standardised weights ({factor:.2f}); "
        "check that the runs are those of the scores, or say --units without --runs"
    )
    raise InputError(msg)


def slope_on_runs(
    weight: NDArray[Any], folder: Path
) -> tuple[float, NDArray[np.float64], NDArray[np.float64], int]:
    """Slope of outputs on predictions, pooled over up to 256 targets.

    Parameters
    ----------
    weight : (target, train) float
    folder : path
        With ``masks.npy``, ``margins.npy`` and, optionally, ``_completed.npy``; mapped, read in blocks.

    Returns
    -------
    slope : float
    mean, deviation : (train,) float64
        Of the mask columns.
    count : int
        Runs.

    Raises
    ------
    InputError
        If files are missing, do not fit the weights, or there are too few runs.
    """
    masks, margins = (open_npy(folder / f"{name}.npy", folder) for name in ("masks", "margins"))
    targets, train = weight.shape
    if (
        len(masks.shape) != 2
        or masks.shape[1] != train
        or margins.shape != (masks.shape[0], targets)
    ):
        msg = (
            f"{folder}: masks.npy {masks.shape} and margins.npy {margins.shape} do not fit scores of "
            f"{targets} targets and {train} train units"
        )
        raise InputError(msg)
    rows = np.arange(masks.shape[0])
    if (folder / "_completed.npy").is_file():
        completed = open_npy(folder / "_completed.npy", folder).whole()
        if completed.shape != masks.shape[:1]:
            msg = f"{folder}: _completed.npy has shape {completed.shape}, but there are {masks.shape[0]} runs"
            raise InputError(msg)
        rows = np.flatnonzero(completed)
    if len(rows) < 10:
        msg = f"{folder}: {len(rows)} finished runs tell no units; give 10 or more, or say --units"
        raise InputError(msg)
    chosen = np.unique(np.linspace(0, targets - 1, min(targets, _MOST_TARGETS)).astype(int))
    part = np.asarray(weight[chosen], dtype=np.float64)
    seen = np.zeros(train)
    predicted, outputs = [], []
    for start in range(0, len(rows), _BLOCK):
        block = rows[start : start + _BLOCK]
        mask = np.asarray(masks.rows(block), dtype=np.float64)
        if not np.isin(mask, (0, 1)).all():
            msg = f"{folder}: masks.npy holds values other than 0 and 1; give masks"
            raise InputError(msg)
        seen += mask.sum(axis=0)
        predicted.append(mask @ part.T)
        outputs.append(np.asarray(margins.rows(block)[:, chosen], dtype=np.float64))
    p, y = np.concatenate(predicted), np.concatenate(outputs)
    p -= p.mean(axis=0)
    y -= y.mean(axis=0)
    variance = float((p * p).sum())
    if not np.isfinite(y).all() or variance == 0:
        msg = f"{folder}: its outputs are not finite, or the scores predict nothing; say --units instead"
        raise InputError(msg)
    mean = seen / len(rows)
    return float((p * y).sum()) / variance, mean, np.sqrt(mean * (1 - mean)), len(rows)
