"""Every mutating call of an operation as a point at which it may be killed.

:func:`run` has an operation die just before its k-th call, in a process of its own. :func:`record` has it
run through once and keeps what a death before each call would have left: of a killed process nothing is
left but its files, so the two are the same (a test compares them), and one run tells all points.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

CRASHED = 137
# Where the name stands among an event's arguments, and where the directory that it is relative to.
_EVENTS = {
    "os.link": (0, 2),
    "os.remove": (0, 1),
    "os.rename": (0, 2),
    "os.mkdir": (0, 2),
    "os.rmdir": (0, 1),
    "os.truncate": (0, None),
}
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(
    [
        "zarr",
        "jsonschema",
        "xarray",
        "dmstore.study.study",
        "dmstore.study.creation",
        "dmstore.intake.adopt",
        "dmstore.intake.ingest",
        "dmstore.analysis",
        "dmstore.regression.kernels.path",
        "dmstore.regression",
        "dmstore.counterfactual",
        "dmstore.training.tasks",
        "dmstore.sharing.pulling",
        "matplotlib.figure",
        "scipy.stats",
        "sklearn.decomposition",
        "jinja2",
        "dmstore.exporters.export",
        "dmstore.sharing.publishing",
        "dmstore.storage.acts.compact",
        "dmstore.storage.acts.vacuum",
        "helpers",
    ]
)


def _listen(root: str, strike: Callable[[str], None]) -> None:
    """Call `strike` with the file before each mutating call below `root`.

    Its argument is the file that is being opened for writing, else empty.
    """
    busy = threading.local()

    def struck(opened: str = "") -> None:
        busy.now = True
        try:
            strike(opened)
        finally:
            busy.now = False

    def hook(event: str, arguments: tuple) -> None:
        if getattr(busy, "now", False):
            return
        if event == "open":
            name, _, flags = arguments
            # Directories are opened to be synced, files to be read: neither changes anything.
            writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            if writes and root in str(name):
                struck(str(name))
        elif event in _EVENTS:
            place, directory = _EVENTS[event]
            name = os.fsdecode(arguments[place])
            # A tree is removed by names relative to descriptors.
            if directory is not None and arguments[directory] >= 0:
                name = str(Path(f"/proc/self/fd/{arguments[directory]}").readlink() / name)
            if root in name:
                struck()

    # Killing a process loses nothing that the kernel has, so the syncs themselves can be left out.
    os.fsync = lambda descriptor: struck()
    sys.addaudithook(hook)


def _dying(operation: Callable[[str], None], path: str, at: int, counter) -> None:
    def strike(opened: str) -> None:
        with counter.get_lock():
            counter.value += 1
            number = counter.value
        if number == at:
            os._exit(CRASHED)

    _listen(path, strike)
    operation(path)
    os._exit(0)


def _recording(
    operation: Callable[[str], None], path: str, states: str, wanted: set[int] | None, counter
) -> None:
    lock = threading.Lock()
    before = ""

    def strike(opened: str) -> None:
        nonlocal before
        with lock:
            counter.value += 1
            number = counter.value
            if wanted is None or number in wanted:
                state = Path(states, str(number))
                copy_tree(path, state)
                # What was opened by the call before may have been written in part only.
                torn = state / os.path.relpath(before, path) if before else None
                if torn is not None and number % 2 and torn.is_file():
                    os.truncate(torn, torn.stat().st_size // 2)
            before = opened

    _listen(path, strike)
    operation(path)
    os._exit(0)


def _spawn(target: Callable, arguments: tuple) -> tuple[int, int]:
    counter = _context.Value("i", 0)
    process = _context.Process(target=target, args=(*arguments, counter))
    process.start()
    process.join(300)
    assert process.exitcode in (0, CRASHED), process.exitcode
    return process.exitcode, counter.value


def run(operation: Callable[[str], None], path: str, at: int) -> tuple[bool, int]:
    """Run `operation(path)` and die before its call number `at` (0: never).

    Returns whether it died there, and the number of mutating calls made.
    """
    code, calls = _spawn(_dying, (operation, path, at))
    return code == CRASHED, calls


def record(
    operation: Callable[[str], None], path: str, states: str, wanted: Iterable[int] | None = None
) -> int:
    """Run `operation(path)` and keep in `states/k` what `path` was before call number k.

    Parameters
    ----------
    wanted : iterable of int, optional
        Which calls; all by default.

    Returns
    -------
    int
        Number of mutating calls made.
    """
    chosen = None if wanted is None else set(wanted)
    code, calls = _spawn(_recording, (operation, path, states, chosen))
    assert code == 0
    return calls


def copy_tree(source: str | Path, target: str | Path) -> None:
    """Copy a tree in which another thread may just be at work."""
    Path(target).mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileNotFoundError), os.scandir(source) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):
                if entry.is_dir(follow_symlinks=False):
                    copy_tree(entry.path, Path(target, entry.name))
                else:
                    shutil.copy2(entry.path, Path(target, entry.name), follow_symlinks=False)
