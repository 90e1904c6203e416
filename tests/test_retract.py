"""Retraction: rows leave every later view, earlier snapshots stay."""

import json

import numpy as np
import pytest
from helpers import fill, make_rows

import dmstore
from dmstore.cli import main
from dmstore.errors import InputError
from dmstore.maintenance import vacuum_study, verify_study
from dmstore.retraction import restore_runs, retract_runs
from dmstore.selection import select
from dmstore.storage import tag
from dmstore.storage.compact import compact
from dmstore.storage.segment import Rows


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
    vacuum_study(study, grace=0)
    assert filled.table.view().run.tolist() == list(range(10, 60))
    assert filled.table.open_base(made["base"])["run"].shape == (60,)
    assert list(verify_study(study)) == []


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
    assert list(verify_study(study)) == []
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
    assert list(verify_study(study)) == []
