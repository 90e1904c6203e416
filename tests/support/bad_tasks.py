"""Tasks with one thing wrong each, for the trial of tasks."""

import numpy as np


class Good:
    batch = 2

    def __init__(self, study, config, outputs):
        self.targets = study.targets.sizes["target"]
        self.noise = config.get("noise", 1.0)

    def one(self, run):
        weight = np.random.default_rng(5).normal(size=(len(run.mask), self.targets))
        noise = np.random.default_rng(run.seed).normal(size=self.targets)
        return run.mask @ weight + self.noise * noise

    def train(self, runs):
        print("training", len(runs))
        margin = np.array([self.one(run) for run in runs])
        return {"margin": margin, "accuracy": np.full(len(runs), 0.5)}


class Deaf(Good):
    """Not told of the mask."""

    def one(self, run):
        return np.random.default_rng(run.seed).normal(size=self.targets)


class Drawing(Good):
    """Draws from a generator of its own."""

    def __init__(self, *given):
        super().__init__(*given)
        self.draw = np.random.default_rng(0)

    def one(self, run):
        return super().one(run) + self.draw.normal(size=self.targets)


class Rounding(Good):
    """As a device does that adds in another order."""

    calls = 0

    def one(self, run):
        self.calls += 1
        return super().one(run) * (1 + 1e-6 * self.calls)


class Neighbours(Good):
    """One generator for all runs of a batch."""

    def train(self, runs):
        draw = np.random.default_rng([run.seed for run in runs])
        made = super().train(runs)
        return {**made, "margin": made["margin"] + draw.normal(size=made["margin"].shape)}


class Changing(Good):
    """Writes into the mask."""

    def train(self, runs):
        made = super().train(runs)
        runs[0].mask[:] = True
        return made


class Raising(Good):
    def train(self, runs):
        raise RuntimeError("CUDA out of memory\nof much")


class Leaving(Good):
    def train(self, runs):
        raise SystemExit(2)


class Silent(Good):
    def train(self, runs):
        return None


class Plain(Good):
    def train(self, runs):
        return super().train(runs)["margin"]


class Many(Good):
    """Many faults at once."""

    def train(self, runs):
        margin = super().train(runs)["margin"]
        return {
            "margins": margin,
            "prediction": margin.astype(int)[:, :-1],
            "loss": np.full_like(margin, np.nan),
            "accuracy": 0.5,
            "mask_id": np.zeros(len(runs), int),
        }


class Fractional(Good):
    batch = 0.5


class Broken:
    def __init__(self, study, config, outputs):
        self.rate = config["rate"]


def nothing(study, config, outputs):
    return None
