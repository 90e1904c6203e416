"""A store as a benchmark: a fit, baselines and outside scores judged by the same runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dmstore.analysis.evaluation import rank_statistics
from dmstore.analysis.evaluation.baselines import NAMES
from dmstore.analysis.evaluation.baselines import baselines as predict_baselines
from dmstore.analysis.evaluation.eval_runs import FEWEST, Truth, mse, predict, read_truth
from dmstore.analysis.evaluation.score_matrix import Scores, distinct, read_scores
from dmstore.core.given import seed_of, threads_of
from dmstore.core.progress import Progress
from dmstore.core.threads import blas_threads
from dmstore.errors import InputError, NotFoundError
from dmstore.schema.typed_documents import FitDocument
from dmstore.study.algorithm import Algorithm
from dmstore.study.study import Study, check_opened

if TYPE_CHECKING:
    import xarray as xr

FIT = "fit"
TURNED = "turned"
# Not "method": that is a parameter of xarray's `sel`.
DIM = "predictor"
_PER_TARGET = ("lds", "lds_low", "lds_high", "kendall", "pearson", "r2", "mse")
PER_METHOD = ("mean_lds", "mean_lds_low", "mean_lds_high", "gap", "gap_low", "gap_high")


@dataclass(frozen=True)
class Method:
    """What is judged.

    Attributes
    ----------
    name : str
    kind : {"fit", "scores", "baseline"}
    predicted : (target, mask) float64
    runs : float
        Runs that it was made from; NaN where nobody says.
    seen : str
        Why its figures are no evidence: it has seen the runs that it is judged by. Empty if not.
    about : str
    in_units : bool
        Whether predictions are in output units, so that errors mean something.
    """

    name: str
    kind: str
    predicted: NDArray[np.float64]
    runs: float
    seen: str
    about: str = ""
    in_units: bool = True


def benchmark(
    study: Study,
    algorithm: str,
    *,
    scores: Sequence[Any] | Mapping[str, Any] = (),
    options: Sequence[Mapping[str, str | None]] = (),
    fit: str | None = None,
    output: str | None = None,
    baselines: bool = True,
    resamples: int = 1000,
    random_state: int = 0,
    force: bool = False,
    all_runs: bool = False,
    threads: int | None = None,
    progress: Progress | None = None,
) -> xr.Dataset:
    """Judge a fit, baselines and outside scores by runs that nothing was fitted on.

    A method predicts an output by the sum of its scores over the train units that a mask has; the
    linear datamodeling score (LDS) of a target is the Spearman correlation, over the eval masks, of
    predictions and outputs, repeats of a mask averaged (Park et al. 2023).

    Parameters
    ----------
    study : Study
    algorithm : str
        Whose runs judge.
    scores : sequence or mapping of name to path, DataArray, Dataset or (target, train) array
        Attribution scores of any origin; see :func:`dmstore.analysis.evaluation.score_matrix.read_scores`.
    options : sequence of mapping
        For each of the scores, ``key``, ``experiment``, ``orientation`` and ``units`` of its file, and ``larger``: what larger
        scores mean, ``better`` models (as TRAK's and kronfluence's, without being asked) or more of the ``output``. Those that mean
        better models are turned where a larger output is worse, as a loss is; ``about`` says so.
    fit : str, optional
        The newest complete one by default (of `output`, where it is given); may be missing where there are scores.
    output : str, optional
        What to predict: that of the fit by default, ``margin`` without a fit.
    baselines : bool
        Whether to judge :func:`dmstore.analysis.evaluation.baselines.baselines` beside it.
    resamples : int
        Bootstrap resamples of the eval masks, the same for all methods.
    random_state : int
    force : bool
        Judge by runs that were fitted on where there are no others, or by runs that a score file
        says it was fitted on. The result says so.
    all_runs : bool
        Judge `scores` alone, by all runs that none of them says it was fitted on, whatever the runs are reserved for. An
        algorithm that was added for evaluation only needs no such word.
    threads : int, optional
        All cores by default.
    progress : callable, optional
        Called with ``baselines``, runs read and runs to read.

    Returns
    -------
    xarray.Dataset
        (``predictor``, ``target``) float64: ``lds``, ``lds_low``, ``lds_high`` (95 %, masks
        resampled), ``kendall`` (tau-b), ``pearson``, and in output units, NaN elsewhere, ``mse`` and
        ``r2`` (less than 1 by the error over the variance between eval masks). (``target``,):
        ``ceiling`` (:func:`dmstore.analysis.evaluation.noise_ceiling.noise_ceiling`), NaN without repeats.
        (``predictor``,): ``mean_lds`` over targets with its interval; ``gap``, the fit's mean LDS
        less this one's, with its interval from the same resamples; ``runs`` made from, NaN where not
        known; ``kind``, ``seen`` and ``about``. Targets with a constant output are NaN
        throughout; constant predictions, and those of targets without a datamodel, have correlation 0. Attributes state the runs.

    Raises
    ------
    NotFoundError
        If there is neither a finished fit nor scores.
    InputError
        If scores do not fit the study, fewer than 5 masks can be scored on, or a method has seen
        the runs (without `force`).

    References
    ----------
    Park et al. 2023, TRAK: Attributing Model Behavior at Scale. Ilyas et al. 2022, Datamodels.
    """
    check_opened(study)
    if resamples < 1:
        msg = f"{resamples} resamples are not allowed; give at least 1"
        raise InputError(msg)
    if all_runs and (fit is not None or force or not len(scores)):
        msg = "all runs judge scores that were made elsewhere alone; give scores, and neither a fit nor force"
        raise InputError(msg)
    document: FitDocument | None = None
    try:
        document = study.newest_fit(algorithm, fit, output if fit is None else None)
    except NotFoundError:
        if not len(scores) and algorithm in study.algorithms:
            _require_fits(study.algorithm(algorithm))
        if not len(scores) or fit is not None or algorithm not in study.algorithms:
            raise
    if all_runs:
        document = None
    if document and output not in (None, document["output"]):
        msg = f"fit {document['fit']} explains output {document['output']!r}, not {output!r}; name another --fit or leave --output out"
        raise InputError(msg)
    declared = study.algorithm(algorithm).outputs
    only = next(iter(declared)) if len(declared) == 1 else "margin"
    output_name = output or (document["output"] if document else only)
    runs = study.runs(algorithm)
    target_set = runs.attrs["target_set"]
    read = _read(study, algorithm, scores, options, target_set)
    known = [one.fitted for one in read.values() if one.fitted is not None]
    truth = read_truth(
        runs,
        output_name,
        unit=study.target_train(target_set),
        force=force,
        besides=np.concatenate([*known, np.empty(0, dtype=np.int64)]) if all_runs else None,
    )
    orientation = study.algorithm(algorithm).outputs[output_name]["orientation"]
    used = int((runs["split"].values != "eval").sum())
    random_state = seed_of(random_state)
    with blas_threads(threads_of(threads)):
        methods = [_fit(study, algorithm, document, runs, truth)] if document else []
        reserved = not (all_runs or truth.fitted)
        methods += [
            _outside(
                name,
                one,
                truth,
                one.overlap(study.uuid, runs.attrs["content_id"], truth.run, reserved=reserved),
                orientation,
            )
            for name, one in read.items()
        ]
        _refuse(methods, force=force)
        # Of runs that are all judged by, none is left to make a baseline from.
        if baselines and used and not all_runs:
            predictions = predict_baselines(
                runs,
                output_name,
                truth.mask,
                labels=_labels(study, target_set),
                unit=truth.unit,
                progress=progress,
            )
            seen = "were computed on these runs" if truth.fitted else ""
            methods += [
                Method(name, "baseline", values, used, seen) for name, values in predictions.items()
            ]
        result = judge(methods, truth, resamples, random_state)
    labels = {k: v for k, v in study.labels(target_set).items() if k in ("target", "target_label")}
    return result.assign_coords(labels).assign_attrs(
        {
            "study": study.uuid,
            "algorithm": algorithm,
            "fit": document["fit"] if document else "",
            "output": output_name,
            "orientation": orientation,
            "all_runs": int(all_runs),
            "content_id": runs.attrs["content_id"],
            "eval_runs": len(truth.run),
            "eval_masks": len(truth.mask),
            "repeated_masks": truth.repeated,
            "on_fitted_runs": int(truth.fitted),
            "resamples": resamples,
            "random_state": random_state,
        }
    )


def _fit(
    study: Study, algorithm: str, document: FitDocument, runs: xr.Dataset, truth: Truth
) -> Method:
    datamodels = study.datamodels(algorithm, document["fit"])
    kept = document["runs"]["eval"]
    seen = "was fitted on these runs" if truth.fitted else ""
    if (
        document["content_id"] == runs.attrs["content_id"]
        and kept < (runs["split"].values == "eval").sum()
    ):
        seen = f"kept only {kept} of these runs for evaluation, as its fit.json says"
    predicted = predict(datamodels["weight"], truth.mask) + datamodels["bias"].values[:, None]
    made_from = document["runs"]["train"] + document["runs"]["holdout"]
    return Method(FIT, "fit", predicted, made_from, seen, document["fit"])


def _require_fits(algorithm: Algorithm) -> None:
    """Say that an algorithm for evaluation only judges scores, and has no fit to be judged."""
    if algorithm.is_eval_only:
        msg = f"algorithm {algorithm.name!r} is for evaluation only, so it has no fit: name scores to judge by its runs, with --scores FILE"
        raise InputError(msg)


def _read(
    study: Study,
    algorithm: str,
    scores: Sequence[Any] | Mapping[str, Any],
    options: Sequence[Mapping[str, str | None]],
    target_set: str,
) -> dict[str, Scores]:
    """Outside scores, each under a name of its own."""
    if isinstance(scores, str | bytes | Path):
        msg = f"scores {str(scores)!r}: expected a list; write [{str(scores)!r}]"
        raise InputError(msg)
    items = list(scores.values()) if isinstance(scores, Mapping) else list(scores)
    given = list(scores) if isinstance(scores, Mapping) else [None] * len(items)
    if options and len(options) != len(items):
        msg = f"{len(options)} sets of options for {len(items)} score files; give one each"
        raise InputError(msg)
    alpha = study.algorithm(algorithm).alpha
    read: list[Scores] = [
        read_scores(
            study, item, target_set, name=name, alpha=alpha, **(options[row] if options else {})
        )
        for row, (name, item) in enumerate(zip(given, items, strict=True))
    ]
    names = distinct([one.name for one in read], [FIT, *NAMES], items)
    return dict(zip(names, read, strict=True))


def _outside(name: str, one: Scores, truth: Truth, seen: str, orientation: str) -> Method:
    predicted = predict(one.weight, truth.mask) + (0 if one.bias is None else one.bias[:, None])
    about, in_units = str(one.about.get("units", "")), one.bias is not None
    if one.larger == "better" and is_worse(orientation):
        # What makes a model better lowers such an output; a bias is then in no units that are known.
        predicted, in_units = -predicted, False
        about = f"{TURNED}: larger scores mean better models, a larger output worse ones"
    runs = np.nan if one.fitted is None else len(one.fitted)
    return Method(name, "scores", predicted, runs, seen, about, in_units=in_units)


def is_worse(orientation: str) -> bool:
    """Whether a larger output is a worse one, by what its declaration says of it.

    Parameters
    ----------
    orientation : str
        As in ``store_schemas/outputs.json``; free text of an output that a study declared itself.
    """
    said = orientation.lower()
    return any(
        words in said
        for words in ("larger is worse", "higher is worse", "smaller is better", "lower is better")
    )


def _refuse(methods: Sequence[Method], *, force: bool) -> None:
    bad = [method for method in methods if method.seen]
    if bad and not force:
        kind = "scores " if bad[0].kind == "scores" else ""
        other = ", judge scores by the runs that they have not seen with --all-runs" if kind else ""
        msg = (
            f"{kind}{bad[0].name!r} {bad[0].seen}, so scoring them here is no evidence; "
            f"leave them out{other}, or score all the same with --force"
        )
        raise InputError(msg)


def _labels(study: Study, target_set: str) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
    """Classes of train units and targets, where there are any."""
    if "label" not in study.train or "label" not in study.target_set(target_set):
        return None
    train = study.label("train")
    return (train, study.label(target_set)) if len(np.unique(train)) > 1 else None


def judge(methods: Sequence[Method], truth: Truth, resamples: int, random_state: int) -> xr.Dataset:
    """All figures of some methods on the same runs; see :func:`benchmark`.

    Parameters
    ----------
    methods : sequence of Method
    truth : Truth
    resamples, random_state : int

    Returns
    -------
    xarray.Dataset
        Without labels.
    """
    import xarray as xr

    targets = truth.values.shape[1]
    per_target = {name: np.full((len(methods), targets), np.nan) for name in _PER_TARGET}
    weight = rank_statistics.resampling(len(truth.mask), resamples, random_state)
    sums, varied, fewest = np.zeros((resamples, len(methods))), 0, len(truth.mask)
    shift = np.full((len(methods), targets), np.nan)
    for part, outputs in truth.blocks():
        unit = truth.unit[part]
        groups = [(np.flatnonzero(unit < 0), np.ones(len(truth.mask), dtype=bool))]
        # A run that saw a unit says nothing of it as a target.
        groups += [
            (np.array([row]), ~truth.mask[:, unit[row]]) for row in np.flatnonzero(unit >= 0)
        ]
        for rows, used in groups:
            count, draws = _judge_some(
                methods, outputs[rows][:, used], part.start + rows, used, weight, per_target, shift
            )
            varied += count
            fewest = min(fewest, int(used.sum())) if count else fewest
            sums += draws
    draws = sums / max(varied, 1)
    summary = _means(per_target["lds"], shift, draws, methods, fewest) if varied else {}
    text = {"kind": "kind", "seen": "seen", "about": "about"}
    return xr.Dataset(
        {
            **{name: ((DIM, "target"), values) for name, values in per_target.items()},
            "ceiling": ("target", truth.ceiling(random_state)),
            **{
                name: (DIM, summary.get(name, np.full(len(methods), np.nan))) for name in PER_METHOD
            },
            "runs": (DIM, np.array([method.runs for method in methods], dtype=float)),
        },
        coords={
            DIM: np.array([method.name for method in methods], dtype=str),
            **{
                name: (DIM, np.array([getattr(m, source) for m in methods], dtype=str))
                for name, source in text.items()
            },
        },
        attrs={"fewest_masks": fewest},
    )


def _judge_some(
    methods: Sequence[Method],
    outputs: NDArray[np.float64],
    columns: NDArray[np.int64],
    used: NDArray[np.bool_],
    weight: NDArray[np.float64],
    per_target: dict[str, NDArray[np.float64]],
    shift: NDArray[np.float64],
) -> tuple[int, NDArray[np.float64]]:
    """Figures of some targets on the masks that are used, written to `per_target`, and what their LDS lacks, to `shift`.

    Returns
    -------
    int
        Targets whose outputs vary.
    (resample, method) float64
        What each resample adds to the sum of their LDS.
    """
    sums = np.zeros((len(weight), len(methods)))
    varies = np.ptp(outputs, axis=1) > 0 if outputs.size else np.zeros(len(outputs), dtype=bool)
    if not varies.any() or used.sum() < FEWEST:
        return 0, sums
    columns, outputs = columns[varies], outputs[varies]
    if not used.all():
        total = weight[:, used].sum(axis=1, keepdims=True)
        weight = np.where(total > 0, weight[:, used] / np.where(total > 0, total, 1), 0.0)
    ranked = rank_statistics.ranks(outputs)
    for row, method in enumerate(methods):
        predicted = method.predicted[columns][:, used]
        # A target without a datamodel has no bias: nothing is predicted, so there is nothing to rank.
        silent = ~np.isfinite(predicted).all(axis=1)
        predicted[silent] = 0.0
        own = rank_statistics.ranks(predicted)
        moves = rank_statistics.influence(own, ranked)
        lds = rank_statistics.pearson(own, ranked)
        tau = rank_statistics.kendall(predicted, outputs)
        more = rank_statistics.few_masks(lds, tau, outputs.shape[1])
        low, high = rank_statistics.interval(
            weight @ moves.T, lds, masks=outputs.shape[1], shift=more
        )
        shift[row, columns] = more
        figures = {
            "lds": lds,
            "lds_low": low,
            "lds_high": high,
            "kendall": tau,
            "pearson": rank_statistics.pearson(predicted, outputs),
        }
        if method.in_units:
            error = mse(predicted, outputs)
            error[silent] = np.nan
            figures |= {"mse": error, "r2": 1 - error / outputs.var(axis=1)}
        for name, values in figures.items():
            per_target[name][row, columns] = values
        sums[:, row] += weight @ moves.sum(axis=0)
    return len(columns), sums


def _means(
    lds: NDArray[np.float64],
    shift: NDArray[np.float64],
    draws: NDArray[np.float64],
    methods: Sequence[Method],
    masks: int,
) -> dict[str, NDArray[np.float64]]:
    """Mean LDS over targets and how far the first fit is ahead, with intervals."""
    point, more = np.nanmean(lds, axis=1), np.nanmean(shift, axis=1)
    low, high = rank_statistics.interval(draws, point, masks=masks, shift=more)
    means = {"mean_lds": point, "mean_lds_low": low, "mean_lds_high": high}
    fits = [row for row, method in enumerate(methods) if method.kind == "fit"]
    if fits:
        ahead = draws[:, fits[:1]] - draws
        gap = point[fits[0]] - point
        lacks = more[fits[0]] - more
        low, high = rank_statistics.interval(ahead, gap, masks=masks, shift=lacks, difference=True)
        means |= {"gap": gap, "gap_low": low, "gap_high": high}
    return means
