"""Fit the datamodels of an algorithm from its stored runs: pinned, in blocks, resumable."""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

from dmstore.core.given import threads_of
from dmstore.core.memory import available, check_scratch, parse
from dmstore.core.memory import peak as peak_memory
from dmstore.core.progress import Progress
from dmstore.core.threads import blas_threads
from dmstore.errors import InputError
from dmstore.regression.fitting.blocks import Blocks, join
from dmstore.regression.fitting.cluster import fit_blocks
from dmstore.regression.fitting.cluster_worker import Job
from dmstore.regression.fitting.engine import Fitting
from dmstore.regression.fitting.fit_document import begun, describe, load, pinned, view_of
from dmstore.regression.fitting.run_groups import Runs
from dmstore.regression.problem.parameters import FitOptions, Parameters
from dmstore.regression.solvers import registry, unpenalised
from dmstore.schema.documents import load_document
from dmstore.schema.typed_documents import FitDocument
from dmstore.study import results
from dmstore.study.algorithm import Algorithm
from dmstore.study.outside import outside_studies
from dmstore.study.study import Study, check_opened


@dataclass(frozen=True)
class Fit:
    """A finished fit.

    Attributes
    ----------
    document : dict
        ``fit.json``.
    summary : dict
        As ``dmstore fit --json`` prints it: ``targets``, how many are ``without_weights``, quartiles over
        all of ``nonzeros``, ``lam`` and ``holdout_r2``, ``worst_kkt`` (over lam), ``worst_gap`` (over the variance), targets of each
        ``status``, ``unconverged_targets``, ``seconds`` of the last call, whether it went on with what
        others had done (``resumed``), and ``peak_gb`` of its process, on a cluster of a worker.
    new : bool
        Whether it was not there before.
    """

    document: FitDocument
    summary: dict[str, Any]
    new: bool = True


def fit(
    study: Study,
    algorithm: str,
    *,
    output: str = "margin",
    threads: int | None = None,
    memory: int | str | None = None,
    scratch: str | Path | None = None,
    cluster: str | None = None,
    progress: Progress | None = None,
    **options: Unpack[FitOptions],
) -> Fit:
    """Fit one lasso per target: minimise ``(1/m) sum_i (w . mask_i + b - output_i)^2 + lam |w|_1``.

    A target that is a train unit itself (``target_train``) is fitted on the runs that did not see
    it, on a design of its own. The runs are compacted first, and the fit stands on that base. Blocks of targets land one by
    one; the same call after a kill goes on where it was, and returns at once when all is done.

    Parameters
    ----------
    study : Study
        That may be written to.
    algorithm : str
        The one whose stored runs are fitted.
    output : str
        The output to explain: one with a float a target.
    threads : int, optional
        All cores by default.
    memory : int or str, optional
        Bytes that the process may take, or a size such as ``8GB``; most of what is free by default. With less, stages follow
        one another, and Grams that have no room lie on scratch.
    scratch : path, optional
        Directory for these; that of the system for temporary files by default. With `cluster`: one
        that all workers see, where pairs are counted once for all of them.
    cluster : str, optional
        Address of a ``dask.distributed`` scheduler whose workers fit the blocks, or ``local:N`` for N
        processes here; `threads` and `memory` are then those of each worker, by default what it has.
    progress : callable, optional
        Called with what is done (``read``, ``count``, ``fit``, ``join``), steps done and steps in all.
    lams, lam_ratio : int, float
        Values of lam of each target (50), log-spaced from its lam_max down to this share of it (0.01).
    patience : int
        A target leaves the path after this many worse holdout errors (5); 0 never.
    tolerance : float
        Largest violation of the optimality conditions, relative to lam (1e-5).
    sweeps : int
        Coordinate-descent sweeps allowed at one lam (20,000).
    lam : float, optional
        One lam for all targets in the place of a path; 0 fits without a penalty, with the smallest weights.
    lam_grid : sequence of float
        The path of all targets, decreasing, in the place of one from each target's lam_max.
    folds : int
        Choose lam by so many folds of all runs but those for evaluation, repeats of a mask together; 0, the default, by the holdout runs.
    solver : str
        ``gram``, the default, or ``torch`` and ``fast_l1`` where they are installed.
    halves : bool
        Whether to fit both halves of the masks too, each by itself: what is found on one half is measured on the other (True).

    Returns
    -------
    Fit
        The arrays themselves are ``study.datamodels(algorithm)``.

    Raises
    ------
    InputError
        For fewer than 20 runs, no holdout runs, lam 0 with more than 10,000 train units, an output that
        cannot be fitted, less memory than a fit needs beside the Grams, or a cluster that cannot be used.
    IncompleteError
        If the cluster is lost under way; what is done is kept.
    NotFoundError
        If the algorithm does not exist.
    StorageError
        If there is no room on the scratch.
    CorruptionError
        If what is stored of the fit is not what its name says.
    MissingDependencyError
        If the solver's package or device is not there.

    References
    ----------
    ModelDiff, Section 2 and Eq. 5, with an intercept that is not penalised.

    Examples
    --------
    >>> import dmstore
    >>> study = dmstore.open_study("digits.dm")
    >>> fitted = fit(study, "plain", folds=5, halves=False)
    >>> fitted.summary["worst_kkt"] < 1e-4
    True
    >>> study.datamodels("plain").weight.dims
    ('target', 'train')
    """
    check_opened(study)
    parameters = Parameters(**options)
    registry.load(parameters.solver)
    memory = None if memory is None else parse(memory)
    given, threads = threads, threads_of(threads)
    opened = study.algorithm(algorithm)
    if parameters.lam == 0:
        unpenalised.check_size(opened.train)
    _check_output(opened, output)
    scratch = None if scratch is None else outside_studies(scratch)
    # With a cluster it is the workers that must see it.
    check_scratch(None if cluster else scratch)
    started = time.monotonic()
    view = pinned(study, opened)
    grouped = functools.partial(
        Runs, opened, output=output, parts=2 if parameters.halves else 1, folds=parameters.folds
    )
    runs = grouped(view)
    stated = describe(study, opened, view, runs, output, parameters)
    where = f"datamodels/{algorithm}/{stated['fit']}/"
    new = not results.is_complete(study.objects, where)
    if new:
        with begun(study, where, stated) as document, blas_threads(threads):
            view = view_of(opened, document, where)
            # Its rows may stand in another order than those of the newest base.
            runs = grouped(view)
            load(study, where, {**stated, "runs": runs.count})
            unit = study.target_train(opened.target_set)
            space = memory or available()
            fitting = Fitting(runs, unit, parameters, threads, space, scratch, progress)
            blocks = Blocks(study.objects, where, len(unit), len(fitting.stages))
            resumed, peak = blocks.begun, 0
            if cluster:
                job = Job.of(study, document, fitting, threads=given, memory=memory)
                peak = fit_blocks(cluster, fitting, blocks, job)
            else:
                fitting.run(blocks)

        def cost() -> dict[str, Any]:
            return {
                "seconds": round(time.monotonic() - started, 3),
                "peak_gb": round((peak or peak_memory()) / 1e9, 3),
                "resumed": resumed,
            }

        join(study.objects, where, opened.table.sizes["target"], cost, progress)
    document = load(study, where, stated)
    complete = load_document("complete", study.objects.get(f"{where}complete.json"), where)
    summary = {"fit": document["fit"], "algorithm": algorithm, **complete["summary"]}
    return Fit(document, summary, new)


def _check_output(algorithm: Algorithm, output: str) -> None:
    entry = algorithm.outputs.get(output)
    if (
        entry is None
        or list(entry["dims"]) != ["run", "target"]
        or not entry["dtype"].startswith("float")
    ):
        what = "cannot be fitted" if entry else "is not there"
        msg = f"output {output!r} of {algorithm.name!r} {what}; it declares {', '.join(algorithm.outputs)}, and a fit needs one float a target"
        raise InputError(msg)
