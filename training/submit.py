"""Workers as jobs of a cluster, through submitit: the one place that knows submitit, its private parts too."""

from __future__ import annotations

import difflib
import re
import shlex
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dmstore.errors import InputError, MissingDependencyError, StorageError
from dmstore.storage.objects.remote import is_url
from dmstore.study.outside import outside_studies
from dmstore.study.study import Study
from dmstore.training import processes

# Minutes that a job asks for unless --slurm time=… says otherwise.
_MINUTES = 240
# How often a job that runs out of its time may be queued again.
_REQUEUES = 1000
# Options of sbatch beside those that submitit knows by name: a key that is nearly one of these is misspelt. Others are taken as
# they are, since SLURM gets new ones.
_SBATCH_SAID = """
account acctg_freq array batch bb bbf begin chdir cluster_constraint clusters constraint container
container_id contiguous core_spec cores_per_socket cpu_freq cpus_per_gpu cpus_per_task deadline delay_boot
dependency distribution error exclude exclusive export export_file extra extra_node_info get_user_env gid
gpu_bind gpu_freq gpus gpus_per_node gpus_per_socket gpus_per_task gres gres_flags hint hold ignore_pbs input
job_name kill_on_invalid_dep licenses mail_type mail_user mcs_label mem mem_bind mem_per_cpu mem_per_gpu
mincpus network nice no_kill no_requeue nodefile nodelist nodes ntasks ntasks_per_core ntasks_per_gpu
ntasks_per_node ntasks_per_socket oom_kill_step open_mode output overcommit oversubscribe parsable partition
power prefer priority profile propagate qos quiet reboot requeue reservation resv_ports segment signal
sockets_per_node spread_job stepmgr switches test_only thread_spec threads_per_core time time_min tmp
tres_bind tres_per_task uid use_min_nodes verbose wait wait_all_nodes wckey wrap
"""
_SBATCH = frozenset(_SBATCH_SAID.split())


@dataclass
class Job:
    """What one job does: it starts workers on its host and waits for them. Ended early, it is queued again.

    Parameters
    ----------
    arguments : list of str
        Of ``dmstore train``.
    directory : str
        Where the workers run.
    per_device : int
        Workers a device.
    threads : int, optional
        Threads of each.
    """

    arguments: list[str]
    directory: str
    per_device: int = 1
    threads: int | None = None
    _running: Any = field(default=None, repr=False)

    def __call__(self) -> dict[str, Any]:
        """Run the workers.

        Returns
        -------
        dict
            ``host``, ``trained`` and the exit ``codes`` of the workers.

        Raises
        ------
        InputError
            If a worker gave up, with its error.
        """
        devices = processes.cuda_devices()
        places = processes.environments(devices, per_device=self.per_device, threads=self.threads)
        self._running = processes.Workers(self.arguments, places, self.directory)
        ends = self._running.run()
        errors = [end.error for end in ends if end.error]
        if errors:
            raise InputError(errors[-1])
        return {
            "host": socket.gethostname(),
            "trained": sum(int(end.said.get("trained", 0)) for end in ends),
            "codes": [end.code for end in ends],
        }

    def command(self) -> str:
        """What each of its workers runs, as a shell takes it, but for the number of threads that the host gives."""
        arguments = [*self.arguments, "--part", "next"]
        arguments += ["--threads", str(self.threads)] if self.threads else []
        return f"cd {shlex.quote(self.directory)} && dmstore train {shlex.join(arguments)}"

    def checkpoint(self) -> Any:
        """Called by submitit before the job is preempted or its time is over: end the workers, and say what to queue again."""
        from submitit.helpers import DelayedSubmission

        if self._running is not None:
            self._running.end()
        return DelayedSubmission(Job(self.arguments, self.directory, self.per_device, self.threads))


def default_logs(study: Study) -> Path:
    """Where logs of a study's jobs are kept unless something else is said: beside it.

    Parameters
    ----------
    study : Study

    Returns
    -------
    Path

    Raises
    ------
    InputError
        If the study is in no directory of a file system.
    """
    if is_url(study.path):
        msg = f"{study.path}: is no directory, so logs cannot be kept beside it; say where with --logs DIR, which all hosts see"
        raise InputError(msg)
    path = Path(study.path).absolute()
    return path.with_name(f"{path.name}.logs")


def parse_slurm(given: Sequence[str]) -> dict[str, Any]:
    """Options of sbatch from texts like ``partition=gpu`` or ``exclusive``.

    Parameters
    ----------
    given : sequence of str

    Returns
    -------
    dict

    Raises
    ------
    InputError
        If one has no name, stands there twice, or a time or number is none.
    """
    options: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        key = name.strip().lstrip("-").replace("-", "_")
        if not re.fullmatch(r"[A-Za-z_]+", key) or (equals and not value.strip()):
            msg = f"--slurm {text!r} is not of the form key=value, such as partition=gpu"
            raise InputError(msg)
        if key in options:
            msg = f"--slurm {key}: stands there twice"
            raise InputError(msg)
        options[key] = value.strip() if equals else True
    for key in ("array_parallelism", "signal_delay_s"):
        if key in options:
            if not str(options[key]).isdigit():
                msg = f"--slurm {key}={options[key]}: must be a whole number"
                raise InputError(msg)
            options[key] = int(options[key])
    options["time"] = _minutes(str(options.get("time", _MINUTES)))
    return options


def _minutes(text: str) -> int:
    """Minutes of a time as sbatch takes it: minutes, M:S, H:M:S, D-H, D-H:M, D-H:M:S."""
    match = re.fullmatch(r"(?:([0-9]+)-)?([0-9]+)(?::([0-9]+))?(?::([0-9]+))?", text)
    if not match:
        msg = (
            f"--slurm time={text}: is no time; write minutes, or hours as in 04:00:00 or 1-12:00:00"
        )
        raise InputError(msg)
    days, first, second, third = (int(part) if part else 0 for part in match.groups())
    if match[1]:
        minutes = days * 1440 + first * 60 + second + (third > 0)
    elif match[4]:
        minutes = first * 60 + second + (third > 0)
    else:
        minutes = first + (second > 0)
    if not minutes:
        msg = f"--slurm time={text}: give at least a minute"
        raise InputError(msg)
    return minutes


def submit(
    study: Study,
    job: Job,
    logs: Path,
    *,
    jobs: int = 1,
    slurm: Mapping[str, Any] | None = None,
    local: bool = False,
    name: str = "dmstore",
) -> list[Any]:
    """Submit an array of jobs.

    Parameters
    ----------
    study : Study
    job : Job
    logs : Path
        Directory for logs and what submitit keeps of the jobs, outside the study; all hosts must see it.
    jobs : int
    slurm : mapping, optional
        Options of sbatch, from :func:`parse_slurm`.
    local : bool
        Run them on this host, with no cluster.
    name : str
        Of the jobs.

    Returns
    -------
    list of submitit.Job

    Raises
    ------
    MissingDependencyError
        If submitit is not installed.
    InputError
        If there is no SLURM here, or it does not take the options.
    """
    executor = _executor(study, logs, jobs, slurm, local=local, name=name)
    try:
        with executor.batch():
            submitted = [executor.submit(job) for _ in range(jobs)]
    except OSError as error:
        msg = f"{logs}: the jobs could not be submitted ({error}); check the directory and that 'sbatch' runs here"
        raise StorageError(msg) from error
    except Exception as error:
        if type(error).__name__ != "FailedJobError":
            raise
        said = " ".join(str(error).split())[-300:]
        msg = f"SLURM refused the jobs: {said}; mend the options given with --slurm"
        raise InputError(msg) from error
    return list(submitted)


def text(
    study: Study, logs: Path, *, jobs: int, slurm: Mapping[str, Any] | None, name: str = "dmstore"
) -> str:
    """The file that sbatch would get, with nothing submitted; SLURM need not be here.

    Parameters
    ----------
    study : Study
    logs, jobs, slurm, name
        As in :func:`submit`.

    Returns
    -------
    str

    Raises
    ------
    MissingDependencyError
        If submitit is not installed.
    InputError
        If it does not take the options.
    """
    executor = _executor(study, logs, jobs, slurm, local=False, name=name, dry=True)
    if jobs > 1:
        executor.parameters["map_count"] = jobs
    return str(executor._make_submission_file_text(executor._submitit_command_str, "dry-run"))


def _executor(
    study: Study,
    logs: Path,
    jobs: int,
    slurm: Mapping[str, Any] | None,
    *,
    local: bool,
    name: str,
    dry: bool = False,
) -> Any:
    try:
        from submitit import LocalExecutor, SlurmExecutor
    except ImportError:
        msg = "jobs are submitted by submitit, which is not installed; pip install 'dmstore[submit]' (docs/guides/slurm.md has ways without it)"
        raise MissingDependencyError(msg) from None
    outside_studies(logs)
    options = dict(slurm or {"time": _MINUTES})
    if local:
        executor: Any = LocalExecutor(logs, max_num_timeout=_REQUEUES)
        # Without this the local executor hides all GPUs.
        visible = [int(device) for device in processes.cuda_devices() if device.isdigit()]
        executor.update_parameters(
            timeout_min=options["time"], gpus_per_node=len(visible), visible_gpus=visible
        )
        return executor

    class Slurm(SlurmExecutor):  # type: ignore[misc]
        """One that writes its file also where SLURM is not."""

        @classmethod
        def affinity(cls) -> int:
            return 2

    if not dry and SlurmExecutor.affinity() < 0:
        msg = "there is no SLURM here ('srun' is not found); submit where it is, try with --local or --dry-run, or see docs/guides/slurm.md for other ways"
        raise InputError(msg)
    kind = Slurm if dry else SlurmExecutor
    executor = kind(logs, max_num_timeout=_REQUEUES)
    known = kind._valid_parameters()
    own = {key: value for key, value in options.items() if key in known}
    further = {key: value for key, value in options.items() if key not in known}
    for key in further.keys() - _SBATCH:
        if near := difflib.get_close_matches(key, sorted({*known, *_SBATCH}), 1, 0.75):
            msg = f"--slurm {key}: neither sbatch nor submitit has such an option; is {near[0]} meant?"
            raise InputError(msg)
    own.setdefault("job_name", name)
    own.setdefault("array_parallelism", jobs)
    executor._internal_update_parameters(**own, additional_parameters={"requeue": True, **further})
    return executor
