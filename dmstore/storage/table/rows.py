"""Rows of a table in memory: ids, arrays, columns, and the digest that says what a row is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmstore.core import bits
from dmstore.schema.group_specs import GroupSpec
from dmstore.schema.typed_documents import SegmentColumn

MAX_RUN = 2**62
# Runs of a table: their ids are held in memory.
MOST_RUNS = 10**7
DIGEST_BYTES = 16


# Bytes put together for hashing at a time.
_HASHED = 4 << 20


@dataclass(frozen=True)
class Rows:
    """Finished rows in memory.

    Attributes
    ----------
    run : (run,) int64
    arrays : mapping
        What the digest covers: ``mask`` (run, train) bool, and each output (run, target[, class]).
    columns : mapping
        Everything else, one value per run.
    digest : (run, 16) uint8, optional
        Where it has been computed; whoever stores rows reads them back and compares.
    """

    run: NDArray[np.int64]
    arrays: Mapping[str, NDArray[Any]]
    columns: Mapping[str, NDArray[Any]]
    digest: NDArray[np.uint8] | None = None

    def __len__(self) -> int:
        return len(self.run)

    def take(self, index: Any) -> Rows:
        """Some of the rows."""
        return Rows(
            self.run[index],
            {k: v[index] for k, v in self.arrays.items()},
            {k: v[index] for k, v in self.columns.items()},
            None if self.digest is None else self.digest[index],
        )


def row_digests(
    run: NDArray[np.int64], arrays: Mapping[str, NDArray[Any]], spec: GroupSpec
) -> NDArray[np.uint8]:
    """Digest of each row: blake2b-128 over id, packed mask bits, output bytes, little-endian.

    Parameters
    ----------
    run : (run,) int64
    arrays : mapping
        The arrays of :meth:`GroupSpec.rows`.
    spec : GroupSpec

    Returns
    -------
    (run, 16) uint8
    """
    parts: list[NDArray[Any]] = [run.astype("<i8")]
    for array in spec.rows():
        values = arrays[array.name]
        if array.dtype == "bool":
            parts.append(bits.pack_rows(values))
        else:
            parts.append(
                np.ascontiguousarray(values, dtype=np.dtype(array.dtype).newbyteorder("<"))
            )
    # One buffer a row: hashing gives other threads way only where it gets much at once.
    flat = [np.ascontiguousarray(part).view(np.uint8).reshape(len(run), -1) for part in parts]
    digests = np.empty((len(run), DIGEST_BYTES), dtype=np.uint8)
    step = max(1, _HASHED // max(1, sum(part.shape[1] for part in flat)))
    for start in range(0, len(run), step):
        joined = np.hstack([part[start : start + step] for part in flat])
        for row, content in enumerate(joined, start):
            digests[row] = np.frombuffer(
                blake2b(content, digest_size=DIGEST_BYTES).digest(), np.uint8
            )
    return digests


Pair = tuple[int, str]
Pairs = set[Pair]


def pairs_of(run: NDArray[np.int64], digest: NDArray[np.uint8]) -> list[Pair]:
    """Id and digest (as hexadecimal text) of each row, as manifests name rows that are retracted.

    Parameters
    ----------
    run : (run,) int64
    digest : (run, 16) uint8
    """
    return [(int(n), row.tobytes().hex()) for n, row in zip(run, digest, strict=True)]


def column_dtype(values: NDArray[Any]) -> SegmentColumn:
    """The stored dtype of a further per-run column: float64, int64, bool or string."""
    kind = values.dtype.kind
    if kind == "f":
        return "float64"
    if kind == "b":
        return "bool"
    if kind in "iu":
        return "int64"
    return "string"


def column_key(rows: Rows) -> tuple[tuple[str, str], ...]:
    """What rows must share to stand in one segment: names and dtypes of their columns."""
    return tuple(sorted((n, column_dtype(v)) for n, v in rows.columns.items()))


def concatenate(parts: Sequence[Rows]) -> Rows:
    """Rows of the same arrays and columns, one after the other."""
    return Rows(
        np.concatenate([part.run for part in parts]),
        {name: np.concatenate([part.arrays[name] for part in parts]) for name in parts[0].arrays},
        {name: np.concatenate([part.columns[name] for part in parts]) for name in parts[0].columns},
        None
        if any(part.digest is None for part in parts)
        else np.concatenate([part.digest for part in parts if part.digest is not None]),
    )
