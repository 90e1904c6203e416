"""Who trains what at the moment: hints by which workers keep out of each other's way.

A claim is an object that its worker renews and deletes. One that was not renewed for a while is void, and the next
generation may be claimed; creating that name is exclusive, so that only one worker takes over. Whether a run is stored
never depends on any of this: at worst a run is trained twice.
"""

from __future__ import annotations

import os
import re
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from dmstore import provenance
from dmstore.errors import DmstoreError
from dmstore.schema.documents import dump_document, load_document
from dmstore.schema.typed_documents import ClaimDocument
from dmstore.storage.objects.objects import ObjectInfo, Objects

EXPIRES = 300.0
_NAME = re.compile(r"([0-9]{6})-([0-9]{12})-([0-9]{6})\.json")


@dataclass(frozen=True)
class Claim:
    """A claim of this process on a slot: some runs of the plan that are trained together."""

    name: str
    content: bytes
    slot: int


class Claims:
    """The claims on one algorithm.

    Parameters
    ----------
    objects : Objects
    prefix : str
        Of the algorithm; ends in ``/``.
    algorithm : str
        Its uuid.
    width : int
        Runs of a slot: workers whose slots are of different widths do not see each other.
    expires : float
        Seconds without renewal after which a claim is void.
    """

    def __init__(
        self, objects: Objects, prefix: str, algorithm: str, width: int, expires: float = EXPIRES
    ) -> None:
        self._objects = objects
        self._prefix = f"{prefix}claims/"
        self._algorithm = algorithm
        self.width = width
        self.expires = expires

    def taken(self) -> tuple[set[int], dict[int, int]]:
        """Slots that somebody works on, and for every slot that was ever claimed its last generation."""
        now = self._objects.now()
        taken, generations = set(), dict[int, int]()
        for info, width, slot, generation in listed(self._objects, self._prefix):
            if width != self.width:
                continue
            generations[slot] = max(generations.get(slot, 0), generation)
            if now - info.modified < self.expires:
                taken.add(slot)
        return taken, generations

    def claim(self, slot: int, generation: int, runs: Sequence[int]) -> Claim | None:
        """Claim a slot; None if another worker was faster.

        Parameters
        ----------
        slot : int
        generation : int
            One more than the last one, from :meth:`taken`.
        runs : sequence of int
        """
        document: ClaimDocument = {
            "algorithm": self._algorithm,
            "host": provenance.host(),
            "pid": os.getpid(),
            "runs": list(runs),
            "created": provenance.utc_now(),
            "token": uuid.uuid4().hex,
        }
        name = f"{self._prefix}{self.width:06d}-{slot:012d}-{generation:06d}.json"
        content = dump_document("claim", document)
        return Claim(name, content, slot) if self._objects.put_if_absent(name, content) else None

    def renew(self, claim: Claim) -> None:
        """Say that the work goes on: the object gets a new time by the storage's clock."""
        self._objects.replace(claim.name, claim.content)

    def release(self, claim: Claim) -> None:
        """Give a slot back: what it stood for is stored, or left to others."""
        self._objects.delete(claim.name)


def listed(objects: Objects, prefix: str) -> list[tuple[ObjectInfo, int, int, int]]:
    """Claims below a prefix that ends in ``claims/``: the object, its width, slot and generation."""
    return [
        (info, *map(int, match.groups()))  # type: ignore[misc]
        for info in objects.entries(prefix)
        if (match := _NAME.fullmatch(info.name.rpartition("/")[2]))
    ]


def workers(objects: Objects, prefix: str, expires: float = EXPIRES) -> dict[str, int]:
    """Hosts that hold claims which were renewed lately, and how many workers of each do.

    Parameters
    ----------
    objects : Objects
    prefix : str
        Of the algorithm; ends in ``/``.
    expires : float
        As in :class:`Claims`.
    """
    infos = listed(objects, f"{prefix}claims/")
    seen: set[tuple[str, int]] = set()
    for info, *_ in infos:
        # By this host's clock: asking the storage's own would write, and this is for people to read.
        if time.time() - info.modified < expires:
            try:
                said = load_document("claim", objects.get(info.name), info.name)
            except (FileNotFoundError, DmstoreError):
                continue
            seen.add((said["host"], said["pid"]))
    hosts = sorted(host for host, _ in seen)
    return {host: hosts.count(host) for host in hosts}


def stale(objects: Objects, prefix: str, before: float) -> list[ObjectInfo]:
    """Claims that were not renewed since a moment of the storage's clock, which a vacuum may take."""
    return [info for info, *_ in listed(objects, f"{prefix}claims/") if info.modified <= before]
