"""How kernels are compiled: without the interpreter's lock, and kept on disk. The other modules take numba from here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from dmstore.errors import MissingDependencyError

try:
    import numba
    from numba import extending
except ImportError as error:
    msg = "fitting needs numba; pip install 'dmstore[fit]'"
    raise MissingDependencyError(msg) from error

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """A function compiled for each kind of arguments that it is called with."""
    made: Function = numba.njit(nogil=True, cache=True)(function)
    return made


def compiled_with(*freedoms: str) -> Callable[[Function], Function]:
    """The same, with freedoms of arithmetic: ``contract`` fuses products and sums, ``reassoc`` reorders sums."""

    def decorate(function: Function) -> Function:
        made: Function = numba.njit(nogil=True, cache=True, fastmath=set(freedoms))(function)
        return made

    return decorate


def intrinsic(function: Callable[..., Any]) -> Any:
    """A function that writes its own instructions; it is called without its first parameter."""
    return extending.intrinsic(function)


def implements(stub: Callable[..., Any]) -> Callable[[Function], Function]:
    """What a stub stands for, chosen by the types of its arguments; parameters may have other names."""

    def decorate(function: Function) -> Function:
        made: Function = extending.overload(stub, strict=False)(function)
        return made

    return decorate
