"""Several workers on one host, a process each: which device each has, how they are told to end, how they ended."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import FrameType
from typing import IO, Any

from dmstore.core.threads import cores
from dmstore.training.ending import WITH_PARENT

# How long workers may take to end once they were told to; they give up themselves before.
_PATIENCE = 40.0
_POLL = 0.1
_FORWARDED = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGUSR1", "SIGXCPU") if hasattr(signal, name)
)
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")


def cuda_devices(environment: Mapping[str, str] | None = None) -> list[str]:
    """CUDA devices that this process may use, as ``CUDA_VISIBLE_DEVICES`` names them; none without a GPU.

    Parameters
    ----------
    environment : mapping, optional
        By default that of this process.
    """
    environment = os.environ if environment is None else environment
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        names = [name.strip() for name in visible.split(",")]
        # CUDA takes the names up to the first that is none.
        stop = next((i for i, name in enumerate(names) if name in ("", "-1")), len(names))
        return names[:stop]
    if shutil.which("nvidia-smi") is None:
        return []
    try:
        listed = subprocess.run(
            ["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return parse_devices(listed)


def parse_devices(listed: str) -> list[str]:
    """Devices from the lines of ``nvidia-smi -L``: a GPU that is divided (MIG) counts as its parts.

    Parameters
    ----------
    listed : str
    """
    devices: list[list[str]] = []
    for line in listed.splitlines():
        if gpu := re.match(r"GPU ([0-9]+):", line):
            devices.append([gpu[1]])
        elif (part := re.search(r"\(UUID: (MIG-[^)]+)\)", line)) and devices:
            devices[-1].append(part[1])
    return [name for own in devices for name in (own[1:] or own)]


def environments(
    devices: Sequence[str],
    *,
    workers: int | None = None,
    per_device: int | None = None,
    threads: int | None = None,
) -> list[dict[str, str]]:
    """What each worker finds in its environment: one device, and how many threads it may use.

    Parameters
    ----------
    devices : sequence of str
        CUDA devices; none for the CPU.
    workers : int, optional
        Workers in all, spread over the devices.
    per_device : int, optional
        Workers a device, or on the CPU.
    threads : int, optional
        Threads of each; by default they share the cores.

    Returns
    -------
    list of dict
    """
    among = max(1, len(devices))
    count = workers if workers is not None else (per_device or 1) * among
    most = str(threads or max(1, cores() // count))
    return [
        {
            **dict.fromkeys(_THREADS, most),
            **({"CUDA_VISIBLE_DEVICES": devices[number % among]} if devices else {}),
        }
        for number in range(count)
    ]


@dataclass
class End:
    """How a worker ended: its exit code (negative: the signal that killed it), and what it said as JSON."""

    code: int
    said: Mapping[str, Any]

    @property
    def error(self) -> str | None:
        """Its error, if it had one."""
        error = self.said.get("error")
        return str(error["message"]) if isinstance(error, Mapping) else None


@dataclass
class Workers:
    """Worker processes of ``dmstore train … --part next``. Signals to this process that end or flush go on to them.

    Parameters
    ----------
    arguments : sequence of str
        Of ``dmstore train``: the study, the algorithm and options.
    environments : sequence of dict
        One a worker, from :func:`environments`.
    directory : str, optional
        Where they run.
    """

    arguments: Sequence[str]
    environments: Sequence[Mapping[str, str]]
    directory: str | None = None
    _processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def run(self, look: Callable[[], None] = lambda: None, every: float = 10.0) -> list[End]:
        """Start all, wait for all.

        Parameters
        ----------
        look : callable
            Called now and then meanwhile.
        every : float
            Seconds between these calls.

        Returns
        -------
        list of End
        """
        with contextlib.ExitStack() as stack:
            stack.callback(self.end)
            stack.enter_context(self._forwarding())
            files = [stack.enter_context(tempfile.TemporaryFile()) for _ in self.environments]
            for environment, file in zip(self.environments, files, strict=True):
                self._processes.append(self._start(environment, file))
            last = time.monotonic()
            while any(process.poll() is None for process in self._processes):
                time.sleep(_POLL)
                if time.monotonic() - last >= every:
                    look()
                    last = time.monotonic()
            return [
                End(process.returncode, _last_object(file))
                for process, file in zip(self._processes, files, strict=True)
            ]

    def end(self) -> None:
        """Tell all to end, and wait until they did."""
        self._send(signal.SIGTERM)
        limit = time.monotonic() + _PATIENCE
        for process in self._processes:
            try:
                process.wait(max(0.0, limit - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdin:
                process.stdin.close()

    def _start(self, environment: Mapping[str, str], file: IO[bytes]) -> subprocess.Popen[bytes]:
        threads = environment[_THREADS[0]]
        command = [sys.executable, "-m", "dmstore", "train", *self.arguments]
        # Whoever dies with its standard input does not outlive this process, however that ends.
        return subprocess.Popen(
            [*command, "--part", "next", "--threads", threads, "--json", "-Q"],
            stdin=subprocess.PIPE,
            stdout=file,
            cwd=self.directory,
            env={**os.environ, **environment, WITH_PARENT: "1"},
        )

    def _send(self, number: int) -> None:
        for process in self._processes:
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    process.send_signal(number)

    @contextlib.contextmanager
    def _forwarding(self) -> Any:
        def forward(number: int, frame: FrameType | None) -> None:
            self._send(number)

        before: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():
            before = {number: signal.signal(number, forward) for number in _FORWARDED}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, signal.SIG_DFL if handler is None else handler)


def _last_object(file: IO[bytes]) -> dict[str, Any]:
    """The JSON object in the last line of what a worker printed; empty if it printed none."""
    file.seek(0)
    lines = file.read().decode(errors="replace").strip().splitlines()
    with contextlib.suppress(ValueError):
        said = json.loads(lines[-1]) if lines else {}
        return said if isinstance(said, dict) else {}
    return {}
