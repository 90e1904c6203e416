"""How the annotations of two studies differ: by their stored bytes, and by their values where those differ."""

from __future__ import annotations

from typing import Any

from dmstore.sharing import blocks
from dmstore.storage.objects.objects import Objects
from dmstore.storage.published import index as indexes
from dmstore.storage.published.published import IndexedObjects
from dmstore.storage.table import groups
from dmstore.study import annotation
from dmstore.study.study import Study

# An array in a stored group: where it lies, and what it is called there.
Place = tuple[str, str]


def diff(x: Study, y: Study) -> dict[str, list[str]]:
    """Compare annotations.

    Parameters
    ----------
    x, y : Study

    Returns
    -------
    dict
        ``only_x``, ``only_y`` and ``differing``, each a list of ``<set>-<name>``.
    """
    left, right = _places(x), _places(y)
    both = sorted(left.keys() & right.keys())
    return {
        "only_x": sorted(left.keys() - right.keys()),
        "only_y": sorted(right.keys() - left.keys()),
        "differing": [name for name in both if not _same(x, left[name], y, right[name])],
    }


def _places(study: Study) -> dict[str, Place]:
    """Every annotation of every set: ``<set>-<name>`` to where its values are."""
    places: dict[str, Place] = {}
    sets = study.target_sets
    for name in (*sets, "train", "class"):
        stored = annotation.names(study.objects, name)
        places |= {f"{name}-{column}": (where, "value") for column, where in stored.items()}
        if name in sets and sets[name]["later"]:
            place = sets[name]["path"]
            own = annotation.own_columns(study.objects, place)
            places |= {f"{name}-{column}": (place, f"annotation_{column}") for column in own}
    return places


def _same(x: Study, left: Place, y: Study, right: Place) -> bool:
    if left == right and _print(x.objects, left[0]) == _print(y.objects, right[0]):
        return True
    values = [
        groups.read(study.objects, where, [name])[name]
        for study, (where, name) in ((x, left), (y, right))
    ]
    return annotation.same(*values)


def _print(objects: Objects, where: str) -> list[tuple[Any, ...]]:
    """Names, lengths and sha256 of the objects of a group; an index knows them already."""
    if isinstance(objects, IndexedObjects):
        entries = objects.index.entries
        return [
            (name, entry.size, entry.sha256)
            for name, entry in entries.items()
            if name == where or name.startswith(f"{where}/")
        ]
    names = [where]
    if not objects.exists(where):
        names = [info.name for info in objects.entries(f"{where}/")]
    return [(name, *indexes.sha256(blocks.read(objects, name))) for name in names]
