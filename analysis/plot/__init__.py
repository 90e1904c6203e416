"""Figures: functions from labelled data to matplotlib axes, in one style, whatever the user's settings.

Imports: analysis.comparison, analysis.evaluation and below; matplotlib inside functions.
To add a figure, a function in the module of its subject, its name here, and a case in ``tests/analysis/test_plot.py``.
"""

from dmstore.analysis.plot.comparison import directions as directions
from dmstore.analysis.plot.comparison import similarity as similarity
from dmstore.analysis.plot.curves import explained_by_samples as explained_by_samples
from dmstore.analysis.plot.curves import learning_curve as learning_curve
from dmstore.analysis.plot.curves import sample_size as sample_size
from dmstore.analysis.plot.effects import effect as effect
from dmstore.analysis.plot.fits import holdout_curves as holdout_curves
from dmstore.analysis.plot.fits import holdout_r2 as holdout_r2
from dmstore.analysis.plot.fits import sparsity as sparsity
from dmstore.analysis.plot.sheet import contact_sheet as contact_sheet

__all__ = [
    "contact_sheet",
    "directions",
    "effect",
    "explained_by_samples",
    "holdout_curves",
    "holdout_r2",
    "learning_curve",
    "sample_size",
    "similarity",
    "sparsity",
]
