"""The algorithms of a study: opening one by its name, and adding one."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from dmstore import provenance
from dmstore.errors import ExistsError, InputError, NotFoundError
from dmstore.schema.documents import dump_document, load_document
from dmstore.schema.names import check_name
from dmstore.schema.typed_documents import (
    AlgorithmDocument,
    AlgorithmMasks,
    AlgorithmSampling,
    AlgorithmSplit,
    StudyDocument,
)
from dmstore.storage.objects.objects import Objects
from dmstore.study import changes, declaration
from dmstore.study.algorithm import Algorithm, require_study


def open_algorithm(
    objects: Objects, study: StudyDocument, name: str, *, removed: bool = False
) -> Algorithm:
    """Open an algorithm, one that is removed only where that is asked for.

    Raises
    ------
    NotFoundError
        If the study has none of this name, or it is removed.
    FormatError
        If its document is damaged, of another study, or of another format.
    """
    check_name(name, "algorithm")
    where = f"algorithms/{name}/algorithm.json"
    try:
        document = load_document("algorithm", objects.get(where), where)
    except (FileNotFoundError, NotADirectoryError):
        require_study(objects)
        known = ", ".join(n for n, s in changes.of_all(objects).items() if not s.removed)
        known = known or "none yet"
        msg = (
            f"algorithm {name!r} is not in this study (it has: {known}); add it with 'dmstore add'"
        )
        raise NotFoundError(msg) from None
    if document["study"] != study["uuid"]:
        msg = f"{where}: belongs to study {document['study']}, not to this one"
        raise InputError(msg)
    declaration.check(document, name, study["targets"], where)
    algorithm = Algorithm(objects, study, document)
    if not removed:
        algorithm.require()
    return algorithm


def add_algorithm(
    objects: Objects,
    study: StudyDocument,
    name: str,
    *,
    alpha: float | None = 0.5,
    runs: int = 0,
    repeats: int = 1,
    sampling: AlgorithmSampling = "planned",
    masks: AlgorithmMasks = "shared",
    outputs: Sequence[str] | Mapping[str, Mapping[str, Any]] = ("margin",),
    target_set: str = "test",
    task: str | None = None,
    config: Mapping[str, Any] | None = None,
    split: AlgorithmSplit | None = None,
) -> Algorithm:
    """Add an algorithm to a study; see :meth:`dmstore.study.study.Study.add_algorithm`."""
    check_name(name, "algorithm")
    taken = {
        other.lower(): other
        for other in objects.children("algorithms/")
        if objects.exists(f"algorithms/{other}/algorithm.json")
    }
    if taken.get(name.lower(), name) != name:
        raise _exists(taken[name.lower()])
    declared = declaration.declare(
        study,
        alpha=alpha,
        runs=runs,
        repeats=repeats,
        sampling=sampling,
        masks=masks,
        outputs=outputs,
        target_set=target_set,
        task=task,
        config=config,
        split=split,
    )
    document: AlgorithmDocument = {
        "name": name,
        "study": study["uuid"],
        "uuid": uuid.uuid4().hex,
        "created": provenance.utc_now(),
        "software": provenance.software(),
        **declared,
    }
    raw = dump_document("algorithm", document)
    if name.lower() in taken:
        # A killed call may have declared the algorithm and planned no runs yet.
        algorithm = open_algorithm(objects, study, name)
        same = all(algorithm.document.get(key) == value for key, value in declared.items())
        same &= algorithm.document.get("split") == split
        if not same or not runs or algorithm.blocks:
            raise _exists(name)
    elif objects.put_if_absent(f"algorithms/{name}/algorithm.json", raw):
        algorithm = Algorithm(objects, study, document)
    else:
        raise _exists(name)
    if runs:
        algorithm.extend(runs, repeats=repeats)
    return algorithm


def _exists(name: str) -> ExistsError:
    return ExistsError(
        f"algorithm {name!r} exists in this study; choose another name, or plan more of its runs with 'dmstore extend'"
    )
