"""Ranking and testing captions: pure functions in NumPy, captions in blocks, never all captions by all images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from dmstore.analysis.captions.groups import Halves

Floats = NDArray[np.float64]
Places = NDArray[np.int64]
_BLOCK = 4096
# Ends whose means of all captions are held at once.
_TOGETHER = 16
_NORMAL = 1.959964


class Scores(Protocol):
    """How well each caption goes with each target, without a matrix of all of them."""

    def means(self, groups: Sequence[Places]) -> Floats:
        """Mean over each of some groups of targets, of every caption: (group, caption) float64."""

    def deviation(self) -> Floats:
        """Standard deviation over all targets, of every caption: (caption,) float64."""

    def values(self, captions: Places, rows: Places) -> Floats:
        """(target, caption) float64 of some."""

    def p(self, captions: Places, members: Places, contrast: Places) -> Floats:
        """One-sided probability of what is tested, by chance alone: (caption,) float64."""


class Cosines:
    """Cosines of captions with images, less their mean over the images of the class.

    Parameters
    ----------
    images : (target, dim) float32
        From :func:`centred`.
    captions : (caption, dim) float32
    """

    def __init__(self, images: NDArray[np.float32], captions: NDArray[np.float32]) -> None:
        self._images, self._captions = images, captions
        # Of unit captions, so that a block of captions by the square of dim is all that is held.
        spread = images.T @ images / max(1, len(images))
        self._deviation = np.zeros(len(captions))
        for start in range(0, len(captions), _BLOCK):
            block = captions[start : start + _BLOCK]
            square = np.einsum("ij,ij->i", block @ spread, block)
            self._deviation[start : start + _BLOCK] = np.sqrt(np.maximum(square, 0))

    def means(self, groups: Sequence[Places]) -> Floats:
        """See :class:`Scores`: cosines are linear in the images, so that of the mean is the mean."""
        middle = np.array([self._images[one].mean(axis=0, dtype=np.float64) for one in groups])
        return np.asarray(middle.astype(np.float32) @ self._captions.T, dtype=np.float64)

    def deviation(self) -> Floats:
        """See :class:`Scores`."""
        return self._deviation

    def values(self, captions: Places, rows: Places) -> Floats:
        """See :class:`Scores`."""
        return np.asarray(self._images[rows] @ self._captions[captions].T, dtype=np.float64)

    def p(self, captions: Places, members: Places, contrast: Places) -> Floats:
        """Welch's test of the means."""
        return welch(self.values(captions, members), self.values(captions, contrast))


def centred(
    images: NDArray[np.float32], label: Places, used: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Embeddings less the mean of their class, so that all that is compared is within classes.

    Parameters
    ----------
    images : (target, dim) float32
    label : (target,) int64
    used : (target,) bool
        Targets that the means are over.

    Returns
    -------
    (target, dim) float32
        0 for targets that are not used.
    """
    made = np.zeros_like(images)
    for value in np.unique(label[used]):
        here = used & (label == value)
        made[here] = images[here] - images[here].mean(axis=0, dtype=np.float64)
    return made


def welch(members: Floats, contrast: Floats) -> Floats:
    """Welch's test, one-sided: that the mean of the members is larger.

    Parameters
    ----------
    members, contrast : (example, column) float64

    Returns
    -------
    (column,) float64
        1 where nothing varies.
    """
    from scipy.stats import t

    n, m = len(members), len(contrast)
    one, two = members.var(axis=0, ddof=1) / n, contrast.var(axis=0, ddof=1) / m
    error = one + two
    with np.errstate(divide="ignore", invalid="ignore"):
        z = (members.mean(axis=0) - contrast.mean(axis=0)) / np.sqrt(error)
        freedom = error**2 / (one**2 / (n - 1) + two**2 / (m - 1))
    return np.where(error > 0, t.sf(z, freedom), 1.0)


def auroc(
    members: Floats, contrast: Floats, own: Places, theirs: Places
) -> tuple[Floats, Floats, Floats]:
    """How often one of the subpopulation lies above one of its class in the contrast, ties counted half.

    Parameters
    ----------
    members, contrast : (example, column) float64
    own, theirs : (example,) int64
        Their classes; each of the members' is in the contrast.

    Returns
    -------
    estimate, low, high : (column,) float64
        With a 95 % interval, from what each example adds (DeLong).
    """
    above, below = np.zeros(members.shape), np.zeros(contrast.shape)
    for value in np.unique(own):
        i, j = own == value, theirs == value
        pairs = members[i][:, None] - contrast[j][None]
        wins = (pairs > 0) + 0.5 * (pairs == 0)
        above[i], below[j] = wins.mean(axis=1), wins.mean(axis=0)
    estimate = above.mean(axis=0)
    error = np.sqrt(
        above.var(axis=0, ddof=1) / len(members) + below.var(axis=0, ddof=1) / len(contrast)
    )
    low, high = estimate - _NORMAL * error, estimate + _NORMAL * error
    return estimate, np.maximum(low, 0), np.minimum(high, 1)


@dataclass(frozen=True)
class Ranked:
    """Captions of one end of a direction.

    Attributes
    ----------
    caption : (rank,) int64
        Those that the first half proposes, best on the second half first.
    score, auroc, low, high, p : (rank,) float64
        On the second half alone: mean score of the subpopulation less that of the contrast, AUROC and its interval, and
        the p-value of the test.
    paper, paper_score : (rank,) int64 and float64
        The paper's ranking, by the mean score of all of the subpopulation less that of all of the contrast: nothing is held out.
    """

    caption: Places
    score: Floats
    auroc: Floats
    low: Floats
    high: Floats
    p: Floats
    paper: Places
    paper_score: Floats


def ranked(scores: Scores, splits: Sequence[Halves], label: Places, count: int) -> Iterator[Ranked]:
    """Propose captions on one half of each subpopulation, test them on the other.

    Parameters
    ----------
    scores : Scores
    splits : sequence of Halves
        With enough in either half.
    label : (target,) int64
        The classes that they were matched by.
    count : int
        Captions to propose.

    Yields
    ------
    Ranked
        One a split.
    """
    deviation = scores.deviation()
    for start in range(0, len(splits), _TOGETHER):
        some = splits[start : start + _TOGETHER]
        means = scores.means(
            [part for one in some for part in (one.members[0], one.contrast[0])]
            + [np.concatenate(part) for one in some for part in (one.members, one.contrast)]
        )
        first, whole = np.split(means[::2] - means[1::2], 2)
        for place, one in enumerate(some):
            with np.errstate(divide="ignore", invalid="ignore"):
                strength = np.where(deviation > 0, first[place] / deviation, -np.inf)
            proposed = _largest(strength, count)
            yield _tested(scores, one, label, proposed, whole[place], _largest(whole[place], count))


def _tested(
    scores: Scores, split: Halves, label: Places, chosen: Places, whole: Floats, paper: Places
) -> Ranked:
    """What the second half says of proposed captions."""
    held, theirs = split.members[1], split.contrast[1]
    a, b = scores.values(chosen, held), scores.values(chosen, theirs)
    area, low, high = auroc(a, b, label[held], label[theirs])
    p = scores.p(chosen, held, theirs)
    order = np.lexsort((p, -area))
    score = a.mean(axis=0) - b.mean(axis=0)
    score, area, low, high, p = (one[order] for one in (score, area, low, high, p))
    return Ranked(chosen[order], score, area, low, high, p, paper, whole[paper])


def _largest(values: Floats, count: int) -> Places:
    """Positions of the largest finite ones, largest first; of equal ones the first."""
    there = np.flatnonzero(np.isfinite(values))
    count = min(count, len(there))
    if not count:
        return there
    least = np.partition(values[there], len(there) - count)[len(there) - count]
    some = there[values[there] >= least]
    return np.asarray(some[np.argsort(-values[some], kind="stable")][:count], dtype=np.int64)
