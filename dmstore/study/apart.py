"""Runs of an algorithm that its plan does not have: masks of their own, in a table apart from its runs."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from dmstore.errors import InputError
from dmstore.schema.group_specs import group_spec
from dmstore.schema.typed_documents import AlgorithmDocument, AlgorithmOutput, StudyDocument
from dmstore.storage.objects.objects import Objects
from dmstore.storage.table.table import Table
from dmstore.study import changes, plan
from dmstore.study.algorithm import Algorithm
from dmstore.study.plan import Block, Part
from dmstore.study.stored_plan import StoredPlan


class ApartRuns(Algorithm):
    """Runs that no fit, comparison or count of runs sees, because all that is theirs stands below a prefix of their own.

    Subclasses say which masks they have.

    Parameters
    ----------
    objects : Objects
        The study's storage.
    study : dict
        The study's document.
    document : dict
        The algorithm's document.
    place : str
        Where they stand below the algorithm's prefix; ends in ``/``.
    label : str
        What they are called behind the algorithm's name.
    count : int
        How many there are to be; more may be stored.
    one_mask : bool
        Whether all have one mask; else each has its own.
    outputs : mapping, optional
        Outputs beside those of the algorithm.
    """

    def __init__(
        self,
        objects: Objects,
        study: StudyDocument,
        document: AlgorithmDocument,
        *,
        place: str,
        label: str,
        count: int,
        one_mask: bool,
        outputs: Mapping[str, AlgorithmOutput] | None = None,
    ) -> None:
        super().__init__(objects, study, document)
        if not 0 <= count <= plan.BRANCH:
            msg = f"{count} models of {document['name']}:{label}: give a number up to {plan.BRANCH}"
            raise InputError(msg)
        self.place, self.count, self.one_mask = place, count, one_mask
        self.planned = True
        self._own_prefix = self.prefix
        self.prefix = f"{self.prefix}{place}"
        # No name of an algorithm has a ':', so that no run shares a seed with these.
        self.name = f"{document['name']}:{label}"
        self._plan = StoredPlan(objects, self.prefix, self.name, planned=False)
        self.outputs = {**(outputs or {}), **self.outputs}
        self.table = Table(
            objects,
            f"{self.prefix}runs/",
            group_spec("runs", self.outputs),
            self.table.sizes,
            {**self.table.identity, "table": f"{place}runs"},
        )

    @property
    def blocks(self) -> list[Block]:
        """One block, of all runs that there may be."""
        return [Block(0, plan.BRANCH, 0, plan.BRANCH if self.one_mask else 1)]

    @property
    def planned_count(self) -> int:
        """Number of runs that there are to be."""
        return self.count

    @property
    def changes(self) -> changes.State:
        """What became of the algorithm."""
        self._changes = changes.read(self.objects, self._own_prefix, self._changes, self.uuid)
        return self._changes

    def wanted(self, part: Part | None = None) -> NDArray[np.int64]:
        """Runs that there are to be.

        Parameters
        ----------
        part : Part, optional
            Only this part of them.

        Returns
        -------
        (run,) int64

        Raises
        ------
        TypeError
            If the part is none.
        """
        return plan.planned_runs([Block(0, self.count, 0, max(1, self.count))], part)

    def of_part(self, run: NDArray[np.int64], part: Part) -> NDArray[np.int64]:
        """Those of some runs that are in a part; more may be stored than there are to be.

        Parameters
        ----------
        run : (run,) int64
        part : Part

        Returns
        -------
        (run,) int64

        Raises
        ------
        TypeError
            If they are no integers.
        """
        return np.asarray(run[run % part.count == part.index - 1])

    def shares_masks(self, other: Algorithm) -> bool:
        """Whether a mask id means the same mask: with runs of the same place alone.

        Parameters
        ----------
        other : Algorithm

        Returns
        -------
        bool

        Raises
        ------
        AttributeError
            If it is no algorithm.
        """
        return isinstance(other, ApartRuns) and (other.place, other.train) == (
            self.place,
            self.train,
        )
