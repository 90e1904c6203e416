"""All benchmarks of the store, each in a process of its own, as the table of ``docs/reference/benchmarks.md``."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import dmstore

PAGE = Path(__file__).parent.parent / "docs" / "reference" / "benchmarks.md"
# What is measured, the key of the figure, what was asked for, and the peer's key.
ROWS = [
    ("commit", "one-run durable commits, 4 writers, 50,000 x 10,000", "commits_per_s", "at least 2 x icechunk", "icechunk_per_s"),
    ("commit", "acknowledged runs lost there", "lost", "0", "icechunk_lost"),
    ("bulk", "bulk ingest, 64 runs a batch, 2 writers, runs/s", "runs_per_s", "1,500, or half the disk", "wanted_per_s"),
    ("overhead", "share of a loop at 1 run/s spent in RunWriter, 8 writers", "share", "under .01", "worst_share"),
    ("columns", "256 targets of 20,000 runs, s", "column_read_s", "15 x faster than row chunks", "row_chunked_zarr_s"),
    ("columns", "64 rows of margins, s", "read_64_margin_rows_s", "under .1", ""),
    ("columns", "64 rows of masks and margins, s", "read_64_mask_and_margin_rows_s", "", ""),
    ("columns", "masks to run-axis words, elements/s a core", "words_elements_per_s_a_core", "1e9", ""),
    ("opening", "open 120,000 runs, 2,000 segments, s", "open_s", "under 1", "listing_s"),
    ("opening", "status, s", "status_s", "under 2", ""),
    ("compaction", "compact 120,000 x 88,400 x 3,400, s", "seconds", "under 180", "copy_s"),
    ("compaction", "peak memory of it, GB", "peak_compact_gb", "under 2", ""),
    ("importing", "50,000 x 10,000 x 2,000 .npy to a verified study, s", "ingest_s", "3 x a copy", "copy_s"),
    ("size", "masks, .npy over stored", "mask_ratio", "7.8", ""),
    ("size", "margins (float32), .npy over stored", "margin_ratio", "1.15", ""),
]  # fmt: skip


def measure(name: str) -> dict[str, float]:
    environment = {k: v for k, v in os.environ.items() if k != "OPENBLAS_CORETYPE"}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", name, "--json"],
        check=True,
        capture_output=True,
        text=True,
        env=environment,
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    print(name, found, file=sys.stderr, flush=True)
    return found


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def run() -> dict[str, float]:
    found = {name: measure(name) for name in dict.fromkeys(row[0] for row in ROWS)}
    text = PAGE.read_text()
    head, _, rest = text.partition("<!-- table -->\n")
    _, _, tail = rest.partition("<!-- end -->")
    lines = ["| what | measured | asked | peer or bound |", "|---|---|---|---|"]
    for name, title, key, asked, peer in ROWS:
        own, other = found[name].get(key), found[name].get(peer) if peer else None
        lines.append(f"| {title} | {_number(own)} | {asked} | {_number(other)} |")
    machine = f"Python {platform.python_version()}, dmstore {dmstore.__version__}, {os.cpu_count()} cores, {platform.machine()}."
    PAGE.write_text(
        head + "<!-- table -->\n" + machine + "\n\n" + "\n".join(lines) + "\n<!-- end -->" + tail
    )
    return {
        f"{name}_{key}": value for name, values in found.items() for key, value in values.items()
    }
