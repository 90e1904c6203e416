"""Analysis: functions on labelled datasets, from datamodels to distinguishing subpopulations.

Every function takes and returns :class:`xarray.Dataset` or :class:`xarray.DataArray`, with options
by keyword, and writes its parameters into the attributes of what it returns.

Imports: regression, readers, study and below; never training.
To add a public function, its name here; rooms: geometry, experiment, evaluation, comparison, explaining, captions, plot, pages.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dmstore.analysis import plot as plot
    from dmstore.analysis.captions.caption import caption as caption
    from dmstore.analysis.comparison.agreement import direction_likeness as direction_likeness
    from dmstore.analysis.comparison.agreement import modal_prediction as modal_prediction
    from dmstore.analysis.comparison.coherences import coherences as coherences
    from dmstore.analysis.comparison.compare import compare as compare
    from dmstore.analysis.comparison.contrast import contrast as contrast
    from dmstore.analysis.comparison.effect import effect as effect
    from dmstore.analysis.comparison.modeldiff import modeldiff as modeldiff
    from dmstore.analysis.comparison.proposition import proposition as proposition
    from dmstore.analysis.comparison.removal_effect import removal_effect as removal_effect
    from dmstore.analysis.comparison.similarities import cosines as cosines
    from dmstore.analysis.comparison.similarities import similarities as similarities
    from dmstore.analysis.evaluation.benchmark import benchmark as benchmark
    from dmstore.analysis.evaluation.evaluate import evaluate as evaluate
    from dmstore.analysis.evaluation.learning_curve import learning_curve as learning_curve
    from dmstore.analysis.explaining.explain import explain as explain
    from dmstore.analysis.geometry.coherence import coherence as coherence
    from dmstore.analysis.geometry.influence import influence_contrast as influence_contrast
    from dmstore.analysis.geometry.influence import relative_influence as relative_influence
    from dmstore.analysis.geometry.normalize import normalize as normalize
    from dmstore.analysis.geometry.pca import delta as delta
    from dmstore.analysis.geometry.pca import explained_variance as explained_variance
    from dmstore.analysis.geometry.pca import pca as pca
    from dmstore.analysis.geometry.residual import residual as residual
    from dmstore.analysis.geometry.sensitivity import reweighting as reweighting
    from dmstore.analysis.geometry.sensitivity import sensitivity as sensitivity
    from dmstore.analysis.geometry.similarity import cosine as cosine
    from dmstore.analysis.geometry.subpopulation import subpopulation as subpopulation
    from dmstore.analysis.geometry.within import within_classes as within_classes
    from dmstore.analysis.pages.report import report as report
    from dmstore.analysis.pages.score_comparison import compare_scores as compare_scores

_NAMES = {
    "benchmark": "evaluation.benchmark",
    "coherence": "geometry.coherence",
    "coherences": "comparison.coherences",
    "caption": "captions.caption",
    "compare": "comparison.compare",
    "compare_scores": "pages.score_comparison",
    "contrast": "comparison.contrast",
    "cosine": "geometry.similarity",
    "cosines": "comparison.similarities",
    "delta": "geometry.pca",
    "direction_likeness": "comparison.agreement",
    "effect": "comparison.effect",
    "evaluate": "evaluation.evaluate",
    "explain": "explaining.explain",
    "explained_variance": "geometry.pca",
    "influence_contrast": "geometry.influence",
    "learning_curve": "evaluation.learning_curve",
    "modal_prediction": "comparison.agreement",
    "modeldiff": "comparison.modeldiff",
    "normalize": "geometry.normalize",
    "pca": "geometry.pca",
    "proposition": "comparison.proposition",
    "relative_influence": "geometry.influence",
    "removal_effect": "comparison.removal_effect",
    "report": "pages.report",
    "residual": "geometry.residual",
    "reweighting": "geometry.sensitivity",
    "sensitivity": "geometry.sensitivity",
    "similarities": "comparison.similarities",
    "subpopulation": "geometry.subpopulation",
    "within_classes": "geometry.within",
}

__all__ = [
    "benchmark",
    "caption",
    "coherence",
    "coherences",
    "compare",
    "compare_scores",
    "contrast",
    "cosine",
    "cosines",
    "delta",
    "direction_likeness",
    "effect",
    "evaluate",
    "explain",
    "explained_variance",
    "influence_contrast",
    "learning_curve",
    "modal_prediction",
    "modeldiff",
    "normalize",
    "pca",
    "plot",
    "proposition",
    "relative_influence",
    "removal_effect",
    "report",
    "residual",
    "reweighting",
    "sensitivity",
    "similarities",
    "subpopulation",
    "within_classes",
]


def __getattr__(name: str) -> Any:
    if name == "plot":
        return importlib.import_module("dmstore.analysis.plot")
    if name in _NAMES:
        return getattr(importlib.import_module(f"dmstore.analysis.{_NAMES[name]}"), name)
    msg = f"module 'dmstore.analysis' has no attribute {name!r}"
    raise AttributeError(msg)


def __dir__() -> list[str]:
    return __all__
