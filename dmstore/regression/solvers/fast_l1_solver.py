"""Solver ``fast_l1``: MadryLab's package on a CUDA device, its results in raw units and certified.

Not run on a GPU yet: written against the package's published interface (its commits of 2022), and
tested with a stand-in for it. What it does differently:

- It minimises (1/2n) |y - b - Zw|^2 + lambda |w|_1 over masks Z standardised by the column: lambda is
  lam / (2 sd) and a weight w / sd here. One lambda over columns of different deviations is a lasso
  with different penalties, which the certificate shows: targets are then ``not_converged``.
- It starts its own path at a value that lacks the division by sd; here it is given ours.
- A target leaves the path at the first worse holdout error, after at least ten values of lam.
- It needs rows, and a block has sums. A square root of the covariance serves: as many rows as the
  masks have ranks, and one more so that every column has mean 0. It is decomposed in float64
  (train x train) on the device.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import math
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmstore.errors import MissingDependencyError
from dmstore.regression.problem.block import Designs, Outputs
from dmstore.regression.problem.design import Design
from dmstore.regression.problem.moments import Moments
from dmstore.regression.problem.parameters import PARTS_TOLERANCE, PATH_TOLERANCE, Parameters
from dmstore.regression.solvers import whole_block

DEVICE = "cuda"
INSTALL = (
    "pip install 'dmstore[torch]' cupy-cuda12x pandas tqdm git+https://github.com/MadryLab/fast_l1"
)
# What rounding to float32 moves in a weight of the size of the output: no change is smaller.
_ROUNDING = 2e-7


def require() -> None:
    """Refuse unless the package and a CUDA device are there: that it is installed proves nothing.

    Raises
    ------
    MissingDependencyError
    """
    missing = [
        name for name in ("torch", "cupy", "fast_l1") if importlib.util.find_spec(name) is None
    ]
    if "torch" not in missing:
        import torch

        if not torch.cuda.is_available():
            missing.append("a CUDA device")
    if missing:
        msg = f"solver 'fast_l1' lacks {', '.join(missing)}; on a machine with CUDA: {INSTALL}; solver 'torch' needs no GPU"
        raise MissingDependencyError(msg)
    try:
        importlib.import_module("fast_l1.regressor")
    except ImportError as error:
        msg = f"solver 'fast_l1' cannot import the package ({error}); {INSTALL}"
        raise MissingDependencyError(msg) from error


def fit_block(
    designs: Designs,
    outputs: Outputs,
    parameters: Parameters,
    *,
    threads: int = 1,
    cancelled: Callable[[], bool] = lambda: False,
) -> dict[str, NDArray[Any]]:
    """Fit some targets with fast_l1: choose lam on the holdout runs, refit on all, certify.

    Parameters
    ----------
    designs : Designs
    outputs : Outputs
    parameters : Parameters
        `sweeps` bounds the epochs at one lam; `patience` is the package's own.
    threads : int
        Not used: the work is on the GPU.
    cancelled : callable
        Asked before each call of the package.

    Returns
    -------
    dict
        The arrays of the ``datamodels`` schema but for ``target``; ``holdout_mse`` at the chosen lam
        only.
    """
    result = whole_block.empty(designs, outputs, parameters)
    left = whole_block.paths(designs, outputs, parameters, result)
    if len(left) == 0 or cancelled():
        return result
    lams = result["lam_path"][left]
    fitted = _Problem(designs.train, outputs.train, left, (designs.holdout, outputs.holdout))
    decay = float(parameters.lam_ratio ** (1.0 / max(parameters.lams - 1, 1)))
    path = max(parameters.tolerance, PATH_TOLERANCE)
    start = np.zeros((len(left), len(designs.train.gram)))
    chosen, _ = fitted.solve(lams[:, 0], decay, parameters.lams, start, path, parameters.sweeps)
    best = position(chosen, lams)
    lam = lams[np.arange(len(left)), best]

    def at(design: Design, moments: Moments, lam: Any, start: Any, tolerance: float) -> Any:
        if cancelled():
            return start
        problem = _Problem(design, moments, left)
        return problem.solve(lam, 1.0, 1, start, tolerance, parameters.sweeps)[1]

    weight = at(designs.train, outputs.train, lam, start, path)
    result["holdout_mse"][left, best] = _errors(designs, outputs, left, weight)
    weight = at(designs.everything, outputs.everything, lam, weight, parameters.tolerance)
    for number, (design, moments) in enumerate(zip(designs.halves, outputs.halves, strict=True)):
        half = at(design, moments, lam * math.sqrt(2.0), weight, PARTS_TOLERANCE)
        result["weight_half"][number, left] = half
    for row, target in enumerate(left.tolist()):
        whole_block.finish(
            target,
            int(best[row]),
            weight[row],
            designs,
            outputs,
            parameters,
            result,
            converged=True,
        )
    return result


def position(chosen: NDArray[np.float64], lams: NDArray[np.float64]) -> NDArray[np.int64]:
    """Where on their paths the chosen values of lam stand.

    Parameters
    ----------
    chosen : (target,) float64
        0 for the unpenalised stage that the package may begin with: the end of the path.
    lams : (target, path) float64

    Returns
    -------
    (target,) int64
    """
    safe = np.where(chosen > 0, chosen, lams[:, -1])
    nearest: NDArray[np.int64] = np.abs(np.log(lams / safe[:, None])).argmin(axis=1)
    return nearest


def square_root(covariance: Any, moment: Any) -> tuple[Any, Any]:
    """Rows with given second moments.

    Parameters
    ----------
    covariance : (unit, unit) float64 tensor
    moment : (target, unit) float64 tensor
        In its span, as covariances with it are.

    Returns
    -------
    masks : (rank, unit) float64 tensor
        ``masks' masks`` is the covariance.
    outputs : (rank, target) float64 tensor
        ``masks' outputs`` are the moments.
    """
    import torch

    values, vectors = torch.linalg.eigh(covariance)
    kept = values > 1e-10 * values.max().clamp_min(1e-300)
    root, vectors = values[kept].sqrt(), vectors[:, kept]
    return root[:, None] * vectors.T, (vectors.T @ moment.T) / root[:, None]


def centre(rows: Any, count: int) -> Any:
    """As many rows with the same second moments, all of mean 0, scaled so that these are means.

    Parameters
    ----------
    rows : (rank, column) tensor
    count : int
        More than rank.

    Returns
    -------
    (count, column) tensor
    """
    import torch

    # A reflection that takes the last axis, where there is nothing, to the constant one.
    padded = torch.cat([rows, rows.new_zeros((count - len(rows), rows.shape[1]))])
    axis = rows.new_full((count, 1), -1.0 / math.sqrt(count))
    axis[-1] += 1.0
    reflected = padded - axis @ (axis.T @ padded) * (2.0 / float((axis**2).sum()))
    return reflected * math.sqrt(count)


class _Rows:
    """One batch, as often as it is asked for, but no more than a number of times."""

    def __init__(self, rows: Sequence[Any], most: int) -> None:
        import torch

        masks, outputs = rows
        self._batch = masks.float(), outputs.float(), torch.arange(len(masks), device=masks.device)
        self._left = most

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[tuple[Any, Any, Any]]:
        self._left -= 1
        if self._left < 0:
            # The package has no limit, and returns what it has when it is interrupted.
            raise KeyboardInterrupt
        yield self._batch


class _Problem:
    """The lasso of some targets over one design, as rows that the package can read."""

    def __init__(
        self,
        design: Design,
        moments: Moments,
        targets: NDArray[np.int64],
        check: tuple[Design, Moments] | None = None,
    ) -> None:
        import torch

        from dmstore.regression.solvers.torch_design import Covariance

        device = torch.device(DEVICE)
        covariance = Covariance(design, device)
        # A column without deviation cannot be standardised, and needs no weight.
        self._units = covariance.varies.nonzero()[:, 0]
        self._sd = covariance.variance[self._units].sqrt()
        self._scale = float((self._sd**2).mean().sqrt())
        output = moments.total[targets] / moments.runs
        self._size = float(np.sqrt(moments.square[targets] / moments.runs - output**2).max())
        exact = covariance.exact(self._units, self._units)
        moment = torch.from_numpy(whole_block.covariance(design, moments, targets)).to(device)
        masks, said = square_root(exact, moment[:, self._units])
        count = len(masks) + 1
        checks: list[Any] = []
        if check is not None:
            second = _about(*check, design.mean, output, self._units.cpu().numpy(), targets)
            checks = list(square_root(*(torch.from_numpy(part).to(device) for part in second)))
            # Every batch of the package is of one size.
            count = max(count, len(checks[0]))
        self._rows = centre(masks, count), centre(said, count)
        self._check = [
            math.sqrt(count) * torch.cat([r, r.new_zeros((count - len(r), r.shape[1]))])
            for r in checks
        ]
        # With all rows in one batch the package's step is a proximal gradient step.
        vector = torch.ones(len(exact), dtype=exact.dtype, device=device)
        vector[::2] = -0.5
        length = 1.0
        for _ in range(50):
            vector = (exact @ (vector / self._sd)) / self._sd
            length = float(vector.norm())
            vector = vector / length
        self._step = 1.0 / (1.05 * length)

    def solve(
        self,
        lam: NDArray[np.float64],
        decay: float,
        lams: int,
        start: NDArray[np.float64],
        tolerance: float,
        sweeps: int,
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Let the package walk down a path.

        Returns
        -------
        lam : (target,) float64
            Chosen by the package on the holdout runs, in raw units; 0 for an unpenalised stage.
        weight : (target, train) float64
            At the last lam, in raw units.
        """
        import torch

        regressor = importlib.import_module("fast_l1.regressor")
        device = self._sd.device
        begin = torch.from_numpy(start).to(device)[:, self._units]
        weight = (begin * self._sd).T.float().contiguous()
        bias = torch.zeros(len(lam), dtype=torch.float32, device=device)
        standard = torch.from_numpy(lam / (2.0 * self._scale)).to(device).float()
        # A violation of the tolerance moves a weight by step times as much; so does rounding.
        least = self._step * tolerance * float(standard.min()) * decay ** (lams - 1)
        least = max(least, _ROUNDING * self._size) * float(self._sd.min())
        # Three passes before the first epoch, and a stage without penalty.
        most = 3 + sweeps * (lams + 1)
        with _quietly(), _interruptible():
            chosen = regressor.train_saga(
                weight,
                bias,
                _Rows(self._rows, most),
                _Rows(self._check, most) if self._check else None,
                lr=self._step,
                start_lams=standard,
                lam_decay=decay,
                num_lambdas=lams,
                early_stop_eps=least**2,
                update_bias=False,
            )
        raw = np.zeros_like(start)
        raw[:, self._units.cpu().numpy()] = (weight.T.double() / self._sd).cpu().numpy()
        return 2.0 * self._scale * chosen.double().cpu().numpy(), raw


def _about(
    check: Design,
    moments: Moments,
    mean: NDArray[np.float64],
    output: NDArray[np.float64],
    units: NDArray[np.int64],
    targets: NDArray[np.int64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Second moments of holdout runs about the means of the runs fitted on, as errors need them."""
    own, mean = check.mean[units], mean[units]
    said = moments.total[targets] / moments.runs
    seen = check.gram[np.ix_(units, units)] / check.runs
    seen = seen - np.outer(own, mean) - np.outer(mean, own) + np.outer(mean, mean)
    both = (moments.product[np.ix_(units, targets)] / moments.runs).T
    both = both - np.outer(said, mean) - np.outer(output, own) + np.outer(output, mean)
    return seen, both


def _errors(
    designs: Designs,
    outputs: Outputs,
    targets: NDArray[np.int64],
    weight: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Mean squared errors on the holdout runs of weights of the train runs: (target,) float64."""
    moments, fitted = outputs.holdout, outputs.train
    output = fitted.total[targets] / fitted.runs
    units = np.flatnonzero((weight != 0).any(axis=0))
    short = weight[:, units]
    seen, both = _about(designs.holdout, moments, designs.train.mean, output, units, targets)
    square = moments.square[targets] / moments.runs
    said = moments.total[targets] / moments.runs
    level = square - 2 * output * said + output**2
    errors: NDArray[np.float64] = (
        level - 2 * (short * both).sum(axis=1) + ((short @ seen) * short).sum(axis=1)
    )
    return errors


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Keep what the package prints from standard output, where JSON may stand, and its bars away."""
    with (
        Path(os.devnull).open("w") as nothing,
        contextlib.redirect_stdout(nothing),
        contextlib.redirect_stderr(nothing),
    ):
        yield


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """The package answers Ctrl-C by returning what it has; here it ends the fit as elsewhere."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    pressed = []

    def press(number: int, _: Any) -> None:
        pressed.append(number)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, press)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before or signal.default_int_handler)
    if pressed:
        raise KeyboardInterrupt
