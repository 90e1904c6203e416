"""Counterfactual checks of algorithms (Definition 2), kept beside their comparison.

``checking`` transforms inputs and asks models that the task keeps; ``stored`` needs outputs alone, whoever computed them;
``confidence`` says what an output tells of a class; ``keeping`` writes and reads results. ``removing`` retrains without train units
that ``removed_units`` chooses.

Imports: analysis, training and below; it stands above both because it needs both.
To add an output that tells of a class, ``confidence.py``.
"""

from __future__ import annotations

from dmstore.counterfactual.checking import check, check_classes
from dmstore.counterfactual.removing import removal
from dmstore.counterfactual.stored import from_outputs

__all__ = ["check", "check_classes", "from_outputs", "removal"]
