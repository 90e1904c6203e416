"""Lasso of many targets at fixed lam: accelerated proximal steps on a shared working set.

Minimise w'Cw - 2 c.w + lam |w|_1 for each target. Steps are taken in float32 from a point whose
gradient is known in float64, so that rounding is relative to what is left to do; where they are slow
the non-zero weights are solved for at once, in float64.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from dmstore.regression.solvers.torch_design import Covariance

# Steps between two looks at what has converged, and steps before the non-zeros are solved for.
LOOK = 5
PATIENT = 150
# Rounds of steps and full checks before that is done whatever the steps say.
ROUNDS = 4
# Weights that one jump may take out, one after the other.
DROPS = 20
# Of the tolerance, what the steps may use: the rest is for what they do not see.
INNER = 0.3


class TooWideError(Exception):
    """The working set of these targets does not fit: take fewer at once."""


class WorkingSet:
    """Columns that some target may use, and their covariance on the device; it only grows.

    Parameters
    ----------
    covariance : Covariance
    limit : int
        Bytes that the covariance of the columns may take; one target alone is not bound by it.
    """

    def __init__(self, covariance: Covariance, limit: int) -> None:
        self.covariance = covariance
        self.inside = torch.zeros(covariance.train, dtype=torch.bool, device=covariance.device)
        self.members = torch.empty(0, dtype=torch.int64, device=covariance.device)
        self.largest = 1.0
        self._limit = limit
        self._room = torch.empty((0, 0), dtype=torch.float32, device=covariance.device)
        self._vector = torch.empty((0, 4), dtype=torch.float32, device=covariance.device)

    @property
    def block(self) -> Any:
        """Covariance of the members: (members, members) float32."""
        size = len(self.members)
        return self._room[:size, :size]

    def add(self, wanted: Any, targets: int) -> None:
        """Take in columns: `wanted` (train,) bool."""
        new = (wanted & ~self.inside & self.covariance.varies).nonzero()[:, 0]
        if len(new) == 0:
            return
        old = len(self.members)
        size = old + len(new)
        members = torch.cat([self.members, new])
        if size > len(self._room):
            capacity = min(self.covariance.train, max(size, 2 * old, 64))
            if 4 * capacity**2 > self._limit:
                capacity = size
            if 4 * capacity**2 > self._limit and targets > 1:
                raise TooWideError
            larger = self._room.new_empty((capacity, capacity))
            larger[:old, :old] = self.block
            self._room = larger
        side = self.covariance.block(new, members)
        self._room[old:size, :size] = side
        self._room[:old, old:size] = side[:, :old].T
        self.members = members
        self.inside[new] = True
        self._bound(len(new))

    def _bound(self, new: int) -> None:
        """Largest eigenvalue of the correlation of the members, by a few power steps.

        Steps stay stable a third beyond it, so an estimate that is a little low does no harm.
        """
        root = self.covariance.variance[self.members].rsqrt().to(torch.float32)[:, None]
        generator = torch.Generator().manual_seed(len(self.members))
        fresh = torch.randn((new, 4), generator=generator).to(self.members.device)
        vector = torch.cat([self._vector, fresh * (0.1 if len(self._vector) else 1.0)])
        for _ in range(8):
            vector = root * (self.block @ (root * vector))
            size = vector.norm(dim=0)
            vector = vector / size.clamp_min(1e-30) * len(vector) ** 0.5
        length = (root * (self.block @ (root * vector))).norm(dim=0) / vector.norm(dim=0)
        self.largest = max(self.largest, 1.05 * float(length.max()))
        self._vector = vector


@dataclass
class State:
    """Targets on their way: all tensors on the device, weights and gradients in float64.

    Attributes
    ----------
    moment : (target, train)
        Covariance of masks and outputs.
    weight : (target, train)
    rest : (target, train)
        `moment` less weights times covariance: half the negative gradient.
    steps : (target,) int64
        Steps taken so far.
    converged : (target,) bool
        Whether every solve so far met its tolerance.
    """

    moment: Any
    weight: Any
    rest: Any
    steps: Any
    converged: Any

    @classmethod
    def begin(cls, covariance: Covariance, moment: Any, weight: Any | None = None) -> State:
        """Targets at a first point; a unit that is in all of the runs or in none has no weight."""
        if weight is None:
            weight, rest = torch.zeros_like(moment), moment.clone()
        else:
            weight = weight * covariance.varies
            rest = moment - covariance.times(weight)
        count = torch.zeros(len(moment), dtype=torch.int64, device=moment.device)
        return cls(moment, weight, rest, count, torch.ones_like(count, dtype=torch.bool))

    def only(self, targets: Any) -> State:
        """Some of the targets: a mask or positions."""
        parts = (self.moment, self.weight, self.rest, self.steps, self.converged)
        return State(*(part[targets] for part in parts))


def violation(weight: Any, rest: Any, lam: Any) -> Any:
    """Largest violation of the optimality conditions of each target, relative to lam: (target,)."""
    gradient = 2.0 * rest
    half = lam[:, None]
    at_zero = gradient.abs() - half
    elsewhere = (gradient - half * weight.sign()).abs()
    worst = torch.where(weight == 0, at_zero, elsewhere).amax(dim=1)
    return worst.clamp_min(0.0) / lam


def settle(
    working: WorkingSet, state: State, lam: Any, bar: Any, *, tolerance: float, most: int
) -> None:
    """Bring targets to the solution at their lam, in place.

    Parameters
    ----------
    working : WorkingSet
    state : State
    lam : (target,) float64
    bar : (target,) float64
        A column whose half gradient reaches it is tried at once; the others are checked after.
    tolerance : float
        Largest violation allowed, relative to lam.
    most : int
        Steps allowed.
    """
    covariance = working.covariance
    used = torch.zeros_like(state.steps)
    todo = torch.arange(len(lam), device=lam.device)
    rounds = 0
    while len(todo):
        part = state.only(todo)
        wanted = (part.rest.abs() >= bar[todo, None]) | (part.weight != 0)
        working.add(wanted.any(dim=0), len(todo))
        taken, stuck = _descend(working, part, lam[todo], INNER * tolerance, min(PATIENT, most))
        rounds += 1
        # What steps in float32 do not settle is not settled by more of them.
        late = stuck if rounds < ROUNDS else torch.ones_like(stuck)
        for number in late.nonzero()[:, 0].tolist():
            _jump(covariance, part, number, float(lam[todo[number]]))
        part.rest = part.moment - covariance.times(part.weight)
        state.weight[todo], state.rest[todo] = part.weight, part.rest
        used[todo] += taken
        missed = violation(part.weight, part.rest, lam[todo]) > tolerance
        over = missed & (used[todo] >= most)
        state.converged[todo[over]] = False
        todo = todo[missed & ~over]
        bar = 0.5 * lam
    state.steps += used


def _descend(
    working: WorkingSet, part: State, lam: Any, tolerance: float, most: int
) -> tuple[Any, Any]:
    """Accelerated proximal steps, with restart, until all targets have settled or `most` are taken.

    Returns
    -------
    taken : (target,) int64
    stuck : (target,) bool
        Targets that had not settled.
    """
    members, block = working.members, working.block
    size = 1.0 / (working.largest * working.covariance.variance[members])
    step = size.to(torch.float32)[None, :]
    start = part.weight[:, members].to(torch.float32)
    rest = part.rest[:, members].to(torch.float32)
    half = (0.5 * lam).to(torch.float32)[:, None]
    threshold, near = step * half, tolerance * half * step
    live = torch.arange(len(lam), device=lam.device)
    taken = torch.zeros_like(live)
    change, ahead = torch.zeros_like(start), torch.zeros_like(start)
    speed = torch.ones_like(half)
    stuck = torch.zeros_like(live, dtype=torch.bool)
    for number in range(1, most + 1):
        moved = ahead + step * (rest - ahead @ block)
        # The soft threshold of start + moved, less start, without the difference of large numbers.
        new = moved - torch.maximum(torch.minimum(start + moved, threshold), -threshold)
        onward = new - change
        # Momentum that points uphill is dropped, for each target by itself.
        uphill = ((ahead - new) * onward / step).sum(dim=1, keepdim=True) > 0
        faster = 0.5 * (1.0 + (1.0 + 4.0 * speed**2).sqrt())
        push = torch.where(uphill, 0.0, (speed - 1.0) / faster)
        speed = torch.where(uphill, 1.0, faster)
        last = number == most
        if last or number % LOOK == 0:
            settled = ((ahead - new).abs() <= near).all(dim=1)
            if last:
                stuck[live] = ~settled
                settled = torch.ones_like(settled)
            out = settled.nonzero()[:, 0]
            if len(out):
                zero = (start[out] + moved[out]).abs() <= threshold[out]
                exact = part.weight[live[out]]
                exact[:, members] = (exact[:, members] + new[out]).masked_fill(zero, 0.0)
                part.weight[live[out]] = exact
                taken[live[out]] = number
                keep = ~settled
                live, start, rest = live[keep], start[keep], rest[keep]
                if len(live) == 0:
                    break
                threshold, near, speed, push = (x[keep] for x in (threshold, near, speed, push))
                new, onward = new[keep], onward[keep]
        ahead, change = new + push * onward, new
    return taken, stuck


def _jump(covariance: Covariance, part: State, number: int, lam: float) -> None:
    """Solve for the non-zero weights of a target at once, as far as no sign changes.

    A weight whose sign would change is taken out and the rest is solved for again: where nearly as
    many weights as runs are non-zero, or columns are nearly equal, steps along the gradient hardly
    move.
    """
    active = part.weight[number].nonzero()[:, 0]
    if len(active) == 0:
        return
    matrix = covariance.exact(active, active)
    # Equal columns make the system singular: the smallest ridge splits the weight between them.
    matrix.diagonal().add_(1e-12 * matrix.diagonal().max())
    weight, moment = part.weight[number, active], part.moment[number, active]
    part.weight[number, active] = 0.0
    for _ in range(DROPS):
        right = moment - matrix @ weight - 0.5 * lam * weight.sign()
        change = torch.linalg.solve(matrix, right)
        crosses = weight * (weight + change) < 0
        if not crosses.any():
            weight = weight + change
            break
        length = torch.where(crosses, -weight / change, torch.inf)
        first = int(length.argmin())
        weight = weight + length[first] * change
        keep = torch.arange(len(weight), device=weight.device) != first
        active, weight, moment = active[keep], weight[keep], moment[keep]
        matrix = matrix[keep][:, keep]
        if len(active) == 0:
            break
    part.weight[number, active] = weight
