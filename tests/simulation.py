"""A simulated storage and a scheduler: the protocol's own steps, every interleaving, every fault.

Objects are bytes in a dictionary with a clock. Actors are generators of steps; the scheduler decides, by
a seed, who moves next, whether an answer is lost, wrong or late, how old a listing is, and who dies.
"""

from __future__ import annotations

import hashlib
import json
import random
from dataclasses import dataclass, field

import numpy as np

from dmstore.errors import CorruptionError, StorageError
from dmstore.storage import protocol, retract, tag, vacuum
from dmstore.storage.compact import compaction_steps
from dmstore.storage.objects import ObjectInfo
from dmstore.storage.segment import SegmentInfo
from dmstore.storage.snapshot import BaseRows, content_id, snapshot_steps

PREFIX = "runs/"
STALE = 60.0


def digest_of(run, content=0):
    return np.frombuffer(
        hashlib.blake2b(f"{run} {content}".encode(), digest_size=16).digest(), np.uint8
    )


@dataclass
class Stored:
    content: bytes
    created: float
    creator: int
    deleted: float = float("inf")
    deleter: int = -1


@dataclass
class Faults:
    """Chances, each of one operation."""

    lost_reply: float = 0.0
    false_exists: float = 0.0
    refused: float = 0.0
    stale: float = 0.0
    death: float = 0.0


class Storage:
    def __init__(self, draw: random.Random, faults: Faults) -> None:
        self.draw = draw
        self.faults = faults
        self.clock = 1_000_000.0
        self.objects: dict[str, list[Stored]] = {}

    def current(self, name):
        versions = self.objects.get(name, [])
        return versions[-1] if versions and versions[-1].deleted == float("inf") else None

    def names(self, actor, seen):
        """What a listing that is as old as `seen` shows to an actor, who always sees its own doing."""
        for name, versions in self.objects.items():
            for v in versions:
                created = v.created <= seen or v.creator == actor
                deleted = v.deleted <= seen or v.deleter == actor
                if created and not deleted:
                    yield name, v
                    break

    def listing(self, actor, prefix):
        age = self.draw.uniform(0, STALE) if self.draw.random() < self.faults.stale else 0.0
        found = [
            ObjectInfo(name, len(v.content), v.created)
            for name, v in self.names(actor, self.clock - age)
            if name.startswith(prefix)
        ]
        return sorted(found, key=lambda info: info.name)

    def put(self, actor, name, content):
        self.objects.setdefault(name, []).append(Stored(content, self.clock, actor))

    def delete(self, actor, name):
        for found in list(self.objects):
            stored = self.current(found)
            if stored and (found == name or found.startswith(f"{name}/")):
                stored.deleted, stored.deleter = self.clock, actor

    def get(self, name):
        stored = self.current(name)
        if stored is None:
            raise FileNotFoundError(name)
        return stored.content

    def perform(self, actor, operation, pinned):
        """A generator that does one operation, in several moves where it is not atomic."""
        draw, faults = self.draw, self.faults
        if draw.random() < faults.refused and not isinstance(operation, protocol.Call):
            raise StorageError("EIO")
        match operation:
            case protocol.Children(prefix):
                found = {
                    i.name.removeprefix(prefix).split("/")[0] for i in self.listing(actor, prefix)
                }
                return sorted(found)
            case protocol.Entries(prefix):
                return self.listing(actor, prefix)
            case protocol.Exists(name):
                return self.current(name) is not None
            case protocol.Get(name):
                return self.get(name)
            case protocol.Put(name, content):
                if draw.random() < faults.false_exists:
                    return False
                if self.current(name):
                    return False
                self.put(actor, name, content)
                if draw.random() < faults.lost_reply:
                    # The client repeats the request and is told that the name is taken, or gives up.
                    if draw.random() < 0.5:
                        return False
                    raise StorageError("reply lost")
                return True
            case protocol.Delete(name):
                for found in [n for n in list(self.objects) if n.startswith(f"{name}/")]:
                    self.delete(actor, found)
                    yield
                self.delete(actor, name)
                return None
            case protocol.Now():
                return self.clock
            case protocol.Leftovers():
                return []
            case protocol.Exclusive():
                return True
            case protocol.Call(function):
                return function()
            case protocol.ReadInfos(names):
                infos = []
                for name in names:
                    infos.append(self.info(name))
                    yield
                return infos
            case protocol.ReadBase(base):
                return self.base(base)
            case protocol.WriteBase(path, snapshot):
                return (yield from self.write_base(actor, path, snapshot))
            case protocol.CheckBase(path, snapshot):
                run, digest = self.rows(path)
                if not (
                    np.array_equal(run, snapshot.run) and np.array_equal(digest, snapshot.digest)
                ):
                    raise CorruptionError(path)
                return None
        raise AssertionError(operation)

    def info(self, name):
        rows = json.loads(self.get(name))
        run = np.array([row[0] for row in rows], dtype=np.int64)
        digest = np.array([list(bytes.fromhex(row[1])) for row in rows], dtype=np.uint8)
        return SegmentInfo(name, run, digest, {})

    def rows(self, path):
        rows = []
        for part in ("a", "b", "zarr.json"):
            try:
                rows += json.loads(self.get(f"{PREFIX}{path}/{part}"))
            except FileNotFoundError as error:
                raise CorruptionError(str(error)) from None
        run = np.array([row[0] for row in rows], dtype=np.int64)
        digest = np.array([list(bytes.fromhex(row[1])) for row in rows], dtype=np.uint8)
        return run, digest.reshape(-1, 16)

    def base(self, base):
        if self.current(f"{PREFIX}{base.path}/zarr.json") is None:
            raise FileNotFoundError(base.path)
        run, digest = self.rows(base.path)
        if len(run) != base.runs or content_id(run, digest) != base.content_id:
            raise CorruptionError(base.path)
        return BaseRows(run, digest)

    def write_base(self, actor, path, snapshot):
        rows = []
        for number, index in snapshot.places:
            if number:
                try:
                    found = json.loads(self.get(snapshot.tail[number - 1].name))
                except FileNotFoundError as error:
                    raise CorruptionError(str(error)) from None
            else:
                run, digest = self.rows(snapshot.manifest.base.path)
                found = [[int(r), d.tobytes().hex()] for r, d in zip(run, digest, strict=True)]
            rows += [found[i] for i in index]
            yield
        half = len(rows) // 2
        for part, content in (("a", rows[:half]), ("b", rows[half:]), ("zarr.json", [])):
            self.put(actor, f"{PREFIX}{path}/{part}", json.dumps(content).encode())
            yield


@dataclass
class History:
    """What was submitted, acknowledged and read."""

    submitted: set = field(default_factory=set)
    acknowledged: dict = field(default_factory=dict)
    retracted: set = field(default_factory=set)
    tags: dict = field(default_factory=dict)
    reads: int = 0
    deaths: int = 0
    conflicts_allowed: bool = False


class Actor:
    """A script of steps, each of which may fail and be tried again."""

    def __init__(self, number, storage, script):
        self.number = number
        self.storage = storage
        self.moves = self._run(script)
        self.alive = True
        self.moved = 0

    def _run(self, script):
        for make, done in script:
            for _ in range(6):
                try:
                    result = yield from self._drive(make())
                except (StorageError, tag.IncompleteError, tag.ExistsError):
                    continue
                done(result)
                break

    def _drive(self, steps):
        try:
            operation = next(steps)
            while True:
                # A move before and after each operation: an answer may be old when it arrives.
                yield
                try:
                    result = yield from self.storage.perform(self.number, operation, None)
                except Exception as error:  # noqa: BLE001 - whatever it is, the steps decide
                    operation = steps.throw(error)
                else:
                    operation = steps.send(result)
        except StopIteration as stop:
            return stop.value

    def move(self):
        self.moved += 1
        try:
            next(self.moves)
        except StopIteration:
            self.alive = False


class World:
    """Writers, compactors, a vacuum, a tagger, a retractor and a reader on one storage."""

    def __init__(self, seed, *, grace, faults, conflicts=False, retractor=False):
        self.draw = random.Random(seed)
        self.storage = Storage(self.draw, faults)
        self.grace = grace
        self.history = History(conflicts_allowed=conflicts)
        self.most = 0
        pause = protocol.Call(self._pause)
        actors = []
        for number in range(2):
            rows = [[10 * number + 3 * k + i for i in range(2)] for k in range(3)]
            if conflicts:
                rows[0] = [0, 1 + number]
            actors.append([self._append(runs, number if conflicts else 0) for runs in rows])
        for _ in range(2):
            actors.append(
                [(lambda: compaction_steps(PREFIX, {}, pause), lambda done: None) for _ in range(2)]
            )
        pinned = protocol.Call(self._pinned)
        actors.append(
            [
                (lambda: vacuum.vacuum_steps(PREFIX, pinned, grace), lambda done: None)
                for _ in range(2)
            ]
        )
        actors.append([self._tag(name) for name in ("one", "two")])
        actors.append([(lambda: self._read(pause), self._check_read) for _ in range(4)])
        if retractor:
            actors.append([self._retract(pause)])
        self.actors = [Actor(i, self.storage, script) for i, script in enumerate(actors)]

    def _pause(self):
        self.storage.clock += self.draw.uniform(0, 5)

    def _pinned(self):
        # A listing of tags, then one get each, as the real one.
        names = [i.name for i in self.storage.listing(99, f"{PREFIX}tags/")]
        found = set()
        for name in names:
            if self.storage.current(name):
                found.add(json.loads(self.storage.get(name))["base"])
        return found

    def _append(self, runs, content):
        rows = [[run, digest_of(run, content).tobytes().hex()] for run in runs]

        def make():
            self.history.submitted |= {tuple(row) for row in rows}
            name = (
                f"{PREFIX}segments/{self.draw.randrange(16):x}/{self.draw.random():.17f}.zarr.zip"
            )
            return self._put(name, json.dumps(rows).encode())

        def done(made):
            assert made is None or isinstance(made, bool)
            if made:
                for row in rows:
                    self.history.acknowledged.setdefault(tuple(row), self.storage.clock)

        return make, done

    def _put(self, name, content):
        made = yield from protocol.create(name, content)
        if not made:
            raise StorageError("taken")
        return made

    def _tag(self, name):
        def done(made):
            self.history.tags[name] = made

        return (lambda: tag.create_steps(PREFIX, name)), done

    def _retract(self, pause):
        def choose(state):
            pairs = {
                (int(run), digest.tobytes().hex())
                for run, digest in zip(state.run, state.digest, strict=True)
                if run % 10 == 0
            }
            # Whatever is asked may be committed, even if the answer is lost.
            self.history.retracted |= pairs
            return pairs

        return (
            lambda: retract.retraction_steps(PREFIX, {}, pause, choose, "test")
        ), lambda done: None

    def _read(self, pause):
        # What had been acknowledged before, for longer than a listing can be old, must be seen.
        sure = {
            pair
            for pair, when in self.history.acknowledged.items()
            if not self.storage.faults.stale or when < self.storage.clock - STALE
        }
        state = yield from snapshot_steps(PREFIX, {}, pause)
        return state, sure

    def _check_read(self, result):
        state, sure = result
        self.history.reads += 1
        self.check(state, sure)

    def check(self, state, sure):
        visible = {
            (int(run), digest.tobytes().hex())
            for run, digest in zip(state.run, state.digest, strict=True)
        }
        runs = [run for run, _ in visible]
        assert len(runs) == len(set(runs)) == len(state.run), "an id twice"
        assert visible <= self.history.submitted, "rows that nobody wrote"
        hidden = visible | set(state.conflicts) | self.history.retracted
        assert sure <= hidden, f"lost: {sure - hidden}"
        if not self.history.conflicts_allowed:
            assert not state.conflicts

    def run(self):
        faults = self.storage.faults
        # One actor falls asleep after some moves and wakes when all the others are done.
        sleeper, moves = self.draw.choice(self.actors), self.draw.randrange(60)
        while any(actor.alive for actor in self.actors):
            awake = [a for a in self.actors if a.alive and (a is not sleeper or a.moved < moves)]
            actor = self.draw.choice(awake or [sleeper])
            # Bursts let one actor overtake another by far, which a fair choice hardly ever does.
            for _ in range(self.draw.choice((1, 1, 2, 5, 20, 200))):
                if not actor.alive or (
                    actor is sleeper and actor.moved == moves and len(awake) > 1
                ):
                    break
                self.storage.clock += self.draw.expovariate(1.0)
                if self.draw.random() < 0.01:
                    self.storage.clock += self.draw.uniform(0, 2 * max(self.grace, 1))
                if self.draw.random() < faults.death:
                    actor.alive = False
                    self.history.deaths += 1
                    break
                actor.move()
        self.finish()

    def finish(self):
        """With all faults gone: everything acknowledged is there, and every object is explained."""
        self.storage.faults = Faults()
        pause = protocol.Call(lambda: None)

        def run(steps):
            actor = Actor(50, self.storage, [])
            moves = actor._drive(steps)
            while True:
                try:
                    next(moves)
                except StopIteration as stop:
                    return stop.value

        state = run(snapshot_steps(PREFIX, {}, pause))
        self.check(state, set(self.history.acknowledged))
        for made in self.history.tags.values():
            run_ids, digest = self.storage.rows(made["base"])
            assert content_id(run_ids, digest) == made["content_id"]
        self.storage.clock += 10 * max(self.grace, 100)
        done = run(compaction_steps(PREFIX, {}, pause))
        after = run(snapshot_steps(PREFIX, {}, pause))
        assert set(after.run.tolist()) == set(state.run.tolist())
        assert len(after.run) >= len(state.run)
        self.storage.clock += 10 * max(self.grace, 100)
        run(vacuum.vacuum_steps(PREFIX, protocol.Call(self._pinned), self.grace))
        final = run(snapshot_steps(PREFIX, {}, pause))
        assert final.content_id() == after.content_id()
        bases = self._pinned()
        if done.manifest.base:
            bases.add(done.manifest.base.path)
        tail = {info.name for info in final.tail}
        for name in list(self.storage.objects):
            if self.storage.current(name):
                kind = name.removeprefix(PREFIX).split("/")[0]
                assert (
                    kind in ("log", "tags")
                    or name in tail
                    or any(name.startswith(f"{PREFIX}{base}/") for base in bases)
                ), f"unexplained: {name}"
