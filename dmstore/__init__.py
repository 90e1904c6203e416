"""dmstore: a store, a fit and a comparison for datamodels.

Labs train thousands of models on random subsets of a training set and keep, for each, what it saw
(a mask) and what it says on every target (an output). dmstore keeps these runs, fits one lasso a
target over them (its *datamodel*), and shows where two learning algorithms use different features.

Heavy modules are imported when they are first used, so that ``import dmstore`` stays fast.
"""

from __future__ import annotations

import importlib
import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dmstore import analysis as analysis
    from dmstore import regression as regression
    from dmstore import sharing as sharing
    from dmstore import training as training
    from dmstore.errors import DmstoreError as DmstoreError
    from dmstore.study.creation import create_study as create_study
    from dmstore.study.study import Study as Study
    from dmstore.study.study import open_study as open_study

__version__ = "0.1.0"

__all__ = [
    "DmstoreError",
    "Study",
    "__version__",
    "analysis",
    "create_study",
    "open_study",
    "regression",
    "sharing",
    "training",
]

_LAZY = {
    "DmstoreError": "dmstore.errors",
    "Study": "dmstore.study.study",
    "create_study": "dmstore.study.creation",
    "open_study": "dmstore.study.study",
}
_LAZY_MODULES = ("analysis", "regression", "sharing", "training")

logging.getLogger(__name__).addHandler(logging.NullHandler())


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    if name in _LAZY_MODULES:
        return importlib.import_module(f"dmstore.{name}")
    msg = f"module 'dmstore' has no attribute {name!r}"
    raise AttributeError(msg)


def __dir__() -> list[str]:
    return sorted(__all__)
