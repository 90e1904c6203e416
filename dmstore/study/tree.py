"""A whole study as one lazy tree of datasets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import xarray as xr

    from dmstore.study.study import Study


def study_tree(study: Study) -> xr.DataTree:
    """See :meth:`dmstore.study.study.Study.tree`."""
    import xarray as xr

    nodes: dict[str, xr.Dataset] = {"/train": study.train, "/targets": study.targets}
    later = [name for name, entry in study.target_sets.items() if entry["later"]]
    nodes |= {f"/target_sets/{name}": study.target_set(name) for name in later}
    for name in study.algorithms:
        nodes[f"/runs/{name}"] = study.runs(name)
        for target_set in study.objects.children(f"algorithms/{name}/outputs/"):
            if target_set in later:
                nodes[f"/outputs/{name}/{target_set}"] = study.outputs(name, target_set)
        if any(fit["complete"] for fit in study.fits(name)):
            nodes[f"/datamodels/{name}"] = study.datamodels(name)
    for entry in study.comparisons:
        a, b = entry["algorithms"]
        nodes[f"/comparisons/{a},{b}"] = study.comparison(a, b)
    return xr.DataTree.from_dict(nodes, name=Path(study.path).name)
