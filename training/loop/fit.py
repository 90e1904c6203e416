"""Training one model as its config says."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from dmstore.errors import InputError
from dmstore.training.augmentation import Augmentation
from dmstore.training.config import TrainingConfig
from dmstore.training.loaders.loader import Loader
from dmstore.training.loop.batches import Seeds, epoch_batches
from dmstore.training.loop.precision import half
from dmstore.training.loop.schedule import learning_rate
from dmstore.training.task import Saved

# Examples of a batch where nothing is learnt.
EVALUATED = 512


@dataclass
class Trained:
    """A trained model.

    Attributes
    ----------
    model : torch.nn.Module
    epochs : int
        That were trained.
    chosen : int
        Epoch whose model this is, from 1.
    loss : float
        Mean training loss of the last epoch, in nat.
    parts : int
        In how many parts a batch was taken, for want of memory.
    """

    model: nn.Module
    epochs: int
    chosen: int
    loss: float
    parts: int


def fit(
    config: TrainingConfig,
    make: Callable[[], nn.Module],
    loader: Loader,
    label: torch.Tensor,
    seen: NDArray[np.int64],
    seeds: Seeds,
    device: torch.device,
    *,
    validation: torch.Tensor | None = None,
    saved: Saved | None = None,
) -> Trained:
    """Train a model. Where memory runs out, begin again with batches taken in parts.

    Parameters
    ----------
    config : TrainingConfig
    make : callable
        A new model, on the CPU, from the random state of the time.
    loader : Loader
    label : (train,) int64 tensor
        On the device.
    seen : (unit,) int64
        Positions of the units that the run sees.
    seeds : Seeds
    device : torch.device
    validation : (target,) int64 tensor, optional
        Labels of the validation set, where it chooses the epoch.
    saved : Saved, optional
        Takes the state at ends of epochs, and gives it back.

    Raises
    ------
    InputError
        If no unit is seen, or one example alone does not fit into memory.
    """
    if not len(seen):
        msg = "a mask sees no unit, so there is nothing to train on"
        raise InputError(msg)
    parts = 1
    while True:
        try:
            return _fit(config, make, loader, label, seen, seeds, device, validation, saved, parts)
        except torch.cuda.OutOfMemoryError:
            parts *= 2
            if parts > config.batch_size:
                msg = f"the device has no memory for one example of {config.model}; take a smaller model or fewer workers per device"
                raise InputError(msg) from None
        torch.cuda.empty_cache()
        warnings.warn(
            f"out of memory with batches of {config.batch_size}: each is taken in {parts} parts",
            stacklevel=2,
        )


def _fit(
    config: TrainingConfig,
    make: Callable[[], nn.Module],
    loader: Loader,
    label: torch.Tensor,
    seen: NDArray[np.int64],
    seeds: Seeds,
    device: torch.device,
    validation: torch.Tensor | None,
    saved: Saved | None,
    parts: int,
) -> Trained:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seeds.init)
        model = make()
    layout = torch.channels_last if config.channels_last else torch.contiguous_format
    model = model.to(device, memory_format=layout)  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(
        [one for one in model.parameters() if one.requires_grad],
        lr=config.learning_rate,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        nesterov=config.nesterov,
    )
    kind = half(config, device)
    scaler = torch.amp.GradScaler(device.type, enabled=kind is torch.float16)
    state = _State(model, optimizer, scaler)
    if saved is not None:
        state.restore(saved.load())
    step: Any = torch.compile(model) if config.compile else model
    criterion = nn.CrossEntropyLoss(label_smoothing=config.label_smoothing, reduction="sum")
    augmentation = Augmentation.of(config)
    for epoch in range(state.epoch, config.epochs):
        model.train()
        batches = epoch_batches(seen, config, seeds.order, epoch)
        total, count = torch.zeros((), device=device), 0
        images = loader.epoch(batches, augmentation, seeds.augmentation, epoch)
        for number, (batch, inputs) in enumerate(zip(batches, images, strict=True)):
            rate = learning_rate(config, epoch, number / len(batches))
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.zero_grad(set_to_none=True)
            if inputs.dim() == 4:
                # Pixels come as files have them, the channel last.
                inputs = inputs.contiguous(memory_format=layout)
            own = label[torch.from_numpy(batch).to(device)]
            for some, wanted in zip(inputs.chunk(parts), own.chunk(parts), strict=True):
                with torch.autocast(device.type, dtype=kind, enabled=kind is not None):
                    logit = step(some)
                loss = criterion(logit.float(), wanted)
                scaler.scale(loss / len(batch)).backward()
                total += loss.detach()
            scaler.step(optimizer)
            scaler.update()
            count += len(batch)
        state.ended(epoch, float(total) / count)
        if validation is not None:
            right = _accuracy(model, loader, config.validation_set, validation)
            state.judge(right)
        if not np.isfinite(state.loss) or state.loss < config.stop_loss:
            break
        if saved is not None and saved.due() and epoch + 1 < config.epochs:
            saved.save(state.dump())
    state.take_best()
    return Trained(model, state.epoch, state.chosen, state.loss, parts)


class _State:
    """What a run is made of between two epochs."""

    def __init__(self, model: nn.Module, optimizer: Any, scaler: Any) -> None:
        self._kept = {"model": model, "optimizer": optimizer, "scaler": scaler}
        self.epoch, self.chosen, self.loss = 0, 0, float("nan")
        self._accuracy = -1.0
        self._best: dict[str, torch.Tensor] | None = None

    def ended(self, epoch: int, loss: float) -> None:
        self.epoch, self.loss = epoch + 1, loss
        if self._best is None:
            self.chosen = epoch + 1

    def judge(self, accuracy: float) -> None:
        """Keep the model if no earlier one was as accurate."""
        if accuracy > self._accuracy:
            self._accuracy, self.chosen = accuracy, self.epoch
            state = self._kept["model"].state_dict()
            self._best = {key: value.clone() for key, value in state.items()}

    def take_best(self) -> None:
        if self._best is not None:
            self._kept["model"].load_state_dict(self._best)

    def dump(self) -> bytes:
        stream = io.BytesIO()
        values = {key: value.state_dict() for key, value in self._kept.items()}
        numbers = [self.epoch, self.chosen, self.loss, self._accuracy]
        torch.save({**values, "best": self._best, "numbers": numbers}, stream)
        return stream.getvalue()

    def restore(self, data: bytes | None) -> None:
        if data is None:
            return
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        for key, value in self._kept.items():
            value.load_state_dict(state[key])
        self._best = state["best"]
        self.epoch, self.chosen, self.loss, self._accuracy = state["numbers"]


def logits(model: nn.Module, inputs: Iterator[torch.Tensor]) -> NDArray[np.float32]:
    """What a model says, in float32: (example, class)."""
    model.eval()
    with torch.inference_mode():
        made = [model(some).float().cpu() for some in inputs]
    return np.asarray(torch.cat(made).numpy(), dtype=np.float32)


def _accuracy(model: nn.Module, loader: Loader, part: str, label: torch.Tensor) -> float:
    made = logits(model, loader.evaluate(part, EVALUATED))
    return float((made.argmax(axis=1) == label.cpu().numpy()).mean())


@contextlib.contextmanager
def repeatable(config: TrainingConfig) -> Iterator[None]:
    """Inside, only operations that repeat to the bit, where the config asks for it."""
    before = torch.get_deterministic_debug_mode()
    filled = torch.utils.deterministic.fill_uninitialized_memory
    try:
        # Which is for finding reads of memory that nothing was written to, and takes a tenth of the time.
        torch.utils.deterministic.fill_uninitialized_memory = False
        _set_repeatable(int(config.deterministic), compiler=config.compile)
        yield
    finally:
        _set_repeatable(before, compiler=config.compile)
        torch.utils.deterministic.fill_uninitialized_memory = filled


def _set_repeatable(mode: int, *, compiler: bool) -> None:
    """Have torch, and where asked its compiler, take operations that repeat: 0 any, 1 warn of others, 2 refuse others."""
    if compiler:
        torch.use_deterministic_algorithms(mode > 0, warn_only=mode == 1)
    else:
        # Tells no compiler, whose import takes longer than torch's own.
        torch.set_deterministic_debug_mode(mode)
