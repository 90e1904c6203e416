"""Lengths of chunks and shards, from what a schema file wants and what an array has. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dmstore.schema.schema import ArraySpec


def _blocks(
    wanted: Mapping[str, int | str] | None,
    dims: tuple[str, ...],
    shape: tuple[int, ...],
    unit: tuple[int, ...] | None = None,
) -> tuple[int, ...]:
    """Chunk (or, with `unit`, shard) lengths, never longer than the array rounded up to `unit`."""
    lengths = []
    for axis, (dim, size) in enumerate(zip(dims, shape, strict=True)):
        size = max(size, 1)
        step = unit[axis] if unit else 1
        value = (wanted or {}).get(dim, "all")
        length = size if value == "all" else min(int(value), size)
        lengths.append(-(-length // step) * step)
    return tuple(lengths)


def array_layout(
    spec: ArraySpec, shape: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...] | None]:
    """Chunk and shard shape of an array of a base."""
    chunks = _blocks(spec.chunks, spec.dims, shape)
    shards = _blocks(spec.shards, spec.dims, shape, chunks) if spec.shards else None
    return chunks, shards
