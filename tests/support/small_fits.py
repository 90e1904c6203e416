"""Small fits of every kind, at fixed inputs: what they find is compared with what is kept of them.

python tests/support/small_fits.py tests/data/small_fits.npz     # makes the file anew
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from pathlib import Path

import numpy as np

import dmstore
from dmstore.cli import main
from dmstore.regression import fit, lasso_path

TRAIN, RUNS, TARGETS = 40, 700, 18
# Other parameters than those of a plain fit, by the name of the case.
STUDY_FITS = {
    "shared": {},
    "one lam": {"lam": 0.05},
    "grid": {"lam_grid": (0.5, 0.1, 0.05, 0.02)},
    "unpenalised": {"lam": 0.0},
    "folds": {"folds": 3, "halves": False},
    "folds in parts": {"folds": 2},
}
ARRAYS = {
    "plain": {},
    "plain folds": {"folds": 4},
    "plain grid": {"lam_grid": (0.5, 0.1, 0.02), "patience": 0},
    "plain unpenalised": {"lam": 0.0},
}
KEPT = (
    "weight",
    "bias",
    "lam",
    "lam_max",
    "lam_path",
    "holdout_mse",
    "holdout_r2",
    "kkt",
    "gap",
    "nonzeros",
    "sweeps",
    "status",
    "weight_half",
)


def runs():
    """Masks of some runs and what they say: a constant target, a noisy one, and dense ones among sparse."""
    draw = np.random.default_rng(12)
    masks = draw.random((RUNS, TRAIN)) < 0.5
    # A unit that no run saw, and one that all saw.
    masks[:, 5], masks[:, 6] = False, True
    weight = draw.normal(size=(TRAIN, TARGETS)) * (draw.random((TRAIN, TARGETS)) < 0.15)
    weight[:, 13:] = draw.normal(size=(TRAIN, TARGETS - 13)) * 0.2
    noise = np.where(np.arange(TARGETS) == 3, 20.0, 0.6)
    outputs = masks @ weight + draw.normal(size=(RUNS, TARGETS)) * noise + 5.0
    outputs[:, 7] = 2.5
    return masks, outputs.astype(np.float32)


def make_study(path, unit):
    """A study whose runs are those of :func:`runs`."""
    masks, outputs = runs()
    labels = {"train_label": np.zeros(TRAIN, int), "target_label": np.zeros(TARGETS, int)}
    study = dmstore.create_study(path, {**labels, "target_train": unit}, seed=5)
    study.add_algorithm("a", sampling="foreign", alpha=0.5)
    np.savez(path.with_suffix(".npz"), run=np.arange(RUNS), mask=masks, margin=outputs)
    with contextlib.redirect_stdout(None), contextlib.suppress(SystemExit):
        main(["ingest", str(path), "a", str(path.with_suffix(".npz"))])
    return study


def all_fits(folder, *, more=True):
    """Name of each case to its arrays; with `more`, the ways in which a fit may be made otherwise too."""
    found = {}
    mixed = np.where(np.arange(TARGETS) % 3 == 1, np.arange(TARGETS), -1)
    for prefix, unit in (("", np.full(TARGETS, -1)), ("own ", mixed)):
        study = make_study(folder / f"{prefix.strip() or 'shared'}.dm", unit)
        for name, parameters in STUDY_FITS.items():
            done = fit(study, "a", **parameters, threads=2)
            found[prefix + name] = study.datamodels("a", done.document["fit"])
        if not more:
            continue
        for name, options in {
            "scratch": {"memory": "700MB", "scratch": folder},
            "cluster": {"cluster": "local:2"},
        }.items():
            # Whatever else is in its parameters is in its name; these fits must be made anew.
            again = make_study(folder / f"{prefix}{name}.dm", unit)
            done = fit(again, "a", threads=1, **options)
            found[f"{prefix}shared, {name}"] = again.datamodels("a", done.document["fit"])
    masks, outputs = runs()
    for prefix, unit in (("", None), ("own ", mixed)):
        for name, options in ARRAYS.items():
            found[prefix + name] = lasso_path(
                masks, outputs, target_train=unit, threads=2, **options
            )
    return {
        name: {key: np.asarray(data[key].values) for key in KEPT if key in data}
        for name, data in found.items()
    }


def machine():
    """What the last bits may depend on: the processor and the libraries that add up."""
    import llvmlite.binding
    import numba
    import threadpoolctl

    blas = sorted(
        f"{lib['internal_api']} {lib['version']} {lib.get('architecture')}"
        for lib in threadpoolctl.threadpool_info()
        if lib["user_api"] == "blas"
    )
    parts = (llvmlite.binding.get_host_cpu_name(), numba.__version__, np.__version__, *blas)
    return "; ".join(map(str, parts))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        fits = all_fits(Path(folder), more=False)
    flat = {f"{name}/{key}": values for name, one in fits.items() for key, values in one.items()}
    np.savez_compressed(sys.argv[1], machine=np.array(machine()), **flat)
