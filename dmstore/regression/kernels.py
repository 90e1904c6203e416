"""Compiled kernels: popcount Gram, coordinate descent in Gram space, certificate.

numba is imported here and nowhere else. Kernels release the GIL; threads run them side by side.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dmstore.errors import MissingDependencyError

try:
    import numba
    from llvmlite import ir
    from numba import types
    from numba.extending import intrinsic
except ImportError as error:
    msg = "fitting needs numba; pip install 'dmstore[fit]'"
    raise MissingDependencyError(msg) from error

TILE = 32
WORDS = 64
# Sweeps after which the non-zero weights are solved for at once.
PATIENT = 50


@intrinsic  # type: ignore[untyped-decorator, unused-ignore]
def popcount(typing_context: Any, word: Any) -> Any:
    """Number of set bits of a uint64: one instruction."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        function = builder.module.declare_intrinsic("llvm.ctpop", [ir.IntType(64)])
        return builder.call(function, arguments)

    return types.uint64(types.uint64), build


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator, unused-ignore]
def gram_rows(words: Any, first: int, last: int, out: Any) -> None:
    """Add to ``out[first:last]`` the counts of runs that saw both units.

    Parameters
    ----------
    words : (train, words) uint64
        Masks packed along runs.
    first, last : int
        Rows of the Gram to do; columns from the row on only (the upper triangle).
    out : (train, train) int32
    """
    train, count = words.shape
    for row0 in range(first, last, TILE):
        row1 = min(row0 + TILE, last)
        for column0 in range(row0, train, TILE):
            column1 = min(column0 + TILE, train)
            for word0 in range(0, count, WORDS):
                word1 = min(word0 + WORDS, count)
                for i in range(row0, row1):
                    for j in range(max(column0, i), column1):
                        total = np.uint64(0)
                        for k in range(word0, word1):
                            total += popcount(words[i, k] & words[j, k])
                        out[i, j] += np.int32(total)


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator, unused-ignore]
def residual(
    gram: Any, mean: Any, moment: Any, runs: int, weight: Any, support: Any, out: Any
) -> None:
    """``out = moment - C weight`` in float64, from the integer Gram.

    C = gram / runs - mean mean' is the covariance of the masks; only `support` columns of `weight`
    are non-zero.
    """
    train = len(moment)
    level = 0.0
    for j in support:
        level += mean[j] * weight[j]
    for i in range(train):
        out[i] = moment[i] + mean[i] * level
    for j in support:
        scale = weight[j] / runs
        row = gram[j]
        for i in range(train):
            out[i] -= scale * row[i]


@numba.njit(nogil=True, cache=True, fastmath={"reassoc", "contract"})  # type: ignore[untyped-decorator, unused-ignore]
def _sweep(
    block: Any, diagonal: Any, rest: Any, weight: Any, active: Any, half_lam: float
) -> float:
    """One pass of coordinate descent over `active`; returns the largest violation seen, halved."""
    worst = 0.0
    count = len(rest)
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
        change = new - old
        if change != 0.0:
            weight[position] = new
            row = block[position]
            for k in range(count):
                rest[k] -= change * row[k]
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
    for a in range(count):
        change = length * step[a]
        if a == first:
            change = -weight[active[a]]
        weight[active[a]] += change
        row = block[active[a]]
        for k in range(len(rest)):
            rest[k] -= change * row[k]


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator, unused-ignore]
def _settle(
    block: Any, diagonal: Any, rest: Any, weight: Any, half_lam: float, tolerance: float, most: int
) -> int:
    """Sweeps over the non-zero weights alone, on their own compact block, until they are settled."""
    active = np.flatnonzero(weight)
    count = len(active)
    small = np.empty((count, count))
    for a in range(count):
        row = block[active[a]]
        for b in range(count):
            small[a, b] = row[active[b]]
    short, local, scale = weight[active], rest[active], diagonal[active]
    everyone = np.arange(count)
    used = 0
    while used < most:
        worst = _sweep(small, scale, local, short, everyone, half_lam)
        used += 1
        if 2.0 * worst <= tolerance * half_lam:
            break
        if used % PATIENT == 0:
            _jump(small, local, short, half_lam)
    for a in range(count):
        change = short[a] - weight[active[a]]
        if change != 0.0:
            weight[active[a]] = short[a]
            row = block[active[a]]
            for k in range(len(rest)):
                rest[k] -= change * row[k]
    return used


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator, unused-ignore]
def _extend(gram: Any, mean: Any, runs: int, members: Any, old: int, new: int, block: Any) -> None:
    """Fill rows and columns `old` to `new` of the compact covariance of the working set."""
    scale = 1.0 / runs
    for a in range(new):
        row = gram[members[a]]
        level = mean[members[a]]
        # Row by row: scattering the transpose would miss the cache on every write.
        for b in range(old if a < old else 0, new):
            block[a, b] = row[members[b]] * scale - level * mean[members[b]]


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator, unused-ignore]
def _grow(block: Any, size: int) -> Any:
    larger = np.empty((size, size))
    larger[: block.shape[0], : block.shape[1]] = block
    return larger


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator, unused-ignore]
def solve_path(
    gram: Any,
    mean: Any,
    moment: Any,
    runs: int,
    lams: Any,
    start: Any,
    tolerance: float,
    most_sweeps: int,
    patience: int,
    check_gram: Any,
    check_mean: Any,
    check_moment: Any,
    check_runs: int,
    check_square: float,
    check_output: float,
    output: float,
    errors: Any,
) -> Any:
    """Lasso path of one target by active-set coordinate descent in Gram space.

    Parameters
    ----------
    gram : (train, train) int
        Runs that saw both units.
    mean : (train,) float64
        Share of runs that saw the unit.
    moment : (train,) float64
        Covariance of the unit's mask and the output.
    runs : int
    lams : (path,) float64
        Decreasing.
    start : (train,) float64
        Weights to start from.
    tolerance : float
        Largest violation of the optimality conditions allowed, relative to lam.
    most_sweeps : int
        Sweeps allowed at one lam.
    patience : int
        Leave the path after this many worse holdout errors in a row; 0 goes to its end.
    check_gram, check_mean, check_moment, check_runs, check_square, check_output
        The same for the holdout runs: uncentred mean square and mean of the output, and the mean
        over them of mask times output. Not used if `check_runs` is 0.
    output : float
        Mean of the output over the runs fitted on.
    errors : (path,) float64
        Holdout errors are written here.

    Returns
    -------
    weights : (train,) float64
        At the lam with the smallest holdout error (the last lam without holdout).
    best : int
        Its position.
    sweeps : int
    converged : bool
    """
    train = len(moment)
    weight = start.copy()
    best_weight = start.copy()
    rest = np.empty(train)
    support = np.flatnonzero(weight)
    residual(gram, mean, moment, runs, weight, support, rest)
    members = np.empty(train, dtype=np.int64)
    inside = np.zeros(train, dtype=np.bool_)
    block = np.empty((64, 64))
    size = 0
    sweeps = 0
    best, best_error, worse = 0, np.inf, 0
    all_converged = True
    previous = 2.0 * np.max(np.abs(rest)) if train else 0.0
    for step in range(len(lams)):
        lam = lams[step]
        half = 0.5 * lam
        # Sequential strong rule; what it leaves out wrongly is found by the full check below.
        # At a warm start from another design `previous` says nothing: what violates is enough.
        bar = max(lam - 0.5 * previous, 0.9 * half) if step > 0 else half
        done = False
        used = 0
        while not done:
            old = size
            for j in range(train):
                if not inside[j] and (weight[j] != 0.0 or abs(rest[j]) >= bar):
                    inside[j] = True
                    members[size] = j
                    size += 1
            if size > block.shape[0]:
                block = _grow(block, min(train, max(size, 2 * block.shape[0])))
            _extend(gram, mean, runs, members, old, size, block)
            compact = block[:size, :size]
            diagonal = np.empty(size)
            short = np.empty(size)
            local = np.empty(size)
            for a in range(size):
                diagonal[a] = block[a, a]
                short[a] = weight[members[a]]
                local[a] = rest[members[a]]
            everyone = np.arange(size)
            while used < most_sweeps:
                worst = _sweep(compact, diagonal, local, short, everyone, half)
                used += 1
                if 2.0 * worst <= tolerance * lam:
                    break
                used += _settle(
                    compact, diagonal, local, short, half, tolerance, most_sweeps - used
                )
            for a in range(size):
                weight[members[a]] = short[a]
            support = np.flatnonzero(weight)
            # From the integers again, so that rounding does not add up along the path.
            residual(gram, mean, moment, runs, weight, support, rest)
            done = True
            for j in range(train):
                if (
                    (not inside[j] and 2.0 * abs(rest[j]) > lam * (1.0 + tolerance))
                    or (
                        inside[j]
                        and weight[j] == 0.0
                        and 2.0 * abs(rest[j]) > lam * (1.0 + 2.0 * tolerance)
                    )
                    or (weight[j] != 0.0 and abs(2.0 * abs(rest[j]) - lam) > 2.0 * tolerance * lam)
                ):
                    done = False
            bar = half
            if not done and used >= most_sweeps:
                all_converged = False
                done = True
        sweeps += used
        previous = lam
        if check_runs > 0:
            level = 0.0
            for k in support:
                level += mean[k] * weight[k]
            bias = output - level
            error = holdout_error(
                check_gram,
                check_mean,
                check_moment,
                check_runs,
                check_square,
                check_output,
                weight,
                support,
                bias,
            )
            errors[step] = error
            if error < best_error:
                best, best_error, worse = step, error, 0
                best_weight[:] = weight
            else:
                worse += 1
                if patience > 0 and worse >= patience:
                    break
        else:
            best = step
            best_weight[:] = weight
    return best_weight, best, sweeps, all_converged


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator, unused-ignore]
def holdout_error(
    gram: Any,
    mean: Any,
    moment: Any,
    runs: int,
    square: float,
    output: float,
    weight: Any,
    support: Any,
    bias: float,
) -> float:
    """Mean squared error on runs given by their uncentred sums.

    E(y - b - w.m)^2 = E y^2 - 2 w.E(my) + w'E(mm')w + b^2 + 2 b w.E(m) - 2 b E(y).
    """
    cross, level, quadratic = 0.0, 0.0, 0.0
    for a in support:
        cross += weight[a] * moment[a]
        level += weight[a] * mean[a]
        row = gram[a]
        part = 0.0
        for b in support:
            part += row[b] * weight[b]
        quadratic += weight[a] * part
    quadratic /= runs
    return square - 2.0 * cross + quadratic + bias * bias + 2.0 * bias * level - 2.0 * bias * output


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator, unused-ignore]
def certify(
    gram: Any, mean: Any, moment: Any, runs: int, variance: float, weight: Any, lam: float
) -> Any:
    """Certificate of one target, in float64 from the integers.

    Returns
    -------
    kkt : float
        Largest violation of the optimality conditions relative to lam.
    gap : float
        Duality gap relative to the objective at zero weights (the output's variance).
    """
    train = len(moment)
    support = np.flatnonzero(weight)
    rest = np.empty(train)
    residual(gram, mean, moment, runs, weight, support, rest)
    worst, largest, size, inner, fitted = 0.0, 0.0, 0.0, 0.0, 0.0
    for j in range(train):
        gradient = 2.0 * rest[j]
        largest = max(largest, abs(gradient))
        if weight[j] > 0.0:
            worst = max(worst, abs(gradient - lam))
        elif weight[j] < 0.0:
            worst = max(worst, abs(gradient + lam))
        else:
            worst = max(worst, abs(gradient) - lam)
    for k in support:
        size += abs(weight[k])
        inner += weight[k] * moment[k]
        fitted += weight[k] * (moment[k] - rest[k])
    # Mean squares of the residual outputs and their product with the outputs, all centred.
    loss = max(variance - 2.0 * inner + fitted, 0.0)
    product = variance - inner
    scale = 1.0 if largest <= lam else lam / largest
    dual = 2.0 * scale * product - scale * scale * loss
    gap = loss + lam * size - dual
    return (worst / lam if lam > 0.0 else worst), (gap / variance if variance > 0.0 else 0.0)
