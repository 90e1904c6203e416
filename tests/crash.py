"""Runs an operation in a process that dies just before its k-th mutating call."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable

CRASHED = 137
_EVENTS = {"os.link", "os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.truncate"}
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(
    [
        "zarr",
        "jsonschema",
        "dmstore.study",
        "dmstore.storage.compact",
        "dmstore.storage.vacuum",
        "helpers",
    ]
)


def _child(operation: Callable[[str], None], path: str, at: int, counter) -> None:
    def strike() -> None:
        with counter.get_lock():
            counter.value += 1
            number = counter.value
        if number == at:
            os._exit(CRASHED)

    def hook(event: str, arguments: tuple) -> None:
        if event == "open":
            name, _, flags = arguments
            # Directories are opened to be synced, files to be read: neither changes anything.
            if (
                isinstance(flags, int)
                and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
                and path in str(name)
            ):
                strike()
        elif event in _EVENTS and path in str(arguments[0]):
            strike()

    # Killing a process loses nothing that the kernel has, so the syncs themselves can be left out.
    os.fsync = lambda descriptor: strike()
    sys.addaudithook(hook)
    operation(path)
    os._exit(0)


def run(operation: Callable[[str], None], path: str, at: int) -> tuple[bool, int]:
    """Run `operation(path)` and die before its call number `at` (0: never).

    Returns whether it died there, and the number of mutating calls made.
    """
    counter = _context.Value("i", 0)
    process = _context.Process(target=_child, args=(operation, path, at, counter))
    process.start()
    process.join(120)
    assert process.exitcode in (0, CRASHED), process.exitcode
    return process.exitcode == CRASHED, counter.value
