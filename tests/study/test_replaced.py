"""Outputs on a later target set of a run that is retracted and trained again."""

import itertools

import numpy as np
import pytest
from helpers import fill

from dmstore.intake.ingest import take_in as ingest
from dmstore.training import RunWriter
from dmstore.upkeep import retraction
from dmstore.upkeep.maintenance import compact, vacuum
from dmstore.upkeep.retraction import retract_runs
from dmstore.upkeep.verification import verify

TARGETS = 9
RUNS = 6
GAPS = ("outputs", "retract", "train", "outputs again")


def values(run, seed):
    draw = np.random.default_rng([seed, run])
    return {
        "margin": draw.normal(size=TARGETS).astype(np.float32),
        "prediction": draw.integers(0, 3, TARGETS).astype(np.int16),
    }


def by_writer(study, algorithm, folder, ids, seed):
    with RunWriter(study, "alpha", target_set="later") as writer:
        for run in list(writer.pending()):
            writer.append(run, **values(run.id, seed))
    return []


def by_file(study, algorithm, folder, ids, seed, *, stated=False):
    given = [values(run, seed) for run in ids]
    arrays = {name: np.array([each[name] for each in given]) for name in given[0]}
    view = algorithm.table.view()
    if stated:
        place = [view.run.tolist().index(run) for run in ids]
        arrays["run_digest"] = view.digest[place, :8].copy().view("<u8").ravel()
    path = folder / f"{seed}-{'-'.join(map(str, ids))}.npz"
    np.savez(path, run=np.array(ids), **arrays)
    found = ingest(algorithm, [path], outputs=study.target_outputs("alpha", "later"))
    assert found.errors == []
    return found.warnings


def by_stating_file(*arguments):
    return by_file(*arguments, stated=True)


def tidy(study):
    compact(study)
    vacuum(study, grace=0)


def check_shown(study, seed):
    """All runs have outputs, and those of run 3 are of the newer model."""
    view = study.view("alpha", "later")
    assert sorted(view.run.tolist()) == list(range(RUNS))
    assert view.pending.tolist() == []
    for run in range(RUNS):
        found = view.dataset.margin.sel(run=run).values
        assert np.array_equal(found, values(run, seed if run == 3 else 0)["margin"]), run
    assert study.target_outputs("alpha", "later").table.view().conflicts == ()
    assert list(verify(study)) == []


ORDERS = [chosen for n in range(5) for chosen in itertools.combinations(GAPS, n)]
# Each order with a writer or with a file, and with or without a kill between runs and outputs.
CASES = [
    pytest.param(
        tidied,
        (by_writer, by_stating_file)[(place + equal) % 2],
        killed,
        0 if equal else 1,
        id="-".join(["equal" if equal else "others", "killed" if killed else "whole", *tidied]),
    )
    for equal, killed in itertools.product((False, True), repeat=2)
    for place, tidied in enumerate(ORDERS)
]


def replace(study, algorithm, folder, monkeypatch, tidied, store, killed):
    """Store outputs, retract run 3, train it again; compact and vacuum at some moments."""
    fill(algorithm, range(RUNS))
    study.add_targets("later", {"label": np.arange(TARGETS) % 3})
    store(study, algorithm, folder, list(range(RUNS)), 0)
    if "outputs" in tidied:
        tidy(study)
    with monkeypatch.context() as patch:
        if killed:
            patch.setattr(retraction, "_settle_outputs", lambda *_: None)
        retract_runs(algorithm, ["run=3"], reason="test")
    assert 3 not in study.view("alpha", "later").run
    if "retract" in tidied:
        tidy(study)
    fill(algorithm, [3], seed=1)
    assert study.view("alpha", "later").pending.tolist() == [3]
    if "train" in tidied:
        tidy(study)


@pytest.mark.parametrize(("tidied", "store", "killed", "seed"), CASES)
def test_outputs_of_the_newer_model_win(
    study, algorithm, tmp_path, monkeypatch, tidied, store, killed, seed
):
    """In every order of compactions, also where the two models say the same on these targets."""
    replace(study, algorithm, tmp_path, monkeypatch, tidied, store, killed)
    assert store(study, algorithm, tmp_path, [3], seed) == []
    if "outputs again" in tidied:
        tidy(study)
    check_shown(study, seed)
    tidy(study)
    check_shown(study, seed)


@pytest.mark.parametrize("tidied", [(), GAPS], ids=["loose", "tidied"])
@pytest.mark.parametrize("killed", [False, True], ids=["whole", "killed"])
def test_a_file_that_does_not_say_of_which_model_it_is(
    study, algorithm, tmp_path, monkeypatch, tidied, killed
):
    """What the earlier model said is refused, whoever says it; anything else is of the newer one."""
    replace(study, algorithm, tmp_path, monkeypatch, tidied, by_file, killed)
    warnings = by_file(study, algorithm, tmp_path, [3], 0)
    assert "a column run_digest says" in warnings[0]
    assert study.view("alpha", "later").pending.tolist() == [3]
    assert by_file(study, algorithm, tmp_path, [3], 1) == []
    check_shown(study, 1)
    tidy(study)
    check_shown(study, 1)
