"""A study that lives for a year in two labs: pulled, extended on both sides, merged, compared."""

import json
import shutil

import numpy as np
import pytest
from helpers import examples, fill, make_rows

import dmstore
from dmstore.cli import main
from dmstore.errors import ConflictError
from dmstore.intake.ingest import take_in as ingest
from dmstore.sharing import publish, pull
from dmstore.storage.acts.compact import compact
from dmstore.study import plan
from dmstore.study.plan import BRANCH
from dmstore.upkeep.verification import verify


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as stop:
        main([*map(str, arguments), "--json"])
    return stop.value.code, json.loads(capsys.readouterr().out)


@pytest.fixture
def first(tmp_path):
    study = dmstore.create_study(tmp_path / "first.dm", examples(), seed=3)
    algorithm = study.add_algorithm("alpha", runs=60, outputs=["margin", "prediction"], repeats=2)
    fill(algorithm, range(60))
    publish(study, tmp_path / "published")
    return study


def test_two_labs_never_use_an_id_twice(first, tmp_path, capsys):
    labs = [first]
    for name in ("second.dm", "third.dm"):
        pull(tmp_path / "published", tmp_path / name)
        labs.append(dmstore.open_study(tmp_path / name))
    plans = []
    for lab in labs:
        algorithm = lab.algorithm("alpha")
        blocks = [algorithm.extend(20), algorithm.extend(30, repeats=3)]
        assert blocks[1].first_run == blocks[0].stop
        ids = algorithm.pending()
        assert len(ids) == 50
        fill(algorithm, ids)
        plans.append((set(ids.tolist()), {run.mask_id for run in algorithm.describe(ids)}))
    for one, two in ((0, 1), (0, 2), (1, 2)):
        assert not plans[one][0] & plans[two][0]
        assert not plans[one][1] & plans[two][1]
    assert min(plans[0][0]) == 60
    assert min(plans[1][0]) >= BRANCH

    # The first lab takes in what the others made, whoever comes first, as often as it likes.
    into = first.algorithm("alpha")
    code, found = run(capsys, "ingest", first.path, "alpha", labs[1].path, labs[2].path)
    assert (code, found["new"], found["present"], found["conflicting"]) == (0, 100, 120, 0)
    code, found = run(capsys, "ingest", first.path, "alpha", labs[2].path)
    assert (code, found["new"], found["present"]) == (0, 0, 110)
    view = into.table.view()
    assert len(view) == 210
    assert len(into.pending()) == 0
    stored = view.read(["mask", "margin"])
    expected = make_rows(into, view.run).arrays
    assert np.array_equal(stored["mask"], expected["mask"])
    assert np.array_equal(stored["margin"], expected["margin"])
    assert list(verify(first)) == []

    # And the other way round: the same content in both places, whatever the order of arrival.
    second = labs[1].algorithm("alpha")
    ingest(second, [first.path])
    assert second.table.view().content_id() == view.content_id()
    compact(second.table)
    compact(into.table)
    assert second.table.view().content_id() == into.table.view().content_id()
    assert list(verify(labs[1])) == []
    code, found = run(capsys, "diff", first.path, labs[1].path)
    assert code == 0
    assert found["algorithms"]["alpha"]["shared"] == 210


def test_plain_copies_collide_and_say_so(first, tmp_path):
    shutil.copytree(first.path, tmp_path / "copy.dm")
    other = dmstore.open_study(tmp_path / "copy.dm").algorithm("alpha")
    mine = first.algorithm("alpha")
    mine.extend(10)
    fill(other, [run for run in [other.extend(12)] for run in range(60, 72)])
    with pytest.raises(ConflictError, match="sampling foreign"):
        ingest(mine, [tmp_path / "copy.dm"])
    assert len(mine.table.view()) == 60
    assert len(mine.blocks) == 2


def test_a_range_that_is_used_up_is_an_error(first, monkeypatch):
    monkeypatch.setattr(plan, "BRANCH", 100)
    algorithm = first.algorithm("alpha")
    algorithm.extend(40)
    with pytest.raises(dmstore.DmstoreError, match="more than a plan can hold"):
        algorithm.extend(1)
