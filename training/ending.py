"""Ending early when a job's time is over: what is finished is stored, and the process says how it ended."""

from __future__ import annotations

import os
import queue
import signal
import threading
from types import FrameType, TracebackType
from typing import Any

# SLURM and Kubernetes kill 30 seconds after SIGTERM.
PATIENCE = 20.0
_SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGUSR2", "SIGXCPU") if hasattr(signal, name)
)


# In the environment of a process that is to end when its standard input does: a worker of ours.
WITH_PARENT = "DMSTORE_ENDS_WITH_STDIN"


class Ended(BaseException):
    """Training is given up in the middle: no error, and nothing that a task should catch."""


class Ending:
    """Inside the block SIGTERM, SIGUSR2 and SIGXCPU ask for an early end instead of ending the process.

    Training goes on to the end of its batch, or to its next checkpoint, for `patience` seconds, or until
    a second signal: then :class:`Ended` is raised in the main thread.

    Parameters
    ----------
    patience : float, optional
        Seconds; 20 by default.
    """

    def __init__(self, patience: float | None = None) -> None:
        self._patience = PATIENCE if patience is None else patience
        self._asked = False
        # A signal starts no thread: the main one may be at that itself. This one waits from the beginning.
        self._wake: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self._handlers: dict[int, Any] = {}

    def asked(self) -> bool:
        """Whether an early end was asked for."""
        return self._asked

    def __enter__(self) -> Ending:
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                self._handlers[number] = signal.signal(number, self._on_signal)
            threading.Thread(target=self._insist, name="dmstore-ending", daemon=True).start()
            if os.environ.get(WITH_PARENT):
                threading.Thread(target=_end_with_stdin, name="dmstore-parent", daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._wake.put(None)
        for number, handler in self._handlers.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._asked:
            raise Ended
        self._asked = True
        self._wake.put(number)

    def _insist(self) -> None:
        """Send the signal again, once patience is over."""
        number = self._wake.get()
        if number is None:
            return
        try:
            self._wake.get(timeout=self._patience)
        except queue.Empty:
            os.kill(os.getpid(), number)


def _end_with_stdin() -> None:
    # Not by sys.stdin, whose lock would be held at exit.
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
