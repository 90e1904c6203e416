"""Merging studies, making studies of what is there, going on after a kill, memory."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import Done, examples, fill, make_rows

import dmstore
from dmstore.errors import CorruptionError, InputError, StorageError
from dmstore.intake.adopt import adopt
from dmstore.intake.ingest import take_in as ingest
from dmstore.readers.source import Request
from dmstore.readers.study import StudySource
from dmstore.storage.acts.compact import compact
from dmstore.storage.acts.verify import verify
from dmstore.storage.table import base, segment
from dmstore.storage.table.rows import MAX_RUN, Rows
from dmstore.storage.table.table import Table
from dmstore.storage.table.view import View
from dmstore.upkeep.retraction import restore_runs, retract_runs
from dmstore.upkeep.verification import verify as verify_study

TRAIN, TARGET = 37, 23


def store(folder, count=40, seed=0, half=False, dtype=np.float32):
    """A training store of `count` models; with `half`, masks of one size."""
    folder.mkdir(parents=True)
    draw = np.random.default_rng(seed)
    mask = draw.random((count, TRAIN)) < 0.5
    if half:
        mask = np.array([draw.permutation(TRAIN) < 18 for _ in range(count)])
    weight = np.random.default_rng(99).normal(size=(TRAIN, TARGET))
    margin = (mask @ weight + draw.normal(size=(count, TARGET))).astype(dtype)
    np.save(folder / "masks.npy", mask)
    np.save(folder / "margins.npy", margin)
    np.save(folder / "_completed.npy", np.ones(count, dtype=bool))
    return folder


def content(algorithm):
    return algorithm.table.view().content_id()


def copy(study, path):
    shutil.copytree(study.path, path)
    return dmstore.open_study(path)


# Two labs


def test_two_labs_runs_of_one_study_become_the_same_whole(study, algorithm, tmp_path):
    fill(algorithm, range(20))
    other = copy(study, tmp_path / "other.dm").algorithm("alpha")
    fill(algorithm, range(20, 150))
    fill(other, range(150, 300))
    one = ingest(algorithm, [other.objects.url])
    two = ingest(other, [study.path])
    assert (one.new, one.present, one.errors) == (150, 20, [])
    assert (two.new, two.present) == (130, 170)
    assert content(algorithm) == content(other)
    assert algorithm.table.view().read(["accuracy"])["accuracy"].max() == 1
    assert len(algorithm.pending()) == 0
    assert list(verify_study(study)) == []
    again = ingest(algorithm, [other.objects.url])
    assert (again.new, again.present) == (0, 300)


def test_labs_that_gave_one_id_to_different_runs(study, algorithm, tmp_path):
    fill(algorithm, range(10))
    other = copy(study, tmp_path / "other.dm").algorithm("alpha")
    fill(algorithm, range(10, 30))
    fill(other, range(20, 40), seed=1)
    before = content(algorithm)
    result = ingest(algorithm, [other.objects.url])
    assert (result.new, result.conflicting, result.refused) == (0, 10, 20)
    assert "run 20 is stored with other content" in result.errors[0]
    assert "--sampling foreign" in result.errors[0]
    assert content(algorithm) == before
    # The way out that the error names: every run once, the shared ones once too.
    both = study.add_algorithm(
        "both", sampling="foreign", alpha=None, outputs=["margin", "prediction"]
    )
    lab = dmstore.open_study(other.objects.url).add_algorithm(
        "lab", sampling="foreign", alpha=None, outputs=["margin", "prediction"]
    )
    paths = [other.objects.url, copy(study, tmp_path / "third.dm").path]
    for _ in range(2):
        result = ingest(both, paths, request=Request(algorithm="alpha"))
    assert (result.new, result.present, result.errors) == (0, 60, [])
    assert len(both.table.view()) == 50
    assert ingest(lab, paths[1:], request=Request(algorithm="alpha")).new == 30


def foreign_rows(algorithm, ids, seed=0):
    """Rows of a foreign algorithm: outputs follow from id and seed."""
    draw = np.random.default_rng([seed, *ids])
    arrays = {
        "mask": draw.random((len(ids), TRAIN)) < 0.5,
        "margin": draw.normal(size=(len(ids), TARGET)).astype(np.float32),
    }
    columns = {"time": np.asarray(ids), "host": np.full(len(ids), "h")}
    return algorithm.complete(Rows(np.asarray(ids), arrays, columns), "test rows")


def test_a_run_is_one_run_through_however_many_studies(tmp_path):
    labs = {
        name: dmstore.create_study(tmp_path / f"{name}.dm", examples(), seed=1) for name in "stu"
    }
    found = {n: s.add_algorithm("a", sampling="foreign", alpha=None) for n, s in labs.items()}
    found["s"].table.append(foreign_rows(found["s"], range(10)))
    taken = [
        ingest(found[into], [labs[source].path])
        for into, source in ("ts", "st", "us", "ut", "tu", "su")
    ]
    assert [(one.new, one.present) for one in taken] == [
        *((10, 0), (0, 10), (10, 0)),
        *((0, 10), (0, 10), (0, 10)),
    ]
    # A run of the second lab comes to the first by the third, and directly, once.
    found["t"].table.append(foreign_rows(found["t"], [77]))
    assert ingest(found["u"], [labs["t"].path]).new == 1
    assert ingest(found["s"], [labs["u"].path]).new == 1
    assert ingest(found["s"], [labs["t"].path]).present == 11
    # What was retracted at home does not come home.
    retract_runs(found["s"], ["run=3"], reason="bad memory")
    again = ingest(found["s"], [labs["t"].path])
    assert (again.new, again.present, again.skipped, again.errors) == (0, 10, 1, [])


def test_a_copy_of_the_plan_of_another_algorithm_is_refused(study, tmp_path):
    mine = study.add_algorithm("c", runs=10, config={"lr": 1})
    other = study.add_algorithm("b", runs=10, alpha=0.25)
    copied = copy(study, tmp_path / "copy.dm").algorithm("b")
    copied.extend(30)
    fill(copied, range(40))
    result = ingest(mine, [tmp_path / "copy.dm"], request=Request(algorithm="b"))
    assert "another alpha, config than 'c' here" in result.errors[0]
    assert "--sampling foreign" in result.errors[0]
    assert (len(mine.table.view()), mine.planned_count) == (0, 10)
    # The very algorithm is taken, whatever it is called with.
    assert ingest(other, [tmp_path / "copy.dm"]).new == 40


def test_a_refused_source_does_not_extend_the_plan(study, algorithm, tmp_path):
    fill(algorithm, range(10))
    other = copy(study, tmp_path / "other.dm").algorithm("alpha")
    other.extend(50)
    fill(other, range(300, 350))
    fill(other, [20])
    fill(algorithm, [20], seed=1)
    result = ingest(algorithm, [tmp_path / "other.dm"])
    assert result.conflicting == 1
    assert algorithm.planned_count == 300


def test_runs_that_were_retracted_there_are_told(study, algorithm, tmp_path):
    """In a plain copy, and where ids are made anew: what is stored here stays, with a warning."""
    fill(algorithm, range(20))
    foreign = dmstore.create_study(tmp_path / "f.dm", examples(), seed=9).add_algorithm(
        "alpha", sampling="foreign", outputs=["margin", "prediction"]
    )
    less = dmstore.create_study(tmp_path / "l.dm", examples(), seed=9).add_algorithm(
        "alpha", sampling="foreign", outputs=["margin"]
    )
    other = copy(study, tmp_path / "copy.dm").algorithm("alpha")
    for into in (algorithm, foreign, less):
        assert ingest(into, [tmp_path / "copy.dm"]).warnings == []
    retract_runs(other, ["run=3-5"], reason="bad memory")
    fill(other, [5], seed=1)
    retract_runs(other, ["run=7"], reason="bad memory")
    fill(other, range(20, 25))
    retract_runs(other, ["run=24"], reason="never stored here")
    result = ingest(algorithm, [tmp_path / "copy.dm"])
    assert (
        "copy.dm: 4 runs stored in 'alpha' here were retracted there (run 3, 4, 5, 7); "
        "'dmstore retract' takes them out here too" in result.warnings[0]
    )
    for into in (foreign, less):
        result = ingest(into, [tmp_path / "copy.dm"])
        assert "4 runs stored in 'alpha' here were retracted there (run " in result.warnings[0]
        assert (result.new, result.errors) == (5, [])
        shown = result.warnings[0].partition("(run ")[2].partition(")")[0].split(", ")
        retract_runs(into, [f"run={','.join(shown)}"], reason="there too")
        assert ingest(into, [tmp_path / "copy.dm"]).warnings == []


def test_runs_that_were_retracted_here_stay_out(study, algorithm, tmp_path):
    fill(algorithm, range(20))
    other = copy(study, tmp_path / "copy.dm").algorithm("alpha")
    fill(other, range(20, 40))
    retract_runs(algorithm, ["run=3-4"], reason="bad memory")
    fill(algorithm, [3], seed=5)
    before = len(algorithm.table.segment_names())
    result = ingest(algorithm, [tmp_path / "copy.dm"])
    assert (result.new, result.present, result.skipped, result.errors) == (20, 18, 2, [])
    assert "copy.dm: 2 runs skipped, retracted here; 'dmstore retract " in result.warnings[0]
    assert "study.dm alpha --restore --where" in result.warnings[0]
    segments = algorithm.table.segment_names()
    assert len(segments) > before
    assert ingest(algorithm, [tmp_path / "copy.dm"]).skipped == 2
    assert algorithm.table.segment_names() == segments
    restore_runs(algorithm, ["run=4"], reason="it was right")
    assert ingest(algorithm, [tmp_path / "copy.dm"]).skipped == 1


def test_a_refused_source_tells_of_its_retracted_runs_too(study, algorithm, tmp_path):
    fill(algorithm, range(20))
    other = copy(study, tmp_path / "copy.dm").algorithm("alpha")
    retract_runs(algorithm, ["run=3-4"], reason="bad memory")
    fill(algorithm, [30], seed=1)
    fill(other, [30, 31])
    result = ingest(algorithm, [tmp_path / "copy.dm"])
    assert (result.new, result.present, result.conflicting) == (0, 0, 1)
    assert (result.refused, result.skipped) == (19, 2)
    assert "2 runs skipped, retracted here" in result.warnings[0]


def test_a_source_that_fails_half_way_is_counted(study, tmp_path, monkeypatch):
    into = study.add_algorithm("f", sampling="foreign", alpha=None)
    folder = store(tmp_path / "store", 50)
    mask = np.load(folder / "masks.npy").astype(np.uint8)
    mask[35, 0] = 2
    np.save(folder / "masks.npy", mask)
    monkeypatch.setattr(segment, "MAX_ROWS", 10)
    result = ingest(into, [folder])
    assert "other than 0 and 1" in result.errors[0]
    # What fills an empty table is there as a whole or not at all.
    assert result.new == len(into.table.view()) == 0
    first = store(tmp_path / "first", 5, seed=3)
    ingest(into, [first], request=Request(first_run=1000))
    result = ingest(into, [folder])
    assert "other than 0 and 1" in result.errors[0]
    assert (result.new, len(into.table.view())) == (30, 35)


def test_scattered_rows_of_a_study_are_read_in_bounded_parts(
    study, algorithm, tmp_path, monkeypatch
):
    ids = np.arange(300)
    fill(algorithm, ids[ids % 20 != 0])
    other = copy(study, tmp_path / "other.dm").algorithm("alpha")
    fill(other, ids[ids % 20 == 0])
    ingest(other, [study.path])
    read = []
    real = View.read

    def spy(self, names, start=0, stop=None):
        found = real(self, names, start, stop)
        if "mask" in names:
            read.append(len(found["mask"]))
        return found

    monkeypatch.setattr(View, "read", spy)
    source = StudySource(tmp_path, other, algorithm, kept=True)
    places = np.concatenate([np.arange(0, 200, 20), [299]])
    rows = source.read(places, ["margin"])
    assert max(read) <= len(places)
    assert rows.run.tolist() == source.ids[places].tolist()
    monkeypatch.undo()
    assert np.array_equal(rows.arrays["mask"], other.table.view().read(["mask"])["mask"][places])
    assert np.array_equal(source.masks(places), rows.arrays["mask"])


def test_another_study_of_the_same_examples(study, algorithm, tmp_path):
    other = dmstore.create_study(tmp_path / "other.dm", examples(), seed=8)
    theirs = other.add_algorithm("alpha", runs=50, outputs=["margin", "prediction"])
    fill(theirs, range(50))
    result = ingest(algorithm, [other.path])
    assert "not a copy of this one" in result.errors[0]
    here = study.add_algorithm("theirs", sampling="foreign", alpha=None, outputs=["margin"])
    done = Done("ingest", study.path, "theirs", other.path, "--from", "alpha", "--json", "-Q")
    found = json.loads(done.stdout)
    assert (found["new"], found["sources"][0]["format"]) == (50, "study")
    view = here.table.view()
    assert view.run.min() >= 0
    assert view.run.max() < MAX_RUN
    rows = view.read(["mask", "margin", "seed", "source_run", "accuracy"])
    expected = theirs.table.view().read(["run", "mask", "margin", "seed"])
    for name in ("mask", "margin", "seed"):
        assert np.array_equal(rows[name], expected[name])
    assert rows["source_run"].tolist() == [f"{other.uuid}/alpha/{run}" for run in expected["run"]]
    again = ingest(here, [other.path], request=Request(algorithm="alpha"))
    assert (again.new, again.present) == (0, 50)
    # More of theirs later: only those are new.
    theirs.extend(10)
    fill(theirs, range(50, 60))
    assert ingest(here, [other.path], request=Request(algorithm="alpha")).new == 10


def test_studies_that_cannot_be_merged(study, algorithm, tmp_path):
    mine = study.add_algorithm("f", sampling="foreign", alpha=None)
    changed = examples()
    changed["train_id"] = np.array([f"x{i}" for i in range(TRAIN)])
    others = dmstore.create_study(tmp_path / "ids.dm", changed, seed=3)
    others.add_algorithm("f", sampling="foreign", alpha=None)
    alike = dmstore.create_study(tmp_path / "alike.dm", examples(), seed=4)
    alike.add_algorithm("f", sampling="foreign", alpha=None, outputs=["margin:float16"])
    broken = copy(alike, tmp_path / "broken.dm")
    (tmp_path / "broken.dm" / "study.json").write_text("{}")
    for path, words in (
        (others.path, "train units are others"),
        (alike.path, "declared alike"),
        (broken.path, "format_version"),
        (study.path, "this study itself"),
    ):
        (error,) = ingest(mine, [path]).errors
        assert words in error
        assert "\n" not in error
    (error,) = ingest(mine, [alike.path], request=Request(algorithm="nobody")).errors
    assert "--from" in error
    assert len(mine.table.view()) == 0


def test_a_damaged_study_brings_nothing_wrong(study, algorithm, tmp_path):
    fill(algorithm, range(40))
    other = copy(study, tmp_path / "other.dm")
    segment = next((tmp_path / "other.dm" / "algorithms/alpha/runs/segments").rglob("*.zip"))
    raw = bytearray(segment.read_bytes())
    raw[raw.index(b"mask/c/0/0") + 60] ^= 255
    segment.write_bytes(raw)
    mine = study.add_algorithm(
        "f", sampling="foreign", alpha=None, outputs=["margin", "prediction"]
    )
    result = ingest(mine, [other.path], request=Request(algorithm="alpha"))
    assert result.errors
    assert "\n" not in result.errors[0]
    assert len(mine.table.view()) == 0


# A study from what is there


def test_ids_alpha_and_sampling_in_one_command(tmp_path):
    folder = store(tmp_path / "s", half=True, dtype=np.float16)
    path = tmp_path / "n.dm"
    done = Done("ingest", path, "base", folder, "--create", "--seed", 5)
    assert done.returncode == 0
    assert "base: 40 runs new" in done.stdout
    assert "masks of 18 of 37 train units" in done.stderr
    study = dmstore.open_study(path)
    base = study.algorithm("base")
    assert (base.alpha, study.seed) == (18 / 37, 5)
    assert base.document["config"]["imported"]["alpha"] == "exact"
    assert base.outputs["margin"]["dtype"] == "float16"
    assert study.train["train"].values.tolist() == list(range(TRAIN))
    runs = study.runs("base")
    assert runs["margin"].dtype == np.float16
    assert runs["margin"].load().shape == (40, TARGET)
    # A second algorithm of the same study, from another folder.
    second = store(tmp_path / "t", seed=1)
    assert Done("ingest", path, "second", second, "--create").returncode == 0
    assert dmstore.open_study(path).algorithms == ["base", "second"]


def test_creation_is_safe_to_repeat_after_a_kill(tmp_path, monkeypatch):
    folder = store(tmp_path / "s")
    path = tmp_path / "n.dm"

    def killed(*arguments, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("dmstore.study.study.Study.add_algorithm", killed)
        with pytest.raises(KeyboardInterrupt):
            adopt(path, "base", folder)
    uuid = dmstore.open_study(path).uuid
    made = adopt(path, "base", folder)
    assert adopt(path, "base", folder).uuid == made.uuid
    assert dmstore.open_study(path).uuid == uuid
    assert ingest(made, [folder]).new == 40


def test_examples_give_ids_and_labels(tmp_path):
    folder = store(tmp_path / "s")
    arrays = {**examples(), "train_id": np.array([f"u{i}" for i in range(TRAIN)])}
    np.savez(tmp_path / "e.npz", **arrays)
    path = tmp_path / "n.dm"
    given = ("--create", "--examples", tmp_path / "e.npz")
    for _ in range(2):
        assert Done("ingest", path, "base", folder, *given).returncode == 0
    study = dmstore.open_study(path)
    assert study.train["train"].values[3] == "u3"
    assert np.array_equal(study.label("train"), arrays["train_label"])
    np.savez(tmp_path / "e.npz", **examples())
    done = Done("ingest", path, "base", folder, *given)
    assert (done.returncode, "other ids" in done.stderr) == (1, True)
    np.savez(tmp_path / "e.npz", **examples(train=36))
    done = Done("ingest", tmp_path / "m.dm", "base", folder, *given)
    assert "36 train units" in done.stderr
    assert not (tmp_path / "m.dm").exists()


def test_what_cannot_become_a_study(study, tmp_path):
    folder = store(tmp_path / "s")
    np.savez(tmp_path / "w.npz", run=np.arange(2), mask=np.ones((2, 3), bool))
    np.savez(tmp_path / "scores.npz", margin=np.ones((2, 3)))
    (tmp_path / "notes.csv").write_text("a,b")
    (tmp_path / "empty").mkdir()
    for source, words in (
        (tmp_path / "w.npz", "dmstore init.*--format arrays"),
        (study.path, "without --create"),
        (tmp_path / "none", "no such file"),
        (tmp_path / "notes.csv", "holds no runs that are read"),
        (tmp_path / "empty", "holds no runs that are read"),
        (tmp_path / "scores.npz", "holds no 'mask'.*--format arrays"),
    ):
        with pytest.raises(InputError, match=words):
            adopt(tmp_path / "n.dm", "base", source)
    with pytest.raises(InputError, match="name"):
        adopt(tmp_path / "n.dm", "../base", folder)
    np.save(folder / "masks.npy", np.zeros((40, TRAIN), dtype=bool))
    with pytest.raises(InputError, match="masks are empty"):
        adopt(tmp_path / "n.dm", "base", folder)
    np.save(folder / "masks.npy", np.zeros((40, TRAIN - 1), dtype=bool))
    with pytest.raises(InputError, match="name a new study"):
        adopt(study.path, "base", folder)
    (folder / "margins.npy").unlink()
    with pytest.raises(InputError, match="holds no output"):
        adopt(tmp_path / "m.dm", "base", folder)
    assert not (tmp_path / "m.dm").exists()


def test_without_labels_two_algorithms_are_compared_and_reported(tmp_path):
    path = tmp_path / "n.dm"
    for seed, name in enumerate(("one", "two")):
        folder = store(tmp_path / name, count=120, seed=seed)
        assert Done("ingest", path, name, folder, "--create", "-Q").returncode == 0
        assert Done("fit", path, name, "--lams", 8, "-Q").returncode == 0
    done = Done("compare", path, "one", "two", "--components", 2, "--top", 3)
    assert done.returncode == 0, done.stderr
    done = Done("report", path, "one", "two", "--json")
    assert done.returncode == 0, done.stderr
    page = Path(json.loads(done.stdout)["report"]).read_text()
    assert "A1" in page
    assert "B1" in page
    study = dmstore.open_study(path)
    assert study.class_names == []
    assert study.label().tolist() == [0] * TARGET
    assert "label" not in study.runs("one").coords
    assert study.target(3).top(2)["label"].shape == (2, 2)
    for arguments in (
        ("add", path, "t", "--runs", 5, "--task", "dmstore.training.tasks:dense"),
        ("train", path, "t", "-Q"),
    ):
        done = Done(*arguments)
        assert "internal" not in done.stderr
    assert (done.returncode, "images" in done.stderr) == (1, True)


def test_examples_need_labels_or_ids(tmp_path):
    with pytest.raises(InputError, match="'target_id'"):
        dmstore.create_study(tmp_path / "n.dm", {"train_id": np.arange(3), "target_x": np.ones(3)})
    made = dmstore.create_study(
        tmp_path / "n.dm", {"train_id": np.arange(3), "target_label": np.array([0, 4])}
    )
    assert made.document["classes"] == 5
    assert made.label().tolist() == [0, 4]


# Blocks


def test_a_killed_ingest_goes_on_where_it_was(study, tmp_path, monkeypatch):
    algorithm = study.add_algorithm("f", sampling="foreign", alpha=None)
    folder = store(tmp_path / "s", count=100)
    ingest(algorithm, [store(tmp_path / "first", 5)], request=Request(first_run=1000))
    monkeypatch.setattr(segment, "MAX_ROWS", 16)
    append, calls = Table.append, []

    def fails(self, rows):
        calls.append(len(rows))
        if len(calls) == 4:
            msg = "the disk is full"
            raise StorageError(msg)
        return append(self, rows)

    monkeypatch.setattr(Table, "append", fails)
    with pytest.raises(StorageError):
        ingest(algorithm, [folder])
    # Two are written at a time: the others that were under way were stored.
    assert set(calls) == {16}
    stored = len(algorithm.table.view()) - 5
    assert 48 <= stored <= 80
    seen = []
    result = ingest(algorithm, [folder], progress=lambda _, *steps: seen.append(steps))
    assert (result.new, result.present) == (100 - stored, stored)
    assert seen[0] == (stored, 100)
    assert seen[-1] == (100, 100)
    assert sorted(algorithm.table.view().run.tolist()) == [*range(100), *range(1000, 1005)]


def test_a_source_that_changes_is_a_conflict_not_a_mixture(study, tmp_path):
    algorithm = study.add_algorithm("f", sampling="foreign", alpha=None)
    folder = store(tmp_path / "s")
    np.save(folder / "_completed.npy", np.arange(40) < 20)
    assert ingest(algorithm, [folder]).new == 20
    margin = np.load(folder / "margins.npy")
    margin[7] += 1
    np.save(folder / "margins.npy", margin)
    np.save(folder / "_completed.npy", np.ones(40, dtype=bool))
    result = ingest(algorithm, [folder])
    assert (result.new, result.conflicting, result.refused) == (0, 1, 39)
    assert "run 7" in result.errors[0]


def test_sources_and_workers_files_in_one_call(study, tmp_path):
    algorithm = study.add_algorithm("f", sampling="foreign", alpha=None)
    folder = store(tmp_path / "s")
    np.savez(
        tmp_path / "w.npz",
        run=np.arange(100, 103),
        mask=np.ones((3, TRAIN), dtype=bool),
        margin=np.ones((3, TARGET), dtype=np.float32),
    )
    (tmp_path / "bad.beton").write_bytes(b"junk")
    done = Done(
        "ingest", study.path, "f", folder, tmp_path / "w.npz", tmp_path / "bad.beton", "--json"
    )
    found = json.loads(done.stdout)
    assert (done.returncode, found["new"], found["files"]) == (1, 43, 3)
    assert "bad.beton" in found["errors"][0]
    assert len(algorithm.table.view()) == 43


def test_planned_rows_and_workers_rows_are_the_same_rows(study, tmp_path):
    planned = study.add_algorithm("p", runs=40)
    rows = make_rows(planned, range(40))
    folder = store(tmp_path / "s")
    np.save(folder / "masks.npy", rows.arrays["mask"])
    np.save(folder / "margins.npy", rows.arrays["margin"])
    np.savez(tmp_path / "w.npz", run=rows.run, **rows.arrays)
    assert ingest(planned, [folder]).new == 40
    assert ingest(planned, [tmp_path / "w.npz"]).present == 40


@pytest.mark.slow
def test_memory_stays_bounded(tmp_path):
    """Masks of 640 MB in less than 400 MB of memory, most of which is the interpreter and zarr."""
    folder = tmp_path / "s"
    folder.mkdir()
    count, train, target = 16_000, 40_000, 50
    mask = np.lib.format.open_memmap(folder / "masks.npy", "w+", bool, (count, train))
    draw = np.random.default_rng(0)
    for start in range(0, count, 1000):
        mask[start : start + 1000] = np.unpackbits(
            draw.integers(0, 256, (1000, train // 8), dtype=np.uint8), axis=1
        )
    del mask
    np.save(folder / "margins.npy", draw.normal(size=(count, target)).astype(np.float16))
    np.save(folder / "_completed.npy", np.ones(count, dtype=bool))
    # Not ru_maxrss, which a child inherits from whoever started it.
    script = (
        "import sys; from dmstore.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "finally: print([x for x in open('/proc/self/status') if 'VmHWM' in x][0], file=sys.stderr)\n"
    )
    command = [sys.executable, "-c", script, "ingest", str(tmp_path / "n.dm"), "x", str(folder)]
    done = subprocess.run([*command, "--create", "-Q"], capture_output=True, text=True, check=True)
    assert "16000 runs new" in done.stdout
    assert int(done.stderr.split()[-2]) < 400_000


# A source that fills an empty table


def large(folder, count=9000):
    """A store of more than two blocks, with rows in each that are no runs."""
    store(folder, count)
    margin = np.load(folder / "margins.npy")
    margin[[5, 4100]] = np.nan
    margin[6] = 0
    np.save(folder / "margins.npy", margin)
    mask = np.load(folder / "masks.npy")
    mask[8000] = False
    np.save(folder / "masks.npy", mask)
    return folder


def test_a_source_fills_an_empty_table_at_once(tmp_path, monkeypatch):
    folder = large(tmp_path / "store")
    filled = adopt(tmp_path / "a.dm", "base", folder, seed=1)
    result = ingest(filled, [folder])
    assert (result.new, result.skipped, result.errors) == (8996, 4, [])
    view = filled.table.view()
    assert (view.manifest.version, view.manifest.action) == (1, "ingest")
    assert not filled.table.segment_names()
    assert list(verify(filled.table, filled.check_rows)) == []
    assert not view.snapshot.needs_compaction()
    # The other way, by segments and a compaction, stores the very same.
    monkeypatch.setattr("dmstore.intake.ingest.fill", lambda *_: None)
    appended = adopt(tmp_path / "b.dm", "base", folder, seed=1)
    again = ingest(appended, [folder])
    assert vars(again) == {**vars(result), "sources": again.sources}
    assert len(appended.table.segment_names()) > 3
    assert content(appended) == content(filled)
    compact(appended.table)
    names = ["mask", "margin", "mask_id", "repeat", "seed", "host"]
    one, other = view.read(names), appended.table.view().read(names)
    order = np.argsort(appended.table.view().run)
    assert all(np.array_equal(one[name], other[name][order]) for name in names)


def test_an_ingest_into_a_filled_table_appends(tmp_path):
    folder = store(tmp_path / "store", 40)
    algorithm = adopt(tmp_path / "a.dm", "base", folder)
    assert ingest(algorithm, [folder]).new == 40
    assert ingest(algorithm, [folder]).present == 40
    more = store(tmp_path / "more", 30, seed=5)
    assert ingest(algorithm, [more], request=Request(first_run=40)).new == 30
    view = algorithm.table.view()
    assert (len(view), view.manifest.version, len(view.segments)) == (70, 1, 1)


def test_rows_stored_while_a_source_fills_are_not_lost(tmp_path, monkeypatch):
    """Another host appends and commits between the look and the commit: the source is appended."""
    folder = store(tmp_path / "store", 40)
    more = store(tmp_path / "more", 30, seed=5)
    algorithm = adopt(tmp_path / "a.dm", "base", folder)
    check, calls = base.check, []

    def slow(table, *arguments):
        check(table, *arguments)
        if not calls:
            calls.append(1)
            other = dmstore.open_study(tmp_path / "a.dm").algorithm("base")
            assert ingest(other, [more], request=Request(first_run=100)).new == 30

    monkeypatch.setattr(base, "check", slow)
    assert ingest(algorithm, [folder]).new == 40
    view = algorithm.table.view()
    assert sorted(view.run) == [*range(40), *range(100, 130)]
    assert list(verify(algorithm.table, algorithm.check_rows)) == []
    assert len(algorithm.table.objects.children(f"{algorithm.table.prefix}base/")) == 1


@pytest.mark.parametrize("seed", [0, 5])
def test_two_hosts_that_fill_at_once_store_no_row_twice(tmp_path, monkeypatch, seed):
    """The second to commit finds the rows of the first, or other content under their ids."""
    folder = store(tmp_path / "store", 40)
    theirs = store(tmp_path / "theirs", 30, seed=seed)
    if seed == 0:
        for name in ("masks", "margins", "_completed"):
            np.save(theirs / f"{name}.npy", np.load(folder / f"{name}.npy")[:30])
    algorithm = adopt(tmp_path / "a.dm", "base", folder)
    check, calls = base.check, []

    def slow(table, *arguments):
        check(table, *arguments)
        if not calls:
            calls.append(1)
            assert (
                ingest(dmstore.open_study(tmp_path / "a.dm").algorithm("base"), [theirs]).new == 30
            )

    monkeypatch.setattr(base, "check", slow)
    result = ingest(algorithm, [folder])
    view = algorithm.table.view()
    assert view.conflicts == ()
    if seed:
        assert (result.new, result.conflicting, result.refused) == (0, 30, 10)
        assert sorted(view.run) == [*range(30)]
        assert not view.segments
    else:
        assert (result.new, result.present, result.errors) == (10, 30, [])
        assert sorted(view.run) == [*range(40)]
        assert sum(len(info) for info in view.tail) == 10


@pytest.mark.parametrize("error", [KeyboardInterrupt, StorageError("full"), CorruptionError("x")])
def test_a_fill_that_fails_leaves_nothing(tmp_path, monkeypatch, error):
    folder = store(tmp_path / "store", 40)
    algorithm = adopt(tmp_path / "a.dm", "base", folder)

    def fail(*_):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(base, "check", fail)
        with pytest.raises(error if isinstance(error, type) else type(error)):
            ingest(algorithm, [folder])
    assert algorithm.table.objects.children(f"{algorithm.table.prefix}base/") == []
    assert len(algorithm.table.view()) == 0
    assert ingest(algorithm, [folder]).new == 40


def test_where_commits_are_not_safe_a_source_is_appended(tmp_path, monkeypatch):
    folder = store(tmp_path / "store", 40)
    algorithm = adopt(tmp_path / "a.dm", "base", folder)
    monkeypatch.setattr("dmstore.storage.table.table.exclusive", lambda objects: False)
    assert ingest(algorithm, [folder]).new == 40
    view = algorithm.table.view()
    assert (view.manifest.version, len(view)) == (0, 40)


def test_a_source_of_which_no_row_is_a_run_stores_nothing(tmp_path):
    folder = store(tmp_path / "store", 40)
    algorithm = adopt(tmp_path / "a.dm", "base", folder)
    np.save(folder / "margins.npy", np.full((40, TARGET), np.nan, np.float32))
    result = ingest(algorithm, [folder])
    assert (result.new, result.skipped) == (0, 40)
    assert algorithm.table.view().manifest.version == 0
    assert algorithm.table.objects.children(f"{algorithm.table.prefix}base/") == []


@pytest.mark.parametrize("sources", ["runs.npz", Path("runs.npz"), b"runs.npz", [""]])
def test_what_is_no_list_of_paths_takes_nothing(tmp_path, monkeypatch, sources):
    """The letters of a path are paths too ('/' is the disk), and '' is the working directory."""
    monkeypatch.chdir(tmp_path)
    labels = {"train_label": np.zeros(6, int), "target_label": np.zeros(2, int)}
    study = dmstore.create_study(tmp_path / "s.dm", labels, seed=0)
    study.add_algorithm("a", sampling="foreign", alpha=None)
    mask = np.eye(6, dtype=bool)[:4]
    np.savez(tmp_path / "stray.npz", run=np.arange(4), mask=mask, margin=np.ones((4, 2), "f4"))
    if sources == [""]:
        result = dmstore.ingest(study, "a", sources)
        assert result.new == 0
        assert "'' is no path" in result.errors[0]
    else:
        with pytest.raises(InputError, match="expected a list of paths"):
            dmstore.ingest(study, "a", sources)
    assert len(study.runs("a").run) == 0
