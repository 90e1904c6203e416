"""Compiled kernels: the lasso path of one target and its refit, in Gram space.

Kernels release the GIL; threads run them side by side, one target each. The path only chooses lam and is
walked in float32 on covariances of 16 bits; what is stored is solved for in float64. Either way the
gradient of all columns comes from the integers of the Gram, so that neither adds up errors.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dmstore.regression.kernels.descent import descend
from dmstore.regression.kernels.gradient import residual
from dmstore.regression.kernels.prediction import mean_square, predict
from dmstore.regression.kernels.working_set import extend, row_of

import numba  # isort: skip

# Columns join the working set from this share of the bound on.
AHEAD = 0.98
# And this share of lam is where a column may become active.
_NEAR = 0.98
# Values of lam whose gradients of all columns are taken at once.
ABREAST = 2


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator, unused-ignore]
def admit(
    mean: Any, ahead: Any, weight: Any, bar: float, members: Any, inside: Any, level: Any,
    diagonal: Any, size: int,
) -> int:  # fmt: skip
    """Take columns into the working set whose halved gradient will reach a bar, if there are any.

    Returns
    -------
    int
        Its new size; the covariances are still to be made.
    """
    wanted = size == 0
    for j in range(len(ahead)):
        wanted |= not inside[j] and (weight[j] != 0.0 or abs(ahead[j]) >= bar)
    if not wanted:
        return size
    # Some more than are asked for: many columns at once cost little more than one.
    for j in range(len(ahead)):
        if not inside[j] and (weight[j] != 0.0 or abs(ahead[j]) >= AHEAD * bar):
            inside[j] = True
            members[size], level[size] = j, mean[j]
            diagonal[size] = mean[j] - mean[j] * mean[j]
            size += 1
    return size


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator, unused-ignore]
def violated(rest: Any, weight: Any, inside: Any, lam: float, tolerance: float) -> bool:
    """Whether any column violates its optimality condition by more than is allowed."""
    for j in range(len(rest)):
        gradient = 2.0 * abs(rest[j])
        if weight[j] != 0.0:
            fine = abs(gradient - lam) <= 2.0 * tolerance * lam
        else:
            fine = gradient <= lam * (1.0 + (2.0 if inside[j] else 1.0) * tolerance)
        # Said of what is not a number, too.
        if not fine:
            return True
    return False


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator, unused-ignore]
def _solve(
    gram: Any, mean: Any, moment: Any, runs: int, unit: float, lam: float,
    tolerance: float, most: int, weight: Any, rest: Any, members: Any, inside: Any, level: Any,
    diagonal: Any, size: int, flat: Any, place: Any,
) -> Any:  # fmt: skip
    """Solve at one lam; `weight` and `rest` (the halved gradient of all columns) are brought there.

    Returns
    -------
    size : int
        Of the working set.
    sweeps : int
    converged : bool
    fits : bool
        As :func:`~dmstore.regression.kernels.working_set.extend` says.
    """
    train, half, used = len(rest), 0.5 * lam, 0
    while True:
        old = size
        size = admit(mean, rest, weight, half, members, inside, level, diagonal, size)
        source = (gram, members[:size], level[:size], runs, unit)
        if size > old and not extend(source, old, size, flat, place):
            return size, used, False, False
        near, short = rest[members[:size]], weight[members[:size]]
        used += descend(
            source, flat, place, diagonal[:size], near, short, near, short, 0.0, half,
            tolerance, most - used,
        )  # fmt: skip
        for a in range(size):
            weight[members[a]] = short[a]
        # From the integers again, so that rounding does not add up along the path.
        residual(gram, mean, moment, runs, weight.reshape(1, train), rest.reshape(1, train))
        off = violated(rest, weight, inside, lam, tolerance)
        if not off or used >= most:
            return size, used, not off, True


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
    flat: Any,
    place: Any,
    unit: float,
    states: Any,
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
        Leave the path after this many larger holdout errors than the best; 0 goes to its end. Errors that
        are the same, as those above lam_max are, count nothing.
    check_words : (train, words) uint64
        Masks of the holdout runs.
    check_outputs : (64 words,) float
        Their outputs, 0 where a bit stands for no run.
    check_runs : int
        How many there are.
    errors : (path,) float64
        Holdout mean squared errors are written here.
    flat : (number,) int16, float32 or float64
        Memory for the working set, of any content.
    place : (2,) int64
        How it is used; see :mod:`dmstore.regression.kernels.working_set`.
    unit : float
        What the numbers there are multiples of; 1 unless they are integers.
    states : (2, 2 + ABREAST, train) float32 or float64
        Memory for gradients and weights. Its dtype is that of the work.

    Returns
    -------
    weights : (train,) of the dtype of `states`
        At the lam with the smallest holdout error, the last one without holdout runs.
    best : int
        Its position.
    sweeps : int
    converged : bool
        At all lams. In float32 the path ends at the first where it is not, and where 16 bits do not reach.
    """
    train = len(moment)
    # At the lam before the last one, at the last one, and at those being solved for.
    rests, weights = states[0], states[1]
    weights[:] = 0.0
    rests[:] = moment
    best_weight = np.zeros(train, dtype=states.dtype)
    members, level = np.empty(train, dtype=np.int64), np.empty(train)
    diagonal, inside = np.empty(train, dtype=states.dtype), np.zeros(train, dtype=np.bool_)
    ahead = np.empty(train, dtype=states.dtype)
    predicted = np.empty(len(check_outputs), dtype=np.float32)
    # A plain 0 is a type of its own, and what is called with it would be compiled twice.
    size, sweeps, all_converged = np.int64(0), 0, True
    best, best_error, worse, step = 0, np.inf, 0, 0
    previous = 2.0 * np.max(np.abs(rests[1])) if train else 0.0
    found, spent = np.zeros(ABREAST), np.zeros(ABREAST, dtype=np.int64)
    while step < len(lams):
        count, worse_yet, best_yet = 0, worse, best_error
        while True:
            now, lam = 2 + count, lams[step + count]
            onward, bar = 0.0, max(lam - 0.5 * previous, 0.45 * lam)
            if step > 1:
                # Gradients go on along a line, as weights do, which tells what enters; but a grid may
                # leap. What is left out wrongly is found by the check of all columns.
                onward = (lams[step - 1] - lam) / (lams[step - 2] - lams[step - 1])
                onward, bar = min(onward, 1.0 + count), _NEAR * 0.5 * lam
            for j in range(train):
                ahead[j] = rests[1, j] + onward * (rests[1, j] - rests[0, j])
            old = size
            size = admit(mean, ahead, weights[now - 1], bar, members, inside, level, diagonal, size)
            source = (gram, members[:size], level[:size], runs, unit)
            if size > old and not extend(source, old, size, flat, place):
                return best_weight, best, sweeps, False
            if count:
                _catch_up(source, flat, place, rests, weights, old, now)
                last = lams[step + count - 1]
                onward = min((last - lam) / (lams[step + count - 2] - last), 1.0)
            near, short = rests[now - 1][members[:size]], weights[now - 1][members[:size]]
            spent[count] = descend(
                source, flat, place, diagonal[:size], near, short,
                rests[now - 2][members[:size]], weights[now - 2][members[:size]], onward,
                0.5 * lam, tolerance, most_sweeps,
            )  # fmt: skip
            weights[now] = 0.0
            for a in range(size):
                weights[now, members[a]], rests[now, members[a]] = short[a], near[a]
            found[count] = _error(
                weights[now], members[:size], mean, output, check_words, check_outputs,
                check_runs, predicted,
            )  # fmt: skip
            if found[count] < best_yet:
                best_yet, worse_yet = found[count], 0
            elif found[count] > best_yet:
                worse_yet += 1
            count += 1
            if (
                step < 2
                or count == ABREAST
                or step + count == len(lams)
                or (check_runs > 0 and 0 < patience <= worse_yet)
            ):
                break
        # From the integers again, so that rounding does not add up along the path.
        residual(gram, mean, moment, runs, weights[2 : 2 + count], rests[2 : 2 + count])
        for k in range(count):
            lam, weight = lams[step + k], weights[2 + k]
            sweeps += spent[k]
            if violated(rests[2 + k], weight, inside, lam, tolerance):
                size, used, converged, fits = _solve(
                    gram, mean, moment, runs, unit, lam, tolerance,
                    most_sweeps - spent[k], weight, rests[2 + k], members, inside, level, diagonal,
                    size, flat, place,
                )  # fmt: skip
                if not fits:
                    return best_weight, best, sweeps, False
                sweeps += used
                all_converged &= converged
                if not converged and states.itemsize < 8:
                    return best_weight, best, sweeps, False
                found[k] = _error(
                    weight, members[:size], mean, output, check_words, check_outputs, check_runs,
                    predicted,
                )  # fmt: skip
            previous = lam
            if check_runs == 0 or found[k] < best_error:
                best, best_error, worse = step + k, found[k], 0
                best_weight[:] = weight
            elif found[k] > best_error:
                worse += 1
            if check_runs > 0:
                errors[step + k] = found[k]
                if 0 < patience <= worse:
                    return best_weight, best, sweeps, all_converged
        for state in (rests, weights):
            state[0], state[1] = state[count], state[count + 1]
        step += count
    return best_weight, best, sweeps, all_converged


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator, unused-ignore]
def _catch_up(
    source: Any, flat: Any, place: Any, rests: Any, weights: Any, old: int, now: int
) -> None:
    """Gradients of members from `old` on at weights 2 to `now`, from those at weights 1."""
    _, members, _, _, unit = source
    spare = np.empty(len(members), dtype=flat.dtype)
    for a in range(old, len(members)):
        j = members[a]
        near, far = row_of(source, flat, place, a, spare)
        for v in range(2, now):
            total = 0.0
            for b in range(old):
                covariance = near[b] if b < len(near) else far[b - len(near)]
                total += (weights[v, members[b]] - weights[1, members[b]]) * covariance
            rests[v, j] = rests[1, j] - unit * total


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator, unused-ignore]
def _error(
    weight: Any, members: Any, mean: Any, output: float, check_words: Any, check_outputs: Any,
    check_runs: int, predicted: Any,
) -> float:  # fmt: skip
    """Mean squared error on the holdout runs."""
    if check_runs == 0:
        return 0.0
    level = 0.0
    for j in members:
        level += mean[j] * weight[j]
    predict(check_words, weight, members, predicted)
    error: float = mean_square(predicted, check_outputs, output - level, check_runs)
    return error


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
    flat: Any,
    place: Any,
) -> Any:
    """Weights of one target at one lam, in float64, from a warm start.

    Parameters
    ----------
    gram, mean, moment, runs, tolerance, most_sweeps
        See :func:`choose`.
    lam : float
    start : (train,) float32 or float64
    flat, place
        See :func:`choose`; float64.

    Returns
    -------
    weights : (train,) float64
    sweeps : int
    converged : bool
    """
    train = len(moment)
    weight, rest = start.astype(np.float64), np.empty(train)
    residual(gram, mean, moment, runs, weight.reshape(1, train), rest.reshape(1, train))
    members, level = np.empty(train, dtype=np.int64), np.empty(train)
    diagonal, inside = np.empty(train), np.zeros(train, dtype=np.bool_)
    _, used, converged, _ = _solve(
        gram, mean, moment, runs, 1.0, lam, tolerance, most_sweeps, weight, rest,
        members, inside, level, diagonal, np.int64(0), flat, place,
    )  # fmt: skip
    return weight, used, converged
