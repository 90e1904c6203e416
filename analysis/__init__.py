"""Analysis: functions on labelled datasets, from datamodels to distinguishing subpopulations.

Every function takes and returns :class:`xarray.Dataset` or :class:`xarray.DataArray`, with options
by keyword, and writes its parameters into the attributes of what it returns.
"""

from __future__ import annotations

from dmstore.analysis.benchmark import benchmark
from dmstore.analysis.compare import compare
from dmstore.analysis.curve import learning_curve
from dmstore.analysis.effect import effect
from dmstore.analysis.evaluate import evaluate
from dmstore.analysis.influence import relative_influence
from dmstore.analysis.modeldiff import modeldiff
from dmstore.analysis.normalize import normalize
from dmstore.analysis.pca import delta, explained_variance, pca
from dmstore.analysis.report import report
from dmstore.analysis.residual import residual
from dmstore.analysis.scores import compare_scores
from dmstore.analysis.similarity import cosine
from dmstore.analysis.subpopulation import subpopulation

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
