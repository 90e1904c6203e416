"""Compiled kernels: coordinate descent on a working set.

Kernels release the GIL; threads run them side by side, one target each. `rest` is half of the gradient of
each member and `weight` its weight, both in float32 along the path, which only chooses lam, and in float64
for what is stored.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dmstore.regression.kernels.compiled import compiled, compiled_with
from dmstore.regression.kernels.working_set import row_of

# Violations up to this share of the tolerance are left alone: a step costs as much as one that matters.
_ENOUGH = 0.25
# Sweeps after which the non-zero weights are solved for at once: up to so many by elimination, more by so
# many conjugate gradients.
PATIENT, _TOGETHER, _STEPS = 50, 2048, 100


@compiled_with("contract")
def _take(rest: Any, row: Any, change: Any) -> None:
    for k in range(len(rest)):
        rest[k] -= change * rest.dtype.type(row[k])


@compiled
def _step(
    source: Any,
    flat: Any,
    place: Any,
    diagonal: Any,
    rest: Any,
    a: int,
    change: Any,
    spare: Any,
) -> None:
    """What a change of one weight does to the gradient of all members."""
    quantum = source[-1]
    near, far = row_of(source, flat, place, a, spare)
    scaled = rest.dtype.type(change * quantum)
    _take(rest[: len(near)], near, scaled)
    if len(far):
        _take(rest[len(near) :], far, scaled)
    rest[a] -= change * diagonal[a]


@compiled
def _sweep(
    source: Any,
    flat: Any,
    place: Any,
    diagonal: Any,
    rest: Any,
    weight: Any,
    active: Any,
    half_lam: float,
    least: float,
    spare: Any,
) -> float:
    """One pass of coordinate descent over `active`, but for those that are off by `least` or less.

    Returns
    -------
    float
        The largest violation seen, halved.
    """
    worst = 0.0
    for position in active:
        if diagonal[position] <= 0.0:
            # The unit is in all of the runs or in none: a weight from a warm start says nothing.
            weight[position] = 0.0
            continue
        old = weight[position]
        if old > 0.0:
            violation = abs(rest[position] - half_lam)
        elif old < 0.0:
            violation = abs(rest[position] + half_lam)
        else:
            violation = abs(rest[position]) - half_lam
        worst = max(worst, violation)
        if violation <= least:
            continue
        target = rest[position] + diagonal[position] * old
        if target > half_lam:
            new = (target - half_lam) / diagonal[position]
        elif target < -half_lam:
            new = (target + half_lam) / diagonal[position]
        else:
            new = 0.0
        weight[position] = new
        change = weight[position] - old
        if change != 0.0:
            _step(source, flat, place, diagonal, rest, position, change, spare)
    return worst


@compiled
def _jump(
    source: Any,
    flat: Any,
    place: Any,
    diagonal: Any,
    rest: Any,
    weight: Any,
    half_lam: float,
    spare: Any,
) -> None:
    """Solve for the non-zero weights with their signs as they are, and go as far that way as it pays.

    Where nearly as many weights as runs are non-zero the problem is so flat that coordinate descent
    hardly moves; with the signs given it is a linear system. Signs that change on the way bend the
    objective up, so the best length is at one of these or between two.
    """
    active = np.flatnonzero(weight)
    count = len(active)
    if count == 0:
        return
    right = np.empty(count)
    for a in range(count):
        right[a] = rest[active[a]] - (half_lam if weight[active[a]] > 0.0 else -half_lam)
    if count <= _TOGETHER:
        step = _eliminate(source, flat, place, diagonal, active, right, spare)
    else:
        step = _conjugate(source, flat, place, diagonal, active, right, spare)
    # Of either solution the objective falls by this much a unit of length at first, and less by as
    # much at its end.
    fall = np.dot(step, right)
    if not fall > 0.0:
        return
    changes = np.full(count, np.inf)
    for a in range(count):
        if weight[active[a]] * step[a] < 0.0:
            changes[a] = -weight[active[a]] / step[a]
    length, left, stopped = 1.0, fall, -1
    for a in np.argsort(changes):
        if changes[a] * fall >= left:
            break
        left -= 2.0 * half_lam * abs(step[a])
        if changes[a] * fall >= left:
            length, stopped = changes[a], a
            break
    if stopped < 0:
        length = left / fall
    for a in range(count):
        old = weight[active[a]]
        weight[active[a]] = 0.0 if a == stopped else old + length * step[a]
        change = weight[active[a]] - old
        _step(source, flat, place, diagonal, rest, active[a], change, spare)


@compiled
def _eliminate(
    source: Any, flat: Any, place: Any, diagonal: Any, active: Any, right: Any, spare: Any
) -> Any:
    """Solve with the covariance of some members."""
    quantum, count, largest = source[-1], len(active), 0.0
    matrix = np.empty((count, count))
    for a in range(count):
        near, far = row_of(source, flat, place, active[a], spare)
        for b in range(count):
            k = active[b]
            matrix[a, b] = quantum * (near[k] if k < len(near) else far[k - len(near)])
        matrix[a, a] = diagonal[active[a]]
        largest = max(largest, matrix[a, a])
    for a in range(count):
        # Equal columns make the system singular: the smallest ridge splits the weight between them.
        matrix[a, a] += 1e-12 * largest
    return np.linalg.solve(matrix, right)


@compiled
def _conjugate(
    source: Any, flat: Any, place: Any, diagonal: Any, active: Any, right: Any, spare: Any
) -> Any:
    """The same by conjugate gradients, as far as some steps go: they need no matrix."""
    count = len(active)
    solution, left, way = np.zeros(count), right.copy(), right.copy()
    product = np.empty(len(diagonal), dtype=diagonal.dtype)
    size = np.dot(left, left)
    enough = 1e-8 * size
    for _ in range(_STEPS):
        product[:] = 0.0
        for a in range(count):
            change = diagonal.dtype.type(-way[a])
            _step(source, flat, place, diagonal, product, active[a], change, spare)
        image = np.empty(count)
        for a in range(count):
            image[a] = product[active[a]]
        bend = np.dot(way, image)
        if bend <= 0.0:
            break
        solution += size / bend * way
        left -= size / bend * image
        before, size = size, np.dot(left, left)
        if size <= enough:
            break
        way = left + size / before * way
    return solution


@compiled
def descend(
    source: Any,
    flat: Any,
    place: Any,
    diagonal: Any,
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

    Parameters
    ----------
    source, flat, place
        See :mod:`dmstore.regression.kernels.working_set`.
    diagonal : (member,)
        Variance of each member's masks.
    rest, weight : (member,)
        Brought to lam.
    rest_before, weight_before : (member,)
        At the lam before the one they stand at.
    onward : float
    half_lam : float
    tolerance : float
        Largest violation allowed, relative to lam.
    most : int
        Sweeps allowed.
    """
    size = len(rest)
    least = _ENOUGH * tolerance * half_lam
    spare = np.empty(size, dtype=flat.dtype)
    everyone = np.arange(size)
    used = 0
    if onward > 0.0:
        for a in range(size):
            rest[a] += onward * (rest[a] - rest_before[a])
        for a in range(size):
            old = weight[a]
            ahead = old + onward * (old - weight_before[a])
            # A weight that would change its sign is zero in between.
            weight[a] = ahead if old * ahead > 0.0 else 0.0
            change = weight[a] - ahead
            if change != 0.0:
                _step(source, flat, place, diagonal, rest, a, change, spare)
    while used < most:
        worst = _sweep(
            source, flat, place, diagonal, rest, weight, everyone, half_lam, least, spare
        )
        used += 1
        if 2.0 * worst <= tolerance * 2.0 * half_lam:
            break
        active = np.flatnonzero(weight)
        settled = 0
        while used < most:
            worst = _sweep(
                source, flat, place, diagonal, rest, weight, active, half_lam, least, spare
            )
            used += 1
            settled += 1
            if 2.0 * worst <= tolerance * half_lam:
                break
            if settled % PATIENT == 0:
                _jump(source, flat, place, diagonal, rest, weight, half_lam, spare)
    return used
