"""Figures: functions from labelled data to matplotlib axes, in one style, whatever the user's settings.

Imports: analysis.comparison, analysis.evaluation and below; matplotlib inside functions.
To add a figure, a function in the module of its subject, its name here, and a case in ``tests/analysis/test_plot.py``.
"""

from dmstore.analysis.plot.checks import coherence as coherence
from dmstore.analysis.plot.checks import contrast as contrast
from dmstore.analysis.plot.checks import proposition as proposition
from dmstore.analysis.plot.claims import direction_intervals as direction_intervals
from dmstore.analysis.plot.claims import groups as groups
from dmstore.analysis.plot.claims import power as power
from dmstore.analysis.plot.claims import unlike_targets as unlike_targets
from dmstore.analysis.plot.comparison import directions as directions
from dmstore.analysis.plot.comparison import explained_variance as explained_variance
from dmstore.analysis.plot.comparison import similarity as similarity
from dmstore.analysis.plot.curves import explained_by_samples as explained_by_samples
from dmstore.analysis.plot.curves import learning_curve as learning_curve
from dmstore.analysis.plot.curves import sample_size as sample_size
from dmstore.analysis.plot.effects import effect as effect
from dmstore.analysis.plot.fits import holdout_curves as holdout_curves
from dmstore.analysis.plot.fits import holdout_r2 as holdout_r2
from dmstore.analysis.plot.fits import sparsity as sparsity
from dmstore.analysis.plot.matrix import similarity_histograms as similarity_histograms
from dmstore.analysis.plot.matrix import similarity_matrix as similarity_matrix
from dmstore.analysis.plot.panels import datamodel as datamodel
from dmstore.analysis.plot.panels import relative_influence as relative_influence
from dmstore.analysis.plot.panels import subpopulation as subpopulation
from dmstore.analysis.plot.panels import subpopulations as subpopulations
from dmstore.analysis.plot.sheet import contact_sheet as contact_sheet

__all__ = [
    "coherence",
    "contact_sheet",
    "contrast",
    "datamodel",
    "direction_intervals",
    "directions",
    "effect",
    "explained_by_samples",
    "explained_variance",
    "groups",
    "holdout_curves",
    "holdout_r2",
    "learning_curve",
    "power",
    "proposition",
    "relative_influence",
    "sample_size",
    "similarity",
    "similarity_histograms",
    "similarity_matrix",
    "sparsity",
    "subpopulation",
    "subpopulations",
    "unlike_targets",
]
