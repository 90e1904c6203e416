"""What a source of runs is, and the one made of arrays that are read by rows."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from dmstore import provenance
from dmstore.core import bits, times
from dmstore.errors import CorruptionError, FormatError, InputError, NotFoundError
from dmstore.readers.files import RowArray
from dmstore.readers.packed import decide
from dmstore.schema.names import check_column_name
from dmstore.storage.table.rows import MAX_RUN, Rows
from dmstore.storage.table.segment import MAX_ROWS

if TYPE_CHECKING:
    from dmstore.storage.table.table import Table
    from dmstore.study.algorithm import Algorithm

T = TypeVar("T")
BLOCK_BYTES = 64 << 20
# What a source can be at fault of; errors of the study that takes it are others.
FAULTS = (InputError, FormatError, CorruptionError, FileNotFoundError, NotFoundError)

# What others call the known outputs. TRAK's and kronfluence's val_margins are
# log(p / (1 - p)), not the difference to the largest other logit.
KEYS = {
    "margins": "margin",
    "test_margins": "margin",
    "val_margins": "log_odds",
    "losses": "loss",
    "test_losses": "loss",
    "predictions": "prediction",
    "preds": "prediction",
    "logits": "logit",
    "test_logits": "logit",
}
# Dtypes that no output can have, and those that hold the same numbers.
_WIDER = {"bool": "int8", "uint8": "int16", "uint16": "int32", "uint32": "int64"}


@dataclass(frozen=True)
class Request:
    """What the caller knows of, or wants from, a source.

    Attributes
    ----------
    into : Algorithm, optional
        Where the runs go, if it is there already.
    table : Table, optional
        The table that the rows go into: that of `into`, or of its outputs on a later target set.
    train : int, optional
        Number of train units, where it is known.
    outputs : mapping
        Output name to the key (array, field or file) that holds it.
    mask : str, optional
        The key of the masks.
    bitorder : {"little", "big"}, optional
        Of packed masks, where the source does not say it.
    without : tuple of str
        Keys of arrays that are not to be taken.
    percent : int, optional
        Which of several subsampling fractions.
    algorithm : str, optional
        Which algorithm of another study.
    first_run : int
        Run id of the first row, where rows are numbered by position.
    lists : {"seen", "left-out"}, optional
        What lists of train units hold, where the source does not say it.
    units : callable, optional
        Gives the train unit that each target of the study is, -1 where it is none: (target,) int64.
    """

    into: Algorithm | None = None
    table: Table | None = None
    train: int | None = None
    outputs: Mapping[str, str] = field(default_factory=dict)
    mask: str | None = None
    bitorder: str | None = None
    without: tuple[str, ...] = ()
    percent: int | None = None
    algorithm: str | None = None
    first_run: int = 0
    lists: str | None = None
    units: Callable[[], NDArray[np.int64]] | None = None

    def kept(self, arrays: Mapping[str, T], where: str) -> dict[str, T]:
        """Arrays by key, but those that are not to be taken.

        Raises
        ------
        InputError
            If one of these is not there.
        """
        for key in self.without:
            if key not in arrays:
                msg = f"{where}: holds no {key!r} that could be left out; it holds {', '.join(arrays) or 'nothing'}"
                raise InputError(msg)
        return {key: array for key, array in arrays.items() if key not in self.without}


@dataclass(frozen=True)
class Output:
    """An output that a source holds.

    Attributes
    ----------
    key : str
        What the source calls it.
    dtype : str
        A dtype that an algorithm can declare, which holds the source's numbers exactly.
    classes : int or None
        Length of the class axis, if it has one.
    declared : mapping or None
        How an algorithm declared it, where the source says that.
    about : mapping
        ``function``, ``orientation`` and ``units``, as far as the format states them.
    """

    key: str
    dtype: str
    classes: int | None = None
    declared: Mapping[str, Any] | None = None
    about: Mapping[str, str] = field(default_factory=dict)


# What to do about runs that are stored with other content: of sources that number runs, and of those that name them.
NUMBER = "if these are other runs, number them from a free id with --first-run"
RENAME = "give new runs new ids, or leave out the ones stored"


class Source(Protocol):
    """Runs that somebody has, read some rows at a time. Readers inherit what stands here.

    Attributes
    ----------
    format, title : str
        Which reader, and in one line what it found; empty where nothing need be said of it.
    path : Path
    train, targets : int
    outputs : mapping
        By dmstore's name.
    ids : (run,) int64
        Run ids, all different.
    notes : list of str
        What is left out, and why.
    digest : (run, 16) uint8 or None
        Row digests, where they are known without reading the rows.
    zero_filled : bool
        Whether rows of zeros are rows that nobody wrote.
    whole : bool
        Whether it is small, and a row that is no run refuses all of it. Such rows are left out of others.
    claimed : int
        Rows that count as refused where it cannot be read.
    remedy : str
        What to do about runs that are stored with other content.
    conventions : mapping
        What the format says of masks, sign and averages, and what was done about it; kept with what is made of it.
    target_train : (target,) int64 or None
        The train unit that each target is, of sources whose targets are train units.
    """

    format: str
    title: str
    path: Path
    train: int
    targets: int
    outputs: Mapping[str, Output]
    ids: NDArray[np.int64]
    notes: list[str]
    digest: NDArray[np.uint8] | None
    zero_filled: bool
    whole: bool = False
    claimed: int = 0
    remedy: str = NUMBER
    conventions: Mapping[str, str] = MappingProxyType({})
    target_train: NDArray[np.int64] | None = None

    def load(self) -> None:
        """Read what is read at once: of a whole source, all of it. Called when its turn comes."""
        return

    def accept(self) -> None:
        """Make the study ready for these runs. Called once, when no row of them refuses the source."""
        return

    def masks(self, places: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Masks of the runs at `places` (which ascend): (run, train) bool."""
        masks: NDArray[np.bool_] = self.read(places, ()).arrays["mask"]
        return masks

    def read(self, places: NDArray[np.int64], outputs: Sequence[str]) -> Rows:
        """Runs at `places` (which ascend) with these outputs and all further columns."""


@dataclass
class ArraySource(Source):
    """A source made of arrays; see :class:`Source`.

    Attributes
    ----------
    rows : (run,) int64
        Which row of the arrays each run is; ascending.
    mask : RowArray
        (row, train) bool or numbers that are 0 or 1, or (row, ceil(train / 8)) packed bits.
    arrays : mapping
        Outputs, by dmstore's name.
    columns : mapping
        Further values a run.
    bitorder : {"little", "big"} or None
        Of packed masks; None where they are not packed.
    """

    format: str
    title: str
    path: Path
    train: int
    targets: int
    outputs: Mapping[str, Output]
    ids: NDArray[np.int64]
    rows: NDArray[np.int64]
    mask: RowArray
    arrays: Mapping[str, RowArray]
    columns: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    bitorder: str | None = None
    zero_filled: bool = True
    notes: list[str] = field(default_factory=list)
    digest: NDArray[np.uint8] | None = None
    remedy: str = NUMBER
    conventions: Mapping[str, str] = field(default_factory=dict)
    target_train: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        self.ids = check_ids(self.ids, self.path)

    def masks(self, places: NDArray[np.int64]) -> NDArray[np.bool_]:
        """See :meth:`Source.masks`."""
        values = self.mask.rows(self.rows[places])
        if self.bitorder is not None:
            decide(values[:, -1], self.train, self.bitorder, f"{self.path}: its packed masks")
            return bits.unpack_rows(values, self.train, self.bitorder)
        if values.dtype == np.bool_:
            return as_bools(values, self.path)
        seen = values.astype(bool)
        if not np.array_equal(seen, values):
            msg = f"{self.path}: masks hold numbers other than 0 and 1, so they are no masks; name the right array with --mask"
            raise InputError(msg)
        return seen

    def read(self, places: NDArray[np.int64], outputs: Sequence[str]) -> Rows:
        """See :meth:`Source.read`."""
        arrays: dict[str, NDArray[Any]] = {"mask": self.masks(places)}
        for name in outputs:
            values = self.arrays[name].rows(self.rows[places])
            arrays[name] = values.astype(np.int8) if values.dtype == np.bool_ else values
        columns = {name: values[places] for name, values in self.columns.items()}
        return Rows(self.ids[places], arrays, {**stamp(len(places)), **columns})


def as_bools(values: NDArray[np.bool_], path: Path) -> NDArray[np.bool_]:
    """Bools from a file, whose bytes may be anything, as bools proper.

    Raises
    ------
    InputError
        If a byte is neither 0 nor 1: such a mask reads differently in every program.
    """
    if values.size and int(values.view(np.uint8).max()) > 1:
        msg = f"{path}: masks hold bytes other than 0 and 1, so they are no bools; the file is damaged"
        raise InputError(msg)
    return values


def stamp(count: int) -> dict[str, NDArray[Any]]:
    """Time and host of an import, for runs that carry none."""
    return {
        "time": np.full(count, time.time_ns() // 1_000_000, dtype=np.int64),
        "host": np.full(count, provenance.host()),
    }


def positions(rows: NDArray[np.int64], request: Request) -> NDArray[np.int64]:
    """Run ids of rows that are numbered by position."""
    if not 0 <= request.first_run < MAX_RUN - (int(rows[-1]) + 1 if len(rows) else 0):
        msg = f"first run {request.first_run} is not allowed; run ids are from 0 to 2**62"
        raise InputError(msg)
    return rows + request.first_run


def check_ids(ids: NDArray[Any], path: Path) -> NDArray[np.int64]:
    """Run ids as int64.

    Raises
    ------
    InputError
        If they are no integers from 0 to 2**62, or one stands there twice.
    """
    if ids.ndim != 1 or ids.dtype.kind not in "iu":
        msg = f"{path}: run ids are {ids.dtype} {ids.shape}, expected one integer per run"
        raise InputError(msg)
    if len(ids) and (int(ids.min()) < 0 or int(ids.max()) >= MAX_RUN):
        msg = f"{path}: run ids must be from 0 to 2**62"
        raise InputError(msg)
    whole = ids.astype(np.int64)
    unique, count = np.unique(whole, return_counts=True)
    if len(unique) != len(whole):
        msg = f"{path}: run {unique[count > 1][0]} stands there twice; give every run its own id"
        raise InputError(msg)
    return whole


def output_dtype(dtype: np.dtype[Any]) -> str:
    """The dtype to declare for numbers of a dtype: itself where that can be declared."""
    name = dtype.newbyteorder("=").name
    return _WIDER.get(name, name)


def find_outputs(
    arrays: Mapping[str, RowArray],
    request: Request,
    targets: int | None,
    where: str,
    declared: Mapping[str, Mapping[str, Any]] | None = None,
) -> tuple[dict[str, Output], dict[str, RowArray], list[str]]:
    """Sort arrays into outputs and the rest.

    Parameters
    ----------
    arrays : mapping
        Key to array, without masks, ids and columns.
    request : Request
        Its ``outputs`` decide; other arrays are named by their keys.
    targets : int, optional
        Number of targets; by default the length of ``margin``, or of the first array that could
        be an output.
    where : str
        For error texts.
    declared : mapping, optional
        How outputs were declared, where the source says that.

    Returns
    -------
    outputs, arrays : dict
        By dmstore's name.
    notes : list of str
        Of arrays left out.

    Raises
    ------
    InputError
        If a requested key is not there, or two keys are the same output.
    """
    for name, key in request.outputs.items():
        if key not in arrays:
            msg = f"{where}: no {key!r} for the output {name!r}; it holds {', '.join(arrays) or 'nothing else'}"
            raise InputError(msg)
    asked = {key: name for name, key in request.outputs.items()}
    names = {key: asked.get(key, KEYS.get(key, key)) for key in arrays}
    # An output that was asked for leaves no room for another key of the same name.
    names = {k: n for k, n in names.items() if k in asked or n not in request.outputs}
    if len(set(names.values())) != len(names):
        twice = next(n for n in names.values() if list(names.values()).count(n) > 1)
        keys = ", ".join(k for k, n in names.items() if n == twice)
        msg = f"{where}: {keys} would all be the output {twice!r}; say which with --output {twice}=KEY"
        raise InputError(msg)
    shaped = {k: a for k, a in arrays.items() if k in names and len(a.shape) in (2, 3)}
    if targets is None and shaped:
        first = sorted(shaped, key=lambda key: (names[key] != "margin", key not in asked, key))[0]
        targets = shaped[first].shape[1]
    outputs, named, notes = {}, {}, []
    for key, name in names.items():
        array = arrays[key]
        dtype = output_dtype(array.dtype)
        classes = array.shape[2] if len(array.shape) == 3 else None
        if key not in shaped or array.shape[1] != targets or dtype not in _DECLARABLE:
            if key in asked:
                msg = f"{where}: {key!r} is {array.dtype} {array.shape}, so it cannot be the output {name!r} (run, target)"
                raise InputError(msg)
            notes.append(f"{key} ({array.dtype} {array.shape}) has no value a target; left out")
            continue
        if key not in asked and not _usable_name(name):
            notes.append(f"{key} cannot be an output's name; left out (give it one with --output)")
            continue
        outputs[name] = Output(key, dtype, classes, (declared or {}).get(name))
        named[name] = array
    return outputs, named, notes


_DECLARABLE = {"float16", "float32", "float64", "int8", "int16", "int32", "int64"}


def _usable_name(name: str) -> bool:
    try:
        check_column_name(name, "output")
    except InputError:
        return False
    return re.fullmatch(r"[a-z][a-z0-9_]*", name) is not None


def find_columns(
    arrays: Mapping[str, NDArray[Any]], where: str, *, stored: bool = False
) -> tuple[dict[str, NDArray[Any]], list[str]]:
    """Further per-run columns that can be stored, and notes of those that cannot.

    Parameters
    ----------
    arrays : mapping
    where : str
        For error texts.
    stored : bool
        A store had them, so that a ``time`` is what it was there.
    """
    columns: dict[str, NDArray[Any]] = {}
    notes = []
    for name, values in arrays.items():
        try:
            # A host is a text; numbers by that name are something else.
            if name not in ("seed", "time") and not (name == "host" and values.dtype.kind in "UO"):
                check_column_name(name, where)
        except InputError:
            notes.append(f"{name} cannot be the name of a column; left out")
            continue
        if name.lower() in {other.lower() for other in columns}:
            notes.append(f"{name} differs from another column in case alone; left out")
            continue
        columns[name] = values
    if "time" in columns and not stored:
        unit = times.unit_of(columns["time"])
        if unit is None:
            notes.append(f"time {_TIMES}; left out, the time of this import stands in its place")
            del columns["time"]
        else:
            columns["time"] = times.milliseconds(columns["time"], unit)
            notes += [f"time is in {unit}, and was turned into milliseconds"] * (
                unit != "milliseconds"
            )
    return columns, notes


# What a column of times must be.
_TIMES = "is no time since 1970, in milliseconds, between 2000 and 2100"


def as_times(values: NDArray[Any], where: str) -> tuple[NDArray[np.int64], list[str]]:
    """A worker's column ``time`` in milliseconds, and a note where it was in another unit.

    Raises
    ------
    InputError
        If it is no time in a unit that can be told.
    """
    unit = times.unit_of(values) if values.ndim == 1 else None
    if unit is None:
        msg = f"{where}: 'time' {_TIMES}; store time.time_ns() // 10**6, or call the column something else"
        raise InputError(msg)
    note = f"time is in {unit}, and was turned into milliseconds"
    return times.milliseconds(values, unit), [note] * (unit != "milliseconds")


def blocks(
    source: Source, places: NDArray[np.int64], most: int = MAX_ROWS
) -> Iterator[NDArray[np.int64]]:
    """Cut `places` into blocks of at most 64 MB and so many rows (those of a segment)."""
    width = source.train + sum(
        np.dtype(output.dtype).itemsize * source.targets * (output.classes or 1)
        for output in source.outputs.values()
    )
    count = max(1, min(most, BLOCK_BYTES // max(width, 1)))
    for start in range(0, len(places), count):
        yield places[start : start + count]
