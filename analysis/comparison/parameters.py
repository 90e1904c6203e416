"""How to compare: the only statement of the options of a comparison, their defaults and their limits."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import TypedDict

from dmstore.core.given import seed_of
from dmstore.errors import InputError


class ComparisonOptions(TypedDict, total=False):
    """The same as keywords, each with the default of :class:`ComparisonParameters`."""

    components: int
    top: int
    heavy: int
    center: bool
    random_state: int
    fdr: float


@dataclass(frozen=True)
class ComparisonParameters:
    """How to compare.

    Attributes
    ----------
    components : int
        Directions each way.
    top : int
        Targets in a subpopulation.
    heavy : int
        Heaviest train units to list for a direction.
    center : bool
        Whether PCA subtracts the mean residual.
    random_state : int
        Draws contrasts, and the sketch of train units where there are many.
    fdr : float
        False discovery rate at which a difference is called beyond chance.

    Raises
    ------
    InputError
        For counts below 1, or a rate that is not between 0 and 1.
    """

    components: int = 10
    top: int = 16
    heavy: int = 50
    center: bool = True
    random_state: int = 0
    fdr: float = 0.05

    def __post_init__(self) -> None:
        for name in ("components", "top", "heavy"):
            try:
                object.__setattr__(self, name, operator.index(getattr(self, name)))
            except TypeError as error:
                msg = f"{name} {getattr(self, name)!r}: give a whole number"
                raise InputError(msg) from error
        object.__setattr__(self, "random_state", seed_of(self.random_state))
        if min(self.components, self.top, self.heavy) < 1:
            msg = f"components {self.components}, top {self.top}, heavy {self.heavy}: all must be 1 or more"
            raise InputError(msg)
        try:
            object.__setattr__(self, "fdr", float(self.fdr))
        except (TypeError, ValueError) as error:
            msg = f"fdr {self.fdr!r}: give a rate between 0 and 1, such as 0.05"
            raise InputError(msg) from error
        if not 0 < self.fdr < 1:
            msg = f"fdr {self.fdr}: give a rate between 0 and 1, such as 0.05"
            raise InputError(msg)
