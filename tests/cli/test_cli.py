"""Every command, as a user types it."""

import html
import io
import re
import shutil
import subprocess
import sys
from pathlib import Path

import crash
import numpy as np
import pytest
from click.testing import CliRunner
from commands import run, run_json
from helpers import examples, fill
from paths import ROOT

import dmstore
from dmstore import cli, counterfactual, readers
from dmstore.cli import output
from dmstore.core import meter
from dmstore.errors import IncompleteError
from dmstore.training.task import make_task

TASK = "dmstore.training.tasks:dense"


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


def test_intensities_need_no_zero(done):
    patch = ("--class", 1, "--name", "corner", "--rows", "0", "--columns", "0,1", "--models", 5)
    said = [
        run_json("counterfactual", done[0], "a", "b", *patch, "--intensity", given)
        for given in ("0.5,1", "0,0.5,1")
    ]
    assert said[0]["intensity"] == [0, 0.5, 1]
    assert said[0] == said[1]


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
    lines = [[one["line"] for one in row] for row in steps["compare"]["explained_by"]]
    explained = dmstore.analysis.explain(dmstore.open_study(_path), "a", "b")
    assert explained["line"].values.tolist() == lines
    assert {"label", "length of weight", "weight"} & set(explained["annotation"].values.tolist())
    assert set(steps["counterfactual"]["effect"]) == {"a", "b"}
    page = Path(steps["report"]["report"]).read_text()
    assert "T &lt;b&gt;&amp;" in page
    assert "<b>&" not in page
    assert "http" not in page.replace("http://www.w3.org", "").replace(
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
    "alpha": (["add", "{s}", "c", "--alpha", "1.5"], 2, "0<x<1"),
    "no config": (["add", "{s}", "c", "--config", "none.json"], 1, "no such file"),
    "part 0/3": (["train", "{s}", "a", "--part", "0/3"], 2, "count from 1"),
    "part 4/3": (["train", "{s}", "a", "--part", "4/3"], 2, "count from 1"),
    "unknown algorithm": (["fit", "{s}", "zzz"], 1, "it has: a, b"),
    "itself": (["compare", "{s}", "a", "a"], 1, "itself"),
    "more than two, one twice": (["compare", "{s}", "a", "b", "a"], 1, "named twice"),
    "agreement of many": (["compare", "{s}", "a", "b", "c", "--agree"], 2, "--agree"),
    "figures into a file": (["report", "{s}", "a", "b", "--figures", "{e}"], 1, "is a file"),
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
    "two classes": (
        ["counterfactual", "{s}", "a", "b", "--class", "0", "--class", "1", "--targets", "x"],
        2,
        "give it once",
    ),
    "two classes to transform": (
        ["transform", "{s}", "yellow-square", "--class", "0", "--class", "1", "--sheet", "x.png"],
        2,
        "give it once",
    ),
    "share": (["removal", "{s}", "a", "b", "--direction", "A1", "--share", "51"], 1, "at most 50"),
    "no share": (["removal", "{s}", "a", "--target", "1", "--share", "0"], 1, "more than 0"),
    "direction": (["removal", "{s}", "a", "b", "--direction", "C1"], 1, "A1 to A3 (a)"),
    "no direction": (["removal", "{s}", "a", "b"], 2, "--direction or --target"),
    "target": (["removal", "{s}", "a", "--target", "none\x1b"], 1, "not among the 30 targets"),
    "direction of one": (["removal", "{s}", "a", "--direction", "A1"], 1, "the two algorithms"),
    "no comparison": (
        ["removal", "{s}", "a", "b", "--direction", "A1", "--comparison", "x\x1b"],
        1,
        "have no comparison",
    ),
    "page into a study": (
        ["report", "{s}", "a", "b", "--out", "{s}/x.html"],
        1,
        "inside the study",
    ),
    "page over a study": (["report", "{s}", "a", "b", "--out", "{s}"], 1, "is a study"),
    "figures": (["report", "{s}", "a", "b", "--figures", "{s}/examples"], 1, "inside the study"),
    "exported": (["export", "{s}", "a", "{s}/out", "--to", "npy"], 1, "inside the study"),
    "sheet": (["transform", "{s}", "yellow-square", "--sheet", "{s}/x.png"], 1, "inside the study"),
    "study in a study": (
        ["init", "{s}/algorithms/new", "--examples", "{e}"],
        1,
        "inside the study",
    ),
    "images into a study": (["beton", "{s}", "-o", "{s}/x.beton"], 1, "inside the study"),
    "copy in a study": (["publish", "{s}", "{s}/copy"], 1, "inside the study"),
    "scratch": (["fit", "{s}", "a", "--scratch", "{s}/algorithms"], 1, "inside the study"),
    "checkpoints": (
        ["submit", "{s}", "a", "--local", "--checkpoints", "{s}/x"],
        1,
        "inside the study",
    ),
    "twice": (["removal", "{s}", "a", "a", "--target", "1"], 1, "each once"),
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


# A command line that --help allows, of something that is not there.
REFUSED = {
    "demo": ["file/demo"],
    "init": ["new", "--examples", "none.npz"],
    "annotate": ["nowhere", "train", "none.csv"],
    "targets": ["nowhere", "later", "none.npz"],
    "beton": ["nowhere"],
    "add": ["nowhere", "a"],
    "features": ["nowhere", "--model", "efficientnet_lite0"],
    "recipes": ["nowhere"],
    "extend": ["nowhere", "a", "--total", "3"],
    "task": ["nowhere", "a"],
    "train": ["nowhere", "a"],
    "submit": ["nowhere", "a"],
    "ingest": ["nowhere", "a", "none.npz"],
    "retract": ["nowhere", "a", "--where", "run=1", "--reason", "x"],
    "remove": ["nowhere", "a"],
    "export": ["nowhere", "a", "--to", "npy", "out"],
    "status": ["nowhere"],
    "verify": ["nowhere"],
    "compact": ["nowhere"],
    "vacuum": ["nowhere"],
    "doctor": ["file/x"],
    "torture": ["file/x", "--seconds", "1"],
    "tag": ["nowhere", "a", "v1"],
    "publish": ["nowhere", "out"],
    "pull": ["nowhere", "out"],
    "diff": ["nowhere", "neither"],
    "fit": ["nowhere", "a"],
    "evaluate": ["nowhere", "a"],
    "compare": ["nowhere", "a", "b"],
    "contrast": ["nowhere", "a", "--by", "label"],
    "caption": ["nowhere", "a", "b"],
    "transform": ["nowhere", "yellow-square", "--sheet", "x.png"],
    "counterfactual": ["nowhere", "a", "b", "--class", "1", "--rows", "0", "--columns", "0"],
    "removal": ["nowhere", "a", "b", "--direction", "A1"],
    "report": ["nowhere", "a", "b"],
}
# Values that --help rules out, whatever there is.
MISUSED = {
    "annotate": ["s.dm"],
    "add": ["s.dm", "a", "--runs", "-1"],
    "extend": ["s.dm", "a", "--runs", "0"],
    "task": ["s.dm", "a", "--alpha", "0.4"],
    "train": ["s.dm", "a", "--part", "half"],
    "ingest": ["s.dm", "a", "x.npz", "--seed", "1"],
    "init": ["s.dm", "--examples", "e.npz", "--seed", "-1"],
    "retract": ["s.dm", "a", "--where", "host", "--reason", "x"],
    "fit": ["s.dm", "a", "--lam-ratio", "2"],
    "compare": ["s.dm", "a"],
    "contrast": ["s.dm", "a"],
    "vacuum": ["s.dm", "--grace", "soon"],
    "export": ["s.dm", "a", "--to", "csv", "out"],
    "torture": [".", "--writers", "0"],
    "demo": ["d", "--workers", "0"],
}


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_exit_codes_are_those_of_the_readme(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("")
    assert "no such option" in run(name, "--no-such-option", code=2)[1].lower()
    if name in MISUSED:
        run(name, *MISUSED[name], code=2)
        assert run_json(name, *MISUSED[name], code=2)["error"]["kind"] == "usage"
    if name in REFUSED:
        assert run(name, *REFUSED[name], code=1)[1].startswith("error: ")
        assert run_json(name, *REFUSED[name], code=1)["error"]["kind"] not in ("usage", "internal")
    assert name in {*REFUSED, "writer"}, (
        f"add {name} to REFUSED: arguments that --help allows, of something that is not there"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_every_command_has_help_and_stands_in_the_reference():
    page = (ROOT / "docs" / "reference" / "commands.md").read_text()
    # Generated when the site is built, from the group, with all commands in it.
    assert ".. click:: dmstore.cli:group" in page
    assert ":nested: full" in page
    assert cli.group.list_commands(None) == list(cli.COMMANDS)
    for name, text in cli.COMMANDS.items():
        command = cli.group.get_command(None, name)
        assert command.name == name
        assert command.help
        assert text.endswith(".")
        result = CliRunner().invoke(cli.group, [name, "--help"])
        assert result.exit_code == 0


def test_ingest_names_every_format():
    kind = next(one for one in cli.group.get_command(None, "ingest").params if one.name == "kind")
    assert set(kind.type.choices) == {"auto", *readers.FORMATS}


def test_options_come_from_the_environment(done, monkeypatch):
    monkeypatch.setenv("DMSTORE_TRAIN_PART", "9/3")
    assert "count from 1" in run("train", done[0], "a", code=2)[1]


def test_module_and_version():
    result = subprocess.run(
        [sys.executable, "-m", "dmstore", "--version"], capture_output=True, text=True, check=True
    )
    assert re.fullmatch(
        r"dmstore 0\.\d+\.\d+; writes store format 1\.\d+, reads format 1\n", result.stdout
    )


def test_the_shell_completes_commands_and_values(monkeypatch, capsys):
    monkeypatch.setenv("_DMSTORE_COMPLETE", "bash_complete")
    for words, completed in (("pub", "publish"), ("export --to dat", "datamodels.pt")):
        monkeypatch.setenv("COMP_WORDS", f"dmstore {words}")
        monkeypatch.setenv("COMP_CWORD", str(len(words.split())))
        with pytest.raises(SystemExit):
            cli.main([])
        assert capsys.readouterr().out == f"plain,{completed}\n"


def test_traceback_only_on_request(done):
    assert "Traceback" not in run("fit", done[0], "zzz", code=1)[1]
    assert "Traceback" in run("-vv", "fit", done[0], "zzz", code=1)[1]


def test_incomplete_training_exits_3(done, monkeypatch):
    from dmstore.training import worker

    run("extend", done[0], "b", "--runs", "1")
    monkeypatch.setattr(worker, "train", lambda *a, **k: 0)
    run("train", done[0], "b", "-Q", code=3)


def test_a_fit_of_runs_that_were_retracted_is_flagged(done, tmp_path):
    path = tmp_path / "s.dm"
    shutil.copytree(done[0], path)
    flag = "retracted since; run 'dmstore fit' again"
    run("retract", path, "a", "--where", "run=1,3,5", "--reason", "test")
    fit = run_json("status", path)["algorithms"]["a"]["fits"][-1]
    assert fit["retracted"] == 3
    said = f"fit of snapshot {fit['version']} rests on 3 runs {flag}"
    assert run("status", path)[0].count(said) == 1
    page, warned = run("report", path, "a", "b", "-Q")
    assert warned == f"warning: a: {said}\n"
    assert flag in html.unescape(Path(page.strip()).read_text())
    # A run that came after the fit, and went again, is not one that it rests on.
    run("extend", path, "a", "--runs", 1)
    algorithm = dmstore.open_study(path).algorithm("a")
    fill(algorithm, [150])
    run("compact", path, "-Q")
    run("retract", path, "a", "--where", "run=150", "--reason", "test")
    assert run_json("status", path)["algorithms"]["a"]["fits"][-1]["retracted"] == 3
    # Of a base that is gone the log alone tells, and that knows no better.
    algorithm.objects.delete(f"{algorithm.table.prefix}tags/v1.json")
    run("compact", path, "-Q")
    run("vacuum", path, "--grace", 0)
    assert not algorithm.objects.exists(f"{algorithm.table.prefix}{fit_base(path)}/zarr.json")
    assert run_json("status", path)["algorithms"]["a"]["fits"][-1]["retracted"] == 4
    run("retract", path, "a", "--where", "run=0-150", "--reason", "test", "--restore")
    assert flag not in run("status", path)[0]
    fill(algorithm, [1, 3, 5])
    run("retract", path, "a", "--where", "run=1", "--reason", "test")
    assert "rests on 1 run retracted" in run("status", path)[0]
    run("fit", path, "a", "-Q")
    assert flag not in run("status", path)[0]


def fit_base(path):
    return dmstore.open_study(path).fits("a")[0]["base"]


def test_status_of_one_algorithm(done):
    path, _ = done
    found = run_json("status", path, "a")
    assert list(found["algorithms"]) == ["a"]
    assert found["comparisons"] == run_json("status", path)["comparisons"]
    assert "  b: " not in run("status", path, "a")[0]
    assert "it has: a, b" in run("status", path, "zzz", code=1)[1]


def test_compare_says_where_it_is_and_what_comes_next(done):
    path, _ = done
    lines = run("compare", path, "a", "b", "--components", 3, "--top", 4)[0].splitlines()
    place = lines[-2].removeprefix("  kept in ").partition(";")[0]
    # Runs that were stored since are measured too, so that it is not the comparison of before.
    again = run_json("compare", path, "a", "b", "--components", 3, "--top", 4)
    assert Path(place).name == again["comparison"]
    assert (Path(place) / "comparison.json").is_file()
    command, *arguments = lines[-1].split()
    assert command == "dmstore"
    assert Path(run(*arguments)[0].strip()).is_file()


def test_compare_of_some_targets_and_within_memory(done, tmp_path):
    path, steps = done
    arguments = ("compare", path, "a", "b", "--components", 2, "--top", 4)
    label = dmstore.open_study(path).label()
    found = run_json(*arguments, "--where", "label=1")
    assert found["where"] == "label=1"
    assert found["targets"] == (label == 1).sum() > 2
    assert found["comparison"] != steps["compare"]["comparison"]
    said = run(*arguments, "--where", "label=1")[0].splitlines()
    assert said[0] == f"of {found['targets']} of {len(label)} targets, where label=1:"
    page = Path(run("report", path, "a", "b")[0].strip()).read_text()
    assert "where label=1" in page
    ids = tmp_path / "ids.txt"
    ids.write_text("\n".join(map(str, dmstore.open_study(path).targets["target"].values[:3])))
    assert "ids.txt (3 ids, sha256" in run_json(*arguments, "--where", ids)["where"]
    before = sorted(Path(path, "comparisons").iterdir())
    _, err = run(*arguments, "--where", "label=0", "--memory", "1MB", code=1)
    assert "needs 0.45 GB, and may take 0.00 GB" in err
    assert sorted(Path(path, "comparisons").iterdir()) == before


def test_one_of_a_thing_is_singular(tmp_path):
    path = str(tmp_path / "s.dm")
    algorithm = dmstore.create_study(path, examples(), seed=1).add_algorithm("a", runs=2)
    fill(algorithm, [0])
    said = run("status", path)[0]
    for words in ("1 run stored of 2", "1 run pending; 1 segment to compact"):
        assert words in said
    assert "1 run in version 1, 1 segment absorbed" in run("compact", path, "-Q")[0]
    assert "1 run of 1 algorithm verified" in run("verify", path)[0]
    assert "1 run retracted" in run("retract", path, "a", "--where", "run=0", "--reason", "x")[0]
    assert "1 row retracted" in run("status", path)[0]
    assert run("extend", path, "a", "--runs", 1)[0] == "a: run 2 added, 3 planned\n"
    assert "    run 2: 0 stored, 1 pending" in run("status", path)[0]


def test_progress_is_shown_of_what_takes_long(monkeypatch, capsys):
    now = [100.0]
    monkeypatch.setattr(meter.time, "monotonic", lambda: now[0])
    progress = output.Progress("compare", delay=2, unit="targets")
    for done in range(1, 5):
        progress("compare", done, 20)
    assert capsys.readouterr().err == ""
    now[0] += 2.5
    progress("compare", 5, 20)
    progress("compare", 20, 20)
    progress.close()
    assert [line.partition(",")[0] for line in capsys.readouterr().err.splitlines()] == [
        "compare: 5 of 20 targets",
        "compare: 20 of 20 targets",
    ]


def test_each_stage_has_a_line_and_a_clock_of_its_own(monkeypatch, capsys):
    now = [100.0]
    monkeypatch.setattr(meter.time, "monotonic", lambda: now[0])
    tell = output.Stages({"read": ("read the masks", ""), "measure": ("measure", "targets")})
    for what, done, seconds in (
        ("read", 0, 60),
        ("read", 6, 0),
        ("measure", 0, 2),
        ("measure", 1, 0),
    ):
        tell(what, done, 6)
        now[0] += seconds
    tell.close()
    assert capsys.readouterr().err.splitlines() == [
        "read the masks: 0 %",
        "read the masks: 100 %",
        "measure: 0 of 6 targets",
        "measure: 1 of 6 targets, 10 s left",
    ]


def test_slow_commands_tell_how_far_they_are(done, monkeypatch):
    path, _ = done
    monkeypatch.setattr(output.Progress, "__init__", shown_at_once(output.Progress.__init__))
    for what, arguments, said in (
        ("compare", ("--components", 2, "--top", 4), "find directions: 100 %"),
        ("report", (), "draw the page: 100 %"),
        (
            "counterfactual",
            ("--class", 1, "--name", "n", "--rows", 0, "--columns", 0),
            "ask the models: 100 %",
        ),
    ):
        err = run(what, path, "a", "b", *arguments)[1].splitlines()
        assert said in err
        assert run(what, path, "a", "b", *arguments, "-Q")[1] == ""


def shown_at_once(init):
    return lambda self, what, *, quiet=False, unit="", delay=0.0: init(
        self, what, quiet=quiet, unit=unit
    )


def test_a_misspelt_task_adds_nothing(tmp_path):
    path = str(tmp_path / "s.dm")
    dmstore.create_study(path, examples(), seed=1)
    result = CliRunner().invoke(
        cli.group, ["add", path, "a", "--runs", "5", "--task", "dmstore.training.tasks:dens"]
    )
    assert "has no 'dens'" in str(result.exception)
    assert dmstore.open_study(path).algorithms == []


def test_what_a_terminal_cannot_show_ends_no_command(tmp_path, monkeypatch):
    np.savez(tmp_path / "e.npz", **examples())
    shown = io.TextIOWrapper(io.BytesIO(), encoding="latin-1")
    monkeypatch.setattr(sys, "stdout", shown)
    with pytest.raises(SystemExit) as ended:
        cli.main(["init", str(tmp_path / "\u2192.dm"), "--examples", str(tmp_path / "e.npz")])
    assert ended.value.code == 0
    shown.flush()
    assert b"\\u2192.dm" in shown.buffer.getvalue()


def test_tasks_of_the_working_directory_are_found_by_every_command_that_makes_one(
    tmp_path, monkeypatch
):
    dmstore.create_study(tmp_path / "s.dm", examples(), seed=1)
    (tmp_path / "own_task_here.py").write_text(
        "from dmstore.training.tasks import dense\n\ndef make(*given):\n    return dense(*given)\n"
    )
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.json").write_text('{"epochs": 1, "batch_size": 7}')
    task = ["--task", "own_task_here:make", "--config", "c.json"]
    patch = ["--class", "0", "--name", "n", "--rows", "0", "--columns", "0", "-Q"]

    def check(study, a, *_, **__):
        document = study.algorithm(a).document
        make_task(study, document["task"], document["config"], ["margin"])
        raise IncompleteError("made")

    monkeypatch.setattr(counterfactual, "check", check)
    for command, code in (
        (["add", "s.dm", "a", "--runs", "2", *task], 0),
        (["train", "s.dm", "a", "-Q"], 0),
        (["counterfactual", "s.dm", "a", "b", *patch], 1),
    ):
        # As in a process of its own that an installed script started.
        monkeypatch.setattr(sys, "path", [p for p in sys.path if p not in ("", str(tmp_path))])
        sys.modules.pop("own_task_here", None)
        done = CliRunner().invoke(cli.group, command)
        assert done.exit_code == code, done.output
        assert isinstance(done.exception, IncompleteError) == (code == 1), done.exception
        assert "warning" not in done.output


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
    assert [block.runs for block in algorithm.blocks] == [5, 4]
    died, at = True, 0
    while died:
        at += 1
        copy = tmp_path / f"s{at}"
        shutil.copytree(path, copy)
        died, _ = crash.run(extend, str(copy), at)
        extend(copy)
        assert dmstore.open_study(copy).algorithm("a").planned_count == 12
    assert at > 2
