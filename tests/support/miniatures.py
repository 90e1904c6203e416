"""Miniature data sets in the very layouts of the real ones."""

import csv
import io
import struct

import numpy as np
from PIL import Image

from dmstore.training.datasets.living17_classes import SUPERCLASSES

WATERBIRDS = "waterbird_complete95_forest2water2"


def photo(place, height=90, width=120, kind="JPEG"):
    """A picture that follows from its number: smooth, so that JPEG keeps it."""
    draw = np.random.default_rng(place)
    rough = draw.integers(0, 256, (3, 4, 3)).astype(np.uint8)
    image = Image.fromarray(rough).resize((width, height), Image.Resampling.BILINEAR)
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def put(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def cifar_rows(count, number):
    draw = np.random.default_rng(number)
    return draw.integers(0, 10, count), draw.integers(0, 256, (count, 3072)).astype(np.uint8)


BATCHES = [*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]


def cifar_bin(root, count=4):
    for number, batch in enumerate(BATCHES):
        labels, pixels = cifar_rows(count, number)
        rows = np.concatenate([labels[:, None].astype(np.uint8), pixels], axis=1)
        put(root / "cifar-10-batches-bin" / f"{batch}.bin", rows.tobytes())


def _text(value):
    raw = value if isinstance(value, bytes) else value.encode()
    return b"T" + struct.pack("<i", len(raw)) + raw


def _integer(value):
    return b"J" + struct.pack("<i", value)


def python2_batch(labels, pixels, names):
    """A pickle as Python 2 wrote the batches of CIFAR-10: protocol 2, byte strings, numpy.core."""
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(" + _integer(0) + b"t" + _text("b") + b"tR"
        b"(" + _integer(1) + b"(" + _integer(pixels.shape[0]) + _integer(pixels.shape[1]) + b"t"
        b"cnumpy\ndtype\n(" + _text("u1") + _integer(0) + _integer(1) + b"tR"
        b"(" + _integer(3) + _text("|") + b"NNN" + _integer(-1) + _integer(-1) + _integer(0) + b"tb"
        b"\x89" + _text(pixels.tobytes()) + b"tb"
    )  # fmt: skip
    return (
        b"\x80\x02}("
        + _text("batch_label")
        + _text("training batch 1 of 5")
        + _text("labels")
        + b"](" + b"".join(_integer(int(label)) for label in labels) + b"e"
        + _text("data")
        + array
        + _text("filenames")
        + b"](" + b"".join(map(_text, names)) + b"e"
        + b"u."
    )  # fmt: skip


def cifar_py(root, count=4):
    for number, batch in enumerate(BATCHES):
        labels, pixels = cifar_rows(count, number)
        names = [f"toad_s_{number}{place:05d}.png" for place in range(count)]
        put(root / "cifar-10-batches-py" / batch, python2_batch(labels, pixels, names))


def waterbirds(root, each=2):
    """Every split, place and kind of bird `each` times."""
    rows = []
    for split in (0, 1, 2):
        for y in (0, 1):
            for place in (0, 1):
                for _ in range(each):
                    number = len(rows)
                    bird = ("001.Black_footed_Albatross", "002.Laysan_Albatross")[y]
                    file = f"{bird}/{bird[4:]}_{number:04d}.jpg"
                    scene = ("/b/bamboo_forest", "/o/ocean")[place]
                    rows.append([number + 1, file, y, split, place, f"{scene}/{number:08d}.jpg"])
                    put(root / WATERBIRDS / file, photo(number, 60 + number, 100))
    with (root / WATERBIRDS / "metadata.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["img_id", "img_filename", "y", "split", "place", "place_filename"])
        writer.writerows(rows)
    return rows


def imagenet(root, train=2, val=1, flat=False):
    """The 68 classes of Living17 and one more."""
    wnids = [wnid for classes in SUPERCLASSES.values() for wnid in classes]
    lines = []
    for number, wnid in enumerate([*wnids, "n03000000"]):
        for place in range(train):
            put(root / "train" / wnid / f"{wnid}_{place}.JPEG", photo(number, 40, 50))
        for place in range(val):
            name = f"ILSVRC2012_val_{number * val + place + 1:08d}"
            inside = "." if flat else wnid
            put(root / "val" / inside / f"{name}.JPEG", photo(1000 + number, 50, 40))
            lines.append(f"{name},{wnid} 1 2 3 4\n")
    if flat:
        (root / "LOC_val_solution.csv").write_text("ImageId,PredictionString\n" + "".join(lines))


def folders(root, sizes=((70, 90), (100, 80)), kind="JPEG", parts=("train", "test"), each=3):
    number = 0
    for part in parts:
        for name in ("cat", "dog"):
            for place in range(each):
                height, width = sizes[number % len(sizes)]
                suffix = {"JPEG": "jpg", "PNG": "png"}[kind]
                put(root / part / name / f"{place}.{suffix}", photo(number, height, width, kind))
                number += 1
