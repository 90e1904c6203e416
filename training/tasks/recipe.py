"""The task of recipes: trains networks in torch as a config says, and computes the declared outputs."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dmstore.errors import InputError, MissingDependencyError
from dmstore.training.config import TrainingConfig
from dmstore.training.outputs import FUNCTIONS

if TYPE_CHECKING:
    from dmstore.study.algorithm import Run
    from dmstore.study.study import Study
    from dmstore.training.ensemble.fit import Ensemble
    from dmstore.training.loop.fit import Trained
    from dmstore.training.task import Models, Saved


class RecipeTask:
    """See :class:`dmstore.training.config.TrainingConfig`.

    Parameters
    ----------
    study : Study
        With labels of train units and targets.
    config : TrainingConfig
    outputs : sequence of str
        Declared outputs.
    device : str
        ``auto``, or as torch calls it.

    Raises
    ------
    InputError
        If the study has not what the config needs.
    """

    def __init__(
        self, study: Study, config: TrainingConfig, outputs: Sequence[str], device: str = "auto"
    ) -> None:
        import torch

        from dmstore.training.ensemble.choice import models_at_once
        from dmstore.training.loaders.make import make_loader
        from dmstore.training.loaders.tensors import TensorLoader, column_of
        from dmstore.training.loop.precision import device_of, half
        from dmstore.training.models.make import require_packages

        unknown = [name for name in outputs if name not in FUNCTIONS]
        if unknown:
            msg = f"output {unknown[0]!r} is not one that a recipe computes; declare {', '.join(FUNCTIONS)}"
            raise InputError(msg)
        require_packages(config)
        self.config = config
        self.names = list(outputs)
        self.device = device_of(device)
        self._half = half(config, self.device)
        self.loader = make_loader(config, study, self.device)
        # Where runs repeat to the bit, and with what.
        self.conditions = {
            "device": self.device.type,
            "precision": str(self._half or "float32").removeprefix("torch."),
            "loader": str(self.loader.name),
        }
        self.classes = len(study.class_names)
        self.target_label = column_of(study, "test", "label").astype(np.int64)
        train = column_of(study, "train", "label").astype(np.int64)
        self._label = torch.from_numpy(train).to(self.device)
        self._validation = None
        if config.choose == "validation":
            own = column_of(study, config.validation_set, "label").astype(np.int64)
            self._validation = torch.from_numpy(own).to(self.device)
        if isinstance(self.loader, TensorLoader):
            asked = tuple(next(self.loader.evaluate("test", 1)).shape[1:])
            if asked != self.loader.shape:
                msg = f"{study.path}: train units have inputs of shape {self.loader.shape}, targets of {asked}; a model takes one shape (--set image_size=… brings images to one size)"
                raise InputError(msg)
        # A model that cannot be made should be known before the first run.
        parameters = sum(one.numel() for one in self._make().parameters())
        self.batch = models_at_once(config, self.loader, self.device, parameters)

    def _make(self) -> Any:
        from dmstore.training.models import make

        return make(self.config, self.loader.shape, self.classes)

    def fit(self, mask: NDArray[np.bool_], seed: int, saved: Saved | None = None) -> Trained:
        """Train one model.

        Parameters
        ----------
        mask : (train,) bool
        seed : int
        saved : Saved, optional
            Takes the state of an unfinished run.
        """
        from dmstore.training.loop.batches import Seeds
        from dmstore.training.loop.fit import fit, repeatable

        seen = np.flatnonzero(mask)
        with repeatable(self.config):
            return fit(
                self.config,
                lambda: self._whitened(self._make(), seen),
                self.loader,
                self._label,
                seen,
                Seeds.of(seed, self.config),
                self.device,
                validation=self._validation,
                saved=saved,
            )

    def _whitened(self, model: Any, seen: NDArray[np.int64]) -> Any:
        if hasattr(model, "whiten"):
            # The first units of the run are enough to know its patches.
            model.whiten(self.loader.seen(seen[:_WHITENED]).cpu())
        return model

    def fit_many(
        self, masks: Sequence[NDArray[np.bool_]], seeds: Sequence[int], saved: Saved | None = None
    ) -> list[Ensemble]:
        """Train models at once: each as :meth:`fit` does, to float32 tolerance, whichever are beside it.

        Parameters
        ----------
        masks : sequence of (train,) bool
        seeds : sequence of int
        saved : Saved, optional
            Takes the state of unfinished runs.

        Returns
        -------
        list of Ensemble
            One, or several after another where memory ran out.
        """
        import torch

        from dmstore.training.ensemble.fit import fit_many
        from dmstore.training.loaders.tensors import TensorLoader
        from dmstore.training.loop.batches import Seeds
        from dmstore.training.loop.fit import repeatable

        assert isinstance(self.loader, TensorLoader)
        try:
            with repeatable(self.config):
                return [
                    fit_many(
                        self.config,
                        self._make,
                        self.loader,
                        self._label,
                        [np.flatnonzero(mask) for mask in masks],
                        [Seeds.of(seed, self.config) for seed in seeds],
                        self.device,
                        saved,
                    )
                ]
        except torch.cuda.OutOfMemoryError:
            if len(masks) == 1:
                raise
        torch.cuda.empty_cache()
        # A checkpoint is of all of these, so parts of them have none.
        self.batch = middle = -(-len(masks) // 2)
        warnings.warn(f"out of memory with {len(masks)} models at once: now {middle}", stacklevel=2)
        return [
            *self.fit_many(masks[:middle], seeds[:middle]),
            *self.fit_many(masks[middle:], seeds[middle:]),
        ]

    def train(self, runs: Sequence[Run]) -> dict[str, Any]:
        """See :class:`dmstore.training.task.Task`; adds ``accuracy`` on the targets, ``epochs``, ``training_loss``, ``device``, ``precision`` and ``loader``."""
        return self._trained(runs)

    def train_resumable(self, runs: Sequence[Run], checkpoint: Saved) -> dict[str, Any]:
        """The same, kept at ends of epochs; runs that are not trained at once are given one by one."""
        return self._trained(runs, checkpoint)

    def _trained(self, runs: Sequence[Run], saved: Saved | None = None) -> dict[str, Any]:
        from dmstore.training.ensemble.fit import logits_many
        from dmstore.training.loop.fit import EVALUATED, logits

        if self.batch > 1:
            made = self.fit_many([run.mask for run in runs], [run.seed for run in runs], saved)
            logit = [
                logits_many(one.stack, self.loader.evaluate("test", EVALUATED)) for one in made
            ]
            epochs, loss = (
                np.concatenate([getattr(one, name) for one in made]) for name in ("epochs", "loss")
            )
            return self._said(np.concatenate(logit), epochs, loss)
        if saved is not None and len(runs) != 1:
            msg = f"runs of model {self.config.model} are resumed one by one"
            raise InputError(msg)
        alone = [self.fit(run.mask, run.seed, saved) for run in runs]
        return self._said(
            np.stack([logits(one.model, self.loader.evaluate("test", EVALUATED)) for one in alone]),
            np.array([one.chosen for one in alone]),
            np.array([one.loss for one in alone]),
        )

    def _said(
        self, logit: NDArray[np.float32], epochs: NDArray[Any], loss: NDArray[Any]
    ) -> dict[str, Any]:
        right = logit.argmax(axis=2) == self.target_label
        return {
            **{name: FUNCTIONS[name](logit, self.target_label) for name in self.names},
            "accuracy": right.mean(axis=1),
            "epochs": epochs,
            "training_loss": loss,
            **{name: np.full(len(loss), value) for name, value in self.conditions.items()},
        }

    def models(self, masks: NDArray[np.bool_], seeds: Sequence[int]) -> Models:
        """See :class:`dmstore.training.task.ModelTask`."""
        if self.batch == 1:
            states = [
                self.fit(mask, seed).model.state_dict()
                for mask, seed in zip(masks, seeds, strict=True)
            ]
            return {
                key: np.stack([state[key].cpu().numpy() for state in states]) for key in states[0]
            }
        made, start = [], 0
        while start < len(masks):
            some = slice(start, start + self.batch)
            made += [one.stack.arrays for one in self.fit_many(list(masks[some]), seeds[some])]
            start = some.stop
        return {key: np.concatenate([one[key].cpu().numpy() for one in made]) for key in made[0]}

    def logits(self, models: Models, images: NDArray[np.uint8]) -> NDArray[Any]:
        """See :class:`dmstore.training.task.ModelTask`.

        Raises
        ------
        InputError
            If the models are heads on features.
        """
        if self.config.features:
            msg = f"these models take {self.config.features!r}, not images; add the images as a target set ('dmstore targets --transform'), then its features ('dmstore features'), and ask models with 'dmstore train --full N --targets SET'"
            raise InputError(msg)
        inputs = self.loader.inputs(images)
        return self._asked(models, lambda size: iter(inputs.split(size)))

    def logits_on(self, models: Models, part: str) -> NDArray[Any]:
        """Logits of every model on a target set of the study, through its loader: (model, target, class)."""
        return self._asked(models, lambda size: self.loader.evaluate(part, size))

    def _asked(self, models: Models, inputs: Callable[[int], Iterator[Any]]) -> NDArray[Any]:
        import torch

        from dmstore.training.loop.fit import EVALUATED, logits

        model = self._make().to(self.device)
        made = []
        for number in range(len(next(iter(models.values())))):
            state = {
                key: torch.from_numpy(np.array(value[number])) for key, value in models.items()
            }
            model.load_state_dict(state)
            made.append(logits(model, inputs(EVALUATED)))
        return np.stack(made)


_WHITENED = 2000


def recipe(study: Study, config: Mapping[str, Any], outputs: Sequence[str]) -> RecipeTask:
    """Make the task.

    Raises
    ------
    InputError
        If the config or the study does not fit.
    MissingDependencyError
        If torch is not installed.
    """
    parsed = TrainingConfig.of(config)
    try:
        import torch  # noqa: F401
    except ImportError as error:
        msg = "recipes train in torch; pip install 'dmstore[torch]'"
        raise MissingDependencyError(msg) from error
    return RecipeTask(study, parsed, outputs)
