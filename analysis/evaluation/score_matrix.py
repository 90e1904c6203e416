"""Attribution scores from outside, held against a study before they are scored on its runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmstore.core.masked import unmasked
from dmstore.errors import InputError
from dmstore.readers.scores import decide_orientation, labelled, open_scores
from dmstore.readers.units import Units
from dmstore.study.study import Study

LONGEST_NAME = 40
LARGER = ("better", "output")


@dataclass(frozen=True)
class Scores:
    """A score matrix that fits a study.

    Attributes
    ----------
    name : str
    weight : (target, train) float
    bias : (target,) float or None
        Where it is known and predictions are in output units.
    about : dict
        Where it came from: ``file``, ``sha256``, ``units``, and so on.
    fitted : (run,) int64 or None
        Runs that it says it was fitted on.
    origin : dict
        ``study`` and ``content_id`` that it says it was fitted on, as far as it does.
    larger : {"better", "output"} or None
        What larger scores mean, where it is known: a better model, or more of the output.
    """

    name: str
    weight: NDArray[Any]
    bias: NDArray[np.float64] | None
    about: Mapping[str, Any] = field(default_factory=dict)
    fitted: NDArray[np.int64] | None = None
    origin: Mapping[str, str] = field(default_factory=dict)
    larger: str | None = None

    def overlap(
        self, study_uuid: str, content_id: str, run: NDArray[np.int64], *, reserved: bool = True
    ) -> str:
        """Why these scores must not be judged by some runs; empty if nothing speaks against it.

        Parameters
        ----------
        study_uuid : str
            Fits of a study never see the runs that it reserves.
        content_id : str
            Of the algorithm's runs.
        run : (run,) int64
            The runs to score on.
        reserved : bool
            Whether the study reserves all of them.
        """
        if self.fitted is not None:
            common = np.intersect1d(self.fitted, run)
            if len(common):
                return (
                    f"say that they were fitted on {len(common)} of these runs ({_first(common)})"
                )
        elif self.origin.get("study") == study_uuid:
            return "" if reserved else "say that they were fitted on runs of this study"
        elif self.origin.get("content_id") == content_id:
            return (
                f"say that they were fitted on the same runs in another study "
                f"({self.origin.get('study', 'not named')[:12]}), which reserves others"
            )
        return ""


def read_scores(
    study: Study,
    item: Any,
    target_set: str,
    *,
    name: str | None = None,
    alpha: float | None = None,
    key: str | None = None,
    experiment: str | None = None,
    orientation: str | None = None,
    units: str | None = None,
    larger: str | None = None,
) -> Scores:
    """Read a score matrix and hold its shape and ids against a study.

    Parameters
    ----------
    study : Study
    item : path, DataArray, Dataset or (target, train) array
        A file (:func:`dmstore.readers.scores.open_scores`), or data: a Dataset needs ``weight``.
        Of a file, arrays ``target_id`` and ``train_id`` are compared with the study's ids, and
        ``fitted_runs`` lists the ids of runs that were fitted on; of labelled data, coordinates
        and the attribute ``fitted_runs``.
    target_set : str
    name : str, optional
        What to call it; its file's name by default.
    alpha : float, optional
        Share of the training set that a run saw, for standardised weights.
    key, experiment, orientation, units : str, optional
        As in :func:`dmstore.analysis.compare_scores`.
    larger : {"better", "output"}, optional
        What larger scores mean: a better model, as TRAK's and kronfluence's do, or more of the output.

    Raises
    ------
    InputError
        If it cannot be used; the message names it and the remedy.
    """
    if larger not in (None, *LARGER):
        msg = f"larger {larger!r} is not known; give {' or '.join(LARGER)}"
        raise InputError(msg)
    if isinstance(item, str | Path):
        read = _from_file(study, item, target_set, name, alpha, key, experiment, orientation, units)
    else:
        read = _from_data(study, item, target_set, name or "scores")
    return read if larger is None else replace(read, larger=larger)


def _from_file(
    study: Study,
    path: str | Path,
    target_set: str,
    name: str | None,
    alpha: float | None,
    key: str | None,
    experiment: str | None,
    orientation: str | None,
    units: str | None,
) -> Scores:
    file = open_scores(path, key=key, experiment=experiment)
    train, targets = study.ids("train"), study.ids(target_set)
    decided = decide_orientation(file, given=orientation, train=len(train), targets=len(targets))
    for what, ids in (("train_id", train), ("target_id", targets)):
        stated = file.vector(what)
        if stated is not None:
            _check_ids(str(file.path), what, stated, ids)
    kind = units or ("standardised" if file.is_standardised_by_default else None)
    matrix = labelled(
        file,
        orientation=decided,
        units=Units(kind, alpha=alpha or 0.5, given=units is not None),
        train=train,
        targets=targets,
    )
    in_units = matrix.attrs["units"].startswith(("raw", "converted"))
    bias = np.asarray(matrix["bias"].values, dtype=float) if "bias" in matrix and in_units else None
    fitted = file.vector("fitted_runs")
    stem = file.path.name.removesuffix(file.path.suffix)
    return Scores(
        name or printable(stem),
        matrix["weight"].values,
        bias,
        {k: v for k, v in matrix.attrs.items() if k != "zero_rows"},
        None if fitted is None else _run_ids(fitted, str(file.path)),
        file.about,
        file.larger,
    )


def _from_data(study: Study, item: Any, target_set: str, name: str) -> Scores:
    """Labelled data, or a plain (target, train) array."""
    import xarray as xr

    attrs, bias = {}, None
    train, targets = study.ids("train"), study.ids(target_set)
    if isinstance(item, xr.Dataset):
        if "weight" not in item:
            msg = f"{name}: has no 'weight' ({', '.join(map(str, item.data_vars))}); give the array itself"
            raise InputError(msg)
        attrs = dict(item.attrs)
        bias = np.asarray(item["bias"].values, dtype=float) if "bias" in item else None
        item = item["weight"]
    if isinstance(item, xr.DataArray):
        attrs = {**item.attrs, **attrs}
        if set(item.dims) != {"target", "train"}:
            msg = f"{name}: has dims {tuple(item.dims)}; scores have 'target' and 'train'"
            raise InputError(msg)
        item = item.transpose("target", "train")
        _check_shape(name, item.shape, targets, train)
        for what, ids in (("train", train), ("target", targets)):
            if what in item.coords:
                _check_ids(name, what, item[what].values, ids)
        item = item.values
    weight = unmasked(item, name)
    _check_shape(name, weight.shape, targets, train)
    if bias is not None and not (bias.shape == weight.shape[:1] and np.isfinite(bias).all()):
        msg = f"{name}: bias has shape {bias.shape} and must be one finite number a target; give it whole or leave it out"
        raise InputError(msg)
    if weight.dtype.kind not in "fiu" or not np.isfinite(weight).all():
        msg = f"{name}: scores of dtype {weight.dtype} must be finite numbers; leave nothing out"
        raise InputError(msg)
    fitted = attrs.get("fitted_runs")
    return Scores(
        name,
        weight,
        bias,
        {"units": "as given"},
        None if fitted is None else _run_ids(unmasked(fitted, f"{name}: fitted_runs"), name),
        {k: str(attrs[k]) for k in ("study", "content_id") if k in attrs},
    )


def distinct(names: Sequence[str], taken: Sequence[str], paths: Sequence[Any]) -> list[str]:
    """Names for several score files: each its own, longer where files are called alike.

    Raises
    ------
    InputError
        If two files remain that cannot be told apart.
    """
    longer = [
        _longer(path, name, [p for p, n in zip(paths, names, strict=True) if n == name])
        if isinstance(path, str | Path) and (names.count(name) > 1 or name in taken)
        else name
        for name, path in zip(names, paths, strict=True)
    ]
    for name in longer:
        if longer.count(name) > 1 or name in taken:
            msg = f"two methods would be called {name!r}; give the files different names"
            raise InputError(msg)
    return longer


def _longer(path: str | Path, name: str, alike: Sequence[Any]) -> str:
    """A name with the folder that tells a path from those that are called alike.

    It is the nearest one, from the end of the path as it was given: the file's own folder where there is no other.
    """
    parts = Path(path).absolute().parts[::-1]
    others = [
        Path(other).absolute().parts[::-1]
        for other in alike
        if isinstance(other, str | Path) and Path(other).absolute() != Path(path).absolute()
    ]
    # A folder that was given may tell by itself, a file by one of those above.
    for place in range(0 if Path(path).is_dir() else 1, len(parts)):
        if all(place >= len(other) or other[place] != parts[place] for other in others):
            return printable(parts[place] if place == 0 else f"{parts[place]}-{name}")
    return name


def _check_shape(
    name: str, shape: tuple[int, ...], targets: NDArray[np.str_], train: NDArray[np.str_]
) -> None:
    if shape != (len(targets), len(train)):
        turned = shape == (len(train), len(targets))
        msg = (
            f"{name}: scores of shape {shape} do not fit {len(targets)} targets and {len(train)} train units; "
            f"{'transpose them' if turned else 'give scores of this study'}"
        )
        raise InputError(msg)


def _check_ids(where: str, what: str, stated: NDArray[Any], ids: NDArray[np.str_]) -> None:
    texts = np.asarray(stated).astype(str)
    if texts.shape != ids.shape:
        msg = f"{where}: {what} has shape {texts.shape}, but the study has {len(ids)}; give scores of this study"
        raise InputError(msg)
    wrong = np.flatnonzero(texts != ids)
    if len(wrong):
        place = int(wrong[0])
        msg = (
            f"{where}: {what} differs from the study's ids at {len(wrong)} places, first {texts[place][:40]!r} where the "
            f"study has {str(ids[place])[:40]!r} (position {place}); put the scores into the study's order"
        )
        raise InputError(msg)


def _run_ids(values: NDArray[Any], where: str) -> NDArray[np.int64]:
    if values.ndim != 1 or values.dtype.kind not in "iu":
        msg = f"{where}: fitted_runs is {values.dtype} of shape {values.shape}; it must list run ids, one integer each"
        raise InputError(msg)
    return values.astype(np.int64)


def _first(values: NDArray[np.int64]) -> str:
    return ", ".join(str(v) for v in values[:3].tolist()) + (", …" if len(values) > 3 else "")


def printable(text: str) -> str:
    """A name from a path as it can be shown: no control characters, and not too long."""
    kept = "".join(c if c.isprintable() else "_" for c in text)
    return kept if len(kept) <= LONGEST_NAME else f"{kept[: LONGEST_NAME - 1]}…"
