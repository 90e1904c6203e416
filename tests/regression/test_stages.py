"""A fit in bounded memory: stages in passes, Grams on scratch, blocks that go on where they were."""

import errno
import os
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import Done, dying
from sklearn.linear_model import Lasso

import dmstore
from dmstore.core import memory
from dmstore.errors import CorruptionError, InputError, StorageError
from dmstore.regression import fit
from dmstore.regression.fitting import engine, stages
from dmstore.regression.fitting.engine import Ground
from dmstore.regression.fitting.memory_plan import Room, in_memory
from dmstore.regression.fitting.passes import Pass, Passes
from dmstore.regression.fitting.run_groups import Runs
from dmstore.regression.problem.design import gram_dtype
from dmstore.regression.problem.moments import make_moments
from dmstore.regression.problem.parameters import Parameters
from dmstore.schema.group_specs import group_spec, known_outputs
from dmstore.storage.acts.compact import compact
from dmstore.storage.table import groups
from dmstore.storage.table.rows import Rows

TRAIN, TARGETS, RUNS = 60, 300, 700


@pytest.fixture
def study(tmp_path):
    draw = np.random.default_rng(0)
    made = dmstore.create_study(
        tmp_path / "fit.dm",
        {"train_id": np.arange(TRAIN).astype(str), "target_id": np.arange(TARGETS).astype(str)},
    )
    algorithm = made.add_algorithm("a", sampling="foreign", alpha=0.5)
    mask = draw.random((RUNS, TRAIN)) < 0.5
    weight = draw.normal(size=(TRAIN, TARGETS)) * (draw.random((TRAIN, TARGETS)) < 0.2)
    margin = (mask @ weight + draw.normal(size=(RUNS, TARGETS))).astype(np.float32)
    columns = {"time": np.zeros(RUNS, np.int64), "host": np.full(RUNS, "h")}
    rows = Rows(np.arange(RUNS), {"mask": mask, "margin": margin}, columns)
    algorithm.table.append(algorithm.complete(rows, "test"))
    return made


def room(monkeypatch, count, allocate=None):
    """Let there be memory for so many Grams."""
    monkeypatch.setattr(
        engine.Fitting,
        "room",
        lambda self, words: Room(count, allocate or in_memory, 1 << 20),
    )


def arrays(study):
    found = study.datamodels("a").load()
    return {name: found[name].values for name in found.data_vars}


@pytest.fixture
def expected(study):
    fit(study, "a")
    found = arrays(study)
    for folder in study.objects.children("datamodels/a/"):
        study.objects.delete(f"datamodels/a/{folder}")
    return found


def check(study, expected):
    found = arrays(study)
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert np.array_equal(found[name], values, equal_nan=True), name


@pytest.mark.parametrize("count", [1, 2, 3])
def test_passes_give_what_one_pass_gives(study, expected, monkeypatch, count):
    room(monkeypatch, count)
    seen = []
    fit(study, "a", progress=lambda what, done, total: seen.append((what, done, total)))
    check(study, expected)
    passes = -(-4 // count)
    assert sum(what == "count" and done == total for what, done, total in seen) == passes
    # One estimate for all passes: of many runs a path is five refits, and every target counts.
    steps = [(done, total) for what, done, total in seen if what == "fit"]
    whole = TARGETS * stages.REFIT * (5 + 3)
    assert {total for _, total in steps} == {whole}
    assert steps[0][0] == 0
    assert steps[-1][0] == whole
    assert steps == sorted(steps)
    # Each stage is told of, not only each block: of few targets, one block is all there is.
    assert len({done for done, _ in steps}) == 1 + 2 * 4
    # The start of a pass is told of again, no end of one.
    assert len(steps) == passes + 2 * 4
    # What later passes took the place of is gone.
    (name,) = study.objects.children("datamodels/a/")
    blocks = study.objects.children(f"datamodels/a/{name}/blocks/")
    assert blocks == ["00000.zarr.zip", "00001.zarr.zip"]


def test_a_gram_on_scratch_gives_the_same_and_leaves_nothing(
    study, expected, monkeypatch, tmp_path
):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    room(monkeypatch, 1, lambda n, dtype: memory.scratch_array(scratch, (n, n), dtype))
    fit(study, "a")
    check(study, expected)
    assert list(scratch.iterdir()) == []


@pytest.mark.parametrize(
    ("first", "then", "last", "left"), [(1, 4, 4, 5), (4, 1, 2, 4), (2, 3, 4, 2), (3, 1, 3, 2)]
)
def test_a_killed_fit_goes_on_with_other_memory(
    study, expected, monkeypatch, first, then, last, left
):
    real = stages.run
    run, _calls = dying(real, last)
    with monkeypatch.context() as patch:
        room(patch, first)
        patch.setattr(stages, "run", run)
        with pytest.raises(KeyboardInterrupt):
            fit(study, "a")
    done = []
    monkeypatch.setattr(
        stages, "run", lambda group, *a: (done.append(len(group)), real(group, *a))[1]
    )
    room(monkeypatch, then)
    fit(study, "a")
    check(study, expected)
    # Two blocks have four stages each; what was done is not done again.
    assert sum(done) == left


def begun_earlier(study, names, without=()):
    """Leave a fit as versions did that fitted quarters too, blocks under these names and not joined.

    Returns
    -------
    where, expected : str, dict
        Prefix of the fit; what it finds.
    """
    fit(study, "a", lams=4)
    expected = arrays(study)
    (name,) = study.objects.children("datamodels/a/")
    where, spec = f"datamodels/a/{name}/", group_spec("datamodels")
    study.objects.delete(f"{where}complete.json")
    for number, after in enumerate(names):
        finished = f"{where}blocks/{number:05d}.zarr.zip"
        block = dict(groups.read(study.objects, finished))
        block["weight_quarter"] = np.ones((4, *block["weight"].shape), np.float32)
        block = {key: values for key, values in block.items() if (number, key) not in without}
        study.objects.delete(finished)
        begun = f"{where}blocks/{number:05d}{after}.zarr.zip"
        groups.write_zip(study.objects, begun, spec, block)
    return where, expected


@pytest.mark.parametrize(
    ("names", "count"), [(("-4", "-7"), 1), (("-4", "-7"), 4), (("", "-5"), 1), (("", ""), 4)]
)
def test_a_fit_that_an_earlier_version_began_goes_on(study, monkeypatch, names, count):
    where, expected = begun_earlier(study, names)
    room(monkeypatch, count)
    fit(study, "a", lams=4)
    check(study, expected)
    assert study.objects.children(f"{where}blocks/") == ["00000.zarr.zip", "00001.zarr.zip"]


def test_blocks_of_two_versions_that_do_not_go_together_are_refused(study):
    where, _ = begun_earlier(study, ("", ""), without=[(0, "weight_half")])
    with pytest.raises(CorruptionError, match="some blocks have weight_half and some have not"):
        fit(study, "a", lams=4)
    assert "complete.json" not in study.objects.children(where)


def test_groups_and_words_hold_every_run_once(study):
    algorithm = study.algorithm("a")
    compact(algorithm.table)
    view = algorithm.table.view()
    runs = Runs(algorithm, view, "margin", parts=2)
    mask, values = view.read(["mask"])["mask"], view.read(["margin"])["margin"].astype(float)
    words = runs.words(threads=3)
    said, shift = runs.outputs(0, values.shape[1]), values.mean(axis=0)
    assert np.allclose(said.shift, values[np.concatenate(runs.rows)].mean(axis=0))
    for group, rows in enumerate(runs.rows):
        gram = stages.count_gram([words[group]])
        assert np.array_equal(gram, mask[rows].astype(int).T @ mask[rows].astype(int))
        own, used = said.of(group, slice(None))
        found = make_moments(words[group], own, shift, used=used, threads=2)
        assert found.runs == len(rows)
        assert np.allclose(found.product, mask[rows].T @ (values[rows] - shift), atol=1e-9)
        assert np.allclose(found.square, ((values[rows] - shift) ** 2).sum(axis=0))
        assert np.array_equal(found.lowest, (values[rows] - shift).min(axis=0))
    assert sum(map(len, runs.rows)) + runs.count["eval"] == RUNS


def test_counts_beyond_16_bits_are_kept():
    assert gram_dtype(65_535) is np.uint16
    assert gram_dtype(65_536) is np.int32
    words = np.full((6, 1032), np.uint64(2**64 - 1))
    gram = stages.count_gram([words])
    assert gram.dtype == np.int32
    assert (gram == 1032 * 64).all()


def test_memory_that_is_too_little(study, monkeypatch):
    with pytest.raises(InputError, match="beside the Grams"):
        fit(study, "a", memory=10**6)
    done = Done("fit", study.path, "a", "--memory", "1MB", "-Q")
    assert done.returncode == 1
    assert "give that with --memory" in done.stderr
    assert fit(study, "a").summary["targets"] == TARGETS


@pytest.mark.parametrize(
    "text", ["", "8 apples", "-3GB", "0", "nan", "GB", "1e9GB", "1e400", "99999999999T"]
)
def test_sizes_that_are_none(study, text):
    with pytest.raises(InputError, match="such as 8GB"):
        memory.parse(text)
    done = Done("fit", study.path, "a", f"--memory={text}", "-Q")
    assert done.returncode in (1, 2)
    assert "such as 8GB" in done.stderr or "--memory" in done.stderr


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("8GB", 8 * 10**9),
        ("1.5 g", 15 * 10**8),
        ("500MiB", 500 * 2**20),
        ("8GiB", 8 * 2**30),
        ("1e3 kB", 10**6),
        ("7", 7),
        (8e9, 8 * 10**9),
    ],
)
def test_sizes(text, size):
    assert memory.parse(text) == size
    assert memory.available() > 10**7


def test_scratch_that_is_full(study, monkeypatch, tmp_path):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(memory.os, "posix_fallocate", full)
    room(monkeypatch, 1, lambda n, dtype: memory.scratch_array(tmp_path, (n, n), dtype))
    with pytest.raises(StorageError, match="--scratch"):
        fit(study, "a")
    with pytest.raises(StorageError, match="no-such"):
        memory.scratch_array(tmp_path / "no-such", (2, 2), np.uint16)


@pytest.mark.parametrize("further", ["to the end", "by two stages"])
@pytest.mark.parametrize("folds", [0, 3])
def test_two_processes_may_do_the_same_fit(study, monkeypatch, folds, further):
    """One overtakes the other between two of its passes, and deletes what it began with."""
    parameters = Parameters(folds=folds)
    room(monkeypatch, 1)
    fit(study, "a", **asdict(parameters))
    expected = arrays(study)
    for folder in study.objects.children("datamodels/a/"):
        study.objects.delete(f"datamodels/a/{folder}")
    real, kept = engine.PassFit.block, []

    def late(self, blocks, number, *rest):
        if blocks.stages(number) == 1 and not kept:
            folder = Path(study.path, blocks._where)
            with monkeypatch.context() as other:
                other.setattr(engine.PassFit, "block", real)
                if further == "to the end":
                    fit(study, "a", **asdict(parameters))
                    (folder / "complete.json").unlink()
                else:
                    other.setattr(stages, "run", dying(stages.run, 5)[0])
                    with pytest.raises(KeyboardInterrupt):
                        fit(study, "a", **asdict(parameters))
            kept.extend(sorted((folder / "blocks").iterdir()))
            end = "[01].zarr.zip" if further == "to the end" else "[01]-3.zarr.zip"
            assert all(path.match(f"*0000{end}") for path in kept)
        real(self, blocks, number, *rest)
        if kept:
            assert len(list(Path(study.path, blocks._where, "blocks").iterdir())) == 2

    monkeypatch.setattr(engine.PassFit, "block", late)
    fit(study, "a", **asdict(parameters))
    assert len(kept) == 2
    check(study, expected)


def test_a_mapped_gram_is_not_taken_for_the_next_pass(monkeypatch):
    """As after a fit with scratch on a cluster that was interrupted, and one without."""
    tasks = pytest.importorskip("dmstore.regression.fitting.cluster_worker")
    seen = []

    def designs(one, ground, allocate, before):
        seen.append(before)
        return [object()]

    ready = tasks._Ready.__new__(tasks._Ready)
    ready.fitting = SimpleNamespace(runs=SimpleNamespace(sizes=[1, 1]), designs=designs)
    ready.ground = Ground([], {}, Room(1, in_memory, 0), None)
    tiles = SimpleNamespace(designs=lambda group, sizes: ["mapped"])
    first, second = (Pass([stage], 1) for stage in stages.all_stages(1, halves=False))
    ready._pass, ready._made, ready._designs = None, [], {}
    assert ready.designs(first, tiles) == {first.stages[0].groups: "mapped"}
    ready.designs(second, None)
    assert seen == [None]
    ready.designs(first, None)
    assert seen[1][0] is second.stages[0]


def test_a_refused_fit_leaves_nothing(study, tmp_path):
    before = sorted(path for path in tmp_path.rglob("*") if "/runs/" not in str(path))
    with pytest.raises(InputError, match=r"0.01 GB of memory are too little: 0\.\d GB are needed"):
        fit(study, "a", memory=10_000_000)
    after = sorted(path for path in tmp_path.rglob("*") if "/runs/" not in str(path))
    assert [path for path in after if path not in before] == [
        tmp_path / "fit.dm/datamodels",
        tmp_path / "fit.dm/datamodels/a",
    ]
    with pytest.raises(InputError, match="no such directory"):
        fit(study, "a", scratch=tmp_path / "nowhere")


def test_float16_outputs_are_fitted_as_they_are_stored(tmp_path):
    draw = np.random.default_rng(3)
    made = dmstore.create_study(
        tmp_path / "half.dm", {"train_id": np.arange(40).astype(str), "target_id": ["x", "y"]}
    )
    margin = {**known_outputs()["margin"], "dtype": "float16"}
    algorithm = made.add_algorithm("a", sampling="foreign", outputs={"margin": margin})
    mask = draw.random((500, 40)) < 0.5
    outputs = (mask @ draw.normal(size=(40, 2)) + draw.normal(size=(500, 2))).astype(np.float16)
    columns = {"time": np.zeros(500, np.int64), "host": np.full(500, "h")}
    rows = Rows(np.arange(500), {"mask": mask, "margin": outputs}, columns)
    algorithm.table.append(algorithm.complete(rows, "test"))
    fit(made, "a")
    runs, found = made.runs("a").load(), made.datamodels("a").load()
    assert runs.margin.dtype == np.float16
    used = runs.split.values != "eval"
    for target in range(2):
        alpha = float(found.lam[target]) / 2
        lasso = Lasso(alpha=alpha, tol=1e-12, max_iter=100_000)
        lasso.fit(
            runs.mask.values[used].astype(float), runs.margin.values[used, target].astype(float)
        )
        assert np.allclose(found.weight[target], lasso.coef_, atol=1e-5)


def test_a_path_of_few_runs_is_no_longer_than_a_refit():
    path, refit = stages.all_stages(2, halves=False)
    alone = stages.cost(refit, 300, 2000, 50)
    assert stages.cost(path, 250, 2000, 50) < alone < stages.cost(path, 1000, 2000, 50)
    assert stages.cost(path, 2000, 2000, 50) == stages.cost(path, 10**6, 2000, 50) == 5 * alone
    # One lam that was given is solved for once; and nothing is free.
    assert stages.cost(path, 9000, 2000, 1) == alone
    assert stages.cost(path, 1, 10**6, 50) == 1


class Kept:
    """Blocks of so many targets, none of which has been anywhere."""

    def __init__(self, *targets):
        self.ends = np.cumsum([0, *targets]).tolist()

    def bounds(self, number):
        return self.ends[number], self.ends[number + 1]

    def todo(self, stages):
        return list(range(len(self.ends) - 1))


def test_a_small_block_counts_as_its_targets_do():
    told = []
    steps = stages.all_stages(2, halves=True)
    passes = Passes(Kept(256, 8), steps, 1, lambda stage: 4, lambda *said: told.append(said))
    for one, todo in passes:
        for number in todo:
            passes.fitted(one, number)
    assert told[-1] == ("fit", 4 * 4 * 264, 4 * 4 * 264)
    assert [done for _, done, _ in told[:3]] == [0, 4 * 256, 4 * 264]
