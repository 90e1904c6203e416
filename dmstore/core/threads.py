"""How many threads to use, and keeping BLAS from using more than that."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
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
