"""Trying a task: what is wrong with it is said, and nothing is stored."""

import json
import re

import numpy as np
import pytest
from click.testing import CliRunner

import dmstore
from dmstore import cli
from dmstore.errors import InputError
from dmstore.training.trial import try_task


@pytest.mark.parametrize(
    ("task", "faults"),
    [
        ("Good", []),
        ("Rounding", []),
        ("Deaf", ["ignores the mask"]),
        ("Drawing", ["not deterministic"]),
        ("Neighbours", ["depends on the runs beside it"]),
        ("Changing", ["changes run.mask"]),
        ("Raising", [r"raised RuntimeError: CUDA out of memory of much \(.*bad_tasks.py:\d+\)"]),
        ("Leaving", ["raised SystemExit: 2"]),
        ("Silent", ["returned nothing; return a mapping with margin"]),
        ("Plain", ["returned a ndarray"]),
        ("Fractional", ["batch is 0.5"]),
        ("Broken", [r"made here: KeyError: 'rate' \(.*bad_tasks.py:\d+\)"]),
        ("nothing", ["returned NoneType"]),
        ("absent", ["cannot be imported"]),
    ],
)
def test_what_is_wrong_with_a_task_is_said(study, task, faults):
    found = try_task(study, f"bad_tasks:{task}")
    assert len(found.faults) == len(faults)
    for words, fault in zip(faults, found.faults, strict=True):
        assert re.search(words, fault)
        assert "\n" not in fault
    assert study.algorithms == []


def test_all_faults_are_said_at_once(study):
    found = try_task(study, "bad_tasks:Many", outputs=["margin", "prediction", "loss"])
    said = "\n".join(sorted(found.faults))
    assert len(found.faults) == 6
    for words in (
        "no 'margin' (is 'margins' meant?)",
        "'margins' has shape (2, 23): it is no declared output (loss, margin, prediction)",
        "prediction has shape (2, 22), expected (2, 23) (run, target)",
        "loss of run 0 is NaN in 23 of 23 values",
        "'accuracy' has shape ()",
        "'mask_id' is a reserved name",
    ):
        assert words in said


def test_what_may_be_meant_is_a_note(study):
    assert try_task(study, "bad_tasks:Good").notes == []
    (note,) = try_task(study, "bad_tasks:Good", config={"noise": 0.0}).notes
    assert "another seed changes nothing" in note
    (note,) = try_task(study, "bad_tasks:Rounding").notes
    assert "as rounding does" in note


def test_an_algorithm_is_tried_as_it_is_declared(study):
    study.add_algorithm("a", runs=40, task="bad_tasks:Good", config={"noise": 0.0})
    study.add_algorithm("untasked", runs=4)
    assert len(try_task(study, "a").notes) == 1
    assert try_task(study, "a", config={"noise": 1.0}).notes == []
    with pytest.raises(InputError, match="has no task"):
        try_task(study, "untasked")
    assert len(study.algorithm("a").pending()) == 40


def test_the_command(study):
    study.add_algorithm("a", runs=40, task="bad_tasks:Good")
    before = sorted(info.name for info in study.objects.entries(""))
    done = CliRunner().invoke(cli.group, ["task", study.path, "a"])
    assert done.exit_code == 0
    for words in ("margin: float64 (23,) per run", "accuracy: float64 a number", "40 runs take"):
        assert words in done.stdout
    assert done.stdout.endswith("bad_tasks:Good: nothing wrong\n")
    assert "training 2" in done.stderr
    done = CliRunner().invoke(cli.group, ["task", study.path, "bad_tasks:Deaf", "--json"])
    assert done.exit_code == 1
    found = json.loads(done.stdout)
    assert found["outputs"]["margin"] == {"shape": [23], "dtype": "float64"}
    assert found["seconds"] == pytest.approx(1000 * found["seconds_per_run"])
    assert len(found["faults"]) == 1
    assert sorted(info.name for info in study.objects.entries("")) == before


def test_the_task_that_comes_with_dmstore_is_right(study):
    dense = "dmstore.training.tasks:dense"
    names = ["margin", "loss", "probability", "prediction", "logit"]
    found = try_task(study, dense, config={"epochs": 2, "hidden": 4}, outputs=names)
    assert found.faults == []
    assert np.prod(found.shapes["logit"][0]) == 23 * len(dmstore.open_study(study.path).class_names)
