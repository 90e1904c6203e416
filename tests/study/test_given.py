"""What people give in Python: ``~`` for their home, a NUL, what is no path."""

import numpy as np
import pytest
from helpers import examples, fill

import dmstore
from dmstore.analysis import benchmark, compare_scores
from dmstore.core.given import threads_of
from dmstore.core.threads import cores
from dmstore.errors import InputError
from dmstore.regression import lasso_path
from dmstore.sharing import diff, publish, pull
from dmstore.training import RunWriter


def test_a_home_is_expanded_wherever_a_path_is_taken(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    home = tmp_path / "home"
    np.savez(home / "e.npz", **examples())
    study = dmstore.create_study("~/s.dm", "~/e.npz", seed=3)
    assert study.path == str(home / "s.dm")
    fill(study.add_algorithm("alpha", runs=100), range(60))
    assert dmstore.open_study("~/s.dm").uuid == study.uuid
    RunWriter("~/s.dm", "alpha").close()
    assert dmstore.export(study, "alpha", "npy", "~/runs").files[0].startswith(f"{home}/runs/")
    assert dmstore.export(study, "alpha", "truth", "~/truth.npz").rows
    publish(study, "~/p")
    publish(study, "~/p.zip")
    pull("~/p.zip", "~/copy.dm")
    assert diff("~/s.dm@alpha", "~/copy.dm@alpha")
    study.add_targets("more", {"label": np.zeros(3, int)})
    np.savez(home / "t.npz", label=np.zeros(4, int))
    study.add_targets("others", "~/t.npz")
    for name in ("a", "b"):
        np.save(home / f"{name}.npy", np.random.default_rng(ord(name)).normal(size=(23, 37)))
    result = compare_scores(
        "~/a.npy", "~/b.npy", examples="~/s.dm", out="~/ab", components=1, top=2
    )
    assert result.attrs["path"] == str(home / "ab")
    assert benchmark(
        study, "alpha", scores={"a": "~/a.npy"}, baselines=False, resamples=1, force=True
    )
    masks = np.random.default_rng(0).random((30, 4)) < 0.5
    lasso_path(masks, masks[:, 0] * 1.0, scratch="~")
    again = study.add_algorithm("again", sampling="foreign")
    done = dmstore.ingest(study, "again", ["~/runs"])
    assert done.new == 60
    assert len(study.runs("again").run) == 60
    assert again.name == "again"
    assert list((tmp_path / "here").iterdir()) == []


@pytest.mark.parametrize("path", ["a\0b", 7, None, ["s.dm"]])
def test_what_is_no_path_is_refused(study, path):
    fill(study.add_algorithm("alpha", runs=100), range(30))
    for call in (
        lambda: dmstore.open_study(path),
        lambda: dmstore.create_study(path, examples()),
        lambda: dmstore.create_study("x", path),
        lambda: dmstore.export(study, "alpha", "npy", path),
        lambda: publish(study, path),
        lambda: pull(path, "x"),
        lambda: pull("x", path),
        lambda: diff(study.path, path),
    ):
        with pytest.raises((InputError, FileNotFoundError), match=r"no path|no study"):
            call()
    done = dmstore.ingest(study, "alpha", ["a\0b"])
    assert "NUL" in done.errors[0]


def test_far_more_threads_than_cores_are_as_many_as_help():
    assert threads_of(3) == 3
    assert threads_of(10**5) == max(64, cores())
