"""Which units are in which batch, and the seeds of a run. Pure functions of the run's seed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dmstore.training.config import TrainingConfig


@dataclass(frozen=True)
class Seeds:
    """Seeds of one run, 63 bits each: of the initial weights, of the order of units, of augmentation."""

    init: int
    order: int
    augmentation: int

    @classmethod
    def of(cls, seed: int, config: TrainingConfig) -> Seeds:
        """Those that follow from a run's seed, or that the config holds for all runs."""
        drawn = np.random.SeedSequence(seed).generate_state(3, np.uint64) >> np.uint64(1)
        held = (config.init_seed, config.order_seed, config.augmentation_seed)
        init, order, augmentation = (
            int(own) if fixed < 0 else fixed for own, fixed in zip(drawn, held, strict=True)
        )
        return cls(init, order, augmentation)


def epoch_batches(
    seen: NDArray[np.int64], config: TrainingConfig, seed: int, epoch: int
) -> list[NDArray[np.int64]]:
    """Batches of one epoch, in a random order that follows from seed and epoch.

    Parameters
    ----------
    seen : (unit,) int64
        Positions of the train units that the run sees.
    config : TrainingConfig
        ``batch_size`` and ``batches``.
    seed, epoch : int

    Returns
    -------
    list of (unit,) int64
        At least one. With ``rounded``, the number of batches is rounded up with the probability that is its
        fractional part, and what is missing in the last is taken from the beginning again.
    """
    draw = np.random.Generator(np.random.Philox(key=np.array([seed, epoch], dtype=np.uint64)))
    order = seen[draw.permutation(len(seen))]
    size = min(config.batch_size, len(seen))
    whole, rest = divmod(len(seen), size)
    if config.batches == "rounded":
        whole += int(draw.random() < rest / size)
        order = np.resize(order, whole * size) if whole * size > len(seen) else order
        return [order[i * size : (i + 1) * size] for i in range(whole)]
    made = [order[i * size : (i + 1) * size] for i in range(whole)]
    # Batch norm cannot learn from one example.
    if config.batches == "all" and rest > 1:
        made.append(order[whole * size :])
    elif config.batches == "all" and rest == 1:
        made[-1] = order[(whole - 1) * size :]
    return made
