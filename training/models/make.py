"""A network from a config."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from dmstore.errors import InputError, MissingDependencyError
from dmstore.training.config import TrainingConfig
from dmstore.training.models.fastnet import FastNet
from dmstore.training.models.resnet9 import resnet9
from dmstore.training.models.small import cnn, linear, mlp
from dmstore.training.models.strided import guard


def make(config: TrainingConfig, shape: tuple[int, ...], classes: int) -> nn.Module:
    """A network with random weights, or with those that the config names.

    Parameters
    ----------
    config : TrainingConfig
    shape : tuple of int
        Of one input: (channel, height, width) or (feature,).
    classes : int

    Returns
    -------
    torch.nn.Module
        On the CPU, in float32.

    Raises
    ------
    InputError
        If the weights are not there or do not fit, or the inputs are too small.
    MissingDependencyError
        If the network is torchvision's, and that is not installed.
    """
    if config.model in ("mlp", "linear"):
        size = 1
        for side in shape:
            size *= side
        return (
            linear(size, classes)
            if config.model == "linear"
            else mlp(size, config.width or 64, classes)
        )
    if len(shape) != 3:
        msg = f"model {config.model} takes images, and these are rows of {shape[0]} features; take mlp or linear"
        raise InputError(msg)
    if config.model == "cnn":
        network: nn.Module = cnn(shape, config.width or 16, classes)
    elif config.model == "fastnet":
        network = FastNet(shape, config.width or 64, classes)
    elif config.model == "resnet9":
        network = resnet9(shape, config.width or 64, classes)
    else:
        require_packages(config)
        network = _torchvision(config.model, shape[0])
    guard(network)
    if config.weights:
        _load(network, weights_file(config))
    if config.model in ("resnet18", "resnet50"):
        head = nn.Linear(network.fc.in_features, classes)  # type: ignore[arg-type]
        network.fc = head
    return network


def require_packages(config: TrainingConfig) -> None:
    """Refuse a network whose package is not here, before anything of the study is read.

    Raises
    ------
    MissingDependencyError
        If the network is torchvision's, and that is not installed.
    """
    if config.model not in ("resnet18", "resnet50"):
        return
    try:
        import torchvision  # noqa: F401
    except ImportError as error:
        msg = f"model {config.model} is torchvision's; pip install 'dmstore[vision]'"
        raise MissingDependencyError(msg) from error


def _torchvision(name: str, channels: int) -> nn.Module:
    import torchvision

    if channels != 3:
        msg = f"model {name} takes images of 3 channels, and these have {channels}; take resnet9 or cnn"
        raise InputError(msg)
    network: nn.Module = getattr(torchvision.models, name)(weights=None)
    return network


def weights_file(config: TrainingConfig) -> Path:
    """The file of weights that a config names: its path, or where torchvision keeps those of that name.

    Raises
    ------
    InputError
        If it is not there; nothing is downloaded.
    """
    path = Path(config.weights).expanduser()
    if path.suffix:
        if not path.is_file():
            msg = f"weights {path}: no such file"
            raise InputError(msg)
        return path
    try:
        import torchvision
    except ImportError as error:
        msg = f"weights {config.weights!r} are torchvision's; pip install 'dmstore[vision]', or give a file"
        raise MissingDependencyError(msg) from error
    known = torchvision.models.get_model_weights(config.model)
    if config.weights not in known.__members__:
        msg = f"weights {config.weights!r} are not known for {config.model}; give a file or {', '.join(known.__members__)}"
        raise InputError(msg)
    url = str(known[config.weights].url)
    kept = Path(str(torch.hub.get_dir())) / "checkpoints" / url.rsplit("/", 1)[-1]
    if not kept.is_file():
        msg = f"weights {config.weights} are not at {kept}; get {url} and put it there, or give a file with --set weights=FILE"
        raise InputError(msg)
    return kept


def _load(network: nn.Module, path: Path) -> None:
    """Load all weights but those of the last layer, which has classes of its own."""
    state = _read(path)
    for prefix in ("module.", "model."):
        if state and all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    own = network.state_dict()
    last = {key for key in own if key.startswith(("fc.", "head."))}
    wrong = sorted(
        key
        for key, value in own.items()
        if key not in last
        and (key not in state or state[key].shape != value.shape)
        and not key.endswith("num_batches_tracked")
    )
    if wrong:
        msg = f"weights {path} do not fit {type(network).__name__}: {len(wrong)} of its arrays are missing or of another shape, such as {wrong[0]}"
        raise InputError(msg)
    network.load_state_dict(
        {key: value for key, value in state.items() if key in own and key not in last}, strict=False
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return dict(load_file(path))
        state = torch.load(path, map_location="cpu", weights_only=True)
    except ImportError as error:
        msg = f"{path}: pip install safetensors to read it"
        raise MissingDependencyError(msg) from error
    except Exception as error:
        msg = f"weights {path} cannot be read: {str(error).splitlines()[0]}"
        raise InputError(msg) from error
    for key in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(hasattr(value, "shape") for value in state.values()):
        msg = f"weights {path} hold no state_dict of tensors"
        raise InputError(msg)
    return state
