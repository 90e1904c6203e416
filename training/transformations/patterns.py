"""Patterns laid over the whole image: the intensity is their opacity (delta in the paper).

Each is one fixed drawing, larger than the image; every example gets a random part of it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from dmstore.training.transformations.drawing import (
    Floats,
    Images,
    Seed,
    blend,
    check,
    coloured,
    uniform,
)

_WEB = (225.0, 225.0, 225.0)
_DOTS = (255.0, 225.0, 0.0)
# Of a web: most radial threads and turns, pixels that each has at least, and how far threads between them sag.
_SPOKES, _TURNS, _PIXELS, _SAG = 14, 9, 4, 0.16


def spider_web(images: Images, intensity: float, seed: Seed = 0) -> Images:
    """Lay a grey spider web over images (Living17, Figure 4a: 30 % opacity is an intensity of 0.3).

    Parameters
    ----------
    images : (example, height, width[, channel]) uint8
    intensity : float
        Opacity of the threads; 0 leaves the image as it is.
    seed : int or (example,) uint64
        Chooses the part of the pattern.

    Returns
    -------
    (example, height, width[, channel]) uint8

    Raises
    ------
    InputError
        If these are no images, or the intensity is not from 0 to 1.
    """
    return _laid(images, intensity, seed, _webs, _WEB)


def polka_dots(images: Images, intensity: float, seed: Seed = 0) -> Images:
    """Lay small yellow dots over images (Living17, Figure 4b: 30 % opacity is an intensity of 0.3).

    Parameters
    ----------
    images : (example, height, width[, channel]) uint8
        Grey images get their brightness.
    intensity : float
        Opacity of the dots; 0 leaves the image as it is.
    seed : int or (example,) uint64
        Chooses the part of the pattern.

    Returns
    -------
    (example, height, width[, channel]) uint8

    Raises
    ------
    InputError
        If these are no images, or the intensity is not from 0 to 1.
    """
    return _laid(images, intensity, seed, _dots, _DOTS)


def _laid(
    images: Images,
    intensity: float,
    seed: Seed,
    pattern: Callable[[int, int], Floats],
    colour: tuple[float, ...],
) -> Images:
    """Images moved towards a colour where a part of the pattern covers them."""
    check(images, intensity)
    if not intensity:
        return images.copy()
    height, width = images.shape[1:3]
    ink = pattern(height, width)
    room = np.array(ink.shape) - (height, width)
    spots = np.floor(uniform(seed, len(images), 2) * (room + 1)).astype(np.int64)
    tone, changed = coloured(np.array(colour), images), images.copy()
    for image, (top, left) in zip(changed, spots, strict=True):
        image[...] = blend(image, tone, intensity * ink[top : top + height, left : left + width])
    return changed


def _grid(height: int, width: int) -> tuple[Floats, Floats, int]:
    """Rows and columns of a canvas that is a shorter side larger than the image, and that side."""
    side = min(height, width)
    rows = np.arange(height + side, dtype=np.float64)[:, None] + 0.5
    return rows, np.arange(width + side, dtype=np.float64)[None, :] + 0.5, side


@functools.lru_cache(maxsize=4)
def _webs(height: int, width: int) -> Floats:
    """Coverage of a canvas by threads of webs that stand about a side apart."""
    rows, columns, side = _grid(height, width)
    ink = np.zeros((rows.shape[0], columns.shape[1]))
    step = 0.85 * side
    across, down = int(np.ceil(columns.size / step)) + 1, int(np.ceil(rows.size / step)) + 1
    # One drawing for all: the shifts of the centres are those of a fixed seed.
    shift = uniform(np.arange(across * down, dtype=np.uint64), across * down, 3)
    centers = (np.array([(a, b) for a in range(down) for b in range(across)]) + 0.15) * step
    centers += 0.5 * step * (shift[:, :2] - 0.5)
    away = [np.hypot(rows - y, columns - x) for y, x in centers]
    nearest = np.argmin(away, axis=0)
    for number, (y, x) in enumerate(centers):
        own = nearest == number
        if own.any():
            web = _threads(rows - y, columns - x, side, 2 * np.pi * shift[number, 2])
            ink[own] = web[own]
    ink.setflags(write=False)
    return ink


def _threads(down: Floats, across: Floats, side: int, turned: float) -> Floats:
    """Coverage by one web around a point: straight radial threads, and turns that sag between them."""
    radius = np.hypot(down, across)
    sector = 2 * np.pi / int(np.clip(side // _PIXELS, 5, _SPOKES))
    angle = np.mod(np.arctan2(down, across) + turned, sector) - sector / 2
    spoke = radius * np.abs(np.sin(sector / 2 - np.abs(angle)))
    # Between two spokes a turn is nearer to the centre, most of all in the middle.
    gap = max(0.7 * side / _TURNS, _PIXELS)
    turn = radius * (1 + _SAG * (1 - (2 * angle / sector) ** 2)) / gap
    ring = np.abs(turn - np.rint(turn)) * gap
    ring[turn < 0.5] = np.inf
    thickness = max(1.0, side / 110)
    return np.asarray(np.clip(0.5 + thickness / 2 - np.minimum(spoke, ring), 0, 1))


@functools.lru_cache(maxsize=4)
def _dots(height: int, width: int) -> Floats:
    """Coverage of a canvas by dots whose rows are shifted by half against each other."""
    rows, columns, side = _grid(height, width)
    step = max(4.0, side / 8)
    line = np.floor(rows / step)
    down = rows - (line + 0.5) * step
    across = np.mod(columns + (line % 2) * step / 2, step) - step / 2
    ink = np.clip(0.5 + 0.28 * step - np.hypot(down, across), 0, 1)
    ink.setflags(write=False)
    return np.asarray(ink)
