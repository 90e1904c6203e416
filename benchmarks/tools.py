"""What the benchmarks share: processes timed together, memory of a child, the disk's own rate."""

from __future__ import annotations

import multiprocessing
import os
import resource
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import dmstore

_context = multiprocessing.get_context("forkserver")


def timed(target: Callable[..., None], arguments: Sequence[tuple[Any, ...]]) -> float:
    """Seconds until processes, one for each of `arguments`, are all done."""
    _context.set_forkserver_preload(["zarr", "numpy", "dmstore.training", "dmstore.upkeep.torture"])
    processes = [_context.Process(target=target, args=a) for a in arguments]
    start = time.perf_counter()
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    if any(process.exitcode for process in processes):
        raise RuntimeError("a process failed")
    return time.perf_counter() - start


def _child(function: Callable[..., Any], arguments: tuple[Any, ...], pipe: Any) -> None:
    start = time.perf_counter()
    result = function(*arguments)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    pipe.send((result, seconds, peak))


def measured(function: Callable[..., Any], *arguments: Any) -> tuple[Any, float, float]:
    """Result, seconds and peak memory (GB) of a call in a process of its own."""
    here, there = _context.Pipe(duplex=False)
    process = _context.Process(target=_child, args=(function, arguments, there))
    process.start()
    there.close()
    try:
        found = here.recv()
    except EOFError:
        raise RuntimeError(f"{function.__name__} failed") from None
    process.join()
    return found


def disk_rate(folder: str, size: int = 1 << 30) -> float:
    """Bytes a second of one sequential write with fsync at its end."""
    block = np.random.default_rng(0).integers(0, 256, 64 << 20, dtype=np.uint8).tobytes()
    path = Path(folder, "sequential")
    start = time.perf_counter()
    with path.open("wb") as file:
        for _ in range(size // len(block)):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
    rate = size / (time.perf_counter() - start)
    path.unlink()
    return rate


def make_study(path: str, train: int, target: int) -> dmstore.Study:
    """A study with nothing but ids."""
    labels = {"train_label": np.zeros(train, int), "target_label": np.zeros(target, int)}
    return dmstore.create_study(path, labels, seed=0)


def margins(seed: int, runs: int, target: int) -> np.ndarray:
    """Margins as networks make them: a mean of each target, and noise of each run."""
    mean = np.random.default_rng(0).normal(2, 3, target)
    noise = np.random.default_rng([1, seed]).normal(size=(runs, target))
    return (mean + noise).astype(np.float32)
