"""Every command that writes, killed before each mutating call it makes, and then given again.

Of the states that deaths leave, each is checked: the study opens, verification finds nothing, what was
acknowledged is there, nothing half-made stands under a final name. Then the same command is given again
and must come to what an undisturbed one comes to, and a vacuum must find everything that is left over.
"""

import dataclasses
import functools
import hashlib
import json
import os
import re
import shutil
from collections import Counter
from pathlib import Path

import crash
import numpy as np
import pytest
from helpers import Done, examples, fill, make_rows
from paths import DATA

import dmstore
from dmstore.storage.acts import tag
from dmstore.storage.acts.compact import compact
from dmstore.storage.published.published import ReadOnly
from dmstore.storage.table import groups, log
from dmstore.study import annotation, changes, results
from dmstore.study.algorithms import open_algorithm
from dmstore.upkeep import maintenance
from dmstore.upkeep.maintenance import vacuum
from dmstore.upkeep.verification import verify

TASK = "linear_task:Linear"
STUDY = "s.dm"
HEX = r"[0-9a-f]{8,}"


def say(*arguments, code=0):
    done = Done(*arguments)
    assert done.returncode == code, (arguments, done.stdout, done.stderr)
    return done.stdout


def command(*arguments, study=f"./{STUDY}"):
    """An operation: a command on the study below a root; other names with a '/' are below it too."""

    def placed(argument, root):
        return str(Path(root, argument[2:])) if argument.startswith("./") else argument

    def operate(root, code=0):
        name, *rest = arguments
        say(name, *(placed(str(a), root) for a in ([study] if study else []) + rest), code=code)

    return operate


# Templates: what there is before the command


def small():
    """Labels alone: what there is more of makes every state larger and tells no more."""
    return {name: values for name, values in examples().items() if name.endswith("_label")}


def plain(root, runs=20, tail=0, base=True):
    study = dmstore.create_study(root / STUDY, small(), seed=3)
    algorithm = study.add_algorithm("alpha", runs=300, outputs=["margin", "prediction"], task=TASK)
    if runs:
        fill(algorithm, range(runs))
        if base:
            compact(algorithm.table)
    if tail:
        fill(algorithm, range(runs, runs + tail), batch=10)
    return algorithm


def with_tail(root):
    plain(root, tail=20)


def absorbed(root):
    compact(plain(root, tail=20).table)


def empty(root):
    plain(root, runs=0)


def without_task(root):
    bare(root)
    dmstore.open_study(root / STUDY).add_algorithm("beta", runs=9)


def removed(root):
    without_task(root)
    dmstore.open_study(root / STUDY).remove_algorithm("beta")


def only_examples(root):
    np.savez(root / "e.npz", **{k: v for k, v in examples().items() if "target_i" not in k})


def bare(root):
    dmstore.create_study(root / STUDY, small(), seed=3)


def nothing(root):
    shutil.copytree(DATA / "datamodels-store", root / "incumbent")


def workers(root):
    algorithm = plain(root)
    (root / "in").mkdir()
    for start in (20, 30):
        rows = make_rows(algorithm, range(start, start + 10))
        np.savez(root / "in" / f"{start}.npz", run=rows.run, **rows.arrays)


def retracted(root):
    plain(root)
    say("retract", root / STUDY, "alpha", "--where", "run<5", "--reason", "faulty")


def columns(root):
    plain(root)
    np.savez(root / "c.npz", group=np.arange(37) % 4, weight2=np.linspace(0, 1, 37))


def targets(root):
    plain(root)
    draw = np.random.default_rng(0)
    np.savez(
        root / "t.npz",
        target_label=draw.integers(0, 3, 11),
        target_night=draw.random(11) < 0.5,
    )


def later(root):
    targets(root)
    say("targets", root / STUDY, "late", root / "t.npz")
    ids = np.arange(20)
    margin = np.random.default_rng(2).normal(size=(20, 11)).astype("f4")
    np.savez(root / "o.npz", run=ids, margin=margin, prediction=np.zeros((20, 11), int))


def with_outputs(root):
    later(root)
    say("ingest", root / STUDY, "alpha", root / "o.npz", "--targets", "late", "-Q")


def unfinished(root):
    """Groups that no document names, of a fit, a comparison and a target set that was added again; and a
    dead writer's file.
    """
    fitted(1)(root)
    np.savez(root / "t.npz", target_label=np.zeros(11, dtype=int))
    say("targets", root / STUDY, "late", root / "t.npz")
    study = dmstore.open_study(root / STUDY)
    (fit,) = study.fits("alpha")
    for place in (f"datamodels/alpha/{fit['fit']}", "comparisons/0123456789abcdef"):
        where = root / STUDY / place
        where.mkdir(parents=True, exist_ok=True)
        shutil.copytree(root / STUDY / "examples" / "train.zarr", where / "x-01234567.zarr")
    shutil.copy(_npz(root), root / STUDY / "examples" / "late-01234567.zarr.zip")
    (root / STUDY / "examples" / f".{'0' * 32}.part").write_bytes(b"half")
    age(root)
    assert list(verify(study)) == []


def _npz(root):
    np.savez(root / "x.npz", x=np.arange(3))
    return root / "x.npz"


def published(root):
    with_outputs(root)
    say("tag", root / STUDY, "alpha", "v1")
    say("publish", root / STUDY, root / "pub", "-Q")


def written(root):
    plain(root, runs=0)
    say("export", root / STUDY, "alpha", root / "plan.json", "--to", "plan", "-Q")


def scores(root):
    draw = np.random.default_rng(1)
    for name in ("a", "b"):
        np.save(root / f"{name}.npy", draw.normal(size=(23, 37)).astype("f4"))
    only_examples(root)


@functools.cache
def _fitted(stage):
    """Two small algorithms with runs, fits, a comparison: made once, copied by every case."""
    import tempfile

    folder = Path(tempfile.mkdtemp())
    if stage:
        shutil.copytree(_fitted(stage - 1), folder, dirs_exist_ok=True)
    path = folder / STUDY
    if stage == 0:
        study = dmstore.create_study(path, examples(train=14, target=9), seed=3)
        for number, name in enumerate(("alpha", "beta")):
            algorithm = study.add_algorithm(
                name,
                runs=160,
                outputs=["margin"],
                task="dmstore.training.tasks:dense",
                config={"epochs": 1},
            )
            rows = make_rows(algorithm, range(160))
            weight = np.random.default_rng(number).normal(size=(14, 9))
            margin = rows.arrays["mask"] @ weight
            rows.arrays["margin"][:] = margin + np.random.default_rng(9).normal(size=(160, 9))
            algorithm.table.append(rows)
            compact(algorithm.table)
    elif stage == 1:
        for name in ("alpha", "beta"):
            say("fit", path, name, "-Q", "--lams", 10)
    elif stage == 2:
        say("compare", path, "alpha", "beta", "--components", 2, "--top", 3)
    elif stage == 3:
        say("report", path, "alpha", "beta")
    return folder


def fitted(stage):
    return lambda root: shutil.copytree(_fitted(stage), root, dirs_exist_ok=True)


def reported(root):
    """A report that another counterfactual has made old."""
    fitted(3)(root)
    say(*COUNTERFACTUAL[:1], root / STUDY, *COUNTERFACTUAL[1:])


COUNTERFACTUAL = (
    *("counterfactual", "alpha", "beta", "--class", 1, "--rows", "0", "--columns", "0,1"),
    *("--models", 2),
)


# Commands


def commit(root):
    algorithm = dmstore.open_study(Path(root, STUDY)).algorithm("alpha")
    known = algorithm.table.view().run
    wanted = [run for run in range(40, 60) if run not in known]
    if wanted:
        algorithm.table.append(make_rows(algorithm, wanted))


def standalone(root):
    from dmstore.training.standalone import dmstore_writer as alone

    with alone.Writer(Path(root, "out"), Path(root, "plan.json"), flush_runs=2) as writer:
        for run in writer.pending("1/60"):
            margin = np.full(23, run.id, "f4")
            writer.append(run, margin=margin, prediction=np.zeros(23, int), time=10**12, host="h")


def restore(root):
    command("retract", "alpha", "--where", "run<3", "--restore", "--reason", "well")(root)


class Case:
    """An operation, what there is before, and names (below the root) that are there whole or not at all."""

    def __init__(self, operate, prepare, *finals, done=0, least=4, points=5):
        self.operate = operate
        self.prepare = prepare
        self.finals = finals
        # Exit code of the command where the killed one had done all and only not said so.
        self.done = done
        self.least = least
        # How many of its crash points the fast tests look at; the slow ones look at all.
        self.points = points


CASES = {
    "commit": Case(commit, with_tail, points=6),
    "first commit": Case(commit, empty, points=6),
    "compact": Case(command("compact", "-Q"), with_tail, points=6),
    "compact outputs": Case(command("compact", "-Q"), with_outputs),
    "vacuum": Case(command("vacuum", "--grace", "0"), absorbed, points=6),
    "vacuum of results": Case(command("vacuum", "--grace", "0"), unfinished, points=6),
    "tag": Case(command("tag", "alpha", "v1"), plain, done=1, points=6),
    "init": Case(
        command("init", "--examples", "./e.npz", "--seed", 3), only_examples, STUDY, done=1
    ),
    "add": Case(
        command("add", "beta", "--runs", 40, "--output", "margin"), bare, done=1, points=16
    ),
    "add a task": Case(command("add", "beta", "--task", TASK), without_task, points=3),
    "remove": Case(command("remove", "beta"), without_task, points=3),
    "remove --restore": Case(command("remove", "beta", "--restore"), removed, points=3),
    "extend": Case(command("extend", "alpha", "--runs", 50), plain),
    "ingest": Case(command("ingest", "alpha", "./in", "-Q"), workers, points=6),
    "ingest --create": Case(
        command("ingest", "alpha", "./incumbent", "--create", "--seed", 3, "-Q"), nothing
    ),
    "ingest --targets": Case(
        command("ingest", "alpha", "./o.npz", "--targets", "late", "-Q"), later, points=10
    ),
    "retract": Case(command("retract", "alpha", "--where", "run<5", "--reason", "x"), plain),
    "restore": Case(restore, retracted),
    "annotate": Case(command("annotate", "train", "./c.npz"), columns),
    "targets": Case(command("targets", "late", "./t.npz"), targets),
    "train": Case(command("train", "alpha", "--part", "1/60", "-Q"), empty, points=6),
    "writer": Case(standalone, written),
    "publish": Case(command("publish", "./pub", "-Q"), with_outputs, "pub", points=6),
    "publish zip": Case(command("publish", "./pub.zip", "-Q"), with_outputs, "pub.zip"),
    "pull": Case(
        command("pull", "./pub", "./copy.dm", "-Q", study=None), published, "copy.dm", done=1
    ),
    "export npy": Case(
        command("export", "alpha", "./out", "--to", "npy", "-Q"), plain, "out", done=1
    ),
    "export truth": Case(
        command("export", "alpha", "./out", "--to", "truth", "--output", "margin", "-Q"),
        fitted(0),
        "out",
        done=1,
    ),
    "export safetensors": Case(
        command("export", "alpha", "./out", "--to", "safetensors", "-Q"), plain, "out", done=1
    ),
    "export plan": Case(
        command("export", "alpha", "./out", "--to", "plan", "-Q"), plain, "out", done=1
    ),
    "export datamodels.pt": Case(
        command("export", "alpha", "./out", "--to", "datamodels.pt", "-Q"), fitted(1), "out", done=1
    ),
    "fit": Case(command("fit", "alpha", "-Q", "--lams", 10), fitted(0)),
    "evaluate": Case(command("evaluate", "alpha", "--resamples", 10), fitted(1), points=5),
    "compare": Case(
        command("compare", "alpha", "beta", "--components", 2, "--top", 3), fitted(1), points=5
    ),
    "compare scores": Case(
        command(
            "compare",
            "./a.npy",
            "./b.npy",
            "--out",
            "./out",
            "--orientation",
            "target-train",
            study=None,
        ),
        scores,
        "out",
        points=5,
    ),
    "counterfactual": Case(command(*COUNTERFACTUAL), fitted(2), points=5),
    "report": Case(command("report", "alpha", "beta"), reported, points=5),
}


# What a folder holds, apart from names and times that are new each time


def digest(arrays):
    state = hashlib.sha256()
    for name in sorted(arrays):
        values = np.asarray(arrays[name])
        state.update(f"{name}{values.dtype}{values.shape}".encode())
        state.update(
            json.dumps(values.tolist()).encode() if values.dtype.kind in "OUT" else values.tobytes()
        )
    return state.hexdigest()


def complete(objects, place):
    """Digest of the arrays that a finished result names, None where it is unfinished."""
    if not objects.exists(f"{place}complete.json"):
        return None
    named = json.loads(objects.get(f"{place}complete.json"))["path"]
    return digest(groups.read(objects, f"{place}{named}"))


def rows(table):
    view = table.view()
    return view.content_id(), len(view)


def study_content(path):
    study = dmstore.open_study(path)
    objects = study.objects
    found = {
        "seed": study.seed,
        "train": study.document["train"],
        "sets": {name: (e["count"], e["sha256"]) for name, e in study.target_sets.items()},
        "annotations": {
            f"{set_name} {name}": digest(groups.read(objects, where))
            for set_name in ("train", *study.target_sets, "class")
            for name, where in annotation.names(objects, set_name).items()
        },
        "comparisons": {
            name: complete(objects, f"comparisons/{name}/")
            for name in objects.children("comparisons/")
            if complete(objects, f"comparisons/{name}/")
        },
        "beside": {
            info.name: info.name.endswith(".html") or digest(groups.read(objects, info.name))
            for info in objects.entries("comparisons/")
            if re.search(r"(report\.html|(counterfactual|effects)-.*)$", info.name)
        },
    }
    for name in changes.of_all(objects):
        opened = open_algorithm(objects, study.document, name, removed=True)
        found[name] = {
            "removed": opened.changes.removed,
            "task": (opened.task, opened.config),
            "blocks": opened.blocks,
            "rows": rows(opened.table),
            "outputs": {
                child: rows(study.target_outputs(name, child).table)
                for child in objects.children(f"{opened.prefix}outputs/")
            },
            "tags": {e["name"]: e["content_id"] for e in tag.read_all(opened.table)},
            "retracted": len(opened.table.view().manifest.retracted),
            "fits": {
                fit["fit"]: complete(objects, f"datamodels/{name}/{fit['fit']}/")
                for fit in results.fits(objects, name)
                if fit["complete"]
            },
        }
    return found


def content(path):
    """What a file or folder holds."""
    path = Path(path)
    if path.suffix == ".npz":
        return digest(dict(np.load(path)))
    if (path / "study.json").exists() or path.name == "pub.zip":
        return study_content(path)
    if path.is_dir():
        # A result of score files holds when it was made.
        kept = [
            p
            for p in sorted(path.iterdir())
            if p.name[0] != "." and p.name not in ("comparison.json", "report.html")
        ]
        own = [content(p) for p in kept]
        return (
            Counter(map(str, own))
            if path.suffix != ".zarr"
            else digest(
                groups.read(dmstore.storage.objects.local.LocalObjects(path.parent), path.name)
            )
        )
    return hashlib.sha256(path.read_bytes()).hexdigest()


def everything(root):
    """All that is visible below a root."""
    return {p.name: content(p) for p in Path(root).iterdir() if not p.name.startswith(".")}


def shape(root):
    """Names inside studies, without what is new each time; segments and log entries left out."""
    found = Counter()
    for top in Path(root).iterdir():
        if top.name.startswith(".") or not (top / "study.json").exists():
            continue
        for path in top.rglob("*"):
            name = path.relative_to(root).as_posix()
            if "/segments/" not in name and "/log/" not in name:
                found[re.sub(HEX, "X", name)] += 1
    return found


def age(root):
    for path in Path(root).rglob("*"):
        os.utime(path, (1_600_000_000, 1_600_000_000), follow_symlinks=False)


def clean(root):
    """Compact and vacuum, once all that is there is old."""
    age(root)
    for top in Path(root).iterdir():
        if (top / "study.json").exists():
            study = dmstore.open_study(top)
            if not isinstance(study.objects, ReadOnly):
                maintenance.compact(study)
                age(root)
                vacuum(study, grace=0)
                assert study.objects.leftovers() == []


def check(root, before, finals, whole):
    """Invariants at a crash point."""
    for top in sorted(Path(root).iterdir()):
        if top.name.startswith("."):
            continue
        assert top.name in whole, f"{top.name} is half-made"
        if top.name in finals:
            # There whole, or not at all.
            assert content(top) == whole[top.name]
        if (top / "study.json").exists():
            # What is not named yet may be what the next call needs, so verification tells of it.
            told = [p for p in verify(dmstore.open_study(top)) if p.kind != "unreferenced"]
            assert told == []
            if top.name in before:
                _check_kept(before[top.name], study_content(top), whole[top.name])


def _check_kept(before, now, whole):
    """What had been acknowledged is there as it was, or already what the command makes of it."""
    for key, value in before.items():
        if isinstance(value, dict) and isinstance(now[key], dict):
            _check_kept(value, now[key], whole[key])
        elif key == "blocks":
            assert now[key][: len(value)] == value
        else:
            assert now[key] == value or now[key] == whole[key] or key == "rows"
            if key == "rows":
                low, high = sorted((value[1], whole[key][1]))
                assert low <= now[key][1] <= high


@pytest.fixture(autouse=True)
def _fast(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def sample(calls, points):
    """The first few calls and some between, and how many of the last there are to be."""
    third = max(1, points // 3)
    return {*range(1, third + 1), *range(1, calls - third, max(1, calls // max(third, 4)))}, third


PARAMETERS = [
    pytest.param(
        name, every, marks=[pytest.mark.slow] if every else [], id=f"{name}{', all' * every}"
    )
    for every in (False, True)
    for name in CASES
]


@pytest.mark.parametrize(("name", "every"), PARAMETERS)
def test_a_killed_command_leaves_nothing_half_made_and_can_be_repeated(tmp_path, name, every):
    case = CASES[name]
    template, whole, states = (tmp_path / part for part in ("template", "whole", "states"))
    template.mkdir()
    case.prepare(template)
    before = everything(template)
    shutil.copytree(template, whole)
    calls = crash.record(functools.partial(_operate, name), str(whole), str(states), ())
    assert calls >= case.least
    result = everything(whole)
    clean(whole)
    tidy = shape(whole)

    again = tmp_path / "again"
    shutil.copytree(template, again)
    wanted, last = sample(calls, case.points)
    # Threads make the number of calls differ by a few: the last are found out afterwards.
    recorded = range(1, 2 * calls) if every else {*wanted, *range(calls - last - 4, calls + 5)}
    made = crash.record(functools.partial(_operate, name), str(again), str(states), recorded)
    found = sorted(int(path.name) for path in states.iterdir())
    chosen = found if every else sorted({*wanted.intersection(found), *found[-last:]})
    assert len(chosen) >= (calls - 4 if every else 4)
    for state in (states / str(number) for number in chosen):
        try:
            check(state, before, case.finals, result)
            _repeat(name, case, state, result)
            assert everything(state) == result
            clean(state)
            assert shape(state) == tidy
        except BaseException as error:
            error.add_note(f"{name}: death before call {state.name} of {made}")
            raise
        shutil.rmtree(state)


@pytest.mark.parametrize("name", ["tag", "vacuum"])
def test_a_recorded_state_is_what_a_death_leaves(tmp_path, name):
    template, states = tmp_path / "template", tmp_path / "states"
    template.mkdir()
    CASES[name].prepare(template)
    shutil.copytree(template, tmp_path / "whole")
    operate = functools.partial(_operate, name)
    calls = crash.record(operate, str(tmp_path / "whole"), str(states))
    for at in range(1, calls + 1, 1 + calls // 12):
        path = tmp_path / f"at{at}"
        shutil.copytree(template, path)
        died, made = crash.run(operate, str(path), at)
        assert died
        assert made == at
        names = [
            sorted(re.sub(HEX, "X", str(f.relative_to(top))) for f in top.rglob("*"))
            for top in (path, states / str(at))
        ]
        assert names[0] == names[1]


def test_a_fit_whose_base_was_taken_is_made_on_another(tmp_path):
    fitted(1)(tmp_path)
    table = dmstore.open_study(tmp_path / STUDY).algorithm("alpha").table
    where = next((tmp_path / STUDY / "datamodels" / "alpha").iterdir())
    (where / "complete.json").unlink()
    # A vacuum that did not see the fit, and a compaction to the same content.
    manifest = log.newest(table.objects, table.prefix)
    old, new = manifest.base.path, "base/00000002-01234567.zarr"
    shutil.move(tmp_path / STUDY / table.prefix / old, tmp_path / STUDY / table.prefix / new)
    following = dataclasses.replace(
        manifest,
        version=manifest.version + 1,
        base=dataclasses.replace(manifest.base, path=new),
        removed=(f"{table.prefix}{old}",),
    )
    assert log.commit(table.objects, table.prefix, following)
    say("fit", tmp_path / STUDY, "alpha", "-Q", "--lams", 10, code=3)
    say("fit", tmp_path / STUDY, "alpha", "-Q", "--lams", 10)
    assert json.loads((where / "fit.json").read_bytes())["base"] == new
    assert list(verify(dmstore.open_study(tmp_path / STUDY))) == []


def _operate(name, root):
    CASES[name].operate(root)


def _repeat(name, case, root, result):
    """Give the command again, as whoever finds that it was killed does."""
    if name == "extend" and everything(root) == result:
        return
    try:
        case.operate(str(root))
    except AssertionError:
        # It was done, and only had not said so: then it says that it is done.
        if not case.done or everything(root) != result:
            raise
