"""What an embedder of images and captions is, and what it says made sure of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dmstore.errors import DmstoreError, InputError

Rows = NDArray[np.float32]
_LONGEST_NAME = 200


class Embedder(Protocol):
    """Puts images and captions into one space, where what belongs together has a large cosine.

    Attributes
    ----------
    name : str
        What people call it.
    content : str
        A hash of its weights and of how it prepares images and captions: another one, other embeddings.
    dim : int
        Numbers in an embedding.
    """

    name: str
    content: str
    dim: int

    def encode_images(self, images: NDArray[np.uint8]) -> Rows:
        """(image, height, width, 3) uint8 to unit rows, (image, dim) float32."""

    def encode_texts(self, texts: list[str]) -> Rows:
        """Captions to unit rows, (caption, dim) float32."""


def check_embedder(given: Any, where: str) -> Embedder:
    """An embedder as it was given, with all that it must have.

    Parameters
    ----------
    given : Any
    where : str
        For error texts.

    Returns
    -------
    Embedder

    Raises
    ------
    InputError
        Naming what it lacks.
    """
    for key in ("encode_images", "encode_texts"):
        if not callable(getattr(given, key, None)):
            msg = f"embedder {where}: {type(given).__name__} has no method {key}; an embedder has name, content, dim, encode_images and encode_texts"
            raise InputError(msg)
    for key in ("name", "content"):
        said = getattr(given, key, None)
        if not isinstance(said, str) or not said.strip() or len(said) > _LONGEST_NAME:
            msg = f"embedder {where}: {key} is {said!r:.60}, expected a text of 1 to {_LONGEST_NAME} characters"
            raise InputError(msg)
    dim = getattr(given, "dim", None)
    if not isinstance(dim, int | np.integer) or isinstance(dim, bool) or dim < 1:
        msg = f"embedder {where}: dim is {dim!r:.60}, expected a whole number from 1"
        raise InputError(msg)
    made: Embedder = given
    return made


def unit_rows(embedder: Embedder, encode: Callable[[Any], Any], given: Any, what: str) -> Rows:
    """What an embedder says, as unit rows.

    Parameters
    ----------
    embedder : Embedder
    encode : callable
        One of its methods.
    given : sequence
        What to encode.
    what : str
        ``images`` or ``captions``.

    Returns
    -------
    (row, dim) float32

    Raises
    ------
    InputError
        If it fails, shape or dtype are others, or a row is not finite or 0.
    """
    count = len(given)
    try:
        rows = np.asarray(encode(given))
    except (DmstoreError, MemoryError):
        raise
    except Exception as error:
        said = " ".join(str(error).split())[:200]
        msg = f"embedder {embedder.name}: failed on {count} {what} ({type(error).__name__}: {said})"
        raise InputError(msg) from error
    if rows.shape != (count, embedder.dim) or rows.dtype.kind != "f":
        msg = f"embedder {embedder.name}: gave {rows.dtype} of shape {rows.shape} for {count} {what}, expected float32 of shape ({count}, {embedder.dim})"
        raise InputError(msg)
    rows = rows.astype(np.float32, copy=False)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    bad = np.flatnonzero(~np.isfinite(length[:, 0]) | (length[:, 0] < 1e-12))
    if len(bad):
        msg = f"embedder {embedder.name}: gave NaN, infinity or only zeros for {len(bad)} of {count} {what}; its weights or how it prepares {what} are wrong"
        raise InputError(msg)
    return np.asarray(rows / length, dtype=np.float32)
