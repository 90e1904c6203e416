"""Heads on features of a network pre-trained on ImageNet, and nets trained from scratch on the same images.

``python -m studies.pretraining FOLDER --images FILE.npz`` writes everything into FOLDER; it needs ``pip install traker``. Killed, it goes on where
it was.
"""

import argparse
import json
import resource
from pathlib import Path

import dmstore
from studies.pretraining import attribution, colours, figure
from studies.sgd_noise import cifar
from studies.steps import Steps

STUDY = "pretraining.dm"
# Both take the same steps: what they see, the network and the learning rate differ.
SHARED = ("epochs=10", "batch_size=250", "schedule=linear", "flip=none", "crop=none")
ALGORITHMS = {
    "scratch": {
        "recipe": "mlp",
        "runs": 10000,
        "set": ("image_size=16", "width=64", "learning_rate=0.1"),
    },
    "head": {"recipe": "linear-head", "runs": 14000, "set": ("learning_rate=0.02",)},
}
FEATURES = ("--model", "efficientnet_lite0", "--image-size", 96)
CAPTIONS = ("--embedder", "standin", "--words", "wordfreq:3000")
# Target sets of the counterfactual check: transformation and intensity.
CHANGES = {"grey": ("grey", 1.0), "blue": ("blue", 0.5)}
REMOVED = ("A1", "B1")


def options():
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m studies.pretraining", description=__doc__)
    parser.add_argument("folder")
    parser.add_argument(
        "--images",
        required=True,
        type=Path,
        help="CIFAR-10 as one .npz: see studies/sgd_noise/cifar.py",
    )
    parser.add_argument("--captions", action="store_true", help="needs 'dmstore[captions-standin]'")
    parser.add_argument("--tiny", action="store_true", help="seconds, to see that it works")
    return parser.parse_args()


def create(steps, images, train, targets):
    """The study: images, and what their borders and brightness are, known before any run."""
    if steps.open(STUDY) is None:
        columns = cifar.examples(images, train, targets)
        for part in ("train", "target"):
            columns[f"{part}_border"] = colours.border(columns[f"{part}_image"])
            columns[f"{part}_light"] = colours.light(columns[f"{part}_image"])
        dmstore.create_study(steps.folder / STUDY, columns, seed=1)


def add(steps, tiny):
    """The two algorithms."""
    study = steps.open(STUDY)
    declared = [word for o in ("margin", "prediction", "logit") for word in ("--output", o)]
    for name, one in ALGORITHMS.items():
        if name not in study.algorithms:
            sets = [word for value in (*SHARED, *one["set"]) for word in ("--set", value)]
            plan = ("--recipe", one["recipe"], "--runs", 240 if tiny else one["runs"])
            steps(f"add-{name}", "add", STUDY, name, *plan, *declared, *sets)


class Kept:
    """Figures that are measured once, in a file."""

    def __init__(self, place):
        self._place = place
        self.values = json.loads(place.read_text(encoding="utf-8")) if place.exists() else {}

    def __call__(self, name, measure):
        """Measure this one if it is not there."""
        if name not in self.values:
            self.values[name] = measure()
            self._place.write_text(json.dumps(self.values), encoding="utf-8")


def seconds_of(command):
    """CPU time of the processes that a function starts and waits for."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def judge(steps, name, counts, curve):
    """LDS of datamodels from growing numbers of runs, and of TRAK from growing numbers of models.

    Returns
    -------
    list of tuple
        See :func:`studies.pretraining.figure.rows`.
    """
    study = steps.open(STUDY)
    cost = Kept(steps.folder / f"cost-{name}.json")
    cost("run", lambda: attribution.seconds_of_a_run(study, name))
    # A model on all data takes twice the steps of a run on half of them.
    cost("full", lambda: cost.values["run"] / study.algorithm(name).alpha)
    cost("fit", lambda: seconds_of(lambda: steps(f"fit-{name}", "fit", STUDY, name)))
    folder = steps.folder / f"trak-{name}"
    cost("trak", lambda: attribution.score(study, name, folder, counts))
    outside = [
        word
        for count in counts
        for word in (
            *("--scores", f"trak-{name}"),
            *("--experiment", figure.experiment(count)),
        )
    ]
    said = steps(
        f"evaluate-{name}",
        *("evaluate", STUDY, name, "--curve", "--targets", curve, *outside, "--json"),
    )
    return figure.rows(name, json.loads(said), cost.values, counts)


def ask(steps, models):
    """Train models on all data, and ask them of images without their colour, and of images drawn towards blue."""
    study = steps.open(STUDY)
    for name, (function, intensity) in CHANGES.items():
        if name not in study.target_sets:
            transform = ("--transform", f"studies.pretraining.colours:{function}")
            steps(f"targets-{name}", "targets", STUDY, name, *transform, "--intensity", intensity)
    steps("features-again", "features", STUDY, *FEATURES)
    for name in ALGORITHMS:
        asked = ("--full", models, "--targets", ",".join(CHANGES))
        steps(f"full-{name}", "train", STUDY, name, *asked)


def main():
    """All steps."""
    given = options()
    steps = Steps(given.folder)
    train, targets, curve, models = (60, 40, 10, 2) if given.tiny else (1000, 500, 60, 40)
    counts = (1, 2) if given.tiny else (1, 2, 5, 10, 20, 40)
    create(steps, given.images, train, targets)
    steps("features", "features", STUDY, *FEATURES)
    add(steps, given.tiny)
    for name in ALGORITHMS:
        steps(f"train-{name}", "train", STUDY, name)
    ask(steps, models)
    made = [row for name in ALGORITHMS for row in judge(steps, name, counts, curve)]
    said = "\n".join(figure.lines(made)) + "\n"
    (steps.folder / "said" / "lds.txt").write_text(said, encoding="utf-8")
    figure.draw(made, steps.folder / "lds.png")
    steps("compare", "compare", STUDY, *ALGORITHMS)
    for column in ("border", "light"):
        # Made-up pictures may all have one border.
        if len(set(steps.open(STUDY).train[column].values.tolist())) < 2:
            continue
        steps(f"contrast-{column}", "contrast", STUDY, *ALGORITHMS, "--by", column)
    asked = [
        word
        for option in ("--train-by", "--targets-by")
        for label in ("airplane", "ship")
        for word in (option, f"label={label} & border=blue")
    ]
    if not given.tiny:
        steps("contrast-blue", "contrast", STUDY, *ALGORITHMS, *asked)
    for name in CHANGES:
        changed = ("--targets", name, "--class", "all")
        steps(f"counterfactual-{name}", "counterfactual", STUDY, *ALGORITHMS, *changed)
    if given.captions:
        steps("caption", "caption", STUDY, *ALGORITHMS, *CAPTIONS)
    for direction in REMOVED:
        removed = ("--direction", direction, "--share", 5, "--as-runs")
        again = ("--models", 2 if given.tiny else 40)
        steps(f"removal-{direction}", "removal", STUDY, *ALGORITHMS, *removed, *again)
    steps("report", "report", STUDY, *ALGORITHMS, "--figures", "figures")
    steps.end()


if __name__ == "__main__":
    main()
