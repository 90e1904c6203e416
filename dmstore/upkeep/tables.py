"""The tables of a study: of each algorithm its runs, its outputs on target sets that were added later, the same of its
models trained on all data, and models trained without some train units.
"""

from __future__ import annotations

from collections.abc import Iterator

from dmstore.storage.objects.objects import Objects
from dmstore.storage.published.published import ReadOnly
from dmstore.storage.table.table import Table
from dmstore.study import removal
from dmstore.study.full import is_there
from dmstore.study.removal import RemovalRuns
from dmstore.study.study import Study
from dmstore.study.target_outputs import TargetOutputs


def later_outputs(study: Study, name: str, *, full: bool = False) -> list[TargetOutputs]:
    """Tables of an algorithm's outputs on target sets that were added later, as far as there are any."""
    sets = study.target_sets
    place = "full/outputs/" if full else "outputs/"
    return [
        study.target_outputs(name, target_set, full=full)
        for target_set in study.objects.children(f"algorithms/{name}/{place}")
        if target_set in sets and sets[target_set]["later"]
    ]


def full_tables(study: Study, name: str) -> list[tuple[str, Table]]:
    """Tables of an algorithm's models trained on all data, as far as there are any: ``NAME:full``, ``NAME:full:SET``."""
    if not is_there(study.objects, name):
        return []
    models = study.full_models(name)
    later = later_outputs(study, name, full=True)
    return [(models.name, models.table), *((one.name, one.table) for one in later)]


def removal_runs(study: Study, name: str) -> list[RemovalRuns]:
    """An algorithm's removals that are stated, whether anything is trained or not."""
    prefix = study.algorithm(name).prefix
    return [study.removal_runs(name, one) for one in removal.names(study.objects, prefix)]


def removal_tables(study: Study, name: str) -> list[tuple[str, Table]]:
    """Tables of models trained without some train units, as far as there are any: ``NAME:removal:<removal>``."""
    return [
        (models.name, models.table)
        for models in removal_runs(study, name)
        if study.objects.children(models.table.prefix)
    ]


def apart_tables(study: Study, name: str) -> list[tuple[str, Table]]:
    """Tables of models that are no runs: those trained on all data, and those trained without some train units."""
    return [*full_tables(study, name), *removal_tables(study, name)]


def tables(study: Study, name: str) -> Iterator[tuple[str, Table]]:
    """The tables of an algorithm: its runs by its name, later outputs as ``NAME:SET``, other models as ``NAME:…``."""
    yield name, study.algorithm(name).table
    for outputs in later_outputs(study, name):
        yield outputs.name, outputs.table
    yield from apart_tables(study, name)


def is_copy(objects: Objects) -> bool:
    """Whether a study was published or pulled: logs begin with the entry of that state then."""
    return isinstance(objects, ReadOnly) or objects.exists("origin.json")
