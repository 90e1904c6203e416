"""The task of recipes: trains networks in torch as a config says, and computes the declared outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dmstore.errors import InputError, MissingDependencyError
from dmstore.training.config import TrainingConfig
from dmstore.training.outputs import FUNCTIONS

if TYPE_CHECKING:
    from dmstore.study.algorithm import Run
    from dmstore.study.study import Study
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

    batch = 1

    def __init__(
        self, study: Study, config: TrainingConfig, outputs: Sequence[str], device: str = "auto"
    ) -> None:
        import torch

        from dmstore.training.loaders.make import make_loader
        from dmstore.training.loaders.tensors import column_of
        from dmstore.training.loop.precision import device_of, half

        unknown = [name for name in outputs if name not in FUNCTIONS]
        if unknown:
            msg = f"output {unknown[0]!r} is not one that a recipe computes; declare {', '.join(FUNCTIONS)}"
            raise InputError(msg)
        self.config = config
        self.names = list(outputs)
        self.device = device_of(device)
        half(config, self.device)
        self.loader = make_loader(config, study, self.device)
        self.classes = len(study.class_names)
        self.target_label = column_of(study, "test", "label").astype(np.int64)
        train = column_of(study, "train", "label").astype(np.int64)
        self._label = torch.from_numpy(train).to(self.device)
        self._validation = None
        if config.choose == "validation":
            own = column_of(study, config.validation_set, "label").astype(np.int64)
            self._validation = torch.from_numpy(own).to(self.device)
        # A model that cannot be made should be known before the first run.
        self._make()

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

    def train(self, runs: Sequence[Run]) -> dict[str, Any]:
        """See :class:`dmstore.training.task.Task`; adds ``accuracy`` on the targets, ``epochs`` and ``training_loss``."""
        return self._said([self.fit(run.mask, run.seed) for run in runs])

    def train_resumable(self, runs: Sequence[Run], checkpoint: Saved) -> dict[str, Any]:
        """The same for one run, kept at ends of epochs."""
        (run,) = runs
        return self._said([self.fit(run.mask, run.seed, checkpoint)])

    def _said(self, trained: Sequence[Trained]) -> dict[str, Any]:
        from dmstore.training.loop.fit import EVALUATED, logits

        logit = np.stack(
            [logits(one.model, self.loader.evaluate("test", EVALUATED)) for one in trained]
        )
        right = logit.argmax(axis=2) == self.target_label
        return {
            **{name: FUNCTIONS[name](logit, self.target_label) for name in self.names},
            "accuracy": right.mean(axis=1),
            "epochs": np.array([one.chosen for one in trained]),
            "training_loss": np.array([one.loss for one in trained]),
        }

    def models(self, masks: NDArray[np.bool_], seeds: Sequence[int]) -> Models:
        """See :class:`dmstore.training.task.ModelTask`."""
        states = [
            self.fit(mask, seed).model.state_dict() for mask, seed in zip(masks, seeds, strict=True)
        ]
        return {key: np.stack([state[key].cpu().numpy() for state in states]) for key in states[0]}

    def logits(self, models: Models, images: NDArray[np.uint8]) -> NDArray[Any]:
        """See :class:`dmstore.training.task.ModelTask`."""
        import torch

        from dmstore.training.loop.fit import EVALUATED, logits

        model = self._make().to(self.device)
        inputs = self.loader.inputs(images)
        made = []
        for number in range(len(next(iter(models.values())))):
            state = {
                key: torch.from_numpy(np.array(value[number])) for key, value in models.items()
            }
            model.load_state_dict(state)
            made.append(logits(model, iter(inputs.split(EVALUATED))))
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
