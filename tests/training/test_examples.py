"""The worked examples that need no torch, as a user runs them."""

import re
import runpy
import sys

import numpy as np
from click.testing import CliRunner
from paths import ROOT

import dmstore
from dmstore import cli
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


def test_the_task_of_the_guide(tmp_path, monkeypatch):
    """It is tried, trained and refused as the page says."""
    page = (ROOT / "docs" / "guides" / "task.md").read_text()
    code = re.search(r"^```python\n(.*?)^```$", page, re.M | re.S)[1]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [str(tmp_path), *sys.path])
    (tmp_path / "mytask.py").write_text(code)
    few = {k: v[:100] if k != "class_name" else v for k, v in digits().items()}
    dmstore.create_study("digits.dm", few, seed=0)

    def run(*arguments):
        return CliRunner().invoke(cli.group, list(map(str, arguments)))

    tried = run("task", "digits.dm", "mytask:Logistic")
    assert tried.exit_code == 0
    said = re.search(r"^```text\n(.*?)^```$", page, re.M | re.S)[1].splitlines()
    plain = [re.sub(r"[0-9.]+ (s|min|kB|MB|GB)", "", line.replace("797", "100")) for line in said]
    assert [re.sub(r"[0-9.]+ (s|min|kB|MB|GB)", "", x) for x in tried.stdout.splitlines()] == plain
    (tmp_path / "small.json").write_text('{"c": 1}')
    refused = run("task", "digits.dm", "mytask:Logistic", "--config", "small.json")
    assert refused.exit_code == 1
    assert "fault: config has c; Logistic knows C" in refused.stdout
    (tmp_path / "small.json").write_text('{"C": 0.1}')
    given = ("--runs", 9, "--output", "margin", "--output", "loss", "--config", "small.json")
    assert run("add", "digits.dm", "logistic", "--task", "mytask:Logistic", *given).exit_code == 0
    assert run("train", "digits.dm", "logistic", "-Q").exit_code == 0
    assert dmstore.open_study("digits.dm").runs("logistic").loss.shape == (9, 100)
