"""RunWriter: acknowledgement, resume, signals, forks, threads, and wrong use."""

import contextlib
import os
import pickle
import re
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest

import dmstore
from dmstore.errors import ConflictError, InputError, StorageError
from dmstore.training import RunWriter


def outputs(run):
    draw = np.random.default_rng(run.id)
    return {"margin": draw.normal(size=23), "prediction": draw.integers(0, 3, 23)}


def stored(study):
    return sorted(dmstore.open_study(study.path).runs("alpha").run.values.tolist())


def test_writes_resumes_and_finishes(study, algorithm):
    with RunWriter(study.path, "alpha", part="2/3") as writer:
        runs = list(writer.pending())
        assert [run.id for run in runs] == list(range(1, 300, 3))
        for run in runs[:70]:
            writer.append(run, **outputs(run), accuracy=0.5)
        assert writer.acknowledged == 64
    assert stored(study) == [run.id for run in runs[:70]]
    with RunWriter(study.path, "alpha", part="2/3") as writer:
        rest = list(writer.pending())
        assert [run.id for run in rest] == [run.id for run in runs[70:]]
    data = study.runs("alpha")
    assert np.array_equal(data.mask.values[0], runs[0].mask)
    assert np.array_equal(data.margin.values[0], outputs(runs[0])["margin"].astype(np.float32))
    assert data.seed.values[0] == runs[0].seed
    assert data.accuracy.values[0] == 0.5


def test_a_writer_is_not_sent_to_another_process(study, algorithm):
    with RunWriter(study, "alpha") as writer, pytest.raises(InputError, match="in each process"):
        pickle.dumps(writer)


def test_exception_in_the_loop_keeps_finished_runs(study, algorithm):
    def loop():
        with RunWriter(study, "alpha") as writer:
            for run in writer.pending():
                if run.id == 5:
                    raise RuntimeError("out of memory on the GPU")
                writer.append(run, **outputs(run))

    with pytest.raises(RuntimeError, match="GPU"):
        loop()
    assert stored(study) == [0, 1, 2, 3, 4]


def test_timer_writes_what_waits(study, algorithm):
    with RunWriter(study, "alpha", flush_seconds=0.4) as writer:
        run = next(writer.pending())
        writer.append(run, **outputs(run))
        deadline = time.monotonic() + 20
        while writer.acknowledged == 0 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert stored(study) == [0]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"margin": np.zeros(22)}, "shape"),
        ({"margin": np.full(23, np.nan)}, "NaN"),
        ({"margin": np.full(23, np.inf)}, "infinite"),
        ({"margin": np.full(23, "x")}, "dtype"),
        ({}, "margin"),
        ({"margin": np.zeros(23), "step": [1, 2]}, "one value per run"),
        ({"margin": np.zeros(23), "mask_id": 3}, "reserved"),
        ({"margin": np.zeros(23), "a--b": 3}, "name"),
        ({"margin": np.zeros(23), "thing": object()}, "dtype"),
        ({"margin": np.zeros(23), "prediction": np.full(23, 40000)}, "int16"),
    ],
)
def test_wrong_values_are_refused_and_the_writer_goes_on(study, algorithm, values, words):
    with RunWriter(study, "alpha") as writer:
        run = next(writer.pending())
        with pytest.raises(InputError, match=words):
            writer.append(run, **{"prediction": np.zeros(23, int), **values})
        writer.append(run, **outputs(run))
    assert stored(study) == [0]


def test_a_float64_that_fits_cannot_square_is_refused(study):
    study.add_algorithm("wide", runs=3, outputs=["margin:float64"])
    with RunWriter(study, "wide") as writer:
        run = next(writer.pending())
        with pytest.raises(InputError, match="too large for float32 in 1 of 23"):
            writer.append(run, margin=np.where(np.arange(23) == 3, -1e300, 0.1))
        writer.append(run, margin=np.full(23, 0.1))
    assert study.runs("wide").margin.values[0, 0] == 0.1


def test_wrong_runs_are_refused(study, algorithm):
    with RunWriter(study, "alpha") as writer:
        run = next(writer.pending())
        with pytest.raises(InputError, match=r"not in the plan.*dmstore extend"):
            writer.append(300, mask=run.mask, **outputs(run))
        with pytest.raises(InputError, match="sampling foreign"):
            writer.append(1, mask=run.mask, **outputs(run))
        run.mask[0] ^= True
        with pytest.raises(InputError, match="not the plan's"):
            writer.append(run, **outputs(run))
    assert stored(study) == []


def test_foreign_masks(study):
    study.add_algorithm("foreign", sampling="foreign", alpha=None)
    draw = np.random.default_rng(0)
    masks = draw.random((5, 37)) < 0.3
    with RunWriter(study, "foreign") as writer:
        with pytest.raises(InputError, match="nothing is planned"):
            next(writer.pending())
        with pytest.raises(InputError, match="give its mask"):
            writer.append(7, margin=np.zeros(23))
        for i, mask in enumerate(masks):
            writer.append(1000 + i, mask=mask, margin=draw.normal(size=23), seed=i)
    runs = study.runs("foreign")
    assert np.array_equal(runs.mask.values, masks)
    assert runs.seed.values.tolist() == list(range(5))


def test_refused_write_keeps_the_runs_waiting(study, algorithm, monkeypatch):
    writer = RunWriter(study, "alpha", flush_runs=2)
    pending = writer.pending()
    first, second, third = (next(pending) for _ in range(3))
    writer.append(first, **outputs(first))
    with monkeypatch.context() as patch:
        patch.setattr(
            os, "link", lambda *a: (_ for _ in ()).throw(OSError(28, "No space left on device"))
        )
        with pytest.raises(StorageError, match="disk is full"):
            writer.append(second, **outputs(second))
        assert writer.acknowledged == 0
    writer.append(third, **outputs(third))
    writer.close()
    assert writer.acknowledged == 3
    assert stored(study) == [0, 1, 2]


def test_closed_writer_refuses(study, algorithm):
    writer = RunWriter(study, "alpha")
    run = next(writer.pending())
    writer.close()
    writer.close()
    with pytest.raises(InputError, match="closed"):
        writer.append(run, **outputs(run))


def test_buffers_may_be_used_again(study, algorithm):
    """What was appended must not change with the caller's arrays."""
    margin, prediction = np.empty(23, dtype=np.float32), np.empty(23, dtype=np.int16)
    with RunWriter(study, "alpha") as writer:
        for run in list(writer.pending())[:4]:
            margin[:], prediction[:] = run.id, run.id % 3
            writer.append(run, margin=margin, prediction=prediction)
            run.mask[:] = False
        margin[:] = np.nan
    runs = study.runs("alpha")
    assert runs.margin.values[:, 0].tolist() == [0, 1, 2, 3]
    assert np.array_equal(runs.mask.values, algorithm.masks(range(4)))


def test_a_run_appended_twice(study, algorithm):
    with RunWriter(study, "alpha") as writer:
        runs = list(writer.pending())[:3]
        for run in (*runs, runs[1]):
            writer.append(run, **outputs(run))
        with pytest.raises(ConflictError, match="other content"):
            writer.append(runs[1], **outputs(runs[2]))
    assert stored(study) == [0, 1, 2]


@pytest.mark.parametrize(
    ("column", "words"),
    [
        ({"time": "3h"}, "time"),
        ({"time": 3.7}, "time"),
        ({"time": 1_700_000_000}, "milliseconds since 1970"),
        ({"time": 1_700_000_000 * 10**9}, "milliseconds since 1970"),
        ({"accuracy": np.ma.masked}, "masked"),
        (
            {"margin": np.ma.masked_array(np.zeros(23), np.arange(23) == 4)},
            r"1 values are masked, the first at \[4\]",
        ),
        ({"note": "\udcff"}, "Unicode"),
        ({"count": 2**63 + 1}, "store them as text"),
        ({"count": 2**60}, "store them as text"),
        ({"seed": -1}, "seed"),
        ({"zarr.json": 1}, "not allowed"),
        ({"Mask": 1}, "reserved"),
        ({"train_label": 1}, "reserved"),
    ],
)
def test_columns_that_could_not_be_stored_are_refused_at_once(study, algorithm, column, words):
    with RunWriter(study, "alpha") as writer:
        run = next(writer.pending())
        with pytest.raises(InputError, match=words):
            writer.append(run, **{**outputs(run), **column})
        writer.append(run, **outputs(run), step=3)
        other = next(r for r in writer.pending() if r.id == 1)
        writer.append(other, **outputs(other), step=np.uint64(4))
    assert study.runs("alpha").step.values.tolist() == [3, 4]


@pytest.mark.parametrize("run", [3.7, "3", None])
def test_runs_that_are_none(study, algorithm, run):
    with RunWriter(study, "alpha") as writer, pytest.raises(InputError, match="no integer id"):
        writer.append(run, margin=np.zeros(23))


def test_chdir_does_not_move_the_study(study, algorithm, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    writer = RunWriter("study.dm", "alpha")
    run = next(writer.pending())
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    writer.append(run, **outputs(run))
    writer.close()
    assert stored(study) == [0]


def test_close_that_fails_can_be_repeated(study, algorithm, monkeypatch):
    writer = RunWriter(study, "alpha")
    run = next(writer.pending())
    writer.append(run, **outputs(run))
    with monkeypatch.context() as patch:
        patch.setattr(
            os, "link", lambda *a: (_ for _ in ()).throw(OSError(28, "No space left on device"))
        )
        with pytest.raises(StorageError):
            writer.close()
    writer.close()
    assert stored(study) == [0]


@pytest.mark.parametrize(
    "number",
    [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU],
)
def test_own_handler_is_called_after_the_runs_are_written(study, algorithm, number, capsys):
    seen = []
    before = signal.signal(number, lambda number, frame: seen.append(stored(study)))
    try:
        writer = RunWriter(study, "alpha")
        run = next(writer.pending(progress=True))
        writer.append(run, **outputs(run))
        os.kill(os.getpid(), number)
        deadline = time.monotonic() + 20
        while not seen and time.monotonic() < deadline:
            time.sleep(0.02)
        assert seen == [[0]]
        said = "alpha: 1 of 300 runs are stored; the next start goes on from there"
        assert said in capsys.readouterr().err
        second = next(writer.pending())
        writer.append(second, **outputs(second))
        writer.close()
    finally:
        signal.signal(number, before)
    assert stored(study) == [0, 1]


def test_whoever_interrupts_a_loop_is_told_what_is_stored(study, algorithm, capsys):
    def loop():
        with RunWriter(study, "alpha") as writer:
            for run in writer.pending(progress=True):
                if run.id == 3:
                    raise KeyboardInterrupt
                writer.append(run, **outputs(run))

    with pytest.raises(KeyboardInterrupt):
        loop()
    assert "alpha: 3 of 300 runs are stored" in capsys.readouterr().err
    assert stored(study) == [0, 1, 2]


SCRIPT = """
import os, sys, time, signal
import numpy as np
import dmstore
from dmstore.training import RunWriter
path, how = sys.argv[1:]
writer = RunWriter(path, "alpha")
runs = writer.pending()
for _ in range(3):
    run = next(runs)
    writer.append(run, margin=np.zeros(23), prediction=np.zeros(23, int))
if how == "fork":
    if os.fork() == 0:
        writer.close()
        sys.exit(0)  # atexit runs in the child too
    os.wait()
    os._exit(0)  # the parent dies without writing: nothing must be there
if how == "exit":
    sys.exit(0)
print("ready", flush=True)
while True:
    time.sleep(0.05)
"""


FLOOD = """
import os, signal, threading
from dmstore.training.ending import Ending
from dmstore.training.flusher import Flusher
with Ending(patience=600) as ending:
    flusher = Flusher(lambda asked: None, 600, lambda: None)
    def send():
        for _ in range(5000):
            os.kill(os.getpid(), signal.SIGUSR1)
    sender = threading.Thread(target=send)
    sender.start()
    while sender.is_alive():
        sum(range(100))
    flusher.stop()
    assert not ending.asked()
    flusher = Flusher(lambda asked: None, 600, lambda: None)
    os.kill(os.getpid(), signal.SIGTERM)
    while not ending.asked():
        pass
    flusher.stop()
print("done")
"""


def test_a_signal_within_a_signal_stops_nothing(tmp_path):
    """As when a scheduler sends one to a process and to its group: a handler is interrupted by itself."""
    done = subprocess.run(
        [sys.executable, "-c", FLOOD], capture_output=True, text=True, timeout=100, check=False
    )
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr


@contextlib.contextmanager
def start(study, how):
    command = [sys.executable, "-c", textwrap.dedent(SCRIPT), study.path, how]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2])
def test_a_signal_that_ends_a_job_writes_and_ends_it(study, algorithm, number):
    with start(study, "wait") as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.wait(30) == -number
    assert stored(study) == [0, 1, 2]


def test_a_signal_that_is_ignored_writes_and_stays_ignored(study, algorithm):
    """As SIGHUP is below nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with RunWriter(study, "alpha") as writer:
            run = next(writer.pending())
            writer.append(run, **outputs(run))
            os.kill(os.getpid(), signal.SIGHUP)
            deadline = time.monotonic() + 20
            while not writer.acknowledged and time.monotonic() < deadline:
                time.sleep(0.02)
            assert stored(study) == [0]
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_sigusr1_writes_and_goes_on(study, algorithm):
    with start(study, "wait") as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGUSR1)
        deadline = time.monotonic() + 30
        while stored(study) != [0, 1, 2] and time.monotonic() < deadline:
            time.sleep(0.05)
        assert process.poll() is None
        process.kill()
    assert stored(study) == [0, 1, 2]


def test_exit_without_close_writes(study, algorithm):
    with start(study, "exit") as process:
        assert process.wait(30) == 0
    assert stored(study) == [0, 1, 2]


def test_forked_child_never_writes(study, algorithm):
    with start(study, "fork") as process:
        assert process.wait(30) == 0
    assert stored(study) == []


def test_scikit_learn_classifier(tmp_path):
    """The example of the README, on real images."""
    from sklearn.linear_model import LogisticRegression

    from dmstore.demo import digits
    from dmstore.training.outputs import margin

    study = dmstore.create_study(tmp_path / "digits.dm", digits(), seed=0)
    study.add_algorithm("logistic", runs=6)
    x, y = study.train.image.values.reshape(1000, -1) / 255, study.train.label.values
    tx, ty = study.targets.image.values.reshape(797, -1) / 255, study.targets.label.values
    with RunWriter(study, "logistic", part="1/1") as writer:
        for run in writer.pending():
            model = LogisticRegression(max_iter=1000).fit(x[run.mask], y[run.mask])
            logit = model.decision_function(tx)
            writer.append(run, margin=margin(logit[None], ty)[0], accuracy=model.score(tx, ty))
    runs = study.runs("logistic")
    assert runs.sizes["run"] == 6
    assert (runs.accuracy > 0.85).all()
    assert np.array_equal(
        (runs.margin.values > 0).mean(axis=1).round(6), runs.accuracy.values.round(6)
    )
    assert (runs.mask.sum("train") == 500).all()


class Exchanged:
    """An array of a library that NumPy reads by DLPack alone."""

    def __init__(self, array):
        self._array = array

    def __dlpack__(self, **options):
        return self._array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self._array.__dlpack_device__()


@pytest.mark.parametrize(
    "make",
    [
        np.ndarray.tolist,
        lambda x: tuple(map(tuple, x)),
        lambda x: [Exchanged(row) for row in x],
        Exchanged,
        lambda x: x.astype(np.float16),
        lambda x: x.astype(pytest.importorskip("ml_dtypes").bfloat16),
        lambda x: x.astype(pytest.importorskip("ml_dtypes").float8_e5m2),
        lambda x: np.ma.masked_array(x),
    ],
)
def test_outputs_of_other_libraries_and_lists(study, algorithm, make):
    values = np.tile([0.5, -2.0, 16.0], (3, 8))[:, :23].astype(np.float32)
    with RunWriter(study, "alpha") as writer:
        batch = next(writer.pending(batch=3))
        writer.append_many(
            batch, margin=make(values), prediction=[[1] * 23] * 3, note=["a", "b", "c"]
        )
    runs = study.runs("alpha")
    assert np.array_equal(runs.margin.values, values)
    assert runs.note.values.tolist() == ["a", "b", "c"]


def test_pending_has_a_length_and_comes_in_batches(study, algorithm):
    with RunWriter(study, "alpha", part="2/3") as writer:
        assert len(writer.pending()) == 100
        batches = writer.pending(batch=32)
        assert len(batches) == 4
        first = next(batches)
        assert len(batches) == 3
        assert [len(batch) for batch in batches] == [32, 32, 4]
        assert len(batches) == len(list(batches)) == 0
        assert first.id.tolist() == [run.id for run in first] == list(range(1, 96, 3))
        assert first.seed.tolist() == [run.seed for run in first]
        assert np.array_equal(first.mask, algorithm.masks(first.id))
        assert all(np.shares_memory(run.mask, first.mask) for run in first)
        values = np.arange(32 * 23.0).reshape(32, 23)
        writer.append_many(first[:8], margin=values[:8], prediction=values[:8].astype(int))
        # What waits is not given out again, and what comes one by one is all the rest.
        rest = writer.pending()
        assert len(rest) == 92
        assert [run.id for run in rest] == list(range(25, 300, 3))
    assert np.array_equal(study.runs("alpha").margin.values, values[:8])


def test_masks_are_made_batch_by_batch(study, algorithm, monkeypatch):
    with RunWriter(study, "alpha") as writer:
        asked = []
        describe = writer.describe
        monkeypatch.setattr(writer, "describe", lambda ids: asked.append(len(ids)) or describe(ids))
        batches = writer.pending(batch=16)
        assert asked == []
        next(batches)
        assert asked == [16]


@pytest.mark.parametrize("batch", [0, -1, 2.5, "8", True])
def test_a_batch_is_a_number_of_runs(study, algorithm, batch):
    with RunWriter(study, "alpha") as writer, pytest.raises(InputError, match="whole number"):
        writer.pending(batch=batch)


def test_progress_is_shown_on_request(study, algorithm, capsys):
    told = []
    with RunWriter(study, "alpha", part="1/30") as writer:
        run = next(writer.pending())
        writer.append(run, **outputs(run))
    assert capsys.readouterr().err == ""
    with RunWriter(study, "alpha", part="1/30") as writer:
        for run in writer.pending(progress=True):
            writer.append(run, **outputs(run))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 10
    assert lines[0] == "alpha: 1 of 10 runs"
    assert re.fullmatch(
        r"alpha: 5 of 10 runs, [0-9.e+]+ runs/(s|min|h)(, [0-9.e-]+ (s|min) left)?", lines[4]
    )
    assert re.fullmatch(r"alpha: 10 of 10 runs, [0-9.e+]+ runs/(s|min|h)", lines[9])
    with RunWriter(study, "alpha", part="2/30") as writer:
        for run in writer.pending(progress=lambda *now: told.append(now)):
            writer.append(run, **outputs(run))
    assert told == [("alpha", done, 10) for done in range(11)]


def test_batches_of_ids_with_masks_of_ones_own(study):
    study.add_algorithm("foreign", sampling="foreign", alpha=None)
    masks = np.random.default_rng(0).random((3, 37)) < 0.3
    values = np.zeros((3, 23))
    with RunWriter(study, "foreign") as writer:
        with pytest.raises(InputError, match="run 4: give its mask"):
            writer.append_many([4, 5, 6], margin=values)
        writer.append_many([4, 5, 6], mask=masks, margin=values, seed=[7, 8, 9])
        writer.append_many([], margin=values[:0])
    assert np.array_equal(study.runs("foreign").mask.values, masks)
    assert study.runs("foreign").seed.values.tolist() == [7, 8, 9]


def test_a_run_that_diverged_is_named_once(study, algorithm):
    with RunWriter(study, "alpha") as writer:
        one = next(writer.pending())
        with pytest.raises(InputError) as error:
            writer.append(one, margin=np.full(23, np.nan), prediction=np.zeros(23, dtype=int))
    assert str(error.value) == "run 0: margin is NaN in 23 of 23 values; leave that run out"


GOOD = np.zeros((2, 23))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (
            {"margin": GOOD[:, :22]},
            r"margin has shape \(2, 22\), expected \(2, 23\) \(run, target\)",
        ),
        ({"margin": GOOD.T}, "transpose it"),
        ({"margin": np.zeros((2, 23, 3))}, "value per class; dmstore.training.margin makes"),
        ({"margin": GOOD[..., None]}, r"take its \[..., 0\]"),
        ({"margin": GOOD[0], "accuracy": 0.5}, r"\(23,\).*; 'accuracy' has shape \(\).*list of 2"),
        (
            {"margins": GOOD},
            r"no 'margin' \(is 'margins' meant\?\); 'margins' has shape.*\(margin, pred",
        ),
        (
            {"margin": [[0.0] * 23, [0.0] * 22]},
            "runs 0 to 1: margin: no array can be made of this l",
        ),
        ({"margin": np.array([[0.0] * 23, [np.nan] + [0.0] * 22])}, "run 1 is NaN"),
    ],
)
def test_what_is_wrong_with_a_batch_is_named(study, algorithm, values, words):
    with RunWriter(study, "alpha") as writer:
        batch = next(writer.pending(batch=2))
        with pytest.raises(InputError, match="runs 0 to 1: ") as error:
            writer.append_many(batch, prediction=GOOD.astype(int), **values)
        with pytest.raises(InputError, match="append_many takes batches"):
            writer.append(batch, margin=GOOD)
        with pytest.raises(InputError, match="give one run to append"):
            writer.append_many(batch[0], margin=GOOD)
        assert re.search(words, str(error.value))
        writer.append_many(batch, margin=GOOD, prediction=GOOD.astype(int))
    assert stored(study) == [0, 1]
