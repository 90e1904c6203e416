"""Several workers on a host, and jobs through submitit."""

import collections
import json
import os
import signal
import time
from pathlib import Path

import pytest
from helpers import Done, examples

import dmstore
from dmstore.errors import InputError
from dmstore.training import processes, submit
from dmstore.upkeep.verification import verify

SUPPORT = str(Path(__file__).parent.parent / "support")


@pytest.fixture
def study(tmp_path, monkeypatch):
    found = [SUPPORT, *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(found))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    return dmstore.create_study(tmp_path / "s.dm", examples(), seed=3)


def add(study, runs, **config):
    log = str(Path(study.path).parent / "log")
    study.add_algorithm("a", runs=runs, task="slow_task:Slow", config={"log": log, **config})
    return Path(log)


def trained(log):
    return collections.Counter(int(line.split()[0]) for line in log.read_text().splitlines())


@pytest.mark.parametrize(
    ("visible", "devices"),
    [("0,1", ["0", "1"]), ("", []), ("-1", []), ("GPU-a, 3,-1,4", ["GPU-a", "3"])],
)
def test_devices_are_those_that_are_visible(visible, devices):
    assert processes.cuda_devices({"CUDA_VISIBLE_DEVICES": visible}) == devices


def test_parts_of_a_divided_gpu_are_devices():
    listed = """GPU 0: NVIDIA H100 (UUID: GPU-1)
  MIG 3g.40gb     Device  0: (UUID: MIG-11)
  MIG 3g.40gb     Device  1: (UUID: MIG-12)
GPU 1: NVIDIA H100 (UUID: GPU-2)
"""
    assert processes.parse_devices(listed) == ["MIG-11", "MIG-12", "1"]


def test_each_worker_has_one_device_and_its_share_of_the_threads(monkeypatch):
    monkeypatch.setattr(processes, "cores", lambda: 8)
    places = processes.environments(["0", "3"], per_device=2)
    assert [place["CUDA_VISIBLE_DEVICES"] for place in places] == ["0", "3", "0", "3"]
    assert {place["OMP_NUM_THREADS"] for place in places} == {"2"}
    (place,) = processes.environments([], per_device=1, threads=3)
    assert place["MKL_NUM_THREADS"] == "3"
    assert "CUDA_VISIBLE_DEVICES" not in place
    assert len(processes.environments(["0", "1"], workers=3)) == 3


def test_train_starts_workers_here(study):
    log = add(study, 6, seconds=0.01)
    ended = Done("train", study.path, "a", "--workers", "2", "--json", "-Q")
    assert ended.returncode == 0
    assert json.loads(ended.stdout)["trained"] == 6
    assert set(trained(log).values()) == {1}
    assert "2 workers on the CPU" in ended.stderr


def test_what_workers_could_not_do_is_said(study, monkeypatch):
    add(study, 6)
    error = {"error": {"kind": "input", "message": "task 'x' cannot be imported"}}
    ends = [processes.End(-9, {}), processes.End(1, error), processes.End(3, {"trained": 0})]
    monkeypatch.setattr(processes.Workers, "run", lambda self, look: ends)
    ended = Done("train", study.path, "a", "--per-device", "3", "-Q")
    assert ended.returncode == 1
    assert "worker 1: was killed by signal 9\n" in ended.stderr
    assert "error: 1 worker of 3 gave up, the last with: task 'x' cannot be" in ended.stderr
    ends.pop(1)
    assert Done("train", study.path, "a", "--per-device", "3", "-Q").returncode == 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--workers", "2", "--part", "1/2"], "leave --part out"),
        (["--workers", "2", "--per-device", "2"], "give one of the two"),
    ],
)
def test_workers_and_parts_exclude_each_other(study, arguments, words):
    add(study, 2)
    ended = Done("train", study.path, "a", *arguments)
    assert (ended.returncode, words in ended.stderr) == (2, True)


@pytest.mark.parametrize(
    ("given", "minutes"),
    [("90", 90), ("04:00:00", 240), ("1-12:30", 2190), ("30:30", 31), ("2-0", 2880)],
)
def test_times_as_sbatch_takes_them(given, minutes):
    assert submit.parse_slurm([f"time={given}"])["time"] == minutes


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["partition="], "key=value"),
        (["=x"], "key=value"),
        (["time=soon"], "is no time"),
        (["time=0"], "at least a minute"),
        (["array_parallelism=many"], "whole number"),
        (["qos=a", "qos=b"], "twice"),
    ],
)
def test_options_of_sbatch_that_are_none(given, words):
    with pytest.raises(InputError, match=words):
        submit.parse_slurm(given)


def test_submit_refuses_what_cannot_be_done(study, monkeypatch, tmp_path):
    study.add_algorithm("own", runs=2)
    assert "has no task" in Done("submit", study.path, "own").stderr
    add(study, 2)
    try:
        import submitit  # noqa: F401
    except ImportError:
        ended = Done("submit", study.path, "a")
        assert (ended.returncode, "dmstore[submit]" in ended.stderr) == (1, True)
        return
    monkeypatch.setenv("PATH", str(tmp_path))
    ended = Done("submit", study.path, "a")
    assert (ended.returncode, "no SLURM here" in ended.stderr) == (1, True)
    ended = Done("submit", study.path, "a", "--logs", f"{study.path}/logs", "--local")
    assert (ended.returncode, "inside the study" in ended.stderr) == (1, True)
    assert not (tmp_path / "s.dm.logs").exists()


def test_a_dry_run_prints_the_text_for_sbatch(study, tmp_path):
    pytest.importorskip("submitit")
    add(study, 2)
    slurm = ["--slurm", "partition=gpu", "--slurm", "gpus-per-node=2", "--slurm", "reservation=x"]
    ended = Done("submit", study.path, "a", "--jobs", "100", *slurm, "--dry-run")
    assert ended.returncode == 0
    for line in (
        "--array=0-99%100",
        "--partition=gpu",
        "--gpus-per-node=2",
        "--reservation=x",
        "--requeue",
        "--time=240",
        "--job-name=dmstore-a",
        "--signal=USR2@90",
    ):
        assert f"#SBATCH {line}\n" in ended.stdout
    assert f"#SBATCH --output={tmp_path}/s.dm.logs/%A_%a_0_log.out\n" in ended.stdout
    assert f"&& dmstore train {study.path} a --claims-expire 300" in ended.stdout
    assert ended.stdout.rstrip().endswith("--part next")
    ended = Done("submit", study.path, "a", "--slurm", "partion=gpu", "--dry-run")
    assert (ended.returncode, "is partition meant?" in ended.stderr) == (1, True)
    assert not (tmp_path / "s.dm.logs").exists()


def wait_for(condition, seconds=200):
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.05)


def test_eight_workers_killed_and_preempted_lose_nothing(study, tmp_path):
    """Two jobs of four workers: one worker is killed, one job preempted and queued again."""
    pytest.importorskip("submitit")
    log = add(study, 60, seconds=0.2)
    job = submit.Job(
        [str(Path(study.path).absolute()), "a", "--claims-expire", "4s"], str(tmp_path), 4
    )
    logs = submit.default_logs(study)
    first, second = submit.submit(study, job, logs, jobs=2, local=True)

    def pids():
        return (
            [int(line.split()[1]) for line in log.read_text().splitlines()] if log.exists() else []
        )

    wait_for(lambda: len(set(pids())) == 8)
    before = set(pids())
    os.kill(pids()[-1], signal.SIGKILL)
    # As a cluster does: to the process that waits for the workers, not to submitit's own that restarts it.
    waiting = Path(f"/proc/{second.job_id}/task/{second.job_id}/children").read_text().split()
    os.kill(int(waiting[0]), signal.SIGUSR2)
    wait_for(lambda: first.done() and second.done())
    assert "codes" in first.result()
    assert "codes" in second.result()
    assert "preempted" in (logs / f"{second.job_id}_0_log.out").read_text()
    # Those that it started when it was queued again; all may have been done by then.
    assert len(set(pids()) - before) <= 4
    stored = study.runs("a")
    assert sorted(stored.run.values.tolist()) == list(range(60))
    assert stored.attrs["conflicts"] == 0
    assert not list(verify(study))
    # Only what the killed worker had in hand was trained twice.
    assert sum(trained(log).values()) <= 60 + 20
    assert not list((tmp_path / "s.dm").rglob("*log*.out"))
