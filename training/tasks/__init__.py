"""Tasks that come with dmstore."""

from __future__ import annotations

from dmstore.training.tasks.dense import dense

__all__ = ["dense"]
