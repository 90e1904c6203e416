"""Applying a transformation to examples: the same pixels of an example on any host, in any batch."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmstore.errors import InputError
from dmstore.training.transformations.choosing import Transformation
from dmstore.training.transformations.drawing import Images, check

_BYTES = 64 << 20


def example_seeds(ids: Sequence[Any] | NDArray[Any], seed: int = 0) -> NDArray[np.uint64]:
    """The seed of each example: it follows from the example's id, not from where it stands.

    Parameters
    ----------
    ids : (example,) str or int
    seed : int
        Another one gives other places.

    Returns
    -------
    (example,) uint64
    """
    digests = (hashlib.blake2b(f"{seed}\0{one}".encode(), digest_size=8).digest() for one in ids)
    return np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64)


def apply(
    transformation: Transformation,
    images: Any,
    ids: Sequence[Any] | NDArray[Any],
    intensity: float,
    seed: int = 0,
    *,
    advance: Callable[[int], None] = lambda _: None,
) -> Images:
    """Transform examples, some at a time.

    Parameters
    ----------
    transformation : Transformation
    images : (example, height, width[, channel]) uint8
        Read in parts, so that it may be lazy.
    ids : (example,) str or int
        Their ids: each example's seed follows from its own.
    intensity : float
    seed : int
    advance : callable
        Called with the number of examples done.

    Returns
    -------
    (example, height, width[, channel]) uint8

    Raises
    ------
    InputError
        If the transformation raises, gives other shapes or dtypes, or gives an example other pixels in
        another batch.
    """
    seeds = example_seeds(ids, seed)
    if len(seeds) != len(images):
        msg = f"{len(images)} images with {len(seeds)} ids; give one id an image"
        raise InputError(msg)
    step = max(1, _BYTES // max(1, int(np.prod(images.shape[1:]))))
    parts = []
    for start in range(0, len(images), step):
        part = np.asarray(images[start : start + step])
        check(part, 0)
        parts.append(_called(transformation, part, intensity, seeds[start : start + step]))
        if transformation.own and not start:
            _try_alone(transformation, part, intensity, seeds, parts[0])
        advance(start + len(part))
    return np.concatenate(parts) if parts else np.asarray(images)


def _called(
    transformation: Transformation, images: Images, intensity: float, seeds: NDArray[np.uint64]
) -> Images:
    name = transformation.name
    # A copy: a function of the user's may draw on what it is given.
    given = images.copy() if transformation.own else images
    try:
        changed = transformation.function(given, intensity, seeds)
    except InputError:
        raise
    except Exception as error:
        if not transformation.own:
            raise
        said = " ".join(str(error).split())[:200]
        msg = f"transformation {name!r} raised {type(error).__name__} on {len(images)} images {images.shape[1:]} at intensity {intensity}: {said}"
        raise InputError(msg) from error
    if hasattr(changed, "detach"):
        changed = changed.detach().cpu().numpy()
    changed = np.asarray(changed)
    if changed.dtype != np.uint8 or changed.shape != images.shape:
        msg = f"transformation {name!r} gave {changed.dtype} {changed.shape}, expected uint8 {images.shape}"
        raise InputError(msg)
    return changed


def _try_alone(
    transformation: Transformation,
    images: Images,
    intensity: float,
    seeds: NDArray[np.uint64],
    together: Images,
) -> None:
    """Refuse a transformation whose result for an example depends on the batch, or on when it is called."""
    for row in {0, len(images) - 1}:
        alone = _called(transformation, images[row : row + 1], intensity, seeds[row : row + 1])
        if not np.array_equal(alone[0], together[row]):
            msg = (
                f"transformation {transformation.name!r} gives an example other pixels alone than with others; draw from the "
                f"seeds that it is given, one an example, so that any host makes the same"
            )
            raise InputError(msg)
