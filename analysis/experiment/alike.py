"""How alike two algorithms are with noise taken out, and nothing else: one pass over blocks of targets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dmstore.analysis.experiment.arms import Halves
from dmstore.analysis.experiment.halves import Half
from dmstore.analysis.experiment.projections import sketch
from dmstore.analysis.experiment.similarity import Similarity, block_similarity

_BLOCK = 256
_SKETCH = 512


def pair_similarity(
    arms: tuple[Halves, Halves],
    fits: Sequence[Sequence[Any]],
    *,
    threads: int = 1,
    random_state: int = 0,
) -> Similarity:
    """Noise-free cosine similarity of two algorithms, as a comparison of the two measures it.

    Parameters
    ----------
    arms : pair of Halves
        Runs of either algorithm.
    fits : pair of pair of (target, train) csr_array
        Datamodels of either, fitted on half 0 and on half 1 of the masks.
    threads : int
    random_state : int
        Draws the sketch of train units, where there are many.

    Returns
    -------
    Similarity
        With one group, of all targets.
    """
    targets, train = fits[0][0].shape
    columns = sketch(train, _SKETCH, random_state)
    # Directions are what `Half` measures beside; one that is nothing costs next to nothing.
    nothing = np.zeros((1, train), dtype=np.float32)
    halves = [Half((arms[0][m], arms[1][m]), columns, nothing, threads) for m in (0, 1)]
    result = Similarity.empty(targets, 1, halves)
    for start in range(0, targets, _BLOCK):
        part = slice(start, min(start + _BLOCK, targets))
        for m, half in enumerate(halves):
            half.load(part, [one[1 - m][part] for one in fits])
        block_similarity(result, halves, part, np.ones((part.stop - start, 1), dtype=bool))
    return result.finish(halves)
