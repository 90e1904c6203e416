"""Memory and cores of a job: made trees of /proc and /sys/fs/cgroup, as kernels lay them out."""

import os

import pytest

from dmstore.core import memory, threads
from dmstore.core.cgroups import free_memory, quota

GIB = 2**30
JOB = "system.slice/slurmstepd.scope/job_7/step_0/user/task_0"
NO_LIMIT_V1 = str(2**63 - 4096)

# The lines of /proc/self/cgroup; files below /sys/fs/cgroup; bytes free and cores.
TREES = {
    "nothing": ("", {}, None, None),
    "the root alone": (
        "0::/\n",
        {"memory.max": 2 * GIB, "memory.current": GIB, "cpu.max": "150000 100000"},
        GIB,
        2,
    ),
    "no limit": (
        f"0::/{JOB}\n",
        {f"{JOB}/memory.max": "max", f"{JOB}/memory.current": GIB, f"{JOB}/cpu.max": "max 100000"},
        None,
        None,
    ),
    "a job's own": (
        f"0::/{JOB}\n",
        {f"{JOB}/memory.max": GIB, f"{JOB}/memory.current": 0, f"{JOB}/cpu.max": "100000 100000"},
        GIB,
        1,
    ),
    "the job above a step is tighter": (
        f"0::/{JOB}\n",
        {
            f"{JOB}/memory.max": "max",
            f"{JOB}/memory.current": 5,
            "system.slice/slurmstepd.scope/job_7/memory.max": 4 * GIB,
            "system.slice/slurmstepd.scope/job_7/memory.current": GIB,
            "system.slice/slurmstepd.scope/job_7/cpu.max": "50000 100000",
        },
        3 * GIB,
        1,
    ),
    "files that are cached can be dropped": (
        "0::/job\n",
        {
            "job/memory.max": GIB,
            "job/memory.current": GIB,
            "job/memory.stat": f"anon 5\nfile {GIB}\ninactive_file {GIB // 2}\nactive_file 3\n",
        },
        GIB // 2,
        None,
    ),
    "what slows a job down counts": (
        "0::/job\n",
        {"job/memory.max": 4 * GIB, "job/memory.high": GIB, "job/memory.current": 0},
        GIB,
        None,
    ),
    "more is used than allowed": (
        "0::/job\n",
        {"job/memory.max": GIB, "job/memory.current": 2 * GIB},
        0,
        None,
    ),
    "a container that is told the host's name": (
        "0::/kubepods/pod1/abc\n",
        {"memory.max": GIB, "memory.current": 0, "cpu.max": "400000 100000"},
        GIB,
        4,
    ),
    "a name outside of the namespace": (
        "0::/../../x\n",
        {"memory.max": GIB, "memory.current": 0},
        GIB,
        None,
    ),
    "version 1": (
        "9:memory:/slurm/uid_1/job_7\n4:cpu,cpuacct:/slurm/uid_1/job_7\n1:name=systemd:/user.slice\n",
        {
            "memory/memory.limit_in_bytes": NO_LIMIT_V1,
            "memory/memory.usage_in_bytes": 10 * GIB,
            "memory/slurm/uid_1/job_7/memory.limit_in_bytes": GIB,
            "memory/slurm/uid_1/job_7/memory.usage_in_bytes": GIB // 2,
            "memory/slurm/uid_1/job_7/memory.stat": f"inactive_file 1\ntotal_inactive_file {GIB // 4}\n",
            "cpu,cpuacct/slurm/uid_1/cpu.cfs_quota_us": 250000,
            "cpu,cpuacct/slurm/uid_1/cpu.cfs_period_us": 100000,
            "cpu,cpuacct/slurm/uid_1/job_7/cpu.cfs_quota_us": -1,
            "cpu,cpuacct/slurm/uid_1/job_7/cpu.cfs_period_us": 100000,
        },
        3 * GIB // 4,
        3,
    ),
    "both versions": (
        "9:memory:/job\n0::/job\n",
        {
            "memory/job/memory.limit_in_bytes": 2 * GIB,
            "memory/job/memory.usage_in_bytes": 0,
            "unified/job/cpu.max": "200000 100000",
        },
        2 * GIB,
        2,
    ),
    "damaged": (
        "0::/job\nno line\n::\n",
        {"job/memory.max": "?", "job/memory.current": "", "job/cpu.max": "5 0"},
        None,
        None,
    ),
}


@pytest.mark.parametrize("case", TREES)
def test_what_groups_leave_to_a_process(tmp_path, case, monkeypatch):
    lines, files, free, cores = TREES[case]
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(lines)
    (tmp_path / "proc/meminfo").write_text(f"MemAvailable: {16 * GIB // 1024} kB\n")
    for name, content in files.items():
        path = tmp_path / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n")
    # That of version 1 without a limit is more than any machine has.
    assert (free_memory(tmp_path), quota(tmp_path)) == (free, cores)
    assert memory.available(tmp_path) == int(0.8 * (16 * GIB if free is None else free))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert threads.cores(tmp_path) == (cores or 8)


def test_this_machine_has_memory_and_cores():
    assert memory.available() > 0
    assert 1 <= threads.cores() <= (os.cpu_count() or 1)
