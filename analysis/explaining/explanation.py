"""One annotation on one direction, and what must be known of the examples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import xarray as xr

TARGETS, WITHIN, ONE_CLASS = "targets", "targets within classes", "targets of one class"
HEAVY, HEAVY_WITHIN = "heaviest train units", "heaviest train units within classes"


class Examples(Protocol):
    """What is known of the examples; a study is one, and so is :class:`dmstore.readers.labels.Labels`."""

    @property
    def train(self) -> xr.Dataset:
        """Dim ``train``; ``label`` and ``image`` where they are known."""

    @property
    def targets(self) -> xr.Dataset:
        """The same with dim ``target``."""

    @property
    def class_names(self) -> list[str]:
        """Names of the classes that labels count."""


@dataclass(frozen=True)
class Explanation:
    """One annotation, or a value of it, on one direction.

    Attributes
    ----------
    row, component : int
        Algorithm and direction, counted from 0.
    of : str
        ``targets``, ``targets within classes``, ``targets of one class``; ``heaviest train units``, and these within
        classes.
    annotation, value : str
        The value is empty where the annotation is a number.
    measure : str
        ``auroc``, ``spearman`` or ``share``.
    score : float
        AUROC and correlation of the projections of targets; of train units the share among the heaviest.
    expected : float
        What chance gives.
    p, q : float
    within : str
        The class, of ``targets of one class``.
    explained : float
        Share of the variance of the projections of the targets that are looked at; NaN of train units.
    """

    row: int
    component: int
    of: str
    annotation: str
    value: str
    measure: str
    score: float
    expected: float
    p: float
    q: float = float("nan")
    within: str = ""
    explained: float = float("nan")

    @property
    def strength(self) -> float:
        """From 0, what chance gives, to 1."""
        if self.measure == "auroc":
            return abs(2 * self.score - 1)
        if self.measure == "spearman":
            return abs(self.score)
        return max(0.0, self.score - self.expected)
