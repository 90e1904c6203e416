"""Every command, as a user types it."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import crash
import numpy as np
import pytest
from click.testing import CliRunner
from helpers import examples, fill

import dmstore
from dmstore import cli

TASK = "dmstore.training.tasks:dense"


def run(*arguments, code=0):
    """Run a command in this process; returns stdout and stderr."""
    from contextlib import redirect_stderr, redirect_stdout
    from io import StringIO

    out, err = StringIO(), StringIO()
    with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as stop:
        cli.main([str(a) for a in arguments])
    assert stop.value.code == code, (out.getvalue(), err.getvalue())
    return out.getvalue(), err.getvalue()


def run_json(*arguments, code=0):
    return json.loads(run(*arguments, "--json", code=code)[0])


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A study taken through every step by commands alone."""
    folder = tmp_path_factory.mktemp("cli")
    np.savez(folder / "e.npz", **examples(train=40, target=30))
    (folder / "b.json").write_text(
        '{"epochs": 2, "paste_rows": [0], "paste_columns": [0], "paste_share": 0.5}'
    )
    (folder / "a.json").write_text('{"epochs": 2}')
    path = folder / "s.dm"
    steps = {
        "init": run_json(
            "init", path, "--examples", folder / "e.npz", "--seed", 1, "--title", "T <b>&"
        )
    }
    for name in ("a", "b"):
        steps[f"add {name}"] = run_json(
            "add",
            path,
            name,
            "--runs",
            150,
            "--task",
            TASK,
            "--config",
            folder / f"{name}.json",
            "--output",
            "margin",
            "--output",
            "prediction",
        )
    steps["train 1"] = run_json("train", path, "a", "--part", "1/2", "-Q")
    steps["train 2"] = run_json("train", path, "a", "--part", "2/2", "-Q")
    steps["train b"] = run_json("train", path, "b", "-Q")
    steps["compact"] = run_json("compact", path, "-Q")
    steps["tag"] = run_json("tag", path, "a", "v1")
    steps["fit"] = run_json("fit", path, "a", "-Q")
    run("fit", path, "b", "-Q", "--lams", 20)
    steps["evaluate"] = run_json("evaluate", path, "a")
    steps["compare"] = run_json("compare", path, "a", "b", "--components", 3, "--top", 4)
    steps["counterfactual"] = run_json(
        "counterfactual",
        path,
        "a",
        "b",
        "--class",
        1,
        "--name",
        "corner",
        "--rows",
        "0",
        "--columns",
        "0,1",
        "--models",
        5,
    )
    steps["report"] = run_json("report", path, "a", "b")
    return path, steps


def test_every_step_says_what_it_did(done):
    _path, steps = done
    assert (steps["init"]["train"], steps["init"]["targets"], steps["init"]["seed"]) == (40, 30, 1)
    assert steps["add a"]["planned"] == 150
    assert (steps["train 1"]["trained"], steps["train 2"]["pending"]) == (75, 0)
    assert steps["compact"]["algorithms"]["a"]["runs"] == 150
    assert steps["tag"]["runs"] == 150
    assert steps["fit"]["targets"] == 30
    assert steps["fit"]["worst_kkt"] <= 1e-4
    assert sum(steps["fit"]["runs"].values()) == 150
    assert -1 <= steps["evaluate"]["lds"] <= 1
    assert len(steps["compare"]["delta"]) == 2
    assert set(steps["counterfactual"]["effect"]) == {"a", "b"}
    html = Path(steps["report"]["report"]).read_text()
    assert "T &lt;b&gt;&amp;" in html
    assert "<b>&" not in html
    assert "http" not in html.replace("http://www.w3.org", "").replace(
        "http://purl.org", ""
    ).replace("http://creativecommons.org", "")


def test_status_verify_vacuum(done):
    path, _ = done
    found = run_json("status", path)
    assert found["algorithms"]["a"]["stored"] == 150
    assert found["algorithms"]["a"]["tags"] == ["v1"]
    assert found["comparisons"][0]["algorithms"] == ["a", "b"]
    assert "150 runs stored of 150 planned" in run("status", path)[0]
    assert run_json("verify", path) == {"study": str(path), "runs": 300, "problems": []}
    assert "nothing wrong" in run("verify", path, "a")[0]
    assert run_json("vacuum", path)["removed"] == []
    assert len(run_json("vacuum", path, "--grace", "0s")["removed"]) > 0
    assert run_json("status", path)["algorithms"]["a"]["stored"] == 150


def test_extend_and_ingest(done, tmp_path):
    import dmstore

    path, _ = done
    assert run_json("extend", path, "b", "--runs", 5)["first_run"] == 150
    algorithm = dmstore.open_study(path).algorithm("b")
    masks = algorithm.masks(np.arange(150, 153))
    target = np.zeros((3, 30))
    np.savez(
        tmp_path / "w.npz",
        run=np.arange(150, 153),
        mask=masks,
        margin=target,
        prediction=target.astype(int),
    )
    (tmp_path / "torn.npz").write_bytes(b"PK")
    assert run_json("ingest", path, "b", tmp_path / "w.npz", "-Q")["new"] == 3
    found = run_json("ingest", path, "b", tmp_path, "-Q", code=1)
    assert (found["new"], found["present"], len(found["errors"])) == (0, 3, 1)
    assert "torn.npz" in run("ingest", path, "b", tmp_path / "torn.npz", code=1)[1]


def test_verify_finds_damage(done, tmp_path):
    import shutil

    path = tmp_path / "copy"
    shutil.copytree(done[0], path)
    chunk = max(
        (p for p in path.glob("algorithms/a/runs/base/*/margin/c/*/*")),
        key=lambda p: p.stat().st_size,
    )
    raw = bytearray(chunk.read_bytes())
    raw[len(raw) // 2] ^= 1
    chunk.write_bytes(raw)
    problems = run_json("verify", path, code=1)["problems"]
    assert problems
    assert "algorithms/a/runs/base" in problems[0]["where"]


BAD = {
    "no study": (["status", "nowhere"], 1, "dmstore init"),
    "study exists": (["init", "{s}", "--examples", "{e}"], 1, "exists"),
    "no examples": (["init", "new", "--examples", "none.npz"], 1, "no such file"),
    "missing option": (["init", "new"], 2, "--examples"),
    "unknown command": (["frobnicate"], 2, "frobnicate"),
    "slash": (["add", "{s}", "x/y"], 1, "not allowed"),
    "empty name": (["add", "{s}", ""], 1, "not allowed"),
    "taken name": (["add", "{s}", "A"], 1, "exists"),
    "alpha": (["add", "{s}", "c", "--alpha", "1.5"], 1, "strictly between"),
    "no config": (["add", "{s}", "c", "--config", "none.json"], 1, "no such file"),
    "part 0/3": (["train", "{s}", "a", "--part", "0/3"], 1, "count from 1"),
    "part 4/3": (["train", "{s}", "a", "--part", "4/3"], 1, "count from 1"),
    "unknown algorithm": (["fit", "{s}", "zzz"], 1, "it has: a, b"),
    "itself": (["compare", "{s}", "a", "a"], 1, "itself"),
    "not compared": (["report", "{s}", "a", "zzz"], 1, "not in this study"),
    "grace": (["vacuum", "{s}", "--grace", "soon"], 2, "no duration"),
    "tag": (["tag", "{s}", "a", "x/y"], 1, "not allowed"),
    "tag twice": (["tag", "{s}", "a", "v1"], 1, "never move"),
    "demo elsewhere": (["demo", "{s}", "--runs", "500"], 1, "another study"),
    "few demo runs": (["demo", "d", "--runs", "3"], 1, "too few"),
    "class": (
        ["counterfactual", "{s}", "a", "b", "--class", "9", "--rows", "0", "--columns", "0"],
        1,
        "classes 0 to 2",
    ),
    "rows": (
        ["counterfactual", "{s}", "a", "b", "--class", "1", "--rows", "x", "--columns", "0"],
        2,
        "no list",
    ),
    "rows outside": (
        ["counterfactual", "{s}", "a", "b", "--class", "1", "--rows", "77", "--columns", "0"],
        1,
        "77",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(done, tmp_path, monkeypatch, case):
    path, _ = done
    monkeypatch.chdir(tmp_path)
    arguments, code, words = BAD[case]
    named = [a.format(s=path, e=path.parent / "e.npz") for a in arguments]
    out, err = run(*named, code=code)
    assert words in err
    if code == 1:
        assert err.startswith("error: ")
        assert err.count("\n") == 1
        found = run_json(*named, code=code)
        assert words in found["error"]["message"]
        assert found["error"]["kind"] != "internal"
    assert out == ""
    assert list(tmp_path.iterdir()) == []


def test_every_command_has_help_and_stands_in_the_readme():
    readme = (Path(__file__).parent.parent / "README.md").read_text()
    for name, text in cli.COMMANDS.items():
        command = cli.group.get_command(None, name)
        assert command.name == name
        assert command.help
        assert text.endswith(".")
        result = CliRunner().invoke(cli.group, [name, "--help"])
        assert result.exit_code == 0
        assert name in readme


def test_options_come_from_the_environment(done, monkeypatch):
    monkeypatch.setenv("DMSTORE_TRAIN_PART", "9/3")
    assert "count from 1" in run("train", done[0], "a", code=1)[1]


def test_module_and_version():
    result = subprocess.run(
        [sys.executable, "-m", "dmstore", "--version"], capture_output=True, text=True, check=True
    )
    assert result.stdout.startswith("dmstore 0.")


def test_traceback_only_on_request(done):
    assert "Traceback" not in run("fit", done[0], "zzz", code=1)[1]
    assert "Traceback" in run("-vv", "fit", done[0], "zzz", code=1)[1]


def test_incomplete_training_exits_3(done, monkeypatch):
    from dmstore.training import worker

    run("extend", done[0], "b", "--runs", "1")
    monkeypatch.setattr(worker, "train", lambda *a, **k: 0)
    run("train", done[0], "b", "-Q", code=3)


def test_a_misspelt_task_adds_nothing(tmp_path):
    path = str(tmp_path / "s.dm")
    dmstore.create_study(path, examples(), seed=1)
    result = CliRunner().invoke(
        cli.group, ["add", path, "a", "--runs", "5", "--task", "dmstore.training.tasks:dens"]
    )
    assert "has no 'dens'" in str(result.exception)
    assert dmstore.open_study(path).algorithms == []


def test_a_mistyped_condition_says_what_is_there(tmp_path):
    path = str(tmp_path / "s.dm")
    algorithm = dmstore.create_study(path, examples(), seed=1).add_algorithm("a", runs=5)
    fill(algorithm, range(3))
    arguments = ["retract", path, "a", "--where", "host=hots", "--reason", "test"]
    result = CliRunner().invoke(cli.group, arguments)
    assert result.output == "a: 0 runs retracted\n  host is host\n"


def extend(path):
    dmstore.open_study(path).algorithm("a").extend_to(12)


def test_extend_to_a_total_may_be_repeated(tmp_path):
    path = tmp_path / "s.dm"
    algorithm = dmstore.create_study(path, examples(), seed=1).add_algorithm("a", runs=5)
    found = run_json("extend", path, "a", "--total", 9)
    assert (found["first_run"], found["runs"], found["planned"]) == (5, 4, 9)
    assert run("extend", path, "a", "--total", 9)[0] == "a: nothing to add, 9 planned\n"
    assert run_json("extend", path, "a", "--total", 9)["runs"] == 0
    assert "9 runs planned, more than 8;" in run("extend", path, "a", "--total", 8, code=1)[1]
    assert "--total" in run("extend", path, "a", code=2)[1]
    assert "--total" in run("extend", path, "a", "--total", 9, "--runs", 9, code=2)[1]
    assert [block.runs for block in algorithm.blocks()] == [5, 4]
    died, at = True, 0
    while died:
        at += 1
        copy = tmp_path / f"s{at}"
        shutil.copytree(path, copy)
        died, _ = crash.run(extend, str(copy), at)
        extend(copy)
        assert dmstore.open_study(copy).algorithm("a").planned_count() == 12
    assert at > 2
