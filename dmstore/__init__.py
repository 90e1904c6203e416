"""dmstore: a store, a fit and a comparison for datamodels.

Labs train thousands of models on random subsets of a training set and keep, for each, what it saw
(a mask) and what it says on every target (an output). dmstore keeps these runs, fits one lasso per
target over them (its *datamodel*), and shows where two learning algorithms use different features.

Public, and stable from one version to the next:

- ``create_study``, ``open_study`` and the :class:`Study` that they give, with what its methods return;
- ``ingest``, ``export``, ``compact``, ``verify`` and ``retract``, which act on a study;
- the names in ``__all__`` of the packages ``training``, ``regression``, ``analysis``, ``counterfactual`` and ``sharing``;
- ``errors``: every error that dmstore raises on purpose is a :class:`DmstoreError`;
- the command line, and the store format (``docs/reference/format.md``).

Everything else may change without notice. Throughout, options are given by keyword, algorithms by name,
sizes as ``"8GB"``; ``progress`` is called with what is done, steps done and steps in all. What is known of
a thing is a property, what takes an argument or does something is a method.

Heavy modules are imported when they are first used, so that ``import dmstore`` stays fast.
"""

from __future__ import annotations

import importlib
import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dmstore import analysis as analysis
    from dmstore import counterfactual as counterfactual
    from dmstore import errors as errors
    from dmstore import regression as regression
    from dmstore import sharing as sharing
    from dmstore import training as training
    from dmstore.errors import DmstoreError as DmstoreError
    from dmstore.exporters.export import export as export
    from dmstore.intake.ingest import ingest as ingest
    from dmstore.study.creation import create_study as create_study
    from dmstore.study.study import Study as Study
    from dmstore.study.study import open_study as open_study
    from dmstore.upkeep.maintenance import compact as compact
    from dmstore.upkeep.retraction import retract as retract
    from dmstore.upkeep.verification import verify as verify

__version__ = "0.1.0"

# Where public names are; packages stand for themselves.
_NAMES = {
    "DmstoreError": "errors",
    "Study": "study.study",
    "compact": "upkeep.maintenance",
    "create_study": "study.creation",
    "export": "exporters.export",
    "ingest": "intake.ingest",
    "open_study": "study.study",
    "retract": "upkeep.retraction",
    "verify": "upkeep.verification",
}
_PACKAGES = ("analysis", "counterfactual", "errors", "regression", "sharing", "training")

__all__ = [
    "DmstoreError",
    "Study",
    "__version__",
    "analysis",
    "compact",
    "counterfactual",
    "create_study",
    "errors",
    "export",
    "ingest",
    "open_study",
    "regression",
    "retract",
    "sharing",
    "training",
    "verify",
]

logging.getLogger(__name__).addHandler(logging.NullHandler())


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        return getattr(importlib.import_module(f"dmstore.{_NAMES[name]}"), name)
    if name in _PACKAGES:
        return importlib.import_module(f"dmstore.{name}")
    msg = f"module 'dmstore' has no attribute {name!r}"
    raise AttributeError(msg)


def __dir__() -> list[str]:
    return sorted(__all__)
