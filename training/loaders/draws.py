"""What is drawn for an epoch, from the seed of a run and the number of the epoch."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from dmstore.training.augmentation import Augmentation


def epoch_seed(seed: int, number: int) -> int:
    """Seed of one epoch's augmentation, 63 bits."""
    state = np.random.SeedSequence([seed, number]).generate_state(1, np.uint64)
    return int(state[0] >> np.uint64(1))


def example_seeds(seed: int, number: int, count: int) -> NDArray[np.uint64]:
    """A seed for each example of an epoch, in the order in which they are seen: (count,) of 63 bits."""
    raw = np.random.Philox(key=epoch_seed(seed, number)).random_raw(count)
    return np.asarray(raw, dtype=np.uint64) >> np.uint64(1)


def mirrors(
    augmentation: Augmentation, seed: int, number: int, count: int
) -> NDArray[np.bool_] | None:
    """Which train units are mirrored in an epoch, where that alternates: (count,) bool."""
    if augmentation.flip != "alternating":
        return None
    # Which way an image starts is drawn once for a run.
    start = torch.Generator().manual_seed(epoch_seed(seed, 0))
    first = torch.rand(count, generator=start) < 0.5
    return np.asarray(first.numpy() ^ bool(number % 2))
