"""Transformations of inputs that verify a direction counterfactually (paper, section 4 and B.4).

A transformation is a pure function of images (example, height, width[, channel]) uint8, an intensity and seeds, and gives
images of the same shape. What it does to an example follows from that example, the intensity and its own seed alone, so
that any host makes the same pixels, whatever batch they stand in.

Imports: core, errors. To add one: a function in ``patches.py`` or ``patterns.py``, and its entry in ``choosing.py``.
"""

from __future__ import annotations

from dmstore.training.transformations.applying import apply, example_seeds
from dmstore.training.transformations.choosing import NAMES, Transformation, choose
from dmstore.training.transformations.paste import paste
from dmstore.training.transformations.patches import black_and_white, picture, rectangles, yellow
from dmstore.training.transformations.patterns import polka_dots, spider_web

__all__ = [
    "NAMES",
    "Transformation",
    "apply",
    "black_and_white",
    "choose",
    "example_seeds",
    "paste",
    "picture",
    "polka_dots",
    "rectangles",
    "spider_web",
    "yellow",
]
