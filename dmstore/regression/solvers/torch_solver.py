"""Solver ``torch``: all targets of a block at once, on the CPU or a GPU.

The path, the choice of lam, the refit and the certificates are those of ``path.fit_block``; the same
code runs on either device. ``DMSTORE_DEVICE`` (``cpu``, ``cuda``, ``cuda:1``) names the device; without
it that is the first GPU, or the CPU where there is none.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dmstore.errors import InputError
from dmstore.regression.problem.block import Designs, Outputs
from dmstore.regression.problem.moments import Moments
from dmstore.regression.problem.parameters import PARTS_TOLERANCE, PATH_TOLERANCE, Parameters
from dmstore.regression.solvers import whole_block
from dmstore.regression.solvers.torch_design import Covariance, room
from dmstore.regression.solvers.torch_steps import State, TooWideError, WorkingSet, settle

DEVICE = "DMSTORE_DEVICE"


def find_device() -> Any:
    """The device to fit on.

    Returns
    -------
    torch.device

    Raises
    ------
    InputError
        If ``DMSTORE_DEVICE`` names none that is here.
    """
    name = os.environ.get(DEVICE) or ("cuda" if torch.cuda.is_available() else "cpu")
    kind, _, number = name.partition(":")
    here = 1 if kind == "cpu" else torch.cuda.device_count() if kind == "cuda" else 0
    if not (number or "0").isdecimal() or int(number or "0") >= here:
        msg = f"{DEVICE}={name!r}: no such device here; there are cpu" + "".join(
            f", cuda:{n}" for n in range(torch.cuda.device_count())
        )
        raise InputError(msg)
    return torch.device(name)


def require() -> None:
    """Refuse a device that is not there before anything is written."""
    find_device()


def fit_block(
    designs: Designs,
    outputs: Outputs,
    parameters: Parameters,
    *,
    threads: int = 1,
    cancelled: Callable[[], bool] = lambda: False,
) -> dict[str, NDArray[Any]]:
    """Fit some targets at once: choose lam on the holdout runs, refit on all, certify.

    Parameters
    ----------
    designs : Designs
    outputs : Outputs
    parameters : Parameters
        `sweeps` bounds the steps at one lam.
    threads : int
        Where the device is the CPU.
    cancelled : callable
        Asked before each lam.

    Returns
    -------
    dict
        The arrays of the ``datamodels`` schema but for ``target``.

    Raises
    ------
    InputError
        If ``DMSTORE_DEVICE`` names no device that is here.
    """
    result = whole_block.empty(designs, outputs, parameters)
    left = whole_block.paths(designs, outputs, parameters, result)
    fit = _Fit(designs, outputs, parameters, result, find_device(), cancelled)
    # On the CPU each thread takes some of the targets: threads that share one product wait for one
    # another at every step, which on a busy machine costs more than the product.
    shares = max(1, threads) if fit.device.type == "cpu" else 1
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        with ThreadPoolExecutor(shares) as pool:
            for _ in pool.map(fit.run, np.array_split(left, shares)):
                pass
    finally:
        torch.set_num_threads(before)
    return result


@dataclass(frozen=True)
class _Fit:
    designs: Designs
    outputs: Outputs
    parameters: Parameters
    result: dict[str, NDArray[Any]]
    device: Any
    cancelled: Callable[[], bool]

    def run(self, targets: NDArray[np.int64]) -> None:
        """Fit some targets, fewer at once where their working set does not fit."""
        if self.device.type == "cpu":
            torch.set_num_threads(1)
        waiting = [targets] if len(targets) else []
        with torch.inference_mode():
            while waiting and not self.cancelled():
                targets = waiting.pop()
                try:
                    best, weight, converged = self.solve(targets)
                except (TooWideError, torch.cuda.OutOfMemoryError) as error:
                    if len(targets) == 1:
                        msg = f"{self.device}: not enough memory for the working set of one target; use solver 'gram'"
                        raise InputError(msg) from error
                    waiting += np.array_split(targets, 2)
                    continue
                if not self.cancelled():
                    self.finish(targets, best, weight, converged)

    def solve(self, targets: NDArray[np.int64]) -> tuple[Any, Any, Any]:
        """Positions of the chosen lam, weights at it and whether all converged, of some targets."""
        best, start, converged = self._path(targets)
        lams = self.result["lam_path"][targets, best]
        everything, said = self.designs.everything, self.outputs.everything
        weight, done = self._at(everything, said, targets, lams, start, self.parameters.tolerance)
        converged &= done
        coarse = max(self.parameters.tolerance, PARTS_TOLERANCE)
        for number, (design, moments) in enumerate(
            zip(self.designs.halves, self.outputs.halves, strict=True)
        ):
            # With half of the runs every product has sqrt(2) times the noise.
            more = lams * math.sqrt(2.0)
            weights, done = self._at(design, moments, targets, more, weight, coarse)
            self.result["weight_half"][number, targets] = weights.cpu().numpy()
            converged &= done
        return best, weight.cpu().numpy(), converged

    def finish(
        self,
        targets: NDArray[np.int64],
        best: NDArray[np.int64],
        weight: NDArray[np.float64],
        converged: NDArray[np.bool_],
    ) -> None:
        """Certify and write some targets."""
        for row, target in enumerate(targets.tolist()):
            whole_block.finish(
                target,
                int(best[row]),
                weight[row],
                self.designs,
                self.outputs,
                self.parameters,
                self.result,
                converged=bool(converged[row]),
            )

    def _tensor(self, values: NDArray[Any]) -> Any:
        return torch.from_numpy(np.ascontiguousarray(values)).to(self.device)

    def _path(self, targets: NDArray[np.int64]) -> tuple[NDArray[np.int64], Any, NDArray[np.bool_]]:
        """Walk down the path, each target until its holdout error has grown for long enough."""
        parameters, result = self.parameters, self.result
        covariance = Covariance(self.designs.train, self.device)
        check = Covariance(self.designs.holdout, self.device)
        working = WorkingSet(covariance, room(self.device))
        moment = self._tensor(
            whole_block.covariance(self.designs.train, self.outputs.train, targets)
        )
        lams = self._tensor(result["lam_path"][targets])
        errors = _Errors(self.outputs, targets, check, self._tensor) if check.runs else None
        state = State.begin(covariance, moment)
        best_weight = torch.zeros_like(moment)
        best = np.zeros(len(targets), dtype=np.int64)
        lowest = np.full(len(targets), np.inf)
        worse = np.zeros(len(targets), dtype=np.int64)
        steps = np.zeros(len(targets), dtype=np.int64)
        converged = np.ones(len(targets), dtype=bool)
        live = np.arange(len(targets))
        previous = lams[:, 0]
        for number in range(parameters.lams):
            if self.cancelled():
                break
            rows = self._tensor(live)
            lam = lams[rows, number]
            # Sequential strong rule; what it leaves out wrongly is found by the full check.
            bar = torch.maximum(lam - 0.5 * previous[rows], 0.45 * lam)
            bar = bar if number else 0.5 * lam
            settle(
                working,
                state,
                lam,
                bar,
                tolerance=max(parameters.tolerance, PATH_TOLERANCE),
                most=parameters.sweeps,
            )
            previous = lams[:, number]
            if errors:
                error = errors.of(state.weight, live, covariance.mean)
                result["holdout_mse"][targets[live], number] = error
            else:
                # Without runs to choose lam with, the last one is taken.
                error = np.full(len(live), -float(number))
            better, larger = error < lowest[live], error > lowest[live]
            lowest[live[better]], best[live[better]] = error[better], number
            best_weight[rows[self._tensor(better)]] = state.weight[self._tensor(better)]
            worse[live] = np.where(better, 0, worse[live] + larger)
            steps[live], converged[live] = state.steps.cpu().numpy(), state.converged.cpu().numpy()
            stays = (worse[live] < parameters.patience) | (parameters.patience == 0)
            if not stays.all():
                live = live[stays]
                state = state.only(self._tensor(stays))
            if len(live) == 0:
                break
        result["sweeps"][targets] = steps
        return best, best_weight, converged

    def _at(
        self,
        design: Any,
        moments: Moments,
        targets: NDArray[np.int64],
        lams: NDArray[np.float64],
        start: Any,
        tolerance: float,
    ) -> tuple[Any, NDArray[np.bool_]]:
        """Weights at one lam a target, from a start, and whether they met the tolerance."""
        covariance = Covariance(design, self.device)
        moment = self._tensor(whole_block.covariance(design, moments, targets))
        state = State.begin(covariance, moment, start)
        working = WorkingSet(covariance, room(self.device))
        lam = self._tensor(lams)
        settle(working, state, lam, 0.5 * lam, tolerance=tolerance, most=self.parameters.sweeps)
        if moments is self.outputs.everything:
            self.result["sweeps"][targets] += state.steps.cpu().numpy().astype(np.int32)
        return state.weight, state.converged.cpu().numpy()


class _Errors:
    """Mean squared errors on the holdout runs, from their uncentred sums."""

    def __init__(
        self,
        outputs: Outputs,
        targets: NDArray[np.int64],
        check: Covariance,
        tensor: Callable[[NDArray[Any]], Any],
    ) -> None:
        moments, fitted = outputs.holdout, outputs.train
        self._check, self._tensor = check, tensor
        self._product = tensor(moments.product[:, targets].T / moments.runs)
        self._square = moments.square[targets] / moments.runs
        self._said = moments.total[targets] / moments.runs
        self._output = fitted.total[targets] / fitted.runs

    def of(self, weight: Any, rows: NDArray[np.int64], mean: Any) -> NDArray[np.float64]:
        """Errors of weights fitted on runs with this `mean`: (target,) float64.

        E(y - b - w.m)^2 = E y^2 - 2 w.E(my) + w'E(mm')w + b^2 + 2 b w.E(m) - 2 b E(y).
        """
        cross = (weight * self._product[self._tensor(rows)]).sum(dim=1).cpu().numpy()
        quadratic = (weight * self._check.together(weight)).sum(dim=1).cpu().numpy()
        level = (weight @ self._check.mean).cpu().numpy()
        bias = self._output[rows] - (weight @ mean).cpu().numpy()
        products: NDArray[np.float64] = (
            self._square[rows]
            - 2.0 * cross
            + quadratic
            + bias**2
            + 2.0 * bias * level
            - 2.0 * bias * self._said[rows]
        )
        return products
