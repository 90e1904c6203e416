"""Fit the datamodels of an algorithm from its stored runs: pinned, in blocks, resumable."""

from __future__ import annotations

import functools
import hashlib
import json
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from dmstore import schema
from dmstore.algorithm import Algorithm
from dmstore.errors import CorruptionError, IncompleteError, InputError
from dmstore.regression import solvers
from dmstore.regression.design import Design, Moments, RunPacker, make_design, make_moments
from dmstore.regression.path import (
    FEWEST_RUNS,
    NOT_CONVERGED,
    Designs,
    Outputs,
    Parameters,
)
from dmstore.storage import groups, log
from dmstore.storage.compact import compact
from dmstore.storage.view import BLOCK, View
from dmstore.study import Study
from dmstore.threads import blas_threads, cores

TARGETS = 128
_ATTEMPTS = 5
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Fit:
    """A finished fit.

    Attributes
    ----------
    document : dict
        ``fit.json``.
    summary : dict
        Numbers over targets, as ``dmstore fit --json`` prints them.
    """

    document: dict[str, Any]
    summary: dict[str, Any]


def fit(
    study: Study,
    algorithm: str,
    *,
    output: str = "margin",
    parameters: Parameters | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Fit:
    """Fit one lasso a target.

    The runs are compacted first, and the fit stands on that base. Blocks of targets land one by
    one; the same call after a kill goes on where it was, and returns at once when all is done.

    Parameters
    ----------
    study : Study
    algorithm : str
    output : str
        The output to explain: one with a value a target.
    parameters : Parameters, optional
    threads : int, optional
        All cores by default.
    progress : callable, optional
        Called with a stage, steps done and steps in all.

    Returns
    -------
    Fit

    Raises
    ------
    InputError
        For fewer than 20 runs, no holdout runs, or an output that cannot be fitted.
    NotFoundError
        If the algorithm does not exist.
    MissingDependencyError
        If the solver's package or device is not there.
    """
    parameters = parameters or Parameters()
    solvers.load(parameters.solver)
    threads = threads or cores()
    opened = study.algorithm(algorithm)
    entry = opened.outputs.get(output)
    if (
        entry is None
        or list(entry["dims"]) != ["run", "target"]
        or not entry["dtype"].startswith("float")
    ):
        msg = f"output {output!r} of {algorithm!r} cannot be fitted; it declares {', '.join(opened.outputs)}, and a fit needs one float a target"
        raise InputError(msg)
    if (study.target_train(opened.target_set) >= 0).any():
        msg = (
            f"targets of {algorithm!r} are train units themselves (target_train); each needs the runs that "
            f"did not see it alone, which this version cannot fit: leave such targets out"
        )
        raise InputError(msg)
    started = time.monotonic()
    view = _pinned(study, opened)
    runs = _Runs(opened, view, parts=4 if parameters.halves else 1)
    document = _document(study, opened, view, runs, output, parameters)
    where = f"datamodels/{algorithm}/{document['fit']}/"
    objects = study.objects
    if not objects.exists(f"{where}complete.json"):
        if not objects.exists(f"{where}fit.json"):
            objects.put_if_absent(f"{where}fit.json", schema.dump_document("fit", document))
        # An earlier call may have begun on another base of the same content: that one is pinned.
        document = schema.load_document("fit", objects.get(f"{where}fit.json"), where)
        view = _view_of(opened, document, where)
        # Its rows may stand in another order than those of the newest base.
        runs = _Runs(opened, view, parts=4 if parameters.halves else 1)
        if runs.count != document["runs"]:
            msg = (
                f"{study.path}/{where}fit.json: says runs {document['runs']}, but its base has "
                f"{runs.count}; remove {where} and run the fit again"
            )
            raise CorruptionError(msg)
        with blas_threads(threads):
            _fit_blocks(opened, view, runs, where, output, parameters, threads, progress)
        _finish(study, where, len(_blocks(opened)), started)
    document = schema.load_document("fit", objects.get(f"{where}fit.json"), where)
    complete = schema.load_document("complete", objects.get(f"{where}complete.json"), where)
    return Fit(document, {"fit": document["fit"], "algorithm": algorithm, **complete["summary"]})


def _pinned(study: Study, algorithm: Algorithm) -> View:
    """The committed base of all rows there are now."""
    table = algorithm.table
    for _ in range(_ATTEMPTS):
        compact(table)
        manifest = log.newest(table.objects, table.prefix)
        # The fit reads the base whole, so no row of it may be hidden.
        view = table.view_of(log.Manifest(manifest.version, base=manifest.base))
        if len(view) == len(table.view_of(manifest)):
            break
    else:
        msg = (
            f"{study.path}: runs of {algorithm.name!r} were retracted {_ATTEMPTS} times in a row "
            f"while the fit began; run it again"
        )
        raise IncompleteError(msg)
    if len(view) < FEWEST_RUNS:
        msg = (
            f"algorithm {algorithm.name!r} has {len(view)} runs, a fit needs at least {FEWEST_RUNS}; "
            f"train more with 'dmstore train {study.path} {algorithm.name}'"
        )
        raise InputError(msg)
    return view


def _view_of(algorithm: Algorithm, document: dict[str, Any], where: str) -> View:
    """The base that a fit stands on."""
    table = algorithm.table
    base = log.Base(document["base"], sum(document["runs"].values()), document["content_id"])
    name = f"{table.prefix}{base.path}"
    removed = name in log.newest(table.objects, table.prefix).removed
    if removed or not table.objects.exists(f"{name}/zarr.json"):
        # A fit is called by its content, so the next call finds this name again: free it.
        table.objects.delete(f"{where}fit.json")
        msg = f"{name}: vacuum removed the base at the same moment; run the fit again"
        raise IncompleteError(msg)
    return table.view_of(log.Manifest(document["version"], base=base))


class _Runs:
    """Which runs of a view are for what, and their masks packed by group."""

    def __init__(self, algorithm: Algorithm, view: View, *, parts: int) -> None:
        mask_id = view.read(["mask_id"])["mask_id"]
        split = algorithm.split(mask_id)
        part = algorithm.quarter(mask_id) % parts
        self.rows = [
            np.flatnonzero((split == name) & (part == number))
            for name in ("train", "holdout")
            for number in range(parts)
        ]
        self.count = {name: int((split == name).sum()) for name in ("train", "holdout", "eval")}
        self.distinct_eval = len(np.unique(mask_id[split == "eval"]))
        if not (self.count["train"] and self.count["holdout"]):
            msg = (
                f"of {len(view)} runs {self.count['train']} are for fitting and {self.count['holdout']} "
                f"to choose lam; both are needed, so train more runs"
            )
            raise InputError(msg)

    def words(self, algorithm: Algorithm, view: View) -> list[NDArray[np.uint64]]:
        """Masks of each group, packed along runs."""
        packers = [RunPacker(algorithm.train) for _ in self.rows]
        for start in range(0, len(view), BLOCK):
            block = view.read(["mask"], start, start + BLOCK)["mask"]
            for packer, rows in zip(packers, self.rows, strict=True):
                inside = rows[(rows >= start) & (rows < start + BLOCK)]
                packer.add(block[inside - start])
        return [packer.finish() for packer in packers]


def _document(
    study: Study, algorithm: Algorithm, view: View, runs: _Runs, output: str, parameters: Parameters
) -> dict[str, Any]:
    assert view.manifest.base is not None
    content_id = view.manifest.base.content_id
    stated = {
        "format_version": schema.FORMAT_VERSION,
        "study": study.uuid,
        "algorithm": algorithm.name,
        "content_id": content_id,
        "output": output,
        "parameters": parameters.document(),
    }
    name = hashlib.sha256(json.dumps(stated, sort_keys=True).encode()).hexdigest()[:16]
    return {
        "fit": name,
        "study": study.uuid,
        "algorithm": algorithm.name,
        "version": view.manifest.version,
        "base": view.manifest.base.path,
        "content_id": content_id,
        "runs": runs.count,
        "targets": algorithm.table.sizes["target"],
        "target_set": algorithm.target_set,
        "output": output,
        "parameters": parameters.document(),
        "created": log.utc_now(),
        "software": log.software(),
    }


def _blocks(algorithm: Algorithm) -> list[tuple[int, int]]:
    targets = algorithm.table.sizes["target"]
    return [(start, min(start + TARGETS, targets)) for start in range(0, targets, TARGETS)]


def _block_name(where: str, number: int) -> str:
    return f"{where}blocks/{number:05d}.zarr.zip"


def _fit_blocks(
    algorithm: Algorithm,
    view: View,
    runs: _Runs,
    where: str,
    output: str,
    parameters: Parameters,
    threads: int,
    progress: Progress | None,
) -> None:
    objects = algorithm.objects
    blocks = _blocks(algorithm)
    todo = [
        number for number in range(len(blocks)) if not objects.exists(_block_name(where, number))
    ]
    if not todo:
        return
    words = runs.words(algorithm, view)
    parts = [
        make_design(w, len(rows), threads=threads) for w, rows in zip(words, runs.rows, strict=True)
    ]
    designs = _designs(parts)
    spec = schema.group_spec("datamodels")
    for number in todo:
        if progress:
            progress("fit", len(blocks) - len(todo) + todo.index(number), len(blocks))
        start, stop = blocks[number]
        values = _column_block(view, output, start, stop)
        outputs = _outputs(words, runs.rows, values)
        result = solvers.load(parameters.solver)(designs, outputs, parameters, threads=threads)
        arrays = {"target": np.arange(start, stop, dtype=np.int64), **result}
        groups.write_zip(objects, _block_name(where, number), spec, arrays)
    if progress:
        progress("fit", len(blocks), len(blocks))


_Statistics = TypeVar("_Statistics", Design, Moments)


def _combine(
    parts: list[_Statistics],
) -> tuple[_Statistics, _Statistics, tuple[_Statistics, ...], tuple[_Statistics, ...]]:
    """Statistics of train and holdout runs, of halves and of quarters, from those of the groups."""
    count = len(parts) // 2
    train, holdout = parts[:count], parts[count:]
    quarters = tuple(a + b for a, b in zip(train, holdout, strict=True))
    if count == 1 or min(quarter.runs for quarter in quarters) < 2:
        return _sum(train), _sum(holdout), (), ()
    return (
        _sum(train),
        _sum(holdout),
        (quarters[0] + quarters[1], quarters[2] + quarters[3]),
        quarters,
    )


def _sum(parts: list[_Statistics]) -> _Statistics:
    return functools.reduce(lambda a, b: a + b, parts)


def _designs(parts: list[Design]) -> Designs:
    train, holdout, halves, quarters = _combine(parts)
    return Designs(train, holdout, train + holdout, halves, quarters)


def _outputs(
    words: list[NDArray[np.uint64]], rows: list[NDArray[np.int64]], values: NDArray[Any]
) -> Outputs:
    shift = values.mean(axis=0, dtype=np.float64)
    moments = [make_moments(w, values[r], shift) for w, r in zip(words, rows, strict=True)]
    train, holdout, halves, quarters = _combine(moments)
    return Outputs(train, holdout, train + holdout, shift, halves, quarters)


def _column_block(view: View, output: str, start: int, stop: int) -> NDArray[Any]:
    """One output of all runs on some targets: (run, target)."""
    assert view.base is not None
    array: Any = view.base[output]
    return np.asarray(array[:, start:stop])


def _finish(study: Study, where: str, blocks: int, started: float) -> None:
    """Join the blocks into one group and name it: the commit of the fit."""
    objects = study.objects
    parts = [groups.read(objects, _block_name(where, number)) for number in range(blocks)]
    spec = schema.group_spec("datamodels")
    arrays = {
        name: np.concatenate(
            [part[name] for part in parts], axis=spec.arrays[name].dims.index("target")
        )
        for name in parts[0]
    }
    path = f"datamodels-{uuid.uuid4().hex[:8]}.zarr"
    groups.write_directory(objects, f"{where}{path}", spec, arrays)
    summary = {**summarise(arrays), "seconds": round(time.monotonic() - started, 3)}
    document = {"path": path, "created": log.utc_now(), "summary": summary}
    if not objects.put_if_absent(
        f"{where}complete.json", schema.dump_document("complete", document)
    ):
        objects.delete(f"{where}{path}")


def summarise(arrays: dict[str, NDArray[Any]]) -> dict[str, Any]:
    """Numbers over the targets of a fit."""

    def quartiles(values: NDArray[Any]) -> list[float | None]:
        finite = values[np.isfinite(values)]
        return (
            [float(v) for v in np.quantile(finite, [0.25, 0.5, 0.75])]
            if len(finite)
            else [None] * 3
        )

    status = arrays["status"]
    names = ("fitted", "lam_at_start", "lam_at_end", "constant", "not_converged")
    return {
        "targets": len(status),
        "nonzeros": quartiles(arrays["nonzeros"].astype(float)),
        "lam": quartiles(arrays["lam"]),
        "holdout_r2": quartiles(arrays["holdout_r2"]),
        "worst_kkt": float(arrays["kkt"].max()),
        "worst_gap": float(arrays["gap"].max()),
        "status": {name: int((status == number).sum()) for number, name in enumerate(names)},
        "unconverged_targets": [int(t) for t in arrays["target"][status == NOT_CONVERGED]],
    }
