"""Trying a task on three runs, without storing anything, and saying all that is wrong with it."""

from __future__ import annotations

import contextlib
import resource
import sys
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from dmstore.core.tensors import to_numpy
from dmstore.core.threads import blas_threads
from dmstore.errors import DmstoreError, InputError
from dmstore.schema.names import check_column_name
from dmstore.schema.typed_documents import AlgorithmDocument
from dmstore.storage.table.rows import Rows
from dmstore.study import plan
from dmstore.study.algorithm import Algorithm, Run
from dmstore.study.declaration import declare
from dmstore.study.study import Study
from dmstore.training.given import given_faults
from dmstore.training.task import Task, make_task

Arrays = dict[str, NDArray[Any]]
# A run that is trained again may differ by this share of what another mask changes: rounding, on some devices.
_ROUNDING = 0.01
_OWN_COLUMNS = {"seed", "time", "host"}


@dataclass
class Trial:
    """What became of a trial.

    Attributes
    ----------
    task : str
    faults : list of str
        What is wrong, a line each; none if runs of the task can be stored.
    notes : list of str
        What may be as it is meant.
    batch : int, optional
        Runs that the task likes to train at once.
    shapes : dict
        Shape and dtype of each thing that it returned for one run.
    seconds : float, optional
        Of one run.
    memory, device_memory : int, optional
        Most bytes that this process, and torch on a GPU, had at once.
    """

    task: str
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    batch: int | None = None
    shapes: dict[str, tuple[tuple[int, ...], str]] = field(default_factory=dict)
    seconds: float | None = None
    memory: int | None = None
    device_memory: int | None = None


def try_task(
    study: Study,
    task: str,
    *,
    config: Mapping[str, Any] | None = None,
    outputs: Sequence[str] = ("margin",),
    alpha: float = 0.5,
    threads: int = 1,
) -> Trial:
    """Train three runs with a task: two masks with one seed, and one of the masks with another seed; one of them again.

    Nothing is stored. What the task prints goes to stderr.

    Parameters
    ----------
    study : Study
    task : str
        ``package.module:function``, or an algorithm of the study that has a task.
    config : mapping, optional
        Passed to the task; an algorithm's own by default.
    outputs : sequence of str
        What the task is to return, if it is named by its function.
    alpha : float
        Share of the training set that a run sees, likewise.
    threads : int
        BLAS threads, as of a worker.

    Returns
    -------
    Trial

    Raises
    ------
    InputError
        If the algorithm has no task, or the outputs are not known.
    NotFoundError
        If the study has no such algorithm.
    """
    algorithm = _subject(study, task, outputs, alpha)
    name = algorithm.task or ""
    found = Trial(name)
    given = algorithm.config if config is None else dict(config)
    with contextlib.redirect_stdout(sys.stderr), blas_threads(threads), _caught(found, name):
        made = make_task(study, name, given, list(algorithm.outputs))
        if not _right_batch(made.batch):
            found.faults.append(f"batch is {made.batch!r}; give a whole number of runs from 1")
            return found
        found.batch = int(made.batch)
        _try(found, made, algorithm, _runs(study, algorithm))
    found.faults = list(dict.fromkeys(found.faults))
    found.memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
        1 if sys.platform == "darwin" else 1024
    )
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        found.device_memory = int(torch.cuda.max_memory_allocated())
    return found


def _subject(study: Study, task: str, outputs: Sequence[str], alpha: float) -> Algorithm:
    """The algorithm that is tried: one of the study, or one that is added to none."""
    if ":" not in task:
        algorithm = study.algorithm(task)
        if not algorithm.task:
            msg = f"algorithm {task!r} has no task; give one as package.module:function"
            raise InputError(msg)
        return algorithm
    declared = declare(
        study.document,
        alpha=alpha,
        runs=0,
        repeats=1,
        sampling="planned",
        masks="shared",
        outputs=outputs,
        target_set="test",
        task=task,
        config=None,
    )
    document = {
        "name": "trial",
        "study": study.document["uuid"],
        "uuid": "0" * 32,
        **declared,
    }
    return Algorithm(study.objects, study.document, cast(AlgorithmDocument, document))


def _runs(study: Study, algorithm: Algorithm) -> list[Run]:
    """Three runs: one, one with another mask, one with another seed."""
    key = plan.mask_key(study.seed)
    masks = plan.make_masks(key, [0, 1], algorithm.train, algorithm.alpha or 0.5)
    seeds = [plan.training_seed(study.seed, algorithm.name, number) for number in (0, 1)]
    return [
        Run(number, masks[mask], seeds[seed], mask, repeat)
        for number, mask, seed, repeat in ((0, 0, 0, 0), (1, 1, 0, 0), (2, 0, 1, 1))
    ]


def _right_batch(batch: Any) -> bool:
    whole = isinstance(batch, int | np.integer) and not isinstance(batch, bool)
    return whole and bool(batch >= 1)


def _try(found: Trial, task: Task, algorithm: Algorithm, runs: list[Run]) -> None:
    started = time.monotonic()
    together = _train(found, task, algorithm, runs)
    found.seconds = (time.monotonic() - started) / len(runs)
    if together is None or found.faults:
        return
    found.shapes = {name: (array.shape[1:], str(array.dtype)) for name, array in together.items()}
    said = {name: together[name].astype(np.float64) for name in algorithm.outputs}
    other_mask, other_seed = (_distance(said, 0, said, other) for other in (1, 2))
    if not other_mask:
        found.faults.append(
            "ignores the mask: two runs with other masks and the same seed say the same; train on run.mask alone"
        )
    if not other_seed:
        found.notes.append(
            "another seed changes nothing; right for a method without randomness, else draw all of it from run.seed"
        )
    started = time.monotonic()
    alone = _train(found, task, algorithm, runs[:1])
    found.seconds = min(found.seconds, time.monotonic() - started)
    if alone is None:
        return
    scale = other_mask or float(np.sqrt(sum((v**2).mean() for v in said.values()))) or 1.0
    moved = _distance(said, 0, alone, 0) / scale
    if not moved:
        return
    if moved <= _ROUNDING:
        found.notes.append(
            f"a run that is trained again differs by {moved:.1g} of what another mask changes, as rounding does"
        )
        return
    again = _train(found, task, algorithm, runs) if found.batch and found.batch > 1 else None
    if again is not None and _distance(said, 0, again, 0) / scale <= _ROUNDING:
        found.faults.append(
            f"what a run says depends on the runs beside it in the batch: alone it differs by {moved:.1g} of what another mask changes; give each run its own generator, from run.seed"
        )
    else:
        found.faults.append(
            f"not deterministic: the same mask and seed, trained again, differ by {moved:.1g} of what another mask changes; draw all randomness from run.seed"
        )


def _train(found: Trial, task: Task, algorithm: Algorithm, runs: Sequence[Run]) -> Arrays | None:
    """What the task returns for runs, in batches as a worker asks for them; None where it cannot be used."""
    parts = []
    batch = found.batch or 1
    for start in range(0, len(runs), batch):
        asked = runs[start : start + batch]
        given = [replace(run, mask=run.mask.copy()) for run in asked]
        part = None
        with _caught(found, f"train of {len(given)} runs" if len(given) > 1 else "train"):
            part = _checked(found, algorithm, given, task.train(given))
        if part is None:
            return None
        if any(not np.array_equal(a.mask, b.mask) for a, b in zip(asked, given, strict=True)):
            found.faults.append("train changes run.mask; work on a copy")
        parts.append(part)
    names = [name for name in parts[0] if all(name in part for part in parts)]
    return {name: np.concatenate([part[name] for part in parts]) for name in names}


def _checked(found: Trial, algorithm: Algorithm, runs: Sequence[Run], made: Any) -> Arrays | None:
    """What was returned for runs as copied arrays, or None; what is wrong with it is added to the faults."""
    table = algorithm.table
    declared = {spec.name: spec for spec in table.spec.outputs()}
    if not isinstance(made, Mapping):
        what = "nothing" if made is None else f"a {type(made).__name__}"
        found.faults.append(
            f"train returned {what}; return a mapping with {', '.join(declared)}, and columns of one value per run"
        )
        return None
    arrays: Arrays = {}
    before = len(found.faults)
    for name, value in made.items():
        try:
            arrays[str(name)] = np.array(to_numpy(value, str(name)))
        except InputError as error:
            found.faults.append(str(error))
    shapes = {name: array.shape for name, array in arrays.items()}
    found.faults += given_faults(shapes, declared, table.sizes, len(runs))
    ids = np.array([run.id for run in runs])
    good = {
        spec.name: np.zeros((len(runs), *(table.sizes[dim] for dim in spec.dims[1:])), spec.dtype)
        for spec in table.spec.rows()
    }
    # One at a time, so that each says what is wrong with it.
    for name, array in arrays.items():
        if given_faults(
            {**{n: a.shape for n, a in good.items() if n != "mask"}, name: array.shape},
            declared,
            table.sizes,
            len(runs),
        ):
            continue
        own, columns = ({**good, name: array}, {}) if name in declared else (good, {name: array})
        try:
            if name not in declared and name not in _OWN_COLUMNS:
                check_column_name(name, "train")
            table.check(Rows(ids, own, columns), "train")
        except InputError as error:
            found.faults.append(str(error).removeprefix("train: "))
    return arrays if len(found.faults) == before else None


def _distance(one: Arrays, i: int, other: Arrays, j: int) -> float:
    """Root mean square difference of two runs, over all outputs."""
    squares = [((one[n][i] - other[n][j].astype(np.float64)) ** 2).mean() for n in one]
    return float(np.sqrt(sum(squares)))


@contextlib.contextmanager
def _caught(found: Trial, doing: str) -> Iterator[None]:
    """Make a fault of whatever a task raises, with the line of its own file."""
    try:
        yield
    except DmstoreError as error:
        # What a constructor raised is said by its own line.
        own = error.__cause__ if isinstance(error.__cause__, Exception) else None
        place = _place(own, found.task.partition(":")[0]) if own else ""
        found.faults.append(f"{error}{place}")
    except (Exception, SystemExit) as error:  # noqa: BLE001 - code of the user's can raise anything
        place = _place(error, found.task.partition(":")[0])
        said = " ".join(str(error).split())
        found.faults.append(
            f"{doing} raised {type(error).__name__}{f': {said}' if said else ''}{place}"
        )


def _place(error: BaseException, module: str) -> str:
    """Where in the task's own module an error came from, else where it was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    file = getattr(sys.modules.get(module), "__file__", None)
    if isinstance(error, SyntaxError) and error.filename:
        return ""
    own = [frame for frame in frames if frame.filename == file] or frames[-1:]
    return f" ({own[-1].filename}:{own[-1].lineno})" if own else ""
