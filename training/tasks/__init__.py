"""Tasks that come with dmstore."""

from __future__ import annotations

from dmstore.training.tasks.dense import dense
from dmstore.training.tasks.recipe import recipe

__all__ = ["dense", "recipe"]
