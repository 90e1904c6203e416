"""A study made from runs that exist already: ids, subsampling fraction and outputs as they are found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from dmstore import readers
from dmstore.core import bits
from dmstore.core.given import local_path
from dmstore.core.npz import NpzReader
from dmstore.errors import ExistsError, InputError
from dmstore.intake.judging import Skipped, usable
from dmstore.readers.npz import find
from dmstore.readers.source import Output, Request, Source, blocks
from dmstore.schema.group_specs import group_spec, known_outputs
from dmstore.schema.names import check_name
from dmstore.schema.typed_documents import AlgorithmOutput, AlgorithmSplit
from dmstore.storage.objects.remote import is_url
from dmstore.study import examples as example_sets
from dmstore.study.algorithm import ANCHOR, Algorithm
from dmstore.study.creation import create_study
from dmstore.study.study import Study, open_study


def adopt(
    path: str | Path,
    name: str,
    source: str | Path,
    *,
    format: str = "auto",
    request: Request | None = None,
    examples: str | Path | None = None,
    seed: int | None = None,
    split: AlgorithmSplit | None = None,
    say: Callable[[str], None] | None = None,
) -> Algorithm:
    """Make the study and the algorithm that runs of a source belong to, as far as they are missing.

    Ids of train units and targets are positions, unless examples are given. The algorithm has foreign
    sampling; alpha is the share of train units in the masks: exact where all masks have one size,
    else the mean. No run is stored yet.

    Parameters
    ----------
    path : path
        The study; made if it is not there.
    name : str
        The algorithm; added if it is not there.
    source : path
    format : str
        One of :data:`dmstore.readers.FORMATS` but ``npz`` and ``study``, or ``auto``.
    request : Request, optional
        What to take from the source.
    examples : path, optional
        An examples file; see :func:`dmstore.study.creation.create_study`.
    seed : int, optional
        Of a new study.
    split : {"eval"}, optional
        Of a new algorithm; see :meth:`dmstore.study.study.Study.add_algorithm`.
    say : callable, optional
        Called with a line on what is made.

    Raises
    ------
    InputError
        If the source or the examples cannot be used, or do not fit each other or the study.
    """
    check_name(name, "algorithm")
    kind = readers.sniff(source) if format == "auto" else format
    if kind in ("npz", "study"):
        raise _not_adopted(Path(source), kind)
    arrays = example_sets.read_npz(examples) if examples is not None else None
    request = request or Request()
    sizes = None
    if arrays is not None:
        sets = example_sets.check(arrays, str(examples))
        sizes = {key: len(sets[key]["id"]) for key in ("train", "test")}
        named = sets["test"].get("train", np.full(sizes["test"], -1))
        request = replace(request, train=sizes["train"], units=lambda: named)
    path = path if is_url(path) else local_path(path)
    study = open_study(path) if (Path(path) / ANCHOR).exists() else None
    if study is not None and arrays is None:
        request = replace(request, train=study.document["train"]["count"], units=study.target_train)
    opened = readers.open_source(source, kind, request)
    _check(opened, sizes, f"{examples}")
    declared = {key: _declare(key, output) for key, output in opened.outputs.items()}
    if study is None:
        _check_usable(opened, declared)
        study = _create(path, opened, arrays, seed, say)
    document = study.document
    if (document["train"]["count"], document["targets"]["test"]["count"]) != (
        opened.train,
        opened.targets,
    ):
        msg = f"{source}: has {opened.train} train units and {opened.targets} targets, but {path} has {document['train']['count']} and {document['targets']['test']['count']}; name a new study"
        raise InputError(msg)
    if sizes is not None:
        for key, entry in (("train", document["train"]), ("test", document["targets"]["test"])):
            if example_sets.id_hash(sets[key]["id"]) != entry["sha256"]:
                msg = f"{examples}: has other ids than {path}; name a new study"
                raise InputError(msg)
    if name in study.algorithms:
        return _there(study, name, split)
    _check_usable(opened, declared)
    try:
        return _add(study, name, opened, declared, split, say)
    except ExistsError:
        return _there(study, name, split)


def _there(study: Study, name: str, split: AlgorithmSplit | None) -> Algorithm:
    algorithm = study.algorithm(name)
    if split is not None and algorithm.document.get("split") != split:
        msg = f"algorithm {name!r} is there already, and not for evaluation only; take another name, or leave --split out"
        raise InputError(msg)
    return algorithm


def _not_adopted(path: Path, kind: str) -> InputError:
    """Why no study is made of a path, and what to do instead."""
    if not path.exists():
        return InputError(f"{path}: no such file or directory")
    if kind == "study":
        return InputError(
            f"{path}: is a study; pull or copy it to have it, or ingest it, without --create, into a study of the same examples"
        )
    workers = find(path)[0] if path.is_dir() else [path] if path.suffix == ".npz" else []
    if not workers:
        return InputError(
            f"{path}: holds no runs that are read; save masks and outputs as .npy files in a folder (masks.npy, margins.npy), "
            f"or as an .npz (scores go into 'dmstore compare' and 'dmstore evaluate --scores')"
        )
    with NpzReader(workers[0]) as reader:
        masks = sorted({"mask", "mask_packed"} & reader.headers.keys())
    if not masks:
        return InputError(
            f"{workers[0]}: holds no 'mask' (found: {', '.join(reader.headers)}); name the masks with --mask, and say --format arrays"
        )
    return InputError(
        f"{path}: workers' files do not say what their study is; make it with 'dmstore init' and 'dmstore add --sampling foreign', "
        f"then ingest without --create (one file alone makes a study with --format arrays)"
    )


def _check(source: Source, sizes: dict[str, int] | None, examples: str) -> None:
    if not source.outputs:
        msg = f"{source.path}: holds no output; say which array is one with --output NAME=KEY"
        raise InputError(msg)
    if not len(source.ids):
        msg = f"{source.path}: holds no finished run"
        raise InputError(msg)
    if sizes is not None and (sizes["train"], sizes["test"]) != (source.train, source.targets):
        msg = f"{examples}: has {sizes['train']} train units and {sizes['test']} targets, but {source.path} has {source.train} and {source.targets}"
        raise InputError(msg)


def _check_usable(source: Source, declared: dict[str, AlgorithmOutput]) -> None:
    """Refuse a source of which no row is a run, before a study is made that would stay empty."""
    spec = group_spec("runs", declared)
    skipped: Skipped = {}
    for places in blocks(source, np.arange(len(source.ids))):
        rows = source.read(places, list(declared))
        if len(usable(rows, spec, skipped, zero_filled=source.zero_filled)):
            return
    msg = f"{source.path}: none of its {len(source.ids)} runs can be stored ({'; '.join(sorted(skipped))}); write them again, or name the right arrays; nothing was made"
    raise InputError(msg)


def _create(
    path: str | Path,
    source: Source,
    arrays: dict[str, Any] | None,
    seed: int | None,
    say: Callable[[str], None] | None,
) -> Study:
    if arrays is None:
        arrays = {
            "train_id": np.arange(source.train).astype(str),
            "target_id": np.arange(source.targets).astype(str),
        }
        if source.target_train is not None:
            arrays["target_train"] = source.target_train
    classes = max((output.classes or 0 for output in source.outputs.values()), default=0)
    try:
        study = create_study(path, arrays, seed=seed, classes=classes)
    except ExistsError:
        # Another host made it meanwhile, or something else is there: then this says so.
        if not (Path(path) / ANCHOR).exists():
            raise
        return open_study(path)
    if say:
        say(f"{path}: made, {source.train} train units, {source.targets} targets")
    return study


def _add(
    study: Study,
    name: str,
    source: Source,
    declared: dict[str, AlgorithmOutput],
    split: AlgorithmSplit | None,
    say: Callable[[str], None] | None,
) -> Algorithm:
    low, high, mean = mask_sizes(source)
    alpha = low / source.train if low == high else mean / source.train
    made = study.add_algorithm(
        name,
        alpha=alpha if 0 < alpha < 1 else None,
        sampling="foreign",
        outputs=declared,
        config={
            "imported": {
                "format": source.format,
                "alpha": "exact" if low == high else "mean",
                "mask_sizes": [low, high],
                "keys": {key: output.key for key, output in source.outputs.items()},
                **({"conventions": dict(source.conventions)} if source.conventions else {}),
            }
        },
        split=split,
    )
    if say:
        sizes = f"masks of {low}" if low == high else f"masks of {low} to {high}"
        outputs = ", ".join(f"{key} {entry['dtype']}" for key, entry in declared.items())
        say(f"{name}: added, {sizes} of {source.train} train units (alpha {alpha:.4g}), {outputs}")
    return made


def mask_sizes(source: Source) -> tuple[int, int, float]:
    """Smallest, largest and mean number of train units in the masks that are not empty."""
    low, high, total, count = source.train, 0, 0, 0
    for places in blocks(source, np.arange(len(source.ids))):
        size = np.bitwise_count(bits.pack_rows(source.masks(places))).sum(axis=1, dtype=np.int64)
        size = size[size > 0]
        if len(size):
            low, high = min(low, int(size.min())), max(high, int(size.max()))
            total, count = total + int(size.sum()), count + len(size)
    if not count:
        msg = f"{source.path}: all masks are empty; name the right array with --mask"
        raise InputError(msg)
    return low, high, total / count


def _declare(name: str, output: Output) -> AlgorithmOutput:
    """The declaration of an output: what is known of its name, in the dtype of the source."""
    known = output.declared or known_outputs().get(name)
    dims = ["run", "target", *(["class"] if output.classes else [])]
    # What a document may say is checked where it is written.
    entry: Any = {
        "dims": dims,
        "function": f"{output.key!r} of an import; the function is not recorded",
        "orientation": "not recorded",
        "units": "not recorded",
    }
    if known is not None and known.get("dims") == dims:
        entry = dict(known)
    return cast(AlgorithmOutput, {**entry, **output.about, "dtype": output.dtype})
