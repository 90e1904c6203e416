"""What patches and patterns share: checks, places, colours, sizes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from dmstore.errors import InputError

Floats = NDArray[np.float64]
Images = NDArray[np.uint8]
# One seed for all examples, or one each.
Seed = int | NDArray[np.uint64]

PLACES = ("random", "corner", "center")
# Shares of red, green and blue in brightness (ITU-R BT.601).
_LUMA = np.array([0.299, 0.587, 0.114])
_FINER = 8


def check(images: Images, intensity: float) -> None:
    """Refuse what is no images, and an intensity that is no share.

    Raises
    ------
    InputError
        Naming the shape, dtype or value.
    """
    shape = images.shape
    if images.dtype != np.uint8 or not (
        len(shape) == 3 or (len(shape) == 4 and shape[3] in (1, 3, 4))
    ):
        msg = f"images are {images.dtype} {shape}, expected uint8 (example, height, width) or with 1, 3 or 4 channels at the end"
        raise InputError(msg)
    if not 0 <= intensity <= 1:
        msg = f"intensity {intensity} is not allowed; give 0 to 1 (a patch's share of the shorter side, or an opacity)"
        raise InputError(msg)


def uniform(seed: Seed, examples: int, count: int) -> Floats:
    """Numbers from 0 to 1 of each example's own seed: (example, number) float64.

    The raw stream of Philox is the same in all versions of NumPy.
    """
    seeds = np.broadcast_to(np.asarray(seed, dtype=np.uint64), (examples,))
    raw = [np.random.Philox(key=int(one)).random_raw(count) for one in seeds]
    return np.array(raw, dtype=np.uint64).reshape(examples, count) / 2.0**64


def places(height: int, width: int, size: int, place: str, seed: Seed, examples: int) -> Floats:
    """Top and left of a square of `size` in each example: (example, 2) integers as float64.

    Raises
    ------
    InputError
        If there is no such place.
    """
    if place not in PLACES:
        msg = f"place {place!r} is not known; give {', '.join(PLACES)}"
        raise InputError(msg)
    room = np.array([height - size, width - size])
    if place == "center":
        return np.asarray(np.tile(np.floor(room / 2), (examples, 1)))
    share = uniform(seed, examples, 2)
    if place == "corner":
        return np.asarray(np.floor(share * 2) * room)
    return np.asarray(np.floor(share * (room + 1)))


def side(images: Images, intensity: float) -> int:
    """Pixels of a square patch of an intensity: its share of the shorter side, one pixel at least."""
    height, width = images.shape[1:3]
    return int(max(1, round(float(intensity) * min(height, width))))


def coloured(colour: Floats, images: Images) -> Floats:
    """Red, green and blue (..., 3) as images of these have it: (...) of grey ones, else (..., channel)."""
    if images.ndim == 3:
        return np.asarray(colour @ _LUMA)
    return (colour @ _LUMA)[..., None] if images.shape[3] == 1 else colour


def blend(window: Images, colour: Floats, share: Floats) -> Images:
    """Part of an image moved a share of the way to a colour; what is transparent stays so."""
    grey = window.ndim == 2
    own = (window if grey else window[..., :3]).astype(np.float64)
    weight = share if grey else share[..., None]
    mixed = np.rint(own + weight * (colour - own)).astype(np.uint8)
    if grey or window.shape[2] < 4:
        return mixed
    return np.concatenate([mixed, window[..., 3:]], axis=2)


def drawn(size: int, shade: Callable[[Floats, Floats], Floats]) -> Floats:
    """A square drawn from a formula of rows and columns from 0 to 1, edges smoothed: (size, size) float64."""
    step = (np.arange(size * _FINER) + 0.5) / (size * _FINER)
    fine = np.asarray(shade(step[:, None], step[None, :]), dtype=np.float64)
    fine = np.broadcast_to(fine, (size * _FINER, size * _FINER))
    return np.asarray(fine.reshape(size, _FINER, size, _FINER).mean(axis=(1, 3)))


def resized(picture: Images, height: int, width: int) -> Floats:
    """A picture (height, width, 3) in another size, each pixel the mean of what it covers: float64."""
    rows, columns = (
        _weights(old, new) for old, new in zip(picture.shape, (height, width), strict=False)
    )
    return np.asarray(np.einsum("ab,bcd,ec->aed", rows, picture.astype(np.float64), columns))


def _weights(old: int, new: int) -> Floats:
    """Weight of each of `old` samples in each of `new`: triangles as wide as the coarser grid, (new, old)."""
    scale = old / new
    centers = (np.arange(new) + 0.5) * scale - 0.5
    distance = np.abs(np.arange(old)[None] - centers[:, None]) / max(scale, 1)
    weight = np.maximum(1 - distance, 0)
    return np.asarray(weight / weight.sum(axis=1, keepdims=True))
