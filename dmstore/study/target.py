"""One target of a study: what its datamodels say."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dmstore.errors import InputError, NotFoundError

if TYPE_CHECKING:
    import xarray as xr


class Examples(Protocol):
    """What a target is shown with; a study is one."""

    @property
    def train(self) -> xr.Dataset:
        """The train units."""

    @property
    def targets(self) -> xr.Dataset:
        """The targets."""

    @property
    def class_names(self) -> list[str]:
        """Names of the classes."""


def find(targets: xr.Dataset, target: int | str) -> tuple[int | str, int]:
    """A target by its id; by its place, from 0, where ids are texts and a number is given.

    Parameters
    ----------
    targets : xarray.Dataset
        All targets, with their ids along ``target``.
    target : int or str

    Returns
    -------
    id : int or str
    position : int

    Raises
    ------
    NotFoundError
        If there is no such target.
    """
    index = targets.indexes["target"]
    texts = index.dtype.kind not in "iu"
    number = isinstance(target, int | np.integer) and not isinstance(target, bool)
    if texts and number and 0 <= int(target) < len(index):
        position = int(target)
    elif texts and number:
        msg = (
            f"no target at place {target}: this study has {len(index)}, from 0 to {len(index) - 1}"
        )
        raise NotFoundError(msg)
    elif isinstance(target, str | int | np.integer) and target in index:
        position = int(index.get_loc(target))
    else:
        first = ", ".join(f"{name!r}" for name in index[:3].tolist())
        msg = f"target {target!r:.80} is not in this study; its {len(index)} targets have ids such as {first}"
        raise NotFoundError(msg)
    name = index[position]
    return str(name) if texts else int(name), position


class Target:
    """One target of a study; see :meth:`dmstore.study.study.Study.target`.

    Attributes
    ----------
    id : int or str
    position : int
        Its place among the targets.
    """

    def __init__(
        self,
        id: int | str,
        position: int,
        examples: Examples,
        weights: Callable[[], Mapping[str, NDArray[np.float32]]],
        train: NDArray[Any],
        label: NDArray[np.int64],
    ) -> None:
        self.id = id
        self.position = position
        self._examples = examples
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

    def show(self, count: int = 8, /) -> Any:
        """The target beside its most influential train units under each fitted algorithm: images, or texts where there are none.

        Parameters
        ----------
        count : int
            How many of each algorithm.

        Returns
        -------
        Picture
            A notebook shows it; ``axes`` are matplotlib's, ``save("17.png")`` writes a file.

        Raises
        ------
        InputError
            If the count is not positive.
        NotFoundError
            If no algorithm is fitted on its target set.
        StudyNotFoundError
            If the study was deleted or moved.
        MissingDependencyError
            Without the extra ``analysis``.
        """
        import xarray as xr

        if not (isinstance(count, int | np.integer) and count >= 1):
            msg = f"show({count!r:.40}): give a number of train units, 1 or more"
            raise InputError(msg)
        weights = self._weights()
        if not weights:
            msg = f"target {self.id!r} has no datamodel: no algorithm of the study is fitted; run 'dmstore fit' first"
            raise NotFoundError(msg)
        weight = xr.DataArray(
            np.stack(list(weights.values())),
            dims=("algorithm", "train"),
            coords={"algorithm": list(weights)},
        )
        # By its name: what draws stands above what is drawn.
        picture = importlib.import_module("dmstore.analysis.plot.picture")
        return picture.of_target(weight, self._examples, self.position, int(count))
