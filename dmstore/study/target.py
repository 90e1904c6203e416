"""One target of a study: what its datamodels say."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import xarray as xr

    from dmstore.study.study import Study


class Target:
    """One target of a study."""

    def __init__(self, study: Study, position: int) -> None:
        self.study = study
        self.position = position

    def top(self, count: int = 10) -> xr.Dataset:
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
        """
        import xarray as xr

        names = [
            name
            for name in self.study.algorithms
            if any(f["complete"] for f in self.study.fits(name))
        ]
        units, weights, labels = [], [], []
        for name in names:
            row = self.study.datamodels(name)["weight"].isel(target=self.position).values
            order = np.argsort(-np.abs(row), kind="stable")[:count]
            ids = self.study.train["train"].values[order]
            nothing = -1 if ids.dtype.kind in "iu" else ""
            units.append(np.where(row[order] != 0, ids, nothing))
            weights.append(np.where(row[order] != 0, row[order], np.nan))
            labels.append(self.study.label("train")[order])
        shape = (len(names), min(count, self.study.document["train"]["count"]))
        dims = ("algorithm", "rank")
        return xr.Dataset(
            {
                "train_id": (dims, np.reshape(units, shape)),
                "weight": (dims, np.reshape(weights, shape)),
                "label": (dims, np.reshape(labels, shape)),
            },
            coords={
                "algorithm": names,
                "target": self.study.targets["target"].values[self.position],
            },
        )
