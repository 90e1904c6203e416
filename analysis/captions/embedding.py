"""Embeddings of a study's images and of captions: computed once for each embedder, and kept in the study."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from zarr.storage import MemoryStore

from dmstore.analysis.captions.embedder import Embedder, Rows, unit_rows
from dmstore.core.progress import Progress, counting
from dmstore.errors import CorruptionError, InputError
from dmstore.schema.group_specs import group_spec
from dmstore.storage.objects.objects import Objects
from dmstore.storage.table import groups
from dmstore.study.results import name_of
from dmstore.study.study import Study

PLACE = "embeddings/"
# Rows of a stored object: what a kill makes anew.
_BLOCK = 1024
_IMAGES, _TEXTS = 64, 256


def image_embeddings(
    study: Study,
    embedder: Embedder,
    target_set: str,
    annotation: str,
    progress: Progress | None = None,
) -> Rows:
    """Embeddings of all images of a target set, kept in the study.

    Parameters
    ----------
    study : Study
    embedder : Embedder
    target_set, annotation : str
    progress : callable, optional
        Called with ``images``, images done and images in all.

    Returns
    -------
    (target, dim) float32
        Unit rows.

    Raises
    ------
    InputError
        If the set has no such images, or the embedder does not give what it should.
    """
    images = images_of(study, target_set, annotation)
    count, tell = len(images), counting(progress, "images")

    def make(start: int, stop: int) -> Rows:
        rows = []
        for first in range(start, stop, _IMAGES):
            some = as_colours(np.asarray(images[first : min(stop, first + _IMAGES)].values))
            rows.append(unit_rows(embedder, embedder.encode_images, some, "images"))
            tell(first + len(some), count)
        return np.concatenate(rows)

    made = []
    for start in range(0, count, _BLOCK):
        stop = min(count, start + _BLOCK)
        about = {"set": target_set, "annotation": annotation, "start": start}
        name = _name(embedder, {"of": "images", "stop": stop, **about})
        about = _about(embedder, "images", **about)
        shape = (stop - start, int(embedder.dim))
        made.append(_kept(study.objects, name, about, shape, partial(make, start, stop)))
        tell(stop, count)
    return np.concatenate(made)


def caption_embeddings(
    study: Study,
    embedder: Embedder,
    captions: Sequence[str],
    progress: Progress | None = None,
) -> Rows:
    """Embeddings of captions, kept in the study.

    Parameters
    ----------
    study : Study
    embedder : Embedder
    captions : sequence of str
    progress : callable, optional
        Called with ``captions``, captions done and captions in all.

    Returns
    -------
    (caption, dim) float32
        Unit rows.

    Raises
    ------
    InputError
        If the embedder does not give what it should.
    """
    tell = counting(progress, "captions")
    made: list[Rows] = []
    for start in range(0, len(captions), _BLOCK):
        some = list(captions[start : start + _BLOCK])

        def make(some: list[str] = some, start: int = start) -> Rows:
            rows = []
            for first in range(0, len(some), _TEXTS):
                part = some[first : first + _TEXTS]
                rows.append(unit_rows(embedder, embedder.encode_texts, part, "captions"))
                tell(start + first + len(part), len(captions))
            return np.concatenate(rows)

        name = _name(embedder, {"of": "captions", "captions": some})
        texts = np.array(some, dtype=object)
        about = _about(embedder, "captions")
        shape = (len(some), int(embedder.dim))
        made.append(_kept(study.objects, name, about, shape, make, texts))
        tell(start + len(some), len(captions))
    return np.concatenate(made)


def images_of(study: Study, target_set: str, annotation: str) -> xr.DataArray:
    """Images of a target set, lazy: (target, height, width[, channel]) uint8.

    Parameters
    ----------
    study : Study
    target_set, annotation : str

    Returns
    -------
    xarray.DataArray

    Raises
    ------
    InputError
        If there are none, or they are none.
    """
    data = study.target_set(target_set)
    if annotation not in data:
        files = (
            " (it has files of them; keep the images themselves with 'dmstore annotate')"
            if "file" in data
            else ""
        )
        there = ", ".join(str(one) for one in data.data_vars) or "none"
        msg = f"{study.path}: target set {target_set!r} has no annotation {annotation!r}{files}; it has {there}"
        raise InputError(msg)
    images = data[annotation]
    if (
        images.dtype != np.uint8
        or images.ndim not in (3, 4)
        or (images.ndim == 4 and images.shape[3] not in (1, 3))
    ):
        msg = f"{study.path}: annotation {annotation!r} of {target_set!r} is {images.dtype} of shape {images.shape}, expected images: uint8 (target, height, width[, 1 or 3])"
        raise InputError(msg)
    return images


def as_colours(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(image, height, width, 3), of grey ones three times the same."""
    if images.ndim == 3:
        images = images[..., None]
    # A copy, since what torch is handed must be writable.
    return np.array(np.broadcast_to(images, (*images.shape[:3], 3)))


def _name(embedder: Embedder, what: dict[str, Any]) -> str:
    stated = {"embedder": embedder.name, "content": embedder.content, "dim": int(embedder.dim)}
    return f"{PLACE}{name_of({**stated, **what}, 32)}.zarr.zip"


def _about(embedder: Embedder, of: str, **more: Any) -> dict[str, Any]:
    return {"embedder": embedder.name, "content": embedder.content, "of": of, **more}


def _kept(
    objects: Objects,
    name: str,
    about: dict[str, Any],
    shape: tuple[int, int],
    make: Callable[[], Rows],
    texts: NDArray[Any] | None = None,
) -> Rows:
    """A block that is there already, or that is made and kept."""
    if objects.exists(name):
        rows = np.asarray(groups.read(objects, name, ["embedding"])["embedding"], dtype=np.float32)
        if rows.shape != shape or not np.isfinite(rows).all():
            msg = f"{objects.url}/{name}: holds {rows.shape}, expected finite rows of shape {shape}; delete it, and it is made anew"
            raise CorruptionError(msg)
        return rows
    rows = make()
    store = MemoryStore()
    arrays: dict[str, NDArray[Any]] = {"embedding": rows}
    if texts is not None:
        arrays["caption"] = texts
    groups.fill(store, group_spec("embeddings"), arrays, whole=True, attrs=about)
    objects.put_if_absent(name, groups.zip_bytes(store))
    return rows
