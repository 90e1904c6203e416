"""Models trained on all data: a table of what they say, apart from the runs and like theirs.

They verify differences of algorithms counterfactually.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dmstore.errors import InputError
from dmstore.schema.group_specs import known_outputs
from dmstore.schema.typed_documents import AlgorithmDocument, StudyDocument
from dmstore.storage.objects.objects import Objects
from dmstore.study import plan
from dmstore.study.apart import ApartRuns

# As many as the paper trains of each algorithm.
MODELS = 500


class FullModels(ApartRuns):
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
        if not 1 <= count <= plan.BRANCH:
            msg = f"{count} models trained on all data: give 1 or more"
            raise InputError(msg)
        super().__init__(
            objects,
            study,
            document,
            place=self.place,
            label="full",
            count=count,
            one_mask=True,
            outputs={"logit": known_outputs()["logit"]} if study.get("classes") else None,
        )

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


def is_there(objects: Objects, name: str) -> bool:
    """Whether anything is stored of what an algorithm's full models say."""
    return bool(objects.children(f"algorithms/{name}/full/runs/"))
