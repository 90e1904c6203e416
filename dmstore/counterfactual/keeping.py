"""Results of counterfactual checks, kept beside the comparison of the first two algorithms."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from zarr.storage import MemoryStore

from dmstore.errors import ExistsError, NotFoundError
from dmstore.schema.group_specs import group_spec
from dmstore.storage.table import groups
from dmstore.study.results import name_of
from dmstore.study.study import Study

if TYPE_CHECKING:
    import xarray as xr

_NUMBERS = ("effect", "effect_low", "effect_high", "delta", "epsilon")
_LONGEST = 60


def keep(study: Study, result: xr.Dataset, name: str) -> str:
    """Keep a result under a name. The same result again, from either side, is fine.

    Parameters
    ----------
    study : Study
    result : Dataset
        With ``effect``, its ends, ``delta`` and ``epsilon`` (algorithm, intensity, class), ``models`` and ``examples``.
    name : str

    Returns
    -------
    str
        Where it is; empty where the first two algorithms have not been compared, so that there is nothing beside which.

    Raises
    ------
    ExistsError
        If other numbers are kept under this name for the same question.
    """
    a, b = (str(one) for one in result["algorithm"].values[:2])
    try:
        comparison = study.comparison(a, b).attrs["comparison"]
    except NotFoundError:
        return ""
    numbers = [int(one) for one in result["number"].values]
    plain = re.sub(r"[^A-Za-z0-9._]+", "_", name).strip("._")[:_LONGEST] or "patch"
    classes = "_".join(map(str, numbers))
    if len(classes) > _LONGEST:
        classes = name_of({"classes": numbers}, 8)
    where = f"comparisons/{comparison}/effects-{plain}-on-{classes}"
    arrays: dict[str, NDArray[Any]] = {
        "algorithm": result["algorithm"].values,
        "intensity": result["intensity"].values,
        "class": np.array(numbers, dtype=np.int64),
        "models": result["models"].values,
        "examples": result["examples"].values,
        **{key: result[key].values for key in _NUMBERS},
    }
    store = MemoryStore()
    attrs = {key: str(result.attrs[key]) for key in ("measure", "on", "output", "name")}
    groups.fill(store, group_spec("effects"), arrays, whole=True, attrs=attrs)
    data, asked = groups.zip_bytes(store), _asked(arrays, attrs)
    # What was asked in another way (other intensities, say) is another result of that name, and stands beside it.
    for place in (f"{where}.zarr.zip", f"{where}-{name_of(asked, 8)}.zarr.zip"):
        if study.objects.put_if_absent(place, data):
            return place
        kept, said = groups.read_with_attrs(study.objects, place)
        if _same(kept, arrays):
            return place
        if _asked(kept, said) == asked:
            break
    msg = (
        f"{study.path}/{place}: another counterfactual is kept under {name!r}; results never "
        f"change, so give this one another --name"
    )
    raise ExistsError(msg)


def _asked(arrays: Mapping[str, NDArray[Any]], attrs: Mapping[str, Any]) -> dict[str, Any]:
    """What a result is the answer to."""
    return {
        "algorithms": sorted(map(str, arrays["algorithm"])),
        "intensity": [float(one) for one in arrays["intensity"]],
        "examples": [int(one) for one in arrays["examples"]],
        **{key: str(attrs.get(key, "")) for key in ("measure", "on", "output")},
    }


def _same(kept: Mapping[str, NDArray[Any]], made: Mapping[str, NDArray[Any]]) -> bool:
    """Whether two results are one, whichever algorithm comes first, up to rounding."""
    if sorted(kept["algorithm"]) != sorted(made["algorithm"]):
        return False
    if not np.array_equal(kept["intensity"], made["intensity"]):
        return False
    if not np.array_equal(kept["examples"], made["examples"]):
        return False
    first, second = (np.argsort(arrays["algorithm"]) for arrays in (kept, made))
    return all(
        np.allclose(kept[n][first], made[n][second], rtol=1e-5, atol=1e-6, equal_nan=True)
        for n in _NUMBERS
    )
