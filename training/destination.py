"""Where a writer's rows go: runs of an algorithm, models that stand apart from these, or outputs on a later target set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmstore.core.tensors import to_numpy
from dmstore.errors import InputError
from dmstore.storage.acts import retract
from dmstore.storage.table.rows import Rows, pairs_of
from dmstore.storage.table.table import Table
from dmstore.study.algorithm import Algorithm, Run
from dmstore.study.full import MODELS
from dmstore.study.plan import Part
from dmstore.study.study import Study
from dmstore.study.target_outputs import TargetOutputs


class Destination:
    """A table of what models say, and the plan of the models.

    Parameters
    ----------
    algorithm : Algorithm
        Whose models they are: its runs, or those that stand apart, on all data or without some train units.
    outputs : TargetOutputs, optional
        The models are stored already, and what they say on this target set is added.
    """

    def __init__(self, algorithm: Algorithm, outputs: TargetOutputs | None = None) -> None:
        self.algorithm = algorithm
        self._outputs = outputs
        self._sink: Algorithm | TargetOutputs = outputs or algorithm

    @classmethod
    def of(
        cls,
        study: Study,
        name: str,
        *,
        target_set: str | None,
        full: bool | int,
        removal: str | None,
        models: int,
    ) -> Destination:
        """What a :class:`dmstore.training.RunWriter` is asked for, in its words.

        Raises
        ------
        InputError
            If what is asked for does not go together.
        NotFoundError
            If there is no such algorithm, target set or removal.
        """
        if removal is not None and (full or target_set):
            msg = f"removal {removal!r} goes with neither full nor target_set: its models are asked on the algorithm's own targets"
            raise InputError(msg)
        algorithm: Algorithm = study.algorithm(name)
        if full:
            algorithm = study.full_models(name, MODELS if full is True else full)
        if removal is not None:
            algorithm = study.removal_runs(name, removal, models)
        if not target_set:
            return cls(algorithm)
        return cls(algorithm, study.target_outputs(name, target_set, full=bool(full)))

    @property
    def name(self) -> str:
        """What it is called where progress is shown."""
        return self._sink.name

    @property
    def table(self) -> Table:
        """Where rows are appended."""
        return self._sink.table

    @property
    def has_masks(self) -> bool:
        """Whether rows bring their masks; outputs of stored models have them there."""
        return self._outputs is None

    def pending(self, part: Part | None) -> NDArray[np.int64]:
        """What is still to be made: (run,) int64."""
        return self._sink.pending(part)

    def total(self, part: Part | None, pending: int) -> int:
        """Of how many rows progress is told: those of the plan, or of outputs the pending ones."""
        return len(self.algorithm.wanted(part)) if self.has_masks else pending

    def describe(self, run_ids: NDArray[np.int64]) -> list[Run]:
        """What planned models are to see."""
        return self._sink.describe(run_ids)

    def masks(self, runs: Sequence[Run | int], mask: Any, where: str) -> NDArray[Any]:
        """The masks to store with runs, (run, train): the given ones, or the plan's.

        Raises
        ------
        InputError
            If there is no plan, and a run is a plain id without a mask.
        """
        if mask is not None:
            return np.array(to_numpy(mask, f"{where}: mask"))
        plain = [run for run in runs if not isinstance(run, Run)]
        if plain and not self.algorithm.planned:
            msg = f"run {plain[0]}: give its mask, the algorithm has foreign sampling"
            raise InputError(msg)
        planned = self.algorithm.describe(np.array(plain, dtype=np.int64)) if plain else []
        known = {run.id: run.mask for run in planned}
        return np.array([r.mask if isinstance(r, Run) else known[int(r)] for r in runs])

    def complete(self, rows: Rows, where: str, *, planned_masks: bool) -> Rows:
        """Check rows, and add what the plan or the stored model says of them; `planned_masks` need no check."""
        if isinstance(self._sink, Algorithm):
            return self._sink.complete(rows, where, planned_masks=planned_masks)
        return self._sink.complete(rows, where, made_now=True)

    def restore(self, rows: Rows) -> None:
        """Show rows that were retracted and have now been made again with the same content."""
        digest = rows.digest
        assert digest is not None
        made = set(pairs_of(rows.run, digest))
        if made & set(self.table.newest().retracted):
            retract.restore(self.table, lambda pairs: pairs & made, "made again")
