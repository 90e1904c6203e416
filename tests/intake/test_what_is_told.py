"""What an ingest leaves out, turns or takes twice is said, and a source that gives nothing is an error."""

import os

import numpy as np
import pytest
from helpers import TARGET, TRAIN, Done

from dmstore.core import listed
from dmstore.errors import InputError
from dmstore.exporters.export import export
from dmstore.intake.ingest import ingest
from dmstore.readers.npz import find
from dmstore.sharing.contents import Selection
from dmstore.study.selection import select
from dmstore.upkeep.retraction import retract

RUNS = 6


@pytest.fixture
def foreign(study):
    study.add_algorithm("f", sampling="foreign", alpha=None)
    return study


def rows(first=0, count=RUNS, seed=0):
    draw = np.random.default_rng(seed)
    return {
        "run": np.arange(first, first + count),
        "mask": draw.random((count, TRAIN)) < 0.5,
        "margin": draw.normal(size=(count, TARGET)).astype(np.float32),
    }


def save(path, **members):
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **members)
    return path


def store(folder, **arrays):
    folder.mkdir()
    data = rows()
    named = {"masks": data["mask"], "margins": data["margin"], "_completed": np.ones(RUNS, bool)}
    for name, values in {**named, **arrays}.items():
        np.save(folder / f"{name}.npy", values)
    return folder


def test_links_are_followed_and_circles_end(foreign, tmp_path):
    results = tmp_path / "results"
    save(results / "a.npz", **rows(0, seed=0))
    save(tmp_path / "scratch/deep/b.npz", **rows(10, seed=1))
    (results / "linked").symlink_to(tmp_path / "scratch")
    (results / "again").symlink_to(tmp_path / "scratch/deep")
    (tmp_path / "scratch/deep/up").symlink_to(results)
    (results / "._a.npz").write_bytes(b"\0\5\x16\7" + bytes(80))
    (results / "log.txt").write_text("x")
    result = ingest(foreign, "f", [results])
    assert (result.new, result.files, result.errors) == (2 * RUNS, 2, [])
    assert result.warnings == [
        f"{results}: 2 files that are no worker's .npz left out (._a.npz, …)"
    ]


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_folder_that_cannot_be_read_is_told(tmp_path):
    save(tmp_path / "r/a.npz", **rows())
    closed = tmp_path / "r/closed"
    closed.mkdir(mode=0)
    try:
        files, notes = find(tmp_path / "r")
    finally:
        closed.chmod(0o700)
    assert len(files) == 1
    assert notes == [f"{closed}: cannot be read (Permission denied); left out"]


BARREN = {
    "infinite": {"margins": np.full((RUNS, TARGET), np.inf, np.float32)},
    "zeros": {"margins": np.zeros((RUNS, TARGET), np.float32)},
    "empty masks": {"masks": np.zeros((RUNS, TRAIN), bool)},
}


@pytest.mark.parametrize("case", BARREN)
def test_a_source_that_gives_nothing_is_an_error_and_makes_nothing(foreign, tmp_path, case):
    folder = store(tmp_path / "store", **BARREN[case])
    done = Done("ingest", tmp_path / "new.dm", "a", folder, "--create")
    assert done.returncode == 1
    assert f"none of its {RUNS} runs" in done.stderr
    assert not (tmp_path / "new.dm").exists()
    done = Done("ingest", foreign.path, "f", folder)
    assert done.returncode == 1
    assert f"none of its {RUNS} runs was taken" in done.stderr
    assert f"{RUNS} skipped; 0 of 1 file taken" in done.stdout
    assert len(foreign.runs("f").run) == 0


def test_a_source_of_which_something_is_there_is_none(foreign, tmp_path):
    data = rows()
    data["margin"][1] = np.inf
    folder = store(tmp_path / "store", margins=data["margin"])
    for expected in ((RUNS - 1, 0), (0, RUNS - 1)):
        result = ingest(foreign, "f", [folder])
        assert (result.new, result.present, result.skipped, result.errors) == (*expected, 1, [])


NOW = 1_700_000_000
UNITS = {
    "seconds": np.full(RUNS, NOW),
    "seconds as floats": np.full(RUNS, NOW + 0.25),
    "milliseconds": np.full(RUNS, NOW * 1000),
    "microseconds": np.full(RUNS, NOW * 10**6),
    "nanoseconds": np.full(RUNS, NOW * 10**9),
}


@pytest.mark.parametrize("case", UNITS)
def test_times_in_other_units_are_turned_and_told(foreign, tmp_path, case):
    worker = save(tmp_path / "w.npz", **rows(), time=UNITS[case])
    plain = store(tmp_path / "store", time=UNITS[case])
    expected = NOW * 1000 + 250 * case.endswith("floats")
    for name, source in (("f", worker), ("g", plain)):
        if name == "g":
            foreign.add_algorithm("g", sampling="foreign", alpha=None)
        result = ingest(foreign, name, [source])
        assert (result.new, result.errors) == (RUNS, [])
        told = [line for line in result.warnings if "turned into milliseconds" in line]
        assert len(told) == (case != "milliseconds")
        assert set(foreign.algorithm(name).table.view().read(["time"])["time"]) == {expected}


def test_what_is_no_time(foreign, tmp_path):
    seconds_it_took = np.linspace(90, 120, RUNS)
    worker = save(tmp_path / "w.npz", **rows(), time=seconds_it_took)
    assert "'time' is no time since 1970" in ingest(foreign, "f", [worker]).errors[0]
    result = ingest(foreign, "f", [store(tmp_path / "store", time=seconds_it_took)])
    assert result.new == RUNS
    assert "time is no time since 1970" in result.warnings[0]


def test_many_files_in_another_unit_are_told_once(foreign, tmp_path):
    for number in range(4):
        data = rows(10 * number, seed=number)
        save(tmp_path / f"w/{number}.npz", **data, time=UNITS["seconds"])
    result = ingest(foreign, "f", [tmp_path / "w"])
    assert result.warnings == [
        f"{tmp_path}/w/0.npz (and 3 more files): time is in seconds, and was turned into milliseconds"
    ]


def test_columns_that_differ_in_case_alone_are_seen_across_files(foreign, tmp_path):
    lower = save(tmp_path / "a.npz", **rows(0, seed=0), lr=np.ones(RUNS))
    upper = save(tmp_path / "b.npz", **rows(10, seed=1), LR=np.ones(RUNS))
    result = ingest(foreign, "f", [lower, upper])
    assert (result.new, result.refused) == (RUNS, RUNS)
    assert result.errors == [
        f"{upper}: column 'LR' differs from 'lr', which other runs have, in case alone; call it 'lr'"
    ]
    assert len(ingest(foreign, "f", [upper]).errors) == 1
    folder = store(tmp_path / "store", Lr=np.ones(RUNS))
    assert "'Lr' differs from 'lr'" in ingest(foreign, "f", [folder], first_run=50).errors[0]
    assert len(foreign.runs("f").run) == RUNS
    assert ingest(foreign, "f", [lower]).present == RUNS


@pytest.mark.parametrize("kind", ["worker", "store"])
def test_the_same_runs_under_other_ids_are_told(foreign, tmp_path, kind):
    if kind == "worker":
        source = save(tmp_path / "a.npz", **rows())
        again = save(tmp_path / "b.npz", **{**rows(), "run": np.arange(50, 50 + RUNS)})
    else:
        source = again = store(tmp_path / "store")
    assert ingest(foreign, "f", [source]).warnings == []
    first = 0 if kind == "worker" else 50
    result = ingest(foreign, "f", [again], first_run=first)
    assert result.new == RUNS
    (told,) = result.warnings
    assert told.startswith(f"{RUNS} new runs are copies of runs of other ids")
    assert "(run 50 is run 0)" in told
    assert ingest(foreign, "f", [again], first_run=first).warnings == []


def test_copies_within_one_ingest_and_repeats_that_are_none(foreign, tmp_path):
    data = rows()
    data["mask"][:] = data["mask"][0]
    data["margin"][4] = data["margin"][1]
    result = ingest(foreign, "f", [save(tmp_path / "a.npz", **data)])
    (told,) = result.warnings
    assert told.startswith("1 new run is a copy of")
    assert "(run 4 is run 1)" in told


@pytest.mark.parametrize("outputs", [["margin"], "margin", {"margin": 3}])
def test_outputs_that_are_no_mapping_are_refused(foreign, outputs):
    with pytest.raises(InputError, match=r"outputs .*expected"):
        ingest(foreign, "f", [], outputs=outputs)


def test_one_text_is_no_list_of_texts(foreign, tmp_path):
    """Its letters are texts too, and were taken one by one."""
    calls = (
        lambda: export(foreign, "f", "npy", tmp_path / "out", outputs="margin"),
        lambda: Selection(algorithms="f"),
        lambda: foreign.add_algorithm("g", outputs="margin"),
        lambda: retract(foreign, "f", "run=1", reason="x"),
        lambda: select(foreign.algorithm("f").table.view(), b"run=1"),
        lambda: listed.texts([1], "x"),
    )
    for call in calls:
        with pytest.raises(InputError, match="expected a list"):
            call()
