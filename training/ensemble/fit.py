"""Training many models at once as their config says, each as :func:`dmstore.training.loop.fit.fit` trains it alone."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from dmstore.errors import InputError
from dmstore.training.augmentation import Augmentation
from dmstore.training.config import TrainingConfig
from dmstore.training.ensemble.convolutions import Convolutions
from dmstore.training.ensemble.dense import Dense
from dmstore.training.ensemble.feed import feed
from dmstore.training.ensemble.stack import Stack
from dmstore.training.ensemble.steps import Step, steps
from dmstore.training.loaders.tensors import TensorLoader
from dmstore.training.loop.batches import Seeds, epoch_batches
from dmstore.training.loop.precision import half
from dmstore.training.loop.schedule import learning_rate
from dmstore.training.task import Saved


@dataclass
class Ensemble:
    """Trained models.

    Attributes
    ----------
    stack : Stack
    epochs : (model,) int64
        That each was trained.
    loss : (model,) float64
        Mean training loss of its last epoch, in nat.
    """

    stack: Stack
    epochs: NDArray[np.int64]
    loss: NDArray[np.float64]


def fit_many(
    config: TrainingConfig,
    make: Callable[[], nn.Module],
    loader: TensorLoader,
    label: torch.Tensor,
    seen: Sequence[NDArray[np.int64]],
    seeds: Sequence[Seeds],
    device: torch.device,
    saved: Saved | None = None,
) -> Ensemble:
    """Train models.

    Parameters
    ----------
    config : TrainingConfig
    make : callable
        A new model, on the CPU, from the random state of the time.
    loader : TensorLoader
    label : (train,) int64 tensor
        On the device.
    seen : sequence of (unit,) int64
        Positions of the units that each model sees.
    seeds : sequence of Seeds
        Of each model.
    device : torch.device
    saved : Saved, optional
        Takes the state of all models at ends of epochs, and gives it back.

    Raises
    ------
    InputError
        If a model sees no unit.
    """
    if not all(map(len, seen)):
        msg = "a mask sees no unit, so there is nothing to train on"
        raise InputError(msg)
    whole = _made(config, make, seeds, device)
    epochs, loss = np.zeros(len(seen), dtype=np.int64), np.full(len(seen), np.nan)
    alive, start = np.arange(len(seen)), 0
    data = saved.load() if saved is not None else None
    if data is not None:
        alive, start = _restored(data, whole, epochs, loss)
    augmentation = Augmentation.of(config)
    some = whole if len(alive) == len(whole) else whole.take(alive.tolist())
    for epoch in range(start, config.epochs):
        own = [epoch_batches(seen[one], config, seeds[one].order, epoch) for one in alive.tolist()]
        order = [seeds[one].augmentation for one in alive.tolist()]
        planned = steps(own)
        total = torch.zeros(len(alive), device=device)
        for step, inputs in zip(
            planned, feed(loader, planned, augmentation, order, epoch, some.kind), strict=True
        ):
            total[torch.from_numpy(step.models).to(device)] += _step(
                config, some, step, inputs, label, epoch
            )
        count = [sum(map(len, batches)) for batches in own]
        loss[alive] = total.cpu().numpy().astype(np.float64) / count
        epochs[alive] = epoch + 1
        on = np.isfinite(loss[alive]) & ~(loss[alive] < config.stop_loss)
        if not on.all():
            # What has stopped stays as it is.
            _keep(whole, some, alive)
            alive = alive[on]
            if not len(alive):
                break
            some = whole.take(alive.tolist())
        if saved is not None and epoch + 1 < config.epochs and saved.due():
            _keep(whole, some, alive)
            saved.save(_dumped(whole, epochs, loss, alive, epoch + 1))
    if len(alive):
        _keep(whole, some, alive)
    return Ensemble(whole, epochs, loss)


def _made(
    config: TrainingConfig,
    make: Callable[[], nn.Module],
    seeds: Sequence[Seeds],
    device: torch.device,
) -> Stack:
    networks = []
    for seed in seeds:
        with torch.random.fork_rng(devices=[]):
            # That of the CPU alone: those of accelerators, which draw nothing here, take longer than a small network.
            torch.default_generator.manual_seed(seed.init)
            networks.append(make())
    first = networks[0]
    assert isinstance(first, nn.Sequential)
    kind = Convolutions.like(first) if config.model == "cnn" else Dense
    states = [network.state_dict() for network in networks]
    return kind.of(config, states, device, half(config, device))


def _step(
    config: TrainingConfig,
    some: Stack,
    step: Step,
    inputs: torch.Tensor,
    label: torch.Tensor,
    epoch: int,
) -> torch.Tensor:
    """Learn from one step, by those models that have one; their losses."""
    device = inputs.device
    rate = [learning_rate(config, epoch, share) for share in step.share.tolist()]
    wanted = label[torch.from_numpy(step.position).to(device)]
    weight = torch.from_numpy(step.weight).to(device)
    count = step.count.tolist()
    if len(step.models) == len(some):
        return some.step(inputs, wanted, weight, rate, count)
    part = some.take(step.models.tolist())
    losses = part.step(inputs, wanted, weight, rate, count)
    some.put(step.models.tolist(), part)
    return losses


def _keep(whole: Stack, some: Stack, alive: NDArray[np.int64]) -> None:
    if some is not whole:
        whole.put(alive.tolist(), some)


def _dumped(
    whole: Stack,
    epochs: NDArray[np.int64],
    loss: NDArray[np.float64],
    alive: NDArray[np.int64],
    epoch: int,
) -> bytes:
    stream = io.BytesIO()
    numbers = {"epochs": epochs.tolist(), "loss": loss.tolist(), "alive": alive.tolist()}
    torch.save(
        {"arrays": whole.arrays, "momentum": whole.momentum, "epoch": epoch, **numbers}, stream
    )
    return stream.getvalue()


def _restored(
    data: bytes, whole: Stack, epochs: NDArray[np.int64], loss: NDArray[np.float64]
) -> tuple[NDArray[np.int64], int]:
    """Fill in what was saved; the models that go on, and the next epoch."""
    state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    for own, kept in ((whole.arrays, state["arrays"]), (whole.momentum, state["momentum"])):
        for name, value in own.items():
            value.copy_(kept[name])
    epochs[:], loss[:] = state["epochs"], state["loss"]
    return np.array(state["alive"], dtype=np.int64), int(state["epoch"])


def logits_many(stack: Stack, inputs: Iterator[torch.Tensor]) -> NDArray[np.float32]:
    """What models say, in float32: (model, example, class)."""
    with torch.inference_mode():
        made = [stack.logits(some).float().cpu() for some in inputs]
    return np.asarray(torch.cat(made, dim=1).numpy(), dtype=np.float32)
