"""Target sets whose examples are targets of the study, transformed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dmstore.core.progress import Progress, counting
from dmstore.errors import InputError
from dmstore.training.transformations import Transformation, apply

if TYPE_CHECKING:
    import xarray as xr

    from dmstore.study.study import Study

# Side of images that are taken from files, in px, and how many at a time.
SIDE = 224
_AT_ONCE = 64
# Which target an example was made of, and how.
MADE = ("base", "base_set", "transformation", "intensity", "transformation_seed")


def add_transformed(
    study: Study,
    name: str,
    transformation: Transformation,
    intensity: float,
    *,
    seed: int = 0,
    of: str = "test",
    positions: NDArray[np.int64] | None = None,
    progress: Progress | None = None,
) -> str:
    """Add a target set that is another one, transformed.

    Its examples have the ids and columns of those that they were made of, and five columns more: ``base`` (id),
    ``base_set``, ``transformation``, ``intensity`` and ``transformation_seed``. So whoever has models can store what they
    say on it.

    Parameters
    ----------
    study : Study
    name : str
        Of the new set.
    transformation : Transformation
    intensity : float
    seed : int
    of : str
        The target set that is transformed.
    positions : (example,) int64, optional
        Of these targets alone.
    progress : callable, optional
        Called with ``transform``, examples done and examples in all.

    Returns
    -------
    str
        ``new``, or ``present`` if the set is there with the same content.

    Raises
    ------
    InputError
        If the set has no images or is a transformed one itself, or the transformation cannot be used.
    ExistsError
        If there is another set of that name.
    """
    base = study.target_set(of)
    images = images_of(study, base, of)
    if "base" in base and "transformation" in base:
        msg = f"target set {of!r} is transformed already; transform the set that it was made of"
        raise InputError(msg)
    chosen = np.arange(base.sizes["target"]) if positions is None else positions
    ids = study.ids(of)[chosen]
    tell = counting(progress, "transform")
    changed = apply(
        transformation,
        images if positions is None else images[chosen],
        ids,
        intensity,
        seed,
        advance=lambda done: tell(done, len(ids)),
    )
    columns: dict[str, Any] = {
        str(key): np.asarray(values.values)[chosen]
        for key, values in base.data_vars.items()
        # The files show what was there before.
        if values.dims == ("target",) and key not in {*MADE, "file", "digest"}
    }
    return study.add_targets(
        name,
        {
            **columns,
            "id": ids,
            "image": changed,
            "base": ids,
            "base_set": np.full(len(ids), of),
            "transformation": np.full(len(ids), transformation.name),
            "intensity": np.full(len(ids), float(intensity)),
            "transformation_seed": np.full(len(ids), seed, dtype=np.int64),
        },
    )


def images_of(study: Study, targets: xr.Dataset, name: str) -> Any:
    """Images of a target set, lazy where they are large: (target, height, width[, channel]) uint8.

    Of files it is the middle, ``SIDE`` px high and wide, as networks for ImageNet are asked.

    Parameters
    ----------
    study : Study
    targets : Dataset
        The set.
    name : str
        What it is called.

    Raises
    ------
    InputError
        If it has none, or its files are not where ``DMSTORE_DATA`` says.
    """
    if "file" in targets:
        return _of_files(study, name)
    if "image" not in targets:
        msg = f"{study.path}: target set {name!r} has no images, so nothing can be transformed"
        raise InputError(msg)
    return targets["image"].data


def _of_files(study: Study, name: str) -> Any:
    import dask
    import dask.array as da

    from dmstore.training.loaders.sources import middle, source_of

    source = source_of(study, name, None)

    def some(start: int, stop: int) -> NDArray[np.uint8]:
        return np.stack([middle(source.image(place), SIDE) for place in range(start, stop)])

    parts = [
        da.from_delayed(
            dask.delayed(some)(start, min(start + _AT_ONCE, len(source))),
            shape=(min(_AT_ONCE, len(source) - start), SIDE, SIDE, 3),
            dtype=np.uint8,
        )
        for start in range(0, len(source), _AT_ONCE)
    ]
    return da.concatenate(parts)
