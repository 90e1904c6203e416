"""Models trained without chosen train units, and those that they are compared with: as many units, drawn at random.

One form states both: which units no model sees (none of the controls), and how many of the others each sees. A control of a
removal of 50 units from 1,000 sees 950 drawn from all, which is all but 50 at random; one of a removal within masks of the
algorithm's own size sees as many as they do, so that stored runs are such controls.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dmstore import provenance
from dmstore.errors import FormatError, NotFoundError
from dmstore.schema.documents import dump_document, load_document
from dmstore.schema.typed_documents import AlgorithmDocument, RemovalDocument, StudyDocument
from dmstore.storage.objects.objects import Objects
from dmstore.study import plan
from dmstore.study.apart import ApartRuns
from dmstore.study.results import name_of

# Models without the units, and as many controls; the smallest number whose intervals are of use.
MODELS = 10


class RemovalRuns(ApartRuns):
    """Models of an algorithm that never see some train units.

    Parameters
    ----------
    objects : Objects
        The study's storage.
    study : dict
        The study's document.
    document : dict
        The algorithm's document.
    removal : dict
        ``units`` that no model sees, and how many others are ``seen`` by each.
    count : int
        How many models there are to be; more may be stored.
    """

    def __init__(
        self,
        objects: Objects,
        study: StudyDocument,
        document: AlgorithmDocument,
        removal: RemovalDocument,
        count: int = MODELS,
    ) -> None:
        self.removal, self.seen = removal["removal"], removal["seen"]
        self.units = np.array(removal["units"], dtype=np.int64)
        self._left = np.ones(study["train"]["count"], dtype=bool)
        self._left[self.units] = False
        super().__init__(
            objects,
            study,
            document,
            place=f"removals/{self.removal}/",
            label=f"removal:{self.removal}",
            count=count,
            one_mask=self.seen == np.count_nonzero(self._left),
        )
        # Not of the algorithm, so that two have the same masks.
        self._draws = plan.mask_key(self._seed, f":{self.removal}")

    def masks(self, mask_ids: Sequence[int] | NDArray[np.int64]) -> NDArray[np.bool_]:
        """Masks of the units that are left, so many of them drawn as each model sees.

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
        masks = np.repeat(self._left[None], len(mask_ids), axis=0)
        if not self.one_mask:
            left = int(np.count_nonzero(self._left))
            for row, mask_id in enumerate(mask_ids):
                masks[row, self._left] = plan.draw(self._draws, int(mask_id), left, self.seen)
        return masks


def stated(units: Sequence[int], seen: int, algorithm: str) -> RemovalDocument:
    """What a removal is, with the name that follows from it.

    Parameters
    ----------
    units : sequence of int
        Positions of train units, each once.
    seen : int
        Units that each model sees of the others.
    algorithm : str
        The algorithm's uuid.
    """
    ordered = sorted(int(unit) for unit in units)
    name = name_of({"seen": seen, "units": ordered})
    return {"removal": name, "algorithm": algorithm, "units": ordered, "seen": seen}


def add(objects: Objects, prefix: str, removal: RemovalDocument) -> None:
    """Keep what a removal is, so that whoever trains its models finds it by its name. The same again does nothing."""
    document: RemovalDocument = {
        **removal,
        "created": provenance.utc_now(),
        "software": provenance.version(),
    }
    objects.put_if_absent(_place(prefix, removal["removal"]), dump_document("removal", document))


def read(
    objects: Objects, prefix: str, name: str, algorithm: AlgorithmDocument, train: int
) -> RemovalDocument:
    """What a removal of an algorithm is.

    Parameters
    ----------
    objects : Objects
    prefix : str
        The algorithm's.
    name : str
    algorithm : dict
        Its document.
    train : int
        Train units of the study.

    Raises
    ------
    NotFoundError
        If it has none of this name.
    FormatError
        If the document is not one of this algorithm, or not what its name says.
    """
    where = _place(prefix, name)
    if name not in names(objects, prefix):
        known = ", ".join(names(objects, prefix)) or "none"
        msg = f"algorithm {algorithm['name']!r} has no removal {name!r} (it has: {known}); plan it with 'dmstore removal'"
        raise NotFoundError(msg)
    document = load_document("removal", objects.get(where), where)
    units, seen = document["units"], document["seen"]
    right = stated(units, seen, algorithm["uuid"])
    whole = len(set(units)) == len(units) and all(unit < train for unit in units)
    if not whole or seen > train - len(units) or name != right["removal"]:
        msg = f"{where}: is not the removal that its name says; restore it from a copy"
        raise FormatError(msg)
    if document["algorithm"] != algorithm["uuid"] or document["removal"] != name:
        msg = f"{where}: is a removal of another algorithm; remove it"
        raise FormatError(msg)
    return document


def names(objects: Objects, prefix: str) -> list[str]:
    """Names of the removals of an algorithm that are stated."""
    return [
        child
        for child in objects.children(f"{prefix}removals/")
        if not child.endswith(".zip") and objects.exists(_place(prefix, child))
    ]


def _place(prefix: str, name: str) -> str:
    return f"{prefix}removals/{name}/removal.json"
