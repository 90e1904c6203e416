"""Write finished runs where dmstore cannot be installed: one file, NumPy alone, Python 3.8 or newer.

Copy it beside a training script. With a plan (``dmstore export STUDY ALGORITHM --to plan plan.json``)
it makes the plan's masks and seeds and knows what is still to do:

    with Writer("runs", plan="plan.json") as writer:
        for run in writer.pending("3/100"):
            writer.append(run, margin=train(run.mask, seed=run.seed), accuracy=0.93)

Without one it takes what it is given: ``Writer("runs").append(17, mask=mask, margin=margin)``.

Runs are written at 64, 10 minutes after the oldest waiting one, at exit, on the signals that end jobs (SIGTERM, SIGHUP, SIGUSR1, SIGUSR2, SIGXCPU), and
by ``flush()``. Only a run in a finished, fsynced file is counted as acknowledged. Later, anywhere:
``dmstore ingest STUDY ALGORITHM runs``.
"""

from __future__ import annotations

import atexit
import contextlib
import glob
import hashlib
import json
import logging
import os
import platform
import re
import signal
import threading
import time
import uuid
import zipfile
from collections import namedtuple
from typing import Any, Iterator

import numpy as np

FORMAT = "1"
MAX_RUN = 2**62
RESERVED = frozenset(
    "run row_digest mask_id repeat seed time host mask mask_packed train target class byte split "
    "study algorithm label train_label target_label".split()
)
_COLUMN = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,99}")
# Columns that every run has: the kinds they take, and the largest integers.
_OWN = {"seed": "iu", "time": "iu", "host": "U"}
_LARGEST = {"seed": 2**64 - 1, "time": 2**63 - 1}
# Milliseconds since 1970 of the years 2000 to 2100: seconds and nanoseconds lie far away.
_TIMES = (946684800000, 4102444800000)
# Integers that a float64 holds exactly: a store may have to keep a column as such.
_EXACT = 2**53
_log = logging.getLogger("dmstore_writer")
# Batch systems send these before they end a job, a terminal that closes sends SIGHUP.
_SIGNALS = ("SIGTERM", "SIGUSR1", "SIGUSR2", "SIGHUP", "SIGXCPU")
_ONLY_WRITES = getattr(signal, "SIGUSR1", None)


class WriterError(ValueError):
    """What was given does not fit; nothing of it was taken, and the writer goes on."""


class Run(namedtuple("Run", "id mask seed mask_id repeat")):
    """One run to train: what it may see, and its own seed."""


class _Row(namedtuple("_Row", "run train packed outputs columns digest")):
    """A checked copy of a finished run."""

    def kinds(self) -> list[tuple[str, str]]:
        """What runs must share to stand in one file: names and kinds of their columns."""
        return sorted((name, value.dtype.kind) for name, value in self.columns.items())

    def layout(self) -> dict[str, Any]:
        """Shapes and dtypes, which all runs of a writer share."""
        shapes = {name: (value.dtype.str, value.shape) for name, value in self.outputs.items()}
        return {"mask": self.train, **shapes}


def planned_mask(key: int, mask_id: int, train: int, alpha: float) -> Any:
    """Mask ``mask_id`` of a plan, (train,) bool: the floor(alpha * train) smallest raw outputs of
    Philox4x64-10. ``key`` is the plan's: the study's seed where its algorithms share their masks.
    """
    raw = np.random.Philox(key=np.array([key, mask_id], dtype=np.uint64)).random_raw(train)
    count = int(np.floor(alpha * train))
    mask = np.zeros(train, dtype=bool)
    if count:
        threshold = np.partition(raw, count - 1)[count - 1]
        mask[raw < threshold] = True
        ties = np.flatnonzero(raw == threshold)
        mask[ties[: count - int(mask.sum())]] = True
    return mask


def training_seed(seed: int, algorithm: str, run: int) -> int:
    """Seed of one run's training, from the study's seed: 63 bits."""
    text = "\0".join(("training", str(seed), algorithm, str(run))).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") >> 1


class Plan:
    """The plan of an algorithm, as ``dmstore export --to plan`` wrote it."""

    def __init__(self, document: Any, where: str = "plan") -> None:
        try:
            if document["kind"] != "worker" or document["format_version"].split(".")[0] != FORMAT:
                raise WriterError(
                    f"{where}: no plan of format {FORMAT}; export it, and this file, again"
                )
            self.study, self.algorithm = str(document["study"]), str(document["algorithm"])
            self.planned = document["sampling"] == "planned"
            self.seed, self.key, self.train = (int(document[n]) for n in ("seed", "key", "train"))
            self.alpha = float(document["alpha"]) if self.planned else 0.0
            names = ("first_run", "runs", "first_mask", "repeats")
            self.blocks = [[int(block[name]) for name in names] for block in document["blocks"]]
            self.stored = [(int(first), int(stop)) for first, stop in document["stored"]]
            self.outputs = {
                str(name): (np.dtype(entry["dtype"]), tuple(int(size) for size in entry["shape"]))
                for name, entry in document["outputs"].items()
            }
        except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
            raise WriterError(f"{where}: damaged ({error!r}); export it again") from None

    @classmethod
    def load(cls, path: Any) -> Plan:
        """Read a plan's file."""
        try:
            with open(os.path.expanduser(path), encoding="utf-8") as file:
                document = json.load(file)
        except (OSError, ValueError, RecursionError) as error:
            raise WriterError(f"{path}: cannot be read as a plan ({error})") from None
        return cls(document, str(path))

    def runs(self, part: str | None = None) -> list[int]:
        """Ids of all planned runs, or of part ``"I/N"`` of them, counted from 1."""
        ids = [run for first, runs, _, _ in self.blocks for run in range(first, first + runs)]
        if part is None:
            return ids
        match = re.fullmatch(r"([0-9]+)/([0-9]+)", part)
        if not match or not 1 <= int(match.group(1)) <= int(match.group(2)):
            raise WriterError(f"part {part!r} is not of the form I/N with I from 1 to N")
        return ids[int(match.group(1)) - 1 :: int(match.group(2))]

    def run(self, number: int) -> Run:
        """Mask, seed, mask id and repeat of a planned run."""
        for first, runs, first_mask, repeats in self.blocks:
            if first <= number < first + runs:
                step, repeat = divmod(number - first, repeats)
                mask = planned_mask(self.key, first_mask + step, self.train, self.alpha)
                seed = training_seed(self.seed, self.algorithm, number)
                return Run(number, mask, seed, first_mask + step, repeat)
        raise WriterError(f"run {number} is not in the plan; extend it, and export it again")


class Writer:
    """Writes finished runs into ``.npz`` files of a folder, which many writers may share.

    Parameters
    ----------
    folder : path
        Made if it is not there; what killed writers left unfinished in it is removed after a day.
    plan : path or Plan, optional
        Brings what every run must hold.
    study, algorithm : str, optional
        Written into the files, so that they are ingested where they belong; a plan brings its own.
    flush_runs : int
        Write when this many runs wait.
    flush_seconds : float
        Write when the oldest waiting run is this old.
    """

    def __init__(
        self,
        folder: Any,
        plan: Any = None,
        study: str | None = None,
        algorithm: str | None = None,
        flush_runs: int = 64,
        flush_seconds: float = 600.0,
    ) -> None:
        self.plan = plan if plan is None or isinstance(plan, Plan) else Plan.load(plan)
        if self.plan is not None:
            study, algorithm = self.plan.study, self.plan.algorithm
        self.folder = os.path.abspath(os.path.expanduser(os.fspath(folder)))
        self.acknowledged = 0
        self._identity = {"study": study, "algorithm": algorithm}
        self._flush_runs, self._flush_seconds = flush_runs, flush_seconds
        self._waiting: list[_Row] = []
        self._digests: dict[int, bytes] = {}
        self._layout: dict[str, Any] = {}
        self._oldest = 0.0
        self._overdue = self._closed = False
        self._lock = threading.RLock()
        self._signalled: list[int] = []
        self._answered: list[int] = []
        self._handlers: dict[int, Any] = {}
        self._pid = os.getpid()
        _make_folder(self.folder)
        hidden = "." + "[0-9a-f]" * 32 + ".part"
        for path in glob.glob(os.path.join(glob.escape(self.folder), hidden)):
            with contextlib.suppress(OSError):  # Another writer may remove it too.
                if time.time() - os.lstat(path).st_mtime > 86400:
                    os.unlink(path)
        atexit.register(self.close)
        if threading.current_thread() is threading.main_thread():
            for number in (getattr(signal, n, None) for n in _SIGNALS):
                if number is not None:
                    self._handlers[number] = signal.signal(number, self._on_signal)
        threading.Thread(target=self._watch, name="dmstore-flush", daemon=True).start()

    def pending(self, part: str | None = None) -> Iterator[Run]:
        """Planned runs (of a part) that neither the study had nor this folder holds."""
        if self.plan is None or not self.plan.planned:
            raise WriterError("there is no plan of runs here; append runs with their masks")
        done = self._in_folder()
        for first, stop in self.plan.stored:
            done.update(range(first, stop))
        for number in self.plan.runs(part):
            if number not in done and number not in self._digests:
                yield self.plan.run(number)

    def append(self, run: Any, mask: Any = None, **values: Any) -> None:
        """Add one finished run. What is given is copied: buffers may be used again.

        Parameters
        ----------
        run : Run or int
        mask : (train,) bool, optional
            Needed unless the run is planned.
        **values
            Outputs, one value per target (or a target and class); ``seed``; any further number, bool
            or text, which becomes a per-run column.

        A WriterError means that the run was not taken; an OSError that it was, and waits.
        """
        if os.getpid() != self._pid:
            raise WriterError("this Writer was made in another process; make one in each process")
        row = self._check(run, mask, values)
        with self._lock:
            if self._closed:
                raise WriterError("this Writer is closed; make a new one")
            if self._digests.get(row.run, row.digest) != row.digest:
                raise WriterError(f"run {row.run} was appended before with other content")
            if row.run not in self._digests:
                if row.layout() != (self._layout or row.layout()):
                    raise WriterError(f"run {row.run} has {row.layout()}, not {self._layout}")
                self._layout = row.layout()
                self._digests[row.run] = row.digest
                if not self._waiting:
                    self._oldest = time.monotonic()
                self._waiting.append(row)
            if self._overdue or len(self._waiting) >= self._flush_runs:
                self._write()

    def flush(self) -> int:
        """Write what waits, durably; returns the runs acknowledged by this writer so far."""
        if os.getpid() == self._pid:
            with self._lock:
                self._write()
        return self.acknowledged

    def close(self) -> None:
        """Write what waits and give the signals back. May be called again, after an error too."""
        if os.getpid() != self._pid:
            return
        with self._lock:
            self._write()
            self._closed = True
        atexit.unregister(self.close)
        if threading.current_thread() is threading.main_thread():
            for number, handler in self._handlers.items():
                if signal.getsignal(number) == self._on_signal:
                    signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def _check(self, run: Any, mask: Any, values: dict[str, Any]) -> _Row:
        number = run.id if isinstance(run, Run) else run
        if not isinstance(number, (int, np.integer)) or not 0 <= number < MAX_RUN:
            raise WriterError(f"run {run!r} is no run of pending() and no integer id below 2**62")
        number, where, plan = int(number), f"run {int(number)}", self.plan
        planned = plan.run(number) if plan is not None and plan.planned else None
        mask = planned.mask if planned and mask is None else _array("mask", mask, where)
        train = plan.train if plan is not None else mask.size
        if mask.dtype != bool or mask.shape != (train,):
            raise WriterError(f"{where}: mask is {mask.dtype} {mask.shape}, not bool ({train},)")
        if planned and not np.array_equal(mask, planned.mask):
            raise WriterError(f"{where}: the mask is not the plan's; train with the plan's mask")
        arrays = {name: _array(name, value, where) for name, value in values.items()}
        declared = plan.outputs if plan is not None else None
        if declared is None:
            declared = {name: (v.dtype, v.shape) for name, v in arrays.items() if v.ndim}
        for name in sorted(declared.keys() - arrays.keys()) if declared else ["output"]:
            raise WriterError(f"{where}: no {name}; every run needs a value per target of each")
        outputs = {name: _output(name, arrays[name], *declared[name], where) for name in declared}
        columns = {n: _column(n, v, where) for n, v in arrays.items() if n not in outputs}
        if len({name.lower() for name in columns}) < len(columns):
            raise WriterError(f"{where}: two columns differ in case alone")
        if planned:
            columns.setdefault("seed", np.uint64(planned.seed))
        columns.setdefault("time", np.int64(time.time() * 1000))
        columns.setdefault("host", np.array(platform.node())[()])
        packed = np.packbits(mask, bitorder="little")
        # What the store computes again: id, mask bits, outputs by name, little-endian.
        parts = [np.array(number, dtype="<i8"), packed, *(outputs[n] for n in sorted(outputs))]
        state = hashlib.blake2b(b"".join(part.tobytes() for part in parts), digest_size=16)
        return _Row(number, train, packed, outputs, columns, state.digest())

    def _write(self) -> None:
        """Write waiting runs, those with the same columns in one file, and drop each once stored."""
        self._overdue = True
        while self._waiting:
            kinds = self._waiting[0].kinds()
            rows = [row for row in self._waiting if row.kinds() == kinds]
            self._write_file(rows)
            self.acknowledged += len(rows)
            self._waiting = [row for row in self._waiting if row.kinds() != kinds]
        self._overdue = False

    def _write_file(self, rows: list[_Row]) -> None:
        """One new file: written aside, fsynced, renamed, and the folder fsynced."""
        arrays = {
            "run": np.array([row.run for row in rows], dtype="<i8"),
            "mask_packed": np.array([row.packed for row in rows]),
            "mask_bitorder": np.array("little"),
            "row_digest": np.array([np.frombuffer(row.digest, np.uint8) for row in rows]),
            **{n: np.array([row.outputs[n] for row in rows]) for n in rows[0].outputs},
            **{n: np.array([row.columns[n] for row in rows]) for n in rows[0].columns},
            **{n: np.array(text) for n, text in self._identity.items() if text is not None},
        }
        unique = uuid.uuid4().hex
        temporary = os.path.join(self.folder, f".{unique}.part")
        try:
            with open(temporary, "xb") as file:
                with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
                    for name, array in arrays.items():
                        info = zipfile.ZipInfo(name + ".npy", (1980, 1, 1, 0, 0, 0))
                        with archive.open(info, "w", force_zip64=True) as member:
                            np.lib.format.write_array(member, array, allow_pickle=False)
                file.flush()
                os.fsync(file.fileno())
            stamp = f"{int(time.time() * 1000):013d}"
            os.rename(temporary, os.path.join(self.folder, f"{stamp}-{unique}.npz"))
        finally:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        _sync_folder(self.folder)

    def _in_folder(self) -> set[int]:
        """Ids of this study's and algorithm's runs in whole files of the folder."""
        ids: set[int] = set()
        for name in sorted(n for n in os.listdir(self.folder) if n.endswith(".npz")):
            path = os.path.join(self.folder, name)
            try:
                with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
                    given = [k for k in self._identity if k in arrays.files]
                    if all(str(arrays[key]) == self._identity[key] for key in given):
                        ids.update(arrays["run"].tolist())
            except Exception as error:  # Whatever it is: what cannot be read counts for nothing.
                _log.warning("%s: cannot be read, its runs count as not done (%s)", path, error)
        return ids

    def _watch(self) -> None:
        """The thread that writes when it is time, or when a signal came."""
        while self._signalled or not self._closed:
            time.sleep(min(0.1, self._flush_seconds / 4))
            if not self._waiting and not self._signalled:
                continue
            with self._lock:
                signalled, self._signalled = self._signalled, []
                late = time.monotonic() - self._oldest >= self._flush_seconds
                if self._waiting and (late or signalled):
                    try:
                        self._write()
                    except Exception as error:  # The next append tries again and raises.
                        self._oldest = time.monotonic()
                        _log.warning("%d runs wait: %s", len(self._waiting), error)
            for number in signalled:
                self._answered.append(number)
                os.kill(self._pid, number)

    def _on_signal(self, number: int, frame: Any) -> None:
        """Have the thread write, as the main one may be at it; sent again, do what it is for."""
        own = os.getpid() == self._pid
        if own and not self._closed and number not in self._answered:
            self._signalled.append(number)
            return
        if number in self._answered:
            self._answered.remove(number)
        previous = self._handlers.get(number)
        if callable(previous):
            previous(number, frame)
        elif previous in (None, signal.SIG_DFL) and (number != _ONLY_WRITES or not own):
            # SIGUSR1 asks a writer to write, as batch systems use it, and nothing more.
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)


def _output(name: str, value: Any, dtype: Any, shape: tuple[int, ...], where: str) -> Any:
    _check_name(name, where)
    kinds = {"f": "fiu", "i": "iu", "u": "u"}.get(dtype.kind, "")
    if value.shape != shape or value.dtype.kind not in kinds:
        raise WriterError(f"{where}: {name} is {value.dtype} {value.shape}, not {dtype} {shape}")
    with np.errstate(all="ignore"):
        stored = np.array(value, dtype=dtype.newbyteorder("<"), order="C")
    if not np.isfinite(stored).all() or (dtype.kind != "f" and not np.array_equal(stored, value)):
        raise WriterError(f"{where}: {name} holds NaN, infinity or what does not fit {dtype}")
    return stored


def _column(name: str, value: Any, where: str) -> Any:
    kind = value.dtype.kind
    if name not in _OWN:
        _check_name(name, where)
    if value.ndim or kind not in _OWN.get(name, "biufU"):
        raise WriterError(f"{where}: {name} is {value.dtype} {value.shape}; give one value per run")
    low, high = (0, _LARGEST[name]) if name in _LARGEST else (-_EXACT, _EXACT)
    if kind in "iu" and not low <= int(value) <= high:
        raise WriterError(f"{where}: {name} is {value}, out of range; store it as text")
    if name == "time" and not _TIMES[0] <= int(value) <= _TIMES[1]:
        raise WriterError(f"{where}: time is {value}; give milliseconds, time.time_ns() // 10**6")
    if kind == "U":
        str(value).encode()  # Text that is no Unicode is refused here, not when it is ingested.
    kinds = {"i": "i8", "u": "i8", "f": "f8"}
    return value.astype("u8" if name == "seed" else kinds.get(kind, value.dtype))[()]


def _check_name(name: str, where: str) -> None:
    if name.lower() in (*RESERVED, "mask_bitorder") or not _COLUMN.fullmatch(name):
        raise WriterError(f"{where}: {name!r} is reserved, or more than letters, digits and '_'")


def _make_folder(folder: str) -> None:
    """Make a folder, durably: what is in it can be lost with it."""
    if not os.path.isdir(folder):
        _make_folder(os.path.dirname(folder))
        os.makedirs(folder, exist_ok=True)
        _sync_folder(os.path.dirname(folder))


def _sync_folder(path: str) -> None:
    if os.name != "nt":
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _array(name: str, value: Any, where: str) -> Any:
    """Torch tensors (on a GPU, with a gradient), and whatever NumPy takes itself."""
    if np.ma.is_masked(value):
        raise WriterError(f"{where}: {name} has values that are masked; leave the run out")
    if isinstance(value, (list, tuple)) and any(hasattr(item, "detach") for item in value):
        value = [_array(name, item, where) for item in value]
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        if re.search("bfloat|float8", str(value.dtype)):
            value = value.float()
        value = value.numpy()
    value = np.asarray(value)
    # bfloat16 and float8 of jax are dtypes that another package registers.
    return value.astype(np.float32) if value.dtype.isbuiltin == 2 else value
