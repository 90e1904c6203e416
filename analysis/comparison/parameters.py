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
        Draws contrasts.

    Raises
    ------
    InputError
        For counts below 1.
    """

    components: int = 10
    top: int = 16
    heavy: int = 50
    center: bool = True
    random_state: int = 0

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
