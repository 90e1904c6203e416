"""Training: writers of runs, workers that train them, and the tasks that they train."""

from __future__ import annotations

from dmstore.training.writer import RunWriter

__all__ = ["RunWriter"]
