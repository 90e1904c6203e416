"""ModelDiff from attribution scores alone: two files to a result directory, no runs, no study."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple, Unpack

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from dmstore import provenance
from dmstore.analysis.comparison.modeldiff import modeldiff, stored_arrays
from dmstore.analysis.comparison.parameters import ComparisonOptions, ComparisonParameters
from dmstore.analysis.comparison.where import restriction, spread
from dmstore.analysis.evaluation.score_matrix import LONGEST_NAME, distinct, printable
from dmstore.analysis.pages.bundle import files_of, put
from dmstore.analysis.pages.page import render
from dmstore.analysis.pages.page_data import Subject
from dmstore.core.given import local_path
from dmstore.core.memory import available, parse
from dmstore.core.progress import Progress
from dmstore.errors import CorruptionError, DmstoreError, ExistsError, InputError
from dmstore.readers.labels import Labels, positions, read_labels
from dmstore.readers.score_rows import float_type
from dmstore.readers.scores import ScoreFile, decide_orientation, labelled, open_scores
from dmstore.readers.units import Units
from dmstore.schema.documents import FORMAT_VERSION, dump_document, load_document
from dmstore.schema.group_specs import check_group, group_spec
from dmstore.schema.typed_documents import ScoreComparisonDocument
from dmstore.storage.objects.build_aside import beside
from dmstore.storage.objects.local import LocalObjects
from dmstore.storage.objects.posix import sync_path
from dmstore.storage.objects.refusals import storage_error
from dmstore.storage.table import groups
from dmstore.study import results
from dmstore.study.outside import outside_studies

_DOCUMENT, _ARRAYS, _PAGE = "comparison.json", "comparison.zarr", "report.html"
_NOTE = (
    "no runs behind the scores: nothing says how much of them is noise; directions and "
    "similarities do not depend on a uniform factor in the scores, bias and magnitudes do"
)

Pair = Sequence[Any]
# How much more alike scores must be once one is transposed to say so.
_MORE_ALIKE = 0.3
# Targets by which that is judged, at most.
_SAMPLE = 512


class _Shown(NamedTuple):
    """What the page shows beside the kept result: datamodels, and what is doubtful about them."""

    weights: list[xr.DataArray]
    doubts: list[str]


def compare_scores(
    a: str | Path,
    b: str | Path,
    examples: str | Path | None = None,
    *,
    out: str | Path | None = None,
    names: Pair = (None, None),
    key: Pair = (None, None),
    experiment: Pair = (None, None),
    orientation: Pair = (None, None),
    units: Pair = (None, None),
    alpha: Pair = (None, None),
    runs: Pair = (None, None),
    where: Sequence[str] = (),
    progress: Progress | None = None,
    memory: int | str | None = None,
    threads: int | None = None,
    **options: Unpack[ComparisonOptions],
) -> xr.Dataset:
    """Compare two files of attribution scores, and keep the result with its report.

    The same call again finds its own result. Without runs nothing is measured: what
    :func:`dmstore.analysis.comparison.answer.answer` reads is absent, and nothing is told from chance.

    Parameters
    ----------
    a, b : path
        Score files (:func:`dmstore.readers.scores.open_scores`) over the same train units and targets.
    examples : path, optional
        An ``.npz`` examples file or a study: ids, labels, class names, images. Positions without.
    out : path, optional
        Directory of the result; ``A-against-B-<id>`` in the working directory by default.
    names, key, experiment, orientation, units, alpha, runs : pair
        One value a file, None where nothing is said: what to call the algorithm (its file's name);
        the matrix in the file; TRAK's experiment; ``target-train`` or ``train-target``; ``raw`` or
        ``standardised``; the share that a run saw (.5); a folder of runs to measure the units with.
    where : sequence of str
        Only targets that meet all of these: ``label=9`` where the examples have labels, ``target=…`` for ids,
        or a file with one target id a line.
    progress : callable, optional
        Called with ``compare``, steps done and steps in all.
    memory : int or str, optional
        Bytes, or a size such as ``8GB``; most of what is free by default. Scores that lie in one piece in
        their file (``.npy``, ``.mmap``, ``.pt``, ``.safetensors``) are read some targets at a time.
    threads : int, optional
        All cores by default.
    components : int
        Directions each way (10).
    top : int
        Targets in a subpopulation (16).
    heavy : int
        Heaviest train units to list for a direction (50).
    center : bool
        Whether PCA subtracts the mean residual (True).
    random_state : int
        Draws contrasts (0).
    fdr : float
        Kept with the result; nothing is claimed without runs (0.05).

    Returns
    -------
    xarray.Dataset
        As in ``comparison.group.json``, with ids, ``target_label`` where labels are known, and the
        attributes ``comparison``, ``path`` (of the directory), ``report``, ``sources``, and ``transposed``: a sentence
        where square scores look as if one of them were; empty where not.

    Raises
    ------
    InputError
        If a file cannot be used, the two do not fit each other or the examples, `where` leaves fewer than
        two targets, or more memory is needed.
    ExistsError
        If there is something else at `out`.
    """
    parameters = ComparisonParameters(**options)
    files = [
        open_scores(path, key=k, experiment=e)
        for path, k, e in zip((a, b), key, experiment, strict=True)
    ]
    given = read_labels(examples) if examples is not None else None
    decided = _orientations(files, orientation, given)
    labels = given or positions(*_sizes(files[0], decided[0])[::-1])
    limit = available() if memory is None else parse(memory)
    held = sum(_held(file, limit) for file in files)
    data = [
        labelled(
            file,
            orientation=decided[row],
            units=_units(file, units[row], alpha[row], runs[row]),
            train=labels.train["train"].values,
            targets=labels.targets["target"].values,
            lazy=True,
        )
        for row, file in enumerate(files)
    ]
    called = _names((a, b), files, names)
    turned = _transposed(data[0]["weight"].data, data[1]["weight"].data, called)
    # As :func:`labelled` states them.
    sources: list[Any] = [dict(one.attrs) for one in data]
    if all(sources[0][k] == sources[1][k] for k in ("sha256", "array")):
        msg = f"{a} and {b} hold the same scores; comparing them tells nothing, give two different files"
        raise InputError(msg)
    chosen = restriction(where, labels.targets, labels.class_names)
    kept = asdict(parameters) | (chosen.stated if chosen else {})
    stated = {
        "algorithms": called,
        "sources": sources,
        "examples": labels.about,
        "parameters": kept,
        "format_version": FORMAT_VERSION,
    }
    name = results.name_of(stated)
    place = outside_studies(_directory(called, name) if out is None else out)
    shown = _Shown([one["weight"] for one in data], [f"{turned}."] if turned else [])
    if not _is_there(place, name):
        label = labels.targets["label"].values if "label" in labels.targets else None
        if chosen:
            data = [one.isel(target=chosen.positions) for one in data]
            label = None if label is None else label[chosen.positions]
        result = modeldiff(
            data[0],
            data[1],
            names=(called[0], called[1]),
            label=label,
            progress=progress,
            memory=max(1, limit - held),
            threads=threads,
            **options,
        )
        if chosen:
            result = spread(result, chosen, labels.targets["target"])
        document: ScoreComparisonDocument = {
            "comparison": name,
            "algorithms": called,
            "sources": sources,
            "examples": labels.about,
            "parameters": kept,
            "created": provenance.utc_now(),
            "software": provenance.software(),
        }
        _keep(place, name, result, document, labels, shown)
    return _load(place, labels, shown).assign_attrs(transposed=turned)


def _held(file: ScoreFile, limit: int) -> int:
    """Bytes that scores take which must be loaded whole.

    Raises
    ------
    InputError
        If that is more than there is.
    """
    if file.placed is not None:
        return 0
    width = float_type(file.opened.headers[file.keys["weight"]].dtype).itemsize
    size = file.shape[0] * file.shape[1] * width
    if 2 * size > limit:
        msg = f"{file.path}: {file.format} is read whole, which needs {2 * size / 1e9:.2f} GB of {limit / 1e9:.2f} GB; give more memory, or save the scores as .npy"
        raise InputError(msg)
    return size


def _transposed(a: Any, b: Any, names: list[str]) -> str:
    """A sentence where square scores are much more alike once one of them is transposed; empty where not."""
    if a.shape[0] != a.shape[1]:
        return ""
    some = np.unique(np.linspace(0, len(a) - 1, min(len(a), _SAMPLE)).astype(int))
    mine = np.asarray(a[some])
    as_read, turned = (_alike(mine, np.asarray(other)) for other in (b[some], b[:, some].T))
    if abs(turned) < abs(as_read) + _MORE_ALIKE:
        return ""
    return (
        f"{names[1]} looks like {names[0]} with targets and train units exchanged (mean cosine similarity {turned:.2f} in place of "
        f"{as_read:.2f}): say with --orientation what rows by columns are"
    )


def _alike(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Mean cosine similarity of rows."""
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    known = lengths > 0
    return float(((a * b).sum(axis=1)[known] / lengths[known]).mean()) if known.any() else 0.0


def _sizes(file: ScoreFile, decided: tuple[str, str]) -> tuple[int, int]:
    """Targets and train units of a file."""
    rows, columns = file.shape
    return (rows, columns) if decided[0] == "target-train" else (columns, rows)


def _orientations(
    files: list[ScoreFile], given: Pair, labels: Labels | None
) -> list[tuple[str, str]]:
    """Orientation of both files, from what is said, the examples, the formats, or each other."""
    if labels is not None:
        train, targets = labels.train.sizes["train"], labels.targets.sizes["target"]
        return [
            decide_orientation(file, given=said, train=train, targets=targets)
            for file, said in zip(files, given, strict=True)
        ]
    # The file that says most goes first; its sizes then decide for the other.
    first, second = sorted(
        (0, 1),
        key=lambda row: (
            given[row] is None,
            files[row].bias_length is None,
            not files[row].convention,
        ),
    )
    decided = {first: decide_orientation(files[first], given=given[first])}
    targets, train = _sizes(files[first], decided[first])
    decided[second] = decide_orientation(
        files[second], given=given[second], train=train, targets=targets
    )
    return [decided[0], decided[1]]


def _units(file: ScoreFile, kind: str | None, alpha: float | None, runs: Any) -> Units:
    default = "standardised" if file.is_standardised_by_default else None
    if kind is not None and runs is not None:
        msg = f"{file.path}: units are either given ({kind}) or measured with runs ({runs}); leave one out"
        raise InputError(msg)
    if alpha is not None and (runs is not None or (kind or default) != "standardised"):
        msg = f"{file.path}: alpha {alpha} is for standardised weights alone; add --units standardised or leave it out"
        raise InputError(msg)
    return Units(
        kind=kind or default,
        alpha=0.5 if alpha is None else alpha,
        given=kind is not None,
        runs=None if runs is None else local_path(runs),
    )


def _names(paths: Pair, files: list[ScoreFile], given: Pair) -> list[str]:
    """What to call the algorithms: as given, else by file, and by folder where files are called the same."""
    stems = [printable(file.path.name.removesuffix(file.path.suffix)) for file in files]
    with contextlib.suppress(InputError):
        stems = distinct(stems, (), paths)
    chosen = [
        str(said) if said is not None else stem for said, stem in zip(given, stems, strict=True)
    ]
    for text in chosen:
        if not text.strip() or not text.isprintable() or len(text) > LONGEST_NAME:
            msg = f"name {text[:60]!r} is not allowed; use 1 to {LONGEST_NAME} printable characters"
            raise InputError(msg)
    if chosen[0] == chosen[1]:
        msg = f"both {paths[0]} and {paths[1]} would be called {chosen[0]!r}; give two different --name"
        raise InputError(msg)
    return chosen


def _directory(names: list[str], name: str) -> str:
    plain = [re.sub(r"[^A-Za-z0-9._]+", "-", text).strip("-.") or "scores" for text in names]
    return f"{plain[0]}-against-{plain[1]}-{name[:8]}"


def _is_there(place: Path, name: str) -> bool:
    """Whether this comparison is at `place`; ExistsError if something else is."""
    if not os.path.lexists(place) or (place.is_dir() and not any(place.iterdir())):
        return False
    stored = None
    with contextlib.suppress(OSError, ValueError):
        raw = (place / _DOCUMENT).read_bytes()
        stored = load_document("score_comparison", raw, str(place / _DOCUMENT))["comparison"]
    if stored != name:
        msg = f"{place}: holds something else than this comparison; choose another --out"
        raise ExistsError(msg)
    return True


def _keep(
    place: Path,
    name: str,
    result: xr.Dataset,
    document: ScoreComparisonDocument,
    labels: Labels,
    shown: _Shown,
) -> None:
    """Build the directory beside its place and rename it there: whole or not at all.

    What a killed comparison with the same result left beside it is removed after a day.
    """
    try:
        with beside(place) as building:
            building.mkdir(parents=True)
            objects = LocalObjects(building)
            groups.write_directory(
                objects, _ARRAYS, group_spec("comparison"), stored_arrays(result)
            )
            _put_page(objects, result, document, labels, shown)
            objects.put_if_absent(_DOCUMENT, dump_document("score_comparison", document))
            try:
                building.rename(place)
            except OSError as error:
                # The same command elsewhere may have been faster: then its result is this one.
                if not _is_there(place, name):
                    raise storage_error(error, place) from error
        sync_path(place.absolute().parent)
    except OSError as error:
        if isinstance(error, DmstoreError):
            raise
        raise storage_error(error, place) from error


def _put_page(
    objects: LocalObjects,
    result: xr.Dataset,
    document: ScoreComparisonDocument,
    labels: Labels,
    shown: _Shown,
) -> None:
    subject = replace(_subject(document, labels), weights=shown.weights, doubts=shown.doubts)
    put(objects, "", files_of(render(result, subject), result))


def _load(place: Path, labels: Labels, shown: _Shown) -> xr.Dataset:
    """A kept result, labelled; its page is written again if it was lost."""
    objects = LocalObjects(place)
    document = load_document("score_comparison", objects.get(_DOCUMENT), str(place / _DOCUMENT))
    import zarr

    spec = group_spec("comparison")
    sizes = {"train": labels.train.sizes["train"], "target": labels.targets.sizes["target"]}
    where = str(place / _ARRAYS)
    try:
        group = zarr.open_group(objects.reader(_ARRAYS), mode="r", zarr_format=3)
        check_group(group, spec, sizes, where)
        arrays = groups.read(objects, _ARRAYS)
    except FileNotFoundError:
        msg = f"{where}: is gone or incomplete; delete {place} and compare again"
        raise CorruptionError(msg) from None
    result = xr.Dataset(
        {k: (spec.arrays[k].dims, v) for k, v in arrays.items() if k in spec.arrays},
        coords={"train": labels.train["train"], "target": labels.targets["target"]},
    )
    if "label" in labels.targets:
        result = result.assign_coords(target_label=("target", labels.targets["label"].values))
    if not objects.exists(_PAGE):
        _put_page(objects, result, document, labels, shown)
    return result.assign_attrs(
        {
            "comparison": document["comparison"],
            "path": str(place),
            "report": str(place / _PAGE),
            "sources": document["sources"],
            **{
                key: value
                for key, value in document["parameters"].items()
                if key in ("where", "targets")
            },
        }
    )


def _subject(document: ScoreComparisonDocument, labels: Labels) -> Subject:
    """What the page says beside the result."""
    cards, provenance = (
        [],
        [("comparison", document["comparison"]), ("from", f"scores alone: {_NOTE}")],
    )
    for name, source in zip(document["algorithms"], document["sources"], strict=True):
        cards.append(
            {
                "title": f"What is {name}?",
                "rows": [
                    ("file", source["file"]),
                    ("kind", source["format"]),
                    ("units", source["units"].partition(" (")[0]),
                    ("all-zero datamodels", str(source["zero_rows"])),
                    ("LDS", "not known without runs"),
                ],
            }
        )
        shape = " x ".join(map(str, source["shape"]))
        provenance += [
            (
                f"{name}: file",
                f"{source['file']}, {source['format']}, array {source['array']} {source['dtype']} {shape}, "
                f"sha256 {source['sha256']}",
            ),
            (f"{name}: orientation", source["orientation"]),
            (f"{name}: units", source["units"]),
        ]
    examples = ", ".join(f"{k} {v}" for k, v in document["examples"].items())
    provenance += [
        ("examples", examples or "none given: positions only"),
        ("parameters", ", ".join(f"{k} {v}" for k, v in document["parameters"].items())),
    ]
    return Subject(
        title=document["examples"].get("source", "scores alone"),
        examples=labels,
        cards=cards,
        provenance=provenance,
        scores_only=True,
    )
