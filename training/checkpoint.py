"""Checkpoints within a run: what a long run needs to go on after a kill, outside the study.

A checkpoint is found by a hash of all that the run follows from, so that one of another config, other masks
or another version of dmstore is never used. What it holds is the task's business: bytes, which are never unpickled here.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dmstore import provenance
from dmstore.errors import InputError
from dmstore.storage.objects.refusals import storage_error
from dmstore.storage.objects.remote import is_url
from dmstore.study.algorithm import Algorithm, Run
from dmstore.study.study import Study
from dmstore.training.ending import Ended

_HEAD = b"dmstore checkpoint 1\n"
_HASH = 32


def default_place(study: Study) -> Path:
    """Where checkpoints of a study are kept unless something else is said: beside it.

    Parameters
    ----------
    study : Study

    Returns
    -------
    Path

    Raises
    ------
    InputError
        If the study is in no directory of a file system.
    """
    if is_url(study.path):
        msg = f"{study.path}: is no directory, so checkpoints cannot be kept beside it; say where with --checkpoints DIR, which all workers see"
        raise InputError(msg)
    path = Path(study.path).absolute()
    return path.with_name(f"{path.name}.checkpoints")


class Checkpoint:
    """What was saved last for exactly some runs.

    Parameters
    ----------
    path : Path
        The file; its directory is made when something is saved.
    key : bytes
        32 bytes: the hash of all that the runs follow from.
    seconds : float
        How often to save.
    stop : callable
        Whether training is to end early: then it is time to save, and saving ends it.
    """

    def __init__(
        self, path: Path, key: bytes, seconds: float, stop: Callable[[], bool] = lambda: False
    ) -> None:
        self.path = path
        self._key = key
        self._seconds = seconds
        self._stop = stop
        self._last = time.monotonic()
        self._refused = False

    def load(self) -> bytes | None:
        """What was saved last for exactly these runs; None if nothing was, or it is damaged."""
        try:
            raw = self.path.read_bytes()
        except OSError:
            return None
        head = len(_HEAD) + 2 * _HASH
        data = raw[head:]
        whole = _HEAD + self._key + hashlib.blake2b(data, digest_size=_HASH).digest()
        if raw[:head] != whole:
            logging.getLogger(__name__).warning(
                "%s: is damaged or of other runs; the run starts again", self.path
            )
            return None
        return data

    def due(self) -> bool:
        """Whether it is time to save."""
        return self._stop() or time.monotonic() - self._last >= self._seconds

    def save(self, data: bytes) -> None:
        """Save, durably, in the place of what was saved before.

        Where the disk refuses, what was saved before stays and the run goes on; a warning says so once.

        Parameters
        ----------
        data : bytes
        """
        part = self.path.with_name(f".{self.path.name}.{uuid.uuid4().hex}.part")
        try:
            try:
                self._write(part, data)
            except FileNotFoundError:
                # Another worker removed the directory, which was empty.
                self._write(part, data)
        except OSError as error:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
            if not self._refused:
                logging.getLogger(__name__).warning(
                    "%s; training goes on without a new checkpoint", storage_error(error, self.path)
                )
            self._refused = True
        self._last = time.monotonic()
        if self._stop():
            raise Ended

    def _write(self, part: Path, data: bytes) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            digest = hashlib.blake2b(data, digest_size=_HASH).digest()
            file.writelines((_HEAD, self._key, digest, data))
            file.flush()
            os.fsync(file.fileno())
        part.replace(self.path)
        directory = os.open(self.path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


class Checkpoints:
    """The checkpoints of an algorithm's runs.

    Parameters
    ----------
    algorithm : Algorithm
    place : Path
        Directory of all checkpoints of the study.
    seconds : float
        How often to save.
    stop : callable
        See :class:`Checkpoint`.
    conditions : mapping, optional
        Under which this worker trains, such as its precision: what others saved under other ones would end as a run
        that says of itself what is half true.

    Raises
    ------
    InputError
        If `seconds` is not positive.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        place: Path,
        seconds: float,
        stop: Callable[[], bool] = lambda: False,
        conditions: Mapping[str, str] | None = None,
    ) -> None:
        if not seconds > 0:
            msg = f"a checkpoint every {seconds} s: give more than 0 seconds"
            raise InputError(msg)
        self._place = place / algorithm.name
        self._seconds = seconds
        self._stop = stop
        said = [provenance.version(), algorithm.uuid, algorithm.task, algorithm.config]
        said.append(dict(conditions or {}))
        self._said = json.dumps(said, sort_keys=True).encode()

    def of(self, runs: Sequence[Run]) -> Checkpoint:
        """The checkpoint of exactly these runs, trained together.

        Parameters
        ----------
        runs : sequence of Run
        """
        state = hashlib.blake2b(self._said, digest_size=_HASH)
        for run in runs:
            state.update(f"\0{run.id} {run.seed} {run.mask_id} {len(run.mask)}\0".encode())
            state.update(np.packbits(run.mask).tobytes())
        key = state.digest()
        path = self._place / f"{runs[0].id:019d}-{key.hex()[:32]}.checkpoint"
        return Checkpoint(path, key, self._seconds, self._stop)

    def forget(self, runs: Sequence[Run]) -> None:
        """Delete what was saved for runs that are stored, or have failed.

        Parameters
        ----------
        runs : sequence of Run
        """
        for run in runs:
            for path in self._place.glob(f"{run.id:019d}-*.checkpoint"):
                path.unlink(missing_ok=True)
            for path in self._place.glob(f".{run.id:019d}-*.part"):
                path.unlink(missing_ok=True)
        self._close()

    def tidy(self, missing: NDArray[np.int64]) -> None:
        """Delete what a worker that was killed left of runs that are stored.

        Parameters
        ----------
        missing : (run,) int64
            Runs that are not stored.
        """
        wanted = set(missing.tolist())
        for path in self._place.glob("*-*.checkpoint"):
            if (run := path.name.partition("-")[0]).isdigit() and int(run) not in wanted:
                path.unlink(missing_ok=True)
        self._close()

    def _close(self) -> None:
        for directory in (self._place, self._place.parent):
            with contextlib.suppress(OSError):
                # Only if nothing is left in it.
                directory.rmdir()
