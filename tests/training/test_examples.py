"""The worked examples that need no torch, as a user runs them."""

import runpy

import numpy as np
from paths import ROOT

import dmstore
from dmstore.demo import digits
from dmstore.training import RunWriter


def run_example(name, study, monkeypatch):
    path = ROOT / "examples" / "loops" / f"{name}.py"
    monkeypatch.setattr("sys.argv", [str(path), study.path])
    runpy.run_path(str(path), run_name="__main__")


def test_examples_store_what_they_promise(tmp_path, monkeypatch):
    study = dmstore.create_study(tmp_path / "digits.dm", digits(), seed=0)
    for name in ("scikit_learn", "without_dmstore"):
        run_example(name, study, monkeypatch)
    assert {name: len(study.view(name)) for name in study.algorithms} == {
        "tree": 20,
        "kernel": 20,
        "ridge": 30,
    }
    assert 0.6 < float(study.runs("tree").probability.mean()) < 1
    kernel = study.runs("kernel")
    assert (kernel.accuracy > 0.9).all()
    assert np.allclose((kernel.margin > 0).mean("target"), kernel.accuracy)
    assert float((study.runs("ridge").margin > 0).mean()) > 0.85
    with RunWriter(study, "ridge") as writer:
        assert len(writer.pending()) == 0
