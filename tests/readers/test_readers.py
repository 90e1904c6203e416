"""Sources of runs: every format end to end, its traps, and files that lie."""

import gzip
import json
import re
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
import zarr
from helpers import Done, make_rows
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from paths import DATA

import dmstore
from dmstore import readers
from dmstore.core import bits
from dmstore.errors import InputError
from dmstore.intake.adopt import adopt
from dmstore.intake.ingest import take_in as ingest
from dmstore.readers.source import Request

STORE = DATA / "datamodels-store"
RUNS = 30


def masks(count=RUNS, train=37, seed=0):
    found = np.random.default_rng([seed, 1]).random((count, train)) < 0.5
    found[:, 0] |= ~found.any(axis=1)
    return found


def margins(count=RUNS, target=23, seed=0, dtype=np.float32):
    return np.random.default_rng([seed, 2]).normal(size=(count, target)).astype(dtype)


@pytest.fixture
def foreign(study):
    return study.add_algorithm("f", sampling="foreign", alpha=None)


def save(folder, **arrays):
    folder.mkdir(parents=True, exist_ok=True)
    for name, values in arrays.items():
        np.save(folder / f"{name}.npy", values)
    return folder


def training_store(folder, count=RUNS, **changes):
    arrays = {
        "masks": masks(count),
        "margins": margins(count),
        "_completed": np.ones(count, dtype=bool),
        **changes,
    }
    return save(folder, **{name: values for name, values in arrays.items() if values is not None})


def stored(algorithm, *names):
    view = algorithm.table.view()
    order = np.argsort(view.run)
    return view.run[order], *(view.read([name])[name][order] for name in names)


def ok(*arguments):
    done = Done(*arguments)
    assert done.returncode == 0, done.stderr
    return done


# The incumbent's own output


def test_a_store_of_the_incumbent_becomes_a_study(tmp_path):
    path = tmp_path / "new.dm"
    done = ok("ingest", path, "base", STORE, "--create", "--json")
    found = json.loads(done.stdout)
    assert (found["new"], found["skipped"], found["errors"]) == (32, 3, [])
    assert found["sources"][0]["format"] == "datamodels"
    assert "35 of 40 models completed" in done.stderr
    reasons = " ".join(found["warnings"])
    for words in ("(run 5)", "NaN", "(run 17)", "empty", "(run 23)", "zero on all", "histogram"):
        assert words in reasons
    again = json.loads(ok("ingest", path, "base", STORE, "--create", "--json").stdout)
    assert (again["new"], again["present"], again["skipped"]) == (0, 32, 3)

    study = dmstore.open_study(path)
    base = study.algorithm("base")
    kept = np.setdiff1d(np.arange(37), [5, 11, 17, 23, 27])
    ids, mask, margin, loss, accuracy, epochs, command = stored(
        base, "mask", "margin", "loss", "accuracy", "epochs", "command"
    )
    assert ids.tolist() == kept.tolist()
    for values, name in ((mask, "masks"), (margin, "margins"), (loss, "losses")):
        expected = np.load(STORE / f"{name}.npy")[kept]
        assert values.dtype == expected.dtype
        assert np.array_equal(values, expected)
    assert np.array_equal(accuracy, np.load(STORE / "accuracy.npy")[kept])
    assert np.array_equal(epochs, np.load(STORE / "epochs.npy")[kept])
    assert all(f"--worker.index={i} " in text for i, text in zip(kept, command, strict=True))
    complete = np.load(STORE / "masks.npy")[np.load(STORE / "_completed.npy")]
    share = complete[complete.any(axis=1)].mean()
    assert base.alpha == pytest.approx(share)
    assert base.document["config"]["imported"]["alpha"] == "mean"
    assert base.document["sampling"] == "foreign"
    assert "label" not in study.train
    assert json.loads(ok("verify", path, "--json").stdout)["problems"] == []


@pytest.fixture(scope="module")
def real_beton(tmp_path_factory):
    path = tmp_path_factory.mktemp("beton") / "reg_data.beton"
    path.write_bytes(gzip.decompress((DATA / "reg_data.beton.gz").read_bytes()))
    return path


def test_a_beton_of_the_incumbent_holds_the_same_runs(tmp_path, real_beton):
    path = tmp_path / "new.dm"
    first = json.loads(ok("ingest", path, "base", real_beton, "--create", "--json").stdout)
    assert (first["new"], first["skipped"]) == (32, 3)
    assert first["sources"][0]["format"] == "beton"
    # The same runs from the store itself: same ids, and the same digests in float32.
    other = json.loads(ok("ingest", path, "base", STORE, "--json", "-Q").stdout)
    assert (other["new"], other["present"], other["conflicting"]) == (0, 32, 0)


OLD_SPEC = {
    "num_models": 40,
    "schema": {
        "masks": {"shape": [30], "dtype": "bool_"},
        "margins": {"shape": [20], "dtype": "float16"},
        "accuracy": {"shape": [], "dtype": "float_"},
    },
}


def test_a_spec_with_old_names_says_what_is_read(tmp_path):
    folder = shutil.copytree(STORE, tmp_path / "store")
    (folder / "spec.json").write_text(json.dumps(OLD_SPEC))
    made = adopt(tmp_path / "new.dm", "base", folder)
    assert list(made.outputs) == ["margin"]
    assert ingest(made, [folder]).new == 32
    assert "epochs" not in made.table.view().columns


def changed(**keys):
    return {**OLD_SPEC, **keys}


def schema(**keys):
    return changed(schema={**OLD_SPEC["schema"], **keys})


BAD_SPECS = {
    "count": (changed(num_models=41), "41 models"),
    "shape": (schema(margins={"shape": [21], "dtype": "float16"}), "spec.json says"),
    "dtype": (schema(margins={"shape": [20], "dtype": "float32"}), "spec.json says"),
    "unknown dtype": (schema(margins={"shape": [20], "dtype": "load"}), "not known to NumPy"),
    "missing file": (schema(extra={"shape": [], "dtype": "int64"}), "no such file"),
    "path": (schema(**{"../masks": {"shape": [30], "dtype": "bool_"}}), "no file name"),
    "no object": ([1], "no spec"),
    "shape of text": (schema(margins={"shape": "x", "dtype": "float16"}), "no spec"),
}


@pytest.mark.parametrize("case", BAD_SPECS)
def test_a_spec_that_lies_is_refused(tmp_path, case):
    document, words = BAD_SPECS[case]
    folder = shutil.copytree(STORE, tmp_path / "store")
    (folder / "spec.json").write_text(json.dumps(document))
    with pytest.raises(InputError, match=words):
        adopt(tmp_path / "new.dm", "base", folder)
    assert not (tmp_path / "new.dm").exists()


# Training stores


def test_only_completed_rows_and_later_the_rest(foreign, tmp_path):
    done = np.arange(RUNS) % 3 != 0
    folder = training_store(tmp_path / "s", _completed=done)
    assert ingest(foreign, [folder]).new == done.sum()
    np.save(folder / "_completed.npy", np.ones(RUNS, dtype=np.uint8))
    result = ingest(foreign, [folder])
    assert (result.new, result.present) == (RUNS - done.sum(), done.sum())
    ids, mask, margin = stored(foreign, "mask", "margin")
    assert ids.tolist() == list(range(RUNS))
    assert np.array_equal(mask, masks())
    assert np.array_equal(margin, margins())


def test_trials_are_merged_by_numbering_them(foreign, tmp_path):
    one = training_store(tmp_path / "1")
    two = training_store(tmp_path / "2", masks=masks(seed=5), margins=margins(seed=5))
    assert ingest(foreign, [one]).new == RUNS
    before = foreign.table.view().content_id()
    result = ingest(foreign, [two])
    assert (result.new, result.conflicting) == (0, RUNS)
    assert "--first-run" in result.errors[0]
    assert foreign.table.view().content_id() == before
    assert ingest(foreign, [two], request=Request(first_run=1000)).new == RUNS
    assert stored(foreign)[0].tolist() == [*range(RUNS), *range(1000, 1000 + RUNS)]


def test_a_planned_algorithm_takes_its_own_masks_alone(study, tmp_path):
    planned = study.add_algorithm("p", runs=RUNS)
    rows = make_rows(planned, range(RUNS))
    good = training_store(tmp_path / "g", masks=rows.arrays["mask"], margins=rows.arrays["margin"])
    result = ingest(planned, [training_store(tmp_path / "b")])
    assert "--sampling foreign" in result.errors[0]
    assert len(planned.table.view()) == 0
    assert ingest(planned, [good]).new == RUNS


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"masks": None}, "masks.npy"),
        ({"masks": masks(RUNS - 1)}, "models"),
        ({"masks": masks(train=36)}, "36 train units"),
        ({"margins": margins(target=22)}, "22 targets"),
        ({"margins": None}, "no 'margin'"),
        ({"margins": None, "val_margins": margins()}, "log_odds \\(val_margins\\)"),
        ({"_completed": np.zeros(RUNS, dtype=bool)}, "no finished run"),
        ({"_completed": np.ones((RUNS, 1), dtype=bool)}, "one value per model"),
        ({"masks": np.full((RUNS, 37), 2, dtype=np.uint8)}, "other than 0 and 1"),
        ({"masks": np.full((RUNS, 37), 2, dtype=np.uint8).view(bool)}, "no bools"),
    ],
)
def test_a_store_that_does_not_fit_is_refused(foreign, tmp_path, changes, words):
    folder = training_store(tmp_path / "s", **changes)
    before = {entry.name: entry for entry in foreign.objects.entries("")}
    result = ingest(foreign, [folder])
    assert result.new == 0
    (error,) = result.errors
    assert re.search(words, error)
    assert str(folder) in error
    assert "\n" not in error
    assert {entry.name: entry for entry in foreign.objects.entries("")} == before


# Published arrays


@pytest.fixture
def published(tmp_path):
    folder = tmp_path / "cifar"
    for percent in (10, 50):
        save(
            folder,
            **{
                f"train_masks_{percent}pct": masks(seed=percent),
                f"test_margins_{percent}pct": margins(seed=percent, dtype=np.float16),
                f"train_margins_{percent}pct": margins(target=37, dtype=np.float16),
            },
        )
    np.save(folder / "test_logits_50pct.npy", np.ones((RUNS, 23, 3), dtype=np.float16))
    return folder


def test_published_arrays_of_one_fraction(published, tmp_path):
    done = Done("ingest", tmp_path / "n.dm", "ten", published, "--create")
    assert done.returncode == 1
    assert "10, 50 percent" in done.stderr
    assert "--percent" in done.stderr
    path = tmp_path / "n.dm"
    found = json.loads(
        ok("ingest", path, "ten", published, "--create", "--percent", 10, "--json").stdout
    )
    assert found["new"] == RUNS
    assert found["sources"][0]["format"] == "datamodels-data"
    assert "train_margins_10pct.npy" in found["warnings"][0]
    ten = dmstore.open_study(path).algorithm("ten")
    assert ten.outputs["margin"]["dtype"] == "float16"
    _, mask, margin = stored(ten, "mask", "margin")
    assert np.array_equal(mask, masks(seed=10))
    assert np.array_equal(margin, margins(seed=10, dtype=np.float16))


def test_logits_bring_their_classes(published, tmp_path):
    made = adopt(tmp_path / "n.dm", "fifty", published, request=Request(percent=50))
    assert made.outputs["logit"]["dims"] == ["run", "target", "class"]
    assert ingest(made, [published], request=Request(percent=50)).new == RUNS
    assert stored(made, "logit")[1].shape == (RUNS, 23, 3)
    # Without labels no class is claimed.
    runs = dmstore.open_study(tmp_path / "n.dm").runs("fifty")
    assert runs.sizes["class"] == 3
    assert "target_label" not in runs.coords


def test_a_download_that_was_cut_is_refused(foreign, published):
    np.save(published / "test_margins_50pct.npy", margins(RUNS - 1))
    (published / "test_logits_50pct.npy").unlink()
    result = ingest(foreign, [published], request=Request(percent=50))
    assert "is the download whole" in result.errors[0]


# Plain arrays


def zarr_group(path, version=3, **arrays):
    group = zarr.create_group(path, zarr_format=version)
    for name, values in arrays.items():
        made = group.create_array(
            name, shape=values.shape, dtype=values.dtype, chunks=(7, *values.shape[1:])
        )
        made[...] = values
    return path


_NAMES = {"bool": "BOOL", "uint8": "U8", "int64": "I64", "float16": "F16", "float32": "F32"}


def safetensors(path, **arrays):
    header, body = {"__metadata__": {"by": "a test"}}, b""
    for name, values in arrays.items():
        raw = values.tobytes()
        header[name] = {
            "dtype": _NAMES[values.dtype.name],
            "shape": list(values.shape),
            "data_offsets": [len(body), len(body) + len(raw)],
        }
        body += raw
    return tensors(path, header, body)


def tensors(path, header, body=b""):
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + body)
    return path


def plain_npz(path, **arrays):
    np.savez(path, **arrays)
    return path


CONTAINERS = {
    "folder": lambda p, arrays: save(p / "x", **arrays),
    "zarr 3": lambda p, arrays: zarr_group(p / "x.zarr", **arrays),
    "zarr 2": lambda p, arrays: zarr_group(p / "x.zarr", 2, **arrays),
    "safetensors": lambda p, arrays: safetensors(p / "x.safetensors", **arrays),
    "npz": lambda p, arrays: plain_npz(p / "x.npz", **arrays),
}


@pytest.mark.parametrize("container", CONTAINERS)
def test_plain_arrays_in_every_container(foreign, tmp_path, container):
    arrays = {
        "masks": masks(),
        "margins": margins(),
        "step": np.arange(RUNS),
        "unrelated": np.ones((3, 4), dtype=np.float32),
    }
    path = CONTAINERS[container](tmp_path, arrays)
    assert readers.sniff(path) == "arrays"
    result = ingest(foreign, [path])
    assert (result.new, result.errors) == (RUNS, [])
    assert "unrelated" in " ".join(result.warnings)
    ids, mask, margin, step = stored(foreign, "mask", "margin", "step")
    assert np.array_equal(mask, arrays["masks"])
    assert np.array_equal(margin, arrays["margins"])
    assert ids.tolist() == step.tolist() == list(range(RUNS))
    assert (ingest(foreign, [path]).present, len(foreign.table.view())) == (RUNS, RUNS)


def test_ids_packed_masks_and_numbers_as_masks(foreign, tmp_path):
    ids = np.arange(RUNS) * 7 + 3
    packed = save(tmp_path / "a", mask_packed=bits.pack_rows(masks()), margin=margins(), run=ids)
    assert ingest(foreign, [packed]).new == RUNS
    numbers = save(
        tmp_path / "b",
        mask=masks().astype(np.float32),
        margin=np.asfortranarray(margins()),
        run=ids,
    )
    assert ingest(foreign, [numbers]).present == RUNS
    big = save(tmp_path / "c", mask=masks(), margin=margins().astype(">f8"), run=ids.astype(">i4"))
    assert ingest(foreign, [big]).present == RUNS
    assert stored(foreign)[0].tolist() == ids.tolist()


def test_two_files_by_the_command_line(tmp_path):
    save(tmp_path, left=masks(), right=margins(dtype=np.float16))
    path = tmp_path / "n.dm"
    pair = (tmp_path / "left.npy", "--output", f"margin={tmp_path / 'right.npy'}")
    ok("ingest", path, "base", *pair, "--create")
    made = dmstore.open_study(path).algorithm("base")
    assert np.array_equal(stored(made, "margin")[1], margins(dtype=np.float16))
    done = Done("ingest", path, "base", tmp_path / "left.npy")
    assert "--output margin=FILE.npy" in done.stderr
    assert Done("ingest", path, "base", *pair[:2], "margin").returncode == 2
    assert Done("ingest", path, "base", *pair, "--seed", 1).returncode == 2


def test_truth_of_trak_is_recorded_as_what_it_is(tmp_path):
    folder = save(tmp_path / "truth", mask=masks(), val_margins=margins())
    made = adopt(tmp_path / "n.dm", "base", folder)
    assert list(made.outputs) == ["log_odds"]
    assert made.outputs["log_odds"]["function"].startswith("log(p / (1 - p))")
    assert ingest(made, [folder]).new == RUNS
    asked = Request(outputs={"margin": "val_margins"})
    assert list(adopt(tmp_path / "m.dm", "base", folder, request=asked).outputs) == ["margin"]


def test_bfloat16_is_kept_exactly(tmp_path):
    words = (margins().view(np.uint32) >> 16).astype("<u2")
    body = masks().tobytes() + words.tobytes()
    header = {
        "mask": {"dtype": "BOOL", "shape": [RUNS, 37], "data_offsets": [0, RUNS * 37]},
        "margin": {"dtype": "BF16", "shape": [RUNS, 23], "data_offsets": [RUNS * 37, len(body)]},
    }
    path = tensors(tmp_path / "x.safetensors", header, body)
    made = adopt(tmp_path / "n.dm", "base", path)
    assert ingest(made, [path]).new == RUNS
    expected = (words.astype(np.uint32) << 16).view(np.float32)
    assert np.array_equal(stored(made, "margin")[1], expected)


def test_two_names_of_one_output_must_be_told_apart(foreign, tmp_path):
    folder = save(tmp_path / "x", mask=masks(), margin=margins(), margins=margins(seed=1))
    assert "--output margin=KEY" in ingest(foreign, [folder]).errors[0]
    assert ingest(foreign, [folder], request=Request(outputs={"margin": "margins"})).new == RUNS
    assert np.array_equal(stored(foreign, "margin")[1], margins(seed=1))


# Files that lie


def npy(path, header, body=b""):
    text = header.encode() if isinstance(header, str) else header
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + body)


def head(shape, dtype="<f4"):
    return f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}\n"


class Trap:
    """Making this from a pickle leaves a trace."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def cut(path):
    path.write_bytes(path.read_bytes()[:-5])


def linked(path):
    outside = path.parent.parent / "outside.npy"
    path.rename(outside)
    path.symlink_to(outside)


BAD_NPY = {
    "cut": (cut, "header says"),
    "longer": (lambda p: p.write_bytes(p.read_bytes() + b"x"), "header says"),
    "empty": (lambda p: p.write_bytes(b""), "is empty"),
    "no array": (lambda p: p.write_bytes(b"hello" * 99), "no NumPy array"),
    "absurd": (lambda p: npy(p, head((2**61, 2**61)), b"1234"), "header says"),
    "negative": (lambda p: npy(p, head((-1, -4)), b"\0" * 16), "header says"),
    "no width": (lambda p: npy(p, head((2**40, 0))), "from 1 to"),
    "nested": (lambda p: npy(p, "(" * 5000), "no NumPy array"),
    "pickled": (
        lambda p: np.save(p, np.array([Trap(p.parent / "trace")], dtype=object), allow_pickle=True),
        "nothing is unpickled",
    ),
    "text": (lambda p: np.save(p, np.array([["a"] * 23] * RUNS)), "numbers and bools"),
    "link": (linked, "link out of"),
    "folder": (lambda p: (p.unlink(), p.mkdir()), "no plain file"),
}


@pytest.mark.parametrize("case", BAD_NPY)
@pytest.mark.parametrize("store", [True, False])
def test_npy_files_that_lie_are_refused(foreign, tmp_path, case, store):
    spoil, words = BAD_NPY[case]
    folder = (
        training_store(tmp_path / "s")
        if store
        else save(tmp_path / "s", masks=masks(), margins=margins())
    )
    spoil(folder / "margins.npy")
    before = {entry.name: entry for entry in foreign.objects.entries("")}
    (error,) = ingest(foreign, [folder]).errors
    assert words in error
    assert str(folder) in error
    assert "\n" not in error
    assert {entry.name: entry for entry in foreign.objects.entries("")} == before
    assert not (folder / "trace").exists()


BAD_TENSORS = {
    "short": (lambda p: p.write_bytes(b"\1\0"), "no safetensors file"),
    "long header": (lambda p: p.write_bytes(struct.pack("<Q", 2**63) + b"{}"), "no safetensors"),
    "no JSON": (lambda p: tensors(p, b"{{{{"), "no safetensors header"),
    "deep JSON": (lambda p: tensors(p, b"[" * 100_000), "no safetensors header"),
    "list": (lambda p: tensors(p, b"[1, 2]"), "no safetensors header"),
    "gap": (
        lambda p: tensors(
            p, {"mask": {"dtype": "BOOL", "shape": [2, 3], "data_offsets": [1, 7]}}, b"\0" * 7
        ),
        "overlap or leave a gap",
    ),
    "overlap": (
        lambda p: tensors(
            p,
            {n: {"dtype": "BOOL", "shape": [6], "data_offsets": [0, 6]} for n in ("mask", "b")},
            b"\0" * 12,
        ),
        "overlap or leave a gap",
    ),
    "beyond": (
        lambda p: tensors(
            p, {"mask": {"dtype": "BOOL", "shape": [2, 3], "data_offsets": [0, 6]}}, b"\0" * 5
        ),
        "cut or damaged",
    ),
    "wrong size": (
        lambda p: tensors(
            p, {"mask": {"dtype": "F64", "shape": [2, 3], "data_offsets": [0, 6]}}, b"\0" * 6
        ),
        "header says",
    ),
    "negative": (
        lambda p: tensors(p, {"mask": {"dtype": "U8", "shape": [-1], "data_offsets": [0, -1]}}),
        "damaged",
    ),
    "bool as number": (
        lambda p: tensors(
            p, {"mask": {"dtype": "U8", "shape": [True], "data_offsets": [0, 1]}}, b"\0"
        ),
        "damaged",
    ),
    "unknown dtype": (
        lambda p: tensors(
            p, {"mask": {"dtype": "F8_E4M3", "shape": [1], "data_offsets": [0, 1]}}, b"\0"
        ),
        "F8_E4M3",
    ),
    "twice": (
        lambda p: tensors(
            p, b'{"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}, "a": {}}', b"\0"
        ),
        "stands there twice",
    ),
}


@pytest.mark.parametrize("case", BAD_TENSORS)
def test_safetensors_that_lie_are_refused(foreign, tmp_path, case):
    spoil, words = BAD_TENSORS[case]
    spoil(tmp_path / "x.safetensors")
    (error,) = ingest(foreign, [tmp_path / "x.safetensors"]).errors
    assert words in error
    assert "\n" not in error
    assert len(foreign.table.view()) == 0


def v2_filters(folder):
    where = folder / "margins" / ".zarray"
    document = json.loads(where.read_text())
    where.write_text(json.dumps({**document, "filters": [{"id": "pickle"}]}))


def v3_shape(folder):
    where = folder / "margins" / "zarr.json"
    document = json.loads(where.read_text())
    grid = {"name": "regular", "configuration": {"chunk_shape": [2**40, 23]}}
    where.write_text(json.dumps({**document, "shape": [2**40, 23], "chunk_grid": grid}))


def v3_chunk(folder):
    chunk = next(p for p in (folder / "margins" / "c").rglob("*") if p.is_file())
    chunk.write_bytes(b"junk" * 20)


def attributes(**more):
    def spoil(folder):
        where = folder / "margins" / "zarr.json"
        document = json.loads(where.read_text())
        where.write_text(json.dumps({**document, "attributes": more}))

    return spoil


def v2_attributes(folder):
    (folder / "margins" / ".zattrs").write_text('{"add_offset": 3}')


BAD_ZARR = {
    "packed": (3, attributes(scale_factor=0.01), "packed (attribute 'scale_factor')"),
    "packed before": (2, v2_attributes, "packed (attribute 'add_offset')"),
    "missing": (3, attributes(_FillValue=float(margins()[3, 4])), "stands for a missing value"),
    "pickles": (2, v2_filters, "'pickle', which is not taken"),
    "absurd": (3, v3_shape, "rows and chunks of at most"),
    "damaged chunk": (3, v3_chunk, "a chunk cannot be read"),
    "no JSON": (3, lambda f: (f / "margins" / "zarr.json").write_text("{"), "no zarr metadata"),
    "no masks": (3, lambda f: shutil.rmtree(f / "masks"), "no array 'mask'"),
    "nonsense": (
        3,
        lambda f: (f / "margins" / "zarr.json").write_text(
            '{"zarr_format": 3, "node_type": "array", "data_type": "float32"}'
        ),
        "no zarr array",
    ),
}


@pytest.mark.parametrize("case", BAD_ZARR)
def test_zarr_that_lies_is_refused(foreign, tmp_path, case):
    version, spoil, words = BAD_ZARR[case]
    path = zarr_group(tmp_path / "x.zarr", version, masks=masks(), margins=margins())
    spoil(path)
    (error,) = ingest(foreign, [path]).errors
    assert words in error
    assert "\n" not in error
    assert len(foreign.table.view()) == 0


# An FFCV file of our own making, small enough to spoil a byte at a time

HEADER, FIELD, SLOT = 24, 1041, 24


def beton(path, count=RUNS, ids=None):
    """Fields mask, targets and idx as ffcv lays them out, with samples in reverse in the pages."""
    mask, target = masks(count), margins(count)
    start = HEADER + 3 * FIELD
    place = start + count * SLOT
    slots, pages, table = [b""] * count, b"", b""
    for row in reversed(range(count)):
        slot = b""
        for values in (mask[row], target[row]):
            slot += struct.pack("<Q", place)
            table += struct.pack("<QQQ", row, place, values.nbytes)
            pages, place = pages + values.tobytes(), place + values.nbytes
        number = row if ids is None else ids[row]
        slots[row] = slot + struct.pack("<q", number)

    def field(kind, name, shape=0, descr=""):
        arguments = struct.pack("<32QQ", shape, *[0] * 31, len(descr)) + descr.encode()
        return struct.pack("<B16s1024s", kind, name, arguments)

    fields = (
        field(4, b"mask", 37, '[["", "|b1"]]')
        + field(4, b"targets", 23, '[["", "<f4"]]')
        + field(1, b"idx")
    )
    header = struct.pack("<HHIQQ", 2, 3, 1 << 21, count, place)
    path.write_bytes(header + fields + b"".join(slots) + pages + table)
    return path


def test_a_beton_of_several_outputs(study, tmp_path):
    """Of two declared outputs 'targets' was the first by its name."""
    declared = {
        name: {"dtype": "float32", "dims": ["run", "target"], "function": "f", "units": "u"}
        | {"orientation": "none"}
        for name in ("margin", "confidence")
    }
    both = study.add_algorithm("both", sampling="foreign", alpha=None, outputs=declared)
    path = beton(tmp_path / "x.beton")
    (error,) = ingest(both, [path]).errors
    assert "may be any of confidence, margin; say which with --output NAME=targets" in error
    done = Done("ingest", study.path, "both", path, "--output", "margin=targets")
    assert "no 'confidence'" in done.stderr
    one = study.add_algorithm(
        "one", sampling="foreign", alpha=None, outputs={"confidence": declared["confidence"]}
    )
    assert ingest(one, [path]).new == RUNS


def test_arrays_can_be_left_out(tmp_path):
    folder = save(
        tmp_path / "a", masks=masks(), margins=margins(), probe=margins(seed=3), lr=np.ones(RUNS)
    )
    path = tmp_path / "n.dm"
    ok("ingest", path, "base", folder, "--create", "--without", "probe", "--without", "lr")
    made = dmstore.open_study(path).algorithm("base")
    assert list(made.outputs) == ["margin"]
    assert made.table.view().columns == {}
    done = Done("ingest", path, "base", folder, "--without", "nothing")
    assert done.returncode == 1
    assert "no 'nothing' that could be left out; it holds lr, margins, masks, probe" in done.stderr
    worker, ids = tmp_path / "w.npz", np.arange(90, 90 + RUNS)
    np.savez(worker, run=ids, mask=masks(), margin=margins(seed=5), lr=np.ones(RUNS))
    ok("ingest", path, "base", worker, "--format", "npz", "--without", "lr")
    assert made.table.view().columns == {}


def patch(offset, form, *values):
    def spoil(path):
        raw = bytearray(path.read_bytes())
        struct.pack_into(form, raw, offset, *values)
        path.write_bytes(raw)

    return spoil


FIRST = HEADER + 3 * FIELD
BAD_BETON = {
    "cut": (cut, "table of allocations"),
    "header alone": (lambda p: p.write_bytes(p.read_bytes()[:20]), "cut or damaged"),
    "fields cut": (lambda p: p.write_bytes(p.read_bytes()[:2000]), "cut or damaged"),
    "version": (patch(0, "<H", 3), "version 2"),
    "fields": (patch(2, "<H", 60000), "fields"),
    "samples": (patch(8, "<Q", 2**60), "damaged"),
    "many samples": (patch(8, "<Q", 10**7), "cut or damaged"),
    "unfinished": (patch(16, "<Q", 0), "never finished"),
    "table beyond": (patch(16, "<Q", 2**50), "table of allocations"),
    "address": (patch(FIRST, "<Q", 2**63), "is not where"),
    "address in the header": (patch(FIRST, "<Q", 0), "is not where"),
    "address not allocated": (patch(FIRST, "<Q", FIRST + RUNS * SLOT + 1), "is not where"),
    "shape": (patch(HEADER + 17, "<Q", 2**62), "is not where"),
    "longer rows": (patch(HEADER + 17, "<Q", 38), "is not where"),
    "no shape": (patch(HEADER + 17, "<Q", 0), "expected an array"),
    "object": (patch(HEADER + 17 + 264, "13s", b'[["", "|O8"]]'), "expected an array"),
    "no dtype": (patch(HEADER + 17 + 264, "13s", b'{"a": "b"}   '), "damaged"),
    "image": (patch(HEADER, "<B", 2), "type 2"),
    "twice": (patch(FIRST + 16, "<q", 1), "stands there twice"),
    "negative id": (patch(FIRST + 16, "<q", -1), "run ids must be"),
}


def test_a_beton_is_read_where_its_addresses_say(foreign, tmp_path):
    ids = np.random.default_rng(3).permutation(1000)[:RUNS]
    assert ingest(foreign, [beton(tmp_path / "x.beton", ids=ids)]).new == RUNS
    order = np.argsort(ids)
    found, mask, margin = stored(foreign, "mask", "margin")
    assert np.array_equal(found, ids[order])
    assert np.array_equal(mask, masks()[order])
    assert np.array_equal(margin, margins()[order])


@pytest.mark.parametrize("case", BAD_BETON)
def test_a_beton_that_lies_is_refused(foreign, tmp_path, case):
    spoil, words = BAD_BETON[case]
    path = beton(tmp_path / "x.beton")
    spoil(path)
    (error,) = ingest(foreign, [path]).errors
    assert words in error
    assert str(path) in error
    assert "\n" not in error
    assert len(foreign.table.view()) == 0


VALID = {
    "x.beton": beton,
    "x.npz": lambda p: plain_npz(p, mask=masks(), margin=margins()),
    "x.safetensors": lambda p: safetensors(p, mask=masks(), margin=margins()),
    "margins.npy": lambda p: save(p.parent, masks=masks(), margins=margins()),
}


@pytest.mark.parametrize("name", VALID)
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_spoiled_bytes_end_in_runs_or_in_a_clear_error(tmp_path, name, data):
    path = tmp_path / name
    VALID[name](path)
    raw = bytearray(path.read_bytes())
    # Headers are at the front; what follows are numbers.
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, min(len(raw), 4000) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(raw[: data.draw(st.integers(0, len(raw)))])
    where = path.parent if name == "margins.npy" else path
    readers.sniff(where)
    try:
        opened = readers.open_source(where, "beton" if name == "x.beton" else "arrays", Request())
        rows = opened.read(np.arange(len(opened.ids)), list(opened.outputs))
    except InputError as error:
        assert "\n" not in str(error)  # noqa: PT017
        return
    assert rows.arrays["mask"].dtype == bool
    assert rows.arrays["mask"].shape == (len(opened.ids), opened.train)


def test_sniffing_never_fails(tmp_path, foreign):
    odd = [
        tmp_path / "none",
        tmp_path / ("x" * 300),
        tmp_path / "null\0byte",
        tmp_path / "dir.npy",
        tmp_path / "loop",
        tmp_path / "junk.npz",
        Path("/dev/null"),
    ]
    odd[3].mkdir()
    odd[4].symlink_to(odd[4])
    odd[5].write_bytes(b"PK\x03\x04junk")
    # A folder of workers' files stays one, whatever else lies in it.
    both = save(tmp_path / "both", masks=masks())
    plain_npz(both / "w.npz", run=np.arange(2))
    assert {readers.sniff(path) for path in [*odd, both]} == {"npz"}
    with pytest.raises(InputError, match="--format"):
        ingest(foreign, [odd[3]])
    for name in readers.FORMATS[1:]:
        result = ingest(foreign, [tmp_path / "none"], format=name)
        assert "no such file" in result.errors[0]


def test_commands_of_models_are_whole_lines(tmp_path):
    from dmstore.readers.datamodels_store import _commands

    line = "train --worker.index=1 --note a\u2028b\x85"
    (tmp_path / "cmds.txt").write_text(f"{line}\r\n", newline="")
    assert list(_commands(tmp_path, np.arange(2))) == ["", line]
