"""Attribution scores of one algorithm, from whatever file another tool left them in.

A file is opened (:func:`open_scores`), its orientation decided (:func:`decide_orientation`), and
turned into labelled datamodels with units and provenance stated (:func:`labelled`). Nothing is
unpickled, and nothing is guessed without being said.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dmstore.core.given import local_path
from dmstore.core.npy import Header
from dmstore.core.npz import NpzReader
from dmstore.errors import InputError
from dmstore.readers import bergson_scores, kronfluence, trak
from dmstore.readers.files import FileArray, open_npy
from dmstore.readers.safetensors import open_safetensors
from dmstore.readers.score_rows import ScoreRows, float_type, not_finite
from dmstore.readers.torch_file import TorchFile
from dmstore.readers.units import KINDS, Stated, Units, raw_as_stated, raw_units

if TYPE_CHECKING:
    import xarray as xr

ORIENTATIONS = ("target-train", "train-target")
# Mean and deviation of the mask columns, beside standardised weights.
_MOMENTS = ("mask_mean", "mask_std")
SUFFIXES = (".pt", ".pth", ".npy", ".npz", ".mmap", ".safetensors", bergson_scores.SUFFIX)


class _Opened(Protocol):
    headers: dict[str, Header]

    def load(self, name: str) -> NDArray[Any]: ...


@dataclass(frozen=True)
class ScoreFile:
    """A score matrix as it stands in its file.

    Attributes
    ----------
    path : Path
    format : str
        What the file is, in words.
    convention : str or None
        The orientation that files of this format have, where there is one.
    shape : tuple of int
    opened : reader
        With ``headers`` and ``load``.
    keys : dict
        Which array of the file is ``weight``, and ``bias`` and ``lam`` where it has them.
    """

    path: Path
    format: str
    convention: str | None
    shape: tuple[int, int]
    opened: _Opened
    keys: Mapping[str, str]

    @property
    def bias_length(self) -> int | None:
        """Length of ``bias``: the number of targets, where the file says it."""
        return self.opened.headers[self.keys["bias"]].shape[0] if "bias" in self.keys else None

    @property
    def is_standardised_by_default(self) -> bool:
        """Whether the tool that writes such files leaves weights in standardised mask units."""
        if (kind := self.stated_kind) is not None:
            return kind == "standardised"
        return isinstance(self.opened, TorchFile) and {"bias", "lam"} <= set(self.keys)

    @property
    def stated_kind(self) -> str | None:
        """Units that the file states, as a ``datamodels.pt`` made here does; None where it does not."""
        if not isinstance(self.opened, TorchFile) or self.keys["weight"] != "weight":
            return None
        kind = self.opened.texts.get("units")
        headers = [self.opened.headers.get(name) for name in _MOMENTS]
        if kind == "standardised" and not all(
            h is not None and len(h.shape) == 1 and h.dtype.kind == "f" for h in headers
        ):
            return None
        return kind if kind in KINDS else None

    @property
    def larger(self) -> str | None:
        """What larger scores mean to the tool that writes such files: ``better`` models, or None where it is not known."""
        tools = (
            self.path.suffix == ".mmap"
            or self.keys["weight"] == kronfluence.ALL
            or isinstance(self.opened, bergson_scores.BergsonScores)
        )
        return "better" if tools else None

    @property
    def about(self) -> dict[str, str]:
        """What the file says of the fit that it holds (``study``, ``algorithm``, ``content_id``)."""
        if not isinstance(self.opened, TorchFile):
            return {}
        return {
            key.removeprefix("about/"): text
            for key, text in self.opened.texts.items()
            if key.startswith("about/")
        }

    @functools.cached_property
    def placed(self) -> FileArray | None:
        """The matrix where it lies in its file, to be read by rows; None where it must be loaded."""
        place = getattr(self.opened, "placed", None)
        return place(self.keys["weight"]) if place else None

    def vector(self, name: str) -> NDArray[Any] | None:
        """An array with one dim that stands beside the scores; None where there is none."""
        header = self.opened.headers.get(name)
        if header is None or len(header.shape) != 1 or name in self.keys.values():
            return None
        return self.opened.load(name)


def is_scores(path: str | Path) -> bool:
    """Whether a path looks like a file of scores, or a folder of TRAK's, kronfluence's or bergson's."""
    file = local_path(path)
    return file.suffix.lower() in SUFFIXES or _folder(file) is not None


def _folder(path: Path) -> Any:
    """The module of the program whose folder of scores a path is; None for anything else."""
    modules = (trak, kronfluence, bergson_scores)
    return next((module for module in modules if module.is_folder(path)), None)


def open_scores(
    path: str | Path, *, key: str | None = None, experiment: str | None = None
) -> ScoreFile:
    """Open a file of scores and find the matrix in it; no content is read yet.

    Parameters
    ----------
    path : path
        ``.pt`` (also ``datamodels.pt``), ``.npy``, ``.npz``, ``.safetensors``, TRAK's ``.mmap``, or
        the folder that TRAK, kronfluence or bergson saved to.
    key : str, optional
        Name of the matrix inside the file, where there are several.
    experiment : str, optional
        Of a folder with several.

    Raises
    ------
    InputError
        If the file cannot be used; the message names it and the remedy.
    MissingDependencyError
        For ``.safetensors`` without that package.
    """
    file = local_path(path)
    if of := _folder(file):
        file = of.find(file, experiment)
    elif file.is_dir():
        file = trak.find(file, experiment)
    elif file.suffix == ".mmap" and file.parent.name == "scores" and experiment is None:
        trak.check_finished(file)
    elif experiment is not None:
        msg = f"{path}: is no folder of TRAK or kronfluence, so it has no experiment {experiment!r}; leave the option out"
        raise InputError(msg)
    suffix = file.suffix.lower()
    opened: _Opened
    if suffix in (".pt", ".pth"):
        opened = TorchFile(file)
    elif suffix in (".npy", ".mmap"):
        opened = _Files({"array": open_npy(file)})
    elif suffix == ".npz":
        with NpzReader(file) as archive:
            opened = _Npz(file, dict(archive.headers))
    elif suffix == ".safetensors":
        opened = _tensors(file, key)
    elif suffix == bergson_scores.SUFFIX:
        opened = bergson_scores.open_scores(file)
    else:
        msg = f"{path}: scores are read from {', '.join(SUFFIXES)} and folders of TRAK and bergson; save them as one of these"
        raise InputError(msg)
    keys = _find(file, opened.headers, key)
    rows, columns = opened.headers[keys["weight"]].shape
    name, convention = _kind(file, opened, keys)
    return ScoreFile(file, name, convention, (rows, columns), opened, keys)


def _tensors(file: Path, key: str | None) -> _Opened:
    """Arrays of a ``.safetensors`` file; of kronfluence's with one a module their sum, unless one is named."""
    arrays = open_safetensors(file)
    matrices = {n: a for n, a in arrays.items() if len(a.shape) == 2 and a.dtype.kind == "f"}
    if file.name == kronfluence.FILE and key is None and len(matrices) > 1:
        return kronfluence.Modules(file, matrices)
    return _Files(arrays)


class _Files:
    """Arrays that lie in files as they are."""

    def __init__(self, arrays: Mapping[str, FileArray]) -> None:
        self._arrays = arrays
        self.headers = {name: Header(a.shape, a.dtype) for name, a in arrays.items()}

    def load(self, name: str) -> NDArray[Any]:
        return self._arrays[name].whole()

    def placed(self, name: str) -> FileArray:
        return self._arrays[name]


class _Npz:
    """An ``.npz`` file that is opened again for each array."""

    def __init__(self, path: Path, headers: dict[str, Header]) -> None:
        self.path, self.headers = path, headers

    def load(self, name: str) -> NDArray[Any]:
        with NpzReader(self.path) as archive:
            return archive.load(name)


def _find(path: Path, headers: Mapping[str, Header], key: str | None) -> dict[str, str]:
    """Which arrays are the weight, bias and lam."""
    matrices = [
        n for n, h in headers.items() if len(h.shape) == 2 and h.dtype.kind in "fiu" and h.size
    ]
    listed = ", ".join(f"{n} {h.dtype} {h.shape}" for n, h in headers.items())[:300]
    if key is not None:
        chosen = key
    elif "weight" in matrices or len(matrices) != 1:
        chosen = "weight"
    else:
        chosen = matrices[0]
    if chosen not in matrices:
        what = f"no score matrix {chosen[:80]!r}" if key or len(matrices) else "no score matrix"
        msg = f"{path}: has {what} (two dims of numbers; found: {listed}); name one with --key"
        raise InputError(msg)
    keys = {"weight": chosen}
    for name in ("bias", "lam"):
        header = headers.get(name)
        if header is not None and len(header.shape) == 1 and header.dtype.kind == "f":
            if header.shape[0] not in headers[chosen].shape:
                msg = f"{path}: {name!r} has {header.shape[0]} values, but {chosen[:80]!r} has shape {headers[chosen].shape}"
                raise InputError(msg)
            keys[name] = name
    return keys


def _kind(file: Path, opened: _Opened, keys: Mapping[str, str]) -> tuple[str, str | None]:
    """What a file is, and its orientation where all files of its kind have one."""
    suffix = file.suffix.lower()
    if suffix == ".mmap":
        return "TRAK scores", "train-target"
    if isinstance(opened, bergson_scores.BergsonScores):
        return opened.format, "train-target"
    if isinstance(opened, kronfluence.Modules):
        return f"kronfluence scores, sum of {opened.count} modules", "target-train"
    if file.name == kronfluence.FILE:
        return "kronfluence scores", "target-train"
    if suffix in (".pt", ".pth") and keys["weight"] == "weight":
        # A weight alone has two habits: files of datamodels have train units first, and what modeldiff's own
        # functions take has targets first.
        complete = {"bias", "lam"} <= set(keys)
        return ("datamodels.pt", "train-target") if complete else ("weights in a .pt", None)
    return f"a {suffix} matrix", None


def decide_orientation(
    file: ScoreFile,
    *,
    given: str | None = None,
    train: int | None = None,
    targets: int | None = None,
) -> tuple[str, str]:
    """Which dim of a matrix is the targets.

    Parameters
    ----------
    file : ScoreFile
    given : {"target-train", "train-target"}, optional
        What the user says.
    train, targets : int, optional
        Numbers of examples, where they are known.

    Returns
    -------
    orientation, reason : str

    Raises
    ------
    InputError
        If no orientation fits, the given one does not, or nothing decides.
    """
    rows, columns = file.shape
    sizes = {"target-train": (rows, columns), "train-target": (columns, rows)}
    fits = [
        name
        for name, (t, u) in sizes.items()
        if targets in (None, t) and train in (None, u) and file.bias_length in (None, t)
    ]
    if not fits:
        expected = ", ".join(
            f"{count} {what}"
            for count, what in (
                (targets, "targets"),
                (train, "train units"),
                (file.bias_length, "biases"),
            )
            if count is not None
        )
        msg = f"{file.path}: scores of shape {file.shape} do not fit {expected}; give the examples they were made on"
        raise InputError(msg)
    if given is not None:
        if given not in fits:
            msg = f"{file.path}: scores of shape {file.shape} cannot be {given} here; it must be {fits[0]}"
            raise InputError(msg)
        return given, "as given"
    if len(fits) == 1:
        return fits[0], "by the sizes"
    if file.convention:
        return file.convention, f"as {file.format} are written"
    msg = (
        f"{file.path}: nothing says whether its {rows} x {columns} scores are targets by train units or the reverse; "
        f"give --orientation target-train or train-target{'' if targets else ', or --examples of different numbers'}"
    )
    raise InputError(msg)


def labelled(
    file: ScoreFile,
    *,
    orientation: tuple[str, str],
    units: Units,
    train: NDArray[Any] | None = None,
    targets: NDArray[Any] | None = None,
    lazy: bool = False,
) -> xr.Dataset:
    """Read the scores as labelled datamodels.

    Parameters
    ----------
    file : ScoreFile
    orientation : pair of str
        From :func:`decide_orientation`.
    units : Units
        What is known of the units of the weights.
    train, targets : (count,), optional
        Ids; positions without.
    lazy : bool
        Leave scores that lie in one piece in their file there: they are read once to check them, and
        again, some targets at a time, where they are computed.

    Returns
    -------
    xarray.Dataset
        ``weight`` (target, train) float32 or float64, ``bias`` and ``lam`` (target,) where the file
        has them; coordinates ``target`` and ``train``; attributes that state file, sha256, format,
        shape, dtype, orientation, units and all-zero rows.

    Raises
    ------
    InputError
        If a score is not finite (naming its place), or the runs or the file contradict the units.
    """
    import xarray as xr

    turned = orientation[0] == "train-target"
    placed = file.placed if lazy else None
    weight: Any
    if placed is not None:
        rows = ScoreRows(placed, turned=turned)
        zero_rows, weight = rows.survey(file.path), rows.lazy()
    else:
        weight = _floats(file.opened.load(file.keys["weight"]))
        weight = np.ascontiguousarray(weight.T if turned else weight)
        _check_finite(weight, file)
        zero_rows = int((~weight.any(axis=1)).sum())
    vectors = {
        name: _floats(file.opened.load(file.keys[name]))
        for name in ("bias", "lam")
        if name in file.keys
    }
    stated = None if units.runs is not None else _stated(file, units, weight.shape[1])
    if stated is not None:
        weight, vectors, said = raw_as_stated(weight, vectors, stated, str(file.path))
    else:
        weight, bias, said = raw_units(weight, vectors.get("bias"), units, str(file.path))
        if bias is not None:
            vectors["bias"] = bias
    target_count, train_count = weight.shape
    attrs = {
        "file": file.path.name,
        "sha256": _sha256(file.path),
        "format": file.format,
        "array": file.keys["weight"],
        "shape": list(file.shape),
        "dtype": str(file.opened.headers[file.keys["weight"]].dtype),
        "orientation": f"{orientation[0]}, {orientation[1]}",
        "units": said,
        "zero_rows": zero_rows,
    }
    return xr.Dataset(
        {
            "weight": (("target", "train"), weight, {"stored": attrs["dtype"]}),
            **{name: ("target", values) for name, values in vectors.items()},
        },
        coords={
            "target": np.arange(target_count) if targets is None else targets,
            "train": np.arange(train_count) if train is None else train,
        },
        attrs=attrs,
    )


def _stated(file: ScoreFile, units: Units, train: int) -> Stated | None:
    """The units that the file states, held against what the user says."""
    kind = file.stated_kind
    if kind is None:
        return None
    if units.given and units.kind != kind:
        msg = f"{file.path}: says that its units are {kind}, not {units.kind}; leave --units out"
        raise InputError(msg)
    if kind == "raw":
        return Stated(kind)
    mean, deviation = (np.asarray(file.opened.load(name), dtype=np.float64) for name in _MOMENTS)
    if not mean.shape == deviation.shape == (train,):
        msg = f"{file.path}: mask_mean and mask_std have shapes {mean.shape} and {deviation.shape}, but there are {train} train units; export the file again"
        raise InputError(msg)
    return Stated(kind, mean, deviation)


def _floats(values: NDArray[Any]) -> NDArray[Any]:
    return np.asarray(values, dtype=float_type(values.dtype))


def _check_finite(weight: NDArray[Any], file: ScoreFile) -> None:
    finite = np.isfinite(weight)
    if not finite.all():
        target, train = (int(place[0]) for place in np.nonzero(~finite))
        count, first = int((~finite).sum()), weight[target, train]
        raise InputError(not_finite(file.path, count, first, target, train))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
