"""Models trained on all data: a table of what they say, apart from the runs and like theirs.

They verify differences of algorithms counterfactually. They are no runs: no fit, comparison or count of runs sees them,
because all that is theirs stands below ``algorithms/NAME/full/``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dmstore.errors import InputError
from dmstore.schema.group_specs import group_spec, known_outputs
from dmstore.schema.typed_documents import AlgorithmDocument, StudyDocument
from dmstore.storage.objects.objects import Objects
from dmstore.storage.table.table import Table
from dmstore.study import changes, plan
from dmstore.study.algorithm import Algorithm
from dmstore.study.plan import Block, Part
from dmstore.study.stored_plan import StoredPlan

# As many as the paper trains of each algorithm.
MODELS = 500


class FullModels(Algorithm):
    """The models of an algorithm that saw all train units: one mask of ones, with as many repeats as there are models.

    Its outputs are those of the algorithm, and ``logit`` where the study has classes, because the confidence in any class
    follows from it.

    Parameters
    ----------
    objects : Objects
        The study's storage.
    study : dict
        The study's document.
    document : dict
        The algorithm's document.
    count : int
        How many models there are to be; more may be stored.
    """

    place = "full/"

    def __init__(
        self,
        objects: Objects,
        study: StudyDocument,
        document: AlgorithmDocument,
        count: int = MODELS,
    ) -> None:
        super().__init__(objects, study, document)
        if not 1 <= count <= plan.BRANCH:
            msg = f"{count} models trained on all data: give 1 or more"
            raise InputError(msg)
        self.count = count
        self.planned = True
        self._own_prefix = self.prefix
        self.prefix = f"{self.prefix}{self.place}"
        # No name of an algorithm has a ':', so that no run shares a seed with these.
        self.name = f"{document['name']}:full"
        self._plan = StoredPlan(objects, self.prefix, self.name, planned=False)
        if study.get("classes"):
            self.outputs = {"logit": known_outputs()["logit"], **self.outputs}
        self.table = Table(
            objects,
            f"{self.prefix}runs/",
            group_spec("runs", self.outputs),
            self.table.sizes,
            {**self.table.identity, "table": "full/runs"},
        )

    @property
    def blocks(self) -> list[Block]:
        """One block, of all models that there may be: they share a mask."""
        return [Block(0, plan.BRANCH, 0, plan.BRANCH)]

    @property
    def planned_count(self) -> int:
        """Number of models that there are to be."""
        return self.count

    @property
    def changes(self) -> changes.State:
        """What became of the algorithm."""
        self._changes = changes.read(self.objects, self._own_prefix, self._changes, self.uuid)
        return self._changes

    def masks(self, mask_ids: Sequence[int] | NDArray[np.int64]) -> NDArray[np.bool_]:
        """Masks of ones.

        Parameters
        ----------
        mask_ids : (mask,) int64

        Returns
        -------
        (mask, train) bool

        Raises
        ------
        TypeError
            If they are no sequence.
        """
        return np.ones((len(mask_ids), self.train), dtype=bool)

    def wanted(self, part: Part | None = None) -> NDArray[np.int64]:
        """Models that there are to be.

        Parameters
        ----------
        part : Part, optional
            Only this part of them.

        Returns
        -------
        (model,) int64

        Raises
        ------
        TypeError
            If the part is none.
        """
        return plan.planned_runs([Block(0, self.count, 0, self.count)], part)

    def of_part(self, run: NDArray[np.int64], part: Part) -> NDArray[np.int64]:
        """Those of some models that are in a part; more may be stored than there are to be.

        Parameters
        ----------
        run : (model,) int64
        part : Part

        Returns
        -------
        (model,) int64

        Raises
        ------
        TypeError
            If they are no integers.
        """
        return np.asarray(run[run % part.count == part.index - 1])

    def shares_masks(self, other: Algorithm) -> bool:
        """Whether a mask id means the same mask: with other full models alone.

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
        return isinstance(other, FullModels) and other.train == self.train


def is_there(objects: Objects, name: str) -> bool:
    """Whether anything is stored of what an algorithm's full models say."""
    return bool(objects.children(f"algorithms/{name}/full/runs/"))
