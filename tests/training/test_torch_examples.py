"""The worked examples that need torch, as a user runs them."""

import runpy

import pytest
from paths import ROOT

import dmstore
from dmstore.demo import digits

pytest.importorskip("torch")


@pytest.mark.parametrize(
    ("name", "algorithm", "runs"), [("torch_loop", "torch-mlp", 20), ("callback", "callback", 10)]
)
def test_examples_store_what_they_promise(tmp_path, monkeypatch, name, algorithm, runs):
    study = dmstore.create_study(tmp_path / "digits.dm", digits(), seed=0)
    path = ROOT / "examples" / "loops" / f"{name}.py"
    monkeypatch.setattr("sys.argv", [str(path), study.path])
    runpy.run_path(str(path), run_name="__main__")
    assert len(study.view(algorithm)) == runs
    assert float((study.runs(algorithm).margin > 0).mean()) > 0.85
