"""A random walk over what writers, compactors and vacuums do, against a dictionary."""

import shutil
import tempfile

import numpy as np
from helpers import examples, make_rows
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import dmstore
from dmstore.errors import ExistsError
from dmstore.maintenance import vacuum_study
from dmstore.storage import tag
from dmstore.storage.compact import compact

RUNS = 40


class StoreMachine(RuleBasedStateMachine):
    @initialize()
    def create(self):
        self.directory = tempfile.mkdtemp()
        self.path = f"{self.directory}/study.dm"
        study = dmstore.create_study(self.path, examples(5, 4), seed=1)
        study.add_algorithm("alpha", runs=RUNS, outputs=["margin", "prediction"])
        self.model = {}  # run id -> seed of its content
        self.pinned = []
        self.tags = {}

    @property
    def algorithm(self):
        return dmstore.open_study(self.path).algorithm("alpha")

    @rule(ids=st.sets(st.integers(0, RUNS - 1), min_size=1, max_size=6))
    def append(self, ids):
        algorithm = self.algorithm
        for run in ids:
            self.model.setdefault(run, 0)
        algorithm.table.append(make_rows(algorithm, sorted(ids)))

    @rule()
    def compact(self):
        compact(self.algorithm.table)

    @rule()
    def vacuum(self):
        vacuum_study(dmstore.open_study(self.path), grace=0)
        self.pinned = []

    @rule()
    def pin(self):
        view = self.algorithm.table.view()
        self.pinned.append((view, view.run.copy(), view.content_id()))

    @precondition(lambda self: self.model)
    @rule(name=st.sampled_from(["one", "two", "three"]))
    def tag(self, name):
        algorithm = self.algorithm
        compact(algorithm.table)
        try:
            self.tags[name] = tag.create(algorithm.table, name)
        except ExistsError:
            assert name in self.tags

    @invariant()
    def view_is_the_model(self):
        view = self.algorithm.table.view()
        assert sorted(view.run.tolist()) == sorted(self.model)
        assert view.conflicts == ()
        if len(view):
            found = view.read(["margin", "mask"])
            expected = make_rows(self.algorithm, view.run).arrays
            assert all(np.array_equal(found[key], expected[key]) for key in found)

    @invariant()
    def pinned_views_stay(self):
        for view, run, content_id in self.pinned:
            assert np.array_equal(view.run, run)
            assert view.content_id() == content_id
            assert view.read(["margin"])["margin"].shape[0] == len(run)

    @invariant()
    def tagged_bases_stay(self):
        algorithm = self.algorithm
        for made in self.tags.values():
            assert algorithm.table.open_base(made["base"])["run"].shape == (made["runs"],)

    def teardown(self):
        shutil.rmtree(self.directory)


TestStore = StoreMachine.TestCase
TestStore.settings = settings(
    max_examples=15,
    stateful_step_count=12,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
