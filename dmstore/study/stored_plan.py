"""The plan of an algorithm as it is stored: blocks of run ids, each a document that never changes."""

from __future__ import annotations

import re
import uuid
from collections.abc import Sequence

from dmstore import provenance
from dmstore.errors import ConflictError, FormatError, InputError
from dmstore.schema.documents import dump_document, load_document
from dmstore.schema.typed_documents import PlanDocument
from dmstore.storage.objects.objects import Objects
from dmstore.storage.published.index import ORIGIN
from dmstore.storage.table.rows import MOST_RUNS
from dmstore.study import plan
from dmstore.study.plan import Block


class StoredPlan:
    """The blocks below ``plans/`` of an algorithm.

    Parameters
    ----------
    objects : Objects
    prefix : str
        Of the algorithm; ends in ``/``.
    name : str
        Of the algorithm, for error texts.
    planned : bool
        Whether its sampling is planned; else there is no plan.
    """

    def __init__(self, objects: Objects, prefix: str, name: str, *, planned: bool) -> None:
        self._objects = objects
        self._prefix = prefix
        self._name = name
        self._planned = planned
        # Blocks of a plan never change, so each is read once.
        self._blocks: dict[str, Block] = {}

    def blocks(self) -> list[Block]:
        """The blocks of the plan, oldest first; empty for foreign sampling."""
        stored = set(self._objects.children(f"{self._prefix}plans/"))
        # A listing may be old, but whether the next block is there is not.
        while self._objects.exists(f"{self._prefix}plans/{len(stored) + 1:04d}.json"):
            stored.add(f"{len(stored) + 1:04d}.json")
        names = sorted(
            (n for n in stored if re.fullmatch(r"[0-9]{4,}\.json", n)), key=lambda n: int(n[:-5])
        )
        for name in names:
            if name not in self._blocks:
                where = f"{self._prefix}plans/{name}"
                said = load_document("plan", self._objects.get(where), where)
                self._blocks[name] = Block(
                    said["first_run"], said["runs"], said["first_mask"], said["repeats"]
                )
        blocks = [self._blocks[name] for name in names]
        if sum(block.runs for block in blocks) > MOST_RUNS:
            msg = f"{self._prefix}plans: more than {MOST_RUNS} runs are planned; do not use this study"
            raise FormatError(msg)
        return blocks

    def extend(self, runs: int, repeats: int) -> Block:
        """Add a block; see :meth:`dmstore.study.algorithm.Algorithm.extend`."""
        return self._extend(self.blocks(), runs, repeats)

    def extend_to(self, total: int, repeats: int) -> Block | None:
        """Add what is missing; see :meth:`dmstore.study.algorithm.Algorithm.extend_to`."""
        blocks = self.blocks()
        planned = sum(block.runs for block in blocks)
        if self._planned and planned > total:
            msg = f"algorithm {self._name!r} has {planned} runs planned, more than {total}; a plan never shrinks, so give {planned} or more"
            raise InputError(msg)
        if self._planned and planned == total:
            return None
        return self._extend(blocks, total - planned, repeats)

    def _extend(self, blocks: list[Block], runs: int, repeats: int) -> Block:
        if not self._planned:
            msg = f"algorithm {self._name!r} has foreign sampling, so it has no plan to extend; ingest its runs"
            raise InputError(msg)
        if not (1 <= runs <= MOST_RUNS and 1 <= repeats <= MOST_RUNS):
            msg = f"{runs} runs with {repeats} repeats: both must be 1 to {MOST_RUNS}"
            raise InputError(msg)
        try:
            block = plan.next_block(blocks, self._branch(), runs, repeats)
        except OverflowError:
            msg = (
                f"{runs} runs more are more than a plan can hold ({plan.BRANCH} a copy of a study)"
            )
            raise InputError(msg) from None
        self._add_block(block, len(blocks) + 1)
        return block

    def _branch(self) -> int:
        """0 in the first place of a study; in a pulled copy the number that it drew."""
        if not self._objects.exists(ORIGIN):
            return 0
        return load_document("origin", self._objects.get(ORIGIN), ORIGIN)["branch"]

    def _add_block(self, block: Block, number: int) -> None:
        document: PlanDocument = {
            "block": number,
            **block.document(),
            "token": uuid.uuid4().hex,
            "created": provenance.utc_now(),
        }
        name = f"{self._prefix}plans/{number:04d}.json"
        if not self._objects.put_if_absent(name, dump_document("plan", document)):
            msg = f"{name}: the plan was extended at the same moment; look with 'dmstore status' and try again"
            raise ConflictError(msg)

    def adopt(self, blocks: Sequence[Block]) -> list[Block]:
        """Add the blocks of a copy; see :meth:`dmstore.study.algorithm.Algorithm.adopt`."""
        own = self.blocks()
        fresh = [block for block in blocks if block not in own]
        for block in fresh:
            for other in own:
                if plan.overlap(block, other):
                    msg = (
                        f"algorithm {self._name!r}: runs {block.first_run} to {block.stop - 1} were planned there and "
                        f"runs {other.first_run} to {other.stop - 1} here, with some of the same ids; "
                        f"ingest into an algorithm with '--sampling foreign'"
                    )
                    raise ConflictError(msg)
        for number, block in enumerate(fresh, len(own) + 1):
            self._add_block(block, number)
        return fresh
