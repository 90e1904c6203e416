"""Training that goes wrong: which run it was, and when it is not the run that is wrong."""

from __future__ import annotations

import errno
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from dmstore.errors import (
    CorruptionError,
    DmstoreError,
    InputError,
    MissingDependencyError,
    NotFoundError,
    StorageError,
    StudyNotFoundError,
)
from dmstore.study import failures
from dmstore.study.algorithm import Algorithm, Run

# So many runs in a row that fail, with none between that works, are no fault of these runs.
IN_A_ROW = 10
# What is no fault of a run: the next one would fail in the same way.
_OF_ALL = (
    MissingDependencyError,
    ImportError,
    StorageError,
    StudyNotFoundError,
    NotFoundError,
    CorruptionError,
)
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_CUDA = ("cuda error", "no cuda gpus", "no nvidia driver", "cuda driver", "not compiled with cuda")

Train = Callable[[Sequence[Run]], Mapping[str, Any]]
Store = Callable[[Sequence[Run], Mapping[str, Any]], None]


class Isolation:
    """Trains batches so that a run that fails stops no other one, and records it.

    A failure is recorded once another run has worked, or at the end (:meth:`settle`): until then it may
    be the task that is wrong, and then no run is to blame.

    Parameters
    ----------
    algorithm : Algorithm
    train : callable
        Trains runs: outputs and columns, the run as first axis.
    store : callable
        Takes them; InputError where they do not fit.
    forget : callable
        Called with runs that failed, whose checkpoints are of no use.
    failed_before : collection of int
        Runs that are tried once more.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        train: Train,
        store: Store,
        forget: Callable[[Sequence[Run]], None] = lambda runs: None,
        failed_before: Collection[int] = (),
    ) -> None:
        self._algorithm = algorithm
        self._train = train
        self._store = store
        self._forget = forget
        self._failed_before = failed_before
        self._suspects: dict[int, str] = {}
        self.failed = 0

    @property
    def suspected(self) -> bool:
        """Whether runs failed of which it is not clear yet that they are to blame."""
        return bool(self._suspects)

    def do(self, runs: Sequence[Run]) -> int:
        """Train and store a batch.

        Parameters
        ----------
        runs : sequence of Run

        Returns
        -------
        int
            Runs that were stored.

        Raises
        ------
        InputError
            If so many runs failed in a row that it is not theirs.
        StorageError
            If the storage refuses.
        """
        try:
            made = self._train(runs)
        except Exception as error:  # noqa: BLE001 - a task may raise anything, and then this run is recorded
            _raise_if_of_all(error)
            if len(runs) > 1:
                return sum(self.do([run]) for run in runs)
            return self._suspect(runs[0], error)
        return self._take(runs, made)

    def _take(self, runs: Sequence[Run], made: Any) -> int:
        if (refused := self._refused(runs, made)) is None:
            return len(runs)
        if len(runs) == 1:
            return self._suspect(runs[0], refused)
        rows: list[Mapping[str, Any]] = [{}] * len(runs)
        if isinstance(made, Mapping) and all(
            hasattr(value, "__len__") and len(value) == len(runs) for value in made.values()
        ):
            rows = [{k: v[row : row + 1] for k, v in made.items()} for row in range(len(runs))]
        # A row that is refused may have been spoilt by others of its batch: what the run says alone, counts.
        return sum(
            1 if row and self._refused([run], row) is None else self.do([run])
            for run, row in zip(runs, rows, strict=True)
        )

    def _refused(self, runs: Sequence[Run], made: Any) -> Exception | None:
        """Why what was trained cannot be stored; None once it is."""
        try:
            if not isinstance(made, Mapping):
                msg = f"the task returned {type(made).__name__}, expected a mapping of names to arrays with the run as first axis"
                raise InputError(msg)
            self._store(runs, made)
        except (InputError, TypeError, ValueError) as error:
            if isinstance(error, DmstoreError) and not isinstance(error, InputError):
                raise
            return error
        self.settle()
        return None

    def _suspect(self, run: Run, error: Exception) -> int:
        self._suspects[run.id] = failures.one_line(error)
        self._forget([run])
        if len(self._suspects) >= IN_A_ROW:
            ids = list(self._suspects)
            self._suspects.clear()
            again = all(run in self._failed_before for run in ids)
            what, stay = (
                ("that had failed before failed again in a row", "these runs stay failed")
                if again
                else ("in a row failed", "these runs stay as they were")
                if any(run in self._failed_before for run in ids)
                else ("in a row failed", "these runs stay pending")
            )
            msg = (
                f"algorithm {self._algorithm.name!r}: {len(ids)} runs {what} ({ids[0]} to {ids[-1]}), the last with: "
                f"{failures.one_line(error)}; that looks like a fault of the task or this host, so nothing more was tried and {stay}; mend it and run the same command again"
            )
            raise InputError(msg) from error
        return 0

    def settle(self) -> None:
        """Record the runs that failed since the last one that worked."""
        for run, error in self._suspects.items():
            failures.record(
                self._algorithm.objects, self._algorithm.prefix, self._algorithm.uuid, run, error
            )
        self.failed += len(self._suspects)
        self._suspects.clear()


def _raise_if_of_all(error: Exception) -> None:
    """Raise what would be the same for every run, as an error of ours."""
    if isinstance(error, DmstoreError):
        if isinstance(error, _OF_ALL):
            raise error
        return
    full = isinstance(error, OSError) and error.errno in _FULL
    said = failures.one_line(error)
    # A GPU that is not there, or whose context is broken, is so for every later run of this process.
    if full or isinstance(error, _OF_ALL) or any(word in said.lower() for word in _CUDA):
        msg = f"{said}; every run would fail here, so none was marked as failed; mend it and run the same command again"
        raise InputError(msg) from error
