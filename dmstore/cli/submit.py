"""``dmstore submit``."""

from __future__ import annotations

from pathlib import Path

import click

from dmstore.cli import options, output


@click.command("submit")
@options.study
@options.algorithm
@click.option(
    "--jobs", type=click.IntRange(1), default=1, show_default=True, help="Jobs of the array."
)
@click.option(
    "--per-device",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Workers for each GPU of a job, or so many without one.",
)
@click.option(
    "--threads",
    type=click.IntRange(1),
    default=None,
    help="Threads of a worker; by default those of a job share its cores.",
)
@click.option(
    "--slurm",
    multiple=True,
    metavar="KEY=VALUE",
    help="An option of sbatch, such as partition=gpu, gpus_per_node=4, time=04:00:00; as often as needed.",
)
@click.option("--local", is_flag=True, help="Run the jobs on this host, with no cluster.")
@click.option(
    "--logs",
    type=click.Path(path_type=Path, file_okay=False),
    default=None,
    metavar="DIR",
    help="Where logs are kept, outside the study; STUDY.logs by default. All hosts must see it.",
)
@click.option("--dry-run", is_flag=True, help="Print what sbatch would get, and submit nothing.")
@options.removal
@options.models
@options.retry_failed
@options.checkpoint_every
@options.checkpoints
@options.claims_expire
@options.as_json
def command(
    path: str,
    algorithm: str,
    jobs: int,
    per_device: int,
    threads: int | None,
    slurm: tuple[str, ...],
    local: bool,
    logs: Path | None,
    dry_run: bool,
    removal: str | None,
    models: int | None,
    retry_failed: bool,
    checkpoint_every: float | None,
    checkpoints: Path | None,
    claims_expire: float,
    as_json: bool,
) -> None:
    """Submit an array of jobs whose workers train the pending runs of ALGORITHM, or models of a removal, through submitit.

    Workers share what is undone, as with 'dmstore train --part next'. A job that is preempted, or whose time
    is over, stores what is finished and is queued again. Nothing is lost when one is killed.

    \b
    Examples:
      dmstore submit /shared/cifar.dm plain --jobs 100 --per-device 4 \\
        --slurm partition=gpu --slurm gpus_per_node=1 --slurm cpus_per_task=8 --slurm time=04:00:00
      dmstore submit cifar.dm plain --jobs 2 --local
    """
    from dmstore.errors import InputError
    from dmstore.study.study import open_study
    from dmstore.training import submit
    from dmstore.training.sharing import untried

    study = open_study(path)
    opened = options.runs_of(study, algorithm, removal, models)
    if opened.task is None:
        msg = f"algorithm {algorithm!r} has no task that a worker could train; give it one with 'dmstore add {study.path} {algorithm} --task'"
        raise InputError(msg)
    parsed = submit.parse_slurm(slurm)
    where = logs or submit.default_logs(study)
    name = f"dmstore-{algorithm}"
    given = options.worker_arguments(
        retry_failed=retry_failed,
        checkpoint_every=checkpoint_every,
        checkpoints=checkpoints,
        claims_expire=claims_expire,
        removal=removal,
        models=models,
    )
    place = path if "://" in path else str(Path(path).absolute())
    job = submit.Job([place, algorithm, *given], str(Path.cwd()), per_device, threads)
    if dry_run:
        text = submit.text(study, where, jobs=jobs, slurm=parsed, name=name)
        worker = job.command()
        lines = [*text.splitlines(), "", "# Each job starts workers that run", f"# {worker}"]
        output.emit({"sbatch": text, "worker": worker}, lines, as_json=as_json)
        return
    failed_before = opened.objects.now() if retry_failed else None
    pending = len(untried(opened, None, failed_before=failed_before))
    submitted = []
    if pending:
        submitted = submit.submit(
            study, job, where, jobs=jobs, slurm=parsed, local=local, name=name
        )
    ids = [str(job.job_id) for job in submitted]
    lines = [
        f"{opened.name}: {output.counted(len(ids), 'job')} submitted for {output.counted(pending, 'pending run')}: {', '.join(ids[:5])}{' …' if len(ids) > 5 else ''}",
        f"logs in {where}; 'dmstore status {study.path} {algorithm} --watch' says how it goes",
    ]
    if not ids:
        lines = [f"{opened.name}: nothing is pending, so no job was submitted"]
    output.emit(
        {"algorithm": algorithm, "pending": pending, "jobs": ids, "logs": str(where)},
        lines,
        as_json=as_json,
    )
