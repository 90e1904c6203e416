"""Training: writers of runs, workers that train them, and the tasks that they train.

Imports: intake, study and below; never analysis.
To add a task, a module in ``tasks``; an output function, ``outputs.py``; a transformation of inputs, ``transformations.py``.
"""

from __future__ import annotations

from dmstore.training.outputs import log_odds, loss, margin, prediction, probability
from dmstore.training.writer import RunWriter

__all__ = ["RunWriter", "log_odds", "loss", "margin", "prediction", "probability"]
