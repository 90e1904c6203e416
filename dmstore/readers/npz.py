"""Worker files: ``.npz`` with ``run``, ``mask`` or ``mask_packed``, outputs, and further columns."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmstore import provenance
from dmstore.core import bits
from dmstore.core.npz import NpzReader
from dmstore.errors import InputError
from dmstore.storage.table.rows import Rows, row_digests
from dmstore.storage.table.table import Table
from dmstore.study.algorithm import Algorithm
from dmstore.study.target_outputs import TargetOutputs


def read_rows(path: str | Path, algorithm: Algorithm) -> Rows:
    """Read a worker's file and check it against an algorithm.

    Parameters
    ----------
    path : path
        ``run`` (k,) integer ids; ``mask`` (k, train) bool or ``mask_packed``
        (k, ceil(train / 8)) uint8 in little bit order; one array (k, target[, class]) a declared
        output; optional ``row_digest`` (k, 16) uint8, which must be right; optional ``study`` and ``algorithm``, which must match; ``seed`` and any further
        per-run column.
    algorithm : Algorithm

    Returns
    -------
    Rows

    Raises
    ------
    InputError
        Naming the file, the array and the remedy.
    """
    with NpzReader(path) as reader:
        _check_identity(reader, algorithm)
        headers = reader.headers
        if "run" not in headers or ("mask" in headers) == ("mask_packed" in headers):
            msg = f"{path}: a worker's file holds 'run' and one of 'mask' and 'mask_packed' (found: {', '.join(headers)})"
            raise InputError(msg)
        count = headers["run"].shape[0] if len(headers["run"].shape) == 1 else 0
        outputs = [spec.name for spec in algorithm.table.spec.outputs()]
        for name in outputs:
            if name not in headers:
                msg = f"{path}: no {name!r}; every run needs {', '.join(('mask', *outputs))} (found: {', '.join(headers)})"
                raise InputError(msg)
        for name in (name for name in headers if name not in ("study", "algorithm")):
            shape = headers[name].shape
            if (
                not shape
                or shape[0] != count
                or (name not in ("mask", "mask_packed", "row_digest", *outputs) and len(shape) != 1)
            ):
                msg = f"{path}: {name!r} has shape {shape}, but there are {count} runs"
                raise InputError(msg)
        _check_shapes(reader, algorithm.table, count)
        arrays: dict[str, NDArray[Any]] = {
            name: reader.load(name) for name in outputs if name in headers
        }
        arrays["mask"] = _mask(reader, algorithm.train)
        given = {"run", "mask", "mask_packed", "row_digest", "study", "algorithm", *outputs}
        columns = {name: reader.load(name) for name in headers if name not in given}
        run = reader.load("run")
        if "row_digest" in headers:
            _check_digests(reader, run, arrays, algorithm)
    _stamp(columns, count)
    return algorithm.complete(Rows(run, arrays, columns), str(path))


def _check_digests(
    reader: NpzReader, run: NDArray[Any], arrays: dict[str, NDArray[Any]], algorithm: Algorithm
) -> None:
    """Compare rows with the digests that their worker made, of outputs in the dtypes of its file."""
    spec = algorithm.table.spec
    written = {n: replace(spec.arrays[n], dtype=str(values.dtype)) for n, values in arrays.items()}
    own = row_digests(run, arrays, replace(spec, arrays={**spec.arrays, **written}))
    given = reader.load("row_digest")
    wrong = np.ones(len(run), dtype=bool)
    if given.shape == own.shape and given.dtype == own.dtype:
        wrong = (given != own).any(axis=1)
    for row in np.flatnonzero(wrong)[:1]:
        msg = f"{reader.path}: run {run[row]} is not what its worker wrote (its 'row_digest' differs); copy the file again, or train the run again"
        raise InputError(msg)


def read_outputs(path: str | Path, outputs: TargetOutputs) -> Rows:
    """Read a file of outputs of stored runs on a later target set.

    Parameters
    ----------
    path : path
        ``run`` (k,) integer ids; one array (k, target[, class]) a declared output; optional ``study``,
        ``algorithm`` and ``target_set``, which must match; ``run_digest`` (k,) uint64, the first 8 bytes of
        the digest of the run that the outputs are of, which must match too; any further per-run column.
    outputs : TargetOutputs

    Raises
    ------
    InputError
        Naming the file, the array and the remedy.
    """
    with NpzReader(path) as reader:
        _check_identity(reader, outputs.algorithm, {"target_set": outputs.target_set})
        headers = {
            name: header
            for name, header in reader.headers.items()
            if name not in ("study", "algorithm", "target_set")
        }
        names = [spec.name for spec in outputs.table.spec.outputs()]
        missing = [name for name in ("run", *names) if name not in headers]
        if missing or {"mask", "mask_packed"} & headers.keys():
            msg = f"{path}: a file of outputs on {outputs.target_set!r} holds {', '.join(('run', *names))} and no mask (found: {', '.join(headers)})"
            raise InputError(msg)
        count = headers["run"].shape[0] if len(headers["run"].shape) == 1 else 0
        for name, header in headers.items():
            if header.shape[:1] != (count,) or (name not in names and len(header.shape) != 1):
                msg = f"{path}: {name!r} has shape {header.shape}, but there are {count} runs"
                raise InputError(msg)
        _check_shapes(reader, outputs.table, count)
        arrays = {name: reader.load(name) for name in names}
        columns = {name: reader.load(name) for name in headers if name not in ("run", *names)}
        run = reader.load("run")
    _stamp(columns, count)
    return outputs.complete(Rows(run, arrays, columns), str(path))


def _stamp(columns: dict[str, NDArray[Any]], count: int) -> None:
    """Time and host of this process where the file has none."""
    columns.setdefault("time", np.full(count, time.time_ns() // 1_000_000, dtype=np.int64))
    columns.setdefault("host", np.full(count, provenance.host()))


def _check_identity(
    reader: NpzReader, algorithm: Algorithm, further: Mapping[str, str] | None = None
) -> None:
    expected = {
        "study": algorithm.table.identity["study"],
        "algorithm": algorithm.name,
        **(further or {}),
    }
    for name, value in expected.items():
        found = reader.scalar(name)
        if found is not None and found.replace("-", "" if name == "study" else "-") != value:
            msg = f"{reader.path}: is of {name} {found!r}, but this is {value!r}; ingest it where it belongs"
            raise InputError(msg)


def _check_shapes(reader: NpzReader, table: Table, count: int) -> None:
    """Refuse wrong shapes by their headers, before memory is taken for the content."""
    for spec in table.spec.rows():
        header = reader.headers.get(spec.name)
        expected = (count, *(table.sizes[dim] for dim in spec.dims[1:]))
        if header and header.shape != expected:
            msg = f"{reader.path}: {spec.name!r} has shape {header.shape}, expected {expected} ({', '.join(spec.dims)})"
            raise InputError(msg)


def _mask(reader: NpzReader, train: int) -> NDArray[np.bool_]:
    if "mask" in reader.headers:
        if reader.headers["mask"].dtype != np.bool_:
            msg = (
                f"{reader.path}: 'mask' has dtype {reader.headers['mask'].dtype}, expected bool; "
                f"store packed bits as 'mask_packed'"
            )
            raise InputError(msg)
        return reader.load("mask")
    header = reader.headers["mask_packed"]
    expected = (reader.headers["run"].shape[0], -(-train // 8))
    if header.dtype != np.uint8 or header.shape != expected:
        msg = f"{reader.path}: 'mask_packed' is {header.dtype} {header.shape}, expected uint8 {expected}"
        raise InputError(msg)
    packed = reader.load("mask_packed")
    if not bits.padding_is_clear(packed, train):
        msg = f"{reader.path}: 'mask_packed' has bits set beyond train unit {train - 1}; pack in little bit order"
        raise InputError(msg)
    return bits.unpack_rows(packed, train)
