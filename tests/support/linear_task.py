"""A task for tests, found by its name in every process that they start."""

import numpy as np


class Linear:
    """A task of no work: two runs a batch, outputs from the mask alone."""

    batch = 2

    def __init__(self, study, config, outputs):
        self.targets = study.targets.sizes["target"]

    def train(self, runs):
        seen = np.array([run.mask for run in runs]).astype(float)
        weight = np.random.default_rng(5).normal(size=(seen.shape[1], self.targets))
        return {"margin": seen @ weight, "prediction": np.zeros((len(runs), self.targets), int)}
