"""Names of the solvers, and the modules that they are in; each is imported when it is used."""

from __future__ import annotations

from dmstore.errors import InputError

MODULES = {
    "gram": "dmstore.regression.solvers.lasso",
    "torch": "dmstore.regression.solvers.torch_solver",
    "fast_l1": "dmstore.regression.solvers.fast_l1_solver",
}


def check(name: str) -> None:
    """Refuse a name that is no solver's.

    Raises
    ------
    InputError
    """
    if name not in MODULES:
        msg = f"solver {name!r}: there are {', '.join(MODULES)}"
        raise InputError(msg)
