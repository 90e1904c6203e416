"""Exports: what is written is what is stored, bit by bit, and is there whole or not at all."""

import hashlib
import io
import json
import pickle
import pickletools
import struct
import zipfile

import crash
import numpy as np
import pytest
from commands import run, run_json
from helpers import examples, fill, make_rows

import dmstore
from dmstore.errors import ExistsError, IncompleteError, InputError, StorageError
from dmstore.exporters import torchfile
from dmstore.exporters.export import export
from dmstore.exporters.stream import whole
from dmstore.intake.ingest import take_in as ingest
from dmstore.readers.scores import labelled, open_scores
from dmstore.readers.units import Units
from dmstore.storage.acts.compact import compact
from dmstore.storage.table.rows import Rows

RUNS = 160


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A study with a base, a tail, conflicting columns, a tag and a fit."""
    path = tmp_path_factory.mktemp("export") / "s.dm"
    study = dmstore.create_study(path, examples(), seed=3)
    algorithm = study.add_algorithm("alpha", runs=300, outputs=["margin:float16", "prediction"])
    fill(algorithm, np.arange(20, RUNS))
    run("fit", path, "alpha", "-Q", "--lams", 5)
    run("tag", path, "alpha", "first")
    rows = make_rows(algorithm, range(20))
    more = {
        **rows.columns,
        "masks": np.arange(20),
        "note": np.array([f"ü{i}" * (i % 3) for i in range(20)], dtype=object),
    }
    algorithm.table.append(Rows(rows.run, rows.arrays, more))
    return study


def stored(study, names, rows=slice(None)):
    found = study.algorithm("alpha").table.view().read(names)
    return {name: values[rows] for name, values in found.items()}


def same(found, expected):
    expected = np.asarray(expected)
    if expected.dtype == object:
        assert found.tolist() == expected.tolist()
        return
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    assert found.tobytes() == expected.tobytes()


def load(folder):
    return {path.stem: np.load(path, allow_pickle=False) for path in folder.glob("*.npy")}


def test_npy_is_the_incumbents_layout(made, tmp_path):
    said = run_json("export", made.path, "alpha", "--to", "npy", tmp_path / "out", "-Q")
    found = load(tmp_path / "out")
    names = ("run", "seed", "time", "host", "accuracy", "note", "prediction")
    expected = stored(made, ["mask", "margin", "masks", *names])
    same(found["masks"], expected["mask"])
    same(found["margins"], expected["margin"])
    same(found["masks_"], expected["masks"])
    for name in names:
        same(found[name], expected[name])
    assert found["margins"].dtype == np.float16
    assert found["_completed"].all()
    assert found["_completed"].shape == (RUNS,)
    spec = json.loads((tmp_path / "out/spec.json").read_text())
    assert spec["num_models"] == RUNS
    assert spec["schema"]["masks"] == {"shape": [37], "dtype": "bool_"}
    assert spec["schema"]["margins"] == {"shape": [23], "dtype": "float16"}
    assert set(spec["schema"]) == set(found) - {"_completed"}
    for name, entry in spec["schema"].items():
        assert found[name].shape == (RUNS, *entry["shape"])
        assert np.issubdtype(found[name].dtype, getattr(np, entry["dtype"]))
    about = json.loads((tmp_path / "out/dmstore.json").read_text())
    content_id = made.algorithm("alpha").table.view().content_id()
    assert about["content_id"] == said["content_id"] == content_id
    assert (said["rows"], said["to"]) == (RUNS, "npy")
    assert sorted(said["files"]) == sorted(str(p) for p in (tmp_path / "out").iterdir())
    assert said["bytes"] == sum(p.stat().st_size for p in (tmp_path / "out").iterdir())


def test_npy_goes_back_in_as_the_same_rows(made, tmp_path):
    run("export", made.path, "alpha", "--to", "npy", tmp_path / "out", "-Q")
    found = load(tmp_path / "out")
    worker = {"mask": found.pop("masks"), "margin": found.pop("margins"), **found}
    worker.pop("_completed")
    np.savez(tmp_path / "w.npz", **worker)
    result = ingest(made.algorithm("alpha"), [tmp_path / "w.npz"])
    assert (result.new, result.present) == (0, RUNS)
    other = made.add_algorithm("copy", runs=300, outputs=["margin:float16", "prediction"])
    assert ingest(other, [tmp_path / "w.npz"]).new == RUNS
    view, old = other.table.view(), made.algorithm("alpha").table.view()
    assert view.content_id() == old.content_id()
    names = ["run", "mask_id", "repeat", "seed", "time", "host", "note", "accuracy"]
    again = view.read(names)
    for name, values in old.read(names).items():
        same(again[name], values)


def test_npy_is_a_source_with_its_texts(made, tmp_path):
    folder = tmp_path / "out"
    run("export", made.path, "alpha", "--to", "npy", folder, "-Q")
    other = made.add_algorithm(
        "npy", sampling="foreign", alpha=None, outputs=["margin:float16", "prediction"]
    )
    result = ingest(other, [folder])
    assert (result.new, result.errors) == (RUNS, [])
    again, old = (made.algorithm(name).table.view() for name in ("npy", "alpha"))
    for name in ("mask", "margin", "note", "accuracy"):
        same(again.read([name])[name], old.read([name])[name])
    np.save(folder / "note.npy", np.full((RUNS, 2), "x"))
    refused = ingest(other, [folder])
    assert "or text with one value per model" in refused.errors[0]


def test_snapshot_output_and_blocks(made, tmp_path, monkeypatch):
    from dmstore.exporters import source

    monkeypatch.setattr(source, "BLOCK", 7)
    options = ["--snapshot", "first", "--output", "prediction", "-Q"]
    said = run_json("export", made.path, "alpha", "--to", "npy", tmp_path / "out", *options)
    found = load(tmp_path / "out")
    assert said["rows"] == RUNS - 20
    assert "margins" not in found
    assert "note" not in found
    expected = stored(made, ["mask", "prediction", "run"], slice(0, RUNS - 20))
    same(found["masks"], expected["mask"])
    same(found["prediction"], expected["prediction"])
    assert found["run"].min() == 20
    (tag,) = run_json("status", made.path)["algorithms"]["alpha"]["tags"]
    assert tag == "first"


@pytest.mark.parametrize("split", [None, "train", "holdout", "all"])
def test_truth(made, tmp_path, split):
    algorithm = made.algorithm("alpha")
    options = ["--split", split] if split else []
    said = run_json("export", made.path, "alpha", "--to", "truth", tmp_path / "t", *options, "-Q")
    found = load(tmp_path / "t")
    expected = stored(made, ["mask", "margin", "run", "mask_id"])
    kind = algorithm.split(expected["mask_id"])
    rows = np.ones(RUNS, bool) if split == "all" else kind == (split or "eval")
    assert 0 < rows.sum() == said["rows"]
    same(found["mask"], expected["mask"][rows])
    same(found["val_margins"], expected["margin"][rows])
    same(found["run"], expected["run"][rows])
    about = json.loads((tmp_path / "t/dmstore.json").read_text())
    assert about["output"] == "margin"
    assert "largest other logit" in about["outputs"]["margin"]["function"]


def test_safetensors(made, tmp_path):
    path = tmp_path / "a.safetensors"
    said = run_json("export", made.path, "alpha", "--to", "safetensors", path, "-Q")
    assert said["files"] == [str(path)]
    raw = path.read_bytes()
    length = struct.unpack("<Q", raw[:8])[0]
    header = json.loads(raw[8 : 8 + length])
    metadata = header.pop("__metadata__")
    content = raw[8 + length :]
    dtypes = {"BOOL": "?", "F16": "<f2", "F32": "<f4", "F64": "<f8"}
    dtypes |= {"I16": "<i2", "I64": "<i8", "U64": "<u8"}
    found = {}
    for name, entry in header.items():
        low, high = entry["data_offsets"]
        dtype = np.dtype(dtypes[entry["dtype"]])
        assert low % dtype.itemsize == 0
        found[name] = np.frombuffer(content[low:high], dtype).reshape(entry["shape"])
    ends = sorted(tuple(entry["data_offsets"]) for entry in header.values())
    assert [0, *(b for _, b in ends)] == [*(a for a, _ in ends), len(content)]
    names = ["mask", "margin", "prediction", "run", "seed", "time", "accuracy", "masks"]
    for name, values in stored(made, names).items():
        same(found.pop(name), values)
    texts = json.loads(metadata["texts"])
    for name, values in stored(made, ["host", "note"]).items():
        assert texts[name] == values.tolist()
    fit = made.datamodels("alpha")
    for name in ("weight", "bias", "lam"):
        same(found.pop(name), fit[name].values)
    assert found == {}
    assert json.loads(metadata["dims"])["weight"] == ["target", "train"]
    assert json.loads(metadata["fit"])["fit"] == fit.attrs["fit"]
    assert all(isinstance(value, str) for value in metadata.values())


def test_safetensors_by_its_own_package(made, tmp_path):
    safetensors = pytest.importorskip("safetensors.numpy")
    run("export", made.path, "alpha", "--to", "safetensors", tmp_path / "a.safetensors", "-Q")
    found = safetensors.load_file(tmp_path / "a.safetensors")
    for name, values in stored(made, ["mask", "margin", "seed", "accuracy"]).items():
        same(found[name], values)
    same(found["weight"], made.datamodels("alpha").weight.values)


def test_safetensors_without_a_fit(tmp_path):
    study = dmstore.create_study(tmp_path / "s.dm", examples())
    fill(study.add_algorithm("alpha", runs=5), range(5))
    run("export", study.path, "alpha", "--to", "safetensors", tmp_path / "a", "-Q")
    with (tmp_path / "a").open("rb") as file:
        header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
    assert "weight" not in header
    assert header["mask"]["shape"] == [5, 37]
    run("export", study.path, "alpha", "--to", "safetensors", tmp_path / "b", "--fit", "x", code=1)


class TensorFile:
    """A reader of torch's files that allows nothing but tensors in them."""

    def __init__(self, path):
        self.archive = zipfile.ZipFile(path)
        self.raw = path.read_bytes()

    def read(self, name):
        return self.archive.read(f"datamodels/{name}")

    def load(self):
        outer = self

        class Restricted(pickle.Unpickler):
            def find_class(self, module, name):
                return {
                    "torch._utils._rebuild_tensor_v2": outer.tensor,
                    "torch.FloatStorage": "<f4",
                    "torch.DoubleStorage": "<f8",
                    "collections.OrderedDict": dict,
                }[f"{module}.{name}"]

            def persistent_load(self, found):
                kind, dtype, key, device, count = found
                assert (kind, device) == ("storage", "cpu")
                values = np.frombuffer(outer.read(f"data/{key}"), dtype)
                assert len(values) == count
                return values

        return Restricted(io.BytesIO(self.read("data.pkl"))).load()

    @staticmethod
    def tensor(storage, offset, shape, stride, gradient, hooks):
        assert (offset, gradient, hooks) == (0, False, {})
        values = storage.reshape(shape)
        assert tuple(step // values.itemsize for step in values.strides) == stride
        return values


def test_datamodels_pt_without_torch(made, tmp_path):
    path = tmp_path / "datamodels.pt"
    said = run_json("export", made.path, "alpha", "--to", "datamodels.pt", path, "-Q")
    file = TensorFile(path)
    assert file.read("version") == b"3\n"
    assert file.read("byteorder") == b"little"
    assert file.archive.namelist()[0] == "datamodels/data.pkl"
    assert file.archive.testzip() is None
    for info in file.archive.infolist():
        assert info.compress_type == zipfile.ZIP_STORED
        if "/data/" in info.filename:
            lengths = struct.unpack("<HH", file.raw[info.header_offset + 26 :][:4])
            assert (info.header_offset + 30 + sum(lengths)) % 64 == 0
    opcodes = {code.name for code, _, _ in pickletools.genops(file.read("data.pkl"))}
    assert opcodes <= {
        *("PROTO", "EMPTY_DICT", "MARK", "BINUNICODE", "GLOBAL", "BININT", "LONG1", "TUPLE"),
        *("BINPERSID", "NEWFALSE", "EMPTY_TUPLE", "REDUCE", "SETITEMS", "STOP"),
    }
    found = file.load()
    fit = made.datamodels("alpha")
    same(found["weight"], np.ascontiguousarray(fit.weight.values.T))
    same(found["bias"], fit.bias.values)
    same(found["lam"], fit.lam.values)
    assert found["units"] == "raw"
    assert found["about"]["content_id"] == said["content_id"] == fit.attrs["content_id"]
    assert said["rows"] == RUNS - 20


@pytest.mark.parametrize("units", ["raw", "standardised"])
def test_datamodels_pt_by_torch(made, tmp_path, units):
    torch = pytest.importorskip("torch")
    path = tmp_path / "datamodels.pt"
    run("export", made.path, "alpha", "--to", "datamodels.pt", path, "--units", units, "-Q")
    for options in ({}, {"mmap": True}):
        found = torch.load(path, weights_only=True, **options)
        plain = TensorFile(path).load()
        for name, values in found.items():
            if isinstance(values, torch.Tensor):
                same(values.numpy(), plain[name])
            else:
                assert values == plain[name]
    assert found["weight"].shape == (37, 23)
    assert found["weight"].is_contiguous()
    buffer = io.BytesIO()
    torch.save({k: v for k, v in found.items() if k in ("weight", "bias", "lam")}, buffer)
    again = torch.load(io.BytesIO(buffer.getvalue()), weights_only=True)
    assert torch.equal(again["weight"], found["weight"])


def test_standardised_units_predict_the_same(made, tmp_path, monkeypatch):
    from dmstore.exporters import datamodels

    monkeypatch.setattr(datamodels, "_UNITS", 10)
    monkeypatch.setattr(datamodels, "_TARGETS", 9)
    for units in ("raw", "standardised"):
        export(made, "alpha", "datamodels.pt", tmp_path / units, units=units)
    raw, other = TensorFile(tmp_path / "raw").load(), TensorFile(tmp_path / "standardised").load()
    same(raw["weight"], np.ascontiguousarray(made.datamodels("alpha").weight.values.T))
    assert other["units"] == "standardised"
    algorithm = made.algorithm("alpha")
    found = stored(made, ["mask", "mask_id"], slice(0, RUNS - 20))
    fitted = algorithm.split(found["mask_id"]) != "eval"
    mask = found["mask"].astype(float)
    assert np.allclose(other["mask_mean"], mask[fitted].mean(axis=0), atol=1e-14)
    assert np.allclose(other["mask_std"], mask[fitted].std(axis=0), atol=1e-14)
    scaled = (mask - other["mask_mean"]) / other["mask_std"]
    assert np.abs(raw["weight"]).max() > 0.01
    assert np.allclose(
        mask @ raw["weight"] + raw["bias"], scaled @ other["weight"] + other["bias"], atol=1e-5
    )
    assert np.allclose(other["lam"], raw["lam"] / (2 * other["mask_std"].mean()))


@pytest.mark.parametrize("kind", ["raw", "standardised"])
def test_datamodels_pt_is_read_back_as_it_was_stored(made, tmp_path, kind):
    path = tmp_path / "datamodels.pt"
    export(made, "alpha", "datamodels.pt", path, units=kind)
    file = open_scores(path)
    assert file.is_standardised_by_default == (kind == "standardised")
    default = "standardised" if file.is_standardised_by_default else None
    fit = made.datamodels("alpha")
    for units in (Units(default), Units(kind, 0.2, given=True)):
        found = labelled(file, orientation=("train-target", ""), units=units)
        assert "as the file says" in found.attrs["units"]
        for name in ("weight", "bias", "lam"):
            assert np.allclose(found[name], fit[name], rtol=1e-5, atol=1e-6)
    other = {"raw": "standardised", "standardised": "raw"}[kind]
    with pytest.raises(InputError, match=f"says that its units are {kind}, not {other}"):
        labelled(file, orientation=("train-target", ""), units=Units(other, given=True))


@pytest.mark.parametrize(
    ("mean", "std", "said"),
    [
        (np.full(3, 0.5), np.full(3, 0.5), "shapes"),
        (np.full(4, np.nan), np.full(4, 0.5), "not those of masks"),
        (np.full(4, 0.5), np.full(4, -0.5), "not those of masks"),
        (np.full(4, 0.5), np.full(4, np.inf), "not those of masks"),
        (np.full(4, 0.5), np.array([0.5, 0, 0.5, 0.5]), "train unit 1 is 0"),
    ],
)
def test_moments_that_are_none_are_refused(tmp_path, mean, std, said):
    streams = [
        whole("weight", ("train", "target"), np.ones((4, 2), np.float32)),
        whole("mask_mean", ("train",), mean),
        whole("mask_std", ("train",), std),
    ]
    torchfile.write(tmp_path / "a.pt", streams, {"units": "standardised"})
    with pytest.raises(InputError, match=said):
        labelled(open_scores(tmp_path / "a.pt"), orientation=("train-target", ""), units=Units())


def test_standardised_units_need_the_runs_of_the_fit(tmp_path):
    path = tmp_path / "s.dm"
    study = dmstore.create_study(path, examples(), seed=3)
    algorithm = study.add_algorithm("alpha", runs=300)
    fill(algorithm, range(100))
    run("fit", path, "alpha", "-Q", "--lams", 3, "--no-halves")
    fill(algorithm, range(100, 110))
    export(study, "alpha", "datamodels.pt", tmp_path / "a", units="standardised")
    compact(algorithm.table)
    run("vacuum", path, "--grace", "0s")
    with pytest.raises(IncompleteError, match="export raw units"):
        export(study, "alpha", "datamodels.pt", tmp_path / "b", units="standardised")
    assert not (tmp_path / "b").exists()
    export(study, "alpha", "datamodels.pt", tmp_path / "b")
    one, two = TensorFile(tmp_path / "a").load(), TensorFile(tmp_path / "b").load()
    assert one["about"] == two["about"]


def test_long_zips_and_numbers():
    from dmstore.exporters import torchfile
    from dmstore.exporters.stream import Stream

    huge = Stream("w", ("train", "target"), (100_000, 50_000), np.dtype("<f4"), lambda: iter([]))
    arguments = [
        value
        for code, value, _ in pickletools.genops(torchfile.pickled([huge], {"x": 0.5, "y": 2}))
        if code.name in ("BININT", "LONG1", "BINFLOAT")
    ]
    assert arguments == [5_000_000_000, 0, 100_000, 50_000, 50_000, 1, 0.5, 2]


BAD = {
    "format": (["--to", "hdf5"], 2, "hdf5"),
    "no format": ([], 2, "--to"),
    "tag": (["--to", "npy", "--snapshot", "none"], 1, "it has: first"),
    "output": (["--to", "npy", "--output", "loss"], 1, "not declared"),
    "fit": (["--to", "datamodels.pt", "--fit", "x"], 1, "dmstore fit"),
    "fit of an output": (["--to", "datamodels.pt", "--output", "prediction"], 1, "dmstore fit"),
    "units of runs": (["--to", "npy", "--units", "raw"], 1, "no meaning"),
    "snapshot of a plan": (["--to", "plan", "--snapshot", "first"], 1, "no meaning"),
    "two outputs": (
        ["--to", "truth", "--output", "margin", "--output", "prediction"],
        1,
        "one output",
    ),
    "truth of classes": (["--to", "truth", "--output", "prediction"], 1, "a float a target"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(made, tmp_path, case):
    options, code, words = BAD[case]
    out, err = run("export", made.path, "alpha", tmp_path / "out", *options, "-Q", code=code)
    assert words in err
    assert out == ""
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_replaced(made, tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("nowhere")
    for name in ("file", "folder", "link"):
        for to in ("npy", "datamodels.pt", "plan"):
            _, err = run("export", made.path, "alpha", "--to", to, tmp_path / name, code=1)
            assert "is there already" in err
    with pytest.raises(InputError, match="make it first"):
        export(made, "alpha", "npy", tmp_path / "no" / "where")
    assert {p.name for p in tmp_path.iterdir()} == {"file", "folder", "link"}
    assert (tmp_path / "file").read_text() == "mine"
    with pytest.raises(ExistsError):
        export(made, "alpha", "npy", tmp_path / "folder")


def test_no_runs(made, tmp_path):
    made.add_algorithm("empty", runs=3)
    for to in ("npy", "truth", "safetensors"):
        _, err = run("export", made.path, "empty", "--to", to, tmp_path / "out", code=1)
        assert "no" in err
        assert "runs to export" in err
    assert run_json("export", made.path, "empty", "--to", "plan", tmp_path / "p.json") == {
        "algorithm": "empty",
        "to": "plan",
        "files": [str(tmp_path / "p.json")],
        "rows": 3,
        "bytes": (tmp_path / "p.json").stat().st_size,
        "content_id": None,
    }


@pytest.mark.parametrize("to", ["npy", "datamodels.pt", "safetensors"])
def test_what_fails_leaves_nothing(made, tmp_path, monkeypatch, to):
    import os

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="disk is full"):
        export(made, "alpha", to, tmp_path / "out")
    monkeypatch.undo()
    calls = []

    def interrupt(what, done, total):
        assert what == "export"
        calls.append(done / total)
        if len(calls) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(made, "alpha", to, tmp_path / "out", progress=interrupt)
    assert 0 < calls[0] < calls[1] <= 1
    assert list(tmp_path.iterdir()) == []


def _operation(path):
    from pathlib import Path

    export(dmstore.open_study((Path(path) / "where").read_text()), "alpha", "npy", path + "/out")


def digests(folder):
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir()}


def test_killed_anywhere_it_is_whole_or_not_there(made, tmp_path):
    def place(name):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "where").write_text(str(made.path))
        return folder

    whole = place("whole")
    _, calls = crash.run(_operation, str(whole), 0)
    expected = digests(whole / "out")
    assert calls > 25
    # Every step near the commit, and some of those on the way there.
    for at in (1, 2, 9, 20, *range(calls - 4, calls + 1)):
        folder = place(f"at{at}")
        died, _ = crash.run(_operation, str(folder), at)
        assert died
        if (folder / "out").exists():
            assert digests(folder / "out") == expected
        else:
            export(made, "alpha", "npy", folder / "out")
            assert digests(folder / "out") == expected
