"""Waits that no count of steps shows, as while kernels are compiled: told to whoever shows how far something is."""

from __future__ import annotations

import threading
import time
import weakref
from typing import Protocol


class Listener(Protocol):
    """Who is told: what is waited for, and how many seconds that took."""

    def waits(self, why: str) -> None:
        """A wait begins."""

    def goes_on(self, seconds: float) -> None:
        """It is over."""


_lock = threading.Lock()
_listeners: weakref.WeakSet[Listener] = weakref.WeakSet()
# How many waits are going on, and since when there is one.
_depth, _since = 0, 0.0


def listen(listener: Listener) -> None:
    """Tell of waits from now on, as long as the listener lives."""
    with _lock:
        _listeners.add(listener)


def forget(listener: Listener) -> None:
    """Tell no more."""
    with _lock:
        _listeners.discard(listener)


def begins(why: str) -> None:
    """A wait begins; one inside of another is a part of it."""
    global _depth, _since
    with _lock:
        _depth += 1
        if _depth > 1:
            return
        _since = time.monotonic()
        told = list(_listeners)
    for one in told:
        one.waits(why)


def ends() -> None:
    """A wait ends."""
    global _depth
    with _lock:
        _depth = max(0, _depth - 1)
        if _depth:
            return
        took, told = time.monotonic() - _since, list(_listeners)
    for one in told:
        one.goes_on(took)
