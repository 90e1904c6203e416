"""A removal check: models are trained without the units that a direction or a target names, and compared with controls."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from zarr.storage import MemoryStore

from dmstore.core.progress import Progress
from dmstore.counterfactual.from_runs import change_of, from_runs
from dmstore.counterfactual.removed_units import Choice, choose
from dmstore.errors import IncompleteError, InputError
from dmstore.schema.group_specs import group_spec
from dmstore.storage.table import groups
from dmstore.study import removal as removals
from dmstore.study.algorithm import Algorithm
from dmstore.study.dataset import read_rows
from dmstore.study.display import counted
from dmstore.study.plan import Part
from dmstore.study.removal import MODELS, RemovalRuns
from dmstore.study.results import name_of
from dmstore.study.study import Study
from dmstore.training.sharing import untried
from dmstore.training.worker import train as train_runs

if TYPE_CHECKING:
    import xarray as xr

_BYTES = 64 << 20


@dataclass(frozen=True)
class Arms:
    """Of one algorithm, the models without the units, and their controls.

    Attributes
    ----------
    algorithm : Algorithm
    removed, control : RemovalRuns
        Controls beside the runs that serve as such.
    stored : (run,) int64
        Runs that serve as controls: nothing was fitted on them, and they saw as many units.
    """

    algorithm: Algorithm
    removed: RemovalRuns
    control: RemovalRuns
    stored: NDArray[np.int64]


def removal(
    study: Study,
    *algorithms: str,
    direction: str | None = None,
    target: object = None,
    share: float = 5,
    end: str = "top",
    models: int = MODELS,
    as_runs: bool = False,
    train: bool = True,
    comparison: str | None = None,
    part: Part | Literal["next"] | None = None,
    threads: int = 1,
    progress: Progress | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> xr.Dataset:
    """Train models without the train units that weigh most, and measure what they lose against random removals of as many.

    The units are chosen from fits, which never see these models. Whatever is trained already is not trained again: models of
    the same units, controls of the same number of units, and stored runs of the right size that nothing is fitted on.

    Parameters
    ----------
    study : Study
    *algorithms : str
        With a direction the two that were compared; with a target one or more, the first of which weighs the units.
    direction : str, optional
        ``A1``: the first direction of the comparison's first algorithm, ``B2``: the second of its other one. Its
        subpopulation is looked at.
    target : optional
        The id of a target instead.
    share : float
        Of the train units, in percent, over 0 and up to 50.
    end : {"top", "bottom"}
        Of the direction, or of the target's weights.
    models : int
        Without the units, and as many controls at least.
    as_runs : bool
        Each model sees as many units as the algorithm's runs do, drawn from those that are left; stored runs are the
        controls then. Otherwise it sees all that are left.
    train : bool
        Train what is pending, where the algorithm has a task.
    comparison : str, optional
        By its name, whose direction is meant and beside which the result is kept; the newest by default.
    part : Part or "next", optional
        Train this part alone, or share with other processes that do the same.
    threads : int
        BLAS threads of training.
    progress : callable, optional
        Called with the name of what is trained, models done and models in all.
    stop : callable
        Asked before each batch; true ends the work early, with nothing lost.

    Returns
    -------
    xarray.Dataset
        As :func:`dmstore.analysis.removal_effect` gives it, with ``predicted`` by the datamodels, ``seen``, ``spread_masks``
        behind the spread, ``missed`` and ``missed_deviation``, how many of the units runs miss (algorithm); ``unit``
        (unit) and ``target`` (measured) ids; attributes ``name``, ``output``, ``share``, ``kept``.

    Raises
    ------
    InputError
        If the share is out of range, too large for what runs see, or too few models worked.
    NotFoundError
        If there is no such direction, target, fit or comparison.
    IncompleteError
        If models are pending still, with what trains them.
    """
    from dmstore.analysis.comparison.removal_effect import FEWEST, removal_effect

    if models < FEWEST:
        msg = f"{models} models: give {FEWEST} or more, because an interval needs to know how much models differ"
        raise InputError(msg)
    chosen = choose(
        study,
        algorithms,
        direction=direction,
        target=target,
        share=share,
        end=end,
        comparison=comparison,
    )
    sizes = {name: _seen(study.algorithm(name), chosen, as_runs=as_runs) for name in algorithms}
    arms = {name: _arms(study, name, chosen, sizes[name], models) for name in algorithms}
    pending = []
    for name, own in arms.items():
        for runs in (own.removed, own.control):
            if train and runs.task is not None and len(untried(runs, None)):
                train_runs(
                    study,
                    name,
                    removal=runs.removal,
                    models=runs.count,
                    part=part,
                    threads=threads,
                    progress=progress,
                    stop=stop,
                )
            if left := len(untried(runs, None)):
                pending.append((name, runs, left))
    if pending:
        raise IncompleteError(_remedy(pending, train=train))
    version = sum(_version(own) for own in arms.values())
    said = {name: _said(own, chosen) for name, own in arms.items()}
    told = {name: from_runs(study, name, chosen, sizes[name], threads) for name in algorithms}
    result = removal_effect(
        {name: ours for name, (ours, _) in said.items()},
        {name: others for name, (_, others) in said.items()},
        spread={name: one.spread for name, one in told.items()},
        masks=_masks(arms, algorithms[0]),
        expected={name: one.expected for name, one in told.items()},
    )
    ids = study.ids(chosen.target_set)[chosen.targets]
    weights = [
        float(chosen.weight[name] @ change_of(chosen, len(chosen.weight[name]), sizes[name]))
        for name in algorithms
    ]
    numbers = {
        "predicted": weights,
        "seen": list(sizes.values()),
        "spread_masks": [one.masks for one in told.values()],
        "missed": [one.missed for one in told.values()],
        "missed_deviation": [one.give for one in told.values()],
    }
    result = result.assign(
        {key: ("algorithm", np.array(values)) for key, values in numbers.items()}
    ).assign_coords(unit=study.ids("train")[chosen.units], measured=ids)
    result.attrs |= {"name": chosen.name, "output": chosen.output, "share": float(share)}
    return result.assign_attrs(kept=_keep(study, result, chosen, said, version))


def _version(own: Arms) -> int:
    """How often what is seen of the runs behind a result has changed: later results have no smaller number, whatever was retracted."""
    tables = [one.table for one in (own.algorithm, own.removed, own.control)]
    return sum(table.view().manifest.version for table in tables)


def _seen(algorithm: Algorithm, chosen: Choice, *, as_runs: bool) -> int:
    """How many units each model sees."""
    left = algorithm.train - len(chosen.units)
    if not as_runs:
        return left
    if not algorithm.planned or algorithm.alpha is None:
        msg = f"algorithm {algorithm.name!r} has masks that were made elsewhere, so its runs are no controls; leave as_runs (--as-runs) out"
        raise InputError(msg)
    seen = int(np.floor(algorithm.alpha * algorithm.train))
    if seen > left:
        msg = f"{chosen.name}: {left} train units are left, and runs of {algorithm.name!r} see {seen}; give a smaller share, or leave as_runs (--as-runs) out"
        raise InputError(msg)
    return seen


def _arms(study: Study, name: str, chosen: Choice, seen: int, models: int) -> Arms:
    """Models and controls of an algorithm, stated in the study."""
    algorithm = study.algorithm(name)
    ours = removals.stated(chosen.units.tolist(), seen, algorithm.uuid)
    others = removals.stated([], seen, algorithm.uuid)
    stored = _spare_runs(algorithm, seen)
    wanted = max(0, models - len(stored))
    for one in (ours, others) if wanted else (ours,):
        removals.add(study.objects, algorithm.prefix, one)
    made = [
        RemovalRuns(study.objects, study.document, algorithm.document, one, count)
        for one, count in ((ours, models), (others, wanted))
    ]
    return Arms(algorithm, made[0], made[1], stored)


def _spare_runs(algorithm: Algorithm, seen: int) -> NDArray[np.int64]:
    """Stored runs that saw so many units, drawn from all, and that nothing was fitted on."""
    if not algorithm.planned or algorithm.alpha is None:
        return np.empty(0, dtype=np.int64)
    if int(np.floor(algorithm.alpha * algorithm.train)) != seen:
        return np.empty(0, dtype=np.int64)
    view = algorithm.table.view()
    if not len(view):
        return view.run
    mask_id = view.read(["mask_id"])["mask_id"]
    # Of repeats of a mask one, so that controls are independent.
    first = np.unique(mask_id, return_index=True)[1]
    spare = np.zeros(len(view), dtype=bool)
    spare[first] = True
    return np.asarray(view.run[spare & (algorithm.split(mask_id) == "eval")])


def _remedy(pending: list[tuple[str, RemovalRuns, int]], *, train: bool) -> str:
    """What is pending, and what trains it."""
    parts = []
    for name, runs, left in pending:
        what = "without these units" if len(runs.units) else "as controls"
        text = f"{counted(left, 'model')} of {name!r} {what}"
        if runs.task is not None:
            text += f" (--removal {runs.removal} --models {runs.count} of 'dmstore train' and 'dmstore submit')"
        if runs.task is None:
            text += f" (it has no task: store them with RunWriter(study, {name!r}, removal={runs.removal!r}, models={runs.count}), masks as they come)"
        parts.append(text)
    tasks = any(runs.task is not None for _, runs, _ in pending)
    again = (
        "run the same command again" + ("" if train else " and let it train")
        if tasks
        else "then run the same command again"
    )
    return f"pending: {'; '.join(parts)}; {again}"


def _said(own: Arms, chosen: Choice) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean output over the targets, of models and of controls."""
    ours, others = (_means(runs, None, chosen) for runs in (own.removed, own.control))
    if len(own.stored):
        others = np.concatenate([others, _means(own.algorithm, own.stored, chosen)])
    return ours, others


def _means(
    algorithm: Algorithm, runs: NDArray[np.int64] | None, chosen: Choice
) -> NDArray[np.float64]:
    """Mean output over the targets of some runs, or of all that are stored: (run,) float64."""
    view = algorithm.table.view()
    position = np.arange(len(view)) if runs is None else np.flatnonzero(np.isin(view.run, runs))
    step = max(1, _BYTES // (8 * view.table.sizes["target"]))
    parts = [
        read_rows(view, chosen.output, position[start : start + step])[:, chosen.targets]
        .astype(np.float64)
        .mean(axis=1)
        for start in range(0, len(position), step)
    ]
    return np.concatenate([*parts, np.empty(0)])


def _masks(
    arms: dict[str, Arms], first: str
) -> dict[str, tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Masks of models and controls: equal where they are those of the first algorithm, -1 where none is shared."""
    made = {}
    for name, own in arms.items():
        parts = []
        for runs, others in (
            (own.removed, arms[first].removed),
            (own.control, arms[first].control),
        ):
            mask_id = runs.table.view().read(["mask_id"])["mask_id"]
            shared = not runs.one_mask and runs.shares_masks(others)
            # Below those of stored runs, which are hashes and counts from 0.
            parts.append(-2 - mask_id if shared else np.full(len(mask_id), -1))
        stored = np.full(len(own.stored), -1)
        if own.algorithm.shares_masks(arms[first].algorithm) and len(stored):
            view = own.algorithm.table.view()
            stored = view.read(["mask_id"])["mask_id"][np.isin(view.run, own.stored)]
        made[name] = (parts[0], np.concatenate([parts[1], stored]))
    return made


def _keep(
    study: Study,
    result: xr.Dataset,
    chosen: Choice,
    said: dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]],
    version: int,
) -> str:
    """Keep a result under a name that follows from all that it is of: the same again is there already."""
    arrays: dict[str, NDArray[Any]] = {
        "algorithm": result["algorithm"].values,
        "unit": chosen.units,
        "target": chosen.targets,
        **{
            key: result[key].values
            for key in (
                *("effect", "effect_low", "effect_high", "p", "predicted"),
                *("models", "controls", "seen", "spread", "spread_masks"),
                *("scaled", "scaled_low", "scaled_high"),
                *("difference", "difference_low", "difference_high", "difference_p"),
                *("expected", "expected_low", "expected_high"),
                *("surplus", "surplus_low", "surplus_high"),
                *("missed", "missed_deviation"),
            )
        },
    }
    values = hashlib.sha256()
    for ours, others in said.values():
        values.update(ours.tobytes() + b"\0" + others.tobytes())
    values.update(result["spread"].values.tobytes() + result["expected"].values.tobytes())
    stated = {
        "name": chosen.name,
        "algorithms": list(said),
        "units": chosen.units.tolist(),
        "targets": chosen.targets.tolist(),
        "seen": result["seen"].values.tolist(),
        "output": chosen.output,
        "values": values.hexdigest(),
    }
    where = f"{chosen.where}removal-{name_of(stated)}.zarr.zip"
    attrs = {key: str(result.attrs[key]) for key in ("name", "output")}
    attrs |= {"share": f"{result.attrs['share']:g}", "version": str(version)}
    store = MemoryStore()
    groups.fill(store, group_spec("removals"), arrays, whole=True, attrs=attrs)
    study.objects.put_if_absent(where, groups.zip_bytes(store))
    return where
