"""Short texts of known source: the fortunes that Debian packages, a file a class."""

import re
from pathlib import Path

import numpy as np

CLASSES = ("computers", "definitions", "knghtbrd", "science", "songs-poems", "work")
# Neighbours in a file resemble each other: they stay together, in one train unit or among the targets.
TOGETHER = 4
FORMS = {
    "chat": r"^\s*(<[^>\n]+>|\* \w+)",
    "definition": r"^[^\n]{1,60}, ?(n|v|adj|adv)\.[^\n]*:|^[^\n]{1,60}:\n\t",
    "signed": r"\n\s+-- \S",
}


def read(folder, name):
    """Texts of one file, without those that are very short or very long."""
    raw = (Path(folder) / name).read_text(encoding="utf-8")
    texts = [text.strip("\n") for text in re.split(r"^%\n", raw, flags=re.M)]
    return [text for text in texts if 40 <= len(text) <= 1000]


def form(text):
    """How a text is set: as a chat, a definition, with a signature, or plain."""
    return next((name for name, pattern in FORMS.items() if re.search(pattern, text)), "plain")


def draw(folder, units, targets, seed=0):
    """Train units of `TOGETHER` texts and targets of one text, so many a class.

    Returns
    -------
    dict
        Columns of an examples file.
    """
    rng = np.random.default_rng(seed)
    columns = {name: [] for name in ("train_text", "train_label", "target_text", "target_label")}
    for label, name in enumerate(CLASSES):
        texts = read(folder, name)
        groups = [texts[i : i + TOGETHER] for i in range(0, len(texts) - TOGETHER + 1, TOGETHER)]
        order = rng.permutation(len(groups))
        asked = -(-targets // TOGETHER)
        if len(groups) < units + asked:
            msg = f"{name} has {len(texts)} texts; {units * TOGETHER + targets} are needed"
            raise SystemExit(msg)
        for k in order[:units]:
            columns["train_text"].append("\n%\n".join(groups[k]))
            columns["train_label"].append(label)
        for text in [t for k in order[units : units + asked] for t in groups[k]][:targets]:
            columns["target_text"].append(text)
            columns["target_label"].append(label)
    columns["target_form"] = [form(text) for text in columns["target_text"]]
    columns["train_form"] = [
        max(forms, key=forms.count)
        for forms in ([form(t) for t in unit.split("\n%\n")] for unit in columns["train_text"])
    ]
    counts = {s: len(columns[f"{s}_label"]) for s in ("train", "target")}
    ids = {f"{s}_id": np.array([f"{s}-{k:04}" for k in range(n)]) for s, n in counts.items()}
    return {**{k: np.array(v) for k, v in columns.items()}, **ids, "class_name": np.array(CLASSES)}
