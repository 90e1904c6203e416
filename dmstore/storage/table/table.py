"""A table: rows keyed by run id, appended by many writers at once, read as one pinned view.

The runs of an algorithm are one table; outputs on a later target set are another with a different
schema and the same code.
"""

from __future__ import annotations

import functools
import io
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dmstore.core.finite import finite_rows
from dmstore.errors import (
    CorruptionError,
    InputError,
    StorageError,
)
from dmstore.schema.group_specs import ArraySpec, GroupSpec, check_group
from dmstore.storage.objects import guard
from dmstore.storage.objects.objects import Objects
from dmstore.storage.objects.probe import exclusive
from dmstore.storage.objects.steps import drive
from dmstore.storage.table import chunks, log, protocol, segment
from dmstore.storage.table.protocol import Steps, T
from dmstore.storage.table.rows import DIGEST_BYTES, Rows, row_digests
from dmstore.storage.table.segment import SegmentInfo
from dmstore.storage.table.snapshot import (
    BaseRows,
    Snapshot,
    content_id,
    segment_names,
    snapshot_steps,
)
from dmstore.storage.table.view import View

if TYPE_CHECKING:
    import zarr

_ATTEMPTS = 3
# Bytes of one text, and of all names of the further columns of a run: a segment's comment holds these.
_MOST_TEXT = 8192
_MOST_NAMES = 32768
# From this many on, segments are asked what they hold by so many threads at once.
_MANY = 16


class Table:
    """Rows below one prefix of the storage.

    Parameters
    ----------
    objects : Objects
    prefix : str
        Ends in ``/``.
    spec : GroupSpec
        Arrays of a row.
    sizes : mapping
        Length of every dim but ``run``.
    identity : mapping
        What every segment must say of itself: ``study``, ``algorithm``, ``table``.
    """

    def __init__(
        self,
        objects: Objects,
        prefix: str,
        spec: GroupSpec,
        sizes: Mapping[str, int],
        identity: Mapping[str, str],
    ) -> None:
        self.objects = objects
        self.prefix = prefix
        self.spec = spec
        self.sizes = dict(sizes)
        self.identity = dict(identity)
        self.infos: dict[str, SegmentInfo] = {}
        self.pause = protocol.Call(functools.partial(time.sleep, 0.01))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.objects!r}, {self.prefix!r})"

    def check(self, rows: Rows, where: str) -> Rows:
        """Rows in the stored dtypes, or an error that names the array and what is wrong.

        Raises
        ------
        InputError
            For a missing, surplus or misshapen array, a dtype that cannot be converted without
            loss of kind, NaN or infinite outputs, or a run id used twice.
        """
        count = len(rows)
        if rows.run.ndim != 1 or not count:
            msg = (
                f"{where}: run has shape {rows.run.shape}, expected one id per run and at least one"
            )
            raise InputError(msg)
        if rows.run.dtype.kind not in "iu" or rows.run.min() < 0 or int(rows.run.max()) >= 2**62:
            msg = f"{where}: run ids must be integers from 0 to 2**62 (found {rows.run.dtype})"
            raise InputError(msg)
        if len(np.unique(rows.run)) != count:
            msg = f"{where}: a run id stands there twice; give every run its own id"
            raise InputError(msg)
        if sum(len(name) + 16 for name in rows.columns) > _MOST_NAMES:
            msg = f"{where}: {len(rows.columns)} columns are too many; store what belongs together as one output or a file"
            raise InputError(msg)
        declared = {spec.name: spec for spec in self.spec.rows()}
        for name in declared.keys() - rows.arrays.keys():
            msg = f"{where}: no {name!r}; every run needs {', '.join(declared)}"
            raise InputError(msg)
        for name in rows.arrays.keys() - declared.keys():
            msg = f"{where}: {name!r} is not declared; this table has {', '.join(declared)}"
            raise InputError(msg)
        arrays = {
            name: self._check_array(spec, rows.arrays[name], rows.run, where)
            for name, spec in declared.items()
        }
        return Rows(
            rows.run.astype(np.int64),
            arrays,
            {
                name: _check_column(name, values, self._column_dtype(name), count, where)
                for name, values in rows.columns.items()
            },
        )

    def shapes(self, names: Sequence[str], count: int) -> dict[str, tuple[int, ...]]:
        """Shapes of arrays and columns of so many rows."""
        sizes = {**self.sizes, "run": count, "byte": DIGEST_BYTES}
        dims = {name: array.dims for name, array in self.spec.arrays.items()}
        return {n: tuple(sizes[dim] for dim in dims.get(n, ("run",))) for n in names}

    def _column_dtype(self, name: str) -> str | None:
        known = self.spec.arrays.get(name)
        return known.dtype if known else None

    def _check_array(
        self, spec: ArraySpec, values: NDArray[Any], run: NDArray[Any], where: str
    ) -> NDArray[Any]:
        expected = (len(run), *(self.sizes[dim] for dim in spec.dims[1:]))
        if values.shape != expected:
            names = ", ".join(spec.dims)
            msg = f"{where}: {spec.name} has shape {values.shape}, expected {expected} ({names})"
            raise InputError(msg)
        wanted = np.dtype(spec.dtype)
        kinds = {"b": "b", "i": "iu", "f": "fiu"}[wanted.kind]
        if values.dtype.kind not in kinds:
            msg = f"{where}: {spec.name} has dtype {values.dtype}, expected {spec.dtype}"
            raise InputError(msg)
        if wanted.kind == "i" and values.size:
            limits = np.iinfo(wanted)
            if int(values.min()) < limits.min or int(values.max()) > limits.max:
                msg = f"{where}: {spec.name} holds values that do not fit {spec.dtype}"
                raise InputError(msg)
        with np.errstate(over="ignore"):
            stored = values.astype(wanted, copy=False)
            # Fits square what they read, and a float64 that no float32 holds has no square.
            fitted = stored.astype(np.float32) if wanted == np.float64 else stored
        if wanted.kind == "f" and not (finite := finite_rows(fitted)).all():
            row = int(np.flatnonzero(~finite)[0])
            this = f"run {run[row]}"
            whose = spec.name if where == this else f"{spec.name} of {this}"
            msg = f"{where}: {whose} {_not_finite(values[row], fitted[row])}; leave that run out"
            raise InputError(msg)
        return stored

    def append(self, rows: Rows) -> list[str]:
        """Store checked rows durably; they are acknowledged when this returns.

        Returns
        -------
        list of str
            Names of the segments made.

        Raises
        ------
        StorageError
            If the file system refuses; rows of segments already made stay, the others are not
            there, and the same call may be repeated.
        """
        names = []
        widest = max(values[0].nbytes for values in rows.arrays.values())
        step = max(1, min(segment.MAX_ROWS, segment.MAX_BYTES // max(widest, 1)))
        for start in range(0, len(rows), step):
            names += self._append(rows.take(slice(start, start + step)))
        return names

    def _append(self, rows: Rows) -> list[str]:
        try:
            content = segment.encode(rows, self.spec, self.identity)
        except segment.CommentTooLongError:
            if len(rows) == 1:
                raise
            half = len(rows) // 2
            return self._append(rows.take(slice(half))) + self._append(rows.take(slice(half, None)))
        return [self.run(self._commit(content, rows))]

    def _commit(self, content: bytes, rows: Rows) -> Steps[str]:
        for _ in range(_ATTEMPTS):
            unique = uuid.uuid4().hex
            stamp = time.time_ns() // 1_000_000
            name = f"{self.prefix}segments/{unique[:2]}/{stamp:013d}-{unique}.zarr.zip"
            self._verify(content, rows, name)
            # A name that nobody else can have is taken only if the storage says so by mistake.
            if (yield from protocol.create(name, content)):
                return name
        msg = f"{self.prefix}: {_ATTEMPTS} unique names were all taken; the storage does not work as it should"
        raise StorageError(msg)

    def _verify(self, content: bytes, rows: Rows, name: str) -> None:
        """Read a segment back from its bytes before it is stored."""
        info = segment.parse_info(name, content, self.identity)
        arrays = chunks.read_group(io.BytesIO(content), name, ["run", *rows.arrays])
        digest = row_digests(arrays["run"], arrays, self.spec)
        if not np.array_equal(digest, info.digest):
            msg = (
                f"{name}: the rows do not read back as they were written; check this host's memory"
            )
            raise CorruptionError(msg)

    def run(self, steps: Steps[T], perform: Callable[[Any], Any] | None = None) -> T:
        """Run steps of the protocol on this table's storage."""
        return drive(steps, perform or self.perform)

    def perform(self, operation: Any) -> Any:
        """Do one operation of the protocol."""
        match operation:
            case protocol.ReadBase(base):
                return self._read_base(base)
            case protocol.ReadInfos(names):
                return self._read_infos(names)
            case protocol.Exclusive():
                return exclusive(self.objects)
        return protocol.perform(operation, self.objects)

    def segment_names(self) -> list[str]:
        """All stored segments, in order of time and name."""
        return segment_names(self.objects.entries(f"{self.prefix}segments/"))

    def snapshot(self) -> Snapshot:
        """Which rows are visible now, without the means to read them."""
        return self.run(snapshot_steps(self.prefix, self.infos, self.pause))

    def view(self) -> View:
        """The rows as they are now, pinned: later appends and commits do not change it.

        Raises
        ------
        StudyNotFoundError
            If the table's storage has gone.
        CorruptionError, FormatError
            If a stored object is damaged or of another format.
        """
        return View(self, self.snapshot())

    def newest(self) -> log.Manifest:
        """The manifest in force."""
        return log.newest(self.objects, self.prefix)

    def view_of(self, manifest: log.Manifest) -> View:
        """The rows of a committed base alone, whatever came later."""
        base = self._read_base(manifest.base) if manifest.base else None
        return View(self, Snapshot.merge(manifest, base, []))

    def _read_infos(self, names: Sequence[str]) -> list[SegmentInfo]:
        def read(name: str) -> SegmentInfo:
            return segment.read_info(self.objects, name, self.identity)

        if len(names) < _MANY:
            return [read(name) for name in names]
        with ThreadPoolExecutor(_MANY) as pool:
            return list(pool.map(read, names))

    def _read_base(self, base: log.Base) -> BaseRows:
        """Open a base; its ids and digests must be those that were committed."""
        group: Any = self.open_base(base.path)
        where = f"{self.prefix}{base.path}"
        if group["run"].shape != (base.runs,):
            msg = f"{where}: has {group['run'].shape} run ids, the log says {base.runs}; restore it from a copy"
            raise CorruptionError(msg)
        with guard.readable(where):
            run, digest = np.asarray(group["run"][:]), np.asarray(group["row_digest"][:])
        if len(run) != base.runs or content_id(run, digest) != base.content_id:
            msg = f"{where}: its runs are not those of content id {base.content_id}; restore it from a copy"
            raise CorruptionError(msg)
        return BaseRows(run, digest, group)

    def open_base(self, path: str) -> zarr.Group:
        """Open and check a base."""
        import zarr

        where = f"{self.prefix}{path}"
        if not self.objects.exists(f"{where}/zarr.json"):
            raise FileNotFoundError(where)
        with guard.readable(where):
            group = zarr.open_group(self.objects.reader(where), mode="r", zarr_format=3)
            sizes = {**self.sizes, "byte": DIGEST_BYTES}
            check_group(group, self.spec, sizes, where)
        return group


def _not_finite(given: NDArray[Any], stored: NDArray[Any]) -> str:
    """What values of one row are that cannot be stored, and how many."""
    kinds = [
        ("NaN", np.isnan(given)),
        ("infinite", np.isinf(given)),
        (f"too large for {stored.dtype}", ~np.isfinite(stored)),
    ]
    what, wrong = next((what, wrong) for what, wrong in kinds if wrong.any())
    return f"is {what} in {int(wrong.sum())} of {wrong.size} values"


def _check_column(
    name: str, values: NDArray[Any], dtype: str | None, count: int, where: str
) -> NDArray[Any]:
    """A per-run column in its stored dtype: the schema's, or else the widest of its kind."""
    if values.shape != (count,):
        msg = f"{where}: column {name!r} has shape {values.shape}, expected ({count},)"
        raise InputError(msg)
    kind = values.dtype.kind
    if kind == "O" and all(isinstance(value, str) for value in values):
        kind = "U"
    wanted = dtype or {"b": "bool", "i": "int64", "u": "int64", "f": "float64"}.get(kind, "string")
    accepted = {
        "bool": "b",
        "int64": "iu",
        "int32": "iu",
        "uint64": "iu",
        "float64": "f",
        "string": "UT",
    }
    if kind not in accepted[wanted]:
        msg = f"{where}: column {name!r} has dtype {values.dtype}, expected {dtype or 'numbers, bools or text'}"
        raise InputError(msg)
    if wanted == "string":
        return _check_text(name, values, where)
    if kind in "iu":
        # A column of the writer's own may become float64 where other runs lack it.
        limits = np.iinfo(wanted) if dtype else _EXACT
        if int(values.min()) < limits.min or int(values.max()) > limits.max:
            msg = f"{where}: column {name!r} holds integers outside {limits.min} to {limits.max}; store them as text"
            raise InputError(msg)
    return values.astype(wanted)


def _check_text(name: str, values: NDArray[Any], where: str) -> NDArray[Any]:
    try:
        longest = max((len(str(value).encode()) for value in values), default=0)
    except UnicodeEncodeError:
        msg = (
            f"{where}: column {name!r} holds text that is not valid Unicode; encode it another way"
        )
        raise InputError(msg) from None
    if longest > _MOST_TEXT:
        msg = f"{where}: column {name!r} holds a text of {longest} bytes, at most {_MOST_TEXT} are taken; keep long texts in files, and their names here"
        raise InputError(msg)
    return np.array([str(value) for value in values], dtype=object)


class _Limits:
    """Integers that a float64 holds exactly."""

    min, max = -(2**53), 2**53


_EXACT = _Limits()
