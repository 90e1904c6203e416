"""``dmstore targets``."""

from __future__ import annotations

import click

from dmstore.cli import options, output


@click.command("targets")
@options.study
@click.argument("set_name", metavar="SET")
@click.argument("source", type=click.Path(), metavar="SRC")
@options.as_json
def command(path: str, set_name: str, source: str, as_json: bool) -> None:
    """Add the target set SET to STUDY, so that its runs can be asked about other examples.

    \b
    SRC is an .npz with target_label (target,) integers, and optionally target_image,
    target_id, target_train and further target_… columns, as for init. A target set never
    changes. Outputs of runs on it, from kept checkpoints, come in with
    RunWriter(…, target_set=SET) or:
      dmstore ingest STUDY ALGORITHM FILES… --targets SET

    \b
    Example:
      dmstore targets cifar.dm shifted shifted.npz
    """
    from dmstore.study.study import open_study

    study = open_study(path)
    done = study.add_targets(set_name, source)
    target_set = study.target_set(set_name)
    count, columns = target_set.sizes["target"], sorted(map(str, target_set.data_vars))
    said = "added" if done == "new" else "already there"
    output.emit(
        {
            "study": study.path,
            "set": set_name,
            "targets": count,
            "columns": columns,
            "added": done == "new",
        },
        [f"{set_name}: {output.counted(count, 'target')} {said}; {', '.join(columns)}"],
        as_json=as_json,
    )
