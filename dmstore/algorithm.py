"""An algorithm of a study: its declaration, its plan, its masks, and the table of its runs."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmstore import bits, plan, schema, summary
from dmstore.errors import ConflictError, ExistsError, InputError, NotFoundError, StudyNotFoundError
from dmstore.plan import Block, Part
from dmstore.storage import log
from dmstore.storage.objects import Objects
from dmstore.storage.segment import Rows
from dmstore.storage.table import Table

ANCHOR = "study.json"
_DECLARED = ("alpha", "sampling", "masks", "target_set", "outputs", "task", "config")


@dataclass(frozen=True)
class Run:
    """One run to train.

    Attributes
    ----------
    id : int
    mask : (train,) bool
        What it may see.
    seed : int
        Its own training seed.
    mask_id, repeat : int
    """

    id: int
    mask: NDArray[np.bool_]
    seed: int
    mask_id: int
    repeat: int


class Algorithm:
    """A named way to train, with the runs made by it.

    Parameters
    ----------
    objects : Objects
        The study's storage.
    study : mapping
        The study's document.
    document : mapping
        The algorithm's document.
    """

    def __init__(
        self, objects: Objects, study: Mapping[str, Any], document: Mapping[str, Any]
    ) -> None:
        self.objects = objects
        self.document = dict(document)
        self.name: str = document["name"]
        self.uuid: str = document["uuid"]
        self.alpha: float | None = document["alpha"]
        self.planned = document["sampling"] == "planned"
        self.outputs: dict[str, dict[str, Any]] = dict(document["outputs"])
        self.target_set: str = document["target_set"]
        self.train: int = study["train"]["count"]
        self.prefix = f"algorithms/{self.name}/"
        self._seed: int = study["seed"]
        # Blocks of a plan never change, so each is read once.
        self._blocks: dict[str, Block] = {}
        self._study: str = study["uuid"]
        self._key = plan.mask_key(
            self._seed, self.name if document["masks"] == "independent" else None
        )
        sizes = {
            "train": self.train,
            "target": study["targets"][self.target_set]["count"],
            "class": study.get("classes", 0),
        }
        self.table = Table(
            objects,
            f"{self.prefix}runs/",
            schema.group_spec("runs", self.outputs),
            sizes,
            {"study": self._study, "algorithm": self.name, "table": "runs"},
        )

    def blocks(self) -> list[Block]:
        """The blocks of the plan, oldest first; empty for foreign sampling."""
        found = self.objects.children(f"{self.prefix}plans/")
        names = sorted(
            (n for n in found if re.fullmatch(r"[0-9]{4,}\.json", n)), key=lambda n: int(n[:-5])
        )
        for name in names:
            if name not in self._blocks:
                where = f"{self.prefix}plans/{name}"
                document = schema.load_document("plan", self.objects.get(where), where)
                self._blocks[name] = Block(
                    *(document[key] for key in ("first_run", "runs", "first_mask", "repeats"))
                )
        return [self._blocks[name] for name in names]

    def planned_count(self) -> int:
        """Number of runs planned."""
        return sum(block.runs for block in self.blocks())

    def extend(self, runs: int, *, repeats: int = 1) -> Block:
        """Add a block of runs to the plan.

        Raises
        ------
        InputError
            If the algorithm is foreign or a number is not positive.
        ConflictError
            If another host extended the plan at the same moment.
        """
        if not self.planned:
            msg = f"algorithm {self.name!r} has foreign sampling, so it has no plan to extend; ingest its runs"
            raise InputError(msg)
        if not (1 <= runs <= plan.MOST_RUNS and 1 <= repeats <= plan.MOST_RUNS):
            msg = f"{runs} runs with {repeats} repeats: both must be 1 to {plan.MOST_RUNS}"
            raise InputError(msg)
        blocks = self.blocks()
        block = Block(
            max((b.stop for b in blocks), default=0),
            runs,
            max((b.first_mask + b.masks for b in blocks), default=0),
            repeats,
        )
        if block.stop >= plan.MAX_RUN:
            msg = f"{runs} runs are more than a plan can hold ({plan.MAX_RUN})"
            raise InputError(msg)
        document = {
            "block": len(blocks) + 1,
            "first_run": block.first_run,
            "runs": runs,
            "first_mask": block.first_mask,
            "repeats": repeats,
            "token": uuid.uuid4().hex,
            "created": log.utc_now(),
        }
        name = f"{self.prefix}plans/{len(blocks) + 1:04d}.json"
        if not self.objects.put_if_absent(name, schema.dump_document("plan", document)):
            msg = f"{name}: the plan was extended at the same moment; look with 'dmstore status' and try again"
            raise ConflictError(msg)
        return block

    def masks(self, mask_ids: Sequence[int] | NDArray[np.int64]) -> NDArray[np.bool_]:
        """Planned masks: (mask, train) bool."""
        assert self.alpha is not None
        return plan.make_masks(self._key, mask_ids, self.train, self.alpha)

    def describe(self, run_ids: NDArray[np.int64]) -> list[Run]:
        """Mask, seed, mask id and repeat of planned runs."""
        blocks = self.blocks()
        mask_id = plan.masks_of(run_ids, blocks)
        repeat = plan.repeats_of(run_ids, blocks)
        self._check_planned(run_ids, mask_id, f"algorithm {self.name!r}")
        masks = self.masks(mask_id)
        return [
            Run(
                int(run),
                masks[i],
                plan.training_seed(self._seed, self.name, int(run)),
                int(mask_id[i]),
                int(repeat[i]),
            )
            for i, run in enumerate(run_ids)
        ]

    def pending(self, part: Part | None = None) -> NDArray[np.int64]:
        """Planned run ids that no view shows yet.

        Raises
        ------
        InputError
            If the algorithm is foreign.
        """
        if not self.planned:
            msg = f"algorithm {self.name!r} has foreign sampling, so nothing is planned; ingest its runs"
            raise InputError(msg)
        return self.missing(self.table.view().run, part)

    def missing(self, run: NDArray[np.int64], part: Part | None = None) -> NDArray[np.int64]:
        """Planned run ids that are not in `run`; none of a foreign algorithm."""
        wanted = plan.planned_runs(self.blocks(), part)
        return wanted[~np.isin(wanted, run)]

    def split(self, mask_ids: NDArray[np.int64]) -> NDArray[np.str_]:
        """What runs are for: ``train``, ``holdout``, ``eval``."""
        return plan.split_of(self._seed, mask_ids)

    def quarter(self, mask_ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Which quarter of the masks (0 to 3) runs are in."""
        return plan.quarter_of(self._seed, mask_ids)

    def complete(self, rows: Rows, where: str) -> Rows:
        """Check rows from outside and add what the plan says of them.

        Raises
        ------
        InputError
            If arrays do not fit the declaration, an id is not planned, or a mask is not the plan's.
        """
        for name in rows.columns.keys() - {"seed", "time", "host"}:
            schema.check_column_name(name, where)
        if len({name.lower() for name in rows.columns}) != len(rows.columns):
            msg = f"{where}: two columns differ in case alone; give them different names"
            raise InputError(msg)
        rows = self.table.check(rows, where)
        count = len(rows)
        if self.planned:
            blocks = self.blocks()
            mask_id, repeat = plan.masks_of(rows.run, blocks), plan.repeats_of(rows.run, blocks)
            self._check_planned(rows.run, mask_id, where)
            wrong = [row for row, _ in self.wrong_masks(rows.run, mask_id, rows.arrays["mask"])]
            if wrong:
                msg = (
                    f"{where}: run {rows.run[wrong[0]]} has a mask that is not the plan's; train with "
                    f"the plan's mask, or add an algorithm with '--sampling foreign' for masks made elsewhere"
                )
                raise InputError(msg)
            seeds = [plan.training_seed(self._seed, self.name, int(run)) for run in rows.run]
            seed = rows.columns.get("seed", np.array(seeds, dtype=np.uint64))
        else:
            mask_id = plan.foreign_mask_ids(bits.pack_rows(rows.arrays["mask"]))
            repeat = np.zeros(count, dtype=np.int32)
            seed = rows.columns.get("seed", np.zeros(count, dtype=np.uint64))
        columns = {
            **rows.columns,
            "mask_id": mask_id,
            "repeat": repeat,
            "seed": seed,
        }
        for name in ("time", "host"):
            if name not in columns:
                msg = f"{where}: no {name!r}"
                raise InputError(msg)
        return Rows(rows.run, rows.arrays, columns)

    def _check_planned(
        self, run: NDArray[np.int64], mask_id: NDArray[np.int64], where: str
    ) -> None:
        for row in np.flatnonzero(mask_id < 0)[:1]:
            msg = (
                f"{where}: run {run[row]} is not in the plan of {self.name!r} "
                f"({self.planned_count()} runs); extend it with 'dmstore extend'"
            )
            raise InputError(msg)

    def wrong_masks(
        self, run: NDArray[np.int64], mask_id: NDArray[np.int64], masks: NDArray[np.bool_]
    ) -> Iterator[tuple[int, int]]:
        """Rows whose mask is not the plan's: (row, run id)."""
        for row, (number, mask) in enumerate(zip(mask_id, masks, strict=True)):
            if not np.array_equal(self.masks([int(number)])[0], mask):
                yield row, int(run[row])

    def check_rows(
        self, run: NDArray[np.int64], arrays: dict[str, NDArray[Any]]
    ) -> Iterator[tuple[int, str]]:
        """The plan's check of stored rows, for verification: (run id, what is wrong).

        Mask ids and repeats are checked too: they say which runs are for what.
        """
        if self.planned:
            blocks = self.blocks()
            mask_id, repeat = plan.masks_of(run, blocks), plan.repeats_of(run, blocks)
            for number in run[mask_id < 0]:
                yield int(number), "not in the plan"
            known = mask_id >= 0
            for _, number in self.wrong_masks(run[known], mask_id[known], arrays["mask"][known]):
                yield number, "mask is not the plan's"
        else:
            mask_id = plan.foreign_mask_ids(bits.pack_rows(arrays["mask"]))
            repeat = np.zeros(len(run), dtype=np.int32)
        wrong = (arrays["mask_id"] != mask_id) | (arrays["repeat"] != repeat)
        for number in run[wrong & (mask_id >= 0)]:
            yield int(number), "mask id or repeat is not that of its mask"

    def _facts(self) -> summary.Facts:
        return summary.guarded(lambda: summary.of_algorithm(self), f"dmstore algorithm {self.name}")

    def __repr__(self) -> str:
        return summary.as_text(self._facts())

    def _repr_html_(self) -> str:
        return summary.as_html(self._facts())


def declare_outputs(
    outputs: Sequence[str] | Mapping[str, Mapping[str, Any]],
) -> dict[str, dict[str, Any]]:
    """Declarations of outputs from known names or from full entries.

    Parameters
    ----------
    outputs : sequence of str, or mapping
        ``["margin", "logit:float16"]``, or name to ``dtype``, ``dims``, ``function``,
        ``orientation`` and ``units``.

    Raises
    ------
    InputError
        For an unknown or reserved name.
    """
    if not outputs:
        msg = "an algorithm needs at least one output, such as 'margin'"
        raise InputError(msg)
    if isinstance(outputs, Mapping):
        declared = {name: dict(entry) for name, entry in outputs.items()}
    else:
        known = schema.known_outputs()
        declared = {}
        for text in outputs:
            name, _, dtype = text.partition(":")
            if name not in known:
                msg = (
                    f"output {name!r} is not known; use {', '.join(known)}, or declare it in Python"
                )
                raise InputError(msg)
            declared[name] = {**known[name], **({"dtype": dtype} if dtype else {})}
    for name, entry in declared.items():
        schema.check_column_name(name, "output")
        if list(entry.get("dims", ()))[:2] != ["run", "target"]:
            msg = f"output {name!r} has dims {entry.get('dims')}; they begin with run, target"
            raise InputError(msg)
    return declared


def add(
    objects: Objects,
    study: Mapping[str, Any],
    name: str,
    *,
    alpha: float | None = 0.5,
    runs: int = 0,
    repeats: int = 1,
    sampling: str = "planned",
    masks: str = "shared",
    outputs: Sequence[str] | Mapping[str, Mapping[str, Any]] = ("margin",),
    target_set: str = "test",
    task: str | None = None,
    config: Mapping[str, Any] | None = None,
) -> Algorithm:
    """Add an algorithm to a study; see :meth:`dmstore.study.Study.add_algorithm`."""
    schema.check_name(name, "algorithm")
    taken = {
        other.lower(): other
        for other in objects.children("algorithms/")
        if objects.exists(f"algorithms/{other}/algorithm.json")
    }
    if taken.get(name.lower(), name) != name:
        raise _exists(taken[name.lower()])
    if sampling not in ("planned", "foreign") or masks not in ("shared", "independent"):
        msg = f"sampling {sampling!r} with masks {masks!r}: use planned or foreign, shared or independent"
        raise InputError(msg)
    if alpha is None and sampling == "planned":
        msg = "planned sampling needs alpha, the share of the training set that a run sees"
        raise InputError(msg)
    count = study["train"]["count"]
    if alpha is not None and not 0 < alpha < 1:
        msg = f"alpha {alpha} is not allowed; it must lie strictly between 0 and 1"
        raise InputError(msg)
    if alpha is not None and sampling == "planned" and int(np.floor(alpha * count)) < 1:
        msg = (
            f"alpha {alpha} of {count} train examples is less than one example; use a larger alpha"
        )
        raise InputError(msg)
    if sampling == "foreign" and runs:
        msg = "foreign sampling has no plan; leave the number of runs out"
        raise InputError(msg)
    if not (0 <= runs <= plan.MOST_RUNS and 1 <= repeats <= plan.MOST_RUNS):
        msg = f"{runs} runs with {repeats} repeats: give 0 or more runs, 1 or more repeats, at most {plan.MOST_RUNS}"
        raise InputError(msg)
    if target_set not in study["targets"]:
        msg = (
            f"target set {target_set!r} is not in this study; it has {', '.join(study['targets'])}"
        )
        raise NotFoundError(msg)
    declared = declare_outputs(outputs)
    if not study.get("classes") and any("class" in entry["dims"] for entry in declared.values()):
        msg = "an output with a value a class needs class names in the study"
        raise InputError(msg)
    document = {
        "name": name,
        "study": study["uuid"],
        "uuid": uuid.uuid4().hex,
        "created": log.utc_now(),
        "software": log.software(),
        "alpha": alpha,
        "sampling": sampling,
        "masks": masks,
        "target_set": target_set,
        "outputs": declared,
        "task": task,
        "config": dict(config or {}),
    }
    raw = schema.dump_document("algorithm", document)
    if name.lower() in taken:
        # A killed call may have declared the algorithm and planned no runs yet.
        algorithm = open_algorithm(objects, study, name)
        same = all(algorithm.document[key] == document[key] for key in _DECLARED)
        if not same or not runs or algorithm.blocks():
            raise _exists(name)
    elif objects.put_if_absent(f"algorithms/{name}/algorithm.json", raw):
        algorithm = Algorithm(objects, study, document)
    else:
        raise _exists(name)
    if runs:
        algorithm.extend(runs, repeats=repeats)
    return algorithm


def _exists(name: str) -> ExistsError:
    return ExistsError(f"algorithm {name!r} exists in this study; choose another name")


def open_algorithm(objects: Objects, study: Mapping[str, Any], name: str) -> Algorithm:
    """Open an algorithm.

    Raises
    ------
    NotFoundError
        If the study has none of this name.
    FormatError
        If its document is damaged, of another study, or of another format.
    """
    schema.check_name(name, "algorithm")
    where = f"algorithms/{name}/algorithm.json"
    try:
        document = schema.load_document("algorithm", objects.get(where), where)
    except (FileNotFoundError, NotADirectoryError):
        if not objects.exists(ANCHOR):
            msg = f"{objects.url}: {ANCHOR} is gone, so the study was deleted or moved"
            raise StudyNotFoundError(msg) from None
        known = ", ".join(objects.children("algorithms/")) or "none yet"
        msg = (
            f"algorithm {name!r} is not in this study (it has: {known}); add it with 'dmstore add'"
        )
        raise NotFoundError(msg) from None
    if document["study"] != study["uuid"]:
        msg = f"{where}: belongs to study {document['study']}, not to this one"
        raise InputError(msg)
    return Algorithm(objects, study, document)
