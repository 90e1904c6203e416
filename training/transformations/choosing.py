"""Finding a transformation: one of the paper's by name, a function of the user's, or an image file."""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dmstore.errors import InputError
from dmstore.training.transformations import patches, patterns
from dmstore.training.transformations.bank import SUFFIXES, read_bank
from dmstore.training.transformations.drawing import PLACES, Images, Seed

# Sides of patches as shares of the shorter side: 2, 4, 6, 8 and 10 of 32 pixels, or 14 to 70 of 224.
PATCHES = (0.0, 0.0625, 0.125, 0.1875, 0.25, 0.3125)
OPACITIES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)
_PATCHES: dict[str, Callable[..., Images]] = {
    "yellow-square": patches.yellow,
    "face-patch": patches.picture,
    "black-and-white": patches.black_and_white,
    "rectangles": patches.rectangles,
}
_PATTERNS: dict[str, Callable[..., Images]] = {
    "spider-web": patterns.spider_web,
    "polka-dots": patterns.polka_dots,
}
NAMES = (*_PATCHES, *_PATTERNS)


@dataclass(frozen=True)
class Transformation:
    """A transformation, and what is usual for it.

    Attributes
    ----------
    name : str
        What it is called in columns and file names.
    function : callable
        Of images, an intensity and seeds (one an example).
    intensities : tuple of float
        What it is tried at, from 0.
    own : bool
        Whether it is a function of the user's, which is tried for what a transformation has to hold.
    """

    name: str
    function: Callable[[Images, float, Seed], Images]
    intensities: tuple[float, ...]
    own: bool = False


def choose(
    text: str, *, bank: str | Path | None = None, place: str | None = None
) -> Transformation:
    """Find a transformation.

    Parameters
    ----------
    text : str
        One of :data:`NAMES`, ``package.module:function`` of images, an intensity and seeds, or an image file.
    bank : path, optional
        Pictures of ``face-patch``: a folder of images, or an ``.npz``.
    place : {"random", "corner", "center"}, optional
        Where patches go.

    Returns
    -------
    Transformation

    Raises
    ------
    InputError
        If there is none of that name, or an option is missing or does not belong to it.
    """
    is_file = Path(text).suffix.lower() in SUFFIXES
    options: dict[str, Any] = {}
    if place is not None:
        if place not in PLACES:
            msg = f"place {place!r} is not known; give {', '.join(PLACES)}"
            raise InputError(msg)
        if text not in _PATCHES and not is_file:
            msg = f"transformation {text!r} has no place to choose; leave --place out"
            raise InputError(msg)
        options["place"] = place
    if bank is not None and text != "face-patch":
        msg = f"transformation {text!r} takes no bank of pictures; leave --bank out"
        raise InputError(msg)
    if text == "face-patch":
        if bank is None:
            msg = (
                "face-patch needs pictures of faces; give a folder of images or an .npz with --bank"
            )
            raise InputError(msg)
        options["bank"] = read_bank(bank)
    if text in _PATCHES:
        return Transformation(text, functools.partial(_PATCHES[text], **options), PATCHES)
    if text in _PATTERNS:
        return Transformation(text, _PATTERNS[text], OPACITIES)
    if is_file:
        options = {"place": "random", **options, "bank": read_bank(text)}
        made = functools.partial(patches.picture, **options)
        return Transformation(Path(text).stem, made, PATCHES)
    if ":" in text:
        return Transformation(text, _function(text), OPACITIES, own=True)
    msg = f"transformation {text!r} is not known; give {', '.join(NAMES)}, package.module:function, or an image file"
    raise InputError(msg)


def _function(text: str) -> Callable[[Images, float, Seed], Images]:
    module, _, name = text.partition(":")
    try:
        function = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, SystemExit, ValueError) as error:
        msg = f"transformation {text!r} cannot be imported ({error}); run where its module can be found"
        raise InputError(msg) from error
    if not callable(function):
        msg = f"transformation {text!r} is {type(function).__name__}, no function of images, an intensity and seeds"
        raise InputError(msg)
    try:
        inspect.signature(function).bind(None, 0.5, None)
    except TypeError:
        # Most need no seed.
        return lambda images, intensity, _seed: function(images, intensity)
    except ValueError:
        pass
    return function  # type: ignore[no-any-return]
