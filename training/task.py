"""What a training task is, and how one is found by its name."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from dmstore.errors import DmstoreError, InputError
from dmstore.study import conditions
from dmstore.study.algorithm import Algorithm, Run
from dmstore.study.failures import one_line
from dmstore.training.outputs import FUNCTIONS

if TYPE_CHECKING:
    from dmstore.study.study import Study

Models = dict[str, NDArray[Any]]


@runtime_checkable
class Task(Protocol):
    """Trains runs.

    ``--task package.module:function`` names a function of a study and the algorithm's config that
    returns one. Attributes: ``batch``, the number of runs that it likes to train at once.
    """

    batch: int

    def train(self, runs: Sequence[Run]) -> Mapping[str, Any]:
        """Train runs: every declared output (run, target[, class]), and per-run columns (run,)."""


@runtime_checkable
class ModelTask(Task, Protocol):
    """A task whose models can be kept and asked again, for counterfactual checks."""

    def models(self, masks: NDArray[np.bool_], seeds: Sequence[int]) -> Models:
        """Train one model a mask: parameters with the model as first axis."""

    def logits(self, models: Models, images: NDArray[np.uint8]) -> NDArray[Any]:
        """Logits of every model on images: (model, example, class)."""


@runtime_checkable
class SetTask(ModelTask, Protocol):
    """A task that asks its models about a target set without its images, as heads on features do."""

    def logits_on(self, models: Models, part: str) -> NDArray[Any]:
        """Logits of every model on ``test`` or another target set: (model, target, class)."""


@runtime_checkable
class ResumableTask(Task, Protocol):
    """A task that keeps the state of a run that is not finished, and goes on from it."""

    def train_resumable(self, runs: Sequence[Run], checkpoint: Saved) -> Mapping[str, Any]:
        """As ``train``; ``checkpoint`` gives what was saved for these runs and takes what is to be saved."""


@runtime_checkable
class ConditionedTask(Task, Protocol):
    """A task that knows before it trains what some per-run columns will be: ``conditions``, name to text.

    A worker says where stored runs have others, and goes on from no checkpoint that was made under others.
    """

    conditions: Mapping[str, str]


class Saved(Protocol):
    """Where the state of unfinished runs is kept."""

    def load(self) -> bytes | None:
        """What was saved last for exactly these runs, or None."""

    def due(self) -> bool:
        """Whether it is time to save."""

    def save(self, data: bytes) -> None:
        """Keep the state, durably, in the place of the one before."""


def conditions_of(task: Task) -> Mapping[str, str]:
    """What a task knows before it trains of how its runs are trained; empty where it does not say."""
    return task.conditions if isinstance(task, ConditionedTask) else {}


def warn_of_unlike(task: Task, *algorithms: Algorithm) -> None:
    """Warn where stored runs were trained otherwise than a task here will train, in another precision for example.

    Parameters
    ----------
    task : Task
    *algorithms : Algorithm
        Whose runs.
    """
    own = conditions_of(task)
    for algorithm in algorithms if own else ():
        for line in conditions.unlike(conditions.stored(algorithm), own):
            logging.getLogger(__name__).warning("%s: %s", algorithm.name, line)


class Classifier:
    """A task from ``models`` and ``logits``: computes the declared outputs of classifiers.

    Parameters
    ----------
    study : Study
        With labels and images of train units and targets.
    outputs : sequence of str
        Declared outputs.
    """

    def __init__(self, study: Study, outputs: Sequence[str]) -> None:
        unknown = [name for name in outputs if name not in FUNCTIONS]
        if unknown:
            msg = f"output {unknown[0]!r} is not one that a classifier task computes; declare {', '.join(FUNCTIONS)}"
            raise InputError(msg)
        if "image" not in study.train or "image" not in study.targets:
            msg = f"{study.path}: this task trains on images, and the study has none; give train_image and target_image"
            raise InputError(msg)
        if "label" not in study.train or "label" not in study.targets:
            msg = f"{study.path}: this task trains on labels, and the study has none; give train_label and target_label"
            raise InputError(msg)
        self.train_image = np.asarray(study.train["image"].values)
        self.train_label = np.asarray(study.train["label"].values)
        self.target_image = np.asarray(study.targets["image"].values)
        self.target_label = np.asarray(study.targets["label"].values)
        self.classes = len(study.class_names)
        self.names = list(outputs)

    def models(self, masks: NDArray[np.bool_], seeds: Sequence[int]) -> Models:
        """See :class:`ModelTask`."""
        raise AssertionError

    def logits(self, models: Models, images: NDArray[np.uint8]) -> NDArray[Any]:
        """See :class:`ModelTask`."""
        raise AssertionError

    def train(self, runs: Sequence[Run]) -> dict[str, Any]:
        """See :class:`Task`; adds the column ``accuracy`` on the targets."""
        models = self.models(np.array([run.mask for run in runs]), [run.seed for run in runs])
        logit = self.logits(models, self.target_image)
        right = logit.argmax(axis=2) == self.target_label
        return {
            **{name: FUNCTIONS[name](logit, self.target_label) for name in self.names},
            "accuracy": right.mean(axis=1),
        }


def make_task(
    study: Study, name: str | None, config: Mapping[str, Any], outputs: Sequence[str]
) -> Task:
    """Import and make a task.

    Parameters
    ----------
    study : Study
    name : str
        ``package.module:function``; the function takes the study, the config and the names of the
        declared outputs.

    Raises
    ------
    InputError
        If there is no such function or it does not return a task.
    """
    if not name:
        msg = f"this algorithm was added without a task; write its runs with RunWriter or 'dmstore ingest', or give it a task with 'dmstore add {study.path} NAME --task'"
        raise InputError(msg)
    module, colon, function = name.partition(":")
    if not colon:
        msg = f"task {name!r} is not of the form package.module:function"
        raise InputError(msg)
    try:
        make = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, SystemExit) as error:
        msg = f"task {name!r} cannot be imported ({error}); run where its module can be found"
        raise InputError(msg) from error
    try:
        task = make(study, dict(config), list(outputs))
    except TypeError as error:
        msg = f"task {name!r} cannot be made from a study, a config and output names ({error})"
        raise InputError(msg) from error
    except (DmstoreError, ImportError, MemoryError):
        raise
    except Exception as error:
        msg = f"task {name!r} cannot be made here: {one_line(error)}"
        raise InputError(msg) from error
    if not isinstance(task, Task):
        msg = f"task {name!r} returned {type(task).__name__}, which has no batch and train"
        raise InputError(msg)
    return task
