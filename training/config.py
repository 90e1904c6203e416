"""Configs of training tasks: flat, typed, every value named; all that is wrong with one is said at once."""

from __future__ import annotations

import difflib
import inspect
import math
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Any, TypeVar

from dmstore.errors import InputError

Config = TypeVar("Config")


def limited(
    default: Any,
    *,
    among: tuple[str, ...] = (),
    least: float | None = None,
    most: float | None = None,
) -> Any:
    """A field of a config with what it may be.

    Parameters
    ----------
    default : object
        Its type is the field's.
    among : tuple of str
        The only texts.
    least, most : float, optional
        The least and the largest number, themselves included.
    """
    return field(default=default, metadata={"among": among, "least": least, "most": most})


def parse(kind: type[Config], given: Mapping[str, Any], where: str = "task config") -> Config:
    """Make a config of what was given.

    Parameters
    ----------
    kind : type
        A dataclass of which every field has a default.
    given : mapping
    where : str
        For error texts.

    Raises
    ------
    InputError
        Naming every unknown key, with the one that is nearly it or else all, and every value that does not fit.
    """
    known = {one.name: one for one in fields(kind)}  # type: ignore[arg-type]
    faults, values, lost = [], {}, False
    for name, value in given.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            faults.append(f"has no {name!r}" + (f" (is {near[0]!r} meant?)" if near else ""))
            lost = lost or not near
            continue
        values[name], fault = _fitted(known[name], value)
        if fault:
            faults.append(f"{name} is {value!r}, expected {fault}")
    if faults:
        # Forty names hide a near one, and are wanted where there is none.
        told = f"; it knows {', '.join(known)}" if lost else ""
        msg = f"{where}: {'; '.join(faults)}{told}"
        raise InputError(msg)
    return kind(**values)


def _fitted(one: Field[Any], value: Any) -> tuple[Any, str]:
    """The value as its field has it, and what was expected if it does not fit."""
    assert one.default is not MISSING
    default = one.default
    among, least, most = (one.metadata.get(key) for key in ("among", "least", "most"))
    if isinstance(default, tuple):
        if not isinstance(value, list | tuple) or not all(map(_is_number, value)):
            return value, "a list of numbers"
        return tuple(value), ""
    if isinstance(default, bool):
        return value, "" if isinstance(value, bool) else "true or false"
    if isinstance(default, str):
        if not isinstance(value, str) or (among and value not in among):
            return value, f"one of {', '.join(among)}" if among else "a text"
        return value, ""
    whole = isinstance(default, int)
    if not _is_number(value) or not math.isfinite(value) or (whole and int(value) != value):
        return value, "a whole number" if whole else "a number"
    if (least is not None and value < least) or (most is not None and value > most):
        span = f"{least} to {most}" if None not in (least, most) else f"at least {least}"
        return value, span if least is not None else f"at most {most}"
    return (int(value) if whole else float(value)), ""


def explained(kind: type[Any]) -> dict[str, str]:
    """What each field of a config is, in one line: what the class's docstring says below ``Attributes``.

    Parameters
    ----------
    kind : type
        A dataclass.
    """
    said: dict[str, str] = {}
    names: list[str] = []
    section = inspect.cleandoc(kind.__doc__ or "").partition("Attributes\n----------\n")[2]
    for line in section.splitlines():
        if line.startswith("    "):
            for name in names:
                said[name] = f"{said[name]} {line.strip()}".strip().replace("``", "")
        elif line.strip():
            names = [name.strip() for name in line.partition(" : ")[0].split(",")]
            said |= dict.fromkeys(names, "")
    return {one.name: said.get(one.name, "") for one in fields(kind)}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


@dataclass(frozen=True)
class TrainingConfig:
    """Config of the task ``dmstore.training.tasks:recipe``: how one model is trained (paper B.2).

    Attributes
    ----------
    recipe : str
        The recipe that these values were taken from, or "".
    recipe_version : int
        Its version.
    dataset : str
        Data set that the recipe was made for.
    model : str
        ``resnet9``, ``resnet18``, ``resnet50``, ``fastnet``, ``cnn``, ``mlp`` or ``linear``.
    width : int
        Channels of the first layer of ``resnet9``, ``fastnet`` and ``cnn``, units of the hidden layer of ``mlp``; 0 is the model's own.
    weights : str
        Weights to begin with: a name of torchvision's, a path of a file, or "" for random ones.
    features : str
        Annotation with features in the place of images, for ``mlp`` and ``linear``.
    image_size : int
        Side of images in px; 0 keeps what is stored.
    normalize : str
        ``data`` (mean and deviation of each channel over all train units), ``imagenet`` or ``half`` (values -1 to 1).
    epochs : int
        Passes over the units that a run sees.
    batch_size : int
        Units of a step.
    stop_loss : float
        Ends training once the mean training loss of an epoch is below; 0 never does.
    batches : str
        ``all`` keeps a last smaller batch; ``whole`` drops it; ``rounded`` rounds the number of batches at random, so that on average it is as
        many as the units seen make.
    learning_rate : float
        Of SGD, at its height where the schedule changes it.
    momentum : float
        Of SGD.
    weight_decay : float
        Of SGD: adds this times the weights to their gradient.
    nesterov : bool
        Nesterov's momentum in the place of the plain one.
    schedule : str
        ``constant``; ``step`` (times ``schedule_factor`` every ``schedule_epochs`` epochs); ``triangle`` (from 0 up to the
        learning rate at epoch ``peak_epoch`` and down to 0 at the end, step by step); ``linear`` (down to 0).
    schedule_epochs : int
        Epochs between two steps of the schedule ``step``.
    schedule_factor : float
        What each of these multiplies the learning rate by.
    peak_epoch : float
        Where the schedule ``triangle`` is at the learning rate.
    label_smoothing : float
        Share of each label that is spread evenly over all classes.
    crop : str
        ``none``; ``pad`` (reflect or zero padding, then a random crop of the old size); ``resized`` (a random area, resized).
    crop_padding : int
        Width in px of what ``pad`` adds at each side.
    crop_scale : pair of float
        Least and largest share of the area that ``resized`` takes.
    crop_ratio : pair of float
        Least and largest ratio of the sides of ``resized``.
    flip : str
        ``none``, ``random``, or ``alternating`` (every second epoch, the first drawn for each image).
    choose : str
        Which epoch's model counts: ``last``, or ``validation``: the most accurate on the target set ``validation_set``.
    validation_set : str
        Target set that chooses the epoch.
    precision : str
        Of the forward pass in training: ``float32``, ``bf16``, ``fp16``; ``auto`` is the fastest that the device does well. Outputs are always
        computed in float32.
    channels_last : bool
        Images in memory as GPUs like them: the channel last.
    compile : bool
        Compile the network before training; the first run takes longer.
    deterministic : bool
        Only operations that repeat to the bit on one kind of device.
    loader : str
        ``tensors`` (images on the device), ``torchvision``, ``ffcv``; ``auto`` takes tensors where images are stored in the study.
    workers : int
        Processes or threads of a loader that reads files.
    together : int
        Models trained at a time; 0 chooses.
    init_seed : int
        Of the weights to begin with, the same for all runs; -1 takes each run's own.
    order_seed : int
        Of the order of units, in the same way.
    augmentation_seed : int
        Of crops and flips, in the same way.
    """

    recipe: str = ""
    recipe_version: int = limited(0, least=0)
    dataset: str = ""
    model: str = limited(
        "cnn", among=("resnet9", "resnet18", "resnet50", "fastnet", "cnn", "mlp", "linear")
    )
    width: int = limited(0, least=0, most=65536)
    weights: str = ""
    features: str = ""
    image_size: int = limited(0, least=0, most=4096)
    normalize: str = limited("data", among=("data", "imagenet", "half"))
    epochs: int = limited(15, least=1)
    stop_loss: float = limited(0.0, least=0)
    batch_size: int = limited(100, least=1)
    batches: str = limited("all", among=("all", "whole", "rounded"))
    learning_rate: float = limited(0.05, least=0)
    momentum: float = limited(0.9, least=0, most=1)
    weight_decay: float = limited(5e-4, least=0)
    nesterov: bool = False
    schedule: str = limited("constant", among=("constant", "step", "triangle", "linear"))
    schedule_epochs: int = limited(20, least=1)
    schedule_factor: float = limited(0.5, least=0)
    peak_epoch: float = limited(0.0, least=0)
    label_smoothing: float = limited(0.0, least=0, most=1)
    crop: str = limited("none", among=("none", "pad", "resized"))
    crop_padding: int = limited(4, least=0)
    crop_scale: tuple[float, ...] = (0.08, 1.0)
    crop_ratio: tuple[float, ...] = (3 / 4, 4 / 3)
    flip: str = limited("none", among=("none", "random", "alternating"))
    choose: str = limited("last", among=("last", "validation"))
    validation_set: str = "validation"
    precision: str = limited("auto", among=("auto", "float32", "bf16", "fp16"))
    channels_last: bool = True
    compile: bool = False
    deterministic: bool = True
    loader: str = limited("auto", among=("auto", "tensors", "torchvision", "ffcv"))
    workers: int = limited(2, least=0)
    together: int = limited(0, least=0)
    init_seed: int = limited(-1, least=-1)
    order_seed: int = limited(-1, least=-1)
    augmentation_seed: int = limited(-1, least=-1)

    @classmethod
    def of(cls, given: Mapping[str, Any], where: str = "task config") -> TrainingConfig:
        """Read a config.

        Raises
        ------
        InputError
            Naming all that is wrong.
        """
        made = parse(cls, given, where)
        faults = [
            f"{name} is {list(pair)}, expected two numbers, the smaller first, above 0"
            for name, pair in (("crop_scale", made.crop_scale), ("crop_ratio", made.crop_ratio))
            if len(pair) != 2 or not 0 < pair[0] <= pair[1]
        ]
        if made.crop_scale and made.crop_scale[-1] > 1:
            faults.append(f"crop_scale ends at {made.crop_scale[-1]}, expected at most 1")
        if made.features and made.model not in ("mlp", "linear"):
            faults.append(f"features are for the models mlp and linear, not {made.model}")
        if made.weights and made.model not in ("resnet9", "resnet18", "resnet50"):
            faults.append(f"weights are for ResNets, not {made.model}")
        if made.schedule == "triangle" and not 0 <= made.peak_epoch < made.epochs:
            faults.append(
                f"peak_epoch is {made.peak_epoch}, expected less than epochs, {made.epochs}"
            )
        if faults:
            msg = f"{where}: {'; '.join(faults)}"
            raise InputError(msg)
        return made
