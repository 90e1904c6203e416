"""Networks of the training tasks, in torch. Made on the CPU from the current random state; a network takes (example, channel, height, width).

Imports: training.config and below. To add a network, a module here and its name in ``TrainingConfig.model`` and in ``make``.
"""

from __future__ import annotations

from dmstore.training.models.make import make, weights_file

__all__ = ["make", "weights_file"]
