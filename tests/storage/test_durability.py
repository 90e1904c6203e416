"""A create on a simulated file system that loses, at a power cut, whatever was not synced."""

import errno
import itertools
import random
from pathlib import Path

import pytest

from dmstore.storage.objects import posix

ROOT = Path("/study")
NAME = ROOT / "segments" / "ab" / "one.zip"
CONTENT = bytes(range(256)) * 40


class File:
    def __init__(self):
        self.content = b""
        self.durable = b""


class Disk:
    """Directories of names to files; what is durable of each is kept apart."""

    def __init__(self):
        self.entries = {ROOT: {}}
        self.durable = {ROOT: {}}

    def perform(self, call):
        match call:
            case posix.IsDirectory(path):
                return path in self.entries
            case posix.MakeDirectory(path):
                if path in self.entries:
                    raise FileExistsError(errno.EEXIST, "exists")
                self.entries[path.parent][path.name] = path
                self.entries[path], self.durable[path] = {}, {}
            case posix.SyncDirectory(path):
                self.durable[path] = dict(self.entries[path])
            case posix.Open(path):
                made = self.entries[path.parent][path.name] = File()
                return made
            case posix.Write(handle, content):
                handle.content += content
            case posix.Sync(handle):
                handle.durable = handle.content
            case posix.Close(_):
                pass
            case posix.Link(path, name):
                if name.name in self.entries[name.parent]:
                    raise FileExistsError(errno.EEXIST, "exists")
                self.entries[name.parent][name.name] = self.entries[path.parent][path.name]
            case posix.SameFile(path, name):
                one = self.entries[path.parent].get(path.name)
                return one is not None and one is self.entries[name.parent].get(name.name)
            case posix.Unlink(path):
                if path.name not in self.entries[path.parent]:
                    raise FileNotFoundError(path)
                del self.entries[path.parent][path.name]
            case _:
                raise AssertionError(call)

    def power_cut(self, draw):
        """What is there afterwards: of what was not synced, nothing or (with `draw`) any part."""
        found = {}
        stack = [ROOT]
        while stack:
            directory = stack.pop()
            names = dict(self.durable[directory])
            if draw:
                changed = self.entries[directory].items() ^ names.items()
                for name, value in changed:
                    if draw.random() < 0.5:
                        if self.entries[directory].get(name) is value:
                            names[name] = value
                        else:
                            names.pop(name, None)
            for name, value in names.items():
                if isinstance(value, Path):
                    stack.append(value)
                else:
                    cut = len(value.durable)
                    if draw:
                        cut = draw.randint(cut, len(value.content))
                    found[directory / name] = value.content[:cut]
        return found


def create(disk, perform, name=NAME, temporary=".t.part"):
    posix.drive(posix.make_directory(ROOT, name.parent, set()), perform)
    return posix.drive(posix.create_file(name, name.parent / temporary, CONTENT), perform)


class Cut(BaseException):
    pass


def calls_of_a_create():
    disk, calls = Disk(), []

    def record(call):
        calls.append(call)
        return disk.perform(call)

    assert create(disk, record)
    return calls


COUNT = len(calls_of_a_create())


def whole_or_absent(found):
    return found.get(NAME, CONTENT) == CONTENT


@pytest.mark.parametrize("at", range(COUNT + 1))
def test_power_cut_before_every_call(at):
    for seed in (None, *range(20)):
        cut_power(at, seed)


def cut_power(at, seed):
    disk, done = Disk(), itertools.count()

    def perform(call):
        if next(done) == at:
            raise Cut
        return disk.perform(call)

    acknowledged = False
    try:
        # Nothing is cleaned up by a machine without power: the calls are dropped where they are.
        for calls in (
            posix.make_directory(ROOT, NAME.parent, set()),
            posix.create_file(NAME, NAME.parent / ".t.part", CONTENT),
        ):
            acknowledged = until_cut(calls, perform)
    except Cut:
        acknowledged = False
    found = disk.power_cut(random.Random(seed) if seed is not None else None)
    assert whole_or_absent(found)
    if acknowledged:
        assert found[NAME] == CONTENT


def until_cut(calls, perform):
    try:
        call = next(calls)
        while True:
            try:
                result = perform(call)
            except OSError as error:
                call = calls.throw(error)
            else:
                call = calls.send(result)
    except StopIteration as stop:
        return stop.value


@pytest.mark.parametrize("number", [errno.EIO, errno.EDQUOT, errno.ENOSPC])
@pytest.mark.parametrize("done", [False, True], ids=["not done", "done"])
@pytest.mark.parametrize("at", range(COUNT))
def test_error_at_every_call(at, number, done):
    """An error, whether the call took effect or not, is never acknowledged; a repeat then works."""
    disk, count = Disk(), itertools.count()
    failed = []

    def perform(call):
        if next(count) == at:
            failed.append(call)
            if done:
                disk.perform(call)
            raise OSError(number, "refused")
        return disk.perform(call)

    try:
        acknowledged = create(disk, perform)
    except OSError:
        acknowledged = False
    found = disk.power_cut(None)
    assert whole_or_absent(found)
    if acknowledged:
        # Only a lost reply and a failed clean-up may go unnoticed.
        assert isinstance(failed[0], posix.Link | posix.Unlink)
        assert found[NAME] == CONTENT
    else:
        again = create(disk, disk.perform, temporary=".u.part")
        assert again or disk.entries[NAME.parent][NAME.name].content == CONTENT
        if again:
            assert disk.power_cut(None)[NAME] == CONTENT


def test_lost_reply_of_a_link_is_ours():
    disk = Disk()

    def perform(call):
        if isinstance(call, posix.Link):
            disk.perform(call)
            raise FileExistsError(errno.EEXIST, "exists")
        return disk.perform(call)

    assert create(disk, perform)
    assert disk.power_cut(None)[NAME] == CONTENT


def test_a_taken_name_is_not_ours():
    disk = Disk()
    assert create(disk, disk.perform)
    assert not create(disk, disk.perform, temporary=".u.part")
    assert set(disk.entries[NAME.parent]) == {NAME.name}


def test_directory_of_another_host_is_synced_too():
    """Another host made the directory and has not synced it when the power goes."""
    disk = Disk()
    for path in (NAME.parent.parent, NAME.parent):
        disk.perform(posix.MakeDirectory(path))
    assert create(disk, disk.perform)
    assert disk.power_cut(None)[NAME] == CONTENT


def test_without_the_syncs_it_would_be_lost():
    """The simulation tells: leave any one sync out and an acknowledged file can be lost or torn."""
    kinds = [c for c in calls_of_a_create() if isinstance(c, posix.Sync | posix.SyncDirectory)]
    assert len(kinds) == 4
    for skipped in range(len(kinds)):
        disk, count = Disk(), itertools.count()

        def perform(call, disk=disk, count=count, skipped=skipped):
            if isinstance(call, posix.Sync | posix.SyncDirectory) and next(count) == skipped:
                return None
            return disk.perform(call)

        assert create(disk, perform)
        assert disk.power_cut(None).get(NAME) != CONTENT
