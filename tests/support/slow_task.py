"""Tasks for tests of workers: slow, failing and resumable ones, found by their names in every process."""

import json
import os
import signal
import time
from pathlib import Path

import numpy as np


class Slow:
    """A run a batch; outputs from mask and seed alone. Writes the id of each run that it trains to ``log``."""

    batch = 1

    def __init__(self, study, config, outputs):
        self.targets = study.targets.sizes["target"]
        self.config = config
        self.batch = config.get("batch", 1)

    def train(self, runs):
        for run in runs:
            with Path(self.config["log"]).open("a") as log:
                log.write(f"{run.id} {os.getpid()}\n")
            time.sleep(self.config.get("seconds", 0))
        return {"margin": np.array([self.output(run) for run in runs])}

    def output(self, run):
        return np.random.default_rng(run.seed).normal(size=self.targets) + run.mask.sum()


class Faulty(Slow):
    """``faults`` in the file of the config say what goes wrong with which run."""

    def train(self, runs):
        said = json.loads(Path(self.config["faults"]).read_text())
        faults = {int(run): what for run, what in said.items()}
        margin = super().train(runs)["margin"]
        what = {faults.get(run.id, faults.get(-1)) for run in runs}
        if "raise" in what:
            raise RuntimeError("loss is nan\n  in step 3")
        if "cuda" in what:
            raise RuntimeError("No CUDA GPUs are available")
        if "full" in what:
            raise OSError(28, "No space left on device")
        if "none" in what:
            return None
        if "shape" in what:
            return {"margin": margin[:, 1:]}
        for row, run in enumerate(runs):
            if faults.get(run.id) == "nan":
                margin[row, 2] = np.nan
        return {"margin": margin, "accuracy": margin[:, 0]}


class Resumable(Slow):
    """Twenty steps, each with a draw of its own; dies at a step of the config once."""

    def train_resumable(self, runs, checkpoint):
        generator = np.random.Philox(runs[0].seed)
        total, step = np.zeros(self.targets), 0
        saved = checkpoint.load()
        if saved is not None:
            said = json.loads(saved)
            step, total = said["step"], np.array(said["total"])
            generator.state = {
                "bit_generator": "Philox",
                "state": {k: np.array(v, dtype=np.uint64) for k, v in said["state"].items()},
                "buffer": np.array(said["buffer"], dtype=np.uint64),
                "buffer_pos": said["buffer_pos"],
                "has_uint32": said["has_uint32"],
                "uinteger": said["uinteger"],
            }
        with Path(self.config["log"]).open("a") as log:
            log.write(f"{runs[0].id} {step}\n")
        draw = np.random.Generator(generator)
        while step < 20:
            total = total * 0.9 + draw.normal(size=self.targets) * runs[0].mask.mean()
            step += 1
            if checkpoint.due():
                state = generator.state
                said = {
                    "step": step,
                    "total": total.tolist(),
                    "state": {k: v.tolist() for k, v in state["state"].items()},
                    "buffer": state["buffer"].tolist(),
                    **{k: int(state[k]) for k in ("buffer_pos", "has_uint32", "uinteger")},
                }
                checkpoint.save(json.dumps(said).encode())
            if self.config.get("die") == step and saved is None:
                how = self.config.get("how", "raise")
                if how == "kill":
                    os.kill(os.getpid(), signal.SIGKILL)
                raise KeyboardInterrupt
        return {"margin": total[None]}
