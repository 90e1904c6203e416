"""docs/reference/format.md is enough: what a reader and writer made from it see agrees with dmstore."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import numpy as np
import pytest
import second_reader as second
from helpers import examples, fill, make_rows
from later_targets import targets, write

import dmstore
from dmstore.schema.documents import FORMAT_VERSION
from dmstore.sharing import publish
from dmstore.storage.acts import retract
from dmstore.storage.acts.compact import compact
from dmstore.storage.table.rows import Rows
from dmstore.study import plan
from dmstore.upkeep import maintenance
from dmstore.upkeep.maintenance import vacuum
from dmstore.upkeep.retraction import retract_runs
from dmstore.upkeep.verification import verify


def test_the_second_reader_has_nothing_of_dmstore():
    tree = ast.parse(Path(second.__file__).read_text())
    modules = {
        name.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (
            [node.module] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
        )
    }
    allowed = {"__future__", "hashlib", "json", "numpy", "pathlib", "uuid", "zarr", "zipfile"}
    assert modules == allowed


@pytest.mark.parametrize(
    ("key", "mask_id", "train", "alpha"),
    [
        (0, 0, 1, 0.999),
        (3, 7, 37, 0.5),
        (2**63 - 1, 5 << 32, 100, 0.1),
        (2**64 - 1, 2**62 - 1, 9, 0.3),
    ],
)
def test_masks(key, mask_id, train, alpha):
    expected = plan.make_mask(key, mask_id, train, alpha)
    assert np.array_equal(second.mask_of(key, mask_id, train, alpha), expected)


def test_hashes_and_purposes():
    ids = np.arange(300) * 10**15
    for seed in (0, 3, 2**63 - 1):
        splits, quarters = plan.split_of(seed, ids).tolist(), plan.quarter_of(seed, ids).tolist()
        assert [second.split_of(seed, number) for number in ids.tolist()] == splits
        assert [second.quarter_of(seed, number) for number in ids.tolist()] == quarters
        assert set(quarters) == {0, 1, 2, 3}
        assert set(splits) == set(plan.SPLITS)
        assert second.training_seed(seed, "a-b", 5) == plan.training_seed(seed, "a-b", 5)
        assert second.hashed("masks", seed, "a") == plan.mask_key(seed, "a")


def read(place, name, table="runs"):
    root = Path(place)
    study = second.document((root / "study.json").read_bytes(), "study")
    path = root / f"algorithms/{name}/algorithm.json"
    algorithm = second.document(path.read_bytes(), "algorithm")
    return root, study, algorithm, second.view(root, study, algorithm, table)


def agree(study, name):
    """Whether both readers see the same of an algorithm's runs, and every row is right."""
    root, document, algorithm, (rows, conflicts, content_id) = read(study.path, name)
    opened = study.algorithm(name)
    seen = opened.table.view()
    assert [row["run"] for row in rows] == seen.run.tolist()
    assert conflicts == list(seen.conflicts)
    assert content_id == seen.content_id()
    data = study.runs(name).load()
    for position, row in enumerate(rows):
        second.check_row(row, algorithm)
        if algorithm["sampling"] == "planned":
            second.check_planned(row, root, document, algorithm)
        else:
            assert row["mask_id"] == second.foreign_mask_id(row["mask"])
        for output in algorithm["outputs"]:
            assert np.array_equal(row[output], data[output].values[position])
        split = second.purpose(document, algorithm, int(row["mask_id"]))
        assert split == data.split.values[position]
        assert row["seed"] == data.seed.values[position]
    return rows, conflicts


@pytest.fixture
def lived(tmp_path):
    """A study with a base, a tail, conflicts, retracted rows, a later target set and its outputs."""
    study = dmstore.create_study(tmp_path / "s.dm", examples(), seed=11)
    made = study.add_algorithm("plain", runs=40, repeats=2, outputs=["margin", "prediction"])
    fill(made, range(30), batch=10)
    compact(made.table)
    fill(made, range(25, 40))
    made.extend(7)
    other = make_rows(made, [5, 33, 41], seed=1)
    made.table.append(other)
    made.table.append(make_rows(made, [41, 42], seed=2))
    retract_runs(made, ["run>=10", "run<13"], reason="test")
    study.add_targets("shifted", targets())
    outputs = study.target_outputs("plain", "shifted")
    write(outputs, range(8))
    compact(outputs.table)
    write(outputs, [20, 21, 22])
    study.add_algorithm("own", alpha=0.3, runs=6, masks="independent")
    fill(study.algorithm("own"), range(6))
    study.add_algorithm("elsewhere", sampling="foreign", alpha=None, split="eval")
    foreign = study.algorithm("elsewhere")
    masks = np.random.default_rng(0).random((6, 37)) < 0.5
    columns = {"time": np.zeros(6, int), "host": np.full(6, "h"), "seed": np.arange(6)}
    rows = Rows(np.arange(6) * 10, {"mask": masks, "margin": np.zeros((6, 23))}, columns)
    foreign.table.append(foreign.complete(rows, "test"))
    return study


def test_both_readers_agree(lived, tmp_path):
    rows, conflicts = agree(lived, "plain")
    assert sorted(row["run"] for row in rows) == [*range(10), *range(13, 40), 41, 42]
    assert sorted(run for run, _ in conflicts) == [5, 33, 41]
    agree(lived, "own")
    agree(lived, "elsewhere")
    root, study, algorithm, (rows, _, content_id) = read(lived.path, "plain", "outputs/shifted")
    seen = lived.target_outputs("plain", "shifted").table.view()
    assert (content_id, len(rows)) == (seen.content_id(), 11)
    digests = {row["run"]: row["row_digest"] for row in read(lived.path, "plain")[3][0]}
    for row in rows:
        second.check_row(row, algorithm, "outputs/shifted")
        assert int(row["run_digest"]) == int.from_bytes(digests[row["run"]][:8], "little")
    for name, ids in (("train", lived.ids("train")), ("test", lived.ids("test"))):
        group = second.arrays_of(root / f"examples/{name}.zarr", "examples")
        assert group["id"].tolist() == ids.tolist()
        entry = study["train"] if name == "train" else study["targets"][name]
        assert second.id_hash(group["id"]) == entry["sha256"]
    entry = second.document((root / "targets/shifted.json").read_bytes(), "targets")
    group = second.arrays_of(root / entry["path"], "examples")
    assert second.id_hash(group["id"]) == entry["sha256"]
    maintenance.compact(lived)
    assert sorted(run for run, _ in agree(lived, "plain")[1]) == [5, 33, 41]
    vacuum(lived, grace=0)
    made = lived.algorithm("plain")
    retract.restore(made.table, lambda pairs: pairs, "back")
    fill(made, range(10, 13))
    assert len(agree(lived, "plain")[0]) == 42
    publish(lived, tmp_path / "p")
    agree(dmstore.open_study(tmp_path / "p"), "plain")


def test_the_second_reader_refuses_another_major_version(lived):
    path = Path(lived.path, "study.json")
    path.write_text(path.read_text().replace('"1.0"', '"2.0"'))
    with pytest.raises(ValueError, match=r"format 2\.0"):
        read(lived.path, "plain")


def by_hand(study, name, runs, **columns):
    """A segment of planned runs, made without dmstore."""
    root, document, algorithm, _ = read(study.path, name)
    planned = second.plan(root, name)
    mask_id, repeat = np.array([planned[run] for run in runs]).T
    key, train = second.mask_key(document, algorithm), document["train"]["count"]
    seeds = [second.training_seed(document["seed"], name, run) for run in runs]
    masks = [second.mask_of(key, int(m), train, algorithm["alpha"]) for m in mask_id]
    draw = np.random.default_rng(sum(runs))
    size = (len(runs), document["targets"]["test"]["count"])
    arrays = {
        "run": np.array(runs, dtype="i8"),
        "mask_id": mask_id.astype("i8"),
        "repeat": repeat.astype("i4"),
        "seed": np.array(seeds, dtype="u8"),
        "time": np.full(len(runs), 1_700_000_000_000, dtype="i8"),
        "host": np.array(["elsewhere"] * len(runs), dtype=object),
        "mask": np.array(masks),
        "margin": draw.normal(size=size).astype("f4"),
        "prediction": np.zeros(size, "i2"),
        **columns,
    }
    dims = {"row_digest": ("run", "byte"), "mask": ("run", "train")}
    dims |= dict.fromkeys(("margin", "prediction"), ("run", "target"))
    fills = {"mask": False, "margin": np.nan, "run": -1, "mask_id": -1}
    kinds = {"f": "float64", "i": "int64", "b": "bool", "O": "string"}
    stated = {key: kinds[values.dtype.kind] for key, values in columns.items()}
    return second.write_segment(root, document, algorithm, arrays, stated, dims, fills), arrays


def test_dmstore_reads_compacts_and_verifies_what_was_written_by_hand(lived):
    made = lived.algorithm("plain")
    new = [43, 44, 45]
    name, arrays = by_hand(
        lived,
        "plain",
        new,
        gpu=np.array([True, False, True]),
        note=np.array(["ä", "", "x"], dtype=object),
    )
    assert made.table.segment_names()[-1].rpartition("/")[2] >= name.rpartition("/")[2]
    info = made.table.view()
    assert set(new) <= set(info.run.tolist())
    assert {"gpu", "note"} <= info.columns.keys()
    data = lived.runs("plain").load().sel(run=new)
    assert np.array_equal(data.margin, arrays["margin"])
    assert np.array_equal(data.mask, arrays["mask"])
    assert data.note.values.tolist() == ["ä", "", "x"]
    assert {p.kind for p in verify(lived)} == {"conflict"}
    before = info.content_id()
    agree(lived, "plain")
    assert name in compact(made.table).manifest.absorbed
    assert made.table.view().content_id() == before
    assert {p.kind for p in verify(lived)} == {"conflict"}
    agree(lived, "plain")
    assert np.array_equal(lived.runs("plain").margin.sel(run=new), arrays["margin"])


def test_what_was_written_by_hand_is_checked_as_any_other(lived):
    name, _ = by_hand(lived, "plain", [43, 44])
    path = Path(lived.path, name)
    raw = bytearray(path.read_bytes())
    for key in (b"margin/c/0/0", b"mask/c/0/0"):
        place = raw.index(key) + len(key) + 30
        bad = raw.copy()
        bad[place] ^= 1
        path.write_bytes(bad)
        assert name in {problem.where for problem in verify(lived)}


def test_documents_of_unknown_keys_and_minor_versions_are_read(lived):
    root = Path(lived.path)
    for path in [root / "study.json", *root.glob("algorithms/*/algorithm.json")]:
        document = json.loads(path.read_text())
        path.write_text(json.dumps({**document, "format_version": "1.7", "new": {"deep": [1]}}))
    again = dmstore.open_study(lived.path)
    assert FORMAT_VERSION == "1.0"
    agree(again, "plain")
