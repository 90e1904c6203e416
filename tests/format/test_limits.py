"""What a hunt for lost rows and wrong numbers found, each held by a test."""

import numpy as np
import pytest
from helpers import fill, make_rows

from dmstore.errors import InputError, StorageError
from dmstore.storage.acts.compact import compact
from dmstore.storage.acts.vacuum import vacuum
from dmstore.storage.objects import probe
from dmstore.storage.objects.local import LocalObjects
from dmstore.storage.table import segment
from dmstore.storage.table.rows import Rows
from dmstore.study.selection import select
from dmstore.training import RunWriter
from dmstore.upkeep.retraction import retract_runs
from dmstore.upkeep.verification import verify


def with_columns(algorithm, ids, **columns):
    rows = make_rows(algorithm, ids)
    own = {name: rows.columns[name] for name in ("time", "host")}
    given = {**own, **{name: np.array(values) for name, values in columns.items()}}
    return algorithm.complete(Rows(rows.run, rows.arrays, given), "test")


def test_a_run_that_is_made_again_alike_is_seen_again(study, algorithm):
    fill(algorithm, range(10))
    retract_runs(algorithm, ["run=0-4"], reason="host")
    with RunWriter(study, "alpha") as writer:
        for run in algorithm.describe(np.arange(5)):
            arrays = make_rows(algorithm, [run.id]).arrays
            writer.append(run, margin=arrays["margin"][0], prediction=arrays["prediction"][0])
    assert sorted(algorithm.table.view().run.tolist()) == list(range(10))
    assert algorithm.table.view().manifest.reason == "made again"
    assert list(verify(study)) == []


def test_a_writer_takes_a_run_again_that_was_retracted_meanwhile(study, algorithm):
    with RunWriter(study, "alpha", flush_runs=1) as writer:
        for seed in (0, 1):
            run = next(writer.pending())
            assert run.id == 0
            arrays = make_rows(algorithm, [0], seed).arrays
            writer.append(run, margin=arrays["margin"][0], prediction=arrays["prediction"][0])
            if not seed:
                retract_runs(algorithm, ["run=0"], reason="host")
    view = algorithm.table.view()
    assert view.run.tolist() == [0]
    assert np.array_equal(
        view.read(["margin"])["margin"], make_rows(algorithm, [0], 1).arrays["margin"]
    )


def test_segments_are_cut_by_bytes_too(algorithm, monkeypatch):
    monkeypatch.setattr(segment, "MAX_BYTES", 10 * 23 * 4)
    assert len(algorithm.table.append(make_rows(algorithm, range(35)))) == 4
    assert sorted(algorithm.table.view().run.tolist()) == list(range(35))


def test_rows_that_cannot_be_stored_do_not_hold_up_the_others(study, algorithm, monkeypatch):
    append = type(algorithm.table).append

    def fails(self, rows):
        if "odd" in rows.columns:
            raise StorageError("refused")
        return append(self, rows)

    monkeypatch.setattr(type(algorithm.table), "append", fails)
    writer = RunWriter(study, "alpha")
    for run in algorithm.describe(np.arange(4)):
        arrays = make_rows(algorithm, [run.id]).arrays
        odd = {"odd": 1.0} if run.id == 0 else {}
        writer.append(run, margin=arrays["margin"][0], prediction=arrays["prediction"][0], **odd)
    with pytest.raises(StorageError, match="refused"):
        writer.flush()
    assert sorted(algorithm.table.view().run.tolist()) == [1, 2, 3]
    monkeypatch.setattr(type(algorithm.table), "append", append)
    writer.close()
    assert sorted(algorithm.table.view().run.tolist()) == [0, 1, 2, 3]


def test_texts_and_columns_that_a_base_could_not_give_back_are_refused(algorithm):
    with pytest.raises(InputError, match="a text of 8193 bytes"):
        with_columns(algorithm, [0], log=["x" * 8193])
    with pytest.raises(InputError, match="columns are too many"):
        with_columns(algorithm, [0], **{f"c{i}": [1.0] for i in range(2600)})
    algorithm.table.append(with_columns(algorithm, range(3), log=["x" * 8192] * 3))
    compact(algorithm.table)
    assert set(algorithm.table.view().read(["log"])["log"]) == {"x" * 8192}


def test_text_columns_of_a_base_have_chunks(algorithm):
    spec = algorithm.table.spec.with_columns({"log": "string", "lr": "float64"})
    assert spec.arrays["log"].chunks == {"run": 16384}


def test_numbers_among_texts_are_chosen_alike_before_and_after_compaction(algorithm):
    algorithm.table.append(with_columns(algorithm, range(3), epochs=[5, 10, 50]))
    algorithm.table.append(with_columns(algorithm, [3], epochs=["many"]))
    for _ in range(2):
        view = algorithm.table.view()
        assert view.run[select(view, ["epochs=10"])].tolist() == [1]
        assert view.run[select(view, ["epochs!=10"])].tolist() == [0, 2, 3]
        with pytest.raises(InputError, match="no order"):
            select(view, ["epochs<8"])
        compact(algorithm.table)


def test_an_old_listing_of_plans_loses_no_block(study, monkeypatch):
    algorithm = study.add_algorithm("b", runs=20)
    algorithm.extend(30)
    algorithm.extend(40)
    real = LocalObjects.children

    def old(self, prefix):
        found = real(self, prefix)
        return found[:1] if prefix.endswith("plans/") else found

    monkeypatch.setattr(LocalObjects, "children", old)
    assert [block.runs for block in study.algorithm("b").blocks] == [20, 30, 40]


def test_vacuum_keeps_its_grace_under_an_old_listing_of_the_log(algorithm, monkeypatch):
    fill(algorithm, range(10))
    first = compact(algorithm.table).manifest.base.path
    fill(algorithm, range(10, 20))
    compact(algorithm.table)
    real = LocalObjects.entries

    def old(self, prefix):
        found = real(self, prefix)
        return found[:1] if prefix.endswith("log/") else found

    monkeypatch.setattr(LocalObjects, "entries", old)
    monkeypatch.setattr(LocalObjects, "now", lambda self: real(self, "")[0].modified + 100.0)
    removed = vacuum(algorithm.table, set, grace=50.0).removed
    assert not any(first in name for name in removed)


def test_a_probe_that_may_not_be_deleted_is_no_error(tmp_path, monkeypatch):
    objects = LocalObjects(tmp_path)

    def refuse(self, name):
        raise StorageError("no permission")

    monkeypatch.setattr(LocalObjects, "delete", refuse)
    assert probe.exclusive(objects)


def test_whoever_may_not_write_knows_before_a_run_is_trained(study, algorithm, monkeypatch):
    def refuse(self):
        raise StorageError("read-only file system")

    monkeypatch.setattr(LocalObjects, "now", refuse)
    with pytest.raises(StorageError, match="read-only"):
        RunWriter(study, "alpha")
