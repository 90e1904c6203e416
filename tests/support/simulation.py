"""A simulated storage and a scheduler: the protocol's own steps, every interleaving, every fault.

Objects are bytes in a dictionary with a clock. Actors are generators of steps; the scheduler decides, by
a seed, who moves next, whether an answer is lost, wrong or late, how old a listing is, and who dies.

There are three ways of scheduling, drawn by the seed. Finely: any actor may move at any operation, in
bursts of any length, and one sleeps for long. In turns: an actor goes on until its next operation that
others can see or that sees others (:data:`TURNS`), and there may sleep while others make a few of theirs.
By plans: one actor stops just before something that it does (:data:`EFFECTS`), others do whole pieces of
work, a second stops likewise, and then the two go on: what goes wrong only when three hosts stop at the
right places is found in tens of schedules so, not in thousands. Time jumps to the moments at which
something becomes old enough for a vacuum.
"""

from __future__ import annotations

import hashlib
import json
import random
from dataclasses import dataclass, field

import numpy as np

from dmstore.errors import CorruptionError, StorageError
from dmstore.storage.acts import retract, tag, vacuum
from dmstore.storage.acts.compact import compaction_steps
from dmstore.storage.acts.fill import fill_steps
from dmstore.storage.objects.objects import ObjectInfo
from dmstore.storage.table import protocol
from dmstore.storage.table.segment import SegmentInfo
from dmstore.storage.table.snapshot import BaseRows, content_id, snapshot_steps

PREFIX = "runs/"
STALE = 60.0
TURNS = (
    protocol.Put,
    protocol.Delete,
    protocol.Entries,
    protocol.Call,
    protocol.WriteBase,
    protocol.FillBase,
    protocol.CheckBase,
)
# Rows of the source that fillers import.
FILLED = (500, 501, 502)
EFFECTS = (protocol.Put, protocol.Delete, protocol.WriteBase, protocol.FillBase, protocol.Call)


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
        # A network file system shows a listing that it has kept; an object store one of any age.
        self.keeps = draw.random() < 0.5
        self.kept: dict[tuple[int, str], float] = {}

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

    def _seen(self, actor, prefix):
        """The moment of which a listing tells."""
        if not self.faults.stale:
            return self.clock
        if not self.keeps:
            stale = self.draw.random() < self.faults.stale
            return self.clock - (self.draw.uniform(0, STALE) if stale else 0.0)
        moment = self.kept.get((actor, prefix), -STALE)
        if moment < self.clock - STALE:
            moment = self.kept[actor, prefix] = self.clock
        return moment

    def listing(self, actor, prefix):
        seen = self._seen(actor, prefix)
        found = [
            ObjectInfo(name, len(v.content), v.created)
            for name, v in self.names(actor, seen)
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
            case protocol.FillBase(path):
                rows = [[run, digest_of(run, 0).tobytes().hex()] for run in FILLED]
                yield from self.put_base(actor, path, rows)
                return BaseRows(*self.rows(path))
            case protocol.CheckBase(path, wanted_run, wanted_digest):
                run, digest = self.rows(path)
                if not (np.array_equal(run, wanted_run) and np.array_equal(digest, wanted_digest)):
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

    def held(self, snapshot):
        """Read the rows of a view: CorruptionError or FileNotFoundError if they are not there."""
        for number, _ in snapshot.places:
            if number:
                self.info(snapshot.tail[number - 1].name)
            else:
                self.base(snapshot.manifest.base)

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
        yield from self.put_base(actor, path, rows)

    def put_base(self, actor, path, rows):
        half = len(rows) // 2
        for part, content in (("a", rows[:half]), ("b", rows[half:]), ("zarr.json", [])):
            self.put(actor, f"{PREFIX}{path}/{part}", json.dumps(content).encode())
            yield


@dataclass
class History:
    """What was submitted, acknowledged and read."""

    submitted: set = field(default_factory=set)
    acknowledged: dict = field(default_factory=dict)
    # What was asked to be retracted or to be restored, and what is known to be retracted for good.
    retracted: set = field(default_factory=set)
    restored: set = field(default_factory=set)
    gone: set = field(default_factory=set)
    tags: dict = field(default_factory=dict)
    reads: int = 0
    deaths: int = 0
    fills: int = 0
    conflicts_allowed: bool = False


class Actor:
    """A script of steps, each of which may fail and be tried again."""

    def __init__(self, number, storage, script):
        self.number = number
        self.storage = storage
        self.moves = self._run(script)
        self.alive = True
        self.moved = 0
        # What it is about to do, and pieces of work that it has come to the end of, failed ones too.
        self.operation = None
        self.pieces = 0
        # Turns of others that it still sleeps for.
        self.sleeps = 0

    def _run(self, script):
        for make, done in script:
            for _ in range(6):
                try:
                    result = yield from self._drive(make())
                except (StorageError, tag.IncompleteError, tag.ExistsError):
                    result = None
                else:
                    done(result)
                self.pieces += 1
                self.operation = None
                yield
                if result is not None:
                    break

    def _drive(self, steps):
        try:
            operation = next(steps)
            while True:
                # A move before and after each operation: an answer may be old when it arrives.
                self.operation = operation
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

    def finish(self):
        while self.alive:
            self.move()


class World:
    """Writers, compactors, a vacuum, a tagger, a retractor and a reader on one storage."""

    def __init__(
        self,
        seed,
        *,
        grace,
        faults,
        conflicts=False,
        retractor=False,
        fillers=0,
        vacuums=2,
        taggers=1,
        readers=1,
    ):
        self.draw = random.Random(seed)
        self.schedule = self.draw.choice((self._finely, self._in_turns, self._by_plans))
        self.storage = Storage(self.draw, faults)
        self.grace = grace
        self.history = History(conflicts_allowed=conflicts)
        pause = protocol.Call(self._pause)
        actors = []
        for number in range(2):
            rows = [[10 * number + 2 * k + i for i in range(2)] for k in range(4)]
            if conflicts:
                rows[0] = [0, 1 + number]
            actors.append([self.append(runs, number if conflicts else 0) for runs in rows])
        for _ in range(2):
            actors.append(
                [(lambda: compaction_steps(PREFIX, {}, pause), lambda done: None) for _ in range(3)]
            )
        pinned = protocol.Call(self._pinned)
        for _ in range(vacuums):
            actors.append(
                [
                    (lambda: vacuum.vacuum_steps(PREFIX, pinned, grace), lambda done: None)
                    for _ in range(3)
                ]
            )
        for number in range(taggers):
            actors.append([self._tag(f"{number}-{count}") for count in range(2)])
        for _ in range(readers):
            actors.append([(lambda: self._read(pause), lambda done: None) for _ in range(5)])
        # Two hosts that import one source whole; a writer has some of its rows too.
        actors += [[self._fill(pause), self._fill(pause)] for _ in range(fillers)]
        if fillers:
            actors[0].insert(0, self.append(FILLED[:2], 0))
        if retractor:
            # Who gives the same files again does not bring retracted rows back.
            actors[0].append(self.append([0, 1], 0))
            for _ in range(2):
                actors.append([self._retract(pause), self._restore(), self._retract(pause)])
        self.actors = [Actor(i, self.storage, script) for i, script in enumerate(actors)]

    def _pause(self):
        self.storage.clock += 0.01

    def _pinned(self):
        # A listing of tags, then one get each, as the real one.
        names = [i.name for i in self.storage.listing(99, f"{PREFIX}tags/")]
        found = set()
        for name in names:
            if self.storage.current(name):
                found.add(json.loads(self.storage.get(name))["base"])
        return found

    def append(self, runs, content):
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

    def _fill(self, pause):
        pairs = [(run, digest_of(run, 0).tobytes().hex()) for run in FILLED]

        def make():
            self.history.submitted |= set(pairs)
            return fill_steps(PREFIX, {}, pause)

        def done(manifest):
            if manifest:
                self.history.fills += 1
                for pair in pairs:
                    self.history.acknowledged.setdefault(pair, self.storage.clock)

        return make, done

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

        def done(made):
            self.history.gone |= set(made.rows) - self.history.restored

        return (lambda: retract.retraction_steps(PREFIX, {}, pause, choose, "test")), done

    def _restore(self):
        def choose(pairs):
            chosen = {pair for pair in pairs if pair[0] != 10}
            # Whoever retracted may hear of it only after this.
            self.history.restored |= chosen
            self.history.gone -= chosen
            return chosen

        return (lambda: retract.restoration_steps(PREFIX, choose, "test")), lambda made: None

    def _read(self, pause):
        # What had been acknowledged before, for longer than a listing can be old, must be seen.
        sure = {
            pair
            for pair, when in self.history.acknowledged.items()
            if not self.storage.faults.stale or when < self.storage.clock - STALE
        }
        gone = set(self.history.gone)
        pinned = self.storage.clock
        state = yield from snapshot_steps(PREFIX, {}, pause)
        self.history.reads += 1
        self.check(state, sure, gone)
        # A view can be read for as long as the grace period lasts, less the age of a listing.
        for _ in range(self.draw.randrange(4)):
            yield protocol.Call(lambda: None)

        def hold():
            if self.storage.clock - pinned + STALE < self.grace:
                self.storage.held(state)

        yield protocol.Call(hold)

    def check(self, state, sure, gone=frozenset()):
        visible = {
            (int(run), digest.tobytes().hex())
            for run, digest in zip(state.run, state.digest, strict=True)
        }
        runs = [run for run, _ in visible]
        assert len(runs) == len(set(runs)) == len(state.run), "an id twice"
        assert visible <= self.history.submitted, "rows that nobody wrote"
        hidden = visible | set(state.conflicts) | self.history.retracted
        assert sure <= hidden, f"lost: {sure - hidden}"
        assert not visible & gone & self.history.gone, "retracted rows are shown"
        if not self.history.conflicts_allowed:
            assert not state.conflicts
        if state.base:
            # Of two rows of one id that of the base is shown, whatever comes later.
            committed = {
                (int(run), digest.tobytes().hex())
                for run, digest in zip(state.base.run, state.base.digest, strict=True)
            }
            assert committed - set(state.manifest.retracted) <= visible

    def run(self):
        self._start()
        self.schedule()
        self.finish()

    def _start(self):
        """Some worlds begin with a base and a tail."""
        if self.draw.random() < 0.5:
            return
        faults, self.storage.faults = self.storage.faults, Faults()
        runs = [[100 + i] for i in range(3)]
        if self.history.conflicts_allowed:
            runs = [[0], [1], [2]]
        for number, rows in enumerate(runs):
            make, done = self.append(rows, 7)
            done(self.alone(make()))
            if number == 1:
                self.alone(compaction_steps(PREFIX, {}, protocol.Call(self._pause)))
            self.storage.clock += 1
        self.storage.faults = faults

    def alone(self, steps):
        moves = Actor(50, self.storage, [])._drive(steps)
        while True:
            try:
                next(moves)
            except StopIteration as stop:
                return stop.value

    def actor(self, steps):
        """Somebody who does these steps once, whatever error they end in."""
        made = Actor(60, self.storage, [])
        made.moves = made._drive(steps)
        return made

    def _pass_time(self):
        # Operations take much less time than listings can be old.
        self.storage.clock += self.draw.expovariate(20.0)
        if self.draw.random() < 0.001:
            self.storage.clock += self.draw.uniform(0, 2 * max(self.grace, 1))

    def _move(self, actor):
        """One move of an actor, or its death."""
        if self.draw.random() < self.storage.faults.death:
            actor.alive = False
            self.history.deaths += 1
        else:
            actor.move()

    def _in_turns(self):
        """Each goes on to its next turn, and there may sleep for some turns of others."""
        draw = self.draw
        while alive := [actor for actor in self.actors if actor.alive]:
            awake = [actor for actor in alive if not actor.sleeps]
            actor = draw.choice(awake or alive)
            self._pass_time()
            self._jump(0.05)
            self._move(actor)
            while actor.alive and not isinstance(actor.operation, (*TURNS, type(None))):
                self._move(actor)
            for other in self.actors:
                other.sleeps = max(0, other.sleeps - (other is not actor))
            actor.sleeps = draw.choice((1, 2, 4, 8, 16, 32)) if draw.random() < 0.3 else 0

    def _jump(self, chance):
        """Now and then, to the moment at which the next log entry or base is older than the grace."""
        if self.grace and self.draw.random() < chance:
            due = [
                stored.created + self.grace + 0.5
                for name, versions in self.storage.objects.items()
                for stored in versions
                if "/log/" in name or name.endswith("zarr.json")
            ]
            self.storage.clock = min(
                (moment for moment in due if moment > self.storage.clock),
                default=self.storage.clock,
            )

    def _by_plans(self):
        """One stops before something it does, others work, a second stops, then the two go on."""
        draw = self.draw
        while alive := [actor for actor in self.actors if actor.alive]:
            self._jump(0.3)
            first, second = draw.choice(alive), draw.choice(alive)
            if draw.random() < 0.5:
                # Or one works before and after others, and may still see what it saw.
                for actor in (first, *draw.sample(alive, min(len(alive), 3)), first):
                    self._until(actor)
                continue
            others = draw.sample(alive, min(2, len(alive)))
            self._until(first, effects=draw.choice((1, 1, 2)))
            for _ in range(draw.randrange(6)):
                self._until(draw.choice(others))
                self._jump(0.1)
            self._until(second, effects=draw.choice((0, 1, 1, 2)))
            for actor in draw.sample((first, second), 2):
                self._until(actor)

    def _until(self, actor, effects=0):
        """Have an actor go on to just before its next effects, or to the end of its piece of work."""
        pieces, seen = actor.pieces, None
        while actor.alive and actor.pieces == pieces:
            self._pass_time()
            self._move(actor)
            if isinstance(actor.operation, EFFECTS) and actor.operation is not seen:
                seen = actor.operation
                effects -= 1
                if effects == 0:
                    return

    def _finely(self):
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
                self._pass_time()
                self._jump(0.005)
                self._move(actor)

    def finish(self):
        """With all faults gone: everything acknowledged is there, and every object is explained."""
        self.storage.faults = Faults()
        pause = protocol.Call(lambda: None)

        run = self.alone
        state = run(snapshot_steps(PREFIX, {}, pause))
        self.check(state, set(self.history.acknowledged), set(self.history.gone))
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


KINDS = {
    # Without a grace period, and listings that are never old: what two hosts do at the same moment.
    "no grace": {"grace": 0.0, "faults": Faults()},
    "deaths": {"grace": 0.0, "faults": Faults(death=0.01)},
    "faults": {
        "grace": 0.0,
        "faults": Faults(lost_reply=0.1, false_exists=0.05, refused=0.02, death=0.003),
    },
    "grace": {"grace": 2 * STALE, "faults": Faults(), "readers": 3},
    "tags": {"grace": 0.0, "faults": Faults(), "taggers": 3},
    "stale listings": {"grace": 4 * STALE, "faults": Faults(stale=0.5)},
    "stale and refused": {
        "grace": 4 * STALE,
        "faults": Faults(stale=0.5, refused=0.03),
        "vacuums": 3,
        "readers": 3,
        "taggers": 0,
    },
    "stale tags": {
        "grace": 2 * STALE,
        "faults": Faults(stale=0.5),
        "vacuums": 3,
        "taggers": 4,
    },
    "everything": {
        "grace": 4 * STALE,
        "faults": Faults(lost_reply=0.1, false_exists=0.05, refused=0.02, stale=0.5, death=0.003),
    },
    "conflicts": {"grace": 0.0, "faults": Faults(lost_reply=0.05), "conflicts": True},
    "fills": {
        "grace": 0.0,
        "faults": Faults(lost_reply=0.05, false_exists=0.05, death=0.003),
        "fillers": 2,
    },
    "retraction": {"grace": 0.0, "faults": Faults(lost_reply=0.05, death=0.003), "retractor": True},
}
