"""Retraction: rows leave every later view, earlier snapshots stay."""

import json

import numpy as np
import pytest
from helpers import fill, make_rows

import dmstore
from dmstore.cli import main
from dmstore.errors import InputError
from dmstore.intake.ingest import take_in as ingest
from dmstore.storage.acts import tag
from dmstore.storage.acts.compact import compact
from dmstore.storage.table.rows import Rows, row_digests
from dmstore.study.selection import select
from dmstore.training import RunWriter
from dmstore.upkeep.maintenance import status, vacuum
from dmstore.upkeep.retraction import restore_runs, retract_runs
from dmstore.upkeep.verification import verify


@pytest.fixture
def filled(algorithm):
    fill(algorithm, range(40))
    rows = make_rows(algorithm, range(40, 60))
    other = {**rows.columns, "host": np.full(20, "node17", dtype=object)}
    algorithm.table.append(Rows(rows.run, rows.arrays, other))
    return algorithm


def test_retracted_rows_leave_later_views_alone(filled):
    before = filled.table.view()
    done = retract_runs(filled, ["host=node17"], reason="bad memory")
    assert [run for run, _ in done.rows] == list(range(40, 60))
    after = filled.table.view()
    assert after.run.tolist() == list(range(40))
    assert len(before) == 60
    assert before.read(["margin"])["margin"].shape == (60, 23)
    assert after.manifest.reason == "bad memory"
    assert filled.pending().tolist()[:20] == list(range(40, 60))
    # Once more changes nothing.
    assert retract_runs(filled, ["host=node17"], reason="again").rows == ()


def test_tagged_snapshot_stays_and_new_bases_lack_them(filled, study):
    compact(filled.table)
    made = tag.create(filled.table, "before")
    retract_runs(filled, ["run=0-9"], reason="test")
    compact(filled.table)
    vacuum(study, grace=0)
    assert filled.table.view().run.tolist() == list(range(10, 60))
    assert filled.table.open_base(made["base"])["run"].shape == (60,)
    assert list(verify(study)) == []


def test_same_content_again_stays_hidden_other_content_shows(filled):
    retract_runs(filled, ["run=3"], reason="test")
    fill(filled, [3])
    assert 3 not in filled.table.view().run
    fill(filled, [3], seed=1)
    assert 3 in filled.table.view().run


def test_all_rows_retracted_and_restored(filled, study):
    compact(filled.table)
    retract_runs(filled, ["run>=0"], reason="test")
    assert len(filled.table.view()) == 0
    assert compact(filled.table).manifest.base.runs == 0
    assert len(filled.table.view()) == 0
    assert list(verify(study)) == []
    fill(filled, range(5))
    assert restore_runs(filled, ["run=0-2"], reason="it was fine").version == 4
    assert filled.table.view().run.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        (["run=1,5,10-12"], [1, 5, 10, 11, 12]),
        (["run!=0-57"], [58, 59]),
        (["host=node17", "run<43"], [40, 41, 42]),
        (["accuracy>=0.999"], [39, 59]),
        (["time>=2023-11-14T22:13:20"], list(range(60))),
        (["time<2023-11-14"], []),
        (["host!=node17", "run>37"], [38, 39]),
    ],
)
def test_conditions(filled, conditions, expected):
    view = filled.table.view()
    assert view.run[select(view, conditions)].tolist() == expected


@pytest.mark.parametrize(
    ("condition", "text"),
    [
        ("host", "not of the form"),
        ("gpu=3", "no column 'gpu'; they have run"),
        ("run=x", "'x' is not an integer"),
        ("accuracy<much", "'much' is not a number"),
        ("time>yesterday", "is not a date such as"),
        ("margin>0", "no column 'margin'"),
    ],
)
def test_conditions_that_cannot_be_used(filled, condition, text):
    version = filled.table.view().manifest.version
    with pytest.raises(InputError, match=text):
        retract_runs(filled, [condition], reason="test")
    assert filled.table.view().manifest.version == version


def test_command(filled, study, capsys):
    def run(*arguments):
        with pytest.raises(SystemExit) as stop:
            main(["retract", study.path, "alpha", *arguments, "--json"])
        return stop.value.code, json.loads(capsys.readouterr().out)

    code, found = run("--where", "host=node17", "--dry-run")
    assert (code, found["retracted"]) == (0, 20)
    assert len(filled.table.view()) == 60
    code, found = run("--where", "host=node17", "--reason", "bad memory")
    assert (code, found["retracted"], found["version"]) == (0, 20, 1)
    assert len(dmstore.open_study(study.path).algorithm("alpha").table.view()) == 40
    code, found = run("--where", "host=node17")
    assert code == 2
    assert "--reason" in found["error"]["message"]
    code, found = run("--where", "host=node17", "--reason", "x", "--restore")
    assert code == 1
    assert "run=" in found["error"]["message"]
    code, found = run("--where", "run=40-49", "--reason", "not so bad", "--restore")
    assert (code, found["restored"]) == (0, 10)
    assert len(filled.table.view()) == 50


def test_outputs_on_later_sets_leave_with_their_runs(filled, study):
    """A run that is trained again gets outputs of its own, and no conflict with the old ones."""
    draw = np.random.default_rng(0)
    study.add_targets("later", {"label": draw.integers(0, 3, 9)})
    outputs = study.target_outputs("alpha", "later")

    def store(seed):
        ids = outputs.pending()
        arrays = {
            "margin": np.random.default_rng(seed).normal(size=(len(ids), 9)).astype(np.float32),
            "prediction": np.zeros((len(ids), 9), np.int16),
        }
        columns = {"time": ids, "host": np.full(len(ids), "h")}
        outputs.table.append(outputs.complete(Rows(ids, arrays, columns), "test"))
        return ids.tolist()

    assert len(store(0)) == 60
    retract_runs(filled, ["run=3"], reason="test")
    assert 3 not in outputs.table.view().run
    fill(filled, [3], seed=1)
    assert store(1) == [3]
    assert outputs.table.view().conflicts == ()
    assert len(study.outputs("alpha", "later").run) == 60
    assert list(verify(study)) == []


def make_later(outputs, ids, seed=0):
    """Rows of outputs on the set ``later``."""
    margin = [np.random.default_rng([seed, int(i)]).normal(size=9) for i in ids]
    arrays = {
        "margin": np.array(margin, np.float32).reshape(-1, 9),
        "prediction": np.zeros((len(ids), 9), np.int16),
    }
    columns = {"time": np.asarray(ids), "host": np.full(len(ids), "h")}
    return outputs.complete(Rows(np.asarray(ids), arrays, columns), "test")


def said(outputs, ids, seed=0):
    outputs.table.append(make_later(outputs, ids, seed))


@pytest.fixture
def outputs(study, filled):
    study.add_targets("later", {"label": np.random.default_rng(0).integers(0, 3, 9)})
    return study.target_outputs("alpha", "later")


def test_outputs_come_back_with_their_runs(filled, study, outputs, monkeypatch):
    said(outputs, range(60))
    before = study.view("alpha", "later").content_id
    retract_runs(filled, ["run=0-4"], reason="test")
    assert len(study.view("alpha", "later")) == 55
    restore_runs(filled, ["run=0-4"], reason="it was fine")
    assert study.view("alpha", "later").content_id == before
    # A kill between the runs and their outputs: the same call goes on.
    retract_runs(filled, ["run=0-4"], reason="test")
    with monkeypatch.context() as patch:
        patch.setattr("dmstore.upkeep.retraction._settle_outputs", lambda *_: None)
        restore_runs(filled, ["run=0-4"], reason="it was fine")
    assert len(study.view("alpha", "later").pending) == 5
    assert restore_runs(filled, ["run=0-4"], reason="it was fine").rows == ()
    assert study.view("alpha", "later").content_id == before


def test_restored_outputs_are_those_of_the_visible_model(filled, study, outputs):
    """Also where another model of the same run came meanwhile, whichever of the two is shown."""
    said(outputs, range(60))
    retract_runs(filled, ["run=0-9"], reason="test")
    fill(filled, range(10), seed=1)
    said(outputs, range(10), seed=1)
    restored = restore_runs(filled, ["run=0-9"], reason="it was fine")
    assert restored.visible + restored.behind == 10
    assert 0 < restored.visible < 10
    view = study.view("alpha", "later")
    assert view.pending.tolist() == []
    assert outputs.table.view().conflicts == ()
    shown = {run for run, _ in set(restored.rows) - set(filled.table.view().conflicts)}
    for run in range(10):
        expected = np.random.default_rng([0 if run in shown else 1, run]).normal(size=9)
        found = view.dataset.margin.sel(run=run)
        assert np.array_equal(found, expected.astype(np.float32)), run
    # With the models in front gone, the outputs of the others are there again.
    retract_runs(filled, ["run=0-9"], reason="all")
    restore_runs(filled, ["run=0-9"], reason="all")
    assert study.view("alpha", "later").pending.tolist() == []
    assert outputs.table.view().conflicts == ()


def test_outputs_that_are_not_stored_any_more_can_be_stored_again(filled, study, outputs):
    said(outputs, range(60))
    retract_runs(filled, ["run=0-4"], reason="test")
    compact(outputs.table)
    restore_runs(filled, ["run=0-4"], reason="it was fine")
    assert study.view("alpha", "later").pending.tolist() == list(range(5))
    said(outputs, range(5))
    assert study.view("alpha", "later").pending.tolist() == []


def test_restoring_tells_what_is_visible_again(filled, study, capsys):
    def restored(*arguments):
        with pytest.raises(SystemExit):
            main(["retract", study.path, "alpha", "--restore", "--where", *arguments])
        return capsys.readouterr().out

    retract_runs(filled, ["run=0-9"], reason="test")
    fill(filled, [3], seed=2)
    visible = restore_runs(filled, ["run=0-9"], reason="", dry_run=True).visible
    assert visible in (9, 10)
    found = json.loads(restored("run=0-9", "--reason", "x", "--json"))
    assert (found["restored"], found["visible"]) == (10, visible)
    retract_runs(filled, ["run=20-29"], reason="test")
    compact(filled.table)
    fill(filled, range(20, 23))
    text = restored("run=20-29", "--reason", "x")
    assert "10 runs restored" in text
    assert "3 of them visible again" in text
    assert "7 are not stored any more" in text
    assert "dmstore ingest" in text
    fill(filled, range(23, 30))
    assert len(filled.table.view()) == 60


def test_a_run_in_conflict_leaves_whole(filled):
    """What comes up behind a retracted run is chosen too, if it meets the conditions."""
    for seed in (1, 2):
        fill(filled, [5, 6], seed=seed)
    rows = make_rows(filled, [50], seed=1)
    filled.table.append(Rows(rows.run, rows.arrays, {**rows.columns, "host": np.array(["good"])}))
    would = retract_runs(filled, ["run=5"], reason="", dry_run=True)
    done = retract_runs(filled, ["run=5"], reason="test")
    assert would.rows == done.rows
    assert ([run for run, _ in done.rows], done.version) == ([5, 5, 5], 1)
    assert 5 not in filled.table.view().run
    assert 6 in filled.table.view().run
    retract_runs(filled, ["host=node17"], reason="test")
    retract_runs(filled, ["host=node17"], reason="test")
    view = filled.table.view()
    host = dict(zip(view.run.tolist(), view.read(["host"])["host"], strict=True))
    assert host[50] == "good"
    assert "node17" not in host.values()


def test_a_column_may_leave_with_the_runs_that_have_it(algorithm):
    """The row that comes up lacks the column of the condition, so it stays."""
    shown, behind = sorted(
        (make_rows(algorithm, [5], seed) for seed in (0, 1)),
        key=lambda rows: row_digests(rows.run, rows.arrays, algorithm.table.spec).tobytes(),
    )
    algorithm.table.append(shown)
    columns = {n: values for n, values in behind.columns.items() if n != "accuracy"}
    algorithm.table.append(Rows(behind.run, behind.arrays, columns))
    assert len(retract_runs(algorithm, ["accuracy>=0"], reason="test").rows) == 1
    assert algorithm.table.view().run.tolist() == [5]
    assert "accuracy" not in algorithm.table.view().columns
    with pytest.raises(InputError, match="no column"):
        retract_runs(algorithm, ["accuracy>=0"], reason="test")


def test_outputs_of_an_earlier_model_give_way(filled, study, outputs):
    """However they came to be stored: outputs of the model as it is now are shown and kept."""
    ids = np.arange(10)
    old = make_later(outputs, ids, seed=0)
    retract_runs(filled, ["run=0-9"], reason="test")
    fill(filled, ids, seed=9)
    # As by a writer that was checking when the runs were retracted.
    outputs.table.append(old)
    found = status(study)["algorithms"]["alpha"]["outputs_on"]["later"]
    assert (found["stored"], found["pending"]) == (0, 60)
    again = study.target_outputs("alpha", "later")
    said(again, ids, seed=1)
    view = study.view("alpha", "later")
    assert sorted(view.run.tolist()) == ids.tolist()
    assert again.table.view().conflicts == ()
    found = status(study)["algorithms"]["alpha"]["outputs_on"]["later"]
    assert (found["stored"], found["pending"], found["retracted"]) == (10, 50, 10)


def test_a_writer_refuses_outputs_of_a_model_that_was_retracted(filled, study, outputs):
    values = {"margin": np.ones(9, np.float32), "prediction": np.zeros(9, int)}
    with RunWriter(study, "alpha", target_set="later") as writer:
        runs = list(writer.pending())
        writer.append(runs[0], **values)
        retract_runs(filled, ["run=1-3"], reason="test")
        with pytest.raises(InputError, match="run 1 is not stored"):
            writer.append(runs[1], **values)
        fill(filled, [1, 2], seed=9)
        with pytest.raises(InputError, match="of another model"):
            writer.append(runs[1], **values)
        assert [run.id for run in writer.describe(np.array([1, 3]))] == [1]
        writer.append(runs[1], **values)
        writer.append(runs[4], **values)
    assert sorted(study.view("alpha", "later").run) == [0, 1, 4]


def test_a_file_of_outputs_may_say_of_which_models_they_are(filled, study, outputs, tmp_path):
    view = filled.table.view()
    arrays = {
        "run": view.run[:4],
        "run_digest": view.digest[:4, :8].copy().view("<u8").ravel(),
        "margin": np.ones((4, 9), np.float32),
        "prediction": np.zeros((4, 9), int),
    }
    np.savez(tmp_path / "o.npz", **arrays)
    retract_runs(filled, ["run=2"], reason="test")
    fill(filled, [2], seed=9)
    found = ingest(filled, [tmp_path / "o.npz"], outputs=outputs)
    assert found.new == 0
    assert "run 2 are of another model (run_digest)" in found.errors[0]
    keep = arrays["run"] != 2
    np.savez(tmp_path / "o.npz", **{name: values[keep] for name, values in arrays.items()})
    assert ingest(filled, [tmp_path / "o.npz"], outputs=outputs).new == 3
    assert sorted(study.view("alpha", "later").run) == [0, 1, 3]
