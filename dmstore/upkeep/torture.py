"""A soak that tries to make a storage lose runs: many processes, killed at random, and an acknowledgement log.

Meant to be run by labs on their own NFS, Lustre or bucket before months of GPU time go there.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

import numpy as np

from dmstore.core.progress import Count, Progress, counting
from dmstore.errors import DmstoreError, InputError
from dmstore.storage.acts.compact import compact
from dmstore.storage.acts.vacuum import vacuum
from dmstore.storage.location import open_location
from dmstore.storage.objects.probe import exclusive
from dmstore.storage.table.rows import Rows
from dmstore.study.algorithm import Algorithm
from dmstore.study.creation import create_study
from dmstore.study.study import open_study
from dmstore.upkeep.verification import verify

TRAIN, TARGET = 256, 128
_NAME = "soak"
# Ids of one life of a writer.
_LIFE = 1 << 20
# A writer trains for at most so many seconds between commits, so that compactors get a turn.
_TRAINING = 0.1
# Seconds that processes may take to start.
_START = 60.0


@dataclass
class Torture:
    """What a soak found.

    Attributes
    ----------
    acknowledged, visible, submitted : int
        Runs whose commit returned; runs in the last view; runs that writers began to store.
    lost, duplicated, torn : int
        Acknowledged runs that are not there; ids with several rows; rows with other content than was
        written. All must be 0.
    kills, compactions, segments, bases : int
        What happened meanwhile.
    compacted : bool
        Whether compactors took part: not where creation is not exclusive.
    errors : int
        Processes that met an error and were replaced.
    messages : list of str
        Some of these errors.
    problems : list of str
        What verification says.
    """

    study: str
    seconds: float = 0.0
    acknowledged: int = 0
    visible: int = 0
    lost: int = 0
    duplicated: int = 0
    torn: int = 0
    kills: int = 0
    compactions: int = 0
    compacted: bool = True
    errors: int = 0
    messages: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether nothing was lost, duplicated or torn, and something was tried."""
        wrong = self.lost or self.duplicated or self.torn or self.problems
        return not wrong and self.acknowledged > 0


def torture(
    path: str | Path,
    *,
    seconds: float = 60.0,
    kills: int | None = None,
    writers: int = 8,
    compactors: int = 2,
    grace: float = 0.0,
    seed: int | None = None,
    keep: bool = False,
    progress: Progress | None = None,
) -> Torture:
    """Write, compact and vacuum from many processes, and kill them at random.

    Parameters
    ----------
    path : path or str
        A directory or URL, below which a study of its own is made.
    seconds : float
        How long.
    kills : int, optional
        How many; as many as two a second if not given. The soak goes on until they are done.
    writers, compactors : int
        Processes at once.
    grace : float
        Of the vacuums, in seconds.
    seed : int, optional
        Of the kills.
    keep : bool
        Leave the study there when nothing was wrong.
    progress : callable, optional
        Called with kills done and kills in all.

    Raises
    ------
    InputError
        If a number is not allowed.
    StorageError
        If no study can be made there.
    """
    if not seconds > 0 or writers < 1 or compactors < 0 or (kills is not None and kills < 0):
        msg = f"{seconds} s, {kills} kills, {writers} writers, {compactors} compactors: give positive numbers"
        raise InputError(msg)
    kills = int(seconds * 2) if kills is None else kills
    name = f"torture-{uuid.uuid4().hex[:8]}.dm"
    where = f"{str(path).rstrip('/')}/{name}"
    labels = {"train_label": np.zeros(TRAIN, int), "target_label": np.zeros(TARGET, int)}
    study = create_study(where, labels, seed=0)
    study.add_algorithm(_NAME, sampling="foreign", alpha=None)
    outcome = Torture(where, compacted=compactors > 0 and exclusive(study.objects))
    with tempfile.TemporaryDirectory(prefix="dmstore-torture-") as logs:
        crew = _Crew(where, Path(logs), writers, compactors if outcome.compacted else 0, grace)
        started = time.monotonic()
        try:
            outcome.kills = crew.run(
                seconds, kills, random.Random(seed), counting(progress, "torture")
            )
        finally:
            crew.stop()
        outcome.seconds = time.monotonic() - started
        acknowledged = _numbers(logs, "acknowledged")
        messages = [path.read_text() for path in sorted(Path(logs).glob("error-*"))]
        outcome.errors, outcome.messages = len(messages), sorted(set(messages))[:3]
        outcome.compactions = len(_numbers(logs, "compacted", unique=False))
    _judge(where, acknowledged, outcome)
    if outcome.compacted and outcome.passed:
        algorithm = open_study(where).algorithm(_NAME)
        compact(algorithm.table)
        vacuum(algorithm.table, set, grace=grace)
        _judge(where, acknowledged, outcome)
    if outcome.passed and not keep:
        open_location(str(path)).delete(name)
    return outcome


class _Crew:
    """The processes: each that is killed is replaced by a new one."""

    def __init__(self, where: str, logs: Path, writers: int, compactors: int, grace: float) -> None:
        _start_tracker()
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["dmstore.upkeep.torture", "zarr"])
        self._where = where
        self._logs = logs
        self._grace = grace
        self._lives = 0
        self._roles = ["write"] * writers + ["compact"] * compactors
        self._processes = [self._start(role) for role in self._roles]

    def _start(self, role: str) -> Any:
        self._lives += 1
        target = _write if role == "write" else _maintain
        # A server of forks keeps the environment that it was started with; credentials may be newer.
        arguments = (
            target,
            dict(os.environ),
            self._where,
            str(self._logs),
            self._lives,
            self._grace,
        )
        process = self._context.Process(target=_live, args=arguments, daemon=True)
        process.start()
        return process

    def run(
        self,
        seconds: float,
        kills: int,
        draw: random.Random,
        tell: Count,
    ) -> int:
        """Kill and replace; how many were killed."""
        self._wait()
        started, done = time.monotonic(), 0
        pause = seconds / max(kills, 1)
        while time.monotonic() - started < seconds or done < kills:
            time.sleep(draw.uniform(0.5, 1.5) * min(pause, 1.0))
            due = min(kills, int((time.monotonic() - started) / pause))
            while done < due:
                number = draw.randrange(len(self._processes))
                self._processes[number].kill()
                self._processes[number].join()
                self._processes[number] = self._start(self._roles[number])
                done += 1
                tell(done, kills)
            for number, process in enumerate(self._processes):
                # One that ended by itself met an error, which it wrote down.
                if not process.is_alive():
                    self._processes[number] = self._start(self._roles[number])
        return done

    def _wait(self) -> None:
        """Wait for a first acknowledged run, or an error: a busy machine is slow to start processes."""
        limit = time.monotonic() + _START
        while time.monotonic() < limit:
            acknowledged = (path.stat().st_size for path in self._logs.glob("acknowledged-*"))
            if any(acknowledged) or any(self._logs.glob("error-*")):
                return
            time.sleep(0.05)

    def stop(self) -> None:
        """Kill all that are left: whatever they do must not matter."""
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.join()


def _start_tracker() -> None:
    """Start multiprocessing's tracker such that it does not complain of what killed processes left."""
    options = list(sys.warnoptions)
    sys.warnoptions.append("ignore:resource_tracker")
    try:
        resource_tracker.ensure_running()
    finally:
        sys.warnoptions[:] = options


def make_rows(algorithm: Algorithm, ids: Sequence[int]) -> Rows:
    """Rows whose content follows from their ids."""
    draws = [np.random.Generator(np.random.Philox(key=[7, run])) for run in ids]
    arrays = {
        "mask": np.array([draw.random(TRAIN) < 0.5 for draw in draws]),
        "margin": np.array([draw.normal(size=TARGET) for draw in draws], dtype=np.float32),
    }
    columns = {
        "time": np.full(len(ids), time.time_ns() // 1_000_000),
        "host": np.full(len(ids), "torture"),
    }
    return algorithm.complete(Rows(np.array(ids, dtype=np.int64), arrays, columns), "torture")


def _note(logs: str, name: str) -> int:
    return os.open(Path(logs, name), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


def _live(
    target: Callable[[str, str, int, float], None],
    environment: dict[str, str],
    where: str,
    logs: str,
    life: int,
    grace: float,
) -> None:
    """One life of a process; an error that ends it is written down."""
    os.environ.clear()
    os.environ.update(environment)
    try:
        target(where, logs, life, grace)
    except DmstoreError as error:
        Path(logs, f"error-{life}").write_text(str(error))


def _write(where: str, logs: str, life: int, grace: float) -> None:
    """A writer: what `append` returned from is written down as acknowledged."""
    algorithm = open_study(where).algorithm(_NAME)
    log = _note(logs, f"acknowledged-{life}")
    draw, number = random.Random(life), 0
    while True:
        count = draw.choice((1, 1, 1, 4, 16))
        ids = list(range(life * _LIFE + number, life * _LIFE + number + count))
        algorithm.table.append(make_rows(algorithm, ids))
        os.write(log, "".join(f"{run}\n" for run in ids).encode())
        number += count
        time.sleep(draw.uniform(0, _TRAINING))


def _maintain(where: str, logs: str, life: int, grace: float) -> None:
    """A compactor that also vacuums."""
    log = _note(logs, f"compacted-{life}")
    while True:
        table = open_study(where).algorithm(_NAME).table
        if compact(table).absorbed:
            os.write(log, f"{life}\n".encode())
        vacuum(table, set, grace=grace)
        time.sleep(0.05)


def _numbers(logs: str, kind: str, *, unique: bool = True) -> list[int]:
    """Numbers on whole lines: the last one may be cut by a kill."""
    numbers: list[int] = []
    for path in Path(logs).glob(f"{kind}-*"):
        text = path.read_text()
        numbers += map(int, text[: text.rfind("\n") + 1].split())
    return sorted(set(numbers)) if unique else numbers


def _judge(where: str, acknowledged: Sequence[int], outcome: Torture) -> None:
    study = open_study(where)
    algorithm = study.algorithm(_NAME)
    view = algorithm.table.view()
    visible = set(view.run.tolist())
    outcome.acknowledged = len(acknowledged)
    outcome.visible = len(view)
    outcome.lost = len(set(acknowledged) - visible)
    outcome.duplicated = len(view) - len(visible) + len(view.conflicts)
    outcome.torn = 0
    for start in range(0, len(view), 4096):
        run = view.run[start : start + 4096]
        stored = view.read(["mask", "margin"], start, start + 4096)
        expected = make_rows(algorithm, run.tolist()).arrays
        same = [(stored[key] == expected[key]).all(axis=1) for key in ("mask", "margin")]
        outcome.torn += int((~(same[0] & same[1])).sum())
    outcome.problems = []
    with contextlib.suppress(StopIteration):
        problems = verify(study)
        for _ in range(20):
            problem = next(problems)
            outcome.problems.append(f"{problem.where}: {problem.text}")
