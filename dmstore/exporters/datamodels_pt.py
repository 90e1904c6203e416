"""``datamodels.pt`` of MadryLab/datamodels: weight [train, target], bias and lam [target]."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmstore import provenance
from dmstore.core.progress import Count
from dmstore.exporters import torchfile
from dmstore.exporters.datamodels import Datamodels
from dmstore.exporters.stream import Stream, metered, whole

_FLOAT = np.dtype("<f4")
_RAW = (
    "output units per train unit seen; lam of (1/m) sum (w.mask + b - output)^2 + lam |w|_1 "
    "over raw masks"
)
_STANDARDISED = (
    "weight of (mask - mask_mean) / mask_std; lam of (1/2m) sum (w.z + b - output)^2 + lam |w|_1, "
    "by the mean of mask_std"
)


def write(
    path: Path, datamodels: Datamodels, *, standardised: bool, progress: Count | None = None
) -> None:
    """Write a file that ``torch.load(weights_only=True)`` reads.

    Parameters
    ----------
    path : path
        A new file.
    datamodels : Datamodels
    standardised : bool
        In the units of the incumbent's own files: masks less their mean, over their standard
        deviation, on the fitted runs. Mean and deviation, which its files lack, are added as
        ``mask_mean`` and ``mask_std`` (train,).
    """
    targets, train = datamodels.shape
    weight = _Raw(datamodels)
    further: list[Stream] = []
    lam = datamodels.values("lam")
    if standardised:
        mean = datamodels.frequency()
        std = np.sqrt(mean * (1 - mean))
        weight = _Standardised(datamodels, mean, std)
        lam = lam / (2 * std.mean())
        further = [whole("mask_mean", ("train",), mean), whole("mask_std", ("train",), std)]
    tensors = [
        Stream("weight", ("train", "target"), (train, targets), _FLOAT, weight.blocks),
        # Written after the weights, which the bias in other units depends on.
        Stream("bias", ("target",), (targets,), np.dtype("<f8"), lambda: iter([weight.bias])),
        whole("lam", ("target",), lam),
        *further,
    ]
    document = datamodels.document
    values = {
        "units": "standardised" if standardised else "raw",
        "convention": _STANDARDISED if standardised else _RAW,
        "about": {
            "software": provenance.software(),
            "study": document["study"],
            "algorithm": document["algorithm"],
            "fit": document["fit"],
            "output": document["output"],
            "content_id": document["content_id"],
        },
    }
    torchfile.write(path, metered(tensors, progress), values)


class _Raw:
    """Weights as stored."""

    def __init__(self, datamodels: Datamodels) -> None:
        self._datamodels = datamodels
        self.bias = datamodels.values("bias")

    def blocks(self) -> Iterator[NDArray[Any]]:
        """(train, target) float32, block by block."""
        for _, block in self._datamodels.unit_blocks():
            yield block


class _Standardised(_Raw):
    """Weights of masks with mean 0 and deviation 1: the same predictions."""

    def __init__(
        self, datamodels: Datamodels, mean: NDArray[np.float64], std: NDArray[np.float64]
    ) -> None:
        super().__init__(datamodels)
        self._mean, self._std = mean, std

    def blocks(self) -> Iterator[NDArray[Any]]:
        """See :meth:`_Raw.blocks`; ``bias`` is right once all are read."""
        for first, block in self._datamodels.unit_blocks():
            inside = slice(first, first + len(block))
            self.bias = self.bias + self._mean[inside] @ block.astype(np.float64)
            yield (block * self._std[inside, None]).astype(np.float32)
