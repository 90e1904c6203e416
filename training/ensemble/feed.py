"""Inputs of many models: gathered once a step from the tensor that all share, augmented as each model's own seed says."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from dmstore.training.augmentation import Augmentation, applied, drawn, flipped
from dmstore.training.ensemble.steps import Step
from dmstore.training.loaders.draws import epoch_seed, mirrors
from dmstore.training.loaders.tensors import TensorLoader


def feed(
    loader: TensorLoader,
    steps: Sequence[Step],
    augmentation: Augmentation,
    seeds: Sequence[int],
    number: int,
    kind: torch.dtype | None = None,
) -> Iterator[torch.Tensor]:
    """Inputs of each step of an epoch.

    Parameters
    ----------
    loader : TensorLoader
    steps : sequence of Step
    augmentation : Augmentation
    seeds : sequence of int
        Of each model's augmentation.
    number : int
        The epoch's.
    kind : torch.dtype, optional
        What products are computed in, which inputs are then given in unless augmentation computes with them.

    Yields
    ------
    (model, row, ...) float32 or `kind` tensor
        On the device. What ``loader.epoch`` gives each model alone. It holds until the next one is asked for.
    """
    if len(loader.shape) == 1:
        every = loader.features(kind or torch.float32)
        # The same memory for each step: new memory takes three times as long as gathering into it.
        room = every.new_empty(0)
        for step in steps:
            place = torch.from_numpy(step.position.reshape(-1)).to(every.device)
            room = room.resize_(len(place), every.shape[1])
            yield torch.index_select(every, 0, place, out=room).unflatten(0, step.position.shape)
        return
    generators = [torch.Generator().manual_seed(epoch_seed(seed, number)) for seed in seeds]
    own_mirrors = (mirrors(augmentation, seed, number, loader.count) for seed in seeds)
    mirrored = [which for which in own_mirrors if which is not None]
    for step in steps:
        models, rows = step.position.shape
        images = loader.seen(step.position.reshape(-1))
        if kind is not None and augmentation.crop != "resized":
            # What only moves values moves half of the bytes.
            images = images.to(kind)
        own = [
            drawn(int(count), loader.shape, augmentation, generators[model], rows)
            for model, count in zip(step.models, step.count, strict=True)
        ]
        images = applied(images, augmentation, [torch.cat(one) for one in zip(*own, strict=True)])
        if mirrored:
            which = [mirrored[m][row] for m, row in zip(step.models, step.position, strict=True)]
            images = flipped(images, torch.from_numpy(np.concatenate(which)))
        yield images.unflatten(0, (models, rows))
