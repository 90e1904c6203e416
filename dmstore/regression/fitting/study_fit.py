"""Fit the datamodels of an algorithm from its stored runs: pinned, in blocks, resumable."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmstore.core.memory import available, parse
from dmstore.core.memory import peak as peak_memory
from dmstore.core.threads import blas_threads, cores
from dmstore.errors import InputError
from dmstore.regression.fitting import stages
from dmstore.regression.fitting.blocks import Blocks, join
from dmstore.regression.fitting.fit_document import begun, describe, load, pinned, view_of
from dmstore.regression.fitting.memory_plan import Need, Room, plan
from dmstore.regression.fitting.passes import Ahead
from dmstore.regression.fitting.run_groups import Runs
from dmstore.regression.fitting.stages import Stage
from dmstore.regression.problem.block_arrays import check_scale
from dmstore.regression.problem.design import Design, Moments, Words, unit_counts
from dmstore.regression.problem.own_runs import OwnGroups
from dmstore.regression.problem.thread_pool import Work
from dmstore.regression.solvers import registry, unpenalised
from dmstore.regression.solvers.lasso import Parameters
from dmstore.schema.documents import load_document
from dmstore.study.algorithm import Algorithm
from dmstore.study.study import Study

Progress = Callable[[str, int, int], None]


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

    document: dict[str, Any]
    summary: dict[str, Any]
    new: bool = True


def fit(
    study: Study,
    algorithm: str,
    *,
    output: str = "margin",
    parameters: Parameters | None = None,
    threads: int | None = None,
    memory: int | str | None = None,
    scratch: str | Path | None = None,
    cluster: str | None = None,
    progress: Progress | None = None,
) -> Fit:
    """Fit one lasso a target: minimise (1/m) sum_i (w . mask_i + b - output_i)^2 + lam |w|_1.

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
    parameters : Parameters, optional
        :class:`dmstore.regression.Parameters`: path, tolerance, halves, solver and so on.
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
    >>> study = dmstore.open_study("digits.dm")  # doctest: +SKIP
    >>> found = fit(study, "plain", parameters=Parameters(folds=5, halves=False))  # doctest: +SKIP
    >>> found.summary["worst_kkt"], study.datamodels("plain").weight  # doctest: +SKIP
    """
    parameters = parameters or Parameters()
    registry.load(parameters.solver)
    memory = None if memory is None else parse(memory)
    given, threads = threads, threads or cores()
    opened = study.algorithm(algorithm)
    if parameters.lam == 0:
        unpenalised.check_size(opened.train)
    _check_output(opened, output)
    # With a cluster it is the workers that must see it.
    if scratch is not None and not cluster and not Path(scratch).is_dir():
        msg = f"--scratch {scratch}: no such directory; make it first, on a fast disk"
        raise InputError(msg)
    started = time.monotonic()
    view = pinned(study, opened)
    runs = Runs(opened, view, parts=4 if parameters.halves else 1, folds=parameters.folds)
    stated = describe(study, opened, view, runs, output, parameters)
    where = f"datamodels/{algorithm}/{stated['fit']}/"
    new = not study.objects.exists(f"{where}complete.json")
    if new:
        with begun(study, where, stated) as document, blas_threads(threads):
            view = view_of(opened, document, where)
            # Its rows may stand in another order than those of the newest base.
            runs = Runs(opened, view, parts=4 if parameters.halves else 1, folds=parameters.folds)
            load(study, where, {**stated, "runs": runs.count})
            fitting = Fitting(
                opened,
                runs,
                study.target_train(opened.target_set),
                where,
                output,
                parameters,
                threads,
                memory or available(),
                scratch,
                progress,
            )
            resumed, peak = fitting.blocks().begun, 0
            if cluster:
                # Made of this module, and needed here alone.
                from dmstore.regression.fitting.cluster import fit_blocks

                peak = fit_blocks(cluster, fitting, document, threads=given, memory=memory)
            else:
                fitting.run()

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


@dataclass
class Fitting:
    """Blocks of targets on their way through the stages."""

    algorithm: Algorithm
    runs: Runs
    unit: NDArray[np.int64]
    where: str
    output: str
    parameters: Parameters
    threads: int
    memory: int
    scratch: str | Path | None
    progress: Progress | None

    def run(self) -> None:
        """Do all stages of all blocks that are not done."""
        steps, sizes, blocks = self.steps, self.sizes, self.blocks()
        if not blocks.todo(len(steps)):
            return
        words = self.runs.words(self.threads, self._report("read"))
        room = self.room(words)
        holdout = stages.check_designs(steps, words, sizes)
        work = Work(self.threads, memory=room.working)
        ahead = Ahead(blocks, stages.passes(steps, room.stages), self.tell)
        before: tuple[Stage, Design] | None = None
        for group, done, todo in ahead:
            designs = (
                stages.make_designs(
                    group,
                    words,
                    sizes,
                    room.allocate,
                    before,
                    threads=self.threads,
                    progress=self._report("count"),
                )
                if self.shared
                else []
            )
            # A pass that is over keeps nothing alive; its Gram may be that of this one's first design.
            before = None
            for number in todo:
                try:
                    self.block(blocks, number, steps, done, group, designs, holdout, words, work)
                except FileNotFoundError:
                    # Another process does the same fit, went further, and deleted what this one began with.
                    blocks.look()
                    if blocks.stages(number) < done:
                        raise
                ahead.fitted(group)
            # Its memory is taken by the first design of the next pass.
            before = (group[-1], designs[-1]) if len(designs) == 1 else None
            del designs

    @property
    def sizes(self) -> list[int]:
        """Runs of each group."""
        return [len(rows) for rows in self.runs.rows]

    @property
    def steps(self) -> list[Stage]:
        """All stages."""
        folds, sizes = self.parameters.folds, self.sizes
        parts = len(sizes) // (folds or 2)
        halves = parts == 4 and min(sum(sizes[q::4]) for q in range(4)) >= 2
        return stages.all_stages(parts, halves=halves, number_of_folds=folds)

    @property
    def shared(self) -> bool:
        """Whether any target is fitted on the runs that all such targets share."""
        return bool((self.unit < 0).any())

    def blocks(self) -> Blocks:
        """The blocks of targets, as far as they are stored."""
        targets = self.algorithm.table.sizes["target"]
        return Blocks(self.algorithm.objects, self.where, targets, len(self.steps))

    def block(
        self,
        blocks: Blocks,
        number: int,
        steps: Sequence[Stage],
        done: int,
        group: Sequence[Stage],
        designs: Sequence[Design],
        holdout: Mapping[tuple[int, ...], Design],
        words: Sequence[Words],
        work: Work,
    ) -> None:
        """Take one block through the stages of a pass, `done` with those before, and store it."""
        have, result = blocks.load(number)
        if have >= done:
            # Another process at the same fit went further since this pass began.
            return
        start, stop = blocks.bounds(number)
        values = self.runs.column(self.output, start, stop)
        # Of these runs alone: an outlier among eval runs would leave float32 sums no digits.
        used = np.zeros(len(values), dtype=bool)
        used[np.concatenate(self.runs.rows)] = True
        check_scale(values, used, f"{self.output} of {self.algorithm.name!r}", start)
        shift = values.mean(axis=0, dtype=np.float64, where=used[:, None])
        # Stages of this pass that were done with more memory are not done again.
        skip = max(0, have - (done - len(group)))

        unit = self.unit[start:stop]
        shared, own = np.flatnonzero(unit < 0), np.flatnonzero(unit >= 0)

        def moments(index: int) -> Moments:
            said = values if not len(own) else values[:, shared]
            return self.runs.moments(index, words[index], said, shift[shared], self.threads)

        parts = []
        if len(shared):
            before = result if not len(own) else stages.take(result, shared)
            found = stages.run(
                group[skip:],
                designs[skip:],
                holdout,
                moments,
                shift[shared],
                self.parameters,
                before,
                work,
            )
            parts.append((shared, found))
        if len(own):
            said = (self.runs.bits(index, values[:, own]) for index in range(len(words)))
            outputs, used_bits = zip(*said, strict=True)
            groups = OwnGroups.of(words, outputs, shift[own], unit[own], used_bits)
            before = stages.take(result, own)
            found = stages.run_own(group[skip:], groups, self.parameters, before, work)
            parts.append((own, found))
        blocks.store(number, done, parts[0][1] if len(parts) == 1 else stages.merge(parts))

    def room(self, words: Sequence[Words]) -> Room:
        """What the memory is for."""
        parameters, steps = self.parameters, self.steps
        need = Need(
            words=[group.nbytes for group in words],
            train=len(words[0]),
            runs=sum(map(len, self.runs.rows)),
            most=int(unit_counts(words).max(initial=0)),
            raw=np.dtype(self.algorithm.outputs[self.output]["dtype"]).itemsize,
            stages=len(steps),
            results=7 if any(step.name == "weight_half" for step in steps) else 1,
            folds=bool(parameters.folds),
            lam0=parameters.lam == 0,
            shared=self.shared,
            own=bool((self.unit >= 0).any()),
            whole=parameters.solver != "gram",
        )
        return plan(need, self.memory, self.threads, self.scratch)

    def tell(self, what: str, done: int, total: int) -> None:
        """Say how far something is."""
        if self.progress:
            self.progress(what, done, total)

    def _report(self, what: str) -> Callable[[int, int], None]:
        return lambda done, total: self.tell(what, done, total)
