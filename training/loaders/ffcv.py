"""ffcv's way: one file of all images, decoded by compiled code on threads. It pays for JPEG images.

ffcv draws its crops from generators that cannot be seeded. The decoder here draws them from a seed that each example
brings along in the high half of its number, so that a run follows from its seed; flips and shifts are those of
:mod:`dmstore.training.augmentation`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from dmstore.errors import DmstoreError, InputError, MissingDependencyError
from dmstore.training.augmentation import Augmentation, augmented, flipped
from dmstore.training.loaders import beton
from dmstore.training.loaders.draws import epoch_seed, example_seeds, mirrors
from dmstore.training.loaders.files import FileLoader

if TYPE_CHECKING:
    from dmstore.study.study import Study


class FfcvLoader(FileLoader):
    """Images of a ``.beton`` file. See :class:`dmstore.training.loaders.loader.Loader`.

    Parameters
    ----------
    study : Study
    mean, deviation : (channel,) float
        Of pixels from 0 to 1.
    image_size : int
        Side in px; 0 leaves images of one size as they are.
    device : torch.device
    data : path or str, optional
        The file, or the folder that it is in; else it lies beside the study.
    workers : int, optional
        Threads; as many as torch has by default, since ffcv sets torch's number to its own.

    Raises
    ------
    MissingDependencyError
        If ffcv is not installed.
    InputError
        If there is no file, or it is not that of the study.
    """

    name = "ffcv"
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
        try:
            import ffcv  # noqa: F401
        except (ImportError, OSError) as error:
            msg = f"this loader needs ffcv ({error}); install libopencv-dev, libturbojpeg0-dev and pkg-config, then pip install 'dmstore[ffcv]'"
            raise MissingDependencyError(msg) from error
        self._file = beton.find(study, data)
        self._places = beton.check(self._file, study)
        self._study = study
        self._workers = workers or torch.get_num_threads()
        self._grey = len(mean) == 1
        self._readers: dict[Any, Any] = {}
        own = beton.one_size(self._file)
        side = (image_size, image_size) if image_size else own or (224, 224)
        super().__init__(side, mean, deviation, device)
        # Files of any shape are cropped while they are decoded; images of the study are taken whole.
        self._cropped = own is None or "file" in study.train
        self.shape: tuple[int, ...] = (1 if self._grey else 3, *self._side)

    def epoch(
        self,
        batches: Sequence[NDArray[np.int64]],
        augmentation: Augmentation,
        seed: int,
        number: int = 0,
    ) -> Iterator[torch.Tensor]:
        """See :class:`dmstore.training.loaders.loader.Loader`."""
        order = np.concatenate(batches) if len(batches) else np.empty(0, np.int64)
        resized = augmentation.crop == "resized"
        rest = augmentation
        samples = self._places["train"][order]
        if resized:
            # The crop is done by the decoder.
            rest = Augmentation(flip=augmentation.flip)
            seeds = example_seeds(seed, number, len(order)) >> np.uint64(31)
            samples = samples | (seeds << np.uint64(32))
        scale = (augmentation.scale, augmentation.ratio) if resized else None
        mirrored = mirrors(augmentation, seed, number, len(self._places["train"]))
        generator = torch.Generator().manual_seed(epoch_seed(seed, number))
        made = self._batches(samples, [len(batch) for batch in batches], scale)
        for batch, images in zip(batches, made, strict=True):
            ready = augmented(self._ready(images), rest, generator)
            if mirrored is not None:
                ready = flipped(ready, torch.from_numpy(mirrored[batch]))
            yield ready

    def evaluate(self, part: str, batch_size: int) -> Iterator[torch.Tensor]:
        """See :class:`dmstore.training.loaders.loader.Loader`."""
        places = self._places.get(part)
        if places is None:
            msg = f"{self._file}: has no images of {part!r}, which came later; write it again with 'dmstore beton {self._study.path}'"
            raise InputError(msg)
        sizes = [
            min(batch_size, len(places) - start) for start in range(0, len(places), batch_size)
        ]
        for images in self._batches(places, sizes, None):
            yield self._ready(images)

    def seen(self, positions: NDArray[np.int64]) -> torch.Tensor:
        """See :class:`dmstore.training.loaders.loader.Loader`."""
        samples = self._places["train"][positions]
        return self._ready(next(iter(self._batches(samples, [len(samples)], None))))

    def _ready(self, images: torch.Tensor) -> torch.Tensor:
        if self._grey:
            images = images[..., :1]
        return self.inputs(images.numpy())

    def _batches(
        self, samples: NDArray[np.uint64], sizes: list[int], scale: Any
    ) -> Iterator[torch.Tensor]:
        """Images of samples in the order given, in batches of the sizes given: (example, height, width, 3) uint8."""
        if not sizes:
            return
        pieces: list[torch.Tensor] = []
        wanted = iter(sizes)
        size = next(wanted)
        for piece in self._pieces(samples, max(sizes), scale):
            pieces.append(piece)
            while sum(map(len, pieces)) >= size:
                whole = pieces[0] if len(pieces) == 1 else torch.cat(pieces)
                yield whole[:size]
                pieces = [whole[size:]] if len(whole) > size else []
                following = next(wanted, None)
                if following is None:
                    return
                size = following

    def _pieces(
        self, samples: NDArray[np.uint64], batch_size: int, scale: Any
    ) -> Iterator[torch.Tensor]:
        """Images as ffcv's threads give them; each is copied, since their buffers are used again."""
        reader = self._reader(scale)
        # One reader for all epochs and sizes of batches: to compile one takes seconds.
        reader.batch_size = batch_size
        reader.traversal_order.indices = reader.first_traversal_order = samples
        iterator = iter(reader)
        try:
            while True:
                # A thread that has died puts nothing in the queue, and would be waited for for ever.
                while iterator.output_queue.empty() and iterator.is_alive():
                    iterator.join(0.001)
                if iterator.output_queue.empty():
                    msg = f"{self._file}: ffcv stopped while it read; is the file whole? write it again with 'dmstore beton'"
                    raise DmstoreError(msg)
                try:
                    (images,) = next(iterator)
                except StopIteration:
                    return
                yield images.clone()
        finally:
            iterator.close()

    def _reader(self, scale: Any) -> Any:
        if scale not in self._readers:
            from ffcv.fields.decoders import SimpleRGBImageDecoder
            from ffcv.loader import Loader, OrderOption
            from ffcv.transforms import ToTensor

            from dmstore.training.loaders.ffcv_crop import centre, seeded

            if scale is not None:
                decoder = seeded(self._side, *scale)
            elif self._cropped:
                decoder = centre(self._side)
            else:
                decoder = SimpleRGBImageDecoder()
            self._readers[scale] = Loader(
                str(self._file),
                batch_size=1,
                num_workers=self._workers,
                order=OrderOption.SEQUENTIAL,
                drop_last=False,
                seed=0,
                pipelines={"image": [decoder, ToTensor()], "key": None},
            )
        return self._readers[scale]
