"""One process of a peer: reads a problem from a folder, solves some targets, writes their weights.

``python benchmarks/peer.py NAME FOLDER FIRST STEP TOLERANCE``. It needs NumPy and the peer alone, so
that peers which want another NumPy than dmstore does can be run by an interpreter of their own.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Problem:
    """A lasso as peers take it: minimise w'Cw - 2 moment'w + lam |w|_1.

    Attributes
    ----------
    covariance : (train, train) float64
        C, divided by the number of runs.
    root : (train, train) float64
        A design of as many rows as columns with that covariance, in Fortran order.
    """

    covariance: Any
    root: Any

    def outputs(self, moment: Any) -> Any:
        """Outputs of the rows of `root` with that covariance with the columns."""
        rows = len(self.root)
        return np.linalg.solve(self.root.T, moment * rows)


def scikit_learn(problem: Problem, moment: Any, lams: Any, tolerance: float) -> Callable[[], Any]:
    from sklearn.linear_model import lasso_path

    rows = len(problem.root)
    y = problem.outputs(moment)
    gram = problem.covariance * rows
    return lambda: (
        lasso_path(
            problem.root,
            y,
            alphas=lams / 2,
            precompute=gram,
            Xy=moment * rows,
            copy_X=False,
            check_input=False,
            tol=tolerance,
            max_iter=1_000_000,
        )[1].T
    )


def skglm(problem: Problem, moment: Any, lams: Any, tolerance: float) -> Callable[[], Any]:
    from skglm.datafits import QuadraticHessian
    from skglm.penalties import L1
    from skglm.solvers import AndersonCD
    from skglm.utils.jit_compilation import compiled_clone

    fit, penalty = compiled_clone(QuadraticHessian()), compiled_clone(L1(1.0))
    covariance = np.asfortranarray(problem.covariance)

    def solve() -> Any:
        found = np.zeros((len(lams), len(moment)))
        weight, product = np.zeros(len(moment)), np.zeros(len(moment))
        for step, lam in enumerate(lams):
            penalty.alpha = lam / 2
            solver = AndersonCD(
                max_iter=1000,
                tol=tolerance * lam,
                p0=max(10, np.count_nonzero(weight)),
                fit_intercept=False,
                warm_start=True,
            )
            weight = solver.solve(
                covariance, -moment, fit, penalty, weight, product, run_checks=False
            )[0]
            found[step] = weight
            product = covariance @ weight
        return found

    return solve


def celer(problem: Problem, moment: Any, lams: Any, tolerance: float) -> Callable[[], Any]:
    from celer import celer_path

    y = problem.outputs(moment)
    return lambda: (
        celer_path(
            problem.root, y, "lasso", alphas=lams / 2, tol=tolerance, max_iter=1000, prune=1
        )[1].T
    )


def glmnet(problem: Problem, moment: Any, lams: Any, tolerance: float) -> Callable[[], Any]:
    from glmnet import ElasticNet

    y = problem.outputs(moment)
    model = ElasticNet(
        alpha=1,
        lambda_path=lams / 2,
        standardize=False,
        fit_intercept=False,
        tol=tolerance,
        n_splits=0,
        max_iter=1_000_000_000,
    )
    return lambda: model.fit(problem.root, y).coef_path_.T


def adelie(problem: Problem, moment: Any, lams: Any, tolerance: float) -> Callable[[], Any]:
    from adelie import matrix, solver

    covariance = matrix.dense(np.asfortranarray(problem.covariance), method="cov", n_threads=1)
    return lambda: solver.gaussian_cov(
        covariance,
        moment,
        lmda_path=lams / 2,
        tol=tolerance,
        early_exit=False,
        max_iters=100_000_000,
        progress_bar=False,
    ).betas.toarray()


def scm2cpp_learn(problem: Problem, moment: Any, lams: Any, tolerance: float) -> Callable[[], Any]:
    from scm2cpp_learn import CovLasso

    # Sweeps between checks: 20 by default, of which 15 are not needed here.
    model = CovLasso(gram=problem.covariance, corr=moment, nobs=1)
    return lambda: model.fit_path(lams / 2, tol=tolerance, chunk=5)


# Solves of a target unless they are long, seconds that are long, and seconds after which a process ends.
REPEATS, LONG, LIMIT = 3, 4.0, 200
# Name of the package and of its module.
PEERS = {
    "scikit-learn": ("sklearn", scikit_learn),
    "skglm": ("skglm", skglm),
    "celer": ("celer", celer),
    "python-glmnet": ("glmnet", glmnet),
    "adelie": ("adelie", adelie),
    "scm2cpp-learn": ("scm2cpp_learn", scm2cpp_learn),
}


def main(name: str, folder: str, first: int, step: int, tolerance: float) -> None:
    module, prepare = PEERS[name]
    try:
        importlib.import_module(module)
        version = importlib.metadata.version(name)
    except ImportError as error:
        print(json.dumps({"absent": str(error)}))
        return
    load = {n: np.load(Path(folder, f"{n}.npy")) for n in ("covariance", "root", "moment", "lam")}
    problem = Problem(load["covariance"], np.asfortranarray(load["root"]))
    targets = range(first, len(load["lam"]), step)
    # What is compiled at the first call is compiled now, and what all targets share is read.
    corner = np.asfortranarray(load["root"][:40, :40] * np.sqrt(40 / len(problem.root)))
    little = Problem(load["covariance"][:40, :40].copy(), corner)
    few = load["moment"][:40, first].copy()
    prepare(little, few, 2 * np.abs(few).max() * np.geomspace(1, 0.1, 5), tolerance)()
    print(json.dumps({"version": version}), flush=True)
    # Of the processor: a machine may be busy with other things.
    resource.setrlimit(resource.RLIMIT_CPU, (LIMIT, LIMIT))
    sys.stdin.readline()
    found, seconds = [], 0.0
    for target in targets:
        solve = prepare(problem, load["moment"][:, target].copy(), load["lam"][target], tolerance)
        spent: list[float] = []
        # Machines are noisy: the best of a few.
        while len(spent) < REPEATS and sum(spent) < LONG:
            start = time.process_time()
            weights = solve()
            spent.append(time.process_time() - start)
        found.append(weights)
        seconds += min(spent)
    np.save(Path(folder, f"weight-{first}.npy"), np.array(found))
    print(json.dumps({"seconds": seconds}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5]))
