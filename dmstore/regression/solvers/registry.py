"""The solvers of a fit, by name; each is imported when it is used."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray

from dmstore.errors import MissingDependencyError
from dmstore.regression.problem.solver_names import MODULES, check

# A solver is called as ``path.fit_block``: designs, outputs, parameters, *, threads, cancelled; it
# gives the arrays of the ``datamodels`` schema but for ``target``, certified by ``gradient.certify``.
Solver = Callable[..., dict[str, NDArray[Any]]]


def load(name: str) -> Solver:
    """The solver of a name.

    Parameters
    ----------
    name : str
        ``gram`` (compiled, on the CPU), ``torch`` (all targets of a block at once, on the CPU or a
        GPU) or ``fast_l1`` (MadryLab's package, on a GPU).

    Returns
    -------
    callable

    Raises
    ------
    InputError
        If there is no such solver.
    MissingDependencyError
        If its package or its device is not there.
    """
    check(name)
    try:
        module = importlib.import_module(MODULES[name])
    except MissingDependencyError:
        raise
    except ImportError as error:
        msg = f"solver {name!r} needs torch ({error}); pip install 'dmstore[torch]'"
        raise MissingDependencyError(msg) from error
    if hasattr(module, "require"):
        module.require()
    solver: Solver = module.fit_block
    return solver
