"""Target sets added later, and outputs of existing runs on them."""

import shutil
import warnings
from pathlib import Path

import crash
import dask
import numpy as np
import pytest
import xarray as xr
from commands import run, run_json
from helpers import examples, files, fill, make_rows
from later_targets import COUNT, margins, said, targets, write

import dmstore
from dmstore.errors import ConflictError, ExistsError, FormatError, InputError, NotFoundError
from dmstore.intake.ingest import take_in as ingest
from dmstore.storage.table.rows import Rows
from dmstore.training import RunWriter
from dmstore.upkeep.maintenance import compact, status, vacuum
from dmstore.upkeep.verification import verify


@pytest.fixture
def filled(study, algorithm):
    study.add_targets("shifted", targets())
    fill(algorithm, range(100))
    return study


def test_a_set_comes_back_and_never_changes(study):
    given = targets()
    assert study.add_targets("shifted", given) == "new"
    assert study.add_targets("shifted", given) == "present"
    bare = {name.removeprefix("target_"): values for name, values in given.items()}
    assert study.add_targets("shifted", bare) == "present"
    before = files(Path(study.path))
    for change in (
        {"target_label": (given["target_label"] + 1) % 3},
        {"target_id": given["target_id"][::-1]},
        {"target_more": np.zeros(COUNT)},
        {"target_train": given["target_train"][::-1]},
    ):
        with pytest.raises(ExistsError, match="never change"):
            study.add_targets("shifted", {**given, **change})
    with pytest.raises(ExistsError, match="'shifted' exists"):
        study.add_targets("Shifted", given)
    with pytest.raises(ExistsError, match="'test' exists"):
        study.add_targets("test", given)
    with pytest.raises(NotFoundError, match=r"'shif-ted' is not in this study.*dmstore targets"):
        study.target_sets["shif-ted"]
    assert study.target_sets.get("shif-ted") is None
    assert files(Path(study.path)) == before
    opened = dmstore.open_study(study.path)
    found = opened.target_set("shifted")
    assert found.target.values.tolist() == given["target_id"].tolist()
    assert np.array_equal(found.image, given["target_image"])
    assert np.array_equal(found.night, given["target_night"])
    assert np.array_equal(opened.target_train("shifted"), given["target_train"])
    assert opened.annotate("shifted", camera=np.arange(COUNT)) == {"camera": "new"}
    assert opened.target_set("shifted").camera.values[3] == 3
    with pytest.raises(ExistsError, match="came with the set"):
        opened.annotate("shifted", night=given["target_night"])
    assert status(opened)["annotations"]["shifted"] == ["camera", "image", "label", "night"]
    assert list(verify(opened)) == []


BAD = {
    "no labels": ({"target_label": None, "target_id": None}, "every set of examples needs labels"),
    "labels beyond": ({"target_label": np.full(COUNT, 3)}, "0 to 2"),
    "ids twice": ({"target_id": np.zeros(COUNT, int)}, "all different"),
    "invisible ids": ({"target_id": np.array([f"{i}\u200b" for i in range(COUNT)])}, "the name"),
    "escape in ids": ({"target_id": np.array([f"\x1b{i}" for i in range(COUNT)])}, "the name"),
    "too short": ({"target_image": np.zeros((3, 6, 6), np.uint8)}, "11 labels"),
    "trains beyond": ({"target_train": np.full(COUNT, 99)}, "target_train"),
    "both names": ({"label": np.zeros(COUNT, int)}, "one column"),
    "case": ({"Night": np.zeros(COUNT)}, "case alone"),
    "path": ({"../x": np.zeros(COUNT)}, "not allowed"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_sets_change_nothing(study, case):
    change, words = BAD[case]
    before = files(Path(study.path))
    given = {k: v for k, v in {**targets(), **change}.items() if v is not None}
    with pytest.raises(InputError, match=words):
        study.add_targets("shifted", given)
    assert files(Path(study.path)) == before


@pytest.mark.parametrize(
    "name", ["", "a/b", "../x", ".x", "ä", "x\n", "a\x1b", "Class", "train", "x" * 101]
)
def test_bad_names_of_sets(study, name):
    with pytest.raises(InputError, match="target set name"):
        study.add_targets(name, targets())
    assert list(study.target_sets) == ["test"]


def test_outputs_are_partial_until_all_runs_have_them(filled):
    outputs = filled.target_outputs("alpha", "shifted")
    assert outputs.pending().tolist() == list(range(100))
    order = np.random.default_rng(0).permutation(100)[:40]
    write(outputs, order[:25])
    write(outputs, order[25:])
    view = filled.view("alpha", "shifted")
    data = filled.outputs("alpha", "shifted")
    assert data.run.values.tolist() == sorted(order)
    assert data.attrs["pending"] == 60
    assert view.pending.tolist() == sorted(set(range(100)) - set(order.tolist()))
    assert dask.is_dask_collection(data.mask.data)
    assert np.array_equal(data.margin, margins(sorted(order)))
    runs = filled.runs("alpha").sel(run=data.run)
    for name in ("mask", "seed", "split", "accuracy", "time", "mask_id"):
        assert np.array_equal(data[name], runs[name]), name
    assert data.target.values[2] == "shifted-2"
    assert np.array_equal(data.target_label, targets()["target_label"])
    part = data.margin.isel(run=[30, 3, 3, 17], target=slice(None, None, -2))
    assert np.array_equal(part, margins(sorted(order))[[30, 3, 3, 17], ::-2])
    assert np.array_equal(data.margin[5, 7], margins(sorted(order))[5, 7])
    write(outputs, view.pending)
    assert (len(view), view.refresh().pending.tolist(), len(view.refresh())) == (40, [], 100)
    before = view.refresh().content_id
    compact(filled)
    assert view.refresh().content_id == before
    assert np.array_equal(filled.outputs("alpha", "shifted").margin, margins(range(100)))
    # What was pinned before is read from what it was pinned to.
    assert np.array_equal(data.margin, margins(sorted(order)))


def test_compact_vacuum_verify_and_status_know_the_tables(filled):
    outputs = filled.target_outputs("alpha", "shifted")
    write(outputs, range(40))
    write(outputs, range(40, 70))
    found = status(filled)["algorithms"]["alpha"]["outputs_on"]["shifted"]
    assert (found["stored"], found["pending"], found["segments"]) == (70, 30, 2)
    assert "outputs of 70 runs; 30 pending; 2 segments" in run("status", filled.path)[0]
    done = run_json("compact", filled.path, "-Q")["algorithms"]
    assert {name: entry["runs"] for name, entry in done.items()} == {
        "alpha": 100,
        "alpha:shifted": 70,
    }
    removed = run_json("vacuum", filled.path, "--grace", "0s")["removed"]
    assert sum("/outputs/shifted/segments/" in name for name in removed) == 2
    assert list(verify(filled)) == []
    assert np.array_equal(filled.outputs("alpha", "shifted").margin, margins(range(70)))
    plain = xr.open_zarr(next(Path(filled.path).glob("algorithms/alpha/outputs/shifted/base/*")))
    assert np.array_equal(plain.margin, margins(range(70)))
    chunk = next(Path(filled.path).glob("algorithms/alpha/outputs/shifted/base/*/margin/c/0/0"))
    raw = bytearray(chunk.read_bytes())
    raw[len(raw) // 2] ^= 1
    chunk.write_bytes(raw)
    problems = list(verify(filled))
    assert problems
    assert all("outputs/shifted" in problem.where for problem in problems)


def test_writer_resumes_on_a_target_set(filled):
    with RunWriter(filled, "alpha", target_set="shifted", part="1/2", flush_runs=7) as writer:
        runs = list(writer.pending())
        assert [r.id for r in runs] == list(range(0, 100, 2))
        assert np.array_equal(runs[3].mask, filled.algorithm("alpha").masks([6])[0])
        for r in runs[:20]:
            writer.append(r, margin=margins([r.id])[0], prediction=np.zeros(COUNT, int), gpu=1.5)
        writer.append(runs[0], margin=margins([0])[0], prediction=np.zeros(COUNT, int), gpu=1.5)
        with pytest.raises(ConflictError):
            writer.append(0, margin=margins([1])[0], prediction=np.zeros(COUNT, int))
        with pytest.raises(InputError, match="mask is stored"):
            writer.append(3, mask=runs[0].mask, **{k: v[0] for k, v in said([3]).items()})
        with pytest.raises(InputError, match="run 250 is not stored"):
            writer.append(250, **{k: v[0] for k, v in said([250]).items()})
    with RunWriter(filled.path, "alpha", target_set="shifted", part="1/2") as writer:
        rest = list(writer.pending())
        assert [r.id for r in rest] == [r.id for r in runs[20:]]
        writer.append_many(rest, **said([r.id for r in rest]))
    assert len(filled.view("alpha", "shifted")) == 50
    assert np.array_equal(filled.outputs("alpha", "shifted").margin, margins(range(0, 100, 2)))


def test_foreign_runs_too(study):
    made = study.add_algorithm("elsewhere", sampling="foreign")
    masks = np.random.default_rng(0).random((6, 37)) < 0.5
    columns = {"time": np.zeros(6, int), "host": np.full(6, "h"), "seed": np.arange(6)}
    rows = Rows(np.arange(6) * 10, {"mask": masks, "margin": np.zeros((6, 23))}, columns)
    made.table.append(made.complete(rows, "test"))
    study.add_targets("shifted", targets())
    with RunWriter(study, "elsewhere", target_set="shifted", part="2/2") as writer:
        assert list(writer.pending()) == []
    with RunWriter(study, "elsewhere", target_set="shifted") as writer:
        runs = list(writer.pending())
        assert [(r.id, r.seed) for r in runs] == [(i * 10, i) for i in range(6)]
        assert np.array_equal([r.mask for r in runs], masks)
        writer.append_many(runs[:4], margin=margins(range(4)))
    found = status(study)["algorithms"]["elsewhere"]
    assert found["outputs_on"]["shifted"]["pending"] == 2
    assert sum(found["splits"].values()) == 6


def test_ingest_of_outputs(filled, tmp_path):
    good = {"run": np.arange(30), **said(range(30)), "gpu": np.arange(30)}
    np.savez(tmp_path / "good.npz", **good, target_set="shifted", algorithm="alpha")
    arguments = ("ingest", filled.path, "alpha", "--targets", "shifted", "-Q")
    found = run_json(*arguments, tmp_path / "good.npz")
    assert (found["new"], found["target_set"]) == (30, "shifted")
    assert run_json(*arguments, tmp_path / "good.npz")["present"] == 30
    bad = {
        "mask.npz": ({**good, "mask": np.zeros((30, 37), bool)}, "no mask"),
        "set.npz": ({**good, "target_set": "other"}, "ingest it where it belongs"),
        "short.npz": ({**good, "margin": good["margin"][:, :5]}, "expected (30, 11)"),
        "none.npz": ({"run": good["run"], "margin": good["margin"]}, "no mask (found"),
        "unknown.npz": ({**good, "run": np.arange(90, 120)}, "run 100 is not stored"),
        "other.npz": ({**good, "margin": good["margin"] + 1}, "other content"),
        "nan.npz": ({**good, "margin": good["margin"] * np.nan}, "NaN"),
        "reserved.npz": ({**good, "run_digest": np.arange(30)}, "run_digest"),
        "ragged.npz": ({**good, "gpu": np.arange(3)}, "30 runs"),
    }
    before = files(Path(filled.path))
    for name, (arrays, words) in bad.items():
        np.savez(tmp_path / name, **arrays)
        err = run(*arguments, tmp_path / name, code=1)[1]
        assert words in err, (name, err)
    (tmp_path / "torn.npz").write_bytes(b"PK")
    assert "torn.npz" in run(*arguments, tmp_path / "torn.npz", code=1)[1]
    assert files(Path(filled.path)) == before
    with pytest.raises(InputError, match="part of the runs"):
        filled.target_outputs("alpha", "test")
    with pytest.raises(NotFoundError, match="dmstore targets"):
        filled.target_outputs("alpha", "nowhere")
    result = ingest(
        filled.algorithm("alpha"),
        [tmp_path / "good.npz"],
        outputs=filled.target_outputs("alpha", "shifted"),
    )
    assert (result.new, result.present) == (0, 30)


def test_outputs_of_a_run_that_was_replaced_are_not_shown(filled, monkeypatch):
    """A row says which content its run had: a run trained anew under the same id has none yet."""
    outputs = filled.target_outputs("alpha", "shifted")
    write(outputs, range(10))
    real = filled.algorithm("alpha").table.view()
    digest = real.digest.copy()
    digest[3] ^= 1
    from dataclasses import replace

    from dmstore.storage.table.view import View
    from dmstore.study.target_outputs import joined

    changed = View(real.table, replace(real.snapshot, digest=digest))
    position = joined(changed, outputs.table.view())
    assert position[:11].tolist() == [0, 1, 2, -1, 4, 5, 6, 7, 8, 9, -1]


def add_set(path):
    dmstore.open_study(path).add_targets("shifted", targets())


def test_killed_at_any_call_the_set_is_whole_or_not_there(tmp_path):
    dmstore.create_study(tmp_path / "new", examples(), seed=1)
    died, at = True, 0
    while died:
        at += 1
        path = tmp_path / f"s{at}"
        shutil.copytree(tmp_path / "new", path)
        died, _ = crash.run(add_set, str(path), at)
        study = dmstore.open_study(path)
        if "shifted" in study.target_sets:
            assert np.array_equal(study.target_set("shifted").night, targets()["target_night"])
        # A group that no document names yet is told of until the set is added.
        assert {p.kind for p in verify(study)} <= {"unreferenced"}
        add_set(path)
        assert list(verify(study)) == []
        assert study.target_set("shifted").sizes["target"] == COUNT
        # Groups that no document names go, the named one stays.
        study.objects.now = lambda now=study.objects.now: now() + 7200
        vacuum(study, grace=0)
        left = [i.name for i in study.objects.entries("examples/") if i.name.count("/") == 1]
        assert left == [study.target_sets["shifted"]["path"]]
        assert study.objects.leftovers() == []
    assert at > 6


def test_strange_documents_of_sets(filled):
    where = Path(filled.path, "targets/shifted.json")
    raw = where.read_text()
    for change, words in (
        (("examples/shifted", "examples/../../shifted"), "path"),
        ((filled.uuid, "0" * 32), "does not belong here"),
        (('"name": "shifted"', '"name": "other"'), "does not belong here"),
        (('"format_version": "1', '"format_version": "2'), "store format 2"),
        ((raw, "{" * 50_000), "not valid JSON"),
    ):
        where.write_text(raw.replace(*change))
        assert where.read_text() != raw
        with pytest.raises(FormatError, match=words):
            _ = filled.target_sets
        assert [p.where for p in verify(filled)] == ["targets"]
    where.write_text(raw)
    folder = Path(filled.path, "algorithms/alpha/outputs/not-a-set")
    folder.mkdir(parents=True)
    assert [p.kind for p in verify(filled)] == ["unknown"]
    # The runs themselves are read whatever lies beside them.
    assert len(filled.view("alpha")) == 100


def test_command_adds_a_set(study, tmp_path):
    np.savez(tmp_path / "t.npz", **targets())
    found = run_json("targets", study.path, "shifted", tmp_path / "t.npz")
    assert (found["targets"], found["columns"], found["added"]) == (
        COUNT,
        ["image", "label", "night"],
        True,
    )
    assert "already there" in run("targets", study.path, "shifted", tmp_path / "t.npz")[0]
    assert "11 targets in 'shifted'" in run("status", study.path)[0]
    assert "no such file" in run("targets", study.path, "x", tmp_path / "none.npz", code=1)[1]


def test_status_tells_blocks_and_repeats(study):
    made = study.add_algorithm("r", runs=9, repeats=3)
    made.extend(6, repeats=2)
    fill(made, [0, 1, 2, 9, 10, 11, 12])
    found = status(study)["algorithms"]["r"]
    assert [(b["repeats"], b["masks"], b["stored"], b["pending"]) for b in found["blocks"]] == [
        (3, 3, 3, 6),
        (2, 3, 4, 2),
    ]
    assert (found["pending"], found["retracted"], sum(found["splits"].values())) == (8, 0, 7)
    text = run("status", study.path)[0]
    assert "runs 0 to 8, 3 a mask: 3 stored, 6 pending" in text
    assert "8 runs pending" in text


def test_many_segments_make_few_even_chunks_and_stable_names(study, algorithm):
    ids = np.arange(260)
    for start in range(0, 260, 10):
        algorithm.table.append(make_rows(algorithm, ids[start : start + 10]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        one, two = study.runs("alpha"), study.runs("alpha")
        assert one.mask.data.chunks == ((260,), (37,))
        assert len(one.margin.data.dask) <= 2
        assert one.margin.data.name == two.margin.data.name
        assert one.margin.data.name != one.prediction.data.name
        expected = make_rows(algorithm, ids).arrays["margin"]
        assert np.array_equal(one.margin, expected)
        late = one.sel(run=(one.time > np.datetime64("2023-01-01")) & (one.split != "eval"))
        assert np.array_equal(late.margin, expected[one.split.values != "eval"])
    fill(algorithm, [260])
    assert study.runs("alpha").margin.data.name != one.margin.data.name
    compact(study)
    fill(algorithm, range(261, 300))
    after = study.runs("alpha")
    assert after.margin.data.chunks[0] == (300,)
    assert np.array_equal(after.margin[:260], expected)
    rest = make_rows(algorithm, range(261, 300)).arrays["margin"]
    assert np.array_equal(after.margin[261:], rest)
