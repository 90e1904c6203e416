"""torchvision's way: worker processes decode and augment one image after the other.

Each example of each epoch has a seed of its own, so that a run is the same however many workers there are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from dmstore.core.threads import cores
from dmstore.errors import MissingDependencyError
from dmstore.training.augmentation import Augmentation
from dmstore.training.loaders.draws import example_seeds, mirrors
from dmstore.training.loaders.files import FileLoader
from dmstore.training.loaders.sources import CENTRE, Source, source_of

if TYPE_CHECKING:
    from dmstore.study.study import Study

# An example of a batch: its position, the seed of its augmentation, and whether it is mirrored (None: by the seed).
_Item = tuple[int, int, bool | None]


def require_torchvision() -> None:
    """Refuse to go on without torchvision.

    Raises
    ------
    MissingDependencyError
        If it is not installed.
    """
    try:
        import torchvision  # noqa: F401
    except ImportError as error:
        msg = "this loader needs torchvision; pip install 'dmstore[vision]'"
        raise MissingDependencyError(msg) from error


class TorchvisionLoader(FileLoader):
    """Images through torchvision's transforms. See :class:`dmstore.training.loaders.loader.Loader`.

    Parameters
    ----------
    study : Study
    mean, deviation : (channel,) float
        Of pixels from 0 to 1.
    image_size : int
        Side in px; 0 leaves images of one size as they are.
    device : torch.device
    data : path or str, optional
        Folder of the image files, where the study holds thumbnails alone.
    workers : int, optional
        Processes; one a core by default, 0 for none.

    Raises
    ------
    MissingDependencyError
        If torchvision is not installed.
    InputError
        If images are gone or are not those of the study.
    """

    name = "torchvision"
    reproducible = True

    def __init__(
        self,
        study: Study,
        mean: NDArray[Any],
        deviation: NDArray[Any],
        image_size: int,
        device: torch.device,
        *,
        data: str | Path | None = None,
        workers: int | None = None,
    ) -> None:
        require_torchvision()
        self._study, self._data = study, data
        self._workers = cores() if workers is None else workers
        self._sources: dict[str, Source] = {}
        train = self._source("train")
        size = (image_size, image_size) if image_size else train.size
        super().__init__(size or (224, 224), mean, deviation, device)
        self.shape: tuple[int, ...] = (train.channels, *self._side)
        self._kept: tuple[Augmentation, _Batches, Any] | None = None

    def _source(self, part: str) -> Source:
        if part not in self._sources:
            self._sources[part] = source_of(self._study, part, self._data)
        return self._sources[part]

    def epoch(
        self,
        batches: Sequence[NDArray[np.int64]],
        augmentation: Augmentation,
        seed: int,
        number: int = 0,
    ) -> Iterator[torch.Tensor]:
        """See :class:`dmstore.training.loaders.loader.Loader`."""
        seeds = example_seeds(seed, number, sum(map(len, batches)))
        mirrored = mirrors(augmentation, seed, number, len(self._source("train")))
        items: list[list[_Item]] = []
        start = 0
        for batch in batches:
            own = seeds[start : start + len(batch)].tolist()
            flips = [None if mirrored is None else bool(mirrored[place]) for place in batch]
            items.append(list(zip(batch.tolist(), own, flips, strict=True)))
            start += len(batch)
        # Workers stay for all epochs of all runs: to start them takes as long as a small run does.
        if self._kept is None or self._kept[0] != augmentation:
            order = _Batches()
            self._kept = (augmentation, order, self._made("train", augmentation, order))
        self._kept[1].items = items
        for images in self._kept[2]:
            yield self._ready(images)

    def evaluate(self, part: str, batch_size: int) -> Iterator[torch.Tensor]:
        """See :class:`dmstore.training.loaders.loader.Loader`."""
        yield from self._plain(part, np.arange(len(self._source(part))), batch_size)

    def seen(self, positions: NDArray[np.int64]) -> torch.Tensor:
        """See :class:`dmstore.training.loaders.loader.Loader`."""
        return torch.cat(list(self._plain("train", positions, len(positions))))

    def _plain(
        self, part: str, positions: NDArray[np.int64], batch_size: int
    ) -> Iterator[torch.Tensor]:
        order = _Batches()
        order.items = [
            [(place, 0, False) for place in positions[start : start + batch_size].tolist()]
            for start in range(0, len(positions), batch_size)
        ]
        for images in self._made(part, Augmentation(), order):
            yield self._ready(images)

    def _made(self, part: str, augmentation: Augmentation, order: _Batches) -> Any:
        source = self._source(part)
        data = _Images(
            source, augmentation, self._side, tuple(np.rint(255 * self._mean).astype(int).tolist())
        )
        return torch.utils.data.DataLoader(
            data,
            batch_sampler=order,
            num_workers=self._workers,
            persistent_workers=self._workers > 0 and part == "train",
            pin_memory=self._device.type == "cuda",
            # Else a number is drawn of the process's own generator each time.
            generator=torch.Generator(),
        )

    def _ready(self, images: torch.Tensor) -> torch.Tensor:
        return self._normalized(images.to(self._device, non_blocking=True))


class _Batches:
    """The batches of the next epoch, as a DataLoader asks for them."""

    def __init__(self) -> None:
        self.items: list[list[_Item]] = []

    def __iter__(self) -> Iterator[list[_Item]]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)


class _Images:
    """Images of a set, transformed: what a worker holds."""

    def __init__(
        self,
        source: Source,
        augmentation: Augmentation,
        side: tuple[int, int],
        fill: tuple[int, ...],
    ) -> None:
        from torchvision.transforms import v2

        self._source = source
        self._flip = augmentation.flip
        if augmentation.crop == "resized":
            self._crop: Any = v2.RandomResizedCrop(
                side, augmentation.scale, augmentation.ratio, antialias=True
            )
        else:
            steps: list[Any] = []
            if source.size is None:
                # Files of any shape: the middle, as ImageNet models are evaluated.
                steps = [v2.Resize(round(min(side) / CENTRE), antialias=True), v2.CenterCrop(side)]
            elif source.size != side:
                steps = [v2.Resize(side, antialias=True)]
            if augmentation.crop == "pad" and augmentation.padding:
                # What is zero after the mean is subtracted.
                filled = fill if source.channels == 3 else fill[0]
                steps.append(v2.RandomCrop(side, padding=augmentation.padding, fill=filled))
            self._crop = v2.Compose(steps) if steps else v2.Identity()

    def __getitem__(self, item: _Item) -> torch.Tensor:
        from torchvision.transforms.v2 import functional

        position, seed, mirror = item
        image = self._source.image(position)
        state = torch.get_rng_state()
        try:
            # The generator of this process alone: manual_seed() would seed those of the devices too.
            torch.default_generator.manual_seed(seed)
            image = self._crop(image)
            if mirror is None:
                mirror = self._flip == "random" and bool(torch.rand(()) < 0.5)
        finally:
            torch.set_rng_state(state)
        if mirror:
            image = functional.horizontal_flip(image)
        made: torch.Tensor = functional.pil_to_tensor(image)
        return made
