"""A fit on a cluster: this process hands blocks and tiles to the workers of a dask scheduler."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dmstore.core.memory import available
from dmstore.core.threads import cores
from dmstore.errors import DmstoreError, IncompleteError, InputError, MissingDependencyError
from dmstore.regression.fitting import cluster_worker
from dmstore.regression.fitting.blocks import Blocks
from dmstore.regression.fitting.cluster_worker import Job
from dmstore.regression.fitting.engine import Fitting
from dmstore.regression.fitting.gram_tiles import GramTiles

if TYPE_CHECKING:
    from distributed import Client, Future, LocalCluster

# Seconds until a scheduler must have answered, and until the first or next worker must be there.
_ANSWER, _WORKERS = 5, 60
# Seconds between looks at which workers there are.
_LOOK = 0.5
# Workers that may die of one task.
_DEATHS = 5
_NOBODY = f"--cluster {{}}: no dask scheduler answers there within {_ANSWER} s; give the address of one, such as tcp://host:8786, or local:N"
_RESUME = "what is done is kept: run the same command again"


def fit_blocks(address: str, fitting: Fitting, blocks: Blocks, job: Job) -> int:
    """Do all stages of all blocks that are not done, by the workers of a cluster.

    Parameters
    ----------
    address : str
        Of a scheduler, or ``local:N``.
    fitting : Fitting
    blocks : Blocks
    job : Job
        Threads and memory in it are those of each worker, at most.

    Returns
    -------
    int
        Bytes that a worker has had at most; 0 where nothing was to be done.

    Raises
    ------
    InputError
        If no scheduler answers, or a worker has another version of dmstore or does not see the study.
    IncompleteError
        If the cluster is lost under way.
    MissingDependencyError
        If distributed is not installed.
    """
    if not blocks.todo(len(fitting.stages)):
        return 0
    with _sigterm(), _connected(address, job.threads, job.memory) as (client, memory):
        pool = _Pool(client, address, replace(job, memory=memory))
        [(_, (room, train, dtype))] = pool.each(cluster_worker.look, [()])
        passes, peak = fitting.passes(blocks, room, train), 0
        for one, todo in passes:
            with contextlib.ExitStack() as stack:
                tiles = None
                if fitting.scratch is not None and fitting.shared:
                    grams, fit = len(one.stages), job.document["fit"]
                    tiles = GramTiles.create(fitting.scratch, fit, grams, train, dtype)
                    stack.callback(tiles.remove)
                    work = [(tiles, one, *bounds) for bounds in tiles.bounds()]
                    for counted, _ in enumerate(pool.each(cluster_worker.count, work), 1):
                        fitting.tell("count", counted, len(work))
                fits = [(tiles, one, number, blocks.stages(number)) for number in todo]
                for task, most in pool.each(cluster_worker.fit_block, fits):
                    blocks.note(task[2], one.end)
                    passes.fitted(one, task[2])
                    peak = max(peak, most)
        return peak


@contextlib.contextmanager
def _sigterm() -> Iterator[None]:
    """Let SIGTERM, as at the end of a batch job, take workers and files on scratch along."""

    def end(number: int, _: Any) -> None:
        raise SystemExit(128 + number)

    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _check_address(address: str) -> None:
    """Refuse what is no address, or where nothing listens, before a client waits for it."""
    match = re.fullmatch(r"(?:([a-z]+)://)?\[?([^\[\]]+)\]?:([0-9]{1,5})", address)
    if not match and "://" not in address:
        msg = f"--cluster {address}: no address; give one such as tcp://host:8786, or local:N"
        raise InputError(msg)
    if not match or match[1] not in (None, "tcp", "tls"):
        return
    try:
        socket.create_connection((match[2], int(match[3])), timeout=_ANSWER).close()
    except (OSError, OverflowError, UnicodeError) as error:
        raise InputError(_NOBODY.format(address)) from error


@contextlib.contextmanager
def _connected(
    address: str, threads: int | None, memory: int | None
) -> Iterator[tuple[Client, int | None]]:
    """A client of a cluster, and the memory that a worker may take."""
    try:
        from distributed import Client, LocalCluster
    except ImportError as error:
        msg = "--cluster needs distributed; pip install 'dmstore[cluster]'"
        raise MissingDependencyError(msg) from error
    with contextlib.ExitStack() as stack:
        place: str = address
        local = re.fullmatch(r"local:([0-9]{1,4})", address)
        if not local:
            _check_address(address)
        else:
            count = int(local[1])
            if not count:
                msg = f"{address!r}: give at least one worker, such as local:2"
                raise InputError(msg)
            memory = memory or available() // count
            scheduler = LocalCluster(n_workers=0, dashboard_address=":0", silence_logs="CRITICAL")
            stack.callback(_close, scheduler)
            place = scheduler.scheduler_address
            for _ in range(count):
                each = threads or max(1, cores() // count)
                stack.enter_context(local_worker(place, each))
        try:
            answer = _WORKERS if local else _ANSWER
            client = Client(place, timeout=answer, set_as_default=False)
            stack.callback(_close, client)
        except (OSError, ValueError, TimeoutError) as error:
            raise InputError(_NOBODY.format(address)) from error
        try:
            yield client, memory
        finally:
            if not local:
                with contextlib.suppress(Exception):
                    client.run(cluster_worker.forget, on_error="ignore")


def _close(what: Client | LocalCluster) -> None:
    """Leave what may be gone; its manners may take minutes, and an error may be on its way."""
    with contextlib.suppress(Exception):
        what.close(timeout=_ANSWER)


@contextlib.contextmanager
def local_worker(
    scheduler: str, threads: int, limit: str = "0"
) -> Iterator[subprocess.Popen[bytes]]:
    """A worker process on this machine, that ends with the scheduler if not before.

    Not one of multiprocessing, which would run the user's script again.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "distributed.cli.dask_worker", scheduler]
        # A fit keeps within its memory itself, so no limit is needed.
        command += ["--nthreads", str(threads), "--memory-limit", limit, "--no-nanny"]
        command += ["--no-dashboard", "--local-directory", folder, "--death-timeout", "30"]
        process = subprocess.Popen(
            command,
            env={**os.environ, "DASK_LOGGING__DISTRIBUTED": "critical"},
            stdout=subprocess.DEVNULL,
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


class _Pool:
    """The workers there are, each with one task at a time.

    Tasks are bound to workers here, not by the scheduler: it would give a worker as many at once
    as it has threads, and a fit wants all threads, and the memory, for one.
    """

    def __init__(self, client: Client, address: str, job: Job) -> None:
        self._client = client
        self._address = address
        self._job = job

    def each(
        self, function: Callable[..., Any], work: Iterable[tuple[Any, ...]]
    ) -> Iterator[tuple[tuple[Any, ...], Any]]:
        """Arguments and result of each task as it is done; what a lost worker had is done again."""
        waiting, lost = deque(work), Counter[int]()
        running: dict[str, tuple[Future, tuple[Any, ...]]] = {}
        seen, woken = time.monotonic(), threading.Event()
        try:
            while waiting or running:
                workers = self._workers()
                able = [worker for worker, is_able in workers.items() if is_able]
                if running.keys() & able or (waiting and able):
                    seen = time.monotonic()
                elif time.monotonic() - seen > _WORKERS:
                    reason = "all that are left are at their limit of memory" if workers else "none"
                    msg = f"--cluster {self._address}: no worker for {_WORKERS} s ({reason}); start some, with more memory for each or less to --memory; {_RESUME}"
                    raise IncompleteError(msg)
                for worker in able:
                    if waiting and worker not in running:
                        task = waiting.popleft()
                        future = self._submit(function, task, worker)
                        future.add_done_callback(lambda _: woken.set())
                        running[worker] = future, task
                woken.wait(_LOOK)
                woken.clear()
                for worker, (future, task) in list(running.items()):
                    if future.status == "pending" and worker in workers:
                        continue
                    del running[worker]
                    if future.status == "finished":
                        yield task, future.result()
                        continue
                    self._check(future, worker)
                    lost[id(task)] += 1
                    if lost[id(task)] >= _DEATHS:
                        msg = f"--cluster {self._address}: {_DEATHS} workers were lost at one task, perhaps for lack of memory; give them more, or less to --memory; {_RESUME}"
                        raise IncompleteError(msg)
                    future.cancel()
                    waiting.appendleft(task)
        finally:
            with contextlib.suppress(Exception):
                self._client.cancel([future for future, _ in running.values()])

    def _submit(self, function: Callable[..., Any], task: tuple[Any, ...], worker: str) -> Future:
        return self._client.submit(
            function, self._job, *task, workers=[worker], pure=False, retries=0
        )

    def _workers(self) -> dict[str, bool]:
        """Addresses of the workers there are now, and whether each takes tasks."""

        # Inside a function, so that the scheduler gets it whole and needs no dmstore.
        def states(dask_scheduler: Any) -> dict[str, bool]:
            return {
                address: worker.status.name == "running"
                for address, worker in sorted(dask_scheduler.workers.items())
            }

        try:
            if self._client.status == "running":
                return dict(self._client.run_on_scheduler(states))
        except (OSError, TimeoutError):
            pass
        msg = f"--cluster {self._address}: the scheduler is gone; {_RESUME}"
        raise IncompleteError(msg)

    def _check(self, future: Future, worker: str) -> None:
        """Raise what a task raised, unless its worker died."""
        from distributed import KilledWorker

        if future.status != "error":
            return
        error = future.exception()
        if isinstance(error, KilledWorker):
            return
        if isinstance(error, DmstoreError):
            raise error
        msg = f"worker {worker} failed with {type(error).__name__}: {error}"
        raise InputError(msg) from error
