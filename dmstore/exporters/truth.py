"""Ground truth for tools that compute a linear datamodeling score: masks and outputs of models."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from dmstore.core.progress import Count
from dmstore.errors import InputError
from dmstore.exporters.source import Source
from dmstore.exporters.stream import metered, whole, write_npy


def write(folder: Path, source: Source, progress: Count | None = None) -> None:
    """Write ``mask.npy`` [run, train] bool and ``val_margins.npy`` [run, target] into a new folder,
    with ``run.npy`` and ``dmstore.json`` beside them.

    Raises
    ------
    InputError
        If not exactly one output with one float a target is chosen.
    """
    output = one_output(source)
    folder.mkdir()
    streams = [
        source.stream("mask"),
        replace(source.stream(output), name="val_margins"),
        whole("run", ("run",), source.view.run[source.rows]),
    ]
    for stream in metered(streams, progress):
        with (folder / f"{stream.name}.npy").open("xb") as file:
            write_npy(file, stream)
    names = {"mask": "mask", "val_margins": output, "run": "run"}
    about = {**source.about(), "output": output, "arrays": names}
    (folder / "dmstore.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")


def one_output(source: Source) -> str:
    """The output to export where a format has room for one: ``margin`` if there are several."""
    fitting = [
        name
        for name in source.outputs
        if list(source.algorithm.outputs[name]["dims"]) == ["run", "target"]
        and source.algorithm.outputs[name]["dtype"].startswith("float")
    ]
    if "margin" in fitting:
        return "margin"
    if len(fitting) != 1:
        msg = f"one output with a float a target is needed, not {', '.join(source.outputs)}; choose one with --output"
        raise InputError(msg)
    return fitting[0]
