"""Counterfactual checks that are kept beside a comparison, as a page shows them: one entry per class."""

from __future__ import annotations

from typing import Any

import xarray as xr

from dmstore.schema.group_specs import group_spec
from dmstore.storage.table import groups
from dmstore.study.study import Study

_OLD, _NEW = "counterfactual-", "effects-"
# A page has no room for the panels of very many classes; the figure of the command has.
_MOST = 12
_ON = {"others": " on targets of other classes", "class": " on its own targets"}


def kept_effects(study: Study, where: str) -> list[dict[str, Any]]:
    """Counterfactual checks kept beside a comparison.

    Parameters
    ----------
    study : Study
    where : str
        Of the comparison; ends in ``/``.

    Returns
    -------
    list of dict
        ``name`` of the transformation, ``class``, ``what`` (is changed), ``result`` (algorithm, intensity), and ``rows``: of
        each algorithm the effect at full intensity with its interval.

    Raises
    ------
    CorruptionError
        If one cannot be read.
    """
    checks = []
    for child in study.objects.children(where):
        if not child.endswith(".zarr.zip"):
            continue
        if child.startswith(_OLD):
            name, _, label = child.removeprefix(_OLD).removesuffix(".zarr.zip").partition("-on-")
            arrays = groups.read(study.objects, f"{where}{child}")
            dims = ("algorithm", "intensity")
            result = xr.Dataset(
                {k: (dims, arrays[k]) for k in ("effect", "effect_low", "effect_high")},
                coords={key: arrays[key] for key in dims},
            )
            checks.append(_entry(name.replace("_", " "), _class(study, label), result))
        elif child.startswith(_NEW):
            checks += _several(study, f"{where}{child}")
    return checks


def _several(study: Study, where: str) -> list[dict[str, Any]]:
    arrays, attrs = groups.read_with_attrs(study.objects, where)
    spec = group_spec("effects")
    whole = xr.Dataset(
        {k: (spec.arrays[k].dims, arrays[k]) for k in ("effect", "effect_low", "effect_high")},
        coords={key: arrays[key] for key in ("algorithm", "intensity", "class")},
        attrs={key: attrs.get(key, "") for key in ("measure", "on")},
    )
    numbers = arrays["class"].tolist()
    return [
        _entry(
            str(attrs.get("name", "")), _class(study, str(number)), whole.isel({"class": column})
        )
        for column, number in enumerate(numbers[:_MOST])
    ]


def _class(study: Study, label: str) -> str:
    names = study.class_names
    return names[int(label)] if label.isdecimal() and int(label) < len(names) else label


def _entry(name: str, label: str, result: xr.Dataset) -> dict[str, Any]:
    margin = result.attrs.get("measure") == "margin"
    scale = 1 if margin else 100
    return {
        "name": name,
        "class": label,
        "what": f"margin of targets of class {label}"
        if margin
        else f"probability of class {label}{_ON.get(result.attrs.get('on', ''), '')}",
        "unit": "" if margin else " points",
        "result": result,
        "rows": [
            {
                "algorithm": str(a),
                "effect": float(result["effect"].values[i, -1]) * scale,
                "low": float(result["effect_low"].values[i, -1]) * scale,
                "high": float(result["effect_high"].values[i, -1]) * scale,
            }
            for i, a in enumerate(result["algorithm"].values)
        ],
    }
