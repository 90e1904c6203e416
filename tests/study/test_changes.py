"""What becomes of an algorithm after it was added: removed, taken back, given a task."""

import json
from pathlib import Path

import numpy as np
import pytest
from commands import run, run_json
from helpers import Done, files, fill, make_rows

import dmstore
from dmstore.errors import ConflictError, ExistsError, FormatError, InputError, NotFoundError
from dmstore.regression import fit
from dmstore.sharing import publish, pull
from dmstore.study.algorithm import Algorithm
from dmstore.training import RunWriter
from dmstore.upkeep.maintenance import vacuum
from dmstore.upkeep.verification import verify

TASK = "dmstore.training.tasks:dense"


def test_what_was_added_by_mistake_is_gone_for_every_reader(study, algorithm, tmp_path):
    fill(algorithm, range(30))
    study.add_algorithm("mistake", runs=5)
    before = files(Path(study.path, "algorithms/mistake"))
    run("remove", study.path, "mistake")
    run("remove", study.path, "mistake")
    assert study.algorithms == ["alpha"]
    assert study.removed == {"mistake": ""}
    assert "mistake: removed" in run("status", study.path)[0]
    assert "mistake" not in json.dumps(run_json("status", study.path)["algorithms"])
    for call in (
        lambda: study.algorithm("mistake"),
        lambda: study.runs("mistake"),
        lambda: RunWriter(study.path, "mistake"),
        lambda: fit(study, "mistake"),
        lambda: dmstore.ingest(study, "mistake", ["x.npz"]),
        lambda: study.add_algorithm("mistake"),
        lambda: study.add_algorithm("mistake", runs=5),
    ):
        with pytest.raises(NotFoundError, match=r"was removed, .*--restore"):
            call()
    with pytest.raises(ExistsError, match="'mistake' exists"):
        study.add_algorithm("Mistake")
    with pytest.raises(NotFoundError, match=r"it has: alpha\)"):
        study.algorithm("beta")
    assert list(verify(study)) == []
    publish(study, tmp_path / "p")
    assert not list((tmp_path / "p").rglob("*mistake*"))
    # Nothing but the one document came into being, and a vacuum leaves it.
    vacuum(study, grace=0)
    after = files(Path(study.path, "algorithms/mistake"))
    assert after.keys() - before.keys() == {"changes/0001.json"}
    assert before.items() <= after.items()
    run("remove", study.path, "mistake", "--restore")
    assert study.algorithm("mistake").planned_count == 5
    assert study.removed == {}


def test_stored_runs_are_removed_with_a_reason_and_come_back(study, algorithm):
    fill(algorithm, range(30))
    rows = algorithm.table.view()
    for reason in ("", "  "):
        with pytest.raises(InputError, match=r"30 stored rows; say why.*--reason"):
            study.remove_algorithm("alpha", reason=reason)
    assert study.algorithms == ["alpha"]
    study.remove_algorithm("alpha", reason="wrong labels")
    with pytest.raises(NotFoundError, match=r"removed \(wrong labels\)"):
        study.algorithm("alpha")
    back = study.restore_algorithm("alpha", reason="they were right")
    assert back.table.view().content_id() == rows.content_id()
    study.remove_algorithm("alpha", reason="they were not")
    names = sorted(p.name for p in Path(study.path, "algorithms/alpha/changes").iterdir())
    assert names == ["0001.json", "0002.json", "0003.json"]


def test_retracted_runs_are_runs(study, algorithm):
    fill(algorithm, range(3))
    dmstore.retract(study, "alpha", ["run=0-2"], reason="x")
    with pytest.raises(InputError, match="3 stored rows"):
        study.remove_algorithm("alpha")


def test_a_comparison_of_what_was_removed_is_not_listed(study, algorithm):
    from dmstore.analysis import compare

    fill(algorithm, range(60))
    fill(study.add_algorithm("beta", runs=300), range(60), seed=1)
    for name in ("alpha", "beta"):
        fit(study, name, halves=False, lams=5)
    compare(study, "alpha", "beta", components=1, top=2)
    study.remove_algorithm("beta", reason="x")
    assert study.comparisons == []
    assert set(study.tree.children) == {"train", "targets", "runs", "datamodels"}
    study.restore_algorithm("beta")
    assert len(study.comparisons) == 1


def test_a_writer_stores_no_more_runs_of_what_was_removed(study, algorithm):
    writer = RunWriter(study.path, "alpha")
    described = next(writer.pending())
    study.remove_algorithm("alpha")
    values = {"margin": np.zeros(23), "prediction": np.zeros(23, int)}
    writer.append(described, **values)
    with pytest.raises(NotFoundError, match="was removed"):
        writer.flush()
    assert writer.acknowledged == 0
    # It waits, and is stored where the algorithm is taken back.
    study.restore_algorithm("alpha")
    assert writer.flush() == 1
    writer.close()
    assert study.runs("alpha").run.values.tolist() == [0]


def test_a_run_that_is_stored_as_the_algorithm_is_removed_is_seen(study, algorithm, monkeypatch):
    real = Algorithm._check_empty
    asked = []

    def meanwhile(self, reason):
        if asked:
            self.table.append(make_rows(algorithm, [7]))
        asked.append(1)
        real(self, reason)

    monkeypatch.setattr(Algorithm, "_check_empty", meanwhile)
    with pytest.raises(ConflictError, match="1 stored row; say why"):
        study.remove_algorithm("alpha")
    assert study.runs("alpha").run.values.tolist() == [7]


def test_a_task_can_be_given_later_and_once(study, tmp_path):
    made = study.add_algorithm("plain", alpha=0.3, runs=4)
    (tmp_path / "c.json").write_text('{"epochs": 1, "batch_size": 7}')
    assert "give it a task with 'dmstore add" in Done("train", study.path, "plain").stderr
    config = ["--config", tmp_path / "c.json"]
    for _ in range(2):
        said = run_json("add", study.path, "plain", "--task", TASK, *config)
        assert said["alpha"] == 0.3
    assert (made.task, made.config) == (TASK, {"epochs": 1, "batch_size": 7})
    assert made.document["task"] is None
    run("train", study.path, "plain", "-Q")
    assert study.runs("plain").sizes["run"] == 4
    with pytest.raises(ExistsError, match=r"trained by 'dmstore.training.tasks:dense'"):
        made.give_task(TASK, {"epochs": 2})
    with pytest.raises(ExistsError, match="trained by"):
        study.add_algorithm("other", task=TASK).give_task("a:b")
    publish(study, tmp_path / "p")
    pull(tmp_path / "p", tmp_path / "copy.dm")
    assert dmstore.open_study(tmp_path / "copy.dm").algorithm("plain").task == TASK
    assert list(verify(study)) == []


@pytest.mark.parametrize(
    "change", [{"number": 2}, {"algorithm": "0" * 32}, {"action": "task"}, {"action": "vanish"}]
)
def test_a_change_that_does_not_belong_there_is_told(study, algorithm, change):
    study.remove_algorithm("alpha")
    path = Path(study.path, "algorithms/alpha/changes/0001.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(FormatError, match=r"changes/0001\.json"):
        dmstore.open_study(study.path).algorithm("alpha")
