"""Crash points on an object store: a process that dies before each PUT and DELETE it makes, in memory.

From the moment of death on no call comes through, so that nothing that cleans up on the way out does.
"""

import itertools
import threading

import numpy as np
import obstore
import pytest
from helpers import Done, examples, fill, make_rows

import dmstore
from dmstore.sharing.publishing import publish
from dmstore.storage.acts import tag
from dmstore.storage.acts.compact import compact
from dmstore.storage.objects import probe, remote
from dmstore.storage.table import log
from dmstore.upkeep import maintenance
from dmstore.upkeep.verification import verify

NUMBERS = itertools.count()
SOURCE = {name: values for name, values in examples(12, 6).items() if name.endswith("_label")}


class Death(BaseException):
    """The process is no more."""


class Calls:
    """Counts PUTs and DELETEs, and lets none through from number `at` on (0: all)."""

    def __init__(self, monkeypatch, at):
        self.at = at
        self.count = 0
        self._lock = threading.Lock()
        for name in ("put", "delete"):
            monkeypatch.setattr(obstore, name, self._plain(getattr(obstore, name)))
        monkeypatch.setattr(obstore, "put_async", self._async(obstore.put_async))

    def _strike(self):
        with self._lock:
            self.count += 1
            if self.at and self.count >= self.at:
                raise Death

    def _plain(self, function):
        def call(*arguments, **options):
            self._strike()
            return function(*arguments, **options)

        return call

    def _async(self, function):
        async def call(*arguments, **options):
            self._strike()
            return await function(*arguments, **options)

        return call


def url():
    return f"memory://crash-{next(NUMBERS)}/s.dm"


def copy(source):
    """A new bucket with the same objects."""
    target = url()
    one, other = remote.connect(source)[1], remote.connect(target)[1]
    for page in obstore.list(one):
        for meta in page:
            obstore.put(other, meta["path"], obstore.get(one, meta["path"]).bytes())
    return target


def objects_of(path):
    store = remote.connect(path)[1]
    return {
        meta["path"]: obstore.get(store, meta["path"]).bytes().to_bytes()
        for p in obstore.list(store)
        for meta in p
    }


def opened(path):
    return dmstore.open_study(path).algorithm("alpha")


# Templates


def nothing(path):
    pass


def bare(path):
    dmstore.create_study(path, SOURCE, seed=3)


def based(path):
    algorithm = dmstore.create_study(path, SOURCE, seed=3).add_algorithm("alpha", runs=60)
    fill(algorithm, range(10))
    compact(algorithm.table)


def tailed(path):
    based(path)
    fill(opened(path), range(10, 20), batch=5)


def absorbed(path):
    tailed(path)
    compact(opened(path).table)


# Operations


def init(path):
    dmstore.create_study(path, SOURCE, seed=3)


def add(path):
    dmstore.open_study(path).add_algorithm("alpha", runs=60)


def commit(path):
    algorithm = opened(path)
    if 20 not in algorithm.table.view().run:
        algorithm.table.append(make_rows(algorithm, range(20, 25)))


def compaction(path):
    compact(opened(path).table)


def vacuum(path):
    maintenance.vacuum(dmstore.open_study(path), grace=0)


def tagging(path):
    if "v1" not in [entry["name"] for entry in tag.read_all(opened(path).table)]:
        tag.create(opened(path).table, "v1")


def retract(path):
    done = Done("retract", path, "alpha", "--where", "run<5", "--reason", "x")
    assert done.returncode == 0, done.stderr


def publishing(path):
    publish(dmstore.open_study(path), f"{path}-published")


CASES = {
    "init": (init, nothing),
    "add": (add, bare),
    "commit": (commit, tailed),
    "compaction": (compaction, tailed),
    "vacuum": (vacuum, absorbed),
    "tag": (tagging, based),
    "retract": (retract, based),
    "publish": (publishing, tailed),
}
# Of the longest the fast tests look at some points alone.
STEP = {"init": 3, "publish": 7}


def state(path):
    """What a study holds, by content; None where there is none."""
    if "study.json" not in objects_of(path):
        return None
    study = dmstore.open_study(path)
    assert list(verify(study)) == []
    found = {"train": study.document["train"]["sha256"], "seed": study.seed}
    for name in study.algorithms:
        algorithm = study.algorithm(name)
        view = algorithm.table.view()
        found[name] = {
            "blocks": algorithm.blocks,
            "rows": {int(r): d.tobytes() for r, d in zip(view.run, view.digest, strict=True)},
            "tags": [entry["content_id"] for entry in tag.read_all(algorithm.table)],
        }
        if len(view):
            expected = make_rows(algorithm, view.run).arrays["margin"]
            assert np.array_equal(view.read(["margin"])["margin"], expected)
    return found


def both(path):
    return state(path), state(f"{path}-published")


def run(operate, path, at):
    """Make the calls before number `at`; returns whether it died there, and how many there were."""
    with pytest.MonkeyPatch.context() as patch:
        # Times in documents are of the second: a repeated command makes others.
        patch.setattr(log, "utc_now", lambda: f"2026-01-01T00:00:{next(NUMBERS) % 60:02d}+00:00")
        calls = Calls(patch, at)
        try:
            operate(path)
        except Death:
            return True, calls.count
        return False, calls.count


PARAMETERS = [
    pytest.param(name, step, marks=[] if fast else [pytest.mark.slow], id=f"{name}-{step}")
    for name in CASES
    for fast, step in ((True, STEP.get(name, 1)), *([(False, 1)] if name in STEP else []))
]


@pytest.mark.parametrize(("name", "step"), PARAMETERS)
def test_a_death_before_any_put_or_delete(monkeypatch, name, step):
    # A race of eight threads at each opened bucket says nothing new of memory.
    monkeypatch.setattr(probe, "race", lambda objects, racers=0: 1)
    operate, prepare = CASES[name]
    template = url()
    prepare(template)
    before = both(template)
    whole = copy(template)
    died, calls = run(operate, whole, 0)
    assert not died
    assert calls >= 1
    result = both(whole)
    for at in range(1, calls + 1, step):
        path = copy(template)
        died, _ = run(operate, path, at)
        assert died
        _check(both(path), before, result)
        assert run(operate, path, 0)[0] is False
        assert both(path) == result
        compaction(path) if "alpha" in (result[0] or {}) else None
        vacuum(path)
        vacuum(path)
        assert both(path) == result
        if name != "publish":
            assert dmstore.open_study(path).objects.leftovers() == []
            assert not unexplained(path)


def _check(now, before, result):
    """Acknowledged rows are there, and whatever opens is whole."""
    for one, old, new in zip(now, before, result, strict=True):
        if old is None:
            assert one in (None, new)
            continue
        for key, value in old.items():
            if isinstance(value, dict):
                low, high = sorted(
                    (set(value["rows"].items()), set(new[key]["rows"].items())), key=len
                )
                assert low <= set(one[key]["rows"].items()) <= high
            else:
                assert one[key] == value


def unexplained(path):
    """Segments and bases that nothing refers to."""
    study = dmstore.open_study(path)
    if "alpha" not in study.algorithms:
        return set()
    table = study.algorithm("alpha").table
    manifest = log.newest(table.objects, table.prefix)
    kept = {entry["base"] for entry in tag.read_all(table)}
    kept |= {manifest.base.path} if manifest.base else set()
    return {
        info.name
        for place in ("segments/", "base/")
        for info in table.objects.entries(f"{table.prefix}{place}")
        if not any(info.name.startswith(f"{table.prefix}{base}/") for base in kept)
    }
