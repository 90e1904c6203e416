"""A counterfactual check by models that the task keeps: inputs are transformed, and the models are asked."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dmstore.core.progress import Progress, counting
from dmstore.counterfactual.confidence import PROBABILITY, Reading, chosen
from dmstore.counterfactual.keeping import keep
from dmstore.errors import InputError
from dmstore.schema.names import check_name
from dmstore.study.study import Study

if TYPE_CHECKING:
    import xarray as xr

    from dmstore.training.transformations import Transformation

Function = Callable[[NDArray[np.uint8], float], NDArray[np.uint8]]
ON = ("all", "others", "class")


def check(
    study: Study,
    a: str,
    b: str,
    transformation: Transformation | Function,
    label: int | str | Sequence[int | str],
    *more: str,
    name: str,
    intensity: Sequence[float],
    examples: NDArray[np.int64] | None = None,
    on: str = "all",
    models: int = 100,
    seed: int = 0,
    progress: Progress | None = None,
) -> xr.Dataset:
    """Measure what a transformation does to the probability of classes under algorithms whose task keeps its models.

    Parameters
    ----------
    study : Study
    a, b, *more : str
        Compared algorithms; of more than two, the result is kept beside the comparison of the first two.
    transformation : Transformation or callable
        From :func:`dmstore.training.transformations.choose`, or a function of images and an intensity.
    label : int, str or sequence of these
        The class, or classes: numbers or names.
    name : str
        What to call the transformation in the report.
    intensity : sequence of float
        From 0.
    examples : (example,) int64, optional
        Positions of the targets to change; all of them by default, as in the paper.
    on : {"all", "others", "class"}
        Of these all, those of other classes than the one that is watched, or those of it.
    models : int
        Models to train on all data, if there are fewer.
    seed : int
        Of a Transformation: each example's own seed follows from it and the example's id.
    progress : callable, optional
        Called with ``counterfactual``, steps done and steps in all.

    Returns
    -------
    xarray.Dataset
        ``effect``, ``effect_low``, ``effect_high``, ``delta``, ``epsilon`` (algorithm, intensity, class), ``models``
        (algorithm), ``examples`` (class); attribute ``kept`` says where it is kept.

    Raises
    ------
    InputError
        If a class is not in the study, no target is left, or the study has no images.
    ExistsError
        If another result is kept under this name and class.
    """
    from dmstore.analysis.comparison.effect import Effects
    from dmstore.training.counterfactual import probabilities
    from dmstore.training.transformations import Transformation, apply
    from dmstore.training.transformed import images_of

    check_name(name.replace(" ", "_").replace(":", "_"), "transformation")
    algorithms = [a, b, *more]
    if len(set(algorithms)) < len(algorithms):
        msg = f"{', '.join(algorithms)}: give two algorithms or more, each once"
        raise InputError(msg)
    numbers = check_classes(study, label)
    if on not in ON:
        msg = f"on {on!r} is not allowed; give {', '.join(ON)}"
        raise InputError(msg)
    if "label" not in study.targets and on != "all":
        msg = f"{study.path}: the targets have no labels, so no class can be left out"
        raise InputError(msg)
    how = Reading("logit", PROBABILITY, any_class=True)
    positions = np.arange(study.targets.sizes["target"]) if examples is None else examples
    labels = study.label()[positions]
    names = study.class_names
    rows = [chosen(how, labels, number, on, names[number]) for number in numbers]
    needed = np.unique(np.concatenate(rows))
    images = np.asarray(images_of(study, study.targets, "test")[positions[needed]])
    ids = study.ids("test")[positions[needed]]
    steps, tell = itertools.count(1), counting(progress, "counterfactual")

    def changed(given: NDArray[np.uint8], strength: float) -> NDArray[np.uint8]:
        if isinstance(transformation, Transformation):
            return apply(transformation, given, ids, strength, seed)
        return transformation(given, strength)

    def advance() -> None:
        tell(next(steps), len(algorithms) * (1 + len(intensity)))

    effects = Effects(algorithms, intensity, [names[number] for number in numbers])
    for algorithm in algorithms:
        values: Any = probabilities(
            study, algorithm, images, changed, intensity, numbers, models=models, advance=advance
        )
        for step in range(len(intensity)):
            change = values[step] - values[0]
            for column, own in enumerate(rows):
                place = np.searchsorted(needed, own)
                effects.add(algorithm, step, column, change[:, place, column])
    result = effects.dataset(numbers, clip=True).assign_attrs(
        measure=PROBABILITY, on=on, output="logit", name=name
    )
    return result.assign_attrs(kept=keep(study, result, name))


def check_classes(study: Study, label: int | str | Sequence[int | str]) -> list[int]:
    """Numbers of classes, each once.

    Parameters
    ----------
    study : Study
    label : int, str or sequence of these

    Returns
    -------
    list of int

    Raises
    ------
    InputError
        If one is not in the study, or there is none.
    """
    given = [label] if isinstance(label, int | np.integer | str) else label
    numbers = list(
        dict.fromkeys(study.class_number(one) if isinstance(one, str) else one for one in given)
    )
    count = len(study.class_names)
    for number in numbers:
        if not 0 <= number < count:
            msg = f"class {number} is not in the study; it has classes 0 to {count - 1}"
            raise InputError(msg)
    if not numbers:
        msg = "no class is given; name the class whose probability is watched"
        raise InputError(msg)
    return [int(number) for number in numbers]
