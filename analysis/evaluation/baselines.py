"""Predictions of what models will do that need no regression: what a datamodel has to beat."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dmstore.analysis.evaluation import rank_statistics
from dmstore.core.progress import Progress, counting

if TYPE_CHECKING:
    import xarray as xr

BLOCK = 1024
NAMES = ("mean", "class mean", "empirical influence")


def baselines(
    runs: xr.Dataset,
    output: str,
    mask: NDArray[np.bool_],
    *,
    targets: NDArray[np.int64] | None = None,
    labels: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None,
    unit: NDArray[np.int64] | None = None,
    progress: Progress | None = None,
) -> dict[str, NDArray[np.float64]]:
    """Predict the outputs of models that see given masks, from the runs that are not for evaluation.

    - ``mean``: the mean output of those runs, whatever the mask.
    - ``class mean``: least squares of the output on one number, the share of the train units of
      the target's own class that the mask has. Only where there are labels of several classes.
    - ``empirical influence``: the mean output, plus for each unit that the mask has (minus for its
      share in the runs) the difference of mean outputs of runs with it and runs without it.
      Units that all or none of the runs saw count nothing.

    Of targets that are train units only the runs count that did not see them; how often units were seen is
    that of all runs, which is the same but for chance where units are drawn by themselves.

    Parameters
    ----------
    runs : xarray.Dataset
        From :meth:`dmstore.study.study.Study.runs`; read twice, block by block.
    output : str
    mask : (mask, train) bool
    targets : (target,) int64, optional
        Positions; all by default.
    labels : pair of (train,) and (target,) int64, optional
        Classes of train units and of all targets.
    unit : (target,) int64, optional
        The train unit that each of the targets is, -1 for none.
    progress : callable, optional
        Called with ``baselines``, runs read and runs to read.

    Returns
    -------
    dict
        Name to predictions (target, mask) float64, in output units. Influences are never formed:
        masks are multiplied with the runs' masks (in float32), and those products with their outputs.
    """
    fitted = runs["split"].values != "eval"
    rows, tell = len(fitted), counting(progress, "baselines")
    seen, count = np.zeros(mask.shape[1], dtype=np.int64), int(fitted.sum())
    for start, chosen in _blocks(fitted):
        seen += _masks(runs, start)[chosen].sum(axis=0)
        tell(start, 2 * rows)
    varied = (seen > 0) & (seen < count)
    # Of centred outputs the difference of means is this factor times their sum over runs with the unit.
    factor = np.zeros(len(seen))
    factor[varied] = count / (seen[varied] * (count - seen[varied]))
    left = ((mask - seen / count) * factor).astype(np.float32)
    outputs = runs[output] if targets is None else runs[output].isel(target=targets)
    own = _Classes(labels, targets, len(seen)) if labels is not None else None
    influence, kernel_total = np.zeros((2, len(mask), outputs.shape[1]))
    total, counted, shift = np.zeros(outputs.shape[1]), np.zeros(outputs.shape[1]), None
    unit = np.full(outputs.shape[1], -1, dtype=np.int64) if unit is None else unit
    is_unit = unit >= 0
    for start, chosen in _blocks(fitted):
        masks = _masks(runs, start)[chosen]
        values = np.asarray(outputs[start : start + BLOCK].values, dtype=np.float64)[chosen]
        if not len(values):
            continue
        # Near the mean, so that outputs far from 0 keep their digits; taken out exactly below.
        shift = values.mean(axis=0) if shift is None else shift
        values -= shift
        inside = np.ones(values.shape)
        inside[:, is_unit] = ~masks[:, unit[is_unit]]
        values *= inside
        kernel = (left @ masks.T.astype(np.float32)).astype(np.float64)
        influence += kernel @ values
        kernel_total += kernel @ inside if is_unit.any() else kernel.sum(axis=1, keepdims=True)
        total += values.sum(axis=0)
        counted += inside.sum(axis=0)
        if own is not None:
            own.add(masks, values, inside)
        tell(rows + start, 2 * rows)
    tell(2 * rows, 2 * rows)
    # A target that every run saw has none: its sums are 0, and so is what is said of it.
    counted = np.maximum(counted, 1)
    mean = total / counted
    base = mean + (0 if shift is None else shift)
    influence = ((influence - kernel_total * mean) * (count / counted)).T
    # Products of float32 tell equal sums apart.
    rounding = 4 * np.finfo(np.float32).eps * np.ptp(influence, axis=1)
    predictions = {
        "mean": np.repeat(base[:, None], len(mask), axis=1),
        "empirical influence": base[:, None] + rank_statistics.tied(influence, rounding),
    }
    if own is not None:
        predictions["class mean"] = base[:, None] + own.predict(mask, counted, total)
    return {name: predictions[name] for name in NAMES if name in predictions}


def _blocks(fitted: NDArray[np.bool_]) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Starts of blocks of runs, and the rows in each that are not for evaluation."""
    for start in range(0, len(fitted), BLOCK):
        yield start, np.flatnonzero(fitted[start : start + BLOCK])


def _masks(runs: xr.Dataset, start: int) -> NDArray[np.bool_]:
    return np.asarray(runs["mask"][start : start + BLOCK].values, dtype=bool)


class _Classes:
    """Sums for a regression of each target's output on the share of its class in the mask."""

    def __init__(
        self,
        labels: tuple[NDArray[np.int64], NDArray[np.int64]],
        targets: NDArray[np.int64] | None,
        train: int,
    ) -> None:
        train_label, target_label = labels
        own = target_label if targets is None else target_label[targets]
        classes = int(max(train_label.max(initial=0), own.max(initial=0))) + 1
        member = np.zeros((train, classes))
        member[np.arange(train), train_label] = 1
        self._member = member
        # A class without train units has share 0 in every mask.
        self._size = np.maximum(member.sum(axis=0), 1)
        self._own = own
        self._share, self._square, self._product = np.zeros((3, len(own)))

    def add(
        self,
        masks: NDArray[np.bool_],
        values: NDArray[np.float64],
        inside: NDArray[np.float64],
    ) -> None:
        """Take in runs: (run, train) bool, (run, target), and 1 where a run counts for a target."""
        share = self._shares(masks)
        self._share += (share * inside).sum(axis=0)
        self._square += (share**2 * inside).sum(axis=0)
        self._product += (share * values).sum(axis=0)

    def predict(
        self, mask: NDArray[np.bool_], count: NDArray[np.float64], total: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """What is to be added to the mean output: (target, mask) float64."""
        mean = self._share / count
        variance = self._square / count - mean**2
        covariance = self._product / count - mean * total / count
        slope = np.divide(covariance, variance, out=np.zeros_like(total), where=variance > 1e-12)
        return np.asarray(slope[:, None] * (self._shares(mask) - mean).T)

    def _shares(self, masks: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Shares of each target's class: (run, target). Counted before they are divided, so that equal shares are equal."""
        return np.asarray((masks @ self._member / self._size)[:, self._own])
