"""A folder of the incumbent's ``.npy`` files (50,000 runs, 10,000 train units, 2,000 targets, float16) to a
compacted, verified study: one command, which reads back all that it wrote before it commits. The peer is
a plain copy of the same files with fsync. A later ``dmstore verify`` is timed apart."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

RUNS, TRAIN, TARGET = 50_000, 10_000, 2_000


def make(folder: Path) -> None:
    folder.mkdir()
    draw = np.random.default_rng(0)
    masks = np.lib.format.open_memmap(
        folder / "masks.npy", mode="w+", dtype=bool, shape=(RUNS, TRAIN)
    )
    margins = np.lib.format.open_memmap(
        folder / "margins.npy", mode="w+", dtype=np.float16, shape=(RUNS, TARGET)
    )
    mean = draw.normal(2, 3, TARGET)
    for start in range(0, RUNS, 2000):
        raw = np.frombuffer(draw.bytes(2000 * TRAIN // 8), np.uint8)
        masks[start : start + 2000] = np.unpackbits(raw).reshape(2000, TRAIN).view(bool)
        margins[start : start + 2000] = mean + draw.normal(size=(2000, TARGET))
    np.save(folder / "_completed.npy", np.ones(RUNS, bool))


def _command(*arguments: str) -> float:
    script = Path(sys.executable).with_name("dmstore")
    start = time.perf_counter()
    subprocess.run([str(script), *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def run() -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        store, study = Path(folder, "store"), f"{folder}/study.dm"
        make(store)
        os.sync()
        start = time.perf_counter()
        shutil.copytree(store, Path(folder, "copy"))
        os.sync()
        copy = time.perf_counter() - start
        shutil.rmtree(Path(folder, "copy"))
        ingest = _command("ingest", study, "base", str(store), "--create", "-Q")
        verify = _command("verify", study)
        stored = sum(
            path.stat().st_size
            for path in Path(study, "algorithms/base/runs/base").rglob("*")
            if path.is_file()
        )
        given = sum(path.stat().st_size for path in store.iterdir())
    return {
        "ingest_s": ingest,
        "verify_s": verify,
        "copy_s": copy,
        "ratio_to_copy": ingest / copy,
        "npy_over_stored": given / stored,
    }
