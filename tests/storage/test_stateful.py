"""A random walk over what writers, compactors, vacuums and people do, against a model in dictionaries."""

import copy
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from helpers import examples, make_rows
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

import dmstore
from dmstore.errors import ExistsError
from dmstore.sharing.publishing import publish
from dmstore.sharing.pulling import pull
from dmstore.storage.acts import compact as compaction
from dmstore.storage.acts import tag
from dmstore.storage.objects.steps import drive
from dmstore.storage.table import log, protocol
from dmstore.storage.table.rows import Rows, row_digests
from dmstore.storage.table.view import View
from dmstore.upkeep.maintenance import vacuum
from dmstore.upkeep.retraction import restore_runs, retract_runs
from dmstore.upkeep.verification import verify

RUNS = 30
LATE = 5
IDS = st.integers(0, RUNS - 1)
SOURCE = {name: values for name, values in examples(5, 4).items() if name.endswith("_label")}


class Model:
    """A table as it should be: rows are (run, seed of the content)."""

    def __init__(self):
        self.base = None
        self.tail = []
        self.retracted = set()
        self.submitted = set()
        self.digest = {}

    def visible(self):
        """Run to seed."""
        found = {}
        for run, seed in sorted(
            {row for part in self.tail for row in part} - self.retracted,
            key=lambda row: self.digest[row],
            reverse=True,
        ):
            found[run] = seed
        found |= {run: seed for run, seed in (self.base or ()) if (run, seed) not in self.retracted}
        return found

    def losers(self):
        shown = self.visible()
        stored = {row for part in (self.base or (), *self.tail) for row in part} - self.retracted
        return {row for row in stored if shown[row[0]] != row[1]}

    def compacted(self):
        """What a compaction makes of it: base and tail, None where there is nothing to do."""
        rows, losers = frozenset(self.visible().items()), self.losers()
        kept = [part for part in self.tail if losers & set(part)]
        if not rows:
            return (rows, kept) if self.base else None
        return None if rows == self.base and len(kept) == len(self.tail) else (rows, kept)

    def compact(self):
        self.base, self.tail = self.compacted() or (self.base, self.tail)


def made(algorithm, run, seed):
    """The (run id, digest) pair of a row."""
    rows = make_rows(algorithm, [run], seed)
    digest = row_digests(rows.run, rows.arrays, algorithm.table.spec)
    return run, digest[0].tobytes().hex()


class StoreMachine(RuleBasedStateMachine):
    @initialize()
    def create(self):
        self.directory = tempfile.mkdtemp()
        self.path = f"{self.directory}/study.dm"
        study = dmstore.create_study(self.path, SOURCE, seed=1)
        self.algorithm = study.add_algorithm("alpha", runs=RUNS, outputs=["margin", "prediction"])
        study.add_targets("late", {"label": np.arange(LATE) % 3})
        self.outputs = study.target_outputs("alpha", "late")
        self.model = Model()
        self.pinned = []
        self.tags = {}
        self.planned = RUNS
        self.annotated = {}
        self.later = set()
        self.sleeper = None
        self.rows = 0

    # Writers

    def _append(self, ids, seed):
        for run in ids:
            if (run, seed) not in self.model.digest:
                self.model.digest[run, seed] = made(self.algorithm, run, seed)[1]
        self.algorithm.table.append(make_rows(self.algorithm, sorted(ids), seed))
        self.model.tail.append(frozenset((run, seed) for run in ids))
        self.model.submitted |= {(run, seed) for run in ids}

    @rule(ids=st.sets(IDS, min_size=1, max_size=6))
    def append(self, ids):
        self._append(ids, 0)

    @precondition(lambda self: self.model.submitted)
    @rule(ids=st.sets(IDS, min_size=1, max_size=3), seed=st.integers(1, 2))
    def append_conflicting(self, ids, seed):
        self._append(ids, seed)

    @precondition(lambda self: self.model.visible())
    @rule(ids=st.sets(IDS, min_size=1, max_size=6))
    def append_outputs(self, ids):
        shown = self.model.visible()
        ids = sorted(run for run in ids if shown.get(run) == 0)
        if ids:
            margin = np.array([np.full(LATE, run) for run in ids], "f4")
            arrays = {"margin": margin, "prediction": np.zeros((len(ids), LATE), int)}
            columns = {"time": np.full(len(ids), 7), "host": np.full(len(ids), "x")}
            outputs = self.outputs
            outputs.table.append(outputs.complete(Rows(np.array(ids), arrays, columns), "test"))
            self.later |= set(ids)

    @rule(count=st.integers(1, 3))
    def extend(self, count):
        block = self.algorithm.extend(count)
        assert block.first_run == self.planned
        self.planned += count

    # Compactors

    @rule()
    def compact(self):
        compaction.compact(self.algorithm.table)
        self.model.compact()

    @rule()
    def compact_outputs(self):
        compaction.compact(self.outputs.table)

    def _perform(self, operation):
        table = self.algorithm.table
        match operation:
            case protocol.WriteBase(path, snapshot):
                return compaction.write_view(View(table, snapshot), path)
            case protocol.CheckBase(path, run, digest):
                return compaction.base.check(table, path, run, digest)
        return table.perform(operation)

    @precondition(lambda self: self.sleeper is None)
    @rule()
    def compactor_falls_asleep(self):
        """A second host's compactor, up to just before its commit."""
        table = self.algorithm.table
        steps = compaction.compaction_steps(table.prefix, {}, table.pause)
        expected = copy.deepcopy(self.model.compacted())
        before = list(self.model.tail)
        try:
            operation = next(steps)
            while not isinstance(operation, protocol.Put):
                operation = steps.send(self._perform(operation))
        except StopIteration:
            assert expected is None
        else:
            version = log.newest(table.objects, table.prefix).version
            self.sleeper = steps, operation, version, expected, before

    @precondition(lambda self: self.sleeper is not None)
    @rule()
    def compactor_goes_on(self):
        steps, operation, version, (rows, kept), before = self.sleeper
        self.sleeper = None
        table = self.algorithm.table
        if log.newest(table.objects, table.prefix).version == version:
            self.model.base = rows
            self.model.tail = [*kept, *self.model.tail[len(before) :]]
        else:
            self.model.compact()

        def go_on():
            # What it was about to do, then the rest.
            answer = yield operation
            while True:
                try:
                    following = steps.send(answer)
                except StopIteration as stop:
                    return stop.value
                try:
                    answer = yield following
                except Exception as error:  # noqa: BLE001 - the steps decide
                    following = steps.throw(error)
                    answer = yield following

        drive(go_on(), self._perform)

    @rule(forget=st.booleans())
    def vacuum(self, forget):
        if forget:
            vacuum(dmstore.open_study(self.path), grace=0)
            self.pinned = []
        else:
            vacuum(dmstore.open_study(self.path))

    # People

    @rule()
    def pin(self):
        view = self.algorithm.table.view()
        self.pinned.append((view, view.run.copy(), view.content_id()))

    @precondition(lambda self: self.model.visible())
    @rule(name=st.sampled_from(["one", "two", "three"]))
    def tag(self, name):
        self.compact()
        if not self.model.base:
            return
        try:
            self.tags[name] = tag.create(self.algorithm.table, name)
        except ExistsError:
            assert name in self.tags

    @precondition(lambda self: self.model.visible())
    @rule(run=IDS)
    def retract(self, run):
        shown = self.model.visible()
        rows = retract_runs(self.algorithm, [f"run={run}"], reason="test").rows
        assert len(rows) == (run in shown)
        if rows:
            assert rows == ((run, self.model.digest[run, shown[run]]),)
            self.model.retracted.add((run, shown[run]))
        self.rows = 0

    @precondition(lambda self: self.model.retracted)
    @rule(first=IDS)
    def restore(self, first):
        chosen = {row for row in self.model.retracted if row[0] >= first}
        rows = restore_runs(self.algorithm, [f"run>={first}"], reason="test").rows
        assert {run for run, _ in rows} == {run for run, _ in chosen}
        self.model.retracted -= chosen

    @rule(name=st.sampled_from(["group", "weight"]))
    def annotate(self, name):
        values = np.arange(5) * (1 if name == "group" else 0.5)
        done = dmstore.open_study(self.path).annotate("train", {name: values})
        assert done == {name: "present" if name in self.annotated else "new"}
        self.annotated[name] = values

    @precondition(lambda self: self.model.visible() and not self.model.losers())
    @rule()
    def publish_pull_and_append_there(self):
        self.compact()
        study = dmstore.open_study(self.path)
        folder = Path(tempfile.mkdtemp(dir=self.directory))
        publish(study, folder / "pub")
        self.model.compact()
        pull(folder / "pub", folder / "copy.dm")
        theirs = dmstore.open_study(folder / "copy.dm").algorithm("alpha")
        ours = self.algorithm.table.view()
        assert theirs.table.view().content_id() == ours.content_id()
        free = sorted(set(range(RUNS)) - set(ours.run.tolist()))
        free = [run for run in free if not {r for r, _ in self.model.retracted} & {run}][:2]
        if free:
            theirs.table.append(make_rows(theirs, free))
        compaction.compact(theirs.table)
        assert set(theirs.table.view().run) == {*ours.run.tolist(), *free}
        assert list(verify(dmstore.open_study(folder / "copy.dm"))) == []
        shutil.rmtree(folder)

    @rule()
    def reopen(self):
        study = dmstore.open_study(self.path)
        self.algorithm = study.algorithm("alpha")
        self.outputs = study.target_outputs("alpha", "late")

    # What holds after each

    @invariant()
    def view_is_the_model(self):
        view = self.algorithm.table.view()
        shown = self.model.visible()
        assert len(view) == len(shown)
        pairs = {(int(r), d.tobytes().hex()) for r, d in zip(view.run, view.digest, strict=True)}
        assert pairs == {(run, self.model.digest[run, seed]) for run, seed in shown.items()}
        assert set(shown.items()) <= self.model.submitted
        losers = {(run, self.model.digest[run, seed]) for run, seed in self.model.losers()}
        assert set(view.conflicts) == losers
        if len(view):
            run = view.run[:: max(1, len(view) // 3)]
            found = view.read(["margin", "mask"])
            for row in np.flatnonzero(np.isin(view.run, run)):
                number = int(view.run[row])
                expected = make_rows(self.algorithm, [number], shown[number]).arrays
                assert all(np.array_equal(found[key][row], expected[key][0]) for key in found)

    @invariant()
    def rows_shrink_by_retraction_alone(self):
        count = len(self.algorithm.table.view())
        assert count >= self.rows
        self.rows = count

    @invariant()
    def pinned_views_stay(self):
        for view, run, content_id in self.pinned[-2:]:
            assert np.array_equal(view.run, run)
            assert view.content_id() == content_id
            assert view.read(["margin"])["margin"].shape[0] == len(run)

    @invariant()
    def tagged_bases_stay(self):
        for entry in self.tags.values():
            assert self.algorithm.table.open_base(entry["base"])["run"].shape == (entry["runs"],)

    @invariant()
    def outputs_are_of_runs_that_are_shown(self):
        view = self.outputs.table.view()
        assert set(view.run.tolist()) == self.later
        shown = self.model.visible()
        pending = set(self.outputs.pending().tolist())
        assert pending == {r for r, s in shown.items() if r not in self.later or s != 0}

    @invariant()
    def plan_and_annotations_stay(self):
        assert self.algorithm.planned_count == self.planned
        if self.annotated:
            train = dmstore.open_study(self.path).train
            assert all(np.array_equal(train[k].values, v) for k, v in self.annotated.items())

    @invariant()
    def every_file_is_explained(self):
        """By the log, by a tag, or as something that a vacuum without grace takes."""
        table = self.algorithm.table
        assert table.objects.leftovers() == []
        manifest = log.newest(table.objects, table.prefix)
        paths = {
            log.read(table.objects, table.prefix, v).base for v in range(1, manifest.version + 1)
        }
        known = {f"{table.prefix}{base.path}" for base in paths if base}
        asleep = {}
        if self.sleeper:
            asleep = self.sleeper[0].gi_frame.f_locals["path"]
        for info in table.objects.entries(f"{table.prefix}base/"):
            name = "/".join(info.name.split("/")[:5])
            assert name in known or name == f"{table.prefix}{asleep}", name

    def teardown(self):
        if hasattr(self, "directory"):
            problems = list(verify(dmstore.open_study(self.path)))
            assert all(problem.kind == "conflict" for problem in problems)
            shutil.rmtree(self.directory)


def walks(examples, steps):
    return settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    )


def test_store():
    run_state_machine_as_test(StoreMachine, settings=walks(30, 16))


@pytest.mark.slow
def test_store_for_long():
    run_state_machine_as_test(StoreMachine, settings=walks(200, 40))
