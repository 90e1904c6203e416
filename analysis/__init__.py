"""Analysis: functions on labelled datasets, from datamodels to distinguishing subpopulations.

Every function takes and returns :class:`xarray.Dataset` or :class:`xarray.DataArray`, with options
by keyword, and writes its parameters into the attributes of what it returns.

Imports: regression, readers, study and below; never training.
To add a public function, its name here; rooms: geometry, evaluation, comparison, pages.
"""

from __future__ import annotations

from dmstore.analysis.comparison.compare import compare
from dmstore.analysis.comparison.effect import effect
from dmstore.analysis.comparison.modeldiff import modeldiff
from dmstore.analysis.evaluation.benchmark import benchmark
from dmstore.analysis.evaluation.evaluate import evaluate
from dmstore.analysis.evaluation.learning_curve import learning_curve
from dmstore.analysis.geometry.influence import relative_influence
from dmstore.analysis.geometry.normalize import normalize
from dmstore.analysis.geometry.pca import delta, explained_variance, pca
from dmstore.analysis.geometry.residual import residual
from dmstore.analysis.geometry.similarity import cosine
from dmstore.analysis.geometry.subpopulation import subpopulation
from dmstore.analysis.pages.report import report
from dmstore.analysis.pages.score_comparison import compare_scores

__all__ = [
    "benchmark",
    "compare",
    "compare_scores",
    "cosine",
    "delta",
    "effect",
    "evaluate",
    "explained_variance",
    "learning_curve",
    "modeldiff",
    "normalize",
    "pca",
    "relative_influence",
    "report",
    "residual",
    "subpopulation",
]
