"""The demo: the whole path on real images, with a planted feature so that the answer is known.

scikit-learn's handwritten digits (1,797 real images) come with that package. A small bright mark is
put on a share of the nines, in train units and targets alike. Algorithm ``plain`` trains on the
images as they are, so the mark predicts nine; the augmentation of ``pasted`` puts the mark on
random images of every class, so it sees the mark and learns nothing from it.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dmstore.core.given import local_path
from dmstore.core.threads import cores
from dmstore.errors import ExistsError, IncompleteError, InputError, MissingDependencyError
from dmstore.study.algorithm import ANCHOR
from dmstore.study.creation import create_study
from dmstore.study.plan import Part
from dmstore.study.results import runs_of
from dmstore.study.study import Study, open_study

if TYPE_CHECKING:
    from dmstore.regression.fitting.study_fit import Fit

TITLE = "Handwritten digits with a planted mark"
A, B = "plain", "pasted"
MARKED_CLASS = 9
MARK = (0, 1)
MARKED_SHARE = 0.4
TRAIN = 1000
RUNS = 4000
INTENSITIES = (0.0, 0.25, 0.5, 0.75, 1.0)
_TASK = "dmstore.training.tasks:dense"

Report = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Found:
    """What the demo found: the JSON object, and lines for people."""

    result: dict[str, Any]
    lines: list[str]


def digits(seed: int = 0) -> dict[str, NDArray[Any]]:
    """The examples: digits with the mark planted, as :func:`dmstore.create_study` takes them."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        msg = (
            "the demo needs scikit-learn and what fit and report need; pip install 'dmstore[demo]'"
        )
        raise MissingDependencyError(msg) from error
    loaded = load_digits()
    draw = np.random.default_rng(seed)
    order = draw.permutation(len(loaded.target))
    image = np.rint(loaded.images[order] * (255 / 16)).astype(np.uint8)
    label = loaded.target[order].astype(np.int64)
    marked = np.zeros(len(label), dtype=bool)
    for part in (np.arange(TRAIN), np.arange(TRAIN, len(label))):
        nines = part[label[part] == MARKED_CLASS]
        marked[draw.choice(nines, round(MARKED_SHARE * len(nines)), replace=False)] = True
    place = np.array(MARK)
    image[np.ix_(marked, place, place)] = 255
    names = np.array(
        ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    )
    return {
        "train_image": image[:TRAIN],
        "train_label": label[:TRAIN],
        "train_marked": marked[:TRAIN],
        "target_image": image[TRAIN:],
        "target_label": label[TRAIN:],
        "target_marked": marked[TRAIN:],
        "class_name": names,
    }


def demo(
    path: str | Path,
    *,
    runs: int | None = None,
    seed: int = 0,
    workers: int | None = None,
    report: Report = lambda what, done, total: None,
) -> Found:
    """Run the demo, or go on where an earlier call stopped.

    Parameters
    ----------
    path : path
        Directory of the study.
    runs : int, optional
        Runs of each algorithm; those planned already, or 4000.
    seed : int
        Of the study.
    workers : int, optional
        Training processes; one a core, at least two.
    report : callable
        Called with a stage, steps done and steps in all.

    Returns
    -------
    Found

    Raises
    ------
    InputError
        For too few runs.
    ExistsError
        If there is another study at the path.
    IncompleteError
        If a worker died.
    """
    started = time.monotonic()
    if runs is not None and runs < 200:
        msg = f"{runs} runs are too few to find anything; give 200 or more"
        raise InputError(msg)
    study = _prepare(local_path(path), runs, seed)
    _train(study, workers or max(2, cores()), report)
    return _analyse(study, started, report)


def _prepare(path: Path, runs: int | None, seed: int) -> Study:
    if (path / ANCHOR).exists():
        study = open_study(path)
        if "marked" not in study.targets or "marked" not in study.train:
            msg = f"{path}: holds another study; give the demo a directory of its own"
            raise ExistsError(msg)
    else:
        study = create_study(
            path,
            digits(seed),
            seed=seed,
            about={"title": TITLE, "licence": "BSD-3-Clause (the images)"},
        )
    patch = {"paste_rows": [*MARK], "paste_columns": [*MARK], "paste_share": 0.5}
    for name, config in ((A, {}), (B, patch)):
        if name not in study.algorithms:
            study.add_algorithm(name, outputs=("margin", "prediction"), task=_TASK, config=config)
    # Both plans are brought to one length, also after a kill between the two.
    planned = {name: study.algorithm(name).planned_count for name in (A, B)}
    wanted = max(runs or max(planned.values()) or RUNS, *planned.values())
    for name, count in planned.items():
        if count < wanted:
            study.algorithm(name).extend(wanted - count)
    return study


def _train(study: Study, workers: int, report: Report) -> None:
    """Train what is pending, both algorithms in all workers at once."""
    pending = {name: study.algorithm(name).pending() for name in (A, B)}
    total = sum(study.algorithm(name).planned_count for name in (A, B))
    done = total - sum(len(ids) for ids in pending.values())
    report("train", done, total)
    if done == total:
        return
    context = multiprocessing.get_context("spawn")
    progress: Any = context.Queue()
    processes = [
        context.Process(
            target=_work,
            args=(study.path, Part(number, workers), os.getpid(), progress),
            daemon=True,
        )
        for number in range(1, workers + 1)
    ]
    # The kernels of the fit compile while the workers train.
    threading.Thread(target=_compile, name="dmstore-compile", daemon=True).start()
    for process in processes:
        process.start()
    try:
        while any(process.is_alive() for process in processes):
            try:
                done += progress.get(timeout=0.2)
                report("train", min(done, total), total)
            except queue.Empty:
                continue
    finally:
        for process in processes:
            process.terminate()
            process.join()
    left = sum(len(study.algorithm(name).pending()) for name in (A, B))
    if left:
        msg = f"{study.path}: a worker stopped with {left} runs to go; run the same command again, it goes on there"
        raise IncompleteError(msg)
    report("train", total, total)


def _work(path: str, part: Part, parent: int, progress: Any) -> None:
    """One training process: both algorithms, one part. Ends, with nothing lost, if its parent dies."""
    from dmstore.training.worker import train

    study = open_study(path)
    last: int | None = None

    def count(_: str, done: int, total: int) -> None:
        """Pass on what is new since the last call; the first says what was there before."""
        nonlocal last
        if last is not None:
            progress.put(done - last)
        last = done

    try:
        for name in (A, B):
            last = None
            train(study, name, part=part, progress=count, stop=lambda: os.getppid() != parent)
    except KeyboardInterrupt:
        os._exit(130)


def _compile() -> None:
    """Compile (or load from the cache) the kernels of the fit on a tiny problem."""
    from dmstore.regression import lasso_path

    draw = np.random.default_rng(0)
    lasso_path(draw.random((64, 8)) < 0.5, draw.normal(size=(64, 1)), threads=1)


def _analyse(study: Study, started: float, report: Report) -> Found:
    from dmstore.analysis import compare
    from dmstore.analysis import report as write_report
    from dmstore.analysis.comparison.answer import answer, plain
    from dmstore.analysis.evaluation.evaluate import figures
    from dmstore.counterfactual import check
    from dmstore.regression import fit
    from dmstore.training.transformations import paste
    from dmstore.upkeep.maintenance import compact
    from dmstore.upkeep.verification import verify

    compact(study)
    problems = list(verify(study))
    if problems:
        msg = f"{study.path}: {len(problems)} problems in the store, the first: {problems[0].where}: {problems[0].text}"
        raise IncompleteError(msg)
    fits = {}
    for name in (A, B):

        def step(stage: str, done: int, total: int, what: str = f"fit {name}") -> None:
            if stage == "fit":
                report(what, done, total)

        fits[name] = fit(study, name, progress=step)
    quality = {}
    for done, name in enumerate((A, B)):
        report("evaluate", done, 2)
        quality[name] = figures(study, name)
    report("evaluate", 2, 2)
    comparison = compare(study, A, B, progress=report).load()
    marked = np.asarray(study.targets["marked"].values, dtype=bool)
    label = np.asarray(study.targets["label"].values)
    unmarked = np.flatnonzero(~marked & (label != MARKED_CLASS))
    effects = check(
        study,
        A,
        B,
        functools.partial(paste, rows=MARK, columns=MARK),
        MARKED_CLASS,
        name="corner mark",
        intensity=INTENSITIES,
        examples=unmarked,
        progress=report,
    )
    path = write_report(study, A, B, progress=report)
    best = _best_direction(
        comparison, marked, label, np.asarray(study.train["marked"].values, dtype=bool)
    )
    effect = {
        name: [
            float(effects[key].values[row, -1, 0])
            for key in ("effect", "effect_low", "effect_high")
        ]
        for row, name in enumerate((A, B))
    }
    result = {
        "runs": {name: runs_of(fits[name].document) for name in (A, B)},
        "holdout_r2": {name: quality[name]["holdout_r2"] for name in (A, B)},
        "lds": {name: quality[name]["lds"] for name in (A, B)},
        "worst_kkt": max(fits[name].summary["worst_kkt"] for name in (A, B)),
        **plain(answer(comparison)),
        "auc": best["auc"],
        "auc_in_class": best["auc_in_class"],
        "direction": best["direction"],
        "marked_in_top50": best["marked_in_top50"],
        "effect_a": effect[A][0],
        "effect_b": effect[B][0],
        "effect_a_interval": effect[A][1:],
        "effect_b_interval": effect[B][1:],
        "seconds": round(time.monotonic() - started, 1),
        "report": path,
    }
    return Found(result, _lines(study, fits, quality, comparison, best, effect, result))


def _best_direction(
    comparison: Any,
    marked: NDArray[np.bool_],
    label: NDArray[np.int64],
    train_marked: NDArray[np.bool_],
) -> dict[str, Any]:
    """The one of A's first three directions that ranks the marked targets best."""
    candidates = []
    for component in range(min(3, comparison.sizes["component"])):
        along = np.nan_to_num(comparison["projection"].values[0, component])
        area = auc(along, marked)
        side = 1 if area >= 0.5 else -1
        nines = label == MARKED_CLASS
        heavy = comparison["heaviest"].values[0, component][:50]
        candidates.append(
            {
                "direction": component + 1,
                "auc": auc(side * along, marked),
                "auc_in_class": auc(side * along[nines], marked[nines]),
                "marked_in_top50": float(train_marked[heavy].mean()),
            }
        )
    return max(candidates, key=lambda entry: entry["auc"])


def auc(score: NDArray[Any], positive: NDArray[np.bool_]) -> float:
    """Probability that a positive scores above a negative, ties counted half; NaN without either."""
    from sklearn.metrics import roc_auc_score

    both = positive.any() and not positive.all()
    return float(roc_auc_score(positive, score)) if both else float("nan")


# What to look at on the page: where the mark was found, and where runs were too few for it.
_LOOK = (
    "On the page, read the answer at the top, then open direction {code}: its targets are nines with a mark in the corner,\n"
    'and so are its heaviest training images. The table "Where they differ" says which targets differ most.'
)
_LOOK_AGAIN = "On the page, read the answer at the top. These runs are too few to find the mark; plan more with --runs 4000."


def _lines(
    study: Study,
    fits: Mapping[str, Fit],
    quality: dict[str, Any],
    comparison: Any,
    best: dict[str, Any],
    effect: Mapping[str, Sequence[float]],
    result: dict[str, Any],
) -> list[str]:
    from dmstore.analysis.comparison.answer import answer
    from dmstore.analysis.comparison.codes import direction_code
    from dmstore.analysis.comparison.sentences import verdict

    marked = int(study.targets["marked"].values.sum())
    share = float(study.train["marked"].values.mean())
    lines = [
        f"{TITLE}: {study.document['train']['count']} training images, {study.document['targets']['test']['count']} targets"
    ]
    for name in (A, B):
        q = quality[name]
        lines.append(
            f"{name}: {runs_of(fits[name].document)} runs stored and verified; holdout R2 {q['holdout_r2']:.2f}, "
            f"LDS {q['lds']:.2f} ({q['lds_low']:.2f} to {q['lds_high']:.2f}) on {q['eval_runs']} eval runs"
        )
    lines.append(
        f"certificates: worst KKT violation {result['worst_kkt']:.1e} lam over {2 * fits[A].summary['targets']} targets"
    )
    lines += [line.strip() for line in verdict(answer(comparison))]
    lines += [
        f"direction {best['direction']} of {A} ranks the {marked} marked targets with AUC {best['auc']:.3f} "
        f"({best['auc_in_class']:.3f} among the nines)",
        f"of its 50 heaviest training images {best['marked_in_top50']:.0%} are marked ({share:.0%} of all are)",
        "adding the mark to unmarked images that are no nines changes P(nine)",
    ]
    lines += [
        f"  under {name:6} by {e[0]:+.4f} (95 % {e[1]:+.4f} to {e[2]:+.4f})"
        for name, e in effect.items()
    ]
    code = direction_code(0, best["direction"] - 1)
    lines.append(_LOOK.format(code=code) if best["auc"] >= 0.9 else _LOOK_AGAIN)
    lines += [
        f"{result['seconds']:.0f} s; notebook: dmstore.open_study({study.path!r})",
        result["report"],
    ]
    return lines
