"""What an export of runs reads: one pinned view, and which rows and outputs of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmstore import provenance
from dmstore.core.texts import text
from dmstore.errors import InputError, NotFoundError
from dmstore.exporters.stream import Stream, whole
from dmstore.storage.acts import tag
from dmstore.storage.table import log
from dmstore.storage.table.view import BLOCK, View
from dmstore.study import plan
from dmstore.study.algorithm import Algorithm
from dmstore.study.study import Study

# What follows from the masks and the plan, and so is made again by whatever reads the rows back.
_DERIVED = ("row_digest", "mask_id", "repeat")


@dataclass(frozen=True)
class Source:
    """Rows of one view.

    Attributes
    ----------
    view : View
    rows : (row,) int64
        Which rows of the view, in its order.
    outputs : tuple of str
    split : str
    """

    algorithm: Algorithm
    view: View
    rows: NDArray[np.int64]
    outputs: tuple[str, ...]
    split: str

    @classmethod
    def pin(
        cls,
        study: Study,
        algorithm: str,
        *,
        outputs: Sequence[str] = (),
        snapshot: str | None = None,
        split: str = "all",
    ) -> Source:
        """Pin the runs as they are now, or as they were when a tag was made.

        Raises
        ------
        NotFoundError
            If there is no such tag or output.
        InputError
            If there is no such split, or it holds no run.
        """
        opened = study.algorithm(algorithm)
        for name in outputs:
            if name not in opened.outputs:
                msg = f"output {name!r} is not declared by {algorithm!r}; it has {', '.join(opened.outputs)}"
                raise NotFoundError(msg)
        if split not in ("all", *plan.SPLITS):
            msg = f"split {split!r} is not known; use all, {', '.join(plan.SPLITS)}"
            raise InputError(msg)
        view = _view(opened, snapshot)
        rows = np.arange(len(view))
        if split != "all":
            rows = rows[opened.split(view.read(["mask_id"])["mask_id"]) == split]
        if not len(rows):
            msg = f"algorithm {algorithm!r} has no {'' if split == 'all' else split + ' '}runs to export"
            raise InputError(msg)
        return cls(opened, view, rows, tuple(outputs) or tuple(sorted(opened.outputs)), split)

    def __len__(self) -> int:
        return len(self.rows)

    def stream(self, name: str) -> Stream:
        """``mask`` or an output of the rows."""
        spec = self.view.table.spec.arrays[name]
        shape = (len(self), *(self.view.table.sizes[dim] for dim in spec.dims[1:]))
        dtype = np.dtype(spec.dtype).newbyteorder("<")
        return Stream(name, spec.dims, shape, dtype, lambda: self._blocks(name))

    def wide(self) -> list[Stream]:
        """``mask`` and the outputs."""
        return [self.stream(name) for name in ("mask", *self.outputs)]

    def columns(self) -> list[Stream]:
        """Every per-run column that a reader could not make again, ``run`` first; texts as
        fixed-width arrays.
        """
        spec = self.view.spec()
        wide = {array.name for array in spec.rows()}
        names = [n for n in spec.arrays if n not in wide and n not in _DERIVED]
        values = self.view.read(names)
        return [
            whole(
                name,
                ("run",),
                text(values[name][self.rows])
                if spec.arrays[name].dtype == "string"
                else values[name][self.rows],
            )
            for name in names
        ]

    def about(self) -> dict[str, Any]:
        """Where the rows are from and what their outputs mean, for the file beside them."""
        document = self.algorithm.document
        return {
            "software": provenance.software(),
            "study": self.view.table.identity["study"],
            "algorithm": self.algorithm.name,
            "content_id": self.view.content_id(),
            "runs": len(self),
            "split": self.split,
            "sampling": document["sampling"],
            "alpha": document["alpha"],
            "target_set": self.algorithm.target_set,
            "outputs": {name: self.algorithm.outputs[name] for name in self.outputs},
        }

    def _blocks(self, name: str) -> Iterator[NDArray[Any]]:
        for start in range(0, len(self.view), BLOCK):
            inside = self.rows[(self.rows >= start) & (self.rows < start + BLOCK)]
            if len(inside):
                block = self.view.read([name], start, start + BLOCK)[name]
                yield block if len(inside) == len(block) else block[inside - start]


def _view(algorithm: Algorithm, snapshot: str | None) -> View:
    table = algorithm.table
    if snapshot is None:
        return table.view()
    tags = {entry["name"]: entry for entry in tag.read_all(table)}
    if snapshot not in tags:
        msg = f"algorithm {algorithm.name!r} has no tag {snapshot!r}; it has: {', '.join(tags) or 'none'}"
        raise NotFoundError(msg)
    entry = tags[snapshot]
    base = log.Base(entry["base"], entry["runs"], entry["content_id"])
    return table.view_of(log.Manifest(entry["version"], base=base))
