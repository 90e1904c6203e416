"""Comparing attribution scores with no runs: formats, orientation, units, mathematics, command."""

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr
from commands import run, run_json
from helpers import examples
from pages import page_json, page_text
from paths import DATA, ROOT

import dmstore
from dmstore.analysis import compare_scores, modeldiff
from dmstore.errors import (
    CorruptionError,
    ExistsError,
    InputError,
    StorageError,
    StudyNotFoundError,
)
from dmstore.readers.files import open_npy
from dmstore.readers.labels import read_labels
from dmstore.readers.scores import decide_orientation, is_scores, labelled, open_scores
from dmstore.readers.torch_file import TorchFile
from dmstore.readers.units import Units
from dmstore.schema.documents import load_document

SCORES = DATA / "scores"
TARGET, TRAIN = 9, 14


def scores(seed, targets=TARGET, train=TRAIN):
    return np.random.default_rng(seed).normal(size=(targets, train)).astype(np.float32)


def read(path, *, given=None, train=None, targets=None, units=None, **options):
    file = open_scores(path, **options)
    found = decide_orientation(file, given=given, train=train, targets=targets)
    return labelled(file, orientation=found, units=units or Units())


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory with two plain score files and their examples; figures left out, to be quick."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("dmstore.analysis.pages.page.inline", lambda _: ("<svg></svg>", ""))
    np.save("a.npy", scores(0))
    np.save("b.npy", scores(1).T)
    np.savez("e.npz", **examples(train=TRAIN, target=TARGET))
    return tmp_path


# Formats


def test_datamodels_pt_is_converted_to_raw_units_and_says_so():
    file = open_scores(SCORES / "datamodels.pt")
    weight, bias = (TorchFile(SCORES / "datamodels.pt").load(k) for k in ("weight", "bias"))
    found = read(
        SCORES / "datamodels.pt",
        units=Units("standardised" if file.is_standardised_by_default else None),
    )
    assert found.sizes == {"target": 7, "train": 11}
    assert np.allclose(found.weight, weight.T / 0.5)
    assert np.allclose(found.bias, bias - (weight / 0.5).sum(axis=0) / 2, atol=1e-6)
    assert found.lam.dims == ("target",)
    assert found.attrs["zero_rows"] == 1
    assert found.attrs["format"] == "datamodels.pt"
    assert found.attrs["shape"] == [11, 7]
    assert found.attrs["orientation"].startswith("train-target, by the sizes")
    assert "converted to raw from standardised" in found.attrs["units"]
    assert "default" in found.attrs["units"]


def test_a_weight_alone_has_two_habits_and_is_asked_for():
    """Files of datamodels have train units first, what modeldiff's functions take has targets first."""
    with pytest.raises(InputError, match="--orientation target-train or train-target"):
        read(SCORES / "modeldiff.pt")
    found = read(SCORES / "modeldiff.pt", given="train-target")
    assert found.sizes == {"target": 7, "train": 11}
    assert "bias" not in found
    again = read(SCORES / "modeldiff.pt", given="target-train")
    assert np.array_equal(found.weight.values.T, again.weight.values)
    by_size = read(SCORES / "modeldiff.pt", train=7)
    assert np.array_equal(by_size.weight.values, again.weight.values)


def tensors(path, **arrays):
    header, body = {}, b""
    for name, values in arrays.items():
        raw = values.astype("<f4").tobytes()
        places = [len(body), len(body) + len(raw)]
        header[name] = {"dtype": "F32", "shape": list(values.shape), "data_offsets": places}
        body += raw
    text = json.dumps(header).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(len(text).to_bytes(8, "little") + text + body)


def test_kronfluences_folders_and_modules(tmp_path):
    """[query, train], in one matrix or one a module."""
    whole, parts = scores(5), {f"layer{n}": scores(n) for n in range(3)}
    tensors(tmp_path / "one/scores_first/pairwise_scores.safetensors", all_modules=whole)
    tensors(tmp_path / "many/scores_first/pairwise_scores.safetensors", **parts)
    for path in (tmp_path / "one", tmp_path / "one/scores_first"):
        assert is_scores(path)
        found = read(path)
        assert found.attrs["orientation"] == "target-train, as kronfluence scores are written"
        assert np.array_equal(found.weight, whole)
    found = read(tmp_path / "many")
    assert found.attrs["format"] == "kronfluence scores, sum of 3 modules"
    assert np.allclose(found.weight, sum(parts.values()), atol=1e-6)
    assert np.array_equal(read(tmp_path / "many", key="layer1").weight, parts["layer1"])
    tensors(tmp_path / "many/scores_second/pairwise_scores.safetensors", all_modules=whole)
    with pytest.raises(InputError, match=r"\(first, second\); name one with --experiment"):
        read(tmp_path / "many")
    assert np.array_equal(read(tmp_path / "many", experiment="second").weight, whole)
    with pytest.raises(InputError, match="has no pairwise scores 'third'"):
        read(tmp_path / "many", experiment="third")
    tensors(tmp_path / "x/pairwise_scores.safetensors", a=scores(0), b=scores(0, TARGET + 1))
    with pytest.raises(InputError, match="have no sum"):
        read(tmp_path / "x")


def test_trak_folder_and_its_file_are_what_trak_returned():
    expected = np.load(SCORES / "trak-expected.npy")
    for path in (SCORES / "trak", SCORES / "trak" / "scores" / "quick.mmap"):
        found = read(path)
        assert found.attrs["format"] == "TRAK scores"
        assert np.array_equal(found.weight, expected.T)
    assert np.array_equal(read(SCORES / "trak", experiment="quick").weight, expected.T)


def test_trak_folders_paths_inside_are_not_followed(tmp_path):
    place = tmp_path / "trak"
    shutil.copytree(SCORES / "trak", place)
    np.save(tmp_path / "secret.npy", scores(3))
    listed = {"quick": {"scores_path": str(tmp_path / "secret.npy"), "scores_finalized": 1}}
    (place / "experiments.json").write_text(json.dumps(listed))
    assert read(place).sizes == {"target": 7, "train": 12}
    for name in ("../../secret", "none"):
        with pytest.raises(InputError, match="no experiment"):
            open_scores(place, experiment=name)
    listed["quick"]["scores_finalized"] = 0
    (place / "experiments.json").write_text(json.dumps(listed))
    for path in (place, place / "scores" / "quick.mmap"):
        with pytest.raises(InputError, match="not finished"):
            open_scores(path)
    (place / "experiments.json").write_text("[" * 100_000)
    with pytest.raises(InputError, match="not valid JSON"):
        open_scores(place)
    (place / "experiments.json").write_text("[]")
    shutil.copy(place / "scores" / "quick.mmap", place / "scores" / "other.mmap")
    with pytest.raises(InputError, match=r"2 experiments \(other, quick\).*--experiment"):
        open_scores(place)
    with pytest.raises(InputError, match="no folder of TRAK"):
        open_scores(tmp_path)
    with pytest.raises(InputError, match="is no folder of TRAK"):
        open_scores(tmp_path / "secret.npy", experiment="x")


@pytest.mark.parametrize("dtype", ["f2", "f4", ">f4", "f8", "i2", "i8"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_plain_arrays(tmp_path, dtype, order):
    values = np.asarray(scores(0) * 100, dtype=dtype, order=order)
    np.save(tmp_path / "a.npy", values)
    np.savez(tmp_path / "a.npz", scores=values, names=np.array(["x"]))
    for name in ("a.npy", "a.npz"):
        found = read(tmp_path / name, given="target-train")
        assert np.array_equal(found.weight, values)
        assert found.weight.dtype in (np.float32, np.float64)
        assert found.attrs["units"].startswith("not stated by the file, kept as they are")


def test_safetensors(tmp_path):
    from safetensors.numpy import save_file

    save_file({"all_modules": scores(0), "steps": np.arange(3)}, tmp_path / "a.safetensors")
    assert np.array_equal(read(tmp_path / "a.safetensors", given="target-train").weight, scores(0))
    whole = (tmp_path / "a.safetensors").read_bytes()
    for raw in (b"", whole[:20], b"\xff" * 8 + whole[8:]):
        (tmp_path / "b.safetensors").write_bytes(raw)
        with pytest.raises(InputError, match=r"b\.safetensors: "):
            open_scores(tmp_path / "b.safetensors")
    with pytest.raises(InputError, match="no such file"):
        open_scores(tmp_path / "none.safetensors")


def test_which_array_of_several(tmp_path):
    np.savez(tmp_path / "a.npz", one=scores(0), two=scores(1))
    with pytest.raises(InputError, match=r"found: one float32 \(9, 14\), two.*--key"):
        open_scores(tmp_path / "a.npz")
    found = read(tmp_path / "a.npz", given="target-train", key="two")
    assert np.array_equal(found.weight, scores(1))
    with pytest.raises(InputError, match="'three'"):
        open_scores(tmp_path / "a.npz", key="three")
    np.savez(tmp_path / "b.npz", other=scores(0), weight=scores(1))
    assert open_scores(tmp_path / "b.npz").keys["weight"] == "weight"


def test_what_is_no_score_matrix(tmp_path):
    bad = {
        "vector": scores(0)[0],
        "cube": scores(0)[None],
        "masks": scores(0) > 0,
        "empty": scores(0)[:0],
        "complex": scores(0).astype(complex),
    }
    for name, values in bad.items():
        np.save(tmp_path / f"{name}.npy", values)
        with pytest.raises(InputError, match=name):
            open_scores(tmp_path / f"{name}.npy")
    np.save(tmp_path / "objects.npy", np.array([[{}]]), allow_pickle=True)
    with pytest.raises(InputError, match="nothing is unpickled"):
        open_scores(tmp_path / "objects.npy")
    with pytest.raises(InputError, match=r"a\.txt: scores are read from \.pt"):
        open_scores(tmp_path / "a.txt")
    np.savez(tmp_path / "c.npz", weight=scores(0), bias=np.zeros(5))
    with pytest.raises(InputError, match="'bias' has 5 values"):
        open_scores(tmp_path / "c.npz")


def test_npy_headers_are_held_against_the_file(tmp_path):
    np.save(tmp_path / "a.npy", scores(0))
    whole = (tmp_path / "a.npy").read_bytes()
    huge = whole.replace(b"(9, 14)", b"(9, 9999999999999)".ljust(7))
    for raw, said in (
        (whole[:-1], "damaged"),
        (whole + b"x", "damaged"),
        (huge, "a.npy"),
        (b"", "a.npy"),
    ):
        (tmp_path / "a.npy").write_bytes(raw)
        with pytest.raises(InputError, match=said):
            open_npy(tmp_path / "a.npy")
    with pytest.raises(InputError, match="no such file"):
        open_npy(tmp_path / "none.npy")
    with pytest.raises(InputError, match="no plain file"):
        open_npy(tmp_path)


def test_npz_bomb(tmp_path, monkeypatch):
    monkeypatch.setattr("dmstore.core.npz._SMALL", 1 << 20)
    np.savez_compressed(tmp_path / "a.npz", weight=np.zeros((1000, 2000), np.float32))
    with pytest.raises(InputError, match=r"would grow from \d+ to 8000000 bytes"):
        read(tmp_path / "a.npz", given="target-train")
    with zipfile.ZipFile(tmp_path / "b.npz", "w") as file:
        file.writestr("x.txt", "")
    with pytest.raises(InputError, match="no array"):
        open_scores(tmp_path / "b.npz")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_scores_that_are_not_finite_are_named(tmp_path, value):
    values = scores(0)
    values[3, 5] = value
    np.save(tmp_path / "a.npy", values)
    with pytest.raises(InputError, match=r"a\.npy: 1 scores .* target 3, train unit 5"):
        read(tmp_path / "a.npy", given="target-train")
    with pytest.raises(InputError, match="target 5, train unit 3"):
        read(tmp_path / "a.npy", given="train-target")


# Orientation


def test_orientation_is_decided_by_sizes_or_asked_for(tmp_path):
    np.save(tmp_path / "a.npy", scores(0))
    np.save(tmp_path / "square.npy", scores(0, 9, 9))
    file, square = open_scores(tmp_path / "a.npy"), open_scores(tmp_path / "square.npy")
    assert decide_orientation(file, train=14, targets=9) == ("target-train", "by the sizes")
    assert decide_orientation(file, train=9, targets=14) == ("train-target", "by the sizes")
    assert decide_orientation(file, targets=9) == ("target-train", "by the sizes")
    assert decide_orientation(square, given="train-target", train=9, targets=9)[0] == "train-target"
    for one, sizes in ((file, {}), (square, {"train": 9, "targets": 9})):
        with pytest.raises(InputError, match="--orientation"):
            decide_orientation(one, **sizes)
    with pytest.raises(InputError, match="must be target-train"):
        decide_orientation(file, given="train-target", train=14, targets=9)
    with pytest.raises(InputError, match=r"do not fit 8 targets, 14 train units"):
        decide_orientation(file, train=14, targets=8)


def test_a_bias_says_which_dim_is_the_targets(tmp_path):
    np.savez(tmp_path / "a.npz", weight=scores(0), bias=np.zeros(TARGET))
    assert decide_orientation(open_scores(tmp_path / "a.npz"))[0] == "target-train"
    with pytest.raises(InputError, match="9 biases"):
        decide_orientation(open_scores(tmp_path / "a.npz"), targets=14)


# Units


@pytest.fixture
def runs(tmp_path):
    """A folder of the incumbent's runs, and the raw weights behind them."""
    draw = np.random.default_rng(0)
    raw = scores(5) * (draw.random((TARGET, TRAIN)) < 0.5)
    masks = draw.random((400, TRAIN)) < 0.5
    masks[300:] = False
    margins = masks @ raw.T + 1 + draw.normal(size=(400, TARGET)) * 0.3
    for name, values in (
        ("masks", masks),
        ("margins", margins.astype(np.float16)),
        ("_completed", np.arange(400) < 300),
    ):
        np.save(tmp_path / f"{name}.npy", values)
    return tmp_path, raw, masks[:300]


def test_units_are_measured_from_runs(runs):
    folder, raw, masks = runs
    deviation, mean = masks.std(axis=0), masks.mean(axis=0)
    bias = 1 + raw @ mean
    np.savez(folder / "raw.npz", weight=raw, bias=np.ones(TARGET))
    np.savez(folder / "std.npz", weight=raw * deviation, bias=bias)
    for name, said in (
        ("raw", "raw mask units (measured"),
        ("std", "converted to raw from standardised"),
    ):
        found = read(folder / f"{name}.npz", units=Units(runs=folder))
        assert np.allclose(found.weight, raw, atol=1e-6)
        assert np.allclose(found.bias, 1, atol=1e-5)
        assert found.attrs["units"].startswith(said)
        assert "of 300 runs have slope" in found.attrs["units"]


@pytest.mark.parametrize("factor", [0.3, -1, 5])
def test_runs_of_other_scores_decide_nothing(runs, factor):
    folder, raw, _ = runs
    np.save(folder / "a.npy", raw / np.float32(factor))
    with pytest.raises(InputError, match="neither that of raw"):
        read(folder / "a.npy", given="target-train", units=Units(runs=folder))


def test_runs_that_do_not_fit(runs):
    folder, raw, _ = runs
    np.save(folder / "a.npy", raw[:, :-1])
    with pytest.raises(InputError, match="do not fit scores of 9 targets and 13"):
        read(folder / "a.npy", given="target-train", units=Units(runs=folder))
    np.save(folder / "a.npy", raw)
    np.save(folder / "_completed.npy", np.arange(400) < 5)
    with pytest.raises(InputError, match="5 finished runs"):
        read(folder / "a.npy", given="target-train", units=Units(runs=folder))
    np.save(folder / "masks.npy", np.full((400, TRAIN), 0.5))
    np.save(folder / "_completed.npy", np.ones(400, bool))
    with pytest.raises(InputError, match="other than 0 and 1"):
        read(folder / "a.npy", given="target-train", units=Units(runs=folder))
    (folder / "margins.npy").unlink()
    with pytest.raises(InputError, match=r"margins\.npy: no such file"):
        read(folder / "a.npy", given="target-train", units=Units(runs=folder))


def test_units_given(tmp_path):
    np.save(tmp_path / "a.npy", scores(0))
    found = read(
        tmp_path / "a.npy", given="target-train", units=Units("standardised", 0.2, given=True)
    )
    assert np.allclose(found.weight, scores(0) / 0.4)
    assert "as given" in found.attrs["units"]
    found = read(tmp_path / "a.npy", given="target-train", units=Units("raw", given=True))
    assert np.array_equal(found.weight, scores(0))
    with pytest.raises(InputError, match=r"alpha 1\.5"):
        read(tmp_path / "a.npy", given="target-train", units=Units("standardised", 1.5))


# Mathematics


def reference(a, b, components):
    """The paper's steps 1 to 3, written down once more in plain NumPy."""
    kept = (a != 0).any(axis=1) & (b != 0).any(axis=1)
    a, b = (w[kept].astype(np.float64) for w in (a, b))
    a /= np.linalg.norm(a, axis=1)[:, None]
    b /= np.linalg.norm(b, axis=1)[:, None]
    rest = a - np.einsum("ij,ij->i", a, b)[:, None] * b
    _, singular, right = np.linalg.svd(rest - rest.mean(axis=0), full_matrices=False)
    along = rest @ right[:components].T
    furthest = along[np.abs(along).argmax(axis=0), np.arange(components)]
    sign = np.sign(furthest)
    return (
        kept,
        right[:components] * sign[:, None],
        along * sign,
        singular[:components] ** 2 / (singular**2).sum(),
        a,
        b,
    )


def test_comparison_is_the_papers(folder):
    a, b = scores(0, 60, 40), scores(1, 60, 40)
    a[7] = 0
    b[[7, 11]] = 0
    np.save("a.npy", a)
    np.save("b.npy", b.T)
    found = compare_scores(
        "a.npy", "b.npy", orientation=("target-train", "train-target"), components=4, top=5
    )
    for row, (own, other) in enumerate(((a, b), (b, a))):
        kept, directions, along, share, unit, unit_other = reference(own, other, 4)
        assert np.array_equal(found.included.values, kept)
        assert np.allclose(found.direction.values[row], directions, atol=1e-5)
        assert np.allclose(found.projection.values[row][:, kept], along.T, atol=1e-5)
        assert np.isnan(found.projection.values[row][:, ~kept]).all()
        assert np.allclose(found.residual_variance.values[row], share)
        explained = [((rows @ directions.T) ** 2).mean(axis=0) for rows in (unit, unit_other)]
        assert np.allclose(found.explained_variance.values[row][:, [row, 1 - row]].T, explained)
        assert np.allclose(found.delta.values[row], explained[0] - explained[1])
        ranked = np.flatnonzero(kept)[np.argsort(-along[:, 0])][:5]
        assert np.array_equal(found.subpopulation.values[row, 0, 0], ranked)
    assert found.attrs["sources"][0]["zero_rows"] == 1
    assert found.attrs["sources"][1]["zero_rows"] == 2
    for absent in ("difference", "q", "similarity", "group"):
        assert absent not in found


def test_a_uniform_factor_does_not_matter(tmp_path):
    data = []
    for factor in (1, 8):
        np.save(tmp_path / "a.npy", scores(0) * np.float32(factor))
        np.save(tmp_path / "b.npy", scores(1))
        a, b = (read(tmp_path / name, given="target-train") for name in ("a.npy", "b.npy"))
        data.append(modeldiff(a, b, names=("a", "b")))
    for name in ("direction", "cosine", "delta", "subpopulation"):
        assert np.allclose(data[0][name], data[1][name], atol=1e-6)


def test_a_planted_difference_is_found_first(tmp_path):
    """1,000 train units, 800 targets, a sparse shared part, and one direction that A alone has."""
    draw = np.random.default_rng(0)
    shared = draw.normal(size=(800, 1000)) * (draw.random((800, 1000)) < 0.03)
    planted = np.zeros(1000)
    planted[draw.choice(1000, 40, replace=False)] = 1 / np.sqrt(40)
    who = np.zeros(800, bool)
    who[draw.choice(800, 60, replace=False)] = True
    noise = [draw.normal(size=shared.shape) * 0.05 for _ in range(2)]
    a = shared + noise[0] + 3 * who[:, None] * planted
    np.savez(tmp_path / "a.npz", weight=a.astype(np.float32))
    np.save(tmp_path / "b.npy", (shared + noise[1]).T.astype(np.float32))
    found = compare_scores(
        tmp_path / "a.npz",
        tmp_path / "b.npy",
        orientation=("target-train", None),
        out=tmp_path / "out",
    )
    assert found.direction.values[0, 0] @ planted > 0.98
    assert who[found.subpopulation.values[0, 0, 0]].all()
    assert set(found.heaviest.values[0, 0, :40]) == set(np.flatnonzero(planted))
    assert (
        found.delta.values[0, 0]
        == found.delta.values[0].max()
        > 10 * np.abs(found.delta.values[0, 1:]).max()
    )
    page = (tmp_path / "out" / "report.html").read_text()
    assert "direction A1 explains" in page
    assert page.count("variance explained under a (%)</text>") == 1
    first = page_json(page)["directions"][0]
    assert set(first["ends"][0]["members"]) == set(found.subpopulation.values[0, 0, 0].tolist())
    assert first["explained"][0] > 10 * first["explained"][1]


# The result and its page


def test_result_with_everything_known(folder):
    found = compare_scores("a.npy", "b.npy", "e.npz", components=2, top=3)
    place = Path(found.attrs["path"])
    assert place.name.startswith("a-against-b-")
    assert sorted(path.name for path in place.iterdir()) == [
        "comparison.json",
        "comparison.zarr",
        "report.html",
        "report.json",
        "report.zarr.zip",
    ]
    document = load_document("score_comparison", (place / "comparison.json").read_bytes(), "x")
    assert document["sources"][1]["orientation"] == "train-target, by the sizes"
    assert document["examples"]["source"] == "e.npz"
    kept = xr.open_zarr(place / "comparison.zarr")
    assert np.array_equal(kept.direction, found.direction)
    page = (place / "report.html").read_text()
    text, data = page_text(page), page_json(page)
    for said in ("without the runs", "not known without runs"):
        assert said in text
    for absent in ("beyond chance", "None", "LDS </dt>", "nan "):
        assert absent not in text
    assert data["classes"][0] == "class0"
    assert all(
        url.startswith("data:image/webp;base64,") for url in data["sheets"]["target"]["urls"]
    )
    assert data["directions"][0]["ends"][0]["random"]
    # The strongest train unit of a target is the largest of its row.
    unit, weight = data["influences"]["rows"][0][4][:2]
    row = np.load("a.npy")[4]
    assert weight == pytest.approx(row.max(), rel=1e-4)
    assert data["train"]["ids"][unit] == str(found["train"].values[row.argmax()])
    beside = json.loads((place / "report.json").read_text())
    assert beside["directions"] == data["directions"]
    again = xr.open_zarr(zarr.storage.ZipStore(place / "report.zarr.zip", mode="r"))
    assert np.array_equal(again["direction"], found["direction"])
    assert again["influential"].values[0, 4, 0] == row.argmax()
    assert str(folder) not in page + (place / "comparison.json").read_text()


def test_result_with_positions_only(folder):
    found = compare_scores("a.npy", "b.npy", orientation=("target-train", None), top=3)
    assert found.attrs["sources"][1]["orientation"] == "train-target, by the sizes"
    assert "target_label" not in found.coords
    assert found["train"].values.tolist() == list(range(TRAIN))
    page = Path(found.attrs["report"]).read_text()
    text, data = page_text(page), page_json(page)
    assert "positions only" in text
    for absent in ("class", "nan "):
        assert absent not in text
    assert (data["target"]["labels"], data["sheets"], data["classes"]) == (None, {}, [])


def test_examples_from_a_study(folder):
    study = dmstore.create_study("s.dm", "e.npz", seed=1)
    found = compare_scores("a.npy", "b.npy", "s.dm", top=3)
    same = compare_scores("a.npy", "b.npy", "e.npz", top=3)
    assert np.array_equal(found.contrast, same.contrast)
    assert read_labels("s.dm").about["study"] == study.uuid
    assert "data:image" in Path(found.attrs["report"]).read_text()
    with pytest.raises(StudyNotFoundError):
        compare_scores("a.npy", "b.npy", folder)


def test_class_names_are_escaped(folder):
    made = {**examples(train=TRAIN, target=TARGET), "class_name": np.array(["<script>", "b", "c"])}
    np.savez("e.npz", **made)
    np.save("<b>.npy", scores(0))
    page = Path(compare_scores("<b>.npy", "b.npy", "e.npz").attrs["report"]).read_text()
    assert page.count("<script>") == 1
    assert "<b>.npy" not in page
    assert page_json(page)["classes"][0] == "<script>"


def test_repeating_is_safe_and_other_directories_are_left_alone(folder):
    found = compare_scores("a.npy", "b.npy", "e.npz", out="out")
    before = {p: p.stat().st_mtime_ns for p in Path("out").rglob("*") if p.is_file()}
    again = compare_scores("a.npy", "b.npy", "e.npz", out="out")
    assert found.drop_attrs().identical(again.drop_attrs())
    assert {p: p.stat().st_mtime_ns for p in Path("out").rglob("*") if p.is_file()} == before
    with pytest.raises(ExistsError, match="--out"):
        compare_scores("a.npy", "b.npy", "e.npz", out="out", components=3)
    Path("mine").mkdir()
    Path("mine/thesis.txt").write_text("x")
    for other in ("mine", "mine/thesis.txt"):
        with pytest.raises(ExistsError, match="something else"):
            compare_scores("a.npy", "b.npy", "e.npz", out=other)
    assert Path("mine/thesis.txt").read_text() == "x"
    Path("empty").mkdir()
    compare_scores("a.npy", "b.npy", "e.npz", out="empty")
    Path("out/report.html").unlink()
    compare_scores("a.npy", "b.npy", "e.npz", out="out")
    assert Path("out/report.html").is_file()
    shutil.rmtree("out/comparison.zarr/direction")
    with pytest.raises(CorruptionError, match=r"direction|gone"):
        compare_scores("a.npy", "b.npy", "e.npz", out="out")
    assert not list(folder.glob(".*.part"))


def test_a_failure_half_way_leaves_nothing(folder, monkeypatch):
    from dmstore.analysis.pages import score_comparison as module

    monkeypatch.setattr(module, "render", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        compare_scores("a.npy", "b.npy", "e.npz", out="out")
    assert sorted(p.name for p in folder.iterdir()) == ["a.npy", "b.npy", "e.npz"]


def test_someone_faster_with_the_same_comparison(folder, monkeypatch):
    from dmstore.analysis.pages import score_comparison as module

    whole = module.render
    monkeypatch.setattr(module, "_is_there", lambda *_: False)

    def first(*arguments):
        monkeypatch.undo()
        monkeypatch.chdir(folder)
        monkeypatch.setattr("dmstore.analysis.pages.page.inline", lambda _: ("<svg></svg>", ""))
        compare_scores("a.npy", "b.npy", "e.npz", out="out")
        return whole(*arguments)

    monkeypatch.setattr(module, "render", first)
    found = compare_scores("a.npy", "b.npy", "e.npz", out="out")
    assert np.isfinite(found.cosine).all()
    assert not list(folder.glob(".*.part"))


def test_someone_faster_with_something_else(folder, monkeypatch):
    from dmstore.analysis.pages import score_comparison as module

    def first(*arguments):
        Path("out").mkdir()
        Path("out/mine.txt").write_text("x")
        return whole(*arguments)

    whole = module.render
    monkeypatch.setattr(module, "render", first)
    with pytest.raises(ExistsError, match="something else"):
        compare_scores("a.npy", "b.npy", "e.npz", out="out")
    assert [p.name for p in Path("out").iterdir()] == ["mine.txt"]
    assert not list(folder.glob(".*.part"))


def test_a_place_that_cannot_be_written(folder):
    with pytest.raises(StorageError, match="a part of the path is a file"):
        compare_scores("a.npy", "b.npy", "e.npz", out="a.npy/out")


def test_names(folder):
    Path("x").mkdir()
    Path("y").mkdir()
    np.save("x/s.npy", scores(0))
    np.save("y/s.npy", scores(1))
    found = compare_scores("x/s.npy", "y/s.npy", "e.npz")
    assert found.algorithm.values.tolist() == ["x-s", "y-s"]
    for name, seed in (("one", 0), ("two", 1)):
        tensors(Path(name, "scores_s/pairwise_scores.safetensors"), all_modules=scores(seed))
    found = compare_scores("one", "two", "e.npz")
    assert found.algorithm.values.tolist() == ["one", "two"]
    inside = "scores_s/pairwise_scores.safetensors"
    found = compare_scores(f"one/{inside}", f"two/{inside}", "e.npz")
    assert found.algorithm.values.tolist() == ["one-pairwise_scores", "two-pairwise_scores"]
    found = compare_scores("a.npy", "b.npy", "e.npz", names=("small lr", None))
    assert found.algorithm.values.tolist() == ["small lr", "b"]
    for name, said in (("", "printable"), ("x" * 41, "printable"), ("b", "different --name")):
        with pytest.raises(InputError, match=said):
            compare_scores("a.npy", "b.npy", "e.npz", names=(name, None))


def test_files_that_cannot_be_compared(folder):
    shutil.copy("a.npy", "c.npy")
    with pytest.raises(InputError, match="the same scores"):
        compare_scores("a.npy", "c.npy", "e.npz")
    np.save("c.npy", scores(0, TARGET + 1))
    with pytest.raises(
        InputError, match=r"c\.npy: scores of shape \(10, 14\) do not fit 9 targets"
    ):
        compare_scores("a.npy", "c.npy", "e.npz")
    with pytest.raises(InputError, match="do not fit 14 targets, 9 train"):
        compare_scores("a.npy", "c.npy", orientation=("train-target", None))
    np.save("c.npy", np.zeros((TARGET, TRAIN)))
    with pytest.raises(InputError, match="non-zero"):
        compare_scores("a.npy", "c.npy", "e.npz")
    for options, said in (
        ({"units": ("raw", None), "runs": (".", None)}, "leave one out"),
        ({"alpha": (0.5, None)}, "standardised weights alone"),
        ({"components": 0}, "1 or more"),
    ):
        with pytest.raises(InputError, match=said):
            compare_scores("a.npy", "b.npy", "e.npz", **options)
    assert sorted(p.name for p in folder.iterdir()) == ["a.npy", "b.npy", "c.npy", "e.npz"]


# Where they stay in their file


@pytest.mark.parametrize("bfloat16", [False, True])
@pytest.mark.parametrize("dtype", ["f2", "<f4", ">f4", "f8", "i2"])
@pytest.mark.parametrize("given", ["target-train", "train-target"])
def test_lazy_scores_are_the_same(tmp_path, monkeypatch, given, dtype, bfloat16):
    monkeypatch.setattr("dmstore.readers.score_rows._BLOCK_BYTES", 200)
    monkeypatch.setattr("dmstore.readers.files._MAPPED", 64)
    values = (scores(0) * 100).astype(dtype)
    values[3] = 0
    if bfloat16:
        torch = pytest.importorskip("torch")
        turned = torch.tensor(values.astype("f4")).to(torch.bfloat16).t()
        paths = [tmp_path / "a.pt", tmp_path / "turned.pt"]
        torch.save({"other": torch.ones(3), "weight": turned.t().contiguous()}, paths[0])
        torch.save({"weight": turned.t()}, paths[1])
    else:
        paths = [tmp_path / "c.npy", tmp_path / "f.npy"]
        np.save(paths[0], values)
        np.save(paths[1], np.asfortranarray(values))
    for path in paths:
        file = open_scores(path)
        assert file.placed is not None
        for units in (Units(), Units("standardised", given=True)):
            whole, lazy = (
                labelled(file, orientation=(given, ""), units=units, lazy=one)
                for one in (False, True)
            )
            assert lazy["weight"].chunks[0][0] < lazy.sizes["target"]
            assert lazy["weight"].dtype == whole["weight"].dtype
            xr.testing.assert_identical(lazy.compute(), whole)


def test_lazy_datamodels_have_their_bias_and_units():
    for name in ("datamodels.pt", "trak"):
        file = open_scores(SCORES / name)
        units = Units("standardised" if file.is_standardised_by_default else None)
        whole, lazy = (
            labelled(file, orientation=("train-target", ""), units=units, lazy=one)
            for one in (False, True)
        )
        assert lazy["weight"].chunks
        xr.testing.assert_identical(lazy.compute(), whole)


def test_damage_in_a_pt_is_seen_before_it_is_read_by_rows(tmp_path):
    raw = bytearray((SCORES / "datamodels.pt").read_bytes())
    weight = TorchFile(SCORES / "datamodels.pt").load("weight").tobytes()
    raw[raw.index(weight) + 5] ^= 1
    (tmp_path / "x.pt").write_bytes(raw)
    with pytest.raises(InputError, match="damaged"):
        open_scores(tmp_path / "x.pt").placed  # noqa: B018 - a property that reads


def test_some_targets_and_memory(folder):
    label = read_labels("e.npz").targets["label"].values
    found = compare_scores("a.npy", "b.npy", "e.npz", where=[f"label={label[0]}"])
    assert found.attrs["targets"] == (label == label[0]).sum() == found["included"].values.sum()
    assert found.attrs["where"] == f"label={label[0]}"
    ids = read_labels("e.npz").targets["target"].values
    Path("ids.txt").write_text("\n".join(map(str, ids[[1, 4, 8]])))
    found = compare_scores("a.npy", "b.npy", "e.npz", where=["ids.txt"])
    assert np.flatnonzero(found["included"]).tolist() == [1, 4, 8]
    with pytest.raises(InputError, match=r"needs 0.45 GB, and may take 0.02 GB"):
        compare_scores("a.npy", "b.npy", "e.npz", memory="20MB")
    np.savez_compressed("a.npz", weight=scores(3))
    with pytest.raises(InputError, match=r"a.npz: a .npz matrix is read whole, which needs"):
        compare_scores("a.npz", "b.npy", "e.npz", memory=800)
    assert not [p for p in folder.iterdir() if p.is_dir() and "against" in p.name][2:]


# The command


def test_command(folder):
    out, err = run("compare", "a.npy", "b.npy", "--examples", "e.npz", "--top", 3)
    assert err == ""
    assert (
        "a: a.npy, a .npy matrix; 9 targets, 14 train units (target-train, by the sizes); units: not stated"
        in out
    )
    assert (
        "from scores alone: without the runs behind them nothing says how much of this is noise"
        in out
    )
    assert "chance alone" not in out
    assert Path(out.splitlines()[-1]).is_file()
    found = run_json("compare", "a.npy", "b.npy", "--examples", "e.npz", "--top", 3)
    assert found["report"] == out.splitlines()[-1]
    assert (found["measured"], found["differs"], found["similarity"]) == (False, False, None)
    assert found["directions"] == []
    assert found["sources"][0]["file"] == "a.npy"


def test_command_with_one_value_for_both_files_or_one_each(folder):
    np.save("b.npy", scores(1))
    found = run_json(
        "compare", "a.npy", "b.npy", "--orientation", "target-train", "--name", "X", "Y"
    )
    assert found["algorithms"] == ["X", "Y"]
    np.save("b.npy", scores(1).T)
    options = ("--orientation", "target-train", "--orientation", "train-target")
    found = run_json(
        "compare",
        "a.npy",
        "b.npy",
        *options,
        "--units",
        "standardised",
        "--alpha",
        0.2,
        "--alpha",
        0.5,
    )
    assert ["alpha 0.2" in s["units"] for s in found["sources"]] == [True, False]
    assert "alpha 0.5" in found["sources"][1]["units"]
    _, err = run("compare", "a.npy", "b.npy", *options, "--orientation", "target-train", code=2)
    assert "3 times" in err


def test_command_says_which_form_it_wants(folder):
    dmstore.create_study("there.dm", examples(train=TRAIN, target=TARGET))
    _, err = run("compare", "there.dm", "x", code=2)
    assert "there.dm is a study; give two of its algorithms" in err
    for arguments, said in (
        (["compare", "s.dm", "x"], "neither 's.dm' nor 'x' is a file of scores"),
        (["compare", "a.npy"], "1 arguments"),
        (["compare"], "0 arguments"),
        (["compare", "s.dm", "x", "y", "--examples", "e.npz"], "--examples is for two files"),
    ):
        _, err = run(*arguments, code=2)
        assert said in err
        assert "STUDY A B [C…] | A.pt B.npy" in err
    found = run_json("compare", "a.npy", "c.npy", "--examples", "e.npz", code=1)
    assert found["error"] == {"kind": "input", "message": "c.npy: no such file"}
    out, _ = run("compare", "--help")
    assert "dmstore compare A.pt B.npy --examples digits.npz" in out
    assert is_scores("x.PT")
    assert is_scores(SCORES / "trak")
    assert not is_scores(folder)


def test_the_same_examples_in_another_archive_are_the_same(folder):
    found = compare_scores("a.npy", "b.npy", "e.npz")
    np.savez_compressed("e.npz", **examples(train=TRAIN, target=TARGET))
    assert compare_scores("a.npy", "b.npy", "e.npz").attrs["path"] == found.attrs["path"]
    np.savez("e.npz", **{**examples(train=TRAIN, target=TARGET), "train_weight": np.ones(TRAIN)})
    assert compare_scores("a.npy", "b.npy", "e.npz").attrs["path"] != found.attrs["path"]


def test_the_example_of_the_guide(tmp_path):
    """The block runs as it stands, and its output is what stands under it."""
    text = (ROOT / "docs" / "guides" / "compare-scores.md").read_text()
    script, said = re.findall(r"^```(?:bash|text)\n(.*?)^```$", text, re.M | re.S)
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    for line in said.splitlines():
        assert re.sub("-…/", "-", line).split("report.html")[0] in done.stdout
    (place,) = tmp_path.glob("whole-against-cornerless-*")
    top = xr.open_zarr(place / "comparison.zarr").subpopulation.values[0, 0, 0]
    assert np.load(tmp_path / "digits.npz")["target_marked"][top].all()


def compared(tmp_path, a, b, *arguments):
    np.save(tmp_path / "a.npy", a)
    np.save(tmp_path / "b.npy", b)
    out = tmp_path / "out"
    printed, _ = run(
        *("compare", tmp_path / "a.npy", tmp_path / "b.npy", "--out", out, "-Q"),
        *("--orientation", "target-train", *arguments),
    )
    return printed, (out / "report.html").read_text()


ALIKE = {
    "same": (lambda a: 2 * a, "a and b are the same up to rounding"),
    "float16": (lambda a: a.astype("f2"), "a and b are the same up to rounding"),
    "negative": (lambda a: -a, "b is the negative of a, up to rounding"),
    "nearly negative": (lambda a: 0.2 * np.roll(a, 1) - a, "b looks like the negative of a"),
}


@pytest.mark.parametrize("case", ALIKE)
def test_algorithms_that_are_the_same_or_opposite_are_told(tmp_path, case):
    make, words = ALIKE[case]
    a = np.random.default_rng(0).normal(size=(TARGET, TRAIN)).astype("f4")
    printed, page = compared(tmp_path, a, make(a))
    assert words in printed
    assert f'class="headline">{words}' in page
    differ = case == "nearly negative"
    assert ("(0 of 9; the others are rounding alone)" in printed) != differ
    assert bool(page_json(page)["directions"]) == differ


def test_square_scores_with_rows_for_columns_are_told(tmp_path):
    a = np.random.default_rng(0).normal(size=(TARGET, TARGET))
    printed, page = compared(tmp_path, a, a.T)
    for said in (printed, page_text(page)):
        assert "b looks like a with targets and train units exchanged" in said
    (tmp_path / "other").mkdir()
    printed, _ = compared(tmp_path / "other", a, np.roll(a, 1), "--threads", "1")
    assert "exchanged" not in printed


def test_a_large_subpopulation_makes_no_large_page(tmp_path):
    draw = np.random.default_rng(0)
    a, b = draw.normal(size=(2, 300, 8))
    _, page = compared(tmp_path, a, b, "--top", "200", "--components", "2")
    data = page_json(page)
    assert data["directions"][0]["ends"][0]["of"] == 200
    assert max(len(end["members"]) for one in data["directions"] for end in one["ends"]) == 64


def test_examples_with_ids_alone(tmp_path):
    a, b = np.random.default_rng(0).normal(size=(2, TARGET, TRAIN))
    np.savez(
        tmp_path / "ids.npz",
        train_id=[f"u{i}" for i in range(TRAIN)],
        target_id=[f"t{i}" for i in range(TARGET)],
    )
    _, page = compared(tmp_path, a, b, "--examples", tmp_path / "ids.npz")
    data = page_json(page)
    assert data["target"]["ids"] == [f"t{i}" for i in range(TARGET)]
    assert set(data["train"]["ids"]) <= {f"u{i}" for i in range(TRAIN)}
