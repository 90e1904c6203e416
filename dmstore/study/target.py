"""One target of a study: what its datamodels say."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import xarray as xr


class Target:
    """One target of a study; see :meth:`dmstore.study.study.Study.target`.

    Attributes
    ----------
    id : int or str
    """

    def __init__(
        self,
        id: int | str,
        weights: Callable[[], Mapping[str, NDArray[np.float32]]],
        train: NDArray[Any],
        label: NDArray[np.int64],
    ) -> None:
        self.id = id
        # Of each fitted algorithm (train,), read when they are asked for.
        self._weights = weights
        self._train = train
        self._label = label

    def top(self, count: int = 10, /) -> xr.Dataset:
        """Its most influential train units under each fitted algorithm.

        Parameters
        ----------
        count : int
            How many.

        Returns
        -------
        xarray.Dataset
            ``train`` (algorithm, rank): ids; ``weight`` and ``label`` beside them; by decreasing
            absolute weight; where the target has fewer with any, the id is -1 (or empty) and the weight NaN.

        Raises
        ------
        StudyNotFoundError
            If the study was deleted or moved.
        """
        import xarray as xr

        units, weights, labels = [], [], []
        row_weights = self._weights()
        for row in row_weights.values():
            order = np.argsort(-np.abs(row), kind="stable")[:count]
            ids = self._train[order]
            nothing = -1 if ids.dtype.kind in "iu" else ""
            units.append(np.where(row[order] != 0, ids, nothing))
            weights.append(np.where(row[order] != 0, row[order], np.nan))
            labels.append(self._label[order])
        shape = (len(row_weights), min(count, len(self._train)))
        dims = ("algorithm", "rank")
        return xr.Dataset(
            {
                "train_id": (dims, np.reshape(units, shape)),
                "weight": (dims, np.reshape(weights, shape)),
                "label": (dims, np.reshape(labels, shape)),
            },
            coords={
                "algorithm": list(row_weights),
                "target": self.id,
            },
        )
