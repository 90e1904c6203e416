"""What a worker of a cluster does for a fit: tasks that may be done again, anywhere.

A worker process does one task at a time with all its threads, and keeps the masks and the designs
of the pass at hand from one task to the next.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmstore import provenance
from dmstore.core.memory import available, peak
from dmstore.core.threads import blas_threads
from dmstore.errors import DmstoreError, InputError
from dmstore.regression.fitting.blocks import Blocks
from dmstore.regression.fitting.engine import Designs, Fitting, PassFit
from dmstore.regression.fitting.fit_document import view_of
from dmstore.regression.fitting.gram_tiles import GramTiles
from dmstore.regression.fitting.memory_plan import on_scratch
from dmstore.regression.fitting.passes import Pass
from dmstore.regression.fitting.run_groups import Runs
from dmstore.regression.fitting.stages import by_groups
from dmstore.regression.problem.design import Design, gram_dtype, unit_counts
from dmstore.regression.problem.parameters import Parameters
from dmstore.schema.documents import load_document
from dmstore.schema.typed_documents import FitDocument
from dmstore.storage.objects.local import LocalObjects
from dmstore.study.study import Study, open_study

# Share of a worker's limit that a fit takes: at .8 dask lets it do no further task.
_SHARE = 0.7


@dataclass(frozen=True)
class Job:
    """A fit, as a worker needs to know it.

    Attributes
    ----------
    version : str
        Of dmstore, where the fit was begun.
    path : str
        Absolute path, or URL.
    document : dict
        ``fit.json``.
    parts : int
        Parts of the masks that runs are grouped by.
    parameters : Parameters
    threads, memory : int, optional
        At most so many; what the worker has by default.
    """

    version: str
    path: str
    document: FitDocument
    parts: int
    parameters: Parameters
    threads: int | None
    memory: int | None

    @classmethod
    def of(
        cls,
        study: Study,
        document: FitDocument,
        fitting: Fitting,
        *,
        threads: int | None,
        memory: int | None,
    ) -> Job:
        """The job of a fit that was begun here."""
        objects, parameters = study.objects, fitting.parameters
        return cls(
            version=provenance.version(),
            path=str(objects.root) if isinstance(objects, LocalObjects) else objects.url,
            document=document,
            parts=len(fitting.runs.sizes) // (parameters.folds or 2),
            parameters=parameters,
            threads=threads,
            memory=memory,
        )


def look(job: Job) -> tuple[int, int, str]:
    """How many stages this worker can hold Grams of, and the side and dtype of a Gram."""
    with _working(job) as ready:
        return ready.ground.room.stages, len(ready.ground.words[0]), ready.dtype


def count(job: Job, tiles: GramTiles, one: Pass, first: int, last: int) -> None:
    """Count one tile of the Grams of a pass."""
    with _working(job) as ready:
        tiles.count(one.stages, ready.ground.words, first, last, threads=ready.fitting.threads)


def fit_block(job: Job, tiles: GramTiles | None, one: Pass, number: int, have: int) -> int:
    """Take a block through the stages of a pass, and store it.

    Parameters
    ----------
    job : Job
    tiles : GramTiles, optional
        Where the Grams are counted; else they are counted here.
    one : Pass
    number : int
        Of the block.
    have : int
        Stages that the block has been through.

    Returns
    -------
    int
        Bytes that this worker has had at most.
    """
    with _working(job) as ready:
        blocks = ready.blocks()
        blocks.note(number, have)
        if not blocks.there(number, one.end):
            designs = ready.designs(one, tiles)
            PassFit(ready.fitting, ready.ground, one, designs).block(blocks, number)
        return peak()


def forget() -> None:
    """Free what this worker keeps, unless it is at work."""
    global _kept
    if _LOCK.acquire(blocking=False):
        _kept = None
        _LOCK.release()


class _Ready:
    """What a worker process keeps between tasks."""

    def __init__(self, job: Job, worker: Any) -> None:
        self.job = job
        if job.version != provenance.version():
            msg = f"worker {worker.address} has dmstore {provenance.version()}, the fit was begun by {job.version}; install the same version for all"
            raise InputError(msg)
        document = job.document
        where = f"datamodels/{document['algorithm']}/{document['fit']}/"
        study, algorithm = self._algorithm(job, where, worker.address)
        threads = min(worker.state.nthreads, job.threads or worker.state.nthreads)
        limit = worker.memory_manager.memory_limit
        memory = job.memory or available()
        memory = min(memory, int(_SHARE * limit)) if limit else memory
        runs = Runs(
            algorithm,
            view_of(algorithm, document, where),
            document["output"],
            parts=job.parts,
            folds=job.parameters.folds,
        )
        unit = study.target_train(algorithm.target_set)
        self.fitting = Fitting(runs, unit, job.parameters, threads, memory)
        self.ground = self.fitting.ground()
        self.dtype = np.dtype(gram_dtype(int(unit_counts(self.ground.words).max(initial=0)))).name
        self._place = study.objects, where
        self._pass: tuple[Pass, GramTiles | None] | None = None
        self._made: list[Design] = []
        self._designs: Designs = {}

    def blocks(self) -> Blocks:
        """The blocks of targets, as far as they are stored now."""
        return Blocks(*self._place, len(self.fitting.unit), len(self.fitting.stages))

    @staticmethod
    def _algorithm(job: Job, where: str, address: str) -> Any:
        reason = "it sees another study there"
        try:
            study = open_study(job.path)
            raw = study.objects.get(f"{where}fit.json")
            if load_document("fit", raw, where) == job.document:
                return study, study.algorithm(job.document["algorithm"])
        except (DmstoreError, FileNotFoundError) as error:
            reason = str(error)
        msg = f"worker {address} does not see the study at {job.path} ({reason}); keep it where all workers see it under the same path"
        raise InputError(msg)

    def designs(self, one: Pass, tiles: GramTiles | None) -> Designs:
        """The designs of a pass, those that choose lam among them."""
        if self._pass == (one, tiles):
            return self._designs
        before = None
        # Grams that are mapped are those of all workers: only what this one counted is its own.
        if self._pass and len(self._made) == 1 and self._pass[1] is None and tiles is None:
            before = self._pass[0].stages[-1], self._made[0]
        self._pass, self._made, self._designs = None, [], {}
        if tiles is not None:
            self._made = tiles.designs(one.stages, self.fitting.runs.sizes)
        else:
            allocate = self._allocator(len(one.stages))
            self._made = self.fitting.designs(one, self.ground, allocate, before)
        self._designs = by_groups(one.stages, self._made, self.ground.checks)
        self._pass = one, tiles
        return self._designs

    def _allocator(self, grams: int) -> Callable[[int, Any], NDArray[Any]]:
        # Passes are made for the worker that was looked at first; another may have less memory.
        room = self.ground.room
        return room.allocate if grams <= room.stages else partial(on_scratch, None)


_LOCK = threading.Lock()
_kept: _Ready | None = None


@contextmanager
def _working(job: Job) -> Iterator[_Ready]:
    """What is kept for a job, by one task at a time."""
    from distributed import get_worker

    global _kept
    worker = get_worker()
    with _LOCK:
        if _kept is None or _kept.job != job:
            # Two fits have no room beside one another.
            _kept = None
            _kept = _Ready(job, worker)
        with blas_threads(_kept.fitting.threads):
            yield _kept
        if worker.status.name == "paused":
            # It is at its limit, and takes the next task only once it is below.
            _kept = None
