"""Which runs of a pinned view are for what, and what a fit reads of them."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmstore.core import bits
from dmstore.errors import InputError
from dmstore.regression.kernels.popcount import LANES
from dmstore.regression.problem.block_arrays import check_scale
from dmstore.regression.problem.packing import Words
from dmstore.schema.typed_documents import FitRuns
from dmstore.storage.table.view import BLOCK, View
from dmstore.study.algorithm import Algorithm

# Threads that unpack masks: each holds one shard's rows of one chunk's columns.
_READERS = 8
SPLITS = ("train", "holdout", "eval")


class RowGroups:
    """Rows of a view in groups, as masks packed along runs and blocks of outputs.

    Parameters
    ----------
    view : View
        Of a base alone.
    output : str
        What is read.
    name : str
        What it is called in errors.
    itemsize : int
        Bytes of an output.
    train : int
        Number of train units.
    rows : list of (run,) int64
        Rows of each group, ascending.
    """

    def __init__(
        self,
        view: View,
        output: str,
        name: str,
        itemsize: int,
        train: int,
        rows: list[NDArray[np.int64]],
    ) -> None:
        self._view = view
        self._output = output
        self._name = name
        self._train = train
        self.itemsize = itemsize
        self.rows = rows
        self._starts = np.arange(0, len(view), BLOCK)
        # Rows of a block fill words of their own; the bits that are left over stay 0.
        self._inside = [
            np.split(rows, np.searchsorted(rows, self._starts[1:])) for rows in self.rows
        ]
        self.order = [self._rows_of(inside) for inside in self._inside]

    def _rows_of(self, inside: list[NDArray[np.int64]]) -> NDArray[np.int64]:
        """The row that each bit of a group's words stands for, -1 for none."""
        used = [np.full(-(-len(rows) // bits.WORD) * bits.WORD, -1, np.int64) for rows in inside]
        for order, rows in zip(used, inside, strict=True):
            order[: len(rows)] = rows
        count = sum(map(len, used))
        whole = max(1, -(-count // (LANES * bits.WORD))) * LANES * bits.WORD
        return np.concatenate([*used, np.full(whole - count, -1, np.int64)])

    def words(
        self, threads: int = 1, progress: Callable[[int, int], None] | None = None
    ) -> list[Words]:
        """Masks of each group, packed along runs; one unpacked piece a thread is in memory.

        Returns
        -------
        list of (train, words) uint64
        """
        packed = [
            np.zeros((self._train, len(order) // bits.WORD), dtype=np.uint64)
            for order in self.order
        ]
        tiles = self._view.tiles("mask")
        width = tiles.chunk[1]
        pieces = list(itertools.product(range(len(self._starts)), range(0, self._train, width)))
        places = [
            np.cumsum([0, *(-(-len(rows) // bits.WORD) for rows in inside)])
            for inside in self._inside
        ]

        def work(piece: tuple[int, int]) -> None:
            block, column = piece
            start = int(self._starts[block])
            columns = slice(column, min(column + width, self._train))
            masks = tiles.read((slice(start, min(start + BLOCK, len(self._view))), columns))
            for group, inside in enumerate(self._inside):
                low, high = places[group][block], places[group][block + 1]
                packed[group][columns, low:high] = bits.pack_runs(masks[inside[block] - start])

        with ThreadPoolExecutor(min(max(1, threads), _READERS)) as pool:
            for done, _ in enumerate(pool.map(work, pieces), 1):
                if progress:
                    progress(done, len(pieces))
        return packed

    @property
    def sizes(self) -> list[int]:
        """Runs of each group."""
        return [len(rows) for rows in self.rows]

    def outputs(self, start: int, stop: int) -> BlockOutputs:
        """The output of all runs on some targets."""
        values = self._view.tiles(self._output).read((slice(None), slice(start, stop)))
        # Of these runs alone: an outlier among eval runs would leave float32 sums no digits.
        used = np.zeros(len(values), dtype=bool)
        used[np.concatenate(self.rows)] = True
        check_scale(values, used, self._name, start)
        shift = values.mean(axis=0, dtype=np.float64, where=used[:, None])
        return BlockOutputs(values, shift, self.order)


class Runs(RowGroups):
    """The runs of a view in groups that no statistic is taken apart of.

    Parameters
    ----------
    algorithm : Algorithm
    view : View
        Of a base alone.
    output : str
        What is explained.
    parts : int
        Parts of the masks that are fitted by themselves: 2, the halves, or 1 where none are.
    folds : int
        Folds that choose lam; 0 where the holdout runs do.

    Attributes
    ----------
    itemsize : int
        Bytes of an output.
    count : dict
        Runs of each split: ``train``, ``holdout``, ``eval``.
    rows : list of (run,) int64
        Rows of each group: the train runs of each part, then the holdout runs of each part; or the
        runs of each part in the first fold, then in the second, and so on.
    """

    def __init__(
        self, algorithm: Algorithm, view: View, output: str, *, parts: int, folds: int = 0
    ) -> None:
        if algorithm.is_eval_only:
            msg = f"algorithm {algorithm.name!r} was added for evaluation only ('--split eval'), so nothing is fitted on its runs; judge scores by them with 'dmstore evaluate'"
            raise InputError(msg)
        mask_id = view.read(["mask_id"])["mask_id"]
        split = algorithm.split(mask_id)
        part = algorithm.half(mask_id) if parts == 2 else np.zeros(len(mask_id), dtype=np.int64)
        if folds:
            # No more than there are runs: that many arrays alone would never end.
            fold = algorithm.fold(mask_id, min(folds, len(mask_id) + 1))
            if len(np.unique(fold[split != "eval"])) < folds:
                fitted = int((split != "eval").sum())
                msg = f"algorithm {algorithm.name!r}: {folds} folds of {fitted} runs leave one of them empty; give fewer, or train more runs"
                raise InputError(msg)
            sets = [(split != "eval") & (fold == number) for number in range(folds)]
        else:
            sets = [split == name for name in ("train", "holdout")]
        rows = [
            np.flatnonzero(chosen & (part == number)) for chosen in sets for number in range(parts)
        ]
        train, holdout, kept = (int((split == name).sum()) for name in SPLITS)
        self.count: FitRuns = {"train": train, "holdout": holdout, "eval": kept}
        if not folds and not (self.count["train"] and self.count["holdout"]):
            msg = (
                f"algorithm {algorithm.name!r}: of {len(view)} runs {self.count['train']} are for fitting and {self.count['holdout']} "
                f"to choose lam; both are needed, so train more runs"
            )
            raise InputError(msg)
        super().__init__(
            view,
            output,
            f"{output} of {algorithm.name!r}",
            np.dtype(algorithm.outputs[output]["dtype"]).itemsize,
            algorithm.train,
            rows,
        )


@dataclass(frozen=True)
class BlockOutputs:
    """A column of stored outputs; see :class:`dmstore.regression.fitting.engine.BlockOutputs`.

    Attributes
    ----------
    values : (run, target)
        As they are stored.
    shift : (target,) float64
    order : list of (bit,) int64
        The row that each bit of each group's words stands for, -1 for none.
    """

    values: NDArray[Any]
    shift: NDArray[np.float64]
    order: list[NDArray[np.int64]]

    def of(
        self, group: int, targets: NDArray[np.int64] | slice
    ) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Outputs of a group of runs on some targets, and which of them stand for a run."""
        rows = self.order[group]
        return self.values[:, targets][np.maximum(rows, 0)], rows >= 0
