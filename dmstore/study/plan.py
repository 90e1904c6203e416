"""Which runs an algorithm has, what each sees, and what each is for. Pure functions.

Everything here follows from the study's seed, so that any host can compute it again: masks come
from the raw Philox stream (stable across NumPy versions), seeds and splits from BLAKE2.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dmstore.errors import InputError
from dmstore.schema.typed_documents import WorkerBlock
from dmstore.storage.table.rows import MAX_RUN

SPLITS = ("train", "holdout", "eval")
EVAL_SHARE = 0.05
HOLDOUT_SHARE = 0.10
# Run ids that one copy of a study can give.
BRANCH = 2**32
# So many numbers are sorted as fast as a band of them is found.
_SORTED = 4096


@dataclass(frozen=True)
class Block:
    """A block of planned run ids: ``runs`` ids from ``first_run``, ``repeats`` of them a mask."""

    first_run: int
    runs: int
    first_mask: int
    repeats: int

    @property
    def stop(self) -> int:
        """The first run id after the block."""
        return self.first_run + self.runs

    @property
    def masks(self) -> int:
        """The number of masks that the block uses."""
        return -(-self.runs // self.repeats)

    def document(self) -> WorkerBlock:
        """What a document says of it."""
        return {
            "first_run": self.first_run,
            "runs": self.runs,
            "first_mask": self.first_mask,
            "repeats": self.repeats,
        }


def next_block(blocks: Sequence[Block], branch: int, runs: int, repeats: int) -> Block:
    """The block that extends a plan.

    Each copy of a study counts in a range of its own, for runs and for masks, so that two labs that
    extend copies never use an id twice: the first place from 0, a pulled copy from ``branch * BRANCH``.

    Raises
    ------
    OverflowError
        If the range is used up.
    """
    first = branch * BRANCH
    own = [block for block in blocks if first <= block.first_run < first + BRANCH]
    block = Block(
        max((b.stop for b in own), default=first),
        runs,
        max((b.first_mask + b.masks for b in own), default=first),
        repeats,
    )
    if block.stop > first + BRANCH:
        raise OverflowError(block.stop)
    return block


def overlap(one: Block, other: Block) -> bool:
    """Whether two blocks share run ids or mask ids."""
    runs = one.first_run < other.stop and other.first_run < one.stop
    first, last = one.first_mask, one.first_mask + one.masks
    return runs or (first < other.first_mask + other.masks and other.first_mask < last)


@dataclass(frozen=True)
class Part:
    """Part ``index`` of ``count`` of a plan, counted from 1."""

    index: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Part:
        """Read ``I/N``.

        Raises
        ------
        InputError
            If the text is not of that form or I is not in 1 to N.
        """
        index, slash, count = text.partition("/")
        if not (slash and index.isascii() and index.isdigit() and count.isascii()) or not (
            count.isdigit()
        ):
            msg = f"part {text!r} is not of the form I/N, such as 3/100"
            raise InputError(msg)
        part = cls(int(index), int(count))
        if not 1 <= part.index <= part.count:
            msg = f"part {text!r}: parts count from 1, so the first number must be 1 to {count}"
            raise InputError(msg)
        return part


def masks_of(runs: NDArray[np.int64], blocks: Sequence[Block]) -> NDArray[np.int64]:
    """Mask id of each planned run; -1 where the plan has no such run.

    Parameters
    ----------
    runs : (run,) int64
    blocks : sequence of Block

    Returns
    -------
    (run,) int64
    """
    mask_id = np.full(runs.shape, -1, dtype=np.int64)
    for block in blocks:
        inside = (runs >= block.first_run) & (runs < block.stop)
        mask_id[inside] = block.first_mask + (runs[inside] - block.first_run) // block.repeats
    return mask_id


def repeats_of(runs: NDArray[np.int64], blocks: Sequence[Block]) -> NDArray[np.int32]:
    """Repeat number of each planned run: 0 for the first run of its mask."""
    repeat = np.zeros(runs.shape, dtype=np.int32)
    for block in blocks:
        inside = (runs >= block.first_run) & (runs < block.stop)
        repeat[inside] = (runs[inside] - block.first_run) % block.repeats
    return repeat


def planned_runs(blocks: Iterable[Block], part: Part | None = None) -> NDArray[np.int64]:
    """All run ids of a plan, or of one part of it: every ``count``-th id, so that parts finish
    together however many runs are added later.

    Returns
    -------
    (run,) int64
    """
    ids = [np.arange(block.first_run, block.stop, dtype=np.int64) for block in blocks]
    runs = np.concatenate(ids) if ids else np.empty(0, dtype=np.int64)
    return runs if part is None else runs[part.index - 1 :: part.count]


def mask_key(seed: int, algorithm: str | None = None) -> int:
    """First half of the key of the mask stream.

    The study's own seed, or for ``masks: independent`` a hash of it and the algorithm's name.
    """
    if algorithm is None:
        return seed
    return _hash64("masks", seed, algorithm)


def make_mask(key: int, mask_id: int, train: int, alpha: float) -> NDArray[np.bool_]:
    """Mask ``mask_id``: the floor(alpha * train) smallest raw outputs of Philox4x64-10.

    Parameters
    ----------
    key : int
        :func:`mask_key` of the study or algorithm.
    mask_id : int
    train : int
        Number of train units.
    alpha : float
        Subsampling fraction. Masks of the same number are nested in alpha.

    Returns
    -------
    (train,) bool
    """
    return draw(key, mask_id, train, int(np.floor(alpha * train)))


def draw(key: int, mask_id: int, train: int, count: int) -> NDArray[np.bool_]:
    """The `count` smallest raw outputs of Philox4x64-10, of as many as there are units: (train,) bool."""
    return _drawn(np.random.Philox(), key, mask_id, train, count)


def _drawn(
    stream: np.random.Philox, key: int, mask_id: int, train: int, count: int
) -> NDArray[np.bool_]:
    """:func:`draw` by a stream that is set to its beginning: a new one each time asks the system for a seed first."""
    beginning = np.zeros(4, dtype=np.uint64)
    stream.state = {
        "bit_generator": "Philox",
        "state": {"counter": beginning, "key": np.array([key, mask_id], dtype=np.uint64)},
        "buffer": beginning,
        "buffer_pos": 4,
        "has_uint32": 0,
        "uinteger": 0,
    }
    raw = np.asarray(stream.random_raw(train))
    if not count:
        return np.zeros(train, dtype=bool)
    threshold = _smallest(raw, count)
    mask = np.asarray(raw <= threshold)
    surplus = np.count_nonzero(mask) - count
    if surplus:
        # Of equal numbers the first.
        mask[np.flatnonzero(raw == threshold)[-surplus:]] = False
    return mask


def _smallest(raw: NDArray[np.uint64], count: int) -> np.uint64:
    """The `count`-th smallest of uniform 64-bit numbers, mostly without sorting all of them.

    Of many it lies in a narrow band around its expectation, six standard deviations to either side.
    """
    if len(raw) <= _SORTED:
        return np.uint64(np.partition(raw, count - 1)[count - 1])
    share = count / len(raw)
    spread = 6 * float(np.sqrt(share * (1 - share) / len(raw))) + 4 / len(raw)
    low, high = (int(max(bound, 0.0) * 2.0**64) for bound in (share - spread, share + spread))
    high = min(high, 2**64 - 1)
    below = raw < np.uint64(low)
    band = raw[(raw <= np.uint64(high)) & ~below]
    rank = count - int(np.count_nonzero(below))
    if not 1 <= rank <= len(band):
        band, rank = raw, count
    return np.uint64(np.partition(band, rank - 1)[rank - 1])


def make_masks(key: int, mask_ids: Iterable[int], train: int, alpha: float) -> NDArray[np.bool_]:
    """Several masks: (mask, train) bool."""
    stream, count = np.random.Philox(), int(np.floor(alpha * train))
    rows = [_drawn(stream, key, int(mask_id), train, count) for mask_id in mask_ids]
    return np.array(rows, dtype=bool).reshape(len(rows), train)


def foreign_mask_ids(packed: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Mask ids of masks made elsewhere: a hash of the bits, so that equal masks share an id and
    no run of a reserved mask is fitted on.

    Parameters
    ----------
    packed : (run, bytes) uint8

    Returns
    -------
    (run,) int64
        In 0 to 2**62.
    """
    digests = (hashlib.blake2b(row.tobytes(), digest_size=8).digest() for row in packed)
    ids = [int.from_bytes(digest, "little") % MAX_RUN for digest in digests]
    return np.array(ids, dtype=np.int64)


def training_seed(seed: int, algorithm: str, run: int) -> int:
    """Seed of one run's training, never shared between algorithms: 63 bits."""
    return int(training_seeds(seed, algorithm, np.array([run]))[0])


def training_seeds(seed: int, algorithm: str, runs: NDArray[np.int64]) -> NDArray[np.uint64]:
    """:func:`training_seed` of several runs: (run,) uint64."""
    digests = _digests(f"training\0{seed}\0{algorithm}\0", runs)
    return np.frombuffer(digests, dtype="<u8") >> np.uint64(1)


def _unit(purpose: str, seed: int, mask_ids: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.frombuffer(_digests(f"{purpose}\0{seed}\0", mask_ids), dtype="<u8") / 2.0**64


def _digests(text: str, ids: NDArray[np.int64]) -> bytearray:
    """BLAKE2 of a text followed by each id, 8 bytes each."""
    # Every hash starts alike, so that part is hashed once.
    start = hashlib.blake2b(text.encode(), digest_size=8)
    digests = bytearray()
    for number in ids.tolist():
        state = start.copy()
        state.update(b"%d" % number)
        digests += state.digest()
    return digests


def split_of(seed: int, mask_ids: NDArray[np.int64]) -> NDArray[np.str_]:
    """What each run is for: ``train``, ``holdout`` or ``eval``, by a hash of its mask id.

    The answer for a run never changes when others are added. All repeats of a mask fall together.

    Returns
    -------
    (run,) str
    """
    unique, inverse = np.unique(mask_ids, return_inverse=True)
    unit = _unit("split", seed, unique)
    names = np.where(
        unit < EVAL_SHARE, "eval", np.where(unit < EVAL_SHARE + HOLDOUT_SHARE, "holdout", "train")
    )
    return np.asarray(names[inverse.ravel()])


def quarter_of(seed: int, mask_ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """Which quarter of the masks (0 to 3) a run is in, for comparisons out of sample.

    Quarters 0 and 1 are one half of the masks, 2 and 3 the other.
    """
    unique, inverse = np.unique(mask_ids, return_inverse=True)
    # The largest hashes are 1 once they are rounded to float64.
    quarter = np.minimum(np.floor(_unit("quarter", seed, unique) * 4).astype(np.int64), 3)
    return np.asarray(quarter[inverse.ravel()])


def fold_of(seed: int, mask_ids: NDArray[np.int64], folds: int) -> NDArray[np.int64]:
    """Which of so many folds a run is in, by a hash of its mask id; repeats fall together."""
    unique, inverse = np.unique(mask_ids, return_inverse=True)
    fold = np.minimum(np.floor(_unit("fold", seed, unique) * folds).astype(np.int64), folds - 1)
    return np.asarray(fold[inverse.ravel()])


def _hash64(*parts: int | str) -> int:
    text = "\0".join(str(part) for part in parts).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")
