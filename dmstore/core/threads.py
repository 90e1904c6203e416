"""How many threads to use, and keeping BLAS from using more than that."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from dmstore.core.cgroups import ROOT, quota


def cores(root: Path = ROOT) -> int:
    """Cores that this process may use: those that it may run on, within the quota of its job or container."""
    count = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    return min(count, quota(root) or count)


@contextlib.contextmanager
def blas_threads(count: int) -> Iterator[None]:
    """Limit BLAS to `count` threads inside the block, where threadpoolctl is installed."""
    try:
        import threadpoolctl
    except ImportError:
        yield
        return
    with threadpoolctl.threadpool_limits(count):
        yield


@contextlib.contextmanager
def side_by_side(threads: int) -> Iterator[ThreadPoolExecutor]:
    """A pool for two pieces of work at once, each with its share of BLAS's threads: these would wait for each other at small products.

    Parameters
    ----------
    threads : int
        In all; with 1 the pieces follow each other.
    """
    with blas_threads(max(1, threads // 2)), ThreadPoolExecutor(min(threads, 2)) as pool:
        yield pool
