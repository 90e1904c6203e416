"""Embedders of open_clip: a model with the preprocessing that its own configuration says."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dmstore.analysis.captions.embedder import Rows
from dmstore.core.given import local_path
from dmstore.errors import InputError, MissingDependencyError

# Small ones, whose tokenizers come with open_clip.
_DEFAULTS = {
    "PE-Core-T": "hf-hub:timm/PE-Core-T-16-384",
    "MobileCLIP2-S2": "hf-hub:timm/MobileCLIP2-S2-OpenCLIP",
}
_LOCAL, _HUB = "local-dir:", "hf-hub:"
_CONFIG = "open_clip_config.json"
_REMEDY = f"give open_clip:{_LOCAL}FOLDER with {_CONFIG} and the weights, open_clip:{_HUB}ORG/NAME, or one of {', '.join(f'open_clip:{one}' for one in _DEFAULTS)}"


class OpenClip:
    """A model of open_clip.

    Parameters
    ----------
    model : str
        ``local-dir:FOLDER``, ``hf-hub:ORG/NAME``, ``PE-Core-T`` or ``MobileCLIP2-S2``; empty for the first of these two.
    device : str
        ``auto``, or as torch calls it.

    Raises
    ------
    InputError
        If the model or its weights are not there, or do not fit each other.
    MissingDependencyError
        Without the extra ``captions``.
    """

    def __init__(self, model: str = "", device: str = "auto") -> None:
        model = _DEFAULTS.get(model or next(iter(_DEFAULTS)), model)
        _check(model)
        try:
            import open_clip
            import torch
        except ImportError as error:
            msg = f"{error.name} is not installed; pip install 'dmstore[captions]'"
            raise MissingDependencyError(msg) from error
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        self._device = device
        try:
            made, _, prepare = open_clip.create_model_and_transforms(model, device=device)
            self._tokenize = open_clip.get_tokenizer(model)
        except Exception as error:
            # Whatever a hub, a damaged file or a foreign configuration makes of it.
            said = " ".join(str(error).split())[:200]
            msg = f"embedder open_clip:{model}: cannot be loaded ({type(error).__name__}: {said}); {_REMEDY}"
            raise InputError(msg) from error
        self._model, self._prepare = made.eval(), prepare
        self.name = f"open_clip:{_shown(model)}"
        self.dim = int(self.encode_texts(["a"]).shape[1])
        self.content = self._hash()

    def _hash(self) -> str:
        """Of weights and preprocessing."""
        state = hashlib.sha256()
        how = {"images": repr(self._prepare), "captions": type(self._tokenize).__name__}
        state.update(json.dumps(how, sort_keys=True).encode())
        for key, value in sorted(self._model.state_dict().items()):
            state.update(f"{key}\0{tuple(value.shape)}\0{value.dtype}\0".encode())
            state.update(np.ascontiguousarray(value.float().cpu().numpy()).tobytes())
        return state.hexdigest()

    def encode_images(self, images: NDArray[np.uint8]) -> Rows:
        """(image, height, width, 3) uint8 to unit rows, (image, dim) float32."""
        import torch
        from PIL import Image

        batch = torch.stack([self._prepare(Image.fromarray(one)) for one in images])
        with torch.inference_mode():
            said = self._model.encode_image(batch.to(self._device), normalize=True)
        return np.asarray(said.float().cpu().numpy(), dtype=np.float32)

    def encode_texts(self, texts: list[str]) -> Rows:
        """Captions to unit rows, (caption, dim) float32."""
        import torch

        with torch.inference_mode():
            said = self._model.encode_text(self._tokenize(texts).to(self._device), normalize=True)
        return np.asarray(said.float().cpu().numpy(), dtype=np.float32)


def _shown(model: str) -> str:
    """What to call a model: of a folder its name, since the path is of one machine."""
    return f"{_LOCAL}{Path(model[len(_LOCAL) :]).name}" if model.startswith(_LOCAL) else model


def _check(model: str) -> None:
    """Refuse what would load other preprocessing than the model's."""
    if model.startswith(_HUB) and model[len(_HUB) :].count("/") == 1:
        return
    if not model.startswith(_LOCAL):
        what = (
            "a bare file or folder of weights would be given a preprocessing that is not its own"
            if local_path(model).exists() or "/" in model
            else "no such model is known here"
        )
        msg = f"embedder 'open_clip:{model:.200}': {what}; {_REMEDY}"
        raise InputError(msg)
    folder = local_path(model[len(_LOCAL) :])
    config = folder / _CONFIG
    if not folder.is_dir() or not config.is_file():
        missing = f"has no {_CONFIG}" if folder.is_dir() else "is no folder"
        msg = f"{folder}: {missing}; {_REMEDY}"
        raise InputError(msg)
    weights = [one for one in folder.iterdir() if one.suffix in (".safetensors", ".bin", ".pt")]
    if not weights:
        msg = f"{folder}: holds no weights (open_clip_model.safetensors); {_REMEDY}"
        raise InputError(msg)
    if not any(one.suffix == ".safetensors" for one in weights):
        msg = f"{folder}: has {weights[0].name} alone, which may be a pickle; convert it to open_clip_model.safetensors"
        raise InputError(msg)
