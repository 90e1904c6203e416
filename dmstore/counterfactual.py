"""A counterfactual check of two algorithms, kept beside their comparison."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dmstore.core.progress import Progress, counting
from dmstore.errors import ExistsError, InputError
from dmstore.schema.group_specs import group_spec
from dmstore.schema.names import check_name
from dmstore.storage.table import groups
from dmstore.study.study import Study

if TYPE_CHECKING:
    import xarray as xr


def check(
    study: Study,
    a: str,
    b: str,
    transformation: Callable[[NDArray[np.uint8], float], NDArray[np.uint8]],
    label: int,
    *,
    name: str,
    intensity: Sequence[float],
    examples: NDArray[np.int64] | None = None,
    models: int = 100,
    progress: Progress | None = None,
) -> xr.Dataset:
    """Measure what a transformation does to the probability of a class under two algorithms.

    Parameters
    ----------
    study : Study
    a, b : str
        Compared algorithms, whose task keeps its models.
    transformation : callable
        Of images and an intensity; see :mod:`dmstore.training.transformations`.
    label : int
        The class.
    name : str
        What to call the transformation in the report.
    intensity : sequence of float
        From 0.
    examples : (example,) int64, optional
        Positions of the targets to change; those not of the class by default.
    models : int
        Models to train on all data, if there are none yet.
    progress : callable, optional
        Called with ``counterfactual``, steps done and steps in all.

    Returns
    -------
    xarray.Dataset
        ``effect``, ``effect_low``, ``effect_high`` (algorithm, intensity).

    Raises
    ------
    InputError
        If the class is not in the study, no target is left, or the study has no images.
    ExistsError
        If another result is kept under this name and class.
    """
    from dmstore.analysis.comparison.effect import effect
    from dmstore.training.counterfactual import probabilities

    check_name(name.replace(" ", "_"), "transformation")
    comparison = study.comparison(a, b).attrs["comparison"]
    if not 0 <= label < len(study.class_names):
        msg = f"class {label} is not in the study; it has classes 0 to {len(study.class_names) - 1}"
        raise InputError(msg)
    if "label" not in study.targets:
        msg = f"{study.path}: the targets have no labels, so no class can be left out"
        raise InputError(msg)
    if "image" not in study.targets:
        msg = f"{study.path}: no target images, so nothing can be transformed"
        raise InputError(msg)
    labels: Any = study.targets["label"].values
    chosen = np.flatnonzero(labels != label) if examples is None else examples
    if not len(chosen):
        msg = f"no target is left to transform for class {label}"
        raise InputError(msg)
    images = study.targets["image"].isel(target=chosen).values
    steps, tell = itertools.count(1), counting(progress, "counterfactual")

    def advance() -> None:
        tell(next(steps), 2 * (1 + len(intensity)))

    effects = effect(
        {
            n: probabilities(
                study, n, images, transformation, intensity, label, models=models, advance=advance
            )
            for n in (a, b)
        },
        intensity,
    )
    arrays = {
        "algorithm": np.array([a, b]),
        "intensity": np.asarray(intensity, dtype=np.float64),
        **{key: effects[key].values for key in ("effect", "effect_low", "effect_high")},
    }
    where = f"comparisons/{comparison}/counterfactual-{name.replace(' ', '_')}-on-{label}.zarr.zip"
    written = groups.write_zip(study.objects, where, group_spec("counterfactual"), arrays)
    if not written and not _same(groups.read(study.objects, where), arrays):
        msg = (
            f"{study.path}/{where}: another counterfactual is kept under {name!r}; results never "
            f"change, so give this one another --name"
        )
        raise ExistsError(msg)
    return effects


def _same(kept: Mapping[str, NDArray[Any]], made: Mapping[str, NDArray[Any]]) -> bool:
    """Whether two results are one, whichever algorithm comes first, up to rounding."""
    if sorted(kept["algorithm"]) != sorted(made["algorithm"]):
        return False
    if not np.array_equal(kept["intensity"], made["intensity"]):
        return False
    first, second = (np.argsort(arrays["algorithm"]) for arrays in (kept, made))
    return all(
        np.allclose(kept[n][first], made[n][second], rtol=1e-5, atol=1e-6)
        for n in ("effect", "effect_low", "effect_high")
    )
