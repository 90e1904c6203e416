"""Embedders by name: open_clip's models, the stand-in, or a function of one's own."""

from __future__ import annotations

import importlib
from typing import Any

from dmstore.analysis.captions.embedder import Embedder, check_embedder
from dmstore.core.given import local_path
from dmstore.errors import DmstoreError, InputError

_KNOWN = "open_clip:local-dir:FOLDER, open_clip:hf-hub:ORG/NAME, open_clip:PE-Core-T, open_clip:MobileCLIP2-S2, standin, or package.module:function"


def load_embedder(spec: str) -> Embedder:
    """An embedder by its name.

    Parameters
    ----------
    spec : str
        ``open_clip:local-dir:FOLDER``, ``open_clip:hf-hub:ORG/NAME``, ``open_clip:PE-Core-T`` or ``open_clip:MobileCLIP2-S2``
        (both from the hub); ``open_clip``, which is PE-Core-T; ``standin``; or ``package.module:function``, which takes nothing and
        returns an :class:`~dmstore.analysis.captions.embedder.Embedder`.

    Returns
    -------
    Embedder

    Raises
    ------
    InputError
        If there is none, or its weights are not there.
    MissingDependencyError
        If a package is missing.
    """
    name, _, rest = spec.partition(":")
    if name == "standin" and not rest:
        from dmstore.analysis.captions.standin import StandIn

        return StandIn()
    if name == "open_clip":
        from dmstore.analysis.captions.clip import OpenClip

        return OpenClip(rest)
    if name in ("local-dir", "hf-hub") or local_path(spec).exists():
        remedy = f"open_clip:{spec}" if name != spec else "open_clip:local-dir:FOLDER"
        msg = f"embedder {spec!r:.200}: weights alone do not say how images are prepared; give {remedy}, a folder with open_clip_config.json beside the weights"
        raise InputError(msg)
    if not rest:
        msg = f"there is no embedder {spec!r:.200}; there are {_KNOWN}"
        raise InputError(msg)
    return _own(name, rest)


def _own(module: str, function: str) -> Embedder:
    where = f"{module}:{function}"
    try:
        make: Any = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        msg = f"embedder {where!r:.200} cannot be imported ({error}); run where its module can be found, or give {_KNOWN}"
        raise InputError(msg) from error
    if not callable(make):
        msg = f"embedder {where!r:.200} is {type(make).__name__}; give a function that returns an embedder"
        raise InputError(msg)
    try:
        made = make()
    except (DmstoreError, ImportError, MemoryError):
        raise
    except Exception as error:
        said = " ".join(str(error).split())[:200]
        msg = f"embedder {where!r:.200} failed ({type(error).__name__}: {said})"
        raise InputError(msg) from error
    return check_embedder(made, where)
