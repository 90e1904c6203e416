"""Makes the stores of one format version that every later version must read.

    python tests/archives/make.py tests/archives/v1.0

writes ``stores.tar.xz`` with ``local`` (a study), ``published.zip``, ``copy`` (a pulled one) and ``documents`` (what is
in no study), and ``expected.json``, what that version reads in them. Committed archives are never made again: a new format version gets a folder of
its own. ``--first`` uses nothing but what the very first commit of format 1.0 had, so that the script also
runs with that commit's code (then from a checkout of it, with ``PYTHONPATH`` set to it).
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import tarfile
import tempfile
from pathlib import Path

import numpy as np

import dmstore
from dmstore.analysis import compare
from dmstore.regression import fit
from dmstore.storage.acts import tag
from dmstore.storage.acts.compact import compact
from dmstore.storage.table.rows import Rows

TRAIN, TARGET, RUNS = 16, 5, 60
COMPARED = ("direction", "cosine", "delta", "subpopulation", "included")


def spread(*shape, seed=0):
    """Numbers in -1 to 1, multiples of 1/1024: their sums are exact, in every version of every library."""
    numbers = (np.arange(np.prod(shape)) + 1 + 7919 * seed) * 2654435761 % 2**32
    return (numbers // 2**21 - 1024).reshape(shape) / 1024


def examples():
    return {
        "train_label": np.arange(TRAIN) % 2,
        "target_label": np.arange(TARGET) % 2,
        "target_image": (spread(TARGET, 3, 3) * 127 + 128).astype(np.uint8),
        "class_name": np.array(["cat", "dög"]),
        "train_id": np.array([f"photo-{i}" for i in range(TRAIN)]),
        "train_weight": spread(TRAIN),
    }


def rows(algorithm, ids, seed=0, **columns):
    """Rows of planned runs; outputs follow from mask, id and seed."""
    mask = np.array([run.mask for run in algorithm.describe(np.asarray(ids))])
    noise = np.array([spread(TARGET, seed=1000 * seed + int(run)) for run in ids])
    margin = mask @ spread(TRAIN, TARGET, seed=seed) + noise / 8
    arrays = {"mask": mask, "margin": margin.astype("f4"), "prediction": margin > 0}
    arrays = {name: arrays[name] for name in ("mask", *algorithm.outputs)}
    if "prediction" in arrays:
        arrays["prediction"] = arrays["prediction"].astype("i2")
    fixed = {"time": np.full(len(ids), 1_700_000_000_000), "host": np.full(len(ids), "gpu-1")}
    given = Rows(np.asarray(ids, dtype=np.int64), arrays, {**fixed, **columns})
    return algorithm.complete(given, "archive")


def make_first(path):
    """Base, tail, conflicts, columns, a tag, foreign and independent masks, fits and a comparison."""
    about = {"title": "Archive", "authors": ["A. Lab"], "licence": "CC0-1.0"}
    study = dmstore.create_study(path, examples(), seed=2**62 + 5, about=about)
    for name in ("plain", "other"):
        algorithm = study.add_algorithm(name, runs=RUNS, outputs=["margin", "prediction"])
        for start in range(0, RUNS, 20):
            ids = range(start, start + 20)
            algorithm.table.append(rows(algorithm, ids, seed=len(name), loss=np.arange(20) / 3))
        fit(study, name)
    compare(study, "plain", "other", components=2, top=2)
    plain = study.algorithm("plain")
    tag.create(plain.table, "v1")
    plain.extend(9, repeats=3)
    plain.table.append(rows(plain, range(60, 67), note=np.array(["ü"] * 7, dtype=object)))
    plain.table.append(rows(plain, [3, 64], seed=9))
    independent = study.add_algorithm("own", alpha=0.3, runs=4, masks="independent")
    independent.table.append(rows(independent, range(3)))
    foreign = study.add_algorithm("elsewhere", alpha=None, sampling="foreign")
    mask = spread(4, TRAIN, seed=2) < 0
    columns = {"time": np.zeros(4, int), "host": np.full(4, "h"), "seed": np.arange(4)}
    given = Rows(np.arange(4) * 7, {"mask": mask, "margin": np.zeros((4, TARGET), "f4")}, columns)
    foreign.table.append(foreign.complete(given, "archive"))
    return study


def make_later(study):
    """A retraction, a later target set with outputs, and an annotation added later."""
    from dmstore.analysis import evaluate
    from dmstore.upkeep.retraction import retract_runs

    retract_runs(study.algorithm("plain"), ["run>=10", "run<13"], reason="a faulty host")
    columns = {
        "label": np.array([0, 1, 1]),
        "id": np.array(["late-0", "late-1", "late-2"]),
        "train": np.array([-1, 4, -1]),
        "image": np.arange(27, dtype=np.uint8).reshape(3, 3, 3),
        "night": np.array([True, False, True]),
    }
    study.add_targets("shifted", columns)
    study.annotate("train", camera=np.arange(TRAIN) % 3)
    study.annotate("shifted", place=np.array(["north", "south", ""]))
    outputs = study.target_outputs("plain", "shifted")
    for ids in (range(4), range(4, 14), range(20, 25)):
        ids = np.setdiff1d(ids, [10, 11, 12])
        margin = np.array([spread(3, seed=int(run)) for run in ids], "f4")
        given = {"margin": margin, "prediction": (margin > 0).astype("i2")}
        fixed = {"time": np.full(len(ids), 7), "host": np.full(len(ids), "gpu-2")}
        outputs.table.append(outputs.complete(Rows(ids, given, fixed), "archive"))
        if ids[0] == 4:
            compact(outputs.table)
    evaluate(study, "other", resamples=10)


def digest(values):
    """A hash of an array's dtype, shape and content; texts by themselves."""
    values = np.asarray(values)
    if values.dtype.kind in "OUT":
        return values.tolist()
    return f"{values.dtype.str} {values.shape} {hashlib.sha256(values.tobytes()).hexdigest()[:16]}"


def describe(study):
    """What a version reads in a study, as JSON."""
    found = {
        "train": digest(study.train.train.values),
        "weight": digest(study.train.weight.values),
        "classes": study.class_names,
        "algorithms": {name: describe_algorithm(study, name) for name in study.algorithms},
        "fits": {
            name: {
                key: digest(study.datamodels(name)[key].values)
                for key in ("weight", "bias", "lam", "weight_half", "kkt")
            }
            for name in study.algorithms
            if any(entry["complete"] for entry in study.fits(name))
        },
        "comparisons": [
            {key: digest(study.comparison(*entry["algorithms"])[key].values) for key in COMPARED}
            for entry in study.comparisons
        ],
    }
    if "image" in study.targets:
        found["image"] = digest(study.targets["image"].values)
    later = [
        name for name, entry in getattr(study, "target_sets", {}).items() if entry.get("later")
    ]
    if later:
        found["camera"] = digest(study.train.camera.values)
        found["sets"] = {name: describe_set(study, name) for name in later}
    return found


def describe_set(study, name):
    data = study.target_set(name).load()
    outputs = study.outputs("plain", name).load()
    return {
        "columns": {key: digest(data[key].values) for key in sorted({*data.data_vars, "target"})},
        "train": study.target_train(name).tolist(),
        "run": outputs.run.values.tolist(),
        "pending": outputs.attrs["pending"],
        "content_id": outputs.attrs["content_id"],
        "outputs": {key: digest(outputs[key].values) for key in ("margin", "prediction")},
    }


def describe_algorithm(study, name):
    algorithm = study.algorithm(name)
    view = algorithm.table.view()
    data = study.runs(name).load()
    columns = [key for key in ("note", "loss") if key in data]
    return {
        "run": view.run.tolist(),
        "content_id": view.content_id(),
        "conflicts": [list(pair) for pair in view.conflicts],
        "version": view.manifest.version,
        "segments": len(view.tail),
        "pending": algorithm.pending().tolist() if algorithm.planned else None,
        "tags": {entry["name"]: entry["content_id"] for entry in tag.read_all(algorithm.table)},
        "split": "".join(text[0] for text in data.split.values.tolist()),
        "quarter": "".join(map(str, algorithm.quarter(data.mask_id.values))),
        "arrays": {
            key: digest(data[key].values)
            for key in ("mask", "seed", "mask_id", "repeat", *sorted(algorithm.outputs), *columns)
        },
    }


def pack(source, target):
    """A directory as one archive: the same bytes for the same content."""
    with tarfile.open(target, "w:xz") as archive:
        for path in sorted(source.rglob("*")):
            if path.is_file():
                info = tarfile.TarInfo(path.relative_to(source).as_posix())
                info.size = path.stat().st_size
                with path.open("rb") as file:
                    archive.addfile(info, file)


def make(target, first):
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder, "stores")
        place.mkdir()
        study = make_first(place / "local")
        if not first:
            make_later(study)
        expected = {"local": describe(study)}
        if not first:
            from dmstore.sharing import publish, pull

            # Of another copy: publishing compacts.
            shutil.copytree(place / "local", Path(folder, "source"))
            source = dmstore.open_study(Path(folder, "source"))
            publish(source, place / "published.zip", about={"doi": "10.5555/archive"})
            expected["published.zip"] = describe(dmstore.open_study(place / "published.zip"))
            pull(place / "published.zip", place / "copy")
            expected["copy"] = describe(dmstore.open_study(place / "copy"))
            make_documents(study, place / "documents", Path(folder))
        pack(place, target / "stores.tar.xz")
    text = json.dumps(expected, indent=1, ensure_ascii=False, sort_keys=True)
    (target / "expected.json").write_text(text + "\n", encoding="utf-8")


def make_documents(study, target, scratch):
    """Documents that are in no study: a worker's plan, and a comparison of score files."""
    from dmstore.analysis import compare_scores
    from dmstore.exporters import plan

    target.mkdir()
    plan.write(target / "worker.json", study, "plain")
    for name in "ab":
        np.save(scratch / f"{name}.npy", spread(4, 6, seed=ord(name)).astype("f4"))
    given = ("target-train", "target-train")
    files = scratch / "a.npy", scratch / "b.npy"
    compare_scores(*files, out=scratch / "scores", orientation=given, components=1, top=2)
    shutil.copyfile(scratch / "scores/comparison.json", target / "score_comparison.json")


if __name__ == "__main__":
    make(Path(sys.argv[1]), first="--first" in sys.argv)
