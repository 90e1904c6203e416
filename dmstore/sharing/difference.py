"""How two studies, or two snapshots of their algorithms, differ."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmstore.core.given import local_path
from dmstore.errors import InputError, NotFoundError
from dmstore.sharing import annotation_difference
from dmstore.storage.acts import tag
from dmstore.storage.table.snapshot import content_id
from dmstore.storage.table.table import Table
from dmstore.study import removal
from dmstore.study.algorithm import ANCHOR, Algorithm
from dmstore.study.study import Study, open_study
from dmstore.upkeep.tables import apart_tables, later_outputs

_PART = re.compile(
    r"(?P<algorithm>[A-Za-z0-9_][A-Za-z0-9._-]*)(:(?P<tag>[A-Za-z0-9_][A-Za-z0-9._-]*))?"
)
# Ids named of each kind of difference.
_NAMED = 20
_DECLARED = ("alpha", "sampling", "masks", "split", "target_set", "outputs", "task", "config")


@dataclass(frozen=True)
class Rows:
    """Ids (run,) int64 and digests (run, 16) uint8 of a table at one moment."""

    run: NDArray[np.int64]
    digest: NDArray[np.uint8]

    def describe(self) -> dict[str, Any]:
        """Number of runs and content id."""
        return {"runs": len(self.run), "content_id": content_id(self.run, self.digest)}


NOTHING = Rows(np.empty(0, np.int64), np.empty((0, 16), np.uint8))


@dataclass(frozen=True)
class Snapshot:
    """One algorithm at one moment: its declaration, its runs, their outputs on later target sets, its models that are no runs, and its removals, with models or without."""

    algorithm: Algorithm
    rows: Rows
    fits: frozenset[str]
    outputs: Mapping[str, Rows] | None
    models: Mapping[str, Rows] | None
    removals: frozenset[str] | None


@dataclass(frozen=True)
class Side:
    """One of the two things compared: a study, or one algorithm of it, perhaps at a tag."""

    study: Study
    algorithm: str | None = None
    tag: str | None = None

    @classmethod
    def parse(cls, text: str | Path) -> Side:
        """Open ``STUDY``, ``STUDY@ALGORITHM`` or ``STUDY@ALGORITHM:TAG``; STUDY may be a URL.

        Raises
        ------
        NotFoundError
            If the study has no such algorithm, or that no such tag.
        """
        place, at, part = str(text).rpartition("@")
        match = _PART.fullmatch(part)
        if not at or match is None or (local_path(text) / ANCHOR).exists():
            return cls(open_study(text))
        side = cls(open_study(place), match["algorithm"], match["tag"])
        side.study.algorithm(match["algorithm"])
        return side

    def names(self) -> list[str]:
        """Algorithms that take part."""
        return [self.algorithm] if self.algorithm else self.study.algorithms

    def snapshot(self, name: str) -> Snapshot:
        """Ids and digests of an algorithm's runs."""
        algorithm = self.study.algorithm(name)
        fits = frozenset(fit["fit"] for fit in self.study.fits(name) if fit["complete"])
        if self.tag is None:
            outputs = {one.target_set: _rows(one.table) for one in later_outputs(self.study, name)}
            models = {
                label.removeprefix(f"{name}:"): _rows(table)
                for label, table in apart_tables(self.study, name)
            }
            stated = frozenset(removal.names(algorithm.objects, algorithm.prefix))
            return Snapshot(algorithm, _rows(algorithm.table), fits, outputs, models, stated)
        tags = {entry["name"]: entry for entry in tag.read_all(algorithm.table)}
        if self.tag not in tags:
            known = ", ".join(tags) or "none"
            msg = f"{self.study.path}: algorithm {name!r} has no tag {self.tag!r} (it has: {known})"
            raise NotFoundError(msg)
        base: Any = algorithm.table.open_base(tags[self.tag]["base"])
        rows = Rows(np.asarray(base["run"][:]), np.asarray(base["row_digest"][:]))
        # A tag names a state of runs alone.
        return Snapshot(algorithm, rows, fits, None, None, None)


def _rows(table: Table) -> Rows:
    view = table.view()
    return Rows(view.run, view.digest)


def diff(x: str | Path, y: str | Path) -> dict[str, Any]:
    """How two studies or snapshots differ.

    Parameters
    ----------
    x, y : str or path
        ``STUDY``, ``STUDY@ALGORITHM`` or ``STUDY@ALGORITHM:TAG``. One algorithm against a whole study
        is compared with that study's algorithm of the same name.

    Returns
    -------
    dict
        ``equal``; ``study`` (whether uuid and seed are the same); ``ids`` (each set: whether the hashes
        of its ids are the same, None where one study lacks the set); ``only_x`` and ``only_y``
        (algorithms); and ``algorithms``, of each pair: ``equal``, ``x`` and ``y`` (runs, content id),
        ``shared`` runs of the same id and digest, ``only_x``, ``only_y`` and ``conflicting`` runs
        (``count`` and the first ``run`` ids), ``declared`` (what differs in the declarations),
        ``plan_only_x``, ``plan_only_y`` (blocks), ``fits_only_x``, ``fits_only_y``, ``removals_only_x``, ``removals_only_y`` (names of removals
        that are stated, whether they have models or not), and ``outputs``: of
        each later target set what is said of runs, None where one side is a tag; ``models``: the same of models
        trained on all data (``full``, ``full:SET``) and of removals (``removal:NAME``). Of two whole studies
        also ``annotations``: ``only_x``, ``only_y`` and ``differing``.

    Raises
    ------
    StudyNotFoundError, NotFoundError
        If a study, an algorithm or a tag is not there.
    """
    left, right = Side.parse(x), Side.parse(y)
    pairs, only_x, only_y = _pairs(left, right)
    algorithms = {
        a if a == b else f"{a},{b}": _compare(left.snapshot(a), right.snapshot(b)) for a, b in pairs
    }
    study = {
        "uuid": left.study.uuid == right.study.uuid,
        "seed": left.study.seed == right.study.seed,
    }
    ids = _ids(left.study, right.study)
    equal = all(study.values()) and all(ids.values()) and not (only_x or only_y)
    noted = None
    if left.algorithm is None and right.algorithm is None:
        noted = annotation_difference.diff(left.study, right.study)
        equal = equal and not any(noted.values())
    return {
        "x": str(x),
        "y": str(y),
        "equal": equal and all(entry["equal"] for entry in algorithms.values()),
        "study": study,
        "ids": ids,
        "annotations": noted,
        "only_x": only_x,
        "only_y": only_y,
        "algorithms": algorithms,
    }


def _pairs(left: Side, right: Side) -> tuple[list[tuple[str, str]], list[str], list[str]]:
    """Which algorithms are compared, and which have no partner."""
    x, y = left.names(), right.names()
    if left.algorithm and right.algorithm:
        return [(left.algorithm, right.algorithm)], [], []
    for side, other in ((left, right), (right, left)):
        if side.algorithm:
            if side.algorithm not in other.names():
                msg = f"{other.study.path}: no algorithm {side.algorithm!r} to compare with; name one as STUDY@ALGORITHM"
                raise InputError(msg)
            return [(side.algorithm, side.algorithm)], [], []
    both = [(name, name) for name in x if name in y]
    return both, [n for n in x if n not in y], [n for n in y if n not in x]


def _ids(x: Study, y: Study) -> dict[str, bool | None]:
    left = {"train": x.document["train"], **x.target_sets}
    right = {"train": y.document["train"], **y.target_sets}
    return {
        name: left[name]["sha256"] == right[name]["sha256"]
        if name in left and name in right
        else None
        for name in ("train", *sorted({*left, *right} - {"train"}))
    }


def _compare(x: Snapshot, y: Snapshot) -> dict[str, Any]:
    blocks_x = {tuple(vars(block).values()) for block in x.algorithm.blocks}
    blocks_y = {tuple(vars(block).values()) for block in y.algorithm.blocks}
    declared = [
        key for key in _DECLARED if x.algorithm.document.get(key) != y.algorithm.document.get(key)
    ]
    differing: dict[str, Any] = {
        "declared": declared,
        "plan_only_x": _blocks(blocks_x - blocks_y),
        "plan_only_y": _blocks(blocks_y - blocks_x),
        "fits_only_x": sorted(x.fits - y.fits),
        "fits_only_y": sorted(y.fits - x.fits),
        "removals_only_x": _stated(x, y),
        "removals_only_y": _stated(y, x),
    }
    outputs, models = _compare_tables(x.outputs, y.outputs), _compare_tables(x.models, y.models)
    rows = _compare_rows(x.rows, y.rows)
    parts = [rows, *(outputs or {}).values(), *(models or {}).values()]
    equal = all(part["equal"] for part in parts) and not any(differing.values())
    return {**rows, "equal": equal, **differing, "outputs": outputs, "models": models}


def _stated(own: Snapshot, other: Snapshot) -> list[str]:
    """Removals that are stated on one side only; their names follow from their units, and a tag names runs alone."""
    if own.removals is None or other.removals is None:
        return []
    return sorted(own.removals - other.removals)


def _compare_tables(
    x: Mapping[str, Rows] | None, y: Mapping[str, Rows] | None
) -> dict[str, Any] | None:
    """What is said of each of several tables; None where one side has a tag, which names runs alone."""
    if x is None or y is None:
        return None
    return {
        name: _compare_rows(x.get(name, NOTHING), y.get(name, NOTHING)) for name in sorted({*x, *y})
    }


def _compare_rows(x: Rows, y: Rows) -> dict[str, Any]:
    common, in_x, in_y = np.intersect1d(x.run, y.run, assume_unique=True, return_indices=True)
    same = (x.digest[in_x] == y.digest[in_y]).all(axis=1)
    described = x.describe(), y.describe()
    return {
        "equal": described[0]["content_id"] == described[1]["content_id"],
        "x": described[0],
        "y": described[1],
        "shared": int(same.sum()),
        "only_x": _runs(np.setdiff1d(x.run, y.run, assume_unique=True)),
        "only_y": _runs(np.setdiff1d(y.run, x.run, assume_unique=True)),
        "conflicting": _runs(common[~same]),
    }


def _runs(run: NDArray[np.int64]) -> dict[str, Any]:
    return {"count": len(run), "run": np.sort(run)[:_NAMED].tolist()}


def _blocks(blocks: set[tuple[Any, ...]]) -> list[dict[str, int]]:
    keys = ("first_run", "runs", "first_mask", "repeats")
    return [dict(zip(keys, block, strict=True)) for block in sorted(blocks)]
