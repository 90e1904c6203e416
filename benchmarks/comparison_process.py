"""One process of the benchmark of comparisons: ``ours``, ``modeldiff`` or ``exact``, on ``A.npy`` and ``B.npy`` of a folder.

``python benchmarks/comparison_process.py NAME FOLDER COMPONENTS``. Writes directions (way, component, train) and
variances of the unit rows less their mean along them (way, component, on) to ``NAME.npz``.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Found = dict[str, Any]


def ours(folder: Path, count: int) -> Callable[[], Found]:
    import xarray as xr

    from dmstore.analysis import modeldiff
    from dmstore.readers.files import open_npy
    from dmstore.readers.score_rows import ScoreRows

    # What is imported at the first call is imported now.
    few = np.random.default_rng(0).normal(size=(2, 10, 20))
    a, b = (xr.DataArray(one, dims=("target", "train")).chunk() for one in few)
    modeldiff(a, b, threads=_threads())

    def work() -> Found:
        data = [
            xr.DataArray(
                ScoreRows(open_npy(folder / f"{name}.npy"), turned=False).lazy(),
                dims=("target", "train"),
            )
            for name in "AB"
        ]
        found = modeldiff(data[0], data[1], components=count, threads=_threads())
        return {key: found[key].values for key in ("direction", "explained_variance")}

    return work


def modeldiff(folder: Path, count: int) -> Callable[[], Found]:
    import torch

    spec = importlib.util.find_spec("modeldiff")
    # Of the package itself trak would be wanted, and a GPU.
    place = Path(str(spec.origin)).with_name("pca.py")
    found: Any = importlib.util.spec_from_file_location("modeldiff_pca", place)
    module: Any = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    on_gpu = module.get_variance_along_directions
    module.get_variance_along_directions = lambda rows, directions: on_gpu(
        rows, directions, device="cpu"
    )

    def work() -> Found:
        rows = [torch.from_numpy(np.load(folder / f"{name}.npy")) for name in "AB"]
        # As the notebooks of the paper do before they call these functions.
        rows = [one / one.norm(dim=1).view(-1, 1) for one in rows]
        ways = [module.residual_pca(rows[own], rows[1 - own], count) for own in (0, 1)]
        variance = [[way["variances"][of] for of in "AB"] for way in ways]
        return {
            "direction": np.stack([way["directions"] for way in ways]),
            "variance": np.stack(
                [np.stack(variance[0], axis=1), np.stack(variance[1][::-1], axis=1)]
            ),
        }

    return work


def exact(folder: Path, count: int) -> Callable[[], Found]:
    from scipy.linalg import eigh

    def work() -> Found:
        rows = [np.load(folder / f"{name}.npy").astype(np.float64) for name in "AB"]
        for one in rows:
            one /= np.linalg.norm(one, axis=1, keepdims=True)
        cosine = (rows[0] * rows[1]).sum(axis=1)[:, None]
        directions = []
        for own in (0, 1):
            rest = rows[own] - cosine * rows[1 - own]
            rest -= rest.mean(axis=0)
            size = len(rest)
            left = eigh(rest @ rest.T, subset_by_index=(size - count, size - 1))[1][:, ::-1]
            directions.append(np.linalg.qr(rest.T @ left)[0].T)
        return {"direction": np.stack(directions)}

    return work


def _threads() -> int | None:
    given = os.environ.get("OMP_NUM_THREADS", "")
    return int(given) if given.isdigit() else None


def _peak() -> float:
    """Gigabytes that this process had at most; ``getrusage`` would count those of the one that started it."""
    line = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text("ascii"))
    return int(line[1]) * 1024 / 1e9


def main(name: str, folder: Path, count: int) -> None:
    if name == "modeldiff" and importlib.util.find_spec("modeldiff") is None:
        print(json.dumps({"absent": "pip install --no-deps modeldiff"}))
        return
    work = {"ours": ours, "modeldiff": modeldiff, "exact": exact}[name](folder, count)
    wall, cpu = time.perf_counter(), time.process_time()
    found = work()
    said: dict[str, Any] = {
        "cpu_s": time.process_time() - cpu,
        "wall_s": time.perf_counter() - wall,
        "peak_gb": _peak(),
    }
    if name == "modeldiff":
        said["version"] = importlib.metadata.version("modeldiff")
    if "explained_variance" in found:
        found["variance"] = found.pop("explained_variance") - _of_means(folder, found["direction"])
    np.savez(folder / f"{name}.npz", **found)
    print(json.dumps(said))


def _of_means(folder: Path, direction: Any) -> Any:
    """What the mean unit rows have along directions: (way, component, on), squared."""
    along = []
    for name in "AB":
        rows = np.load(folder / f"{name}.npy", mmap_mode="r")
        total = np.zeros(rows.shape[1])
        for low in range(0, len(rows), 256):
            some = rows[low : low + 256].astype(np.float64)
            total += (some / np.linalg.norm(some, axis=1, keepdims=True)).sum(axis=0)
        along.append((direction @ (total / len(rows))) ** 2)
    return np.stack(along, axis=2)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
