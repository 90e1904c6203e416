"""What an export of datamodels reads: a finished fit, and the runs that it stands on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmstore.errors import IncompleteError, NotFoundError
from dmstore.exporters.stream import Stream, whole
from dmstore.schema.typed_documents import FitDocument
from dmstore.storage.table import log
from dmstore.storage.table.view import BLOCK, View
from dmstore.study.algorithm import Algorithm
from dmstore.study.results import base_of
from dmstore.study.study import Study

# The chunks of `weight`: a part of a chunk costs as much to read as all of it.
_TARGETS, _UNITS = 256, 8192
_FLOAT = np.dtype("<f4")


@dataclass(frozen=True)
class Datamodels:
    """A finished fit.

    Attributes
    ----------
    document : dict
        ``fit.json``.
    dataset : xarray.Dataset
        Lazy; ``weight`` (target, train) float32, ``bias`` and ``lam`` (target,) float64.
    """

    algorithm: Algorithm
    document: FitDocument
    dataset: Any

    @classmethod
    def choose(
        cls, study: Study, algorithm: str, fit: str | None = None, output: str | None = None
    ) -> Datamodels:
        """The fit named, or the newest finished one (of an output, if one is named).

        Raises
        ------
        NotFoundError
            If there is none.
        """
        document = study.newest_fit(algorithm, fit)
        if output is not None:
            fits = [
                entry
                for entry in study.fits(algorithm)
                if entry["complete"] and entry["output"] == output and fit in (None, entry["fit"])
            ]
            if not fits:
                msg = f"algorithm {algorithm!r} has no finished fit {fit or ''} of output {output!r}; run 'dmstore fit'"
                raise NotFoundError(" ".join(msg.split()))
            document = fits[-1]
        dataset = study.datamodels(algorithm, document["fit"])
        return cls(study.algorithm(algorithm), document, dataset)

    @property
    def shape(self) -> tuple[int, int]:
        """Targets and train units."""
        targets, train = self.dataset["weight"].shape
        return targets, train

    def by_target(self) -> list[Stream]:
        """``weight`` (target, train), ``bias`` and ``lam``, as they are stored."""
        weight = Stream("weight", ("target", "train"), self.shape, _FLOAT, self._target_blocks)
        return [weight, *(whole(n, ("target",), self.values(n)) for n in ("bias", "lam"))]

    def values(self, name: str) -> NDArray[np.float64]:
        """``bias`` or ``lam``: (target,) float64."""
        return np.asarray(self.dataset[name].values, dtype=np.float64)

    def _target_blocks(self) -> Iterator[NDArray[Any]]:
        for start in range(0, self.shape[0], _TARGETS):
            yield self.dataset["weight"][start : start + _TARGETS].values

    def unit_blocks(self) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """The first train unit and ``weight`` (train, target), block by block."""
        targets, train = self.shape
        for first in range(0, train, _UNITS):
            block = np.empty((min(_UNITS, train - first), targets), dtype=np.float32)
            for start in range(0, targets, _TARGETS):
                part = self.dataset["weight"][start : start + _TARGETS, first : first + _UNITS]
                block[:, start : start + _TARGETS] = part.values.T
            yield first, block

    def frequency(self) -> NDArray[np.float64]:
        """The share of the fitted runs that saw each unit: (train,) float64."""
        view = self._runs()
        split = self.algorithm.split(view.read(["mask_id"])["mask_id"])
        seen = np.zeros(self.algorithm.train, dtype=np.int64)
        for start in range(0, len(view), BLOCK):
            mask = view.read(["mask"], start, start + BLOCK)["mask"]
            seen += mask[split[start : start + BLOCK] != "eval"].sum(axis=0)
        return seen / int((split != "eval").sum())

    def _runs(self) -> View:
        """The runs that the fit stands on: the present ones if they are the same, else its base."""
        table = self.algorithm.table
        view = table.view()
        if view.content_id() == self.document["content_id"]:
            return view
        base = base_of(self.document)
        try:
            return table.view_of(log.Manifest(self.document["version"], base=base))
        except FileNotFoundError:
            msg = (
                f"fit {self.document['fit']}: runs were added since and vacuum removed those it stands on, so "
                f"their masks' spread is unknown; fit again, or export raw units"
            )
            raise IncompleteError(msg) from None
