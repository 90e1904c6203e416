"""Models trained on all data: their own tables, kept one by one, and effects from stored outputs alone."""

import shutil

import numpy as np
import pytest
from commands import run
from helpers import examples
from safetensors.numpy import load_file

import dmstore
from dmstore import counterfactual
from dmstore.errors import CorruptionError, InputError
from dmstore.sharing import diff
from dmstore.sharing.publishing import publish
from dmstore.sharing.pulling import pull
from dmstore.study import kept_models
from dmstore.study import removal as removals
from dmstore.study.plan import Part
from dmstore.training import RunWriter
from dmstore.training.full import ask_full, kept, train_full
from dmstore.training.tasks.dense import Dense
from dmstore.training.transformations import choose
from dmstore.training.transformed import add_transformed
from dmstore.upkeep.maintenance import compact, status, vacuum
from dmstore.upkeep.verification import verify

TASK = "dmstore.training.tasks:dense"
CONFIG = {"epochs": 2, "batch_size": 20, "hidden": 4, "models": 2}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A study of a task that keeps its models, one algorithm of an own loop, and two transformed sets."""
    path = tmp_path_factory.mktemp("full") / "s"
    study = dmstore.create_study(path, examples(train=60, target=20), seed=3)
    study.add_algorithm("plain", runs=6, task=TASK, config=CONFIG)
    study.add_algorithm("own", runs=6)
    for percent in (25, 50):
        add_transformed(study, f"y{percent}", choose("yellow-square"), percent / 100)
    train_full(study, "plain", 3)
    for target_set in ("y25", "y50"):
        ask_full(study, "plain", target_set)
    store(study, "own", 4, lambda model, strength: strength * (1 + model / 10))
    return path


@pytest.fixture
def study(made, tmp_path):
    shutil.copytree(made, tmp_path / "s")
    return dmstore.open_study(tmp_path / "s")


def store(study, name, models, lift):
    """Outputs of an own loop: the logit of class 1 is lifted by so much."""
    for target_set, strength in ((None, 0.0), ("y25", 1.0), ("y50", 2.0)):
        with RunWriter(study, name, full=models, target_set=target_set) as writer:
            for run in writer.pending():
                assert run.mask.all()
                logit = np.zeros((20, 3), np.float32)
                logit[:, 1] = lift(run.id, strength)
                writer.append(run, logit=logit, margin=np.zeros(20))


def test_full_models_are_no_runs(study):
    for name in ("plain", "own"):
        assert len(study.algorithm(name).table.view()) == 0
        assert len(study.algorithm(name).pending()) == 6
    said = status(study)["algorithms"]["plain"]
    assert (said["stored"], said["full"]) == (
        0,
        {"plain:full": 3, "plain:full:y25": 3, "plain:full:y50": 3},
    )
    assert study.runs("plain").sizes["run"] == 0
    seeds = {run.seed for run in study.full_models("plain").describe(np.arange(3))}
    assert not seeds & {run.seed for run in study.algorithm("plain").describe(np.arange(6))}


def test_diff_says_which_models_one_side_lacks(study, tmp_path):
    shutil.copytree(study.path, tmp_path / "other")
    other = dmstore.open_study(tmp_path / "other")
    assert diff(study.path, other.path)["equal"]
    train_full(other, "plain", 5)
    own = other.algorithm("own")
    stated = removals.stated([0, 1, 2], 27, own.uuid)
    removals.add(other.objects, own.prefix, stated)
    with RunWriter(other, "own", removal=stated["removal"], models=2) as writer:
        for one in writer.pending():
            writer.append(one, margin=np.zeros(20))
    found = diff(study.path, other.path)
    models = found["algorithms"]["plain"]["models"]
    assert not found["equal"]
    assert models["full"]["shared"] == 3
    assert models["full"]["only_y"] == {"count": 2, "run": [3, 4]}
    assert models["full:y25"]["equal"]
    said = run("diff", study.path, other.path)[0]
    assert "plain:full: 3 models in both, 0 only in X, 2 only in Y" in said
    assert f"own:removal:{stated['removal']}: 0 models in both, 0 only in X, 2 only in Y" in said


def test_training_goes_on_one_by_one(study, monkeypatch):
    before = {n: study.objects.get(w) for n, w in kept_models.names(study.objects, "plain").items()}
    assert list(before) == [0, 1, 2]
    assert train_full(study, "plain", 3) == 0
    gone = kept_models.place("plain", 1)
    study.objects.delete(gone)
    (_, first), (_, second) = kept(study, "plain", 3)
    assert study.objects.get(gone) == before[1]
    assert first["hidden"].shape[0] + second["hidden"].shape[0] == 3
    stops = iter([False, True])
    assert train_full(study, "plain", 7, stop=lambda: next(stops)) == 2
    assert study.full_models("plain", 7).pending().tolist() == [5, 6]


def test_no_model_is_left_out_where_the_task_takes_fewer_at_once(study, monkeypatch):
    """As it does once memory ran out."""

    train = Dense.models

    def shrinking(task, masks, seeds):
        task.batch = 1
        return train(task, masks, seeds)

    monkeypatch.setattr(Dense, "models", shrinking)
    assert train_full(study, "plain", 7) == 4
    for number in range(7):
        study.objects.delete(kept_models.place("plain", number))
    asked = [made["hidden"].shape[0] for _, made in kept(study, "plain", 7)]
    assert sum(asked) == 7


@pytest.mark.parametrize("keep", [True, False])
def test_a_full_model_that_diverges_stops_no_other(study, monkeypatch, keep):
    bad = study.full_models("plain", 7).describe(np.array([4]))[0].seed
    models, train = Dense.models, Dense.train

    def spoilt(made, seeds):
        for value in made.values():
            value[[seed == bad for seed in seeds]] = np.nan
        return made

    monkeypatch.setattr(Dense, "models", lambda t, m, s: spoilt(models(t, m, s), s))
    monkeypatch.setattr(Dense, "train", lambda t, r: spoilt(train(t, r), [one.seed for one in r]))
    for _ in range(2):
        with pytest.raises(InputError, match=r"full model 4 diverged, 1 in all"):
            train_full(study, "plain", 7, keep=keep)
        assert study.full_models("plain", 7).pending().tolist() == [4]


def test_parts_and_progress_of_full_models_are_of_those_that_there_are_to_be(study):
    told = []
    with RunWriter(study, "own", part="2/2", full=8) as writer:
        assert [r.id for r in writer.pending(progress=lambda *so: told.append(so))] == [5, 7]
    assert told == [("own:full", 2, 4)]
    train_full(study, "plain", 5)
    assert ask_full(study, "plain", "y25", part=Part(1, 2)) == 1
    assert study.target_outputs("plain", "y25", full=True).pending().tolist() == [3]


def test_algorithms_are_two(study):
    with pytest.raises(InputError, match="two algorithms"):
        counterfactual.check(study, "own", "own", None, 1, name="x", intensity=[0, 1])
    with pytest.raises(InputError, match="two algorithms"):
        counterfactual.from_outputs(study, ["own", "own"], ["y25"], 1)


def test_stored_outputs_are_what_kept_models_say(study):
    study.add_algorithm("again", runs=2, task=TASK, config=CONFIG)
    assert train_full(study, "again", 3, keep=False) == 3
    assert kept_models.names(study.objects, "again") == {}
    with pytest.raises(InputError, match="is not kept"):
        ask_full(study, "again", "y25")
    direct = counterfactual.check(
        study,
        "plain",
        "again",
        choose("yellow-square"),
        1,
        name="yellow",
        intensity=[0, 0.25, 0.5],
        models=3,
    )
    found = counterfactual.from_outputs(study, ["plain", "own"], ["y50", "y25"], 1)
    assert found["intensity"].values.tolist() == [0, 0.25, 0.5]
    assert np.allclose(found["effect"].values[0], direct["effect"].values[0], atol=1e-6)
    assert found.attrs["kept"] == ""


def test_effects_from_outputs_are_those_of_the_logits(study):
    found = counterfactual.from_outputs(study, ["own", "plain"], ["y25", "y50"], [1, 2])
    lift = np.array([1 + model / 10 for model in range(4)])
    for step, strength in enumerate((0, 1, 2)):
        share = np.exp(strength * lift) / (np.exp(strength * lift) + 2)
        assert np.isclose(found["effect"].values[0, step, 0], (share - 1 / 3).mean(), atol=1e-6)
        assert np.isclose(
            found["effect"].values[0, step, 1], ((1 - share) / 2 - 1 / 3).mean(), atol=1e-6
        )
    low, high = found["effect_low"].values, found["effect_high"].values
    assert np.array_equal(found["delta"].values, low)
    assert np.array_equal(found["epsilon"].values, high[::-1])
    assert found["models"].values.tolist() == [4, 3]
    assert found["examples"].values.tolist() == [20, 20]
    others = counterfactual.from_outputs(study, ["own", "plain"], ["y50"], 1, on="others")
    assert others["examples"].values.tolist() == [(study.label() != 1).sum()]


@pytest.mark.parametrize(
    ("sets", "options", "words"),
    [
        (["y25"], {"output": "margin"}, "--on class, or store logit"),
        (["y25"], {"output": "prediction"}, "is not one of"),
        (["test"], {}, "no column 'base'"),
        (["y25", "half"], {}, "one intensity"),
        (["y25", "few"], {}, "other targets"),
        (["y25", "web"], {}, "one transformation"),
        (["never"], {}, "no outputs of full models of 'plain' on 'never'"),
    ],
)
def test_what_outputs_cannot_say_is_refused(study, sets, options, words):
    square = choose("yellow-square")
    for name, change, strength, rows in (
        ("half", square, 0.25, None),
        ("few", square, 0.75, np.arange(5)),
        ("web", choose("spider-web"), 0.75, None),
        ("never", square, 0.9, None),
    ):
        if name in sets:
            add_transformed(study, name, change, strength, positions=rows, seed=1)
    with pytest.raises(InputError, match=words):
        counterfactual.from_outputs(study, ["plain", "own"], sets, 1, **options)


def test_margins_tell_of_the_labels_class(study):
    found = counterfactual.from_outputs(
        study, ["plain", "own"], ["y25"], 1, output="margin", on="class"
    )
    assert found.attrs["measure"] == "margin"
    view = study.target_outputs("plain", "y25", full=True).table.view()
    after = view.read(["margin"])["margin"][np.argsort(view.run)]
    base = study.full_models("plain").table.view()
    before = base.read(["margin"])["margin"][np.argsort(base.run)]
    change = (after.astype(float) - before)[:, study.label() == 1]
    assert np.isclose(found["effect"].values[0, 1, 0], change.mean(), atol=1e-6)


def test_full_tables_are_kept_shared_and_verified(study, tmp_path):
    assert list(verify(study)) == []
    done = compact(study)
    assert done["own:full"].absorbed == 1
    assert vacuum(study, grace=0)["own:full:y25"].removed
    assert list(verify(study)) == []
    before = counterfactual.from_outputs(study, ["own", "plain"], ["y25", "y50"], 1)
    publish(study, tmp_path / "p", about={"title": "t", "authors": ["a"], "licence": "MIT"})
    pull(tmp_path / "p", tmp_path / "c")
    copy = dmstore.open_study(tmp_path / "c")
    assert counterfactual.from_outputs(copy, ["own", "plain"], ["y25", "y50"], 1).equals(before)
    assert list(verify(copy)) == []
    where = copy.objects.root / kept_models.place("plain", 0)
    raw = bytearray(where.read_bytes())
    raw[-3] ^= 1
    where.write_bytes(raw)
    assert [one.where for one in verify(copy)] == [kept_models.place("plain", 0)]
    model, seed = kept_models.read(study.objects, kept_models.place("plain", 0))
    assert seed == study.full_models("plain").describe(np.arange(1))[0].seed
    loaded = load_file(study.objects.root / kept_models.place("plain", 0))
    assert all(np.array_equal(loaded[key], model[key]) for key in model.keys() | loaded.keys())
    with pytest.raises(CorruptionError, match="not those that were written"):
        kept_models.read(copy.objects, kept_models.place("plain", 0))
