"""Whether the runs of one algorithm are enough, before there is another to compare it with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmstore.analysis.comparison.differences import direction_share, propose
from dmstore.analysis.comparison.measured import fits_of_halves, runs_to_measure
from dmstore.analysis.comparison.parameters import ComparisonParameters
from dmstore.analysis.experiment.arms import Arm, Halves, centred
from dmstore.analysis.experiment.halves import rowdot, squares
from dmstore.analysis.experiment.measure import Proposal
from dmstore.analysis.experiment.projections import dense_products, sparse_products
from dmstore.analysis.experiment.reading import read_arms
from dmstore.core.given import threads_of
from dmstore.errors import InputError
from dmstore.study.study import Study

Floats = NDArray[np.float64]
# Of datamodels along a direction: the share that the number of runs is told for.
SHARE = 0.01
# Targets that it is told from, at most, and at a time.
_SAMPLE, _BLOCK = 1024, 128
# Directions that the two halves differ in, as a comparison would look at.
_DIRECTIONS = 10
# Errors that the mean length of the datamodels must be from 0.
_SURE = 5.0


@dataclass(frozen=True)
class Enough:
    """What a comparison with another algorithm of as many such runs would show.

    Attributes
    ----------
    detectable : float or None
        Share of an algorithm's datamodels along a direction that would be found and claimed in 80 % of such
        comparisons; None where it is not known.
    runs_stored : int or None
    runs_for_1_percent : int or None
        Runs of each algorithm that a direction of 1 % takes, to two digits.
    unknown : str
        Why it is not known; empty where it is.
    """

    detectable: float | None
    runs_stored: int | None
    runs_for_1_percent: int | None
    unknown: str = ""


def enough(study: Study, algorithm: str, fit: str, *, threads: int | None = None) -> Enough:
    """Tell from the runs of one algorithm what comparing it would show.

    The noise that each half of the runs leaves in one coordinate of a datamodel, over the length of the datamodel
    without noise, is what decides which directions a comparison finds; of two algorithms of such runs it is twice that.

    Parameters
    ----------
    study : Study
    algorithm : str
    fit : str
        A finished fit; its halves are what runs are measured with.
    threads : int, optional
        All cores by default.
    """
    try:
        runs = runs_to_measure(study, (algorithm,), [fit])
        if not runs:
            return Enough(None, None, None, "the fit has no halves; fit again")
        document = study.newest_fit(algorithm, fit)
        targets = study.target_set(document["target_set"]).sizes["target"]
        some = np.unique(np.linspace(0, targets - 1, min(targets, _SAMPLE)).astype(np.int64))
        workers = threads_of(threads)
        (halves,) = read_arms(
            study, tuple(runs), document["output"], threads=workers, positions=some
        )
    except InputError as error:
        return Enough(None, None, None, str(error))
    count = len(runs[0].view.read(["mask_id"])["mask_id"])
    data = study.datamodels(algorithm, fit).isel(target=some)
    noise = coordinate_noise(halves, fits_of_halves(data), threads=workers)
    if not np.isfinite(noise):
        return Enough(
            None, count, None, "the datamodels are too weak to be measured with these runs"
        )
    shown = direction_share(2 * noise, targets, halves[0].masks.train)
    return Enough(shown, count, _two_digits(count * shown / SHARE))


def coordinate_noise(halves: Halves, fits: list[Any], *, threads: int = 1) -> float:
    """Variance of one coordinate of a unit datamodel as a half of the runs measures it; NaN where datamodels are too weak.

    The fits of the two halves stand for two algorithms of one truth: along the directions in which they differ, which are
    those that a comparison would look at, the error is told as :func:`dmstore.analysis.experiment.measure.measure` does.

    Parameters
    ----------
    halves : pair of Arm
    fits : pair of (target, train) csr_array
        From half 0 and from half 1 of the masks.
    threads : int
    """
    parameters = ComparisonParameters(components=min(_DIRECTIONS, *fits[0].shape))
    count = parameters.components
    proposed = propose(fits[0], fits[1], count, parameters, threads=threads)
    noise = [
        _half_noise(
            halves[m],
            fits[1 - m],
            Proposal(proposed.direction[own], proposed.weight[own]),
            threads,
        )
        for m, own in ((0, slice(count, 2 * count)), (1, slice(count)))
    ]
    known = [one for one in noise if np.isfinite(one)]
    return float(np.mean(known)) if known else float("nan")


def _half_noise(arm: Arm, fit: Any, proposed: Proposal, threads: int) -> float:
    """The same of one half, along directions of the other."""
    spread = arm.spread
    fit = fit.multiply((spread > 0).astype(fit.dtype)[None]).tocsr()
    direction = np.asarray(proposed.direction, dtype=np.float32)
    columns = np.ascontiguousarray((direction * spread).T, np.float32)
    z = centred(dense_products(arm.masks.words, columns).astype(np.float64), arm.used, axis=0)
    size = np.zeros(len(direction))
    each = np.zeros((len(arm.used), len(direction)))
    mean, lengths = 0.0, np.zeros((len(arm.used), 1))
    for start in range(0, fit.shape[0], _BLOCK):
        rows = fit[start : start + _BLOCK]
        weight = proposed.weight[:, start : start + _BLOCK].T
        rest, adds, known, inverse = _along_fit(arm, rows, start, spread, threads)
        along = adds.sum(axis=0) + known
        omega = weight * inverse[:, None] ** 2
        total = np.asarray(rows.sum(axis=1), dtype=np.float64)[:, None]
        other = rest.T @ z + arm.expected(rows @ direction.T, total, direction.sum(axis=1))
        # As `measure` has it for each of two algorithms.
        each += z * (rest @ (omega * along[:, None])) - adds @ (omega * other)
        size += (np.abs(omega) * (along**2 - (adds**2).sum(axis=0))[:, None]).sum(axis=0)
        mean += float((along * inverse).sum())
        lengths[:, 0] += adds @ inverse
    error = [
        squares([np.ascontiguousarray(centred(one, arm.used, axis=0).T)], None, [arm.used])
        for one in (each, lengths)
    ]
    square = (proposed.weight**2).sum(axis=1)
    if mean <= _SURE * np.sqrt(error[1][0]) or not (square > 0).any() or np.median(size) <= 0:
        return float("nan")
    # As many targets as the weights amount to: what a direction takes is a share of all of them.
    effective = np.abs(proposed.weight).sum(axis=1) ** 2 / np.where(square > 0, square, 1.0)
    value = error[0] * effective / np.where(size > 0, size, np.nan) ** 2
    return float(np.median(np.where(size > 0, value, np.inf)[square > 0]))


def _along_fit(
    arm: Arm, rows: Any, start: int, spread: Floats, threads: int
) -> tuple[Floats, Floats, Floats, Floats]:
    """Of some targets: what each mask adds to a covariance, and to that with the unit fit; what is known of the latter; 1 / |fit|."""
    stop = start + rows.shape[0]
    length = np.sqrt(rowdot(rows, rows))
    inverse = np.divide(1.0, length, out=np.zeros_like(length), where=length > 0)
    said = sparse_products(arm.masks.words, rows, threads)
    z = said * spread[0]
    if np.ptp(spread) > 1e-9:
        z = sparse_products(arm.masks.words, rows.multiply(spread[None]).tocsr(), threads)
    there = arm.there(start, stop)
    runs = np.broadcast_to(there.sum(axis=0), (stop - start,)).astype(np.float64)
    left = np.where(there, arm.outputs(start, stop) - said, 0.0)
    rest = np.where(there, left - left.sum(axis=0) / np.maximum(runs, 1), 0.0)
    # A covariance over so many masks has one degree of freedom less.
    rest /= np.maximum(runs - 1, 1.0)
    adds = centred(z.astype(np.float64), arm.used, axis=0) * inverse * rest
    total = np.asarray(rows.sum(axis=1), dtype=np.float64).ravel()
    return rest, adds, arm.expected(length, total, total * inverse), inverse


def enough_text(said: Enough) -> str:
    """The same as a sentence."""
    if said.detectable is None:
        return f"What a comparison would show is not known: {said.unknown}."
    each = f"{said.runs_for_1_percent:,} runs of each"
    if said.detectable >= 1:
        return f"A comparison with an algorithm of as many such runs would show no direction; one of {SHARE:.0%} of the datamodels takes about {each}."
    return (
        f"A comparison with an algorithm of as many such runs would show a direction of {said.detectable:.1%} of the datamodels or less, "
        f"four times in five; one of {SHARE:.0%} takes at most about {each}."
    )


def _two_digits(value: float) -> int:
    """Rounded up to two digits."""
    step: int = 10 ** max(int(np.floor(np.log10(max(value, 1)))) - 1, 0)
    return int(np.ceil(value / step)) * step
