"""Decoders for ffcv whose crops follow from a seed: compiled code, made anew for each size and range."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from ffcv.fields.rgb_image import CenterCropRGBImageDecoder, ResizedCropRGBImageDecoder
from ffcv.libffcv import imdecode, resize_crop
from ffcv.pipeline.compiler import Compiler

from dmstore.training.loaders.sources import CENTRE

_JPEG = 0
_TRIES = 10


def centre(side: tuple[int, int]) -> Any:
    """The middle of an image, as ImageNet models are evaluated."""
    return CenterCropRGBImageDecoder(side, CENTRE)


def seeded(side: tuple[int, int], scale: tuple[float, ...], ratio: tuple[float, ...]) -> Any:
    """A random area of an image, drawn from the high half of its number."""
    return _SeededCrop(side, scale, ratio)


class _SeededCrop(ResizedCropRGBImageDecoder):  # type: ignore[misc]
    """As torchvision draws areas: up to ten tries, then the middle."""

    def __init__(
        self, side: tuple[int, int], scale: tuple[float, ...], ratio: tuple[float, ...]
    ) -> None:
        super().__init__(side)
        self._scale, self._ratio = scale, ratio

    @property
    def get_crop_generator(self) -> Any:
        """Nothing: what ffcv would draw has no seed."""
        raise NotImplementedError

    def generate_code(self) -> Any:
        """The function that ffcv compiles into its loop."""
        low, high = (float(end) for end in self._scale)
        narrow, wide = (math.log(end) for end in self._ratio)
        read, each = self.memory_read, Compiler.get_iterator()
        decode, resize = Compiler.compile(imdecode), Compiler.compile(resize_crop)
        uniform = Compiler.compile(_uniform)

        def area(seed, height, width):  # type: ignore[no-untyped-def]
            for attempt in range(_TRIES):
                size = height * width * (low + (high - low) * uniform(seed, 4 * attempt))
                shape = math.exp(narrow + (wide - narrow) * uniform(seed, 4 * attempt + 1))
                w = round(math.sqrt(size * shape))
                h = round(math.sqrt(size / shape))
                if 0 < w <= width and 0 < h <= height:
                    top = int(uniform(seed, 4 * attempt + 2) * (height - h + 1))
                    left = int(uniform(seed, 4 * attempt + 3) * (width - w + 1))
                    return top, left, h, w
            w = int(min(width, round(height * math.exp(wide))))
            h = int(min(height, round(width / math.exp(narrow))))
            return (height - h) // 2, (width - w) // 2, h, w

        draw = Compiler.compile(area)
        # Whether the decoder itself mirrors, and turns.
        no = False

        def cropped(batch_indices, storage, metadata, state):  # type: ignore[no-untyped-def]
            images, scratch = storage
            for place in each(len(batch_indices)):
                number = np.uint64(batch_indices[place])
                field = metadata[number & np.uint64(0xFFFFFFFF)]
                stored = read(field["data_ptr"], state)
                height, width = np.uint32(field["height"]), np.uint32(field["width"])
                if field["mode"] == _JPEG:
                    room = scratch[place]
                    decode(stored, room, height, width, height, width, 0, 0, 1, 1, no, no)
                    whole = room.reshape(-1)[: 3 * height * width].reshape(height, width, 3)
                else:
                    whole = stored.reshape(height, width, 3)
                top, left, h, w = draw(number >> np.uint64(32), int(height), int(width))
                resize(whole, top, top + h, left, left + w, images[place])
            return images[: len(batch_indices)]

        cropped.is_parallel = True  # type: ignore[attr-defined]
        return cropped


def _uniform(seed, number):  # type: ignore[no-untyped-def]
    """A number from 0 to 1 that follows from a seed and a number: the finaliser of SplitMix64."""
    x = np.uint64(seed) * np.uint64(64) + np.uint64(number) + np.uint64(1)
    x = x * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    x = x ^ (x >> np.uint64(31))
    return float(x >> np.uint64(11)) * (1.0 / 9007199254740992.0)
