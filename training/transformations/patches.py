"""Patches: a square whose side is the intensity's share of the image's shorter side (k pixels in the paper)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import numpy as np

from dmstore.errors import InputError
from dmstore.training.transformations.drawing import (
    Floats,
    Images,
    Seed,
    blend,
    check,
    coloured,
    drawn,
    places,
    resized,
    side,
    uniform,
)

_YELLOW = (255.0, 255.0, 0.0)


def yellow(images: Images, intensity: float, seed: Seed = 0, *, place: str = "random") -> Images:
    """Add a yellow square (Waterbirds, Figure 6a: 40 of 224 pixels are an intensity of 0.18).

    Parameters
    ----------
    images : (example, height, width[, channel]) uint8
        Grey images get its brightness.
    intensity : float
        Side of the square as a share of the shorter side; 0 leaves the image as it is.
    seed : int or (example,) uint64
    place : {"random", "corner", "center"}

    Returns
    -------
    (example, height, width[, channel]) uint8

    Raises
    ------
    InputError
        If these are no images, or the intensity is not from 0 to 1.
    """
    return _patched(images, intensity, seed, place, lambda k: np.tile(_YELLOW, (k, k, 1)))


def black_and_white(
    images: Images, intensity: float, seed: Seed = 0, *, place: str = "random"
) -> Images:
    """Add a black nose on white (CIFAR-10, Figure 8a: 6 of 32 pixels are an intensity of 0.19).

    Parameters and returns as of :func:`yellow`.

    Raises
    ------
    InputError
        If these are no images, or the intensity is not from 0 to 1.
    """
    return _patched(images, intensity, seed, place, lambda k: _grey(drawn(k, _nose)))


def rectangles(
    images: Images, intensity: float, seed: Seed = 0, *, place: str = "random"
) -> Images:
    """Add two dark rectangles on white, as windows (CIFAR-10, Figure 8b: 8 of 32 pixels are an intensity of 0.25).

    Parameters and returns as of :func:`yellow`.

    Raises
    ------
    InputError
        If these are no images, or the intensity is not from 0 to 1.
    """
    return _patched(images, intensity, seed, place, lambda k: _grey(drawn(k, _windows)))


def picture(
    images: Images,
    intensity: float,
    seed: Seed = 0,
    *,
    bank: Sequence[Images],
    place: str = "corner",
) -> Images:
    """Add one of some pictures, as a face on the background (Waterbirds, Figure 6b).

    Parameters
    ----------
    images : (example, height, width[, channel]) uint8
    intensity : float
        Side of the picture as a share of the shorter side; 0 leaves the image as it is.
    seed : int or (example,) uint64
        Chooses the picture too.
    bank : sequence of (height, width, 3) uint8
        Each is made square.
    place : {"corner", "random", "center"}
        In a corner a picture seldom hides what the image is of.

    Returns
    -------
    (example, height, width[, channel]) uint8

    Raises
    ------
    InputError
        If these are no images, the intensity is not from 0 to 1, or the bank is empty.
    """
    if not len(bank):
        msg = "the bank of pictures is empty; give a folder of images or an .npz with an array 'image'"
        raise InputError(msg)
    share = uniform(seed, len(images), 3)[:, 2]
    which = np.minimum((share * len(bank)).astype(np.int64), len(bank) - 1)
    changed = images.copy()
    for one in np.unique(which):
        rows = np.flatnonzero(which == one)
        own = seed if isinstance(seed, int) else np.asarray(seed)[rows]
        square = functools.partial(_square, bank[int(one)])
        changed[rows] = _patched(images[rows], intensity, own, place, square)
    return changed


def _square(one: Images, size: int) -> Floats:
    return resized(one, size, size)


def _patched(
    images: Images, intensity: float, seed: Seed, place: str, patch: Callable[[int], Floats]
) -> Images:
    """Images with a patch (size, size, 3) where its place and their seeds put it."""
    check(images, intensity)
    height, width = images.shape[1:3]
    size = side(images, intensity)
    spots = places(height, width, size, place, seed, len(images)).astype(np.int64)
    if not intensity:
        return images.copy()
    colour, changed = coloured(patch(size), images), images.copy()
    for image, (top, left) in zip(changed, spots, strict=True):
        window = (slice(top, top + size), slice(left, left + size))
        image[window] = blend(image[window], colour, np.ones((size, size)))
    return changed


def _grey(shade: Floats) -> Floats:
    """A shade from 0 to 1 as a colour."""
    return np.repeat(255.0 * shade[..., None], 3, axis=2)


def _nose(row: Floats, column: Floats) -> Floats:
    """Black on white: a nose, and the line below it."""
    nose = ((row - 0.4) / 0.28) ** 2 + ((column - 0.5) / 0.38) ** 2 < 1
    line = (np.abs(column - 0.5) < 0.07) & (row > 0.6) & (row < 0.92)
    return np.asarray(~(nose | line), dtype=np.float64)


def _windows(row: Floats, column: Floats) -> Floats:
    """Black on white: a narrow rectangle over a wide one."""
    upper = (row > 0.12) & (row < 0.46) & (column > 0.22) & (column < 0.78)
    lower = (row > 0.58) & (row < 0.9) & (column > 0.1) & (column < 0.9)
    return np.asarray(~(upper | lower), dtype=np.float64)
