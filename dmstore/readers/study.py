"""Another study as a source: two labs' runs of one study, or of the same examples.

A copy of the same study has the same plan, so its run ids are kept. Runs of a study of another
uuid get ids that follow from where they come from and what they are, so that they never meet the
ids of others and the same rows give the same ids again. Through however many studies a run comes,
it is the same run: an id that was given so is kept, and a run that comes home has its own again.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmstore.errors import InputError
from dmstore.readers.source import Output, Request, Source
from dmstore.schema.documents import load_document
from dmstore.storage.table.rows import MAX_RUN, Rows, pairs_of, row_digests
from dmstore.study.algorithm import ANCHOR, Algorithm
from dmstore.study.display import counted, first_few
from dmstore.study.study import Study, open_study

FORMAT = "study"
_OWN = ("seed", "time", "host")
# What makes the runs of two algorithms those of one plan, besides the study.
_ALIKE = ("alpha", "masks", "task", "config", "outputs")


def sniff(path: Path) -> bool:
    """Whether a path is a study."""
    try:
        return (path / ANCHOR).is_file()
    except (OSError, ValueError):
        return False


class StudySource(Source):
    """The runs of an algorithm of another study; see :class:`~dmstore.readers.source.Source`."""

    format = FORMAT
    zero_filled = False
    remedy = "keep one of the two, or ingest both studies into a new algorithm with '--sampling foreign', where their runs get ids of their own"

    def __init__(self, path: Path, source: Algorithm, into: Algorithm, *, kept: bool) -> None:
        self.path = path
        self._algorithm = source
        self._into = into
        self._view = source.table.view()
        self._kept = kept
        self._blocks = source.blocks if kept and into.planned else []
        self.train = source.train
        self.targets = source.table.sizes["target"]
        self.outputs = {
            name: Output(name, entry["dtype"], self._classes(entry["dims"]))
            for name, entry in source.outputs.items()
        }
        run, digest = self._view.run, self._view.digest
        self.ids = run if kept else self._new_ids(into)
        # A digest covers all outputs of the row.
        same = kept and source.outputs.keys() == into.outputs.keys()
        self.digest = digest if same else None
        self.notes: list[str] = []
        if self._view.conflicts:
            self.notes.append(
                f"{counted(len(self._view.conflicts), 'conflicting row')} of {source.name!r} not shown there; left out"
            )
        if there := self._retracted_there(into):
            self.notes.append(
                f"{counted(len(there), 'run')} stored in {into.name!r} here "
                f"{'was' if len(there) == 1 else 'were'} retracted there (run {first_few(there)}); "
                f"'dmstore retract' takes them out here too"
            )
        ids = "run ids kept" if kept else "run ids made anew"
        self.title = f"study {source.table.identity['study']}, algorithm {source.name!r}: {counted(len(run), 'run')}, {ids}"

    def _retracted_there(self, into: Algorithm) -> list[int]:
        """Ids of the runs of `into` that the other study has retracted."""
        pairs = self._view.manifest.retracted
        if not pairs:
            return []
        run = np.array([number for number, _ in pairs], dtype=np.int64)
        digest = np.array([list(bytes.fromhex(text)) for _, text in pairs], dtype=np.uint8)
        own = into.table.view()
        if self.digest is not None:
            stored = set(pairs_of(own.run, own.digest))
            return sorted(pair[0] for pair in pairs if pair in stored)
        if not self._kept:
            run = foreign_ids(self._algorithm.table.identity, run, digest)
        else:
            # With other outputs the digests differ too; a run that is shown there was made again.
            run = np.setdiff1d(run, self._view.run)
        return [int(number) for number in np.intersect1d(run, own.run)]

    def _new_ids(self, into: Algorithm) -> NDArray[np.int64]:
        """Ids for runs of another study: made, kept from where they were made, or those of `into`."""
        view = self._view
        ids = foreign_ids(self._algorithm.table.identity, view.run, view.digest)
        if view.columns.get("source_run") != "string":
            return ids
        own = into.table.view()
        stored = {*own.run.tolist(), *(run for run, _ in own.manifest.retracted)}
        home = f"{into.table.identity['study']}/{into.table.identity['algorithm']}/"
        for place, text in enumerate(view.read(["source_run"])["source_run"]):
            match = re.fullmatch(r"[^/]+/[^/]+/([0-9]{1,19})", text)
            if match is None:
                continue
            first = int(match[1])
            at_home = text.startswith(home) and first in stored
            ids[place] = first if at_home else view.run[place]
        return ids

    def _classes(self, dims: Sequence[str]) -> int | None:
        return self._algorithm.table.sizes["class"] if "class" in dims else None

    def accept(self) -> None:
        """Add the blocks of a copy's plan that the plan here does not have yet."""
        self._into.adopt(self._blocks)

    def masks(self, places: NDArray[np.int64]) -> NDArray[np.bool_]:
        """See :meth:`Source.masks`."""
        return self._read(places, ["mask"])["mask"]

    def read(self, places: NDArray[np.int64], outputs: Sequence[str]) -> Rows:
        """See :meth:`Source.read`; every row is checked against its digest.

        Raises
        ------
        InputError
            If a row is not what was written there.
        """
        every = [spec.name for spec in self._algorithm.table.spec.rows()]
        columns = [*_OWN, *self._view.columns]
        read_arrays = self._read(places, ["run", *every, *columns])
        digest = row_digests(read_arrays["run"], read_arrays, self._algorithm.table.spec)
        wrong = np.flatnonzero((digest != self._view.digest[places]).any(axis=1))
        if len(wrong):
            msg = f"{self.path}: run {read_arrays['run'][wrong[0]]} does not have its digest; run 'dmstore verify {self.path}'"
            raise InputError(msg)
        carried = {name: read_arrays[name] for name in columns}
        if not self._kept:
            identity = self._algorithm.table.identity
            origin = f"{identity['study']}/{identity['algorithm']}/"
            first = carried.get("source_run", np.full(len(digest), ""))
            carried["source_run"] = np.array(
                [
                    old or f"{origin}{run}"
                    for old, run in zip(first, read_arrays["run"], strict=True)
                ],
                object,
            )
        arrays = {name: read_arrays[name] for name in ("mask", *outputs)}
        return Rows(self.ids[places], arrays, carried)

    def _read(self, places: NDArray[np.int64], names: list[str]) -> dict[str, NDArray[Any]]:
        """Rows at `places`, never more at a time than there are of them, however far apart they lie."""
        parts = []
        start = 0
        while start < len(places):
            stop = int(np.searchsorted(places, places[start] + len(places)))
            part = places[start:stop]
            low, high = int(part[0]), int(part[-1]) + 1
            arrays = self._view.read(names, low, high)
            if high - low > len(part):
                arrays = {name: values[part - low] for name, values in arrays.items()}
            parts.append(arrays)
            start = stop
        if len(parts) == 1:
            return parts[0]
        return {name: np.concatenate([part[name] for part in parts]) for name in names}


def open_source(path: Path, request: Request) -> StudySource:
    """Open another study; see :class:`StudySource`.

    Raises
    ------
    InputError
        If it is the same place, has other examples, declares its outputs otherwise, or is of another
        uuid or another algorithm and the runs would go into an algorithm with a plan.
    """
    study = open_study(path)
    into = request.into
    if into is None:
        msg = f"{path}: is a study; copy its directory to have it, or name a study that takes its runs"
        raise InputError(msg)
    if request.without:
        msg = f"{path}: is a study, of which all columns are taken; publish it with '--without-columns {request.without[0]}', and ingest what was published"
        raise InputError(msg)
    source = _algorithm(study, request.algorithm or into.name)
    if Path(study.path).resolve() == Path(into.objects.url).resolve():
        msg = f"{path}: is this study itself; name another"
        raise InputError(msg)
    own = load_document("study", into.objects.get(ANCHOR), ANCHOR)
    for what, mine, theirs in (
        ("train units", own["train"], study.document["train"]),
        (
            "targets",
            own["targets"][into.target_set],
            study.document["targets"][source.target_set],
        ),
    ):
        if mine["sha256"] != theirs["sha256"]:
            msg = f"{path}: its {what} are others ({theirs['count']}, sha256 {theirs['sha256'][:12]}; here {mine['count']}, {mine['sha256'][:12]}); only runs on the same examples can be merged"
            raise InputError(msg)
    for name, entry in into.outputs.items():
        if source.outputs.get(name) != entry:
            stored = source.outputs.get(name, "nothing")
            msg = f"{path}: output {name!r} is declared there as {stored}, here as {entry}; outputs must be declared alike"
            raise InputError(msg)
    same = study.uuid == own["uuid"] and study.seed == own["seed"]
    if into.planned and not (same and source.planned):
        what = f"study {study.uuid}, not a copy of this one" if not same else "of foreign sampling"
        msg = f"{path}: is {what}, so its runs are not of the plan of {into.name!r}; ingest them into an algorithm with '--sampling foreign'"
        raise InputError(msg)
    if into.planned and source.uuid != into.uuid:
        differ = [n for n in _ALIKE if into.document.get(n) != source.document.get(n)]
        if into.document["masks"] == "independent" and source.name != into.name:
            differ.append("name")
        if differ:
            msg = f"{path}: algorithm {source.name!r} has another {', '.join(differ)} than {into.name!r} here, so its runs are not of its plan; ingest them into an algorithm with '--sampling foreign'"
            raise InputError(msg)
    # Ids given to foreign runs mean something in their own algorithm alone.
    return StudySource(path, source, into, kept=into.planned or (same and source.uuid == into.uuid))


def _algorithm(study: Study, name: str) -> Algorithm:
    if name not in study.algorithms:
        msg = f"{study.path}: has no algorithm {name!r} (it has {', '.join(study.algorithms) or 'none'}); choose one with --from"
        raise InputError(msg)
    return study.algorithm(name)


def foreign_ids(
    identity: dict[str, str], run: NDArray[np.int64], digest: NDArray[np.uint8]
) -> NDArray[np.int64]:
    """Ids for runs of another study: a hash of its uuid, the algorithm, the run id and the digest.

    The digest is in it because two labs that extend copies of one study give the same id to
    different runs; both can be taken then, and what they share is taken once.

    Parameters
    ----------
    identity : dict
        ``study`` and ``algorithm`` of the source.
    run : (run,) int64
    digest : (run, 16) uint8

    Returns
    -------
    (run,) int64
        From 0 to 2**62.
    """
    start = hashlib.blake2b(
        f"run\0{identity['study']}\0{identity['algorithm']}\0".encode(), digest_size=8
    )
    ids = np.empty(len(run), dtype=np.int64)
    for place, (number, row) in enumerate(zip(run.astype("<i8"), digest, strict=True)):
        state = start.copy()
        state.update(number.tobytes() + row.tobytes())
        ids[place] = int.from_bytes(state.digest(), "little") % MAX_RUN
    return ids
