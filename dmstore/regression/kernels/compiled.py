"""How kernels are compiled: without the interpreter's lock, and kept on disk. The other modules take numba from here."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from typing import Any, TypeVar

from dmstore.core import waiting
from dmstore.errors import MissingDependencyError

try:
    import numba
    from numba import extending
except ImportError as error:
    msg = "fitting needs numba; pip install 'dmstore[fit]'"
    raise MissingDependencyError(msg) from error

Function = TypeVar("Function", bound=Callable[..., Any])
_log = logging.getLogger(__name__)
_COMPILING = "compiling (once per machine, up to a minute)"


def compiled(function: Function) -> Function:
    """A function compiled for each kind of arguments that it is called with."""
    made: Function = _kept(numba.njit(nogil=True)(function))
    return made


def compiled_with(*freedoms: str) -> Callable[[Function], Function]:
    """The same, with freedoms of arithmetic: ``contract`` fuses products and sums, ``reassoc`` reorders sums."""

    def decorate(function: Function) -> Function:
        made: Function = _kept(numba.njit(nogil=True, fastmath=set(freedoms))(function))
        return made

    return decorate


def _kept(dispatcher: Any) -> Any:
    """A function whose machine code is kept on disk, where that works."""
    try:
        dispatcher.enable_caching()
    except Exception as error:  # noqa: BLE001 - numba says in many ways that there is no place
        _tell_once(str(error))
    else:
        dispatcher._cache = _Cache(dispatcher._cache)
    return dispatcher


class _Cache:
    """numba's cache of one function: what cannot be loaded is compiled, what cannot be kept is used all the same."""

    def __init__(self, cache: Any) -> None:
        self._cache = cache

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cache, name)

    def load_overload(self, signature: Any, context: Any) -> Any:
        kept = self._loaded(signature, context)
        if kept is None:
            # What was not kept is compiled next, and saved behind that.
            waiting.begins(_COMPILING)
        return kept

    def _loaded(self, signature: Any, context: Any) -> Any:
        try:
            return self._cache.load_overload(signature, context)
        except Exception as error:  # noqa: BLE001 - a cut or damaged file can raise anything
            _log.info("%s: compiled again, what was kept is damaged (%r)", self.cache_path, error)
            # A damaged index would refuse what is saved next, too.
            with contextlib.suppress(OSError):
                self._cache.flush()
            return None

    def save_overload(self, signature: Any, made: Any) -> None:
        waiting.ends()
        try:
            self._cache.save_overload(signature, made)
        except Exception as error:  # noqa: BLE001 - a full disk, a folder that has gone, a damaged index
            _tell_once(f"{self.cache_path}: {error}")


_told = False


def _tell_once(why: str) -> None:
    """Say that compiled code cannot be kept; of one function, as the others fail alike."""
    global _told
    if not _told:
        _told = True
        _log.warning(
            "compiled code cannot be kept (%s), so each process compiles it anew, which takes a minute or more; "
            "set NUMBA_CACHE_DIR to a folder that can be written to",
            why,
        )


def intrinsic(function: Callable[..., Any]) -> Any:
    """A function that writes its own instructions; it is called without its first parameter."""
    return extending.intrinsic(function)


def implements(stub: Callable[..., Any]) -> Callable[[Function], Function]:
    """What a stub stands for, chosen by the types of its arguments; parameters may have other names."""

    def decorate(function: Function) -> Function:
        made: Function = extending.overload(stub, strict=False)(function)
        return made

    return decorate
