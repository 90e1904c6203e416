"""The tables of a study: of each algorithm its runs, and its outputs on target sets that were added later."""

from __future__ import annotations

from collections.abc import Iterator

from dmstore.storage.objects.objects import Objects
from dmstore.storage.published.published import ReadOnly
from dmstore.storage.table.table import Table
from dmstore.study.study import Study
from dmstore.study.target_outputs import TargetOutputs


def later_outputs(study: Study, name: str) -> list[TargetOutputs]:
    """Tables of an algorithm's outputs on target sets that were added later, as far as there are any."""
    sets = study.target_sets
    return [
        study.target_outputs(name, target_set)
        for target_set in study.objects.children(f"algorithms/{name}/outputs/")
        if target_set in sets and sets[target_set]["later"]
    ]


def tables(study: Study, name: str) -> Iterator[tuple[str, Table]]:
    """The tables of an algorithm: its runs by its name, later outputs as ``NAME:SET``."""
    yield name, study.algorithm(name).table
    for outputs in later_outputs(study, name):
        yield outputs.name, outputs.table


def is_copy(objects: Objects) -> bool:
    """Whether a study was published or pulled: logs begin with the entry of that state then."""
    return isinstance(objects, ReadOnly) or objects.exists("origin.json")
