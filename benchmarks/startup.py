"""Time to the first line of help and to ``import dmstore``; the peer is a bare interpreter."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path


def _seconds(command: list[str], repeats: int = 9) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def run() -> dict[str, float]:
    bare = _seconds([sys.executable, "-c", "pass"])
    script = Path(sys.executable).with_name("dmstore")
    help_text = _seconds([str(script), "--help"])
    imported = _seconds([sys.executable, "-c", "import dmstore"])
    opened = _seconds([sys.executable, "-c", "from dmstore import open_study"])
    return {
        "interpreter_s": bare,
        "help_s": help_text,
        "import_s": imported,
        "import_open_study_s": opened,
        "help_over_interpreter": help_text / bare,
    }
