"""Retraction: rows leave every later view by one log entry; earlier snapshots stay what they were."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from dataclasses import dataclass, replace

from dmstore.errors import StorageError
from dmstore.storage.acts.compact import require_exclusive
from dmstore.storage.table import log
from dmstore.storage.table.protocol import Call, Steps
from dmstore.storage.table.rows import Pairs
from dmstore.storage.table.segment import SegmentInfo
from dmstore.storage.table.snapshot import Snapshot, snapshot_steps
from dmstore.storage.table.table import Table
from dmstore.storage.table.view import View

_ATTEMPTS = 10


@dataclass(frozen=True)
class Retraction:
    """Rows (run id, digest) that a retraction or restoration changed, and the version in force."""

    rows: tuple[tuple[int, str], ...]
    version: int


def retract(table: Table, choose: Callable[[View], Pairs], reason: str) -> Retraction:
    """Take rows out of every later view.

    Parameters
    ----------
    table : Table
    choose : callable
        Given a view, the (run id, digest) pairs to retract; asked again if another commit came first,
        and about the rows of the same ids that come up in their place.
    reason : str
        Stands in the log.

    Raises
    ------
    StorageError
        If the storage refuses; nothing is retracted then.
    """

    def ask(state: Snapshot) -> Pairs:
        return choose_all(View(table, state), choose)

    return table.run(retraction_steps(table.prefix, table.infos, table.pause, ask, reason))


def seen(view: View, retracted: Pairs) -> View:
    """What a view would show if just these rows were retracted."""
    state = view.snapshot
    manifest = replace(state.manifest, retracted=tuple(sorted(retracted)))
    return View(view.table, Snapshot.merge(manifest, state.base, state.tail))


def choose_all(view: View, choose: Callable[[View], Pairs]) -> Pairs:
    """What is chosen of a view, and of the rows in conflict that come up in place of the chosen."""
    pairs: Pairs = set()
    while more := choose(view) - pairs:
        pairs |= more
        if not {run for run, _ in more} & {run for run, _ in view.conflicts}:
            break
        view = seen(view, {*view.manifest.retracted, *more})
    return pairs


def retraction_steps(
    prefix: str,
    known: MutableMapping[str, SegmentInfo],
    pause: Call,
    choose: Callable[[Snapshot], Pairs],
    reason: str,
) -> Steps[Retraction]:
    """What a retraction does; see :func:`retract`."""
    for _ in range(_ATTEMPTS):
        state = yield from snapshot_steps(prefix, known, pause)

        def chosen(state: Snapshot = state) -> Pairs:
            return choose(state)

        pairs = (yield Call(chosen)) - set(state.manifest.retracted)
        if not pairs:
            return Retraction((), state.manifest.version)
        yield from require_exclusive(prefix)
        manifest = replace(
            state.manifest,
            version=state.manifest.version + 1,
            action="retract",
            retracted=tuple(sorted({*state.manifest.retracted, *pairs})),
            reason=reason,
        )
        if (yield from log.commit_steps(prefix, manifest)):
            return Retraction(tuple(sorted(pairs)), manifest.version)
    msg = f"{prefix}: {_ATTEMPTS} retractions in a row were overtaken; run it again"
    raise StorageError(msg)


def restore(table: Table, choose: Callable[[Pairs], Pairs], reason: str) -> Retraction:
    """Let retracted rows be seen again, where they are still stored or are stored again.

    Parameters
    ----------
    table : Table
    choose : callable
        Given all retracted (run id, digest) pairs, those to restore.
    reason : str
        Stands in the log.
    """
    return table.run(restoration_steps(table.prefix, choose, reason))


def restoration_steps(
    prefix: str, choose: Callable[[Pairs], Pairs], reason: str
) -> Steps[Retraction]:
    """What a restoration does; see :func:`restore`."""
    for _ in range(_ATTEMPTS):
        manifest = yield from log.newest_steps(prefix)
        pairs = choose(set(manifest.retracted)) & set(manifest.retracted)
        if not pairs:
            return Retraction((), manifest.version)
        yield from require_exclusive(prefix)
        following = replace(
            manifest,
            version=manifest.version + 1,
            action="restore",
            retracted=tuple(pair for pair in manifest.retracted if pair not in pairs),
            reason=reason,
        )
        if (yield from log.commit_steps(prefix, following)):
            return Retraction(tuple(sorted(pairs)), following.version)
    msg = f"{prefix}: {_ATTEMPTS} restorations in a row were overtaken; run it again"
    raise StorageError(msg)
