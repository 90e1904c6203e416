"""How an algorithm is declared: its outputs, checked when it is made and when it is opened."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NotRequired, TypedDict

import numpy as np

from dmstore.core import listed
from dmstore.errors import FormatError, InputError, NotFoundError
from dmstore.schema.group_specs import known_outputs
from dmstore.schema.names import check_column_name
from dmstore.schema.typed_documents import (
    AlgorithmDocument,
    AlgorithmMasks,
    AlgorithmOutput,
    AlgorithmSampling,
    AlgorithmSplit,
    StudyDocument,
)
from dmstore.storage.table.rows import MOST_RUNS


class Declared(TypedDict):
    """What ``algorithm.json`` says of an algorithm beside its name and origin."""

    alpha: float | None
    sampling: AlgorithmSampling
    masks: AlgorithmMasks
    split: NotRequired[AlgorithmSplit]
    target_set: str
    outputs: dict[str, AlgorithmOutput]
    task: str | None
    config: dict[str, Any]


def declare_outputs(
    outputs: Sequence[str] | Mapping[str, Mapping[str, Any]],
) -> dict[str, AlgorithmOutput]:
    """Declarations of outputs from known names or from full entries.

    Parameters
    ----------
    outputs : sequence of str, or mapping
        ``["margin", "logit:float16"]``, or name to ``dtype``, ``dims``, ``function``,
        ``orientation`` and ``units``.

    Raises
    ------
    InputError
        For an unknown or reserved name.
    """
    if not outputs:
        msg = "an algorithm needs at least one output, such as 'margin'"
        raise InputError(msg)
    # A dtype or an entry that is not allowed is refused when the document is written.
    declared: dict[str, Any] = {}
    if isinstance(outputs, Mapping):
        declared = {name: dict(entry) for name, entry in outputs.items()}
    else:
        known = known_outputs()
        for text in listed.texts(outputs, "outputs"):
            name, _, dtype = text.partition(":")
            if name not in known:
                msg = (
                    f"output {name!r} is not known; use {', '.join(known)}, or declare it in Python"
                )
                raise InputError(msg)
            declared[name] = {**known[name], **({"dtype": dtype} if dtype else {})}
    for name, entry in declared.items():
        check_column_name(name, "output")
        if list(entry.get("dims", ()))[:2] != ["run", "target"]:
            msg = f"output {name!r} has dims {entry.get('dims')}; they begin with run, target"
            raise InputError(msg)
    return declared


def declare(
    study: StudyDocument,
    *,
    alpha: float | None,
    runs: int,
    repeats: int,
    sampling: AlgorithmSampling,
    masks: AlgorithmMasks,
    outputs: Sequence[str] | Mapping[str, Mapping[str, Any]],
    target_set: str,
    task: str | None,
    config: Mapping[str, Any] | None,
    split: AlgorithmSplit | None = None,
) -> Declared:
    """What a new algorithm's document says of it, checked; see :meth:`dmstore.study.study.Study.add_algorithm`.

    Raises
    ------
    InputError
        If a value is not allowed.
    NotFoundError
        If the study has no such target set.
    """
    if sampling not in ("planned", "foreign") or masks not in ("shared", "independent"):
        msg = f"sampling {sampling!r} with masks {masks!r}: use planned or foreign, shared or independent"
        raise InputError(msg)
    if split not in (None, "eval"):
        msg = f"split {split!r} is not allowed; give 'eval' where all runs are for evaluation, else leave it out"
        raise InputError(msg)
    if alpha is None and sampling == "planned":
        msg = "planned sampling needs alpha, the share of the training set that a run sees"
        raise InputError(msg)
    count = study["train"]["count"]
    if alpha is not None and not (isinstance(alpha, float | np.floating) and 0 < alpha < 1):
        msg = f"alpha {alpha!r} is not allowed; it must lie strictly between 0 and 1"
        raise InputError(msg)
    if alpha is not None and sampling == "planned" and int(np.floor(alpha * count)) < 1:
        msg = (
            f"alpha {alpha} of {count} train examples is less than one example; use a larger alpha"
        )
        raise InputError(msg)
    if sampling == "foreign" and runs:
        msg = "foreign sampling has no plan; leave the number of runs out"
        raise InputError(msg)
    if not all(isinstance(number, int | np.integer) for number in (runs, repeats)):
        msg = f"{runs!r} runs with {repeats!r} repeats: give whole numbers"
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
        msg = "an output with a value per class needs class names in the study"
        raise InputError(msg)
    declaration: Declared = {
        "alpha": alpha,
        "sampling": sampling,
        "masks": masks,
        "target_set": target_set,
        "outputs": declared,
        "task": task,
        "config": dict(config or {}),
    }
    if split is not None:
        declaration["split"] = split
    return declaration


def check(document: AlgorithmDocument, name: str, sets: Collection[str], where: str) -> None:
    """Check a stored declaration as far as its schema does not.

    Parameters
    ----------
    document : dict
        ``algorithm.json``.
    name : str
        Of the directory that it is in.
    sets : collection of str
        Target sets that the study was made with.
    where : str
        For error texts.

    Raises
    ------
    FormatError
        If it is of another algorithm or set, or could not have been made.
    """
    if document["name"] != name or document["target_set"] not in sets:
        msg = f"{where}: is of algorithm {document['name'][:40]!a} and target set {document['target_set'][:40]!a}, so it does not belong here; remove it"
        raise FormatError(msg)
    if document["sampling"] == "planned" and document["alpha"] is None:
        msg = f"{where}: planned sampling without an alpha; restore the file from a copy"
        raise FormatError(msg)
    try:
        declare_outputs(document["outputs"])
    except InputError as error:
        msg = f"{where}: {error}"
        raise FormatError(msg) from None
