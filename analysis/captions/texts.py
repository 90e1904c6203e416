"""Words of the targets' own texts, where targets are texts: which of them separate a subpopulation."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dmstore.analysis.captions.ranking import Floats, Places
from dmstore.analysis.explaining.association import enrichment
from dmstore.errors import InputError

_TOKEN = re.compile(r"[^\W_]+(?:['\u2019-][^\W_]+)*")
_LONGEST = 40
# A word of fewer texts cannot be told from chance.
FEWEST_TEXTS = 5


def tokens(text: str) -> set[str]:
    """Words of a text, in lower case, each once.

    Parameters
    ----------
    text : str

    Returns
    -------
    set of str
        Of up to 40 characters.
    """
    return {one for one in _TOKEN.findall(text.lower()) if len(one) <= _LONGEST}


class Presence:
    """Which words are in which texts.

    Parameters
    ----------
    texts : sequence of str
        One a target.
    label : (target,) int64
        Classes, within which is tested.
    only : sequence of str, optional
        Words to look for; all of the texts' by default.

    Raises
    ------
    InputError
        If no word is in five texts at least and not in all.
    """

    def __init__(
        self, texts: Sequence[str], label: Places, only: Sequence[str] | None = None
    ) -> None:
        counts: Counter[str] = Counter()
        wanted = None if only is None else {one.lower() for one in only}
        for one in texts:
            counts.update(tokens(one) if wanted is None else tokens(one) & wanted)
        most = len(texts) - FEWEST_TEXTS
        self.words = sorted(w for w, n in counts.items() if FEWEST_TEXTS <= n <= most)
        if not self.words:
            which = "" if only is None else " of those given"
            msg = f"no word{which} is in {FEWEST_TEXTS} texts at least and missing in {FEWEST_TEXTS}; there is nothing to tell texts apart by"
            raise InputError(msg)
        place = {word: number for number, word in enumerate(self.words)}
        self._label = label
        self._rows: list[NDArray[np.int64]] = [
            np.array(sorted(place[w] for w in tokens(one) if w in place), dtype=np.int64)
            for one in texts
        ]

    def means(self, groups: Sequence[Places]) -> Floats:
        """Share of texts with each word; see :class:`~dmstore.analysis.captions.ranking.Scores`."""
        empty, count = [np.zeros(0, dtype=np.int64)], len(self.words)
        there = (np.concatenate(empty + [self._rows[row] for row in rows]) for rows in groups)
        return np.array(
            [
                np.bincount(one, minlength=count) / len(rows)
                for one, rows in zip(there, groups, strict=True)
            ]
        )

    def deviation(self) -> Floats:
        """Of presence over all texts."""
        share = self.means([np.arange(len(self._rows))])[0]
        return np.asarray(np.sqrt(share * (1 - share)), dtype=np.float64)

    def values(self, captions: Places, rows: Places) -> Floats:
        """1 where a word is in a text, 0 elsewhere: (target, word)."""
        return np.array([np.isin(captions, self._rows[row]) for row in rows], dtype=np.float64)

    def p(self, captions: Places, members: Places, contrast: Places) -> Floats:
        """Fisher's exact test within classes: Welch's is wrong for words that are rare, or in nearly all texts."""
        rows = np.concatenate([members, contrast])
        chosen = np.arange(len(rows)) < len(members)
        found = enrichment(self.values(captions, rows) > 0, chosen, self._label[rows])
        return np.where(np.isnan(found.p), 1.0, found.p)
