"""When waiting runs are to be written although nobody asks: by time, on signals, at exit; never in a forked child."""

from __future__ import annotations

import atexit
import contextlib
import os
import queue
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

# Batch systems send these before they end a job, a terminal that closes sends SIGHUP.
_SIGNALS = tuple(
    getattr(signal, name)
    for name in ("SIGTERM", "SIGUSR1", "SIGUSR2", "SIGHUP", "SIGXCPU")
    if hasattr(signal, name)
)
# Seconds that its thread is given to end.
_LAST = 10.0


class Flusher:
    """A thread that calls a function now and then, and when a signal came.

    Parameters
    ----------
    due : callable
        Called with whether a signal asks to write now; else it writes what has waited long enough. Must not
        raise.
    seconds : float
        How often at least.
    close : callable
        Called at exit.
    """

    def __init__(
        self, due: Callable[[bool], None], seconds: float, close: Callable[[], None]
    ) -> None:
        self._due = due
        self._seconds = seconds
        self._stopped = False
        # Its put may be interrupted by a put, as a handler may be by another signal; an Event would wait for itself.
        self._wake: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._signalled: set[int] = set()
        self._answered: set[int] = set()
        self._handlers: dict[int, Any] = {}
        self._pid = os.getpid()
        _at_exit(close)
        self._catch_signals()
        self._thread = threading.Thread(target=self._watch, name="dmstore-flush", daemon=True)
        self._thread.start()

    @property
    def inherited(self) -> bool:
        """Whether this process is a fork of the one that it was made in: then nothing is written here."""
        return os.getpid() != self._pid

    def stop(self) -> None:
        """Call no more, and give the signals back."""
        self._stopped = True
        self._wake.put(None)
        if threading.current_thread() is not self._thread:
            # A signal that it sends again must find this handler: without it SIGUSR1 would end the process.
            self._thread.join(_LAST)
        if threading.current_thread() is threading.main_thread():
            for number, handler in self._handlers.items():
                if signal.getsignal(number) == self._on_signal:
                    # None: a handler that is not Python's, which cannot be put back.
                    signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _watch(self) -> None:
        while not self._stopped:
            with contextlib.suppress(queue.Empty):
                self._wake.get(timeout=self._seconds)
            signalled = sorted(self._signalled)
            self._due(bool(signalled))
            for number in signalled:
                self._signalled.discard(number)
                self._answered.add(number)
                os.kill(self._pid, number)

    def _catch_signals(self) -> None:
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                self._handlers[number] = signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        """First have the thread write, then, when it sends the signal again, do what it is for.

        The handler itself must not write: the main thread may hold a lock that writing needs.
        """
        if not (self.inherited or self._stopped) and number not in self._answered:
            self._signalled.add(number)
            self._wake.put(None)
            return
        self._answered.discard(number)
        previous = self._handlers.get(number, signal.SIG_DFL)
        if callable(previous):
            previous(number, frame)
        elif previous in (None, signal.SIG_DFL) and (number != signal.SIGUSR1 or self.inherited):
            # SIGUSR1 asks a writer to write, as batch systems use it, and nothing more.
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)


def _at_exit(close: Callable[[], None]) -> None:
    """Call `close` at exit, while threads can still be started.

    ``atexit`` comes too late: zarr's thread pools are closed by then. The hook that those pools use
    themselves runs last in, first out, so zarr has to be imported before.
    """
    import zarr  # noqa: F401

    register = getattr(threading, "_register_atexit", atexit.register)
    register(close)
