"""Small studies and rows that tests share."""

from __future__ import annotations

import contextlib
import io

import numpy as np

from dmstore.cli import main
from dmstore.storage.table.rows import Rows

TRAIN, TARGET = 37, 23


def examples(train: int = TRAIN, target: int = TARGET, classes: int = 3, side: int = 6) -> dict:
    draw = np.random.default_rng(7)
    return {
        "train_label": draw.integers(0, classes, train),
        "target_label": draw.integers(0, classes, target),
        "train_image": draw.integers(0, 256, (train, side, side)).astype(np.uint8),
        "target_image": draw.integers(0, 256, (target, side, side)).astype(np.uint8),
        "class_name": np.array([f"class{i}" for i in range(classes)]),
        "train_weight": draw.random(train),
    }


def make_rows(algorithm, ids, seed=0) -> Rows:
    """Checked rows of planned runs: outputs follow from id and seed."""
    ids = np.asarray(ids, dtype=np.int64)
    target = algorithm.table.sizes["target"]
    arrays = {"mask": np.array([run.mask for run in algorithm.describe(ids)])}
    for spec in algorithm.table.spec.outputs():
        values = [np.random.default_rng([seed, int(i)]).normal(size=target) for i in ids]
        arrays[spec.name] = (
            np.array(values, dtype=spec.dtype)
            if spec.dtype.startswith("f")
            else (np.array(values) > 0).astype(spec.dtype)
        )
    columns = {
        "time": np.full(len(ids), 1_700_000_000_000),
        "host": np.full(len(ids), "host"),
        "accuracy": np.linspace(0, 1, len(ids)),
    }
    return algorithm.complete(Rows(ids, arrays, columns), "test rows")


def fill(algorithm, ids, seed=0, batch=64) -> None:
    for start in range(0, len(ids), batch):
        algorithm.table.append(make_rows(algorithm, ids[start : start + batch], seed))


class Done:
    """A call of the command line in this process."""

    def __init__(self, *arguments):
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                main([str(argument) for argument in arguments])
            except SystemExit as error:
                self.returncode = error.code
        self.stdout, self.stderr = out.getvalue(), err.getvalue()


def dying(real, last):
    """A function that ends its process, as far as Python can, in its `last` call; and its calls."""
    calls = []

    def called(*arguments, **named):
        calls.append(1)
        if len(calls) == last:
            raise KeyboardInterrupt
        return real(*arguments, **named)

    return called, calls


def files(path):
    return {p.relative_to(path).as_posix(): p.read_bytes() for p in path.rglob("*") if p.is_file()}
