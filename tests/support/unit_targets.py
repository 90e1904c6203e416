"""A study in which some targets are train units."""

import numpy as np

import dmstore
from dmstore.storage.table.rows import Rows

UNIT = np.where(np.arange(300) % 3 == 0, np.arange(300) % 40, -1)


def make_study(path, unit, runs=900):
    draw = np.random.default_rng(2)
    study = dmstore.create_study(
        path,
        {
            "train_label": np.arange(40) % 2,
            "target_label": np.arange(300) % 2,
            "target_train": unit,
        },
        seed=9,
    )
    algorithm = study.add_algorithm("a", runs=runs)
    weight = draw.normal(size=(40, 300)) * (draw.random((40, 300)) < 0.2)
    ids = np.arange(runs)
    masks = np.array([run.mask for run in algorithm.describe(ids)])
    margin = masks @ weight + draw.normal(size=(runs, 300)) * 0.5
    # Those that trained on a target say something else altogether.
    saw = masks[:, np.maximum(unit, 0)] & (unit >= 0)
    margin = np.where(saw, 10.0 + draw.normal(size=saw.shape), margin)
    columns = {"time": ids, "host": np.full(runs, "h")}
    algorithm.table.append(
        algorithm.complete(Rows(ids, {"mask": masks, "margin": margin}, columns), "x")
    )
    return study, masks, margin.astype(np.float32).astype(float)
