"""A loop on a machine without dmstore: python without_dmstore.py STUDY.

The worker in the middle needs NumPy, one file, the plan and the examples. The lines before and after it run where the
study is.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

import dmstore

WORKER = """
import numpy as np
from dmstore_writer import Writer

data = np.load("examples.npz")
x, target_x = (data[name].reshape(len(data[name]), -1) / 255 for name in ("train_image", "target_image"))
one_hot = np.eye(10)[data["train_label"]]
own = np.eye(10, dtype=bool)[data["target_label"]]

with Writer("runs", plan="plan.json") as writer:
    for run in writer.pending("1/1"):
        seen = x[run.mask]
        weight = np.linalg.solve(seen.T @ seen + np.eye(seen.shape[1]), seen.T @ one_hot[run.mask])
        score = target_x @ weight
        writer.append(run, margin=score[own] - np.where(own, -np.inf, score).max(axis=1))
"""


def dmstore_command(*arguments):
    """Run a command of dmstore; what it prints."""
    command = [sys.executable, "-m", "dmstore", *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


study = dmstore.open_study(sys.argv[1])
if "ridge" not in study.algorithms:
    study.add_algorithm("ridge", runs=30)

with tempfile.TemporaryDirectory() as folder:
    # Where the study is: the plan, the one-file writer, and what the worker trains on.
    dmstore_command("export", study.path, "ridge", "--to", "plan", Path(folder, "plan.json"))
    Path(folder, "dmstore_writer.py").write_text(dmstore_command("writer"))
    examples = {"train": study.train, "target": study.targets}
    arrays = {
        f"{part}_{name}": e[name].values
        for part, e in examples.items()
        for name in ("image", "label")
    }
    np.savez(Path(folder, "examples.npz"), **arrays)
    # Elsewhere: Python 3.8 and NumPy 1.17 are enough.
    subprocess.run([sys.executable, "-c", WORKER], cwd=folder, check=True)
    # Where the study is, as often as one likes.
    found = json.loads(
        dmstore_command("ingest", study.path, "ridge", Path(folder, "runs"), "--json")
    )
print(found)
