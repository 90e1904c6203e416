"""Workers' files: ``.npz`` with ``run``, ``mask`` or ``mask_packed``, outputs, and further columns.

They are small and many. A file is taken whole or refused whole, and is not looked at before its turn comes.
Files of outputs on a later target set have no masks; the table that rows go into says which of the two it is.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmstore.core import bits
from dmstore.core.npz import NpzReader
from dmstore.errors import InputError
from dmstore.readers import packed
from dmstore.readers.source import RENAME, Output, Request, Source, as_times, stamp
from dmstore.storage.table.rows import Rows, row_digests
from dmstore.storage.table.table import Table

FORMAT = "npz"
_MASKS = ("mask", "mask_packed")


def sniff(path: Path) -> bool:
    """True: what no other format claims is a worker's file, a directory of them, or an error."""
    return True


def find(path: Path) -> tuple[list[Path], list[str]]:
    """A file itself; of a directory, all ``.npz`` files in it and below, also behind links.

    Returns
    -------
    files : list of Path
    notes : list of str
        Of folders and files that are not taken.
    """
    if not path.is_dir():
        return [path], []
    files: list[Path] = []
    others: list[Path] = []
    notes: list[str] = []
    # By device and number: a link may lead to a folder above, or twice to the same one.
    visited: set[tuple[int, int]] = set()

    def refused(error: OSError) -> None:
        notes.append(f"{error.filename}: cannot be read ({error.strerror}); left out")

    for place, folders, names in os.walk(path, followlinks=True, onerror=refused):
        about = Path(place).stat()
        if (about.st_dev, about.st_ino) in visited:
            folders.clear()
            continue
        visited.add((about.st_dev, about.st_ino))
        folders.sort()
        for name in names:
            file = Path(place, name)
            (files if name.endswith(".npz") and not _is_note(file) else others).append(file)
    visible = sorted(file for file in others if not file.name.startswith(".") or _is_note(file))
    if files and visible:
        what = "file that is" if len(visible) == 1 else "files that are"
        notes.append(
            f"{path}: {len(visible)} {what} no worker's .npz left out ({visible[0].relative_to(path)}{', …' if len(visible) > 1 else ''})"
        )
    return sorted(files), notes


def _is_note(file: Path) -> bool:
    """Whether macOS put it beside another file, whose name it has."""
    return file.name.startswith("._") and file.with_name(file.name[2:]).exists()


def open_source(path: Path, request: Request) -> NpzSource:
    """A worker's file; see :class:`NpzSource`.

    Raises
    ------
    InputError
        If the request names no table.
    """
    if request.table is None:
        msg = f"{path}: is a worker's file; name the study and the algorithm that take its runs"
        raise InputError(msg)
    return NpzSource(path, request.table, request)


class NpzSource(Source):
    """A worker's file; see :class:`~dmstore.readers.source.Source`. There is nothing in it before :meth:`load`.

    It holds ``run`` (k,) integer ids, which whoever stores its rows checks; one array (k, target[, class]) a
    declared output; optional ``study`` and ``algorithm``, which must match; any further per-run column.

    Runs come with ``mask`` (k, train) bool or ``mask_packed`` (k, ceil(train / 8)) uint8 and ``mask_bitorder``, one
    text, ``little`` or ``big``, which may be missing where something else proves the order;
    optional ``row_digest`` (k, 16) uint8 must be right. Outputs on a later target set come without masks; optional
    ``target_set`` must match, as must ``run_digest`` (k,) uint64, the first 8 bytes of the digest of the run that
    the outputs are of.

    Parameters
    ----------
    path : Path
    table : Table
        The table that its rows go into.
    request : Request, optional
        Its algorithm's plan may prove the bit order of packed masks.
    """

    format = FORMAT
    title = ""
    digest = None
    zero_filled = False
    whole = True
    remedy = RENAME

    def __init__(
        self,
        path: Path,
        table: Table,
        request: Request | None = None,
    ) -> None:
        self.path = path
        self._request = request or Request()
        self.notes: list[str] = []
        self.ids = np.empty(0, dtype=np.int64)
        self._rows = Rows(self.ids, {}, {})
        self._table = table
        self._masked = "mask" in {spec.name for spec in table.spec.rows()}
        # A file that has others is refused.
        self.train = table.sizes.get("train", 0)
        self.targets = table.sizes["target"]
        self.outputs: Mapping[str, Output] = {
            spec.name: Output(
                spec.name, spec.dtype, table.sizes["class"] if "class" in spec.dims else None
            )
            for spec in table.spec.outputs()
        }

    def load(self) -> None:
        """Read the file and check it against the table.

        Raises
        ------
        InputError
            Naming the file, the array and the remedy.
        """
        with NpzReader(self.path) as reader:
            shape = reader.headers["run"].shape if "run" in reader.headers else ()
            count = self.claimed = shape[0] if len(shape) == 1 else 0
            columns = self._check(reader, count)
            run = reader.load("run")
            arrays = {name: reader.load(name) for name in self.outputs}
            if self._masked:
                arrays["mask"] = self._mask(reader, run)
            values = {name: reader.load(name) for name in columns}
            if "time" in values and count:
                values["time"], self.notes = as_times(values["time"], str(self.path))
            if self._masked and count and "row_digest" in reader.headers:
                self._check_digests(reader, run, arrays)
        for name, made in stamp(count).items():
            values.setdefault(name, made)
        self._rows = Rows(run, arrays, values)
        self.ids = run

    def read(self, places: NDArray[np.int64], outputs: Sequence[str]) -> Rows:
        """See :meth:`Source.read`."""
        rows = self._rows if len(places) == len(self._rows) else self._rows.take(places)
        return replace(
            rows, arrays={n: v for n, v in rows.arrays.items() if n == "mask" or n in outputs}
        )

    def _check(self, reader: NpzReader, count: int) -> list[str]:
        """Refuse what does not fit by its headers, before memory is taken for the content; the further columns."""
        owner = dict(self._table.identity)
        target_set = owner.pop("table").removeprefix("outputs/")
        if not self._masked:
            owner["target_set"] = target_set
        for name, value in owner.items():
            stated = reader.scalar(name)
            if stated is not None and stated.replace("-", "" if name == "study" else "-") != value:
                msg = f"{self.path}: is of {name} {stated!r}, but this is {value!r}; ingest it where it belongs"
                raise InputError(msg)
        headers = {n: h for n, h in reader.headers.items() if n not in (*owner, packed.KEY)}
        headers = self._request.kept(headers, str(self.path))
        missing = [name for name in self.outputs if name not in headers]
        masks = [name for name in _MASKS if name in headers]
        if self._masked and ("run" not in headers or len(masks) != 1):
            msg = f"{self.path}: a worker's file holds 'run' and one of 'mask' and 'mask_packed' (found: {', '.join(reader.headers)})"
            raise InputError(msg)
        if self._masked and missing:
            msg = f"{self.path}: no {missing[0]!r}; every run needs {', '.join(('mask', *self.outputs))} (found: {', '.join(reader.headers)})"
            raise InputError(msg)
        if not self._masked and (missing or masks or "run" not in headers):
            msg = f"{self.path}: a file of outputs on {target_set!r} holds {', '.join(('run', *self.outputs))} and no mask (found: {', '.join(headers)})"
            raise InputError(msg)
        if headers["run"].shape == ():
            msg = f"{self.path}: holds one run alone, without an axis of runs; save run=np.array([number]), mask=mask[None] and {next(iter(self.outputs))}={next(iter(self.outputs))}[None]"
            raise InputError(msg)
        rows = {*self.outputs, *((*_MASKS, "row_digest") if self._masked else ())}
        for name, header in headers.items():
            if header.shape[:1] != (count,) or (name not in rows and len(header.shape) != 1):
                msg = f"{self.path}: {name!r} has shape {header.shape}, but there are {count} runs"
                raise InputError(msg)
        for spec in self._table.spec.rows():
            expected = (count, *(self._table.sizes[dim] for dim in spec.dims[1:]))
            if spec.name in headers and headers[spec.name].shape != expected:
                msg = f"{self.path}: {spec.name!r} has shape {headers[spec.name].shape}, expected {expected} ({', '.join(spec.dims)})"
                raise InputError(msg)
        return [name for name in headers if name != "run" and name not in rows]

    def _mask(self, reader: NpzReader, run: NDArray[Any]) -> NDArray[np.bool_]:
        if "mask" in reader.headers:
            if reader.headers["mask"].dtype != np.bool_:
                msg = f"{self.path}: 'mask' has dtype {reader.headers['mask'].dtype}, expected bool; store packed bits as 'mask_packed'"
                raise InputError(msg)
            return reader.load("mask")
        header = reader.headers["mask_packed"]
        expected = (self.claimed, -(-self.train // 8))
        if header.dtype != np.uint8 or header.shape != expected:
            msg = f"{self.path}: 'mask_packed' is {header.dtype} {header.shape}, expected uint8 {expected}"
            raise InputError(msg)
        octets, where = reader.load("mask_packed"), f"{self.path}: 'mask_packed'"
        said = packed.Evidence(reader.scalar(packed.KEY), self._request.bitorder).order(
            str(self.path)
        )
        if said is None and len(run) and run.ndim == 1 and run.dtype.kind in "iu":
            # Digests are of masks in our own order, and are checked below.
            proved = packed.ORDERS[0] if "row_digest" in reader.headers else None
            said = proved or packed.order_of_plan(self._request.into, run[0], octets[0])
        if not len(run):
            return np.empty((0, self.train), dtype=bool)
        order = packed.decide(octets[:, -1], self.train, said, where)
        return bits.unpack_rows(octets, self.train, order)

    def _check_digests(
        self, reader: NpzReader, run: NDArray[Any], arrays: Mapping[str, NDArray[Any]]
    ) -> None:
        """Compare rows with the digests that their worker made, of outputs in the dtypes of its file."""
        spec = self._table.spec
        written = {n: replace(spec.arrays[n], dtype=str(v.dtype)) for n, v in arrays.items()}
        own = row_digests(run, arrays, replace(spec, arrays={**spec.arrays, **written}))
        given = reader.load("row_digest")
        wrong = np.ones(len(run), dtype=bool)
        if given.shape == own.shape and given.dtype == own.dtype:
            wrong = (given != own).any(axis=1)
        for row in np.flatnonzero(wrong)[:1]:
            msg = f"{self.path}: run {run[row]} is not what its worker wrote (its 'row_digest' differs); copy the file again, or train the run again"
            raise InputError(msg)
