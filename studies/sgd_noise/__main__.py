"""SGD with little noise and with more, and for few steps: small nets on features of a pre-trained network.

``python -m studies.sgd_noise FOLDER --images FILE.npz`` writes everything into FOLDER. Killed, it goes on where it was.
"""

import argparse
from pathlib import Path

import dmstore
from studies.sgd_noise import cifar
from studies.steps import Steps

STUDY = "sgd.dm"
ALGORITHMS = {
    "high": {"batch_size": 25, "epochs": 10, "learning_rate": 0.005},
    # As many steps at the same rate, of ten times as many images each: what differs is noise.
    "low": {"batch_size": 250, "epochs": 100, "learning_rate": 0.005},
    # As many images in all, in a tenth of the steps.
    "short": {"batch_size": 250, "epochs": 10, "learning_rate": 0.02},
}
NOISE, LENGTH = ("high", "low"), ("high", "short")
RUNS = 4000
FEATURES = ("features", STUDY, "--model", "efficientnet_lite0", "--image-size", 96)
CHANGES = {"blue_25": 0.25, "blue_50": 0.5}
SHARED = (
    "flip=none",
    "crop=none",
    "width=64",
    "schedule=constant",
    "precision=float32",
)


def options():
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m studies.sgd_noise", description=__doc__)
    parser.add_argument("folder")
    parser.add_argument(
        "--images", required=True, type=Path, help="CIFAR-10 as one .npz: see cifar.py"
    )
    parser.add_argument("--captions", action="store_true", help="needs 'dmstore[captions-standin]'")
    parser.add_argument("--tiny", action="store_true", help="seconds, to see that it works")
    return parser.parse_args()


def add(steps, tiny):
    """The algorithms: a network of one hidden layer on features, or, tiny, on pixels."""
    study = steps.open(STUDY)
    seen = () if tiny else ("features=features",)
    for name, one in ALGORITHMS.items():
        if name in study.algorithms:
            continue
        values = [f"{key}={value}" for key, value in one.items()]
        sets = [word for value in (*seen, *SHARED, *values) for word in ("--set", value)]
        declared = [word for o in ("margin", "prediction", "logit") for word in ("--output", o)]
        runs = 240 if tiny else RUNS
        steps(
            f"add-{name}", "add", STUDY, name, "--recipe", "mlp", "--runs", runs, *declared, *sets
        )


def change(steps, models, tiny):
    """Models trained on all data, asked of targets drawn towards blue."""
    for name, intensity in CHANGES.items():
        if name not in steps.open(STUDY).target_sets:
            blue = ("--transform", "studies.sgd_noise.cifar:blue", "--intensity", intensity)
            steps(f"targets-{name}", "targets", STUDY, name, *blue)
    if not tiny:
        steps("features-changed", *FEATURES)
    for name in ALGORITHMS:
        asked = ("--full", models, "--targets", ",".join(CHANGES))
        steps(f"full-{name}", "train", STUDY, name, *asked)


def main():
    """All steps."""
    given = options()
    steps = Steps(given.folder)
    train, targets, curve, models = (60, 40, 10, 2) if given.tiny else (1000, 500, 60, 40)
    classes = "all" if given.tiny else "airplane,bird"
    if steps.open(STUDY) is None:
        chosen = cifar.examples(given.images, train, targets)
        dmstore.create_study(steps.folder / STUDY, chosen, seed=1)
    if not given.tiny:
        steps("features", *FEATURES)
    add(steps, given.tiny)
    for name in ALGORITHMS:
        steps(f"train-{name}", "train", STUDY, name)
        steps(f"fit-{name}", "fit", STUDY, name)
        steps(f"evaluate-{name}", "evaluate", STUDY, name, "--curve", "--targets", curve)
    change(steps, models, given.tiny)
    for name, pair in (("noise", NOISE), ("length", LENGTH)):
        steps(f"compare-{name}", "compare", STUDY, *pair)
        steps(f"contrast-{name}", "contrast", STUDY, *pair, "--by", "label")
        changed = ("--targets", ",".join(CHANGES), "--class", classes)
        steps(f"counterfactual-{name}", "counterfactual", STUDY, *pair, *changed)
    if given.captions:
        steps("caption", "caption", STUDY, *LENGTH, "--embedder", "standin")
    removal = ("--direction", "B1", "--share", 5, "--as-runs", "--models", 2 if given.tiny else 20)
    steps("removal", "removal", STUDY, *LENGTH, *removal)
    for name, pair in (("noise", NOISE), ("length", LENGTH)):
        steps(f"report-{name}", "report", STUDY, *pair, "--figures", f"figures-{name}")
    steps.end()


if __name__ == "__main__":
    main()
