"""What became of an algorithm after it was added: a log of its own, whose next number is the commit.

``algorithm.json`` never changes, and nothing of an algorithm that is removed is deleted: a worker that does
not know yet may be storing a run of it.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from dmstore import provenance
from dmstore.errors import ConflictError, FormatError, NotFoundError
from dmstore.schema.documents import dump_document, load_document
from dmstore.schema.typed_documents import ChangeAction, ChangeDocument
from dmstore.storage.objects.objects import Objects


@dataclass(frozen=True)
class State:
    """What all changes come to.

    Attributes
    ----------
    count : int
        Changes there are.
    removed : bool
        Whether the algorithm is removed.
    reason : str
        Of the last removal or restoration.
    task : str, optional
        The task that it was given later.
    config : mapping
        Of that task.
    """

    count: int = 0
    removed: bool = False
    reason: str = ""
    task: str | None = None
    config: Mapping[str, Any] = field(default_factory=dict)


def read(
    objects: Objects, prefix: str, known: State | None = None, algorithm: str | None = None
) -> State:
    """What became of the algorithm below a prefix.

    Parameters
    ----------
    objects : Objects
    prefix : str
        Ends in ``/``.
    algorithm : str, optional
        Its uuid, where it is known.
    known : State, optional
        As it was before: changes never change, so each is read once.

    Raises
    ------
    FormatError
        If a change is damaged, or not where it belongs.
    """
    state = known or State()
    # By its name, as a listing may be old.
    while objects.exists(name := _name(prefix, state.count + 1)):
        said = load_document("change", objects.get(name), name)
        of_another = algorithm is not None and said["algorithm"] != algorithm
        if (
            of_another
            or said["number"] != state.count + 1
            or (said["action"] == "task") != ("task" in said)
        ):
            msg = f"{name}: is change {said['number']} ({said['action']}), so it does not belong here; restore the file from a copy"
            raise FormatError(msg)
        state = replace(state, count=state.count + 1)
        if said["action"] == "task":
            state = replace(state, task=said["task"], config=said.get("config", {}))
        else:
            removed = said["action"] == "remove"
            state = replace(state, removed=removed, reason=said.get("reason", ""))
    return state


def of_all(objects: Objects) -> dict[str, State]:
    """Names of all algorithms of a study, removed ones too, and what became of each."""
    return {
        name: read(objects, f"algorithms/{name}/")
        for name in objects.children("algorithms/")
        if objects.exists(f"algorithms/{name}/algorithm.json")
    }


def check_there(state: State, objects: Objects, name: str) -> None:
    """Refuse an algorithm that is removed.

    Raises
    ------
    NotFoundError
        With the reason, and how to take it back.
    """
    if state.removed:
        why = f" ({state.reason})" if state.reason else ""
        msg = f"algorithm {name!r} was removed{why}, and its name stays taken; 'dmstore remove {objects.url} {name} --restore' takes it back"
        raise NotFoundError(msg)


def add(
    objects: Objects,
    prefix: str,
    algorithm: str,
    state: State,
    action: ChangeAction,
    *,
    reason: str = "",
    task: str | None = None,
    config: Mapping[str, Any] | None = None,
) -> None:
    """Add a change to those that led to a state.

    Raises
    ------
    ConflictError
        If another one came first.
    """
    document: ChangeDocument = {
        "number": state.count + 1,
        "algorithm": algorithm,
        "action": action,
        "created": provenance.utc_now(),
        "software": provenance.software(),
        "token": uuid.uuid4().hex,
    }
    if reason:
        document["reason"] = reason
    if task is not None:
        document["task"] = task
        document["config"] = dict(config or {})
    name = _name(prefix, state.count + 1)
    if not objects.put_if_absent(name, dump_document("change", document)):
        msg = f"{name}: was made by another host at the same moment; look with 'dmstore status' and try again"
        raise ConflictError(msg)


def _name(prefix: str, number: int) -> str:
    return f"{prefix}changes/{number:04d}.json"
