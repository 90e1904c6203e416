"""Datamodels: one lasso per target over shared masks, certified.

Minimise (1/m) sum_i (w.mask_i + b - output_i)^2 + lam |w|_1 for each target (paper Eq. 5 with an
unpenalised intercept). All targets share one design, so the work is done in Gram space.

Imports: study and below.
To add a public name, a line in ``_LAZY``; rooms: kernels, problem, solvers, fitting.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dmstore.regression.fitting.array_fit import lasso_path as lasso_path
    from dmstore.regression.fitting.study_fit import fit as fit

__all__ = ["fit", "lasso_path"]

_LAZY = {
    "fit": "dmstore.regression.fitting.study_fit",
    "lasso_path": "dmstore.regression.fitting.array_fit",
}


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    msg = f"module 'dmstore.regression' has no attribute {name!r}"
    raise AttributeError(msg)
