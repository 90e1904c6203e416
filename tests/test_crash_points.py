"""Kill commit, compaction, vacuum and tag before every single mutating call they make."""

import os
import shutil

import crash
import numpy as np
import pytest
from helpers import examples, fill, make_rows

import dmstore
from dmstore.maintenance import vacuum_study, verify_study
from dmstore.storage import tag
from dmstore.storage.compact import compact


def _open(path):
    return dmstore.open_study(path).algorithm("alpha")


def commit(path):
    algorithm = _open(path)
    algorithm.table.append(make_rows(algorithm, range(40, 60)))


def compaction(path):
    compact(_open(path).table)


def clean(path):
    vacuum_study(dmstore.open_study(path), grace=0)


def name(path):
    tag.create(_open(path).table, "v1")


def prepare(path, *, base, tail, twice=False):
    study = dmstore.create_study(path, examples(), seed=3)
    algorithm = study.add_algorithm("alpha", runs=300, outputs=["margin", "prediction"])
    if base:
        fill(algorithm, range(20))
        compact(algorithm.table)
    if tail:
        fill(algorithm, range(20, 40), batch=10)
    if twice:
        compact(algorithm.table)


def check(path, acknowledged, submitted):
    """Invariants: acknowledged within visible within submitted, content right, nothing torn."""
    study = dmstore.open_study(path)
    algorithm = study.algorithm("alpha")
    view = algorithm.table.view()
    visible = set(view.run.tolist())
    assert len(visible) == len(view)
    assert acknowledged <= visible <= submitted
    if len(view):
        found = view.read(["mask", "margin", "prediction"])
        expected = make_rows(algorithm, view.run).arrays
        assert all(np.array_equal(found[key], expected[key]) for key in found)
    assert list(verify_study(study)) == []
    return visible


CASES = {
    "commit": (commit, {"base": True, "tail": True}, range(40), range(60)),
    "first commit": (commit, {"base": False, "tail": False}, range(0), range(40, 60)),
    "compaction": (compaction, {"base": True, "tail": True}, range(40), range(40)),
    "vacuum": (clean, {"base": True, "tail": True, "twice": True}, range(40), range(40)),
    "tag": (name, {"base": True, "tail": False}, range(20), range(20)),
}


# The longest case is cut into parts, so that it spreads over test processes.
PARTS = [
    (case, part, count)
    for case in CASES
    for count in [4 if case == "compaction" else 1]
    for part in range(count)
]


@pytest.mark.parametrize(("case", "part", "parts"), PARTS)
def test_every_crash_point(tmp_path, case, part, parts, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    operation, setup, acknowledged, submitted = CASES[case]
    acknowledged, submitted = set(acknowledged), set(submitted)
    template = tmp_path / "template"
    prepare(template, **setup)
    whole = tmp_path / "whole"
    shutil.copytree(template, whole)
    crashed, calls = crash.run(operation, str(whole), 0)
    assert not crashed
    assert calls > 3
    check(whole, submitted if operation is commit else acknowledged, submitted)
    for at in range(1 + part, calls + 1, parts):
        path = tmp_path / f"at{at}"
        shutil.copytree(template, path)
        crashed, _ = crash.run(operation, str(path), at)
        assert crashed
        visible = check(path, acknowledged, submitted)
        # Recovery: whoever comes next finishes the work and cleans up, and loses nothing.
        compact(_open(path).table)
        vacuum_study(dmstore.open_study(path), grace=0)
        assert check(path, visible, submitted) == visible
        assert dmstore.open_study(path).objects.leftovers() == []
        shutil.rmtree(path)
