"""A subset of CIFAR-10 as an examples file, and the tint of the counterfactual check."""

import io

import numpy as np
from PIL import Image

BLUE = (40, 80, 220)


def part(data, name, count, draw):
    """`count` images of a part (`train`, `test`) at random, sorted, with label and id."""
    blob, offset, label = (data[f"{name}_{column}"] for column in ("blob", "off", "label"))
    picked = np.sort(draw.permutation(len(label))[:count])
    images = [
        np.asarray(Image.open(io.BytesIO(blob[offset[k] : offset[k + 1]].tobytes())).convert("RGB"))
        for k in picked
    ]
    ids = np.array([f"{name}/{k}" for k in picked])
    return np.stack(images), label[picked].astype(np.int64), ids


def examples(path, train, targets):
    """Columns of an examples file.

    Parameters
    ----------
    path : path
        An ``.npz`` with ``classes``, and of ``train`` and ``test`` a ``_blob`` of encoded images one after the
        other, their ``_off`` (one more than images) and ``_label``.
    train, targets : int
        How many images of each.
    """
    draw = np.random.default_rng(0)
    with np.load(path, allow_pickle=False) as file:
        data = dict(file)
    image, label, ids = part(data, "train", train, draw)
    target_image, target_label, target_ids = part(data, "test", targets, draw)
    return {
        "train_image": image,
        "train_label": label,
        "train_id": ids,
        "target_image": target_image,
        "target_label": target_label,
        "target_id": target_ids,
        "class_name": data["classes"],
    }


def blue(images, intensity):
    """Images drawn towards blue, for ``dmstore counterfactual --transform``."""
    return np.rint(images + intensity * (np.array(BLUE) - images.astype(float))).astype(np.uint8)
