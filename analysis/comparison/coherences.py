"""Whether the targets at the top of each direction are alike in what they rest on: chosen by half of the runs, measured on the other."""

from __future__ import annotations

import numpy as np
import xarray as xr

from dmstore.analysis.comparison.modeldiff import modeldiff, rank
from dmstore.analysis.experiment.inference import discovery_rates
from dmstore.analysis.geometry.coherence import coherence
from dmstore.errors import InputError
from dmstore.study import results
from dmstore.study.study import Study, check_opened


def coherences(
    study: Study,
    a: str,
    b: str,
    *,
    comparison: str | None = None,
    components: int = 3,
    draws: int = 1000,
    random_state: int = 0,
) -> xr.Dataset:
    """Coherence of the subpopulations of two compared algorithms, against random sets of targets of the same classes.

    A subpopulation is coherent by its choice on the runs that chose it. So directions and their top targets are those of the
    fits of one half of the masks here, and residuals those of the other half.

    Parameters
    ----------
    study : Study
    a, b : str
        Compared algorithms.
    comparison : str, optional
        Its name; the newest by default. Its fits, targets and parameters are taken.
    components : int
        Directions of either algorithm.
    draws : int
        Random sets.
    random_state : int
        Draws them.

    Returns
    -------
    xarray.Dataset
        ``coherence``, ``null`` (mean over random sets), ``p``, ``q`` (Benjamini-Hochberg over all), ``members`` (algorithm,
        component); NaN and 0 where there is no such direction, or fewer than two of its targets have a residual. ``member``
        (algorithm, component, rank): positions of the targets, -1 where there is none.

    Raises
    ------
    NotFoundError
        If they have not been compared.
    InputError
        If a fit has no halves, or there are no components or draws.
    """
    check_opened(study)
    if components < 1:
        msg = f"components {components}: give 1 or more"
        raise InputError(msg)
    shown = study.comparison(a, b, comparison)
    document = results.newest_comparison(study.objects, a, b, shown.attrs["comparison"])
    names, stated = document["algorithms"], document["parameters"]
    included = np.flatnonzero(shown["included"].values)
    halves = []
    for name, fit in zip(names, document["fits"], strict=True):
        data = study.datamodels(name, fit)
        if "weight_half" not in data:
            msg = f"fit {fit!r} of {name!r} has no halves, so no other runs can say whether a subpopulation is coherent; fit with them and compare again"
            raise InputError(msg)
        halves.append(data["weight_half"].isel(target=included))
    first, second = ([one.isel(half=half) for one in halves] for half in (0, 1))
    label = study.label(study.newest_fit(names[0], document["fits"][0])["target_set"])[included]
    top = int(stated.get("top", 16))
    found = modeldiff(
        *first,
        names=(names[0], names[1]),
        label=label,
        components=components,
        top=top,
        center=bool(stated.get("center", True)),
        random_state=random_state,
    )
    shape = (2, components)
    value, null, p = (np.full(shape, np.nan) for _ in range(3))
    members, member = np.zeros(shape, dtype=np.int64), np.full((*shape, top), -1, dtype=np.int64)
    for row in (0, 1):
        own = second if row == 0 else second[::-1]
        for k in range(min(components, rank(found)[row])):
            chosen = found["subpopulation"].values[row, k, 0]
            chosen = chosen[chosen >= 0]
            try:
                said = coherence(
                    own[0], own[1], chosen, label, draws=draws, random_state=random_state
                )
            except InputError:
                if draws < 1:
                    raise
                continue
            value[row, k], p[row, k] = float(said["coherence"]), float(said["p"])
            null[row, k], members[row, k] = float(said["null"].mean()), int(said["members"])
            member[row, k, : len(chosen)] = included[chosen]
    known = np.isfinite(p)
    q = np.full(shape, np.nan)
    q[known] = discovery_rates([p[known]])[0]
    dims = ("algorithm", "component")
    return xr.Dataset(
        {
            "coherence": (dims, value),
            "null": (dims, null),
            "p": (dims, p),
            "q": (dims, q),
            "members": (dims, members),
            "member": ((*dims, "rank"), member),
        },
        coords={"algorithm": list(names), "component": np.arange(components)},
        attrs={"comparison": shown.attrs["comparison"], "draws": draws},
    )
