"""The one-file writer: what it makes is the plan's, what it acknowledges is there, ingest takes it."""

import ast
import errno
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from commands import run, run_json
from helpers import TARGET, TRAIN, fill

from dmstore.intake.ingest import take_in as ingest
from dmstore.schema.names import reserved_names
from dmstore.study.algorithm import Run
from dmstore.training.standalone import dmstore_writer as standalone
from dmstore.training.standalone.dmstore_writer import Plan, Writer, WriterError, planned_mask

SOURCE = Path(standalone.__file__)


def outputs(number, **columns):
    draw = np.random.default_rng(number)
    return {
        "margin": draw.normal(size=TARGET),
        "prediction": draw.integers(0, 3, TARGET),
        **columns,
    }


@pytest.fixture
def plan(study, algorithm, tmp_path):
    path = tmp_path / "plan.json"
    run("export", study.path, "alpha", "--to", "plan", path, "-Q")
    return path


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "runs" / "of" / "worker"


def files(folder):
    return sorted(folder.glob("*.npz"))


def test_the_file_is_python_38_and_needs_numpy_alone():
    tree = ast.parse(SOURCE.read_text(), feature_version=(3, 8))
    imported = {
        alias.name.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    } | {node.module.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported - set(sys.stdlib_module_names) == {"numpy"}


def test_writer_command_prints_the_file():
    assert run("writer")[0] == SOURCE.read_text()


def test_reserved_names_are_those_of_the_store():
    assert reserved_names() == standalone.RESERVED


@pytest.mark.parametrize("masks", ["shared", "independent"])
def test_masks_and_seeds_are_the_plans(study, tmp_path, masks):
    made = study.add_algorithm("beta", runs=10, repeats=3, masks=masks, alpha=0.3)
    made.extend(5)
    run("export", study.path, "beta", "--to", "plan", tmp_path / "p.json")
    plan = Plan.load(tmp_path / "p.json")
    expected = made.describe(np.arange(15))
    for want in expected:
        found = plan.run(want.id)
        assert np.array_equal(found.mask, want.mask)
        assert found.mask.dtype == bool
        assert (found.seed, found.mask_id, found.repeat) == (want.seed, want.mask_id, want.repeat)
    if masks == "shared":
        assert np.array_equal(planned_mask(study.seed, 0, TRAIN, 0.3), expected[0].mask)
    with pytest.raises(WriterError, match="not in the plan"):
        plan.run(15)
    assert plan.runs("2/4") == [1, 5, 9, 13]
    with pytest.raises(WriterError, match="I/N"):
        plan.runs("5/4")


def test_round_trip(study, algorithm, plan, folder):
    with Writer(folder, plan=plan, flush_runs=10) as writer:
        for item in writer.pending("1/12"):
            writer.append(item, **outputs(item.id, accuracy=0.5, note="ü", step=item.id))
        assert writer.acknowledged == 20
        writer.append(3, **outputs(3))
    assert writer.acknowledged == 26
    assert len(files(folder)) == 4, "two full ones, and one each of runs with and without columns"
    assert ingest(algorithm, [folder]).new == 26
    view = algorithm.table.view()
    digests = {
        int(number): digest.tobytes()
        for path in files(folder)
        for number, digest in zip(np.load(path)["run"], np.load(path)["row_digest"], strict=True)
    }
    assert digests == {int(r): d.tobytes() for r, d in zip(view.run, view.digest, strict=True)}, (
        "the digests of the worker are those of the store"
    )
    found = view.read(["margin", "prediction", "seed", "note", "accuracy", "host"])
    row = view.run.tolist().index(12)
    assert np.array_equal(found["margin"][row], outputs(12)["margin"].astype("float32"))
    assert found["prediction"].dtype == "int16"
    assert found["seed"][row] == algorithm.describe(np.array([12]))[0].seed
    assert (found["note"][row], found["accuracy"][row]) == ("ü", 0.5)
    assert found["host"][row] == os.uname().nodename
    again = run_json("ingest", study.path, "alpha", folder, "-Q")
    assert (again["new"], again["present"]) == (0, 26)
    assert run_json("verify", study.path)["problems"] == []


def test_pending_leaves_out_what_folder_and_study_have(study, algorithm, plan, folder, tmp_path):
    with Writer(folder, plan=plan) as writer:
        for number in range(0, 300, 2):
            writer.append(number, **outputs(number))
        assert [r.id for r in writer.pending("1/100")] == [], "those that wait count too"
    assert [r.id for r in Writer(folder, plan=plan).pending("2/100")] == [1, 101, 201]
    files(folder)[0].write_bytes(files(folder)[0].read_bytes()[:-40])
    pending = [r.id for r in Writer(folder, plan=plan).pending()]
    assert len(pending) == 150 + 64, "a cut file counts for nothing"
    ingest(algorithm, files(folder)[1:])
    run("export", study.path, "alpha", "--to", "plan", tmp_path / "new.json")
    elsewhere = Writer(tmp_path / "elsewhere", plan=tmp_path / "new.json")
    assert [r.id for r in elsewhere.pending()] == pending


def test_without_a_plan(study, tmp_path):
    made = study.add_algorithm("foreign", sampling="foreign", alpha=None)
    draw = np.random.default_rng(0)
    with Writer(tmp_path / "w", study=study.uuid, algorithm="foreign") as writer:
        for number in range(5):
            # float64 here, float32 in the store: the digest is of what stands in the file.
            writer.append(
                number * 7, mask=draw.random(TRAIN) < 0.4, margin=draw.normal(size=TARGET)
            )
        with pytest.raises(WriterError, match=r"not \{"):
            writer.append(1, mask=np.ones(TRAIN + 1, bool), margin=np.zeros(TARGET))
        with pytest.raises(WriterError, match="no plan"):
            next(writer.pending())
    assert ingest(made, [tmp_path / "w"]).new == 5
    assert made.table.view().run.tolist() == [0, 7, 14, 21, 28]
    wrong = ingest(study.add_algorithm("other", sampling="foreign"), [tmp_path / "w"])
    assert (wrong.new, wrong.refused) == (0, 5)


def test_plan_of_foreign_sampling_checks_shapes(study, tmp_path):
    study.add_algorithm("foreign", sampling="foreign", alpha=None)
    run("export", study.path, "foreign", "--to", "plan", tmp_path / "p.json")
    with Writer(tmp_path / "w", plan=tmp_path / "p.json") as writer:
        writer.append(0, mask=np.ones(TRAIN, bool), margin=np.zeros(TARGET))
        with pytest.raises(WriterError, match="margin is"):
            writer.append(1, mask=np.ones(TRAIN, bool), margin=np.zeros(TARGET - 1))
        with pytest.raises(WriterError, match="mask is"):
            writer.append(1, margin=np.zeros(TARGET))
    assert writer.acknowledged == 1


BAD = {
    "no output": ({"margin": None}, "no margin"),
    "shape": ({"margin": np.zeros(TARGET + 1)}, "margin is"),
    "dtype": ({"prediction": np.zeros(TARGET)}, "prediction is"),
    "NaN": ({"margin": np.full(TARGET, np.nan)}, "NaN"),
    "too large": ({"margin": np.full(TARGET, 1e300)}, "NaN, infinity or what does not fit"),
    "int16": ({"prediction": np.full(TARGET, 70_000)}, "does not fit"),
    "mask": ({"mask": np.ones(TRAIN, bool)}, "not the plan's"),
    "mask dtype": ({"mask": np.ones(TRAIN)}, "not bool"),
    "reserved": ({"split": 1}, "reserved"),
    "name": ({"a.b": 1}, "reserved"),
    "array column": ({"curve": np.zeros(3)}, "one value per run"),
    "bytes": ({"note": b"x"}, "one value per run"),
    "large": ({"step": 2**60}, "store it as text"),
    "seed": ({"seed": -1}, "out of range"),
    "host": ({"host": 1}, "one value per run"),
    "case": ({"step": 1, "Step": 1}, "case alone"),
    "seconds": ({"time": 1_700_000_000}, "give milliseconds"),
    "bit order": ({"mask_bitorder": "big"}, "reserved"),
    "masked": ({"margin": np.ma.masked_array(np.zeros(TARGET), np.arange(TARGET) == 4)}, "masked"),
    "masked column": ({"accuracy": np.ma.masked}, "masked"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_runs_are_refused_and_the_writer_goes_on(plan, folder, case):
    changes, words = BAD[case]
    with Writer(folder, plan=plan) as writer:
        given = {k: v for k, v in {**outputs(5), **changes}.items() if v is not None}
        with pytest.raises(WriterError, match=words):
            writer.append(5, **given)
        writer.append(5, **outputs(5))
        writer.append(5, **outputs(5))
        with pytest.raises(WriterError, match="other content"):
            writer.append(5, **outputs(6))
    assert writer.acknowledged == 1
    with pytest.raises(WriterError, match="closed"):
        writer.append(6, **outputs(6))


@pytest.mark.parametrize("number", [-1, 300, 2**62, "x", 1.0, None])
def test_bad_ids(plan, folder, number):
    with Writer(folder, plan=plan) as writer, pytest.raises(WriterError, match="run"):
        writer.append(number, **outputs(0))
    assert files(folder) == []


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"kind": "worker", "format_version": "2.0"}', '{"kind": "fit"}', "cut"],
)
def test_bad_plans(plan, tmp_path, content):
    bad = tmp_path / "bad.json"
    if content == "cut":
        whole = json.loads(plan.read_text())
        bad.write_text(json.dumps({k: v for k, v in whole.items() if k != "blocks"}))
    else:
        bad.write_text(content)
    with pytest.raises(WriterError, match=r"bad\.json"):
        Plan.load(bad)


def test_ingest_refuses_what_is_not_what_the_worker_wrote(algorithm, plan, folder, tmp_path):
    with Writer(folder, plan=plan) as writer:
        for number in range(4):
            writer.append(number, **outputs(number))
    (path,) = files(folder)
    arrays = dict(np.load(path))
    changes = {
        "margin": np.nextafter(arrays["margin"], np.float32(9)),
        "prediction": arrays["prediction"][::-1],
        "run": arrays["run"] + 1,
        "row_digest": arrays["row_digest"][:, :8],
    }
    for name, values in changes.items():
        np.savez(tmp_path / f"{name}.npz", **{**arrays, name: values})
        result = ingest(algorithm, [tmp_path / f"{name}.npz"])
        assert (result.new, result.refused) == (0, 4)
        assert "is not what its worker wrote" in result.errors[0]
        assert f"{name}.npz" in result.errors[0]
    swapped = {n: v[::-1] if n in ("margin", "prediction") else v for n, v in arrays.items()}
    np.savez(tmp_path / "swapped.npz", **swapped)
    assert ingest(algorithm, [tmp_path / "swapped.npz"]).new == 0
    assert ingest(algorithm, [path]).new == 4


def test_a_full_disk_loses_nothing(plan, folder, monkeypatch):
    writer = Writer(folder, plan=plan, flush_runs=2)
    writer.append(0, **outputs(0))

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        for number in (1, 2):
            with pytest.raises(OSError, match="No space"):
                writer.append(number, **outputs(number))
        assert writer.acknowledged == 0
        assert list(folder.iterdir()) == []
    writer.append(3, **outputs(3))
    assert writer.acknowledged == 4
    writer.close()
    assert np.load(files(folder)[0])["run"].tolist() == [0, 1, 2, 3]


def test_buffers_may_be_used_again(algorithm, plan, folder):
    values = outputs(0)
    with Writer(folder, plan=plan) as writer:
        writer.append(0, **values)
        values["margin"][:] = 7
    assert np.load(files(folder)[0])["margin"].max() < 7
    assert ingest(algorithm, [folder]).new == 1


def test_the_timer_writes(plan, folder):
    with Writer(folder, plan=plan, flush_seconds=0.05) as writer:
        writer.append(0, **outputs(0))
        deadline = time.monotonic() + 20
        while not files(folder) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert len(files(folder)) == 1


def test_torch_tensors(algorithm, plan, folder):
    torch = pytest.importorskip("torch")
    values = torch.linspace(-1, 1, TARGET, requires_grad=True)
    with Writer(folder, plan=plan) as writer:
        writer.append(0, margin=values, prediction=torch.ones(TARGET, dtype=torch.int64))
    assert ingest(algorithm, [folder]).new == 1


SCRIPT = """
import os, signal, sys, time
import numpy as np
from dmstore_writer import Plan, Writer
folder, plan, what = sys.argv[1:]

def values(number):
    margin = np.random.RandomState(number).normal(size={target})
    return dict(margin=margin, prediction=(margin > 0).astype(int), accuracy=0.25, note="n")

if what == "chained":
    signal.signal(signal.SIGTERM, lambda *_: (print("mine", flush=True), os._exit(7)))
writer = Writer(folder, plan=plan, flush_runs=3)
if what == "all":
    for run in writer.pending("1/10"):
        writer.append(run, **values(run.id))
elif what == "kill":
    for run in writer.pending():
        writer.append(run, **values(run.id))
        print(writer.acknowledged, run.id, flush=True)
elif what == "fork":
    writer.append(0, **values(0))
    child = os.fork()
    if not child:
        assert writer.flush() == 0
        writer.close()
        sys.exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert not [n for n in os.listdir(folder) if n.endswith(".npz")]
else:
    writer.append(0, **values(0))
    print("ready", flush=True)
    if what != "exit":
        time.sleep(60)
"""


def start(tmp_path, folder, plan, what, python=sys.executable):
    (tmp_path / "dmstore_writer.py").write_text(run("writer")[0])
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(target=TARGET))
    command = [python, script, folder, plan, what]
    return subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("what", ["exit", "fork"])
def test_at_exit_and_never_from_a_fork(algorithm, plan, folder, tmp_path, what):
    process = start(tmp_path, folder, plan, what)
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert len(files(folder)) == 1
    assert ingest(algorithm, [folder]).new == 1


@pytest.mark.parametrize(
    ("what", "number", "code"),
    [
        ("wait", signal.SIGTERM, -signal.SIGTERM),
        ("wait", signal.SIGHUP, -signal.SIGHUP),
        ("wait", signal.SIGUSR2, -signal.SIGUSR2),
        ("chained", signal.SIGTERM, 7),
    ],
)
def test_a_signal_writes_then_does_what_it_is_for(
    algorithm, plan, folder, tmp_path, what, number, code
):
    process = start(tmp_path, folder, plan, what)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == code
    assert out == ("mine\n" if what == "chained" else "")
    assert ingest(algorithm, [folder]).new == 1


def test_kill_9_loses_nothing_acknowledged(algorithm, plan, folder, tmp_path):
    done = []
    for kill in (5, 11, 2):
        process = start(tmp_path, folder, plan, "kill")
        appended = []
        for line in process.stdout:
            acknowledged, number = map(int, line.split())
            appended.append(number)
            if len(appended) >= kill:
                process.kill()
        process.wait()
        process.stdout.close()
        assert process.returncode == -signal.SIGKILL
        done += appended[:acknowledged]
    assert len(done) >= 12
    assert len(done) == len(set(done)), "a worker goes on where the last one was"
    result = ingest(algorithm, [folder])
    assert result.errors == []
    assert set(done) <= set(algorithm.table.view().run.tolist())


def old_python():
    named = [os.environ.get("DMSTORE_PYTHON38", "")]
    named += map(str, (Path.home() / ".pyenv/versions").glob("3.8.*/bin/python"))
    named += ["/usr/bin/python3.8", "/usr/local/bin/python3.8"]
    return next((path for path in named if path and Path(path).exists()), None)


@pytest.mark.slow
@pytest.mark.skipif(old_python() is None, reason="no Python 3.8 here; name it in DMSTORE_PYTHON38")
@pytest.mark.parametrize("numpy", ["numpy==1.17.3", "numpy"])
def test_on_python_38(study, algorithm, plan, folder, tmp_path, numpy):
    subprocess.run([old_python(), "-m", "venv", tmp_path / "env"], check=True)
    python = tmp_path / "env/bin/python"
    subprocess.run([python, "-m", "pip", "install", "-q", numpy], check=True, capture_output=True)
    process = start(tmp_path, folder, plan, "all", python)
    process.communicate(timeout=60)
    assert process.returncode == 0
    result = ingest(algorithm, [folder])
    assert (result.new, result.errors) == (30, [])
    process = start(tmp_path, folder, plan, "wait", python)
    process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGTERM


def test_extended_files_are_not_compressed(plan, folder):
    with Writer(folder, plan=plan) as writer:
        writer.append(Plan.load(plan).run(0), **outputs(0))
    with zipfile.ZipFile(files(folder)[0]) as archive:
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}
        assert archive.testzip() is None


def test_ingested_and_appended_runs_are_the_same_rows(study, algorithm, plan, folder):
    """A run written by either writer has one digest."""
    import dmstore

    item = algorithm.describe(np.array([9]))[0]
    assert isinstance(item, Run)
    with dmstore.training.RunWriter(study, "alpha") as writer:
        writer.append(item, **outputs(9))
    with Writer(folder, plan=plan) as other:
        other.append(9, **outputs(9))
    result = ingest(algorithm, [folder])
    assert (result.new, result.present, result.conflicting) == (0, 1, 0)
    fill(algorithm, [10])
    assert len(algorithm.table.view()) == 2
