"""Captions that are kept beside a comparison."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from zarr.storage import MemoryStore

from dmstore.analysis.experiment.inference import discovery_rates
from dmstore.errors import FormatError
from dmstore.schema.group_specs import group_spec
from dmstore.storage.objects.objects import Objects
from dmstore.storage.table import groups
from dmstore.study.study import Study

PREFIX, SUFFIX = "captions-", ".zarr.zip"
ENDS = ("top", "bottom")
_SHOWN = 20


def write(objects: Objects, name: str, found: xr.Dataset, attrs: Mapping[str, Any]) -> None:
    """Keep captions: one object, there whole or not at all. What is there already stays.

    Parameters
    ----------
    objects : Objects
    name : str
    found : xarray.Dataset
    attrs : mapping
    """
    spec = group_spec("captions")
    arrays: dict[str, NDArray[Any]] = {
        key: found[key].values for key in spec.arrays if key in found.variables
    }
    store = MemoryStore()
    said = {**attrs, "templates": json.dumps(attrs["templates"])}
    groups.fill(store, spec, arrays, whole=True, attrs=said)
    objects.put_if_absent(name, groups.zip_bytes(store))


def read(objects: Objects, name: str) -> xr.Dataset:
    """Captions as they were kept.

    Parameters
    ----------
    objects : Objects
    name : str

    Returns
    -------
    xarray.Dataset
        As :func:`dmstore.analysis.caption` returns them.

    Raises
    ------
    CorruptionError, FormatError
        If they cannot be read, or are none.
    """
    arrays, attrs = groups.read_with_attrs(objects, name)
    spec = group_spec("captions").arrays
    known = {key: (spec[key].dims, value) for key, value in arrays.items() if key in spec}
    index = {key: known.pop(key) for key in list(known) if spec[key].role == "index"}
    try:
        found = xr.Dataset(known, coords=index)
        places = [found[key].values for key in ("caption", "paper")]
        if set(spec) - set(found.variables) or max(one.max(initial=-1) for one in places) >= len(
            found["text"]
        ):
            msg = "an array is missing, or names a caption that is not there"
            raise ValueError(msg)
    except (KeyError, ValueError) as error:
        msg = f"{objects.url}/{name}: holds no captions ({error}); delete it, and caption again"
        raise FormatError(msg) from error
    hidden = ("format_version", "kind", "coordinates")
    said = {key: value for key, value in attrs.items() if key not in hidden}
    if isinstance(said.get("templates"), str):
        said["templates"] = json.loads(said["templates"])
    return found.assign_attrs(said)


def kept_captions(study: Study, where: str) -> list[dict[str, Any]]:
    """Captions kept beside a comparison, as a page shows them; where several sets are kept, with q-values over all of them.

    Parameters
    ----------
    study : Study
    where : str
        Of the comparison; ends in ``/``.

    Returns
    -------
    list of dict
        One a direction and end that was captioned: ``algorithm``, ``component`` (from 0), ``end`` (``top`` or ``bottom``),
        ``embedder``, ``words``, ``images`` and ``contrast`` (how many targets), ``direction_beyond``, and ``captions``, best first: ``text``, ``score``,
        ``auroc``, ``auroc_low``, ``auroc_high``, ``q`` and ``beyond``.

    Raises
    ------
    CorruptionError
        If one cannot be read.
    """
    sets = [
        read(study.objects, f"{where}{child}")
        for child in study.objects.children(where)
        if child.startswith(PREFIX) and child.endswith(SUFFIX)
    ]
    return [entry for found in corrected(sets) for entry in listed(found)]


def corrected(sets: list[xr.Dataset]) -> list[xr.Dataset]:
    """Sets of captions with q-values over all: whoever tries many lists of words finds something by chance in one of them.

    Each set has an equal share of the false discovery rate, however many captions it tests.

    Parameters
    ----------
    sets : list of Dataset
        As :func:`dmstore.analysis.caption` returns them.
    """
    if len(sets) < 2:
        return sets
    tested = [np.isfinite(one["p"].values) for one in sets]
    rates = discovery_rates([one["p"].values[at] for one, at in zip(sets, tested, strict=True)])
    made = []
    for one, at, rate in zip(sets, tested, rates, strict=True):
        q = np.full(at.shape, np.nan)
        q[at] = rate
        beyond = (q <= float(one.attrs["fdr"])) & one["direction_beyond_chance"].values[
            ..., None, None
        ]
        dims = one["q"].dims
        made.append(one.assign(q=(dims, q), beyond_chance=(dims, beyond)))
    return made


def listed(found: xr.Dataset) -> list[dict[str, Any]]:
    """Captions as :func:`kept_captions` gives them.

    Parameters
    ----------
    found : xarray.Dataset

    Returns
    -------
    list of dict
    """
    made = []
    texts = [str(one) for one in found["text"].values]
    numbers = ("score", "auroc", "auroc_low", "auroc_high", "q")
    for row, k, e in np.argwhere(found["images"].values > 0).tolist():
        one = found.isel(algorithm=row, component=k, end=e)
        places = one["caption"].values
        captions = [
            {
                "text": texts[place],
                **{key: float(one[key].values[i]) for key in numbers},
                "beyond": bool(one["beyond_chance"].values[i]),
            }
            for i, place in enumerate(places.tolist()[:_SHOWN])
            if place >= 0
        ]
        made.append(
            {
                "algorithm": str(found["algorithm"].values[row]),
                "component": int(found["component"].values[k]),
                "end": str(found["end"].values[e]),
                "embedder": str(found.attrs.get("embedder", "")),
                "words": str(found.attrs.get("words", "")),
                "images": int(one["images"]),
                "contrast": int(one["contrast"]),
                "direction_beyond": bool(one["direction_beyond_chance"]),
                "captions": captions,
            }
        )
    return made
