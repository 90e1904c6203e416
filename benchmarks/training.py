"""Models an hour: one after another, many at once, and in the shape of MadryLab/datamodels' worker, on the same task.

Sides of a ratio take turns in one process, and the best of their turns counts, in seconds of the processor: other
programs of the machine harm both alike. The peer is a loop of our own shaped as theirs: a process for each run, which
starts, opens the data, trains in float32 by a data loader and writes rows of memory-mapped arrays.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import dmstore
from dmstore.study.algorithm import Run
from dmstore.training import RunWriter, recipe
from dmstore.training.config import TrainingConfig
from dmstore.training.task import make_task

TRAIN, TARGETS, TURNS, WRITTEN = 1000, 200, 4, 1024
HEADS = {"features": "features", "batch_size": 100, "epochs": 10}
CNN = {"model": "cnn", "width": 16, "epochs": 2, "crop": "pad", "crop_padding": 2, "flip": "random"}
# Name: side of images, number of features, config, models of a turn.
CASES: dict[str, tuple[int, int, dict[str, Any], int]] = {
    "linear_1280": (0, 1280, {**HEADS, "model": "linear"}, 64),
    "mlp_64_64": (0, 64, {**HEADS, "model": "mlp", "width": 64}, 64),
    "mlp_256_64": (0, 256, {**HEADS, "model": "mlp", "width": 64}, 64),
    "cnn_16": (16, 0, CNN, 8),
    "cnn_32": (32, 0, CNN, 8),
}
# Runs that workers train, and how they are started.
WORKED = {"mlp_64_64": 2048, "linear_1280": 1024, "cnn_32": 16}
WORKERS = {
    "one": ["--threads", "1"],
    "one_of_two_threads": ["--threads", "2"],
    "two": ["--workers", "2", "--threads", "1"],
}
# Images a step of the models that recipes name.
STEPS = {"resnet9": 64, "fastnet": 256, "cnn": 100}


def make_study(folder: Path, side: int, size: int) -> dmstore.Study:
    """A study of random images or features."""
    draw = np.random.default_rng(0)
    given: dict[str, Any] = {}
    for name, count in (("train", TRAIN), ("target", TARGETS)):
        given[f"{name}_label"] = np.arange(count) % 10
        if side:
            given[f"{name}_image"] = draw.integers(0, 255, (count, side, side, 3), dtype=np.uint8)
        if size:
            given[f"{name}_features"] = draw.standard_normal((count, size)).astype(np.float32)
    return dmstore.create_study(folder, given, seed=1)


def task_of(study: dmstore.Study, values: dict[str, Any]) -> Any:
    """The task of recipes with some values."""
    return make_task(study, recipe.TASK, recipe.resolve("mlp", values), ["margin"])


def peer_loop(
    inputs: NDArray[np.float32], targets: NDArray[np.float32], config: TrainingConfig, folder: Path
) -> Callable[[int], None]:
    """A run in the shape of the peer's worker."""
    import torch
    from torch.utils.data import DataLoader, Subset, TensorDataset

    from dmstore.training.models import make

    label, target_label = np.arange(TRAIN) % 10, np.arange(TARGETS) % 10
    data = TensorDataset(torch.from_numpy(inputs), torch.from_numpy(label))
    for name, width in (("masks", TRAIN), ("margins", TARGETS)):
        np.lib.format.open_memmap(
            folder / f"{name}.npy", mode="w+", dtype=np.float16, shape=(64, width)
        )

    def run(index: int) -> None:
        mask = np.ones(TRAIN, dtype=bool)
        loader = DataLoader(
            Subset(data, np.flatnonzero(mask).tolist()), config.batch_size, shuffle=True
        )
        model = make(config, inputs.shape[1:], 10)
        optimizer = torch.optim.SGD(
            model.parameters(), lr=0.1, momentum=0.9, weight_decay=config.weight_decay
        )
        for _ in range(config.epochs):
            for images, labels in loader:
                optimizer.zero_grad(set_to_none=True)
                torch.nn.functional.cross_entropy(model(images), labels).backward()
                optimizer.step()
        model.eval()
        with torch.no_grad():
            logit = model(torch.from_numpy(targets)).numpy()
        margin = logit[np.arange(TARGETS), target_label] - logit.max(axis=1)
        for name, value in (("masks", mask), ("margins", margin)):
            mapped = np.load(folder / f"{name}.npy", mmap_mode="r+")
            mapped[index % 64] = value
            mapped.flush()

    return run


def turns(sides: dict[str, tuple[Callable[[], object], int]]) -> dict[str, float]:
    """Seconds of the processor a model of each side: the best of the turns that they take."""
    best = dict.fromkeys(sides, float("inf"))
    for _ in range(TURNS):
        for name, (work, models) in sides.items():
            start = time.process_time()
            work()
            best[name] = min(best[name], (time.process_time() - start) / models)
    return best


def starting() -> float:
    """Seconds of the processor that a worker's start takes: Python, torch, what it imports."""
    before = _children()
    subprocess.run(
        [
            sys.executable,
            "-c",
            "import torch, numpy, tqdm" if _has("tqdm") else "import torch, numpy",
        ],
        check=True,
    )
    return _children() - before


def _has(module: str) -> bool:
    import importlib.util

    return importlib.util.find_spec(module) is not None


def compare(name: str, folder: Path, start: float) -> dict[str, float]:
    """The sides of one case."""
    side, size, values, models = CASES[name]
    study = make_study(folder / f"{name}.dm", side, size)
    runs = [Run(i, np.ones(TRAIN, dtype=bool), i, i, 0) for i in range(models)]
    plain = task_of(
        study, {**values, "together": 1, "channels_last": False, "precision": "float32"}
    )
    alone, many = task_of(study, {**values, "together": 1}), task_of(study, {**values})
    forced = many if many.batch > 1 else task_of(study, {**values, "together": models})
    inputs, targets = (
        np.concatenate([x.numpy() for x in plain.loader.evaluate(part, 512)])
        for part in ("train", "test")
    )
    peer = peer_loop(inputs, targets, plain.config, folder)
    # Turns of about one length: on a busy machine short ones find more quiet moments.
    few = max(4, models // 8)
    seconds = turns(
        {
            "plain": (lambda: plain.train(runs[:few]), few),
            "alone": (lambda: alone.train(runs[:few]), few),
            "together": (lambda: forced.train(runs[: forced.batch]), min(models, forced.batch)),
            "peer_loop": (lambda: [peer(i) for i in range(few)], few),
        }
    )
    chosen = seconds["alone" if many.batch == 1 else "together"]
    return {
        f"{name}_chosen_at_once": many.batch,
        **{f"{name}_{key}_an_hour": 3600 / value for key, value in seconds.items()},
        f"{name}_together_over_plain": seconds["plain"] / seconds["together"],
        f"{name}_chosen_over_plain": seconds["plain"] / chosen,
        f"{name}_chosen_over_peer_loop": seconds["peer_loop"] / chosen,
        f"{name}_chosen_over_peer": (seconds["peer_loop"] + start) / chosen,
    }


def overhead(folder: Path) -> dict[str, float]:
    """Share of the time that RunWriter takes beside linear heads, of the processor's and by the clock, its start included."""
    study = make_study(folder / "overhead.dm", 0, 1280)
    values = recipe.resolve("mlp", CASES["linear_1280"][2])
    study.add_algorithm("a", runs=WRITTEN, outputs=["margin"], task=recipe.TASK, config=values)
    task = task_of(study, CASES["linear_1280"][2])
    clocks = {"overhead": time.process_time, "overhead_by_the_clock": time.perf_counter}
    trained = dict.fromkeys(clocks, 0.0)
    start = {name: clock() for name, clock in clocks.items()}
    with RunWriter(study, "a") as writer:
        ids = study.algorithm("a").pending()
        for first in range(0, len(ids), task.batch):
            runs = writer.describe(ids[first : first + task.batch])
            begun = {name: clock() for name, clock in clocks.items()}
            made = task.train(runs)
            for name, clock in clocks.items():
                trained[name] += clock() - begun[name]
            writer.append_many(runs, **made)
    return {
        name: (clock() - start[name] - trained[name]) / trained[name]
        for name, clock in clocks.items()
    }


def processes(folder: Path) -> dict[str, float]:
    """Models an hour of ``dmstore train`` on two cores, its start included, and a worker's memory.

    By the clock, so that it says something on a quiet machine alone; the seconds of processors a model say it on others too.
    """
    made = {}
    for name, runs in WORKED.items():
        side, size, config, _ = CASES[name]
        study = make_study(folder / f"workers-{name}.dm", side, size)
        values = recipe.resolve("mlp", config)
        for how, options in WORKERS.items():
            study.add_algorithm(how, runs=runs, outputs=["margin"], task=recipe.TASK, config=values)
            command = [sys.executable, "-m", "dmstore", "train", str(study.path), how, "-Q"]
            begun, spent = time.perf_counter(), _children()
            peak = _watched([*command, *options])
            if how == "one":
                made[f"{name}_worker_mb"] = peak
            made[f"{name}_{how}_an_hour"] = 3600 * runs / (time.perf_counter() - begun)
            made[f"{name}_{how}_processor_s_a_model"] = (_children() - spent) / runs
    return made


def _watched(command: list[str]) -> float:
    """Run a command; the most memory that its process had, in MB."""
    peak = 0
    with subprocess.Popen(command) as process:
        # Asked of the process: what the system keeps of children counts the parent's at the fork.
        while process.poll() is None:
            said = Path(f"/proc/{process.pid}/status").read_text()
            peak = max(peak, *(int(x.split()[1]) for x in said.splitlines() if "VmHWM" in x), 0)
            time.sleep(0.05)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return peak * 1024 / 1e6


def _children() -> float:
    """Seconds of the processor of all that was started and has ended."""
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def recipes_an_hour() -> dict[str, float]:
    """Models an hour of each model's recipe at 32 px, by the time of its steps: training alone, half of CIFAR-10."""
    import torch

    from dmstore.training.loop.precision import half
    from dmstore.training.models import make

    made = {}
    for model, batch in STEPS.items():
        names = [one for one in recipe.recipes() if one.config.model == model]
        network = make(TrainingConfig(model=model), (3, 32, 32), 10).to(
            memory_format=torch.channels_last  # type: ignore[call-overload, unused-ignore]
        )
        images = torch.randn(batch, 3, 32, 32).contiguous(memory_format=torch.channels_last)
        kind, best = half(names[0].config, torch.device("cpu")), float("inf")
        for _ in range(TURNS):
            start = time.process_time()
            with torch.autocast("cpu", dtype=kind, enabled=kind is not None):
                network(images).sum().backward()
            best = min(best, time.process_time() - start)
        made[f"{model}_images_a_second"] = batch / best
        made |= {
            f"{one.name}_an_hour": 3600 * batch / best / (25_000 * one.config.epochs)
            for one in names
        }
    return made


def run(size: str = "medium") -> dict[str, Any]:
    """All of it; with `size` small, heads alone."""
    import torch

    torch.set_num_threads(1)
    names = [name for name in CASES if size != "small" or not name.startswith("cnn")]
    with tempfile.TemporaryDirectory(prefix="dmstore-benchmark-") as given:
        folder = Path(given)
        start = starting()
        made: dict[str, Any] = {"start_of_a_worker_s": start}
        for name in names:
            made |= compare(name, folder, start)
        made |= overhead(folder)
        if size != "small":
            made |= processes(folder)
    return made if size == "small" else made | recipes_an_hour()
