"""Adding an algorithm to a study: what it declares, checked before anything is written."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dmstore import provenance
from dmstore.errors import ExistsError, InputError, NotFoundError
from dmstore.schema import schema
from dmstore.storage.objects.objects import Objects
from dmstore.storage.table.rows import MOST_RUNS
from dmstore.study.algorithm import Algorithm, open_algorithm
from dmstore.study.declaration import declare_outputs

_DECLARED = ("alpha", "sampling", "masks", "target_set", "outputs", "task", "config")


def add_algorithm(
    objects: Objects,
    study: Mapping[str, Any],
    name: str,
    *,
    alpha: float | None = 0.5,
    runs: int = 0,
    repeats: int = 1,
    sampling: str = "planned",
    masks: str = "shared",
    outputs: Sequence[str] | Mapping[str, Mapping[str, Any]] = ("margin",),
    target_set: str = "test",
    task: str | None = None,
    config: Mapping[str, Any] | None = None,
) -> Algorithm:
    """Add an algorithm to a study; see :meth:`dmstore.study.study.Study.add_algorithm`."""
    schema.check_name(name, "algorithm")
    taken = {
        other.lower(): other
        for other in objects.children("algorithms/")
        if objects.exists(f"algorithms/{other}/algorithm.json")
    }
    if taken.get(name.lower(), name) != name:
        raise _exists(taken[name.lower()])
    if sampling not in ("planned", "foreign") or masks not in ("shared", "independent"):
        msg = f"sampling {sampling!r} with masks {masks!r}: use planned or foreign, shared or independent"
        raise InputError(msg)
    if alpha is None and sampling == "planned":
        msg = "planned sampling needs alpha, the share of the training set that a run sees"
        raise InputError(msg)
    count = study["train"]["count"]
    if alpha is not None and not 0 < alpha < 1:
        msg = f"alpha {alpha} is not allowed; it must lie strictly between 0 and 1"
        raise InputError(msg)
    if alpha is not None and sampling == "planned" and int(np.floor(alpha * count)) < 1:
        msg = (
            f"alpha {alpha} of {count} train examples is less than one example; use a larger alpha"
        )
        raise InputError(msg)
    if sampling == "foreign" and runs:
        msg = "foreign sampling has no plan; leave the number of runs out"
        raise InputError(msg)
    if not (0 <= runs <= MOST_RUNS and 1 <= repeats <= MOST_RUNS):
        msg = f"{runs} runs with {repeats} repeats: give 0 or more runs, 1 or more repeats, at most {MOST_RUNS}"
        raise InputError(msg)
    if target_set not in study["targets"]:
        msg = (
            f"target set {target_set!r} is not in this study; it has {', '.join(study['targets'])}"
        )
        raise NotFoundError(msg)
    declared = declare_outputs(outputs)
    if not study.get("classes") and any("class" in entry["dims"] for entry in declared.values()):
        msg = "an output with a value a class needs class names in the study"
        raise InputError(msg)
    document = {
        "name": name,
        "study": study["uuid"],
        "uuid": uuid.uuid4().hex,
        "created": provenance.utc_now(),
        "software": provenance.software(),
        "alpha": alpha,
        "sampling": sampling,
        "masks": masks,
        "target_set": target_set,
        "outputs": declared,
        "task": task,
        "config": dict(config or {}),
    }
    raw = schema.dump_document("algorithm", document)
    if name.lower() in taken:
        # A killed call may have declared the algorithm and planned no runs yet.
        algorithm = open_algorithm(objects, study, name)
        same = all(algorithm.document[key] == document[key] for key in _DECLARED)
        if not same or not runs or algorithm.blocks():
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
        f"algorithm {name!r} exists in this study; choose another name, or extend it"
    )
