"""Small dense networks, many trained at a time in one batched NumPy program.

A run's result follows from its own seed and mask alone, whatever runs share its batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dmstore.errors import InputError
from dmstore.training.config import parse
from dmstore.training.task import Classifier, Models

if TYPE_CHECKING:
    from dmstore.study.study import Study

_MEMORY = 256 << 20


@dataclass(frozen=True)
class DenseConfig:
    """Config of the task ``dmstore.training.tasks:dense``.

    Attributes
    ----------
    hidden : int
        Units of the one hidden layer (ReLU).
    epochs, batch_size : int
    learning_rate : float
        Falls linearly to 0.
    momentum, weight_decay, init : float
        SGD momentum and weight decay; scale of the initial weights relative to He's.
    center : bool
        Whether to subtract the mean training image.
    models : int
        Most models trained at a time; fewer where images are large.
    paste_rows, paste_columns : tuple of int
        Augmentation: rows and columns of a patch that is pasted on random images at each step.
    paste_value : int
        Its brightness, 0 to 255.
    paste_share : float
        Probability for each image at each step; 0 pastes nothing.
    """

    hidden: int = 64
    epochs: int = 30
    batch_size: int = 125
    learning_rate: float = 0.2
    momentum: float = 0.9
    weight_decay: float = 0.0
    init: float = 0.2
    center: bool = False
    models: int = 100
    paste_rows: tuple[int, ...] = ()
    paste_columns: tuple[int, ...] = ()
    paste_value: int = 255
    paste_share: float = 0.0

    @classmethod
    def parse(cls, config: Mapping[str, Any]) -> DenseConfig:
        """Read a config; InputError for an unknown key or a wrong type."""
        made = parse(cls, config)
        if min(made.hidden, made.epochs, made.batch_size, made.models) < 1 or not (
            0 <= made.paste_share <= 1 and 0 <= made.paste_value <= 255
        ):
            msg = "task config: hidden, epochs, batch_size and models must be positive, paste_share 0 to 1, paste_value 0 to 255"
            raise InputError(msg)
        return made


class Dense(Classifier):
    """The task; see :class:`DenseConfig`."""

    def __init__(self, study: Study, config: DenseConfig, outputs: Sequence[str]) -> None:
        super().__init__(study, outputs)
        self.config = config
        shape = self.train_image.shape[1:]
        if self.target_image.shape[1:] != shape:
            msg = f"train images are {shape}, target images {self.target_image.shape[1:]}; they must agree"
            raise InputError(msg)
        self._pasted = _patch(shape, config)
        flat = self.train_image.reshape(len(self.train_image), -1)
        self._mean = flat.mean(axis=0) / 255 if config.center else np.zeros(flat.shape[1])
        # Pasted inputs stand together, so that pasting is one contiguous write.
        rest = np.setdiff1d(np.arange(int(np.prod(shape))), self._pasted)
        self._order = np.concatenate([rest, self._pasted])
        self._paste_at = slice(len(rest), len(self._order))
        self._paste_to = (config.paste_value / 255 - self._mean[self._pasted]).astype(np.float32)
        self._inputs = self._features(self.train_image)
        seen = max(1, len(self._inputs) // 2)
        self.batch = int(np.clip(_MEMORY // (seen * self._inputs.shape[1] * 4), 1, config.models))

    def _features(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Images as rows of inputs: reordered pixels, 0 to 1, and a constant 1 for the bias."""
        flat = images.reshape(len(images), -1) / np.float32(255) - self._mean.astype(np.float32)
        ones = np.ones((len(images), 1))
        return np.ascontiguousarray(
            np.concatenate([flat[:, self._order], ones], axis=1), dtype=np.float32
        )

    def models(self, masks: NDArray[np.bool_], seeds: Sequence[int]) -> Models:
        """Train one model a mask: ``hidden`` (model, input + 1, unit), ``output`` (model, unit + 1,
        class), inputs in the order of the pixels.
        """
        sizes = masks.sum(axis=1)
        parts: list[tuple[NDArray[np.int64], Models]] = []
        for size in np.unique(sizes):
            same = np.flatnonzero(sizes == size)
            step = int(
                np.clip(
                    _MEMORY // (max(int(size), 1) * self._inputs.shape[1] * 4),
                    1,
                    self.config.models,
                )
            )
            for start in range(0, len(same), step):
                chosen = same[start : start + step]
                seen = np.array([np.flatnonzero(masks[m]) for m in chosen]).reshape(
                    len(chosen), int(size)
                )
                parts.append((chosen, self._train(seen, [seeds[m] for m in chosen])))
        order = np.argsort(np.concatenate([chosen for chosen, _ in parts]))
        merged = {
            name: np.concatenate([made[name] for _, made in parts])[order] for name in parts[0][1]
        }
        back = np.argsort(np.append(self._order, len(self._order)))
        return {"hidden": merged["hidden"][:, back], "output": merged["output"]}

    def logits(self, models: Models, images: NDArray[np.uint8]) -> NDArray[Any]:
        """See :class:`dmstore.training.task.ModelTask`."""
        inputs = self._features(images)
        order = np.append(self._order, len(self._order))
        out = np.empty((len(models["hidden"]), len(images), self.classes), dtype=np.float32)
        for number, (hidden, output) in enumerate(
            zip(models["hidden"], models["output"], strict=True)
        ):
            active = np.maximum(inputs @ hidden[order], 0)
            out[number] = active @ output[:-1] + output[-1]
        return out

    def _train(self, seen: NDArray[np.int64], seeds: Sequence[int]) -> Models:
        """Train models on the given rows: (model, row) positions of train units."""
        config = self.config
        models, size = seen.shape
        steps = max(1, -(-size // config.batch_size))
        batch = -(-size // steps) if size else 1
        width, hidden, classes = self._inputs.shape[1], config.hidden, self.classes
        streams = [np.random.Generator(np.random.Philox(seed)) for seed in seeds]
        w1 = np.empty((models, width, hidden), dtype=np.float32)
        w2 = np.zeros((models, hidden + 1, classes), dtype=np.float32)
        rows = np.zeros((models, steps * batch), dtype=np.int64)
        pasted = np.zeros(
            (models, config.epochs * steps if config.paste_share else 0, batch), dtype=bool
        )
        for m, stream in enumerate(streams):
            w1[m] = stream.standard_normal((width, hidden), dtype=np.float32)
            w2[m, :-1] = stream.standard_normal((hidden, classes), dtype=np.float32)
            rows[m, :size] = stream.permutation(seen[m])
            if config.paste_share:
                pasted[m] = stream.random(pasted.shape[1:], dtype=np.float32) < config.paste_share
        w1 *= np.float32(config.init * np.sqrt(2 / (width - 1)))
        w1[:, -1] = 0
        w2 *= np.float32(config.init * np.sqrt(1 / hidden))
        x = np.ascontiguousarray(
            self._inputs[rows].reshape(models, steps, batch, width).swapaxes(0, 1)
        )
        label = np.eye(classes, dtype=np.float32)[self.train_label[rows]]
        label = np.ascontiguousarray(label.reshape(models, steps, batch, classes).swapaxes(0, 1))
        weight = (np.arange(steps * batch) < size).astype(np.float32).reshape(steps, 1, batch, 1)
        original = x[..., self._paste_at].copy()
        act = np.empty((models, batch, hidden + 1), dtype=np.float32)
        act[..., -1] = 1
        back = np.empty((models, batch, hidden), dtype=np.float32)
        gradients = [np.empty_like(w1), np.empty_like(w2)]
        velocities = [np.zeros_like(w1), np.zeros_like(w2)]
        # One order of batches for all models: their rows were shuffled apart already.
        order = np.random.Generator(np.random.Philox(0))
        total, done = config.epochs * steps, 0
        for _ in range(config.epochs):
            for j in order.permutation(steps):
                xj = x[j]
                if config.paste_share:
                    spot = xj[..., self._paste_at]
                    spot[...] = original[j]
                    spot[pasted[:, done]] = self._paste_to
                np.maximum(np.matmul(xj, w1), 0, out=act[..., :-1])
                error = np.matmul(act, w2)
                _softmax(error)
                error -= label[j]
                if steps * batch != size:
                    error *= weight[j]
                np.matmul(error, w2[:, :-1].transpose(0, 2, 1), out=back)
                np.multiply(back, act[..., :-1] > 0, out=back)
                np.matmul(act.transpose(0, 2, 1), error, out=gradients[1])
                np.matmul(xj.transpose(0, 2, 1), back, out=gradients[0])
                rate = config.learning_rate * (1 - done / total)
                done += 1
                count = np.float32(rate / max(float(weight[j].sum()), 1.0))
                for value, velocity, gradient in zip((w1, w2), velocities, gradients, strict=True):
                    velocity *= np.float32(config.momentum)
                    gradient *= count
                    velocity -= gradient
                    if config.weight_decay:
                        value *= np.float32(1 - rate * config.weight_decay)
                    value += velocity
        return {"hidden": w1, "output": w2}


def _softmax(values: NDArray[np.float32]) -> None:
    """Softmax over the last axis, in place."""
    # NumPy's reductions over a short last axis are slow: slice by slice for the maximum, and a
    # product with ones for the sum.
    top = values[..., 0].copy()
    for c in range(1, values.shape[-1]):
        np.maximum(top, values[..., c], out=top)
    values -= top[..., None]
    np.exp(values, out=values)
    values /= np.matmul(values, np.ones((values.shape[-1], 1), dtype=np.float32))


def _patch(shape: tuple[int, ...], config: DenseConfig) -> NDArray[np.int64]:
    """Flat positions of the pasted inputs, all channels."""
    if not config.paste_share:
        return np.empty(0, dtype=np.int64)
    rows, columns = np.unique(config.paste_rows), np.unique(config.paste_columns)
    if (
        not (rows.size and columns.size)
        or rows.max() >= shape[0]
        or columns.max() >= shape[1]
        or min(rows.min(), columns.min()) < 0
    ):
        msg = f"task config pastes rows {config.paste_rows} and columns {config.paste_columns}, images are {shape}"
        raise InputError(msg)
    grid = np.arange(int(np.prod(shape))).reshape(shape)
    return np.sort(grid[np.ix_(rows, columns)].ravel())


def dense(study: Study, config: Mapping[str, Any], outputs: Sequence[str]) -> Dense:
    """Make the task."""
    return Dense(study, DenseConfig.parse(config), outputs)
