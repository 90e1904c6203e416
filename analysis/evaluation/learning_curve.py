"""How much more runs help: datamodels from growing numbers of runs, from sums of one set of Grams."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
from numpy.typing import NDArray

from dmstore.analysis.evaluation import rank_statistics
from dmstore.analysis.evaluation.eval_runs import mse, predict, read_truth
from dmstore.analysis.geometry.pca import explained, leading
from dmstore.core.given import seed_of, threads_of
from dmstore.core.progress import Progress, counting
from dmstore.core.threads import blas_threads
from dmstore.errors import InputError, NotFoundError
from dmstore.regression.fitting import stages
from dmstore.regression.problem.design import Design, count_gram, gram_dtype
from dmstore.regression.problem.moments import Moments, make_moments
from dmstore.regression.problem.packing import RunPacker, Words, padded
from dmstore.regression.problem.parameters import FEWEST_RUNS, FitOptions, Parameters
from dmstore.regression.problem.thread_pool import Work
from dmstore.regression.solvers.shared import SharedBlock
from dmstore.schema.typed_documents import FitDocument
from dmstore.study.study import Study, check_opened

if TYPE_CHECKING:
    import xarray as xr

SHARES = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)
# Principal components whose explained variance is compared.
COMPONENTS = 10
# Share of the variance that a component has at least.
_RANK = 1e-10
_BLOCK = 1024
_GROUPS = ("train", "holdout")
_STAGES = stages.all_stages(1, halves=False)


def learning_curve(
    study: Study,
    algorithm: str,
    *,
    fit: str | None = None,
    output: str | None = None,
    targets: int | None = 200,
    shares: Sequence[float] = SHARES,
    resamples: int = 1000,
    random_state: int = 0,
    threads: int | None = None,
    progress: Progress | None = None,
    **options: Unpack[FitOptions],
) -> xr.Dataset:
    """Fit some targets on growing numbers of runs, and judge each by the eval runs.

    The masks are put in a random order; each number of runs takes those of the first masks, so that
    every sample holds the smaller ones. The counts of each step's new runs are added to the Grams of those
    before, so all steps together cost no more Grams than one fit, and two are in memory. Which runs choose lam and which
    are for evaluation stays what it is in the study.

    Parameters
    ----------
    study : Study
    algorithm : str
    fit : str, optional
        Whose output and parameters to use; the newest complete fit by default, and the defaults of
        a fit where there is none.
    output : str, optional
        As in :func:`dmstore.analysis.benchmark`.
    targets : int, optional
        How many to draw; None for all.
    shares : sequence of float
        Of the runs that are not for evaluation, ascending, the last at most 1.
    resamples, random_state : int
    threads : int, optional
        All cores by default.
    progress : callable, optional
        Called with ``curve``, steps done and steps in all.
    **options
        Of :func:`dmstore.regression.fit`, in the place of the fit's, in which case the curve is not the fit's.
        Halves are never fitted, and lam is chosen by the holdout runs, not by folds, with solver ``gram``.

    Returns
    -------
    xarray.Dataset
        Over ``runs`` (fitted on, with the holdout runs) and ``target``: ``lds``, ``r2`` (eval runs),
        ``holdout_r2``, ``lam``, ``nonzeros``, ``kkt``; ``mean_lds`` (``runs``,) with its 95 %
        interval; ``cosine`` (``runs``, ``other_runs``, ``target``), of the datamodels from
        different numbers of runs, NaN where one is all zero. As the larger sample holds the
        smaller, the cosine is above that of separate samples. ``explained_variance`` (``runs``,
        ``other_runs``, ``component``): share of the variance of the datamodels from other runs
        (unit rows, uncentred) along the principal components of those from the runs, NaN beyond
        as many as there are. Constant outputs are NaN.

    Raises
    ------
    InputError
        If shares or targets are not allowed, or no share leaves 20 runs with a holdout.
    NotFoundError
        If the fit named does not exist.

    References
    ----------
    ModelDiff, Appendix F.3, Figures 20 and 21.
    """
    check_opened(study)
    random_state, threads = seed_of(random_state), threads_of(threads)
    check_curve(study, algorithm, shares)
    if targets is not None and targets < 1:
        msg = f"{targets} targets are not allowed; give at least 1"
        raise InputError(msg)
    output_name, settings, named = _settings(study, algorithm, fit, output, options)
    runs = study.runs(algorithm)
    chosen = _draw(runs.sizes["target"], targets, random_state)
    truth = read_truth(runs, output_name, chosen)
    tell = counting(progress, "curve")
    fits: list[dict[str, NDArray[Any]]] = []
    counts: list[int] = []
    with blas_threads(threads):
        for step, (sizes, block) in enumerate(
            _samples(runs, output_name, chosen, shares, random_state, threads)
        ):
            tell(step, len(shares))
            if sum(sizes) < FEWEST_RUNS or not all(sizes):
                continue
            counts.append(sum(sizes))
            fits.append(stages.run(_STAGES, block, settings, {}, Work(threads)))
        tell(len(shares), len(shares))
        if not fits:
            msg = (
                f"algorithm {algorithm!r} has too few runs for a learning curve: none of {len(shares)} samples has "
                f"{FEWEST_RUNS} runs with some to choose lam; train more runs"
            )
            raise InputError(msg)
        result = _judged(fits, truth, resamples, random_state)
    labels = study.labels(runs.attrs["target_set"])
    coords = {"target": labels["target"][chosen], "runs": counts, "other_runs": counts}
    if "target_label" in labels:
        coords["target_label"] = ("target", labels["target_label"][1][chosen])
    return result.assign_coords(coords).assign_attrs(
        {
            "study": study.uuid,
            "algorithm": algorithm,
            "fit": named,
            "output": output_name,
            "content_id": runs.attrs["content_id"],
            "eval_runs": len(truth.run),
            "eval_masks": len(truth.mask),
            "skipped": len(shares) - len(counts),
            "shares": list(shares),
            "resamples": resamples,
            "random_state": random_state,
        }
    )


def _settings(
    study: Study,
    algorithm: str,
    fit: str | None,
    output: str | None,
    options: FitOptions,
) -> tuple[str, Parameters, str]:
    """Output, parameters and name of the fit whose curve this is."""
    document: FitDocument | None = None
    try:
        document = study.newest_fit(algorithm, fit, output if fit is None else None)
    except NotFoundError:
        if fit is not None or algorithm not in study.algorithms:
            raise
    if document and output not in (None, document["output"]):
        document = None
    known = Parameters.__dataclass_fields__
    given = document["parameters"] if document else {}
    stated = {k: v for k, v in given.items() if k in known}
    asked: dict[str, Any] = {**stated, **options, "halves": False}
    settings = Parameters(**asked)
    # A curve of other parameters than the fit's says nothing of the fit.
    same = settings == replace(Parameters(**stated), halves=False)
    return (
        output or (document["output"] if document else "margin"),
        settings,
        document["fit"] if document and same else "",
    )


def check_curve(study: Study, algorithm: str, shares: Sequence[float]) -> None:
    """Refuse what no learning curve can be made of.

    Raises
    ------
    InputError
        For shares that do not ascend within (0, 1], or targets that are train units.
    """
    if (
        not len(shares)
        or sorted(set(shares)) != list(shares)
        or not 0 < shares[0] <= shares[-1] <= 1
    ):
        msg = f"shares {list(shares)} must ascend and lie above 0 and at most at 1; give such as 0.25,0.5,1"
        raise InputError(msg)
    if study.algorithm(algorithm).is_eval_only:
        msg = f"algorithm {algorithm!r} was added for evaluation only, so nothing is fitted on its runs; take another"
        raise InputError(msg)
    if (study.target_train(study.algorithm(algorithm).target_set) >= 0).any():
        msg = (
            f"targets of {algorithm!r} are train units themselves; each needs the runs that did not see it "
            f"alone, which a learning curve does not have: take another target set"
        )
        raise InputError(msg)


def _draw(count: int, targets: int | None, random_state: int) -> NDArray[np.int64]:
    if targets is None or targets >= count:
        return np.arange(count)
    drawn = np.random.default_rng([random_state, 1]).choice(count, targets, replace=False)
    return np.sort(drawn).astype(np.int64)


def _samples(
    runs: xr.Dataset,
    output: str,
    targets: NDArray[np.int64],
    shares: Sequence[float],
    random_state: int,
    threads: int,
) -> Iterator[tuple[list[int], SharedBlock]]:
    """Runs of both groups, and statistics of the first runs, of more, and so on: each the sum of what was and what is new."""
    split, mask_id = runs["split"].values, runs["mask_id"].values
    step = _steps(mask_id, split != "eval", shares, random_state)
    members = [
        [(step == number) & (split == name) for name in _GROUPS] for number in range(len(shares))
    ]
    values = np.asarray(runs[output].isel(target=targets).values, dtype=np.float64)
    shift = values.mean(axis=0)
    packers = [[RunPacker(runs.sizes["train"]) for _ in _GROUPS] for _ in shares]
    for start in range(0, len(split), _BLOCK):
        block = np.asarray(runs["mask"][start : start + _BLOCK].values, dtype=bool)
        for own, groups in zip(packers, members, strict=True):
            for packer, member in zip(own, groups, strict=True):
                packer.add(block[member[start : start + _BLOCK]])
    words: list[list[Words]] = [[], []]
    totals: list[Moments] = []
    size = runs.sizes["train"]
    dtype = gram_dtype(len(split))
    # Two Grams in all, that grow in place: choosing lam needs the masks of the holdout runs alone.
    train, everything = (np.zeros((size, size), dtype=dtype) for _ in range(2))
    for place, row in enumerate(packers):
        new = [padded(packer.finish()) for packer in row]
        row.clear()
        for column, (group, member) in enumerate(zip(new, members[place], strict=True)):
            words[column].append(group)
            moments = make_moments(group, values[member], shift, threads=threads)
            totals[column : column + 1] = [totals[column] + moments if place else moments]
        count_gram(new[:1], into=train, threads=threads)
        count_gram(new, into=everything, threads=threads)
        count = [moments.runs for moments in totals]
        designs = {
            (0,): Design(count[0], train),
            (1,): Design(count[1], words=words[1]),
            (0, 1): Design(sum(count), everything),
        }
        yield count, SharedBlock(designs, totals.__getitem__, shift)


def _steps(
    mask_id: NDArray[np.int64], free: NDArray[np.bool_], shares: Sequence[float], random_state: int
) -> NDArray[np.int64]:
    """At which step each run comes in, -1 for never: (run,). Runs of one mask come together."""
    unique, inverse = np.unique(mask_id[free], return_inverse=True)
    place = np.random.default_rng([random_state, 2]).permutation(len(unique))
    step = np.searchsorted(np.array(shares) * len(unique), place + 1 - 1e-9)
    step[step == len(shares)] = -1
    step_of_run = np.full(len(mask_id), -1, dtype=np.int64)
    step_of_run[free] = step[inverse.ravel()]
    return step_of_run


def _judged(
    fits: list[dict[str, NDArray[Any]]], truth: Any, resamples: int, random_state: int
) -> xr.Dataset:
    """Scores of each step's datamodels, and cosines between those of different steps."""
    import xarray as xr

    outputs = rank_statistics.average(truth.values, truth.group)
    varies = np.ptp(outputs, axis=1) > 0
    ranked = rank_statistics.ranks(outputs)
    draws = rank_statistics.resampling(len(truth.mask), resamples, random_state)
    size = (len(fits), len(outputs))
    arrays = {name: np.full(size, np.nan) for name in ("lds", "r2")}
    mean = np.full((3, len(fits)), np.nan)
    for row, one in enumerate(fits):
        predicted = predict(one["weight"], truth.mask) + one["bias"][:, None]
        own = rank_statistics.ranks(predicted)
        arrays["lds"][row] = np.where(varies, rank_statistics.pearson(own, ranked), np.nan)
        variance = np.where(varies, outputs.var(axis=1), np.nan)
        arrays["r2"][row] = 1 - mse(predicted, outputs) / variance
        if varies.any():
            moves = rank_statistics.influence(own[varies], ranked[varies])
            sample = draws @ moves.mean(axis=0)
            point = np.asarray(arrays["lds"][row][varies].mean())
            tau = rank_statistics.kendall(predicted[varies], outputs[varies])
            more = rank_statistics.few_masks(arrays["lds"][row][varies], tau, len(truth.mask))
            low, high = rank_statistics.interval(
                sample, point, masks=len(truth.mask), shift=more.mean()
            )
            mean[:, row] = [point, low, high]
    unit = np.array([one["weight"] for one in fits], dtype=np.float32)
    # Rows of length 1 or 0: outputs may be so large or small that float32 does not hold their squares.
    largest = np.abs(unit).max(axis=2, initial=0.0, keepdims=True)
    unit /= np.where(largest > 0, largest, 1)
    length = np.linalg.norm(unit, axis=2)
    unit /= np.where(length > 0, length, 1)[:, :, None]
    cosine = np.einsum("atu,btu->abt", unit, unit)
    there = length > 0
    cosine[~(there[:, None] & there[None])] = np.nan
    further = ("holdout_r2", "lam", "nonzeros", "kkt")
    return xr.Dataset(
        {
            **{name: (("runs", "target"), values) for name, values in arrays.items()},
            **{k: (("runs", "target"), np.array([one[k] for one in fits])) for k in further},
            "cosine": (("runs", "other_runs", "target"), np.clip(cosine, -1, 1)),
            "explained_variance": (
                ("runs", "other_runs", "component"),
                _explained(unit, there, random_state),
            ),
            **{
                name: ("runs", mean[row])
                for row, name in enumerate(("mean_lds", "mean_lds_low", "mean_lds_high"))
            },
        }
    )


def _explained(
    weight: NDArray[np.float32], there: NDArray[np.bool_], random_state: int
) -> NDArray[np.float64]:
    """Explained variance along components: (step, step, component), of (step, target, train) unit rows."""
    variances = np.full((len(weight), len(weight), COMPONENTS), np.nan)
    rows = [one[has].astype(np.float64) for one, has in zip(weight, there, strict=True)]
    for step, own in enumerate(rows):
        count = min(COMPONENTS, *own.shape)
        if not count:
            continue
        direction = leading(own, count, random_state)
        # Rows that lie in fewer dimensions have no further components.
        direction = direction[explained(own, direction) > _RANK]
        variances[step, :, : len(direction)] = [explained(theirs, direction) for theirs in rows]
    return variances
