"""Two classifiers of short texts, one that sees words and one that sees characters.

``python -m studies.texts FOLDER`` writes everything into FOLDER. Killed, it goes on where it was.
"""

import argparse

import numpy as np

import dmstore
from dmstore.training import RunWriter, margin
from studies.steps import PENDING, Steps
from studies.texts import corpus
from studies.texts.ridge import FEATURES, Ridge, plainly

STUDY = "texts.dm"
BATCH = 50
RUNS = {"words": 2000, "characters": 1000}


def options():
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m studies.texts", description=__doc__)
    parser.add_argument("folder")
    parser.add_argument(
        "--texts", default="/usr/share/games/fortunes", help="of 'apt-get install fortunes'"
    )
    parser.add_argument("--tiny", action="store_true", help="seconds, to see that it works")
    return parser.parse_args()


def create(steps, texts, units, targets):
    """The study: units, targets, and the same targets in lower-case words alone."""
    study = steps.open(STUDY)
    if study is None:
        examples = corpus.draw(texts, units, targets)
        changed = {
            "label": examples["target_label"],
            "id": np.char.add(examples["target_id"], "-words"),
            "text": np.array([plainly(text) for text in examples["target_text"]]),
            "base": examples["target_id"],
            "intensity": np.ones(len(examples["target_id"])),
        }
        study = dmstore.create_study(
            steps.folder / STUDY, examples, seed=0, target_sets={"words_only": changed}
        )
    return study


def outputs(logit, label):
    """All that an algorithm declares."""
    return {"margin": margin(logit, label), "prediction": logit.argmax(axis=-1), "logit": logit}


def train(study, name, **what):
    """Store what is pending of the runs, the full models or a removal."""
    target_set = what.get("target_set", "test")
    targets = study.target_set(target_set)
    model = Ridge(name, study.train.text.values, study.train.label.values, targets.text.values)
    label = targets.label.values
    with RunWriter(study, name, **what) as writer:
        for runs in writer.pending(batch=BATCH, progress=True):
            logit = np.stack([model(mask) for mask in runs.mask])
            writer.append_many(runs, **outputs(logit, label))


def main():
    """All steps."""
    given = options()
    steps = Steps(given.folder)
    units, targets, curve = (12, 20, 10) if given.tiny else (50, 60, 40)
    study = create(steps, given.texts, units, targets)
    for name in FEATURES:
        if name not in study.algorithms:
            runs = 240 if given.tiny else RUNS[name]
            study.add_algorithm(name, runs=runs, outputs=["margin", "prediction", "logit"])
        train(study, name)
        steps(f"fit-{name}", "fit", STUDY, name)
        steps(f"evaluate-{name}", "evaluate", STUDY, name, "--curve", "--targets", curve)
    pair = tuple(FEATURES)
    steps("compare", "compare", STUDY, *pair)
    steps("contrast", "contrast", STUDY, *pair, "--by", "form")
    steps("caption", "caption", STUDY, *pair, "--texts", "text")
    for name in FEATURES:
        # A ridge has no randomness: two models trained on all data are one.
        for target_set in (None, "words_only"):
            more = {"target_set": target_set} if target_set else {}
            train(study, name, full=2, **more)
    change = ("counterfactual", STUDY, *pair, "--targets", "words_only", "--on", "class")
    for name in ("definitions", "knghtbrd", "songs-poems"):
        steps(f"counterfactual-{name}", *change, "--class", name)
    remove(steps, study, pair)
    steps("report", "report", STUDY, *pair, "--figures", "figures")
    steps.end()


def remove(steps, study, pair):
    """What both lose without the units that the first direction of the second algorithm names."""
    command = ("removal", STUDY, *pair, "--direction", "B1", "--share", 5, "--models", 20)
    command += ("--as-runs",)
    steps("removal", *command, may_end_with=(1, PENDING))
    for name in pair:
        for removal in study.removals(name):
            train(study, name, removal=removal, models=20)
    steps("removal", *command)


if __name__ == "__main__":
    main()
