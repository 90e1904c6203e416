"""Compiled kernels: the lasso path of one target and its refit, in Gram space.

Kernels release the GIL; threads run them side by side, one target each. The path only chooses lam and is
walked in float32 on covariances of 16 bits; what is stored is solved for in float64. Either way the
gradient of all columns comes from the integers of the Gram, so that neither adds up errors.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from dmstore.regression.kernels.compiled import compiled
from dmstore.regression.kernels.descent import descend
from dmstore.regression.kernels.gradient import residual
from dmstore.regression.kernels.prediction import mean_square, predict
from dmstore.regression.kernels.working_set import extend, row_of

# Columns join the working set from this share of the bound on.
AHEAD = 0.98
# And this share of lam is where a column may become active.
_NEAR = 0.98
# Values of lam whose gradients of all columns are taken at once.
ABREAST = 2


class Fitted(NamedTuple):
    """The runs that are fitted on, as one target needs to know them.

    Attributes
    ----------
    gram : (train, train) int
        Runs that saw both units.
    mean : (train,) float64
        Share of runs that saw the unit.
    moment : (train,) float64
        Covariance of the unit's mask and the output.
    runs : int
    output : float
        Mean of the output.
    """

    gram: Any
    mean: Any
    moment: Any
    runs: int
    output: float


class Held(NamedTuple):
    """The runs that choose lam.

    Attributes
    ----------
    words : (train, words) uint64
        Their masks.
    outputs : (64 words,) float
        Their outputs, 0 where a bit stands for no run.
    runs : int
        How many there are.
    """

    words: Any
    outputs: Any
    runs: int


class Limits(NamedTuple):
    """How far to go.

    Attributes
    ----------
    tolerance : float
        Largest violation of the optimality conditions allowed, relative to lam.
    sweeps : int
        Sweeps allowed at one lam.
    patience : int
        Leave the path after this many larger holdout errors than the best; 0 goes to its end. Errors that
        are the same, as those above lam_max are, count nothing.
    """

    tolerance: float
    sweeps: int
    patience: int


class Memory(NamedTuple):
    """Memory for the working set; see :mod:`dmstore.regression.kernels.working_set`.

    Attributes
    ----------
    flat : (number,) int16, float32 or float64
        Of any content.
    place : (2,) int64
        How it is used.
    quantum : float
        What the numbers there are multiples of; 1 unless they are integers.
    """

    flat: Any
    place: Any
    quantum: float


class WorkingSet(NamedTuple):
    """Columns that are worked with; how many there are is counted apart.

    Attributes
    ----------
    members : (train,) int64
        Their numbers.
    inside : (train,) bool
        Whether a column is one of them.
    level : (train,) float64
        Mean of each member.
    diagonal : (train,)
        Its variance.
    """

    members: Any
    inside: Any
    level: Any
    diagonal: Any


@compiled
def nobody(train: int, diagonal: Any) -> Any:
    """An empty working set, whose variances are kept in `diagonal`."""
    members, inside = np.empty(train, dtype=np.int64), np.zeros(train, dtype=np.bool_)
    return WorkingSet(members, inside, np.empty(train), diagonal)


@compiled
def admit(mean: Any, ahead: Any, weight: Any, bar: float, working: Any, size: Any) -> Any:
    """Take columns into the working set whose halved gradient will reach a bar, if there are any.

    Returns
    -------
    int
        Its new size; the covariances are still to be made.
    """
    wanted = size == 0
    for j in range(len(ahead)):
        wanted |= not working.inside[j] and (weight[j] != 0.0 or abs(ahead[j]) >= bar)
    if not wanted:
        return size
    # Some more than are asked for: many columns at once cost little more than one.
    for j in range(len(ahead)):
        if not working.inside[j] and (weight[j] != 0.0 or abs(ahead[j]) >= AHEAD * bar):
            working.inside[j] = True
            working.members[size], working.level[size] = j, mean[j]
            working.diagonal[size] = mean[j] - mean[j] * mean[j]
            size += 1
    return size


@compiled
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


@compiled
def _source(fitted: Any, working: Any, size: Any, quantum: float) -> Any:
    """Where covariances of the working set are made of."""
    return fitted.gram, working.members[:size], working.level[:size], fitted.runs, quantum


@compiled
def _solve(
    fitted: Any, lam: float, tolerance: float, most: Any, weight: Any, rest: Any, working: Any,
    size: Any, memory: Any,
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
    flat, place, quantum = memory
    while True:
        old = size
        size = admit(fitted.mean, rest, weight, half, working, size)
        source, members = _source(fitted, working, size, quantum), working.members[:size]
        if size > old and not extend(source, old, size, flat, place):
            return size, used, False, False
        near, short = rest[members], weight[members]
        used += descend(
            source, flat, place, working.diagonal[:size], near, short, near, short, 0.0, half,
            tolerance, most - used,
        )  # fmt: skip
        for a in range(size):
            weight[members[a]] = short[a]
        # From the integers again, so that rounding does not add up along the path.
        residual(
            fitted.gram, fitted.mean, fitted.moment, fitted.runs, weight.reshape(1, train),
            rest.reshape(1, train),
        )  # fmt: skip
        off = violated(rest, weight, working.inside, lam, tolerance)
        if not off or used >= most:
            return size, used, not off, True


@compiled
def _advance(
    fitted: Any, lams: Any, step: int, count: int, previous: float, limits: Any, memory: Any,
    states: Any, working: Any, size: Any,
) -> Any:  # fmt: skip
    """Solve at lam ``step + count`` of the path on the working set alone.

    The gradients of all columns are known at the lam before `step`; `count` lams were solved for since.

    Returns
    -------
    size : int
        Of the working set.
    sweeps : int
    fits : bool
        As :func:`~dmstore.regression.kernels.working_set.extend` says.
    """
    rests, weights, (flat, place, quantum) = states[0], states[1], memory
    now, lam = 2 + count, lams[step + count]
    onward, bar = 0.0, max(lam - 0.5 * previous, 0.45 * lam)
    if step > 1:
        # Gradients go on along a line, as weights do, which tells what enters; but a grid may
        # leap. What is left out wrongly is found by the check of all columns.
        onward = (lams[step - 1] - lam) / (lams[step - 2] - lams[step - 1])
        onward, bar = min(onward, 1.0 + count), _NEAR * 0.5 * lam
    ahead = np.empty(states.shape[2], dtype=states.dtype)
    for j in range(len(ahead)):
        ahead[j] = rests[1, j] + onward * (rests[1, j] - rests[0, j])
    old = size
    size = admit(fitted.mean, ahead, weights[now - 1], bar, working, size)
    source, members = _source(fitted, working, size, quantum), working.members[:size]
    if size > old and not extend(source, old, size, flat, place):
        return size, 0, False
    if count:
        _catch_up(source, flat, place, rests, weights, old, now)
        last = lams[step + count - 1]
        onward = min((last - lam) / (lams[step + count - 2] - last), 1.0)
    near, short = rests[now - 1][members], weights[now - 1][members]
    used = descend(
        source, flat, place, working.diagonal[:size], near, short, rests[now - 2][members],
        weights[now - 2][members], onward, 0.5 * lam, limits.tolerance, limits.sweeps,
    )  # fmt: skip
    weights[now] = 0.0
    for a in range(size):
        weights[now, members[a]], rests[now, members[a]] = short[a], near[a]
    return size, used, True


@compiled
def choose(
    fitted: Any, held: Any, lams: Any, limits: Any, errors: Any, memory: Any, states: Any
) -> Any:
    """Lasso path of one target, and the lam whose weights fit the holdout runs best.

    Parameters
    ----------
    fitted : Fitted
    held : Held
    lams : (path,) float64
        Decreasing.
    limits : Limits
    errors : (path,) float64
        Holdout mean squared errors are written here.
    memory : Memory
    states : (2, 2 + ABREAST, train) float32 or float64
        Memory for gradients and weights: at the lam before the last one, at the last one, and at those being
        solved for. Its dtype is that of the work.

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
    train, patience = len(fitted.moment), limits.patience
    rests, weights = states[0], states[1]
    weights[:] = 0.0
    rests[:] = fitted.moment
    best_weight = np.zeros(train, dtype=states.dtype)
    working = nobody(train, np.empty(train, dtype=states.dtype))
    predicted = np.empty(len(held.outputs), dtype=np.float32)
    # A plain 0 is a type of its own, and what is called with it would be compiled twice.
    size, sweeps, all_converged = np.int64(0), 0, True
    best, best_error, worse, step = 0, np.inf, 0, 0
    previous = 2.0 * np.max(np.abs(rests[1])) if train else 0.0
    ahead_errors, spent = np.zeros(ABREAST), np.zeros(ABREAST, dtype=np.int64)
    while step < len(lams):
        count, worse_yet, best_yet = 0, worse, best_error
        while True:
            size, spent[count], fits = _advance(
                fitted, lams, step, count, previous, limits, memory, states, working, size
            )
            if not fits:
                return best_weight, best, sweeps, False
            ahead_errors[count] = _error(
                weights[2 + count], working.members[:size], fitted, held, predicted
            )
            if ahead_errors[count] < best_yet:
                best_yet, worse_yet = ahead_errors[count], 0
            elif ahead_errors[count] > best_yet:
                worse_yet += 1
            count += 1
            impatient = held.runs > 0 and 0 < patience <= worse_yet
            if step < 2 or count == ABREAST or step + count == len(lams) or impatient:
                break
        # From the integers again, so that rounding does not add up along the path.
        residual(
            fitted.gram, fitted.mean, fitted.moment, fitted.runs, weights[2 : 2 + count],
            rests[2 : 2 + count],
        )  # fmt: skip
        for k in range(count):
            lam, weight, rest = lams[step + k], weights[2 + k], rests[2 + k]
            sweeps += spent[k]
            if violated(rest, weight, working.inside, lam, limits.tolerance):
                size, used, converged, fits = _solve(
                    fitted, lam, limits.tolerance, limits.sweeps - spent[k], weight, rest, working,
                    size, memory,
                )  # fmt: skip
                if not fits:
                    return best_weight, best, sweeps, False
                sweeps += used
                all_converged &= converged
                if not converged and states.itemsize < 8:
                    return best_weight, best, sweeps, False
                ahead_errors[k] = _error(weight, working.members[:size], fitted, held, predicted)
            previous = lam
            if held.runs == 0 or ahead_errors[k] < best_error:
                best, best_error, worse = step + k, ahead_errors[k], 0
                best_weight[:] = weight
            elif ahead_errors[k] > best_error:
                worse += 1
            if held.runs > 0:
                errors[step + k] = ahead_errors[k]
                if 0 < patience <= worse:
                    return best_weight, best, sweeps, all_converged
        for state in (rests, weights):
            state[0], state[1] = state[count], state[count + 1]
        step += count
    return best_weight, best, sweeps, all_converged


@compiled
def _catch_up(
    source: Any, flat: Any, place: Any, rests: Any, weights: Any, old: Any, now: int
) -> None:
    """Gradients of members from `old` on at weights 2 to `now`, from those at weights 1."""
    _, members, _, _, quantum = source
    spare = np.empty(len(members), dtype=flat.dtype)
    for a in range(old, len(members)):
        j = members[a]
        near, far = row_of(source, flat, place, a, spare)
        for v in range(2, now):
            total = 0.0
            for b in range(old):
                covariance = near[b] if b < len(near) else far[b - len(near)]
                total += (weights[v, members[b]] - weights[1, members[b]]) * covariance
            rests[v, j] = rests[1, j] - quantum * total


@compiled
def _error(weight: Any, members: Any, fitted: Any, held: Any, predicted: Any) -> float:
    """Mean squared error on the holdout runs."""
    if held.runs == 0:
        return 0.0
    level = 0.0
    for j in members:
        level += fitted.mean[j] * weight[j]
    predict(held.words, weight, members, predicted)
    error: float = mean_square(predicted, held.outputs, fitted.output - level, held.runs)
    return error


@compiled
def refit(fitted: Any, lam: float, start: Any, limits: Any, memory: Any) -> Any:
    """Weights of one target at one lam, in float64, from a warm start.

    Parameters
    ----------
    fitted : Fitted
    lam : float
    start : (train,) float32 or float64
    limits : Limits
        Without patience.
    memory : Memory
        Of float64.

    Returns
    -------
    weights : (train,) float64
    sweeps : int
    converged : bool
    """
    train = len(fitted.moment)
    weight, rest = start.astype(np.float64), np.empty(train)
    residual(
        fitted.gram, fitted.mean, fitted.moment, fitted.runs, weight.reshape(1, train),
        rest.reshape(1, train),
    )  # fmt: skip
    working = nobody(train, np.empty(train))
    _, used, converged, _ = _solve(
        fitted, lam, limits.tolerance, limits.sweeps, weight, rest, working, np.int64(0), memory
    )
    return weight, used, converged
