"""An algorithm of a study: its declaration, its plan, its masks, and the table of its runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmstore.core import bits
from dmstore.errors import (
    ConflictError,
    ExistsError,
    InputError,
    StudyNotFoundError,
)
from dmstore.schema.group_specs import group_spec
from dmstore.schema.names import check_column_name
from dmstore.schema.typed_documents import (
    AlgorithmDocument,
    StudyDocument,
)
from dmstore.storage.objects.objects import Objects
from dmstore.storage.table import log
from dmstore.storage.table.rows import Rows
from dmstore.storage.table.table import Table
from dmstore.study import changes, plan
from dmstore.study.display import Displayed, Facts, counted, size
from dmstore.study.plan import Block, Part
from dmstore.study.stored_plan import StoredPlan

ANCHOR = "study.json"
# Segments whose ids are read for a line of text: each costs one small read.
_MOST_SEGMENTS = 64


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


class Algorithm(Displayed):
    """A named way to train, with the runs made by it.

    Parameters
    ----------
    objects : Objects
        The study's storage.
    study : dict
        The study's document.
    document : dict
        The algorithm's document.
    """

    # Where its tables stand below its own prefix; those of models trained on all data stand apart.
    place = ""

    def __init__(self, objects: Objects, study: StudyDocument, document: AlgorithmDocument) -> None:
        self.objects = objects
        self.document = document.copy()
        self.name = document["name"]
        self.uuid = document["uuid"]
        self.alpha = document["alpha"]
        self.planned = document["sampling"] == "planned"
        self.is_eval_only = document.get("split") == "eval"
        self.outputs = dict(document["outputs"])
        self.target_set = document["target_set"]
        self.train = study["train"]["count"]
        self.prefix = f"algorithms/{self.name}/"
        self.retracted_note = f"retracted here; 'dmstore retract {objects.url} {self.name} --restore --where run=…' takes them back"
        self._seed = study["seed"]
        self._plan = StoredPlan(objects, self.prefix, self.name, planned=self.planned)
        self._study = study["uuid"]
        self._changes = changes.State()
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
            group_spec("runs", self.outputs),
            sizes,
            {"study": self._study, "algorithm": self.name, "table": "runs"},
        )

    @property
    def blocks(self) -> list[Block]:
        """The blocks of the plan, oldest first; empty for foreign sampling."""
        return self._plan.blocks()

    @property
    def planned_count(self) -> int:
        """Number of runs planned."""
        return sum(block.runs for block in self.blocks)

    @property
    def changes(self) -> changes.State:
        """What became of it since it was added: whether it is removed, and a task that it was given later."""
        self._changes = changes.read(self.objects, self.prefix, self._changes, self.uuid)
        return self._changes

    @property
    def task(self) -> str | None:
        """The task that trains its runs: declared with it, or given later."""
        return self.document["task"] or self.changes.task

    @property
    def config(self) -> dict[str, Any]:
        """What the task is configured with."""
        return dict(self.document["config"] if self.document["task"] else self.changes.config)

    def give_task(self, task: str, config: Mapping[str, Any] | None = None) -> None:
        """Say how an algorithm that was added without a task is trained. The same call again does nothing.

        Parameters
        ----------
        task : str
            ``package.module:function``.
        config : mapping, optional
            Passed to it.

        Raises
        ------
        ExistsError
            If it has another task.
        ConflictError
            If another host changed the algorithm at the same moment.
        """
        if self.task is not None:
            if (self.task, self.config) == (task, dict(config or {})):
                return
            msg = f"algorithm {self.name!r} is trained by {self.task!r}, and runs of two tasks are not one algorithm's; add another"
            raise ExistsError(msg)
        state = self.changes
        changes.add(self.objects, self.prefix, self.uuid, state, "task", task=task, config=config)

    def remove(self, *, reason: str = "") -> None:
        """Take the algorithm out of the study: nothing lists, publishes or opens it any more, and its name stays taken.

        Nothing is deleted, and :meth:`dmstore.study.study.Study.restore_algorithm` takes it back. The same call again does nothing.

        Parameters
        ----------
        reason : str
            Stands in the log; needed where any run is stored.

        Raises
        ------
        InputError
            If it has runs and there is no reason.
        ConflictError
            If a run was stored at the same moment, and there is no reason: the algorithm is there again then.
        """
        self._check_empty(reason)
        if not self.changes.removed:
            state = self.changes
            changes.add(self.objects, self.prefix, self.uuid, state, "remove", reason=reason)
        try:
            # A worker may have been storing one.
            self._check_empty(reason or self.changes.reason)
        except InputError as error:
            self.restore(reason="a run was stored meanwhile")
            raise ConflictError(str(error)) from None

    def _check_empty(self, reason: str) -> None:
        """Refuse to remove stored rows, retracted ones too, without a word why."""
        state = self.table.snapshot()
        rows = len(state.run) + len(state.manifest.retracted) + len(state.conflicts)
        if rows and not reason.strip():
            msg = f"algorithm {self.name!r} has {counted(rows, 'stored row')}; say why it is removed with --reason (they stay stored)"
            raise InputError(msg)

    def restore(self, *, reason: str = "") -> None:
        """Take a removed algorithm back. The same call again does nothing.

        Parameters
        ----------
        reason : str
            Stands in the log.

        Raises
        ------
        ConflictError
            If another host changed the algorithm at the same moment.
        """
        state = self.changes
        if state.removed:
            changes.add(self.objects, self.prefix, self.uuid, state, "restore", reason=reason)

    def require(self) -> None:
        """Refuse to go on where the algorithm is removed.

        Raises
        ------
        NotFoundError
            With the reason, and how to take it back.
        """
        changes.check_there(self.changes, self.objects, self.name)

    def extend(self, runs: int, *, repeats: int = 1) -> Block:
        """Add a block of runs to the plan; each call adds one. :meth:`extend_to` may be repeated.

        Parameters
        ----------
        runs : int
        repeats : int
            Runs that share a mask.

        Returns
        -------
        Block

        Raises
        ------
        InputError
            If the algorithm is foreign or a number is not positive.
        ConflictError
            If another host extended the plan at the same moment.
        """
        return self._plan.extend(runs, repeats)

    def extend_to(self, total: int, *, repeats: int = 1) -> Block | None:
        """Add a block of runs so that the plan has so many in all; the same call again adds nothing.

        Parameters
        ----------
        total : int
        repeats : int
            Runs that share a mask.

        Returns
        -------
        Block or None
            None if the plan had so many already.

        Raises
        ------
        InputError
            If the algorithm is foreign, a number is not positive, or more runs are planned already.
        ConflictError
            If another host extended the plan at the same moment.
        """
        return self._plan.extend_to(total, repeats)

    def adopt(self, blocks: Sequence[Block]) -> list[Block]:
        """Add the blocks of a copy of the study that the plan does not have.

        Parameters
        ----------
        blocks : sequence of Block

        Returns
        -------
        list of Block
            Those that were added.

        Raises
        ------
        ConflictError
            If one shares run or mask ids with another block: two labs planned them, each in a plain
            copy of the study. ('dmstore pull' makes copies whose ids stay apart.)
        """
        return self._plan.adopt(blocks)

    def masks(self, mask_ids: Sequence[int] | NDArray[np.int64]) -> NDArray[np.bool_]:
        """Planned masks.

        Parameters
        ----------
        mask_ids : (mask,) int64

        Returns
        -------
        (mask, train) bool

        Raises
        ------
        AssertionError
            If the algorithm is foreign.
        """
        assert self.alpha is not None
        return plan.make_masks(self._key, mask_ids, self.train, self.alpha)

    def describe(self, run_ids: NDArray[np.int64]) -> list[Run]:
        """What planned runs are to see, and with which seeds.

        Parameters
        ----------
        run_ids : (run,) int64

        Returns
        -------
        list of Run
            Mask, seed, mask id and repeat of each.

        Raises
        ------
        InputError
            If one is not in the plan.
        """
        blocks = self.blocks
        mask_id = plan.masks_of(run_ids, blocks)
        repeat = plan.repeats_of(run_ids, blocks)
        self._check_planned(run_ids, mask_id, f"algorithm {self.name!r}")
        seeds = plan.training_seeds(self._seed, self.name, np.asarray(run_ids))
        said = (run_ids.tolist(), self.masks(mask_id), seeds.tolist(), mask_id.tolist())
        return [Run(*one) for one in zip(*said, repeat.tolist(), strict=True)]

    def pending(self, part: Part | None = None) -> NDArray[np.int64]:
        """Planned runs that no view shows yet.

        Parameters
        ----------
        part : Part, optional
            Only this part of the plan.

        Returns
        -------
        (run,) int64

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
        """Planned runs that are not among some.

        Parameters
        ----------
        run : (run,) int64
        part : Part, optional
            Only this part of the plan.

        Returns
        -------
        (run,) int64
            None of a foreign algorithm.

        Raises
        ------
        FormatError
            If the plan is damaged.
        """
        wanted = self.wanted(part)
        return wanted[~np.isin(wanted, run)]

    def wanted(self, part: Part | None = None) -> NDArray[np.int64]:
        """Runs that there are to be.

        Parameters
        ----------
        part : Part, optional
            Only this part of the plan.

        Returns
        -------
        (run,) int64

        Raises
        ------
        FormatError
            If the plan is damaged.
        """
        return plan.planned_runs(self.blocks, part)

    def of_part(self, run: NDArray[np.int64], part: Part) -> NDArray[np.int64]:
        """Those of some runs that are in a part of the plan; without a plan, every so-manieth id.

        Parameters
        ----------
        run : (run,) int64
        part : Part

        Returns
        -------
        (run,) int64

        Raises
        ------
        FormatError
            If the plan is damaged.
        """
        if self.planned:
            return run[np.isin(run, self.wanted(part))]
        return np.asarray(run[run % part.count == part.index - 1])

    def split(self, mask_ids: NDArray[np.int64]) -> NDArray[np.str_]:
        """What runs are for.

        Parameters
        ----------
        mask_ids : (run,) int64

        Returns
        -------
        (run,) str
            ``train``, ``holdout`` or ``eval``.

        Raises
        ------
        TypeError
            If they are no integers.
        """
        if self.is_eval_only:
            return np.full(len(mask_ids), "eval")
        return plan.split_of(self._seed, mask_ids)

    def quarter(self, mask_ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Which quarter of the masks runs are in.

        Parameters
        ----------
        mask_ids : (run,) int64

        Returns
        -------
        (run,) int64
            0 to 3.

        Raises
        ------
        TypeError
            If they are no integers.
        """
        return plan.quarter_of(self._seed, mask_ids)

    def half(self, mask_ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Which half of the masks runs are in, whatever they are for: one finds, the other measures.

        Parameters
        ----------
        mask_ids : (run,) int64

        Returns
        -------
        (run,) int64
            0 or 1.

        Raises
        ------
        TypeError
            If they are no integers.
        """
        return plan.quarter_of(self._seed, mask_ids) // 2

    def shares_masks(self, other: Algorithm) -> bool:
        """Whether a mask id means the same mask in another algorithm of the study.

        Parameters
        ----------
        other : Algorithm

        Returns
        -------
        bool
            True where both are planned on shared masks with one alpha, or both have masks that were made elsewhere, whose
            ids are hashes of them.

        Raises
        ------
        AttributeError
            If it is no algorithm.
        """
        if self.planned and other.planned:
            return (self._key, self.alpha) == (other._key, other.alpha)
        return not self.planned and not other.planned

    def fold(self, mask_ids: NDArray[np.int64], folds: int) -> NDArray[np.int64]:
        """Which of so many folds runs are in, where lam is chosen by folds.

        Parameters
        ----------
        mask_ids : (run,) int64
        folds : int

        Returns
        -------
        (run,) int64

        Raises
        ------
        TypeError
            If they are no integers.
        """
        return plan.fold_of(self._seed, mask_ids, folds)

    def make_room(self) -> None:
        """Nothing: stored runs stand in no other's way, as outputs on later target sets may."""

    def complete(self, rows: Rows, where: str, *, planned_masks: bool = False) -> Rows:
        """Check rows from outside and add what the plan says of them.

        Parameters
        ----------
        rows : Rows
        where : str
            For error texts.
        planned_masks : bool
            The masks are the very ones that :meth:`describe` made for these runs.

        Returns
        -------
        Rows
            With the columns ``mask_id``, ``repeat`` and ``seed``.

        Raises
        ------
        InputError
            If arrays do not fit the declaration, an id is not planned, or a mask is not the plan's.
        """
        for name in rows.columns.keys() - {"seed", "time", "host"}:
            check_column_name(name, where)
        if len({name.lower() for name in rows.columns}) != len(rows.columns):
            msg = f"{where}: two columns differ in case alone; give them different names"
            raise InputError(msg)
        rows = self.table.check(rows, where)
        mask = rows.arrays["mask"]
        mask_id, repeat = self._mask_ids(rows.run, mask)
        if self.planned:
            self._check_planned(rows.run, mask_id, where)
            wrong = () if planned_masks else self.wrong_masks(rows.run, mask_id, mask)
            for _, number in wrong:
                msg = (
                    f"{where}: run {number} has a mask that is not the plan's; train with "
                    f"the plan's mask, or add an algorithm with '--sampling foreign' for masks made elsewhere"
                )
                raise InputError(msg)
        columns = {**rows.columns, "mask_id": mask_id, "repeat": repeat}
        if self.planned and "seed" not in columns:
            columns["seed"] = plan.training_seeds(self._seed, self.name, rows.run)
        columns.setdefault("seed", np.zeros(len(rows), dtype=np.uint64))
        for name in ("time", "host"):
            if name not in columns:
                msg = f"{where}: no {name!r}"
                raise InputError(msg)
        return Rows(rows.run, rows.arrays, columns)

    def _mask_ids(
        self, run: NDArray[np.int64], masks: NDArray[np.bool_]
    ) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Mask ids and repeats of rows: the plan's, -1 where it has no such run, or hashes of their masks."""
        if self.planned:
            blocks = self.blocks
            return plan.masks_of(run, blocks), plan.repeats_of(run, blocks)
        return plan.foreign_mask_ids(bits.pack_rows(masks)), np.zeros(len(run), dtype=np.int32)

    def _check_planned(
        self, run: NDArray[np.int64], mask_id: NDArray[np.int64], where: str
    ) -> None:
        for row in np.flatnonzero(mask_id < 0)[:1]:
            msg = (
                f"{where}: run {run[row]} is not in the plan of {self.name!r} "
                f"({self.planned_count} runs); extend it with 'dmstore extend'"
            )
            raise InputError(msg)

    def wrong_masks(
        self, run: NDArray[np.int64], mask_id: NDArray[np.int64], masks: NDArray[np.bool_]
    ) -> Iterator[tuple[int, int]]:
        """Rows whose mask is not the plan's.

        Parameters
        ----------
        run, mask_id : (run,) int64
        masks : (run, train) bool

        Yields
        ------
        tuple of int
            Row and run id.

        Raises
        ------
        AssertionError
            If the algorithm is foreign.
        """
        for row, (number, mask) in enumerate(zip(mask_id, masks, strict=True)):
            if not np.array_equal(self.masks([int(number)])[0], mask):
                yield row, int(run[row])

    def check_rows(
        self, run: NDArray[np.int64], arrays: dict[str, NDArray[Any]]
    ) -> Iterator[tuple[int, str]]:
        """The plan's check of stored rows, for verification. Mask ids and repeats are checked too: they say which
        runs are for what.

        Parameters
        ----------
        run : (run,) int64
        arrays : dict
            ``mask``, ``mask_id`` and ``repeat``.

        Yields
        ------
        tuple of int and str
            Run id, and what is wrong.

        Raises
        ------
        FormatError
            If the plan is damaged.
        """
        mask_id, repeat = self._mask_ids(run, arrays["mask"])
        if self.planned:
            for number in run[mask_id < 0]:
                yield int(number), "not in the plan"
            known = mask_id >= 0
            for _, number in self.wrong_masks(run[known], mask_id[known], arrays["mask"][known]):
                yield number, "mask is not the plan's"
        wrong = (arrays["mask_id"] != mask_id) | (arrays["repeat"] != repeat)
        for number in run[wrong & (mask_id >= 0)]:
            yield int(number), "mask id or repeat is not that of its mask"

    def rows_stored(self) -> str:
        """Runs stored, of how many planned: exact while few segments wait, else what waits is counted apart."""
        table = self.table
        manifest = log.newest(table.objects, table.prefix)
        hidden = {*manifest.absorbed, *manifest.removed}
        waiting = [name for name in table.segment_names() if name not in hidden]
        base = manifest.base.runs if manifest.base else 0
        if not waiting:
            text = str(base)
        elif len(waiting) <= _MOST_SEGMENTS:
            text = str(len(table.view()))
        else:
            text = f"{base} and {counted(len(waiting), 'segment')}"
        return f"{text} of {self.planned_count}" if self.planned else text

    def stored_bytes(self) -> int:
        """Bytes of all that is stored of the algorithm's runs."""
        return sum(info.size for info in self.objects.entries(self.prefix))

    def _facts(self) -> Facts:
        """Runs done of planned, alpha, outputs, size."""
        require_study(self.objects)
        return Facts(
            self._title(),
            [
                ("runs", self.rows_stored()),
                (
                    "alpha",
                    f"{self.alpha}, {self.document['sampling']} sampling{', for evaluation only' if self.is_eval_only else ''}",
                ),
                ("outputs", ", ".join(sorted(self.outputs))),
                ("stored", size(self.stored_bytes())),
            ],
        )

    def _title(self) -> str:
        """What it is called where it is displayed."""
        return f"dmstore algorithm {self.name}"


def require_study(objects: Objects) -> None:
    """Refuse to go on where the study is gone: StudyNotFoundError."""
    if not objects.exists(ANCHOR):
        msg = f"{objects.url}: {ANCHOR} is gone, so the study was deleted or moved"
        raise StudyNotFoundError(msg)
