"""Compiled kernels: coordinate descent in Gram space.

Kernels release the GIL; threads run them side by side, one target each. The dtype of the work arrays
decides the precision: float32 along the path, which only chooses lam, float64 for what is stored.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dmstore.regression.gradient import FAST, residual
from dmstore.regression.prediction import mean_square, predict
from dmstore.regression.working_set import extend, grow, side_for

import numba  # isort: skip

# Sweeps after which the non-zero weights are solved for at once.
PATIENT = 50
# Columns join the working set from this share of the bound on.
AHEAD = 0.95
# And this share of lam is where a column may become active.
_NEAR = 0.97


@numba.njit(nogil=True, cache=True, fastmath=FAST)  # type: ignore[untyped-decorator, unused-ignore]
def _step(rest: Any, row: Any, change: Any) -> None:
    for k in range(len(rest)):
        rest[k] -= change * row[k]


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator, unused-ignore]
def _sweep(
    block: Any, diagonal: Any, rest: Any, weight: Any, active: Any, half_lam: float
) -> float:
    """One pass of coordinate descent over `active`; returns the largest violation seen, halved."""
    worst = 0.0
    change = np.empty(1, dtype=rest.dtype)
    for position in active:
        old = weight[position]
        if old > 0.0:
            violation = abs(rest[position] - half_lam)
        elif old < 0.0:
            violation = abs(rest[position] + half_lam)
        else:
            violation = abs(rest[position]) - half_lam
            if violation <= 0.0:
                continue
        worst = max(worst, violation)
        if diagonal[position] <= 0.0:
            # The unit is in all of the runs or in none: a weight from a warm start says nothing.
            weight[position] = 0.0
            continue
        target = rest[position] + diagonal[position] * old
        if target > half_lam:
            new = (target - half_lam) / diagonal[position]
        elif target < -half_lam:
            new = (target + half_lam) / diagonal[position]
        else:
            new = 0.0
        weight[position] = new
        change[0] = weight[position] - old
        if change[0] != 0.0:
            _step(rest, block[position], change[0])
    return worst


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator, unused-ignore]
def _jump(block: Any, rest: Any, weight: Any, half_lam: float) -> None:
    """Solve for the non-zero weights at once, as far as no sign changes.

    Where nearly as many weights as runs are non-zero the problem is so flat that coordinate descent
    hardly moves; with the signs given it is a linear system.
    """
    active = np.flatnonzero(weight)
    count = len(active)
    if count == 0:
        return
    matrix = np.empty((count, count))
    right = np.empty(count)
    largest = 0.0
    for a in range(count):
        row = block[active[a]]
        for b in range(count):
            matrix[a, b] = row[active[b]]
        largest = max(largest, matrix[a, a])
        right[a] = rest[active[a]] - (half_lam if weight[active[a]] > 0.0 else -half_lam)
    for a in range(count):
        # Equal columns make the system singular: the smallest ridge splits the weight between them.
        matrix[a, a] += 1e-12 * largest
    step = np.linalg.solve(matrix, right)
    length, first = 1.0, -1
    for a in range(count):
        old = weight[active[a]]
        if old * (old + length * step[a]) < 0.0:
            length = -old / step[a]
            first = a
    change = np.empty(1, dtype=rest.dtype)
    for a in range(count):
        old = weight[active[a]]
        weight[active[a]] = 0.0 if a == first else old + length * step[a]
        change[0] = weight[active[a]] - old
        _step(rest, block[active[a]], change[0])


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator, unused-ignore]
def descend(
    block: Any,
    members: Any,
    rest: Any,
    weight: Any,
    rest_before: Any,
    weight_before: Any,
    onward: float,
    half_lam: float,
    tolerance: float,
    most: int,
) -> int:
    """Coordinate descent on the working set; returns the sweeps used.

    It starts `onward` times the last step of the path further on: weights are nearly linear in lam,
    and the gradient is linear in the weights.
    """
    size = len(members)
    diagonal = np.empty(size, dtype=block.dtype)
    for a in range(size):
        diagonal[a] = block[a, a]
    short, local, everyone = weight[members], rest[members], np.arange(size)
    used = 0
    if onward > 0.0:
        change = np.empty(1, dtype=rest.dtype)
        for a in range(size):
            local[a] += onward * (local[a] - rest_before[members[a]])
        for a in range(size):
            old = short[a]
            ahead = old + onward * (old - weight_before[members[a]])
            # A weight that would change its sign is zero in between.
            short[a] = ahead if old * ahead > 0.0 else 0.0
            change[0] = short[a] - ahead
            if change[0] != 0.0:
                _step(local, block[a], change[0])
    while used < most:
        worst = _sweep(block, diagonal, local, short, everyone, half_lam)
        used += 1
        if 2.0 * worst <= tolerance * 2.0 * half_lam:
            break
        active = np.flatnonzero(short)
        settled = 0
        while used < most:
            worst = _sweep(block, diagonal, local, short, active, half_lam)
            used += 1
            settled += 1
            if 2.0 * worst <= tolerance * half_lam:
                break
            if settled % PATIENT == 0:
                _jump(block, local, short, half_lam)
    for a in range(size):
        weight[members[a]] = short[a]
    return used


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator, unused-ignore]
def _solve(
    gram: Any,
    mean: Any,
    moment: Any,
    runs: int,
    lam: float,
    bar: float,
    tolerance: float,
    most: int,
    weight: Any,
    rest: Any,
    members: Any,
    inside: Any,
    size: int,
    block: Any,
    rest_before: Any,
    weight_before: Any,
    onward: float,
) -> Any:
    """Solve at one lam; `weight` and `rest` (the halved gradient of all columns) are brought there.

    Returns
    -------
    block, size, sweeps, converged
    """
    half, used = 0.5 * lam, 0
    while True:
        old = size
        wanted = size == 0
        for j in range(len(rest)):
            ahead = abs(rest[j] + onward * (rest[j] - rest_before[j]))
            wanted |= not inside[j] and (weight[j] != 0.0 or ahead >= bar)
        if wanted:
            # Some more than are asked for: many columns at once cost little more than one.
            for j in range(len(rest)):
                ahead = abs(rest[j] + onward * (rest[j] - rest_before[j]))
                if not inside[j] and (weight[j] != 0.0 or ahead >= AHEAD * bar):
                    inside[j] = True
                    members[size] = j
                    size += 1
            if size > block.shape[0]:
                side = side_for(size, block.shape[0])
                block = grow(block, side, side)
            extend(gram, mean, runs, members, old, size, block)
        used += descend(
            block, members[:size], rest, weight, rest_before, weight_before, onward,
            half, tolerance, most - used,
        )  # fmt: skip
        onward = 0.0
        # From the integers again, so that rounding does not add up along the path.
        residual(gram, mean, moment, runs, weight, np.flatnonzero(weight), rest)
        violated = False
        for j in range(len(rest)):
            gradient = 2.0 * abs(rest[j])
            if weight[j] != 0.0:
                violated |= abs(gradient - lam) > 2.0 * tolerance * lam
            else:
                violated |= gradient > lam * (1.0 + (2.0 if inside[j] else 1.0) * tolerance)
        if not violated or used >= most:
            return block, size, used, not violated
        bar = half


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator, unused-ignore]
def choose(
    gram: Any,
    mean: Any,
    moment: Any,
    runs: int,
    output: float,
    lams: Any,
    tolerance: float,
    most_sweeps: int,
    patience: int,
    check_words: Any,
    check_outputs: Any,
    check_runs: int,
    errors: Any,
    block: Any,
) -> Any:
    """Lasso path of one target, and the lam whose weights fit the holdout runs best.

    Parameters
    ----------
    gram : (train, train) int
        Runs that saw both units.
    mean : (train,) float64
        Share of runs that saw the unit.
    moment : (train,) float64
        Covariance of the unit's mask and the output.
    runs : int
    output : float
        Mean of the output over the runs.
    lams : (path,) float64
        Decreasing.
    tolerance : float
        Largest violation of the optimality conditions allowed, relative to lam.
    most_sweeps : int
        Sweeps allowed at one lam.
    patience : int
        Leave the path after this many worse holdout errors in a row; 0 goes to its end.
    check_words : (train, words) uint64
        Masks of the holdout runs.
    check_outputs : (64 words,) float
        Their outputs, 0 where a bit stands for no run.
    check_runs : int
        How many there are.
    errors : (path,) float64
        Holdout mean squared errors are written here.
    block : (side, side) float32 or float64
        Memory to work in, of any content; it may be outgrown. Its dtype is that of the work.

    Returns
    -------
    weights : (train,) of the dtype of `block`
        At the lam with the smallest holdout error, the last one without holdout runs.
    best : int
        Its position.
    sweeps : int
    converged : bool
    block
        The memory, for the next call.
    """
    train = len(moment)
    weight = np.zeros(train, dtype=block.dtype)
    best_weight, rest = weight.copy(), moment.astype(block.dtype)
    # Weights and gradients at the lam before, and room for those that take their place.
    before, spare = np.zeros((2, train), dtype=block.dtype), np.zeros((2, train), dtype=block.dtype)
    members = np.empty(train, dtype=np.int64)
    inside = np.zeros(train, dtype=np.bool_)
    size, sweeps, all_converged = 0, 0, True
    predicted = np.empty(len(check_outputs), dtype=np.float32)
    best, best_error, worse = 0, np.inf, 0
    previous = 2.0 * np.max(np.abs(rest)) if train else 0.0
    for step in range(len(lams)):
        lam = lams[step]
        # Sequential strong rule, until there is a step of the path that tells where gradients go;
        # what is left out wrongly is found by the check of all columns.
        bar = _NEAR * 0.5 * lam if step > 1 else max(lam - 0.5 * previous, 0.45 * lam)
        onward = (lams[step - 1] - lam) / (lams[step - 2] - lams[step - 1]) if step > 1 else 0.0
        # A grid may leap where weights are no longer linear.
        onward = min(onward, 1.0)
        spare[0], spare[1] = weight, rest
        block, size, used, converged = _solve(
            gram, mean, moment, runs, lam, bar, tolerance, most_sweeps,
            weight, rest, members, inside, size, block, before[1], before[0], onward,
        )  # fmt: skip
        before[:] = spare
        sweeps += used
        all_converged &= converged
        previous = lam
        if check_runs == 0:
            best = step
            best_weight[:] = weight
            continue
        level = 0.0
        for a in range(size):
            level += mean[members[a]] * weight[members[a]]
        predict(check_words, weight, members[:size], predicted)
        error = mean_square(predicted, check_outputs, output - level, check_runs)
        errors[step] = error
        if error < best_error:
            best, best_error, worse = step, error, 0
            best_weight[:] = weight
        else:
            worse += 1
            if patience > 0 and worse >= patience:
                break
    return best_weight, best, sweeps, all_converged, block


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator, unused-ignore]
def refit(
    gram: Any,
    mean: Any,
    moment: Any,
    runs: int,
    lam: float,
    start: Any,
    tolerance: float,
    most_sweeps: int,
    block: Any,
) -> Any:
    """Weights of one target at one lam, in float64, from a warm start.

    Parameters
    ----------
    gram, mean, moment, runs, tolerance, most_sweeps
        See :func:`choose`.
    lam : float
    start : (train,) float32 or float64
    block : (side, side) float64
        Memory to work in, of any content.

    Returns
    -------
    weights : (train,) float64
    sweeps : int
    converged : bool
    block
        The memory, for the next call.
    """
    train = len(moment)
    weight = start.astype(np.float64)
    rest = np.empty(train)
    residual(gram, mean, moment, runs, weight, np.flatnonzero(weight), rest)
    members = np.empty(train, dtype=np.int64)
    inside = np.zeros(train, dtype=np.bool_)
    block, _, used, converged = _solve(
        gram, mean, moment, runs, lam, 0.5 * lam, tolerance, most_sweeps,
        weight, rest, members, inside, 0, block, rest, weight, 0.0,
    )  # fmt: skip
    return weight, used, converged, block
