"""Models without chosen train units against controls: what is trained, what serves as a control, what comes out."""

import json
import shutil

import numpy as np
import pytest
from commands import run, run_json
from helpers import examples, files
from zarr.storage import MemoryStore

import dmstore
from dmstore import counterfactual
from dmstore.analysis import compare, removal_effect
from dmstore.analysis.experiment.arms import arms_of
from dmstore.analysis.experiment.spread import spread
from dmstore.analysis.experiment.unseen import unseen_effect
from dmstore.analysis.pages.kept_removals import kept_removals
from dmstore.errors import FormatError, IncompleteError, InputError, NotFoundError
from dmstore.regression import fit
from dmstore.schema.group_specs import group_spec
from dmstore.sharing.publishing import publish
from dmstore.sharing.pulling import pull
from dmstore.storage.table import groups
from dmstore.study import failures, kept_models
from dmstore.study import removal as removals
from dmstore.training import RunWriter
from dmstore.upkeep.maintenance import compact, status, vacuum
from dmstore.upkeep.retraction import retract
from dmstore.upkeep.verification import verify

TRAIN, TARGET, RUNS = 40, 12, 400
HEAVY = (3, 8, 20, 31)


def weights(name):
    """Of "a", the first six targets rest on four units; of "b" they do not."""
    weight = np.zeros((TRAIN, TARGET))
    weight[np.arange(TARGET) + 10, np.arange(TARGET)] = 2.0
    if name != "b":
        weight[list(HEAVY), :6] += 1.5
    return weight


def outputs(name, masks, seeds):
    noise = [np.random.default_rng(seed).normal(size=TARGET) for seed in seeds]
    return np.asarray(masks, dtype=float) @ weights(name) + 0.3 * np.array(noise)


def store(study, name, **apart):
    with RunWriter(study, name, **apart) as writer:
        for runs in writer.pending(batch=200):
            writer.append_many(runs, margin=outputs(name, runs.mask, runs.seed))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    path = tmp_path_factory.mktemp("removal") / "s.dm"
    study = dmstore.create_study(path, examples(train=TRAIN, target=TARGET), seed=3)
    for name in ("a", "b"):
        study.add_algorithm(name, runs=RUNS)
        store(study, name)
    study.add_algorithm(
        "task", runs=60, task="linear_task:Linear", outputs=["margin", "prediction"]
    )
    compact(study)
    for name in ("a", "b"):
        fit(study, name, lams=10)
    compare(study, "a", "b", components=2, top=4)
    return path


@pytest.fixture
def study(made, tmp_path):
    return dmstore.open_study(shutil.copytree(made, tmp_path / "s.dm"))


def direction(study):
    """The name of the direction of "a" that rests on the heavy units, and its end."""
    compared = study.comparison("a", "b")["direction"].values[0]
    component = int(np.argmax(np.abs(compared[:, HEAVY].sum(axis=1))))
    return f"A{component + 1}", "top" if compared[component, HEAVY].sum() > 0 else "bottom"


def checked(study, **more):
    """A check by own loops: what is pending is stored as the command says."""
    code, end = direction(study)
    how = {"direction": code, "end": end, "share": 10, "models": 5, **more}
    with pytest.raises(IncompleteError, match="RunWriter") as error:
        counterfactual.removal(study, "a", "b", **how)
    for name in ("a", "b"):
        for one in study.removals(name):
            if one in str(error.value):
                store(study, name, removal=one, models=5)
    return counterfactual.removal(study, "a", "b", **how)


def test_units_of_a_direction_cost_one_algorithm_what_they_weigh(study):
    result = checked(study)
    assert set(result["unit"].values.tolist()) == set(study.ids("train")[list(HEAVY)].tolist())
    own, other = (result.sel(algorithm=name) for name in ("a", "b"))
    # Less what a random removal of 4 of 40 takes of all weights of such a target.
    truth = -6.0 + 0.1 * 8.0
    assert own["effect_low"] < truth < own["effect_high"] < -4
    assert abs(own["predicted"] - truth) < 0.5
    assert own["p"] < 1e-3
    assert other["effect_low"] < 0.2 < other["effect_high"]
    assert result["models"].values.tolist() == result["controls"].values.tolist() == [5, 5]
    assert result["seen"].values.tolist() == [36, 36]
    # Of a target weights are 1.5 four times and 2 once, or 2 once.
    for one, right, squares in (
        (own, truth, 4 * 1.5**2 + 2.0**2 - 8.0**2 / TRAIN),
        (other, 0.2, 4.0 - 4.0 / TRAIN),
    ):
        true = np.sqrt(squares / 4 * TRAIN / (TRAIN - 1))
        assert abs(one["spread"] - true) < 0.1 * true
        assert np.isclose(one["scaled"], one["effect"] / one["spread"])
        assert abs(one["expected"] - right) < one["expected_high"] - one["expected_low"] < 1
        assert np.isclose(one["surplus"], one["effect"] - one["expected"])
    assert np.isnan(own["difference"])
    assert np.isclose(other["difference"], own["scaled"] - other["scaled"])
    assert other["difference_high"] < -2
    assert (own["missed"], round(float(own["missed_deviation"]), 2)) == (2.0, 0.96)


def test_runs_serve_as_controls_where_models_see_as_many_units(study):
    """Only eval runs: nothing was fitted on them."""
    result = checked(study, as_runs=True)
    splits = status(study)["algorithms"]["a"]["splits"]
    assert result["controls"].values.tolist() == [splits["eval"]] * 2
    own = result.sel(algorithm="a")
    # The units of half-sized masks that are left are seen 20 times in 36 instead of 20 in 40.
    truth = -6.0 * 0.5 + 2.0 * (20 / 36 - 0.5)
    assert own["effect_low"] < truth < own["effect_high"] < -1.5
    assert abs(own["predicted"] - truth) < 0.3
    (table,) = [
        study.removal_runs("a", one).table.view()
        for one in removals.names(study.objects, "algorithms/a/")
    ]
    masks = table.read(["mask"])["mask"]
    assert (masks.sum(axis=1) == 20).all()
    assert not masks[:, HEAVY].any()
    assert len(np.unique(masks, axis=0)) == 5


def test_controls_serve_every_removal_of_their_size_and_leave_out_random_units(study):
    checked(study)
    with pytest.raises(IncompleteError) as error:
        counterfactual.removal(study, "a", target=0, share=10, models=5)
    assert "5 models of 'a' without these units" in str(error.value)
    assert "control" not in str(error.value)
    (control,) = [
        study.removal_runs("a", one)
        for one in removals.names(study.objects, "algorithms/a/")
        if not len(study.removal_runs("a", one).units)
    ]
    masks = control.table.view().read(["mask"])["mask"]
    assert (masks.sum(axis=1) == 36).all()
    assert len(np.unique(masks, axis=0)) == 5
    # The other algorithm has the same masks, and other seeds.
    other = study.removal_runs("b", control.removal)
    assert np.array_equal(other.masks(range(5)), masks)
    seeds = {run.seed for run in control.describe(np.arange(5))}
    assert not seeds & {run.seed for run in other.describe(np.arange(5))}
    assert not seeds & {run.seed for run in study.algorithm("a").describe(np.arange(RUNS))}


def test_a_result_is_kept_once_and_the_one_of_most_models_is_shown(study):
    first = checked(study)
    where = first.attrs["kept"].rpartition("/")[0] + "/"
    assert checked_again(study, 5).attrs["kept"] == first.attrs["kept"]
    for name in ("a", "b"):
        for one in removals.names(study.objects, f"algorithms/{name}/"):
            store(study, name, removal=one, models=8)
    checked_again(study, 8)
    shown = kept_removals(study, where)
    assert [(one["algorithm"], one["models"], one["controls"]) for one in shown] == [
        ("a", 8, 8),
        ("b", 8, 8),
    ]
    assert shown[0]["name"].endswith(f"10 % of direction {direction(study)[0]}")
    assert (shown[0]["units"], shown[0]["share"], shown[0]["what"]) == (
        4,
        10.0,
        "mean margin of 4 targets",
    )


def test_targets_that_models_see_are_refused(tmp_path):
    own = {**examples(train=TRAIN, target=TARGET), "target_train": np.arange(TARGET)}
    study = dmstore.create_study(tmp_path / "s.dm", own, seed=3)
    study.add_algorithm("a", runs=60)
    store(study, "a")
    fit(study, "a", lams=3)
    with pytest.raises(InputError, match="a target is a train unit"):
        counterfactual.removal(study, "a", target=str(study.ids("test")[0]), share=2.5)
    assert study.removals("a") == []


def test_a_check_that_rests_on_a_retracted_model_is_not_shown_once_it_is_made_again(study):
    first = checked(study)
    where = first.attrs["kept"].rpartition("/")[0] + "/"
    (one,) = (name for name in study.removals("a") if len(study.removal_runs("a", name).units))
    retract(study, "a", ["run=4"], reason="bad memory", removal=one)
    again = checked_again(study, 4)
    assert again["models"].values.tolist() == [4, 5]
    assert again["effect"][0] != first["effect"][0]
    shown = kept_removals(study, where)
    assert [row["models"] for row in shown] == [4, 5]
    assert [row["effect"] for row in shown] == again["effect"].values.tolist()


def test_a_check_of_an_earlier_version_is_shown_until_it_is_made_again(study):
    first = checked(study)
    where, _, name = first.attrs["kept"].rpartition("/")
    arrays, attrs = groups.read_with_attrs(study.objects, first.attrs["kept"])
    spec = group_spec("removals")
    store = MemoryStore()
    kept = {key: value for key, value in arrays.items() if not spec.arrays[key].optional}
    said = {key: attrs[key] for key in ("name", "output", "share")}
    groups.fill(store, spec, kept, whole=True, attrs=said)
    study.objects.delete(first.attrs["kept"])
    study.objects.put_if_absent(f"{where}/removal-{'0' * 16}.zarr.zip", groups.zip_bytes(store))
    assert list(verify(study)) == []
    old = kept_removals(study, f"{where}/")
    assert [one["effect"] for one in old] == first["effect"].values.tolist()
    assert all(np.isnan(one["scaled"]) for one in old)
    assert checked_again(study, 5).attrs["kept"].endswith(name)
    new = kept_removals(study, f"{where}/")
    assert [one["scaled"] for one in new] == first["scaled"].values.tolist()
    assert [one["less"] for one in new] == ["a", "a"]
    assert new[1]["difference"] == float(first["difference"][1])


def checked_again(study, models):
    code, end = direction(study)
    return counterfactual.removal(study, "a", "b", direction=code, end=end, share=10, models=models)


def test_they_are_no_runs_and_are_published_pulled_and_verified(study, tmp_path):
    before = study.algorithm("a").table.view().content_id()
    result = checked(study)
    assert study.algorithm("a").table.view().content_id() == before
    said = status(study)["algorithms"]["a"]
    assert (said["stored"], sorted(said["removals"].values())) == (RUNS, [5, 5])
    assert list(verify(study)) == []
    vacuum(study, grace=0)
    publish(study, tmp_path / "out")
    pull(tmp_path / "out", tmp_path / "in")
    theirs = dmstore.open_study(tmp_path / "in")
    assert list(verify(theirs)) == []
    code, end = direction(theirs)
    again = counterfactual.removal(
        theirs, "a", "b", direction=code, end=end, share=10, models=5, train=False
    )
    assert again.identical(result)
    # What a check found is read too.
    kept = tmp_path / "in" / result.attrs["kept"]
    whole = kept.read_bytes()
    kept.chmod(0o644)
    place = algorithm_place(theirs, whole)
    kept.write_bytes(whole[: len(whole) // 2])
    assert sorted(problem.where for problem in verify(theirs)) == sorted(
        [result.attrs["kept"], place]
    )
    kept.write_bytes(whole)
    (tmp_path / "in" / place).unlink()
    # A mask that is not what the removal says.
    place = next((tmp_path / "in").glob("algorithms/a/removals/*/removal.json"))
    document = json.loads(place.read_text())
    place.chmod(0o644)
    place.write_text(json.dumps({**document, "seen": document["seen"] - 1}))
    assert "not the removal" in " ".join(problem.text for problem in verify(theirs))
    with pytest.raises(FormatError, match="not the removal"):
        theirs.removal_runs("a", document["removal"])


def test_models_trained_on_all_data_are_retracted_unless_they_are_kept(study):
    classes = study.document["classes"]
    with RunWriter(study, "a", full=3) as writer:
        for runs in writer.pending(batch=3):
            said = outputs("a", runs.mask, runs.seed)
            writer.append_many(runs, margin=said, logit=np.zeros((3, TARGET, classes)))
    retract = ("retract", study.path, "a", "--full", "--where", "run=1", "--reason", "x")
    kept_models.write(study.objects, "a", 1, 7, {"weight": np.zeros(2, dtype=np.float32)})
    err = run(*retract, code=1)[1]
    assert "000001.safetensors: the model is kept" in err
    assert len(study.full_models("a").table.view()) == 3
    study.objects.delete(kept_models.place("a", 1))
    assert run_json(*retract)["retracted"] == 1
    assert study.full_models("a").table.view().run.tolist() == [0, 2]
    assert len(study.algorithm("a").table.view()) == RUNS


def algorithm_place(study, whole):
    """A check of one target, below its algorithm, that is cut short."""
    place = "algorithms/a/removals/removal-0123456789abcdef.zarr.zip"
    study.objects.put_if_absent(place, whole[:-100])
    return place


def test_a_task_trains_what_is_pending_and_goes_on(study):
    store_with_task(study)
    how = ("removal", study.path, "task", "--target", 5, "--share", 5, "--models", 3, "-Q")
    _, err = run(*how, "--part", "1/2", code=3)
    assert "pending: 1 model of 'task' without these units" in err
    (one,) = (
        part
        for part in study.removals("task")
        if f"--removal {part} --models 3" in err and len(study.removal_runs("task", part).units)
    )
    which = (study.path, "task", "--removal", one, "--models", 3)
    job = run_json("submit", *which, "--dry-run")["worker"]
    assert f"--removal {one} --models 3 --part next" in job
    assert run_json("train", *which)["trained"] == 1
    said = run_json(*how, "--part", "next")
    assert said["effects"]["task"]["models"] == said["effects"]["task"]["controls"] == 3
    assert said["kept"].startswith("algorithms/task/removals/removal-")
    text = run(*how)[0]
    assert "without the top 5 % of target 5 (2 train units), mean margin of 1 target" in text
    assert "in spreads: not measured" in text
    assert "3 models against 3 controls, of 38 train units each" in text
    (entry,) = kept_removals(study, "algorithms/task/removals/")
    assert entry["what"] == "mean margin of 1 target"
    retract = ("retract", study.path, "task", "--where", "run=0", "--reason", "x")
    assert run_json(*retract, "--removal", one)["runs_of"] == f"task:removal:{one}"
    assert "pending: 1 model" in run(*how, "--no-train", code=3)[1]
    assert run_json(*retract, "--removal", one, "--restore")["restored"] == 1
    assert run_json(*how)["effects"] == said["effects"]
    assert "give one of the two" in run(*retract, "--removal", one, "--full", code=1)[1]
    # As where a variable of a shell is empty: not the algorithm's own runs.
    assert "no removal ''" in run(*retract, "--removal", "", code=1)[1]
    assert "--models goes with --removal" in run("train", *which[:2], "--models", 2, code=2)[1]


def store_with_task(study):
    from dmstore.training.worker import train

    train(study, "task")
    compact(study)
    fit(study, "task", lams=5)


def test_a_run_that_fails_is_recorded_with_the_removal(study):
    stated = removals.stated([0], 39, study.algorithm("a").uuid)
    removals.add(study.objects, "algorithms/a/", stated)
    runs = study.removal_runs("a", stated["removal"])
    failures.record(study.objects, runs.prefix, runs.uuid, 2, "ValueError: x")
    assert list(verify(study)) == []
    assert not failures.recorded(study.objects, "algorithms/a/")
    store(study, "a", removal=stated["removal"], models=3)
    assert any("failures" in name for name in vacuum(study, grace=0)["a"].removed)


@pytest.mark.parametrize(
    ("how", "error", "words"),
    [
        ({"direction": "A1", "share": 0}, InputError, "more than 0"),
        ({"direction": "A1", "share": 50.1}, InputError, "at most 50"),
        ({"direction": "A1", "share": float("nan")}, InputError, "at most 50"),
        ({"direction": "A9"}, NotFoundError, "A1 to A2 (a), B1 to B2 (b)"),
        ({"direction": "A1\x1b[0m"}, NotFoundError, "is none of"),
        ({"target": "x" * 500}, NotFoundError, "not among the 12 targets"),
        ({"direction": "A1", "target": 1}, InputError, "one of the two"),
        ({}, InputError, "one of the two"),
        ({"direction": "A1", "end": "left"}, InputError, "top or bottom"),
        ({"direction": "A1", "models": 1}, InputError, "2 or more"),
        ({"target": 1, "share": 50}, InputError, "have a weight at the top"),
    ],
)
def test_bad_input_changes_nothing(made, how, error, words):
    before = files(made)
    with pytest.raises(error) as raised:
        counterfactual.removal(dmstore.open_study(made), "a", "b", **how)
    assert words in str(raised.value)
    assert "\x1b" not in str(raised.value)
    assert len(str(raised.value)) < 400
    assert files(made) == before


def test_unknown_removals_are_refused(study):
    with pytest.raises(NotFoundError, match="has no removal 'zz'"):
        RunWriter(study, "a", removal="zz")
    with pytest.raises(InputError, match="neither full nor target_set"):
        RunWriter(study, "a", removal="zz", full=True)


@pytest.mark.parametrize(
    ("models", "controls", "spread"),
    [(2, 2, 1), (2, 50, 1), (3, 20, 0.5), (5, 5, 3), (10, 10, 1), (10, 200, 2), (20, 5, 0.5)],
)
@pytest.mark.parametrize("truth", [0.0, -1.5])
def test_intervals_hold_over_simulated_studies(models, controls, spread, truth):
    """Sampling error 0.5 %; with few of a kind they may be too wide, never too narrow."""
    rng = np.random.default_rng([models, controls])
    studies = [str(number) for number in range(2000)]
    removed = rng.normal(truth, spread, (2000, models))
    control = rng.normal(0, 1, (2000, controls))
    result = removal_effect(
        dict(zip(studies, removed, strict=True)), dict(zip(studies, control, strict=True))
    )
    held = (result["effect_low"] <= truth) & (truth <= result["effect_high"])
    few = min(models, controls) < 5
    assert 0.93 <= held.mean() <= (1 if few else 0.97)
    outside = (result["effect_low"] > 0) | (result["effect_high"] < 0)
    assert np.array_equal(outside, result["p"] < 0.05)
    if not truth:
        assert outside.mean() <= 0.07
    elif min(models, controls) >= 10 and spread == 1:
        assert outside.mean() > 0.8


@pytest.mark.parametrize("weight", [0.0, 1.2])
def test_choosing_by_fits_leaves_intervals_right(weight):
    """500 studies: units are chosen by 190 runs, and 10 further ones are controls of models that see as many units."""
    rng = np.random.default_rng(11)
    removed, control, truths = {}, {}, []
    for number in range(500):
        weights = np.zeros(TRAIN)
        weights[:4] = weight
        masks = rng.permuted(np.tile(np.arange(TRAIN) < 20, (200, 1)), axis=1)
        said = masks @ weights + rng.normal(size=200)
        chosen = np.argsort(-(said[:190] @ (masks[:190] - 0.5)))[:4]
        left = np.setdiff1d(np.arange(TRAIN), chosen)
        without = np.zeros((8, TRAIN), dtype=bool)
        drawn = rng.permuted(np.tile(np.arange(36) < 20, (8, 1)), axis=1)
        without[:, left] = drawn
        removed[str(number)] = without @ weights + rng.normal(size=8)
        control[str(number)] = said[190:]
        truths.append(weights[left].sum() * 20 / 36 - weights.sum() / 2)
    result = removal_effect(removed, control)
    held = (result["effect_low"].values <= truths) & (truths <= result["effect_high"].values)
    assert 0.93 <= held.mean() <= 0.97
    if weight:
        assert (result["effect_high"] < 0).mean() > 0.6


def half_fit(mask, outputs):
    """Least squares, as rows of a sparse array."""
    from scipy.sparse import csr_array

    design = np.column_stack([mask, np.ones(len(mask))])
    return csr_array(np.linalg.lstsq(design, outputs, rcond=None)[0][:-1].T)


def simulated(number, *, as_runs):
    """One study whose two algorithms are the same but for scale and noise: what a removal is given, and the truth."""
    rng = np.random.default_rng([number, as_runs])

    def masks(count, seen, left=None):
        left = np.arange(TRAIN) if left is None else left
        drawn = np.zeros((count, TRAIN), dtype=bool)
        drawn[:, left] = rng.permuted(np.tile(np.arange(len(left)) < seen, (count, 1)), axis=1)
        return drawn

    effects = rng.normal(0, 0.3, (TRAIN, 3))
    effects[:4] += 1.2
    runs, spare = masks(480, 20), masks(30, 20)
    removed, control, spreads, expected, truth, left = {}, {}, {}, {}, {}, None
    for name, scale, noise in ((f"{number} a", 1.0, 1.0), (f"{number} b", 3.0, 6.0)):
        theta = scale * effects

        def said(mask, theta=theta, noise=noise):
            return mask @ theta + noise * rng.normal(size=(len(mask), 3))

        outputs = said(runs)
        # Far too small, and what the units are chosen by.
        fit = (runs - 0.5).T @ (outputs - outputs.mean(axis=0)) * (2 / 480)
        if left is None:
            left = np.sort(np.argsort(fit.mean(axis=1))[:-4])
            seen = 20 if as_runs else 36
            without, others = masks(10, seen, left), spare if as_runs else masks(10, 36)
        unseen = said(spare).mean(axis=1)
        removed[name] = said(without).mean(axis=1)
        control[name] = unseen if as_runs else said(others).mean(axis=1)
        change = -np.full(TRAIN, seen / TRAIN)
        change[left] += seen / 36
        half = np.arange(480) % 2
        fits = [half_fit(runs[half == h], outputs[half == h]) for h in (0, 1)]
        spreads[name] = spread(arms_of(runs, outputs, half, rate=0.5), fits)
        rate = np.full(TRAIN, 0.5)
        expected[name] = unseen_effect(spare, unseen, fit.mean(axis=1), change, rate)
        square = ((theta - theta.mean(axis=0)) ** 2).sum(axis=0).mean()
        truth[name] = theta.mean(axis=1) @ change, np.sqrt(square / 4 * TRAIN / (TRAIN - 1))
    shared = (np.arange(10) if as_runs else np.full(10, -1), np.arange(len(others)))
    return removal_effect(
        removed, control, spread=spreads, masks=dict.fromkeys(removed, shared), expected=expected
    ), np.array(list(truth.values()))


@pytest.mark.parametrize("as_runs", [pytest.param(False, marks=pytest.mark.slow), True])
def test_effects_in_spreads_and_expected_ones_hold_over_simulated_studies(as_runs):
    """500 studies: equal algorithms on other scales are equal in spreads, and their units were chosen by their runs."""
    held = {key: [] for key in ("scaled", "expected", "surplus", "difference")}
    predicted = []
    for number in range(500):
        result, truth = simulated(number, as_runs=as_runs)
        effect, size = truth.T
        zero = np.zeros(2)
        for key, right in zip(held, (effect / size, effect, zero, zero), strict=True):
            low, high = (result[f"{key}_{end}"].values for end in ("low", "high"))
            held[key] += ((low <= right) & (right <= high))[~np.isnan(low)].tolist()
        predicted.append(np.mean(result["expected"].values / effect))
    assert len(held["scaled"]) > 990
    for key, inside in held.items():
        assert 0.93 <= np.mean(inside) <= 0.97, key
    assert abs(np.mean(predicted) - 1) < 0.02


@pytest.mark.parametrize("fixed", [True, False])
def test_a_spread_is_that_over_random_halves_without_noise(fixed):
    """Whatever share the runs saw, with fits taken off or not."""
    from scipy.sparse import csr_array

    rng = np.random.default_rng(4)
    theta = rng.normal(size=(TRAIN, 3)) + 0.5
    mask = rng.random((4000, TRAIN)) < 0.3
    if fixed:
        mask = rng.permuted(np.tile(np.arange(TRAIN) < 12, (4000, 1)), axis=1)
    outputs = mask @ theta + 4 * rng.normal(size=(4000, 3))
    halves = arms_of(mask, outputs, np.arange(4000) % 2, rate=0.3)
    own = (theta - theta.mean(axis=0)) * np.sqrt(TRAIN / (TRAIN - 1)) if fixed else theta
    true = np.sqrt((own**2).sum(axis=0).mean() / 4)
    fits = [csr_array(theta.T * share) for share in (0.5, 0.9)]
    for value, error in (spread(halves), spread(halves, fits)):
        assert abs(value - true) < 3 * error < 0.15 * true
    weak = arms_of(mask[:60], rng.normal(size=(60, 3)), np.arange(60) % 2, rate=0.3)
    assert np.isnan(spread(weak)).all()


def test_the_interval_is_that_of_scipy():
    from scipy import stats

    rng = np.random.default_rng(2)
    ours, others = rng.normal(1, 1, 7), rng.normal(0, 2, 9)
    result = removal_effect({"a": ours}, {"a": others}).sel(algorithm="a")
    theirs = stats.ttest_ind(ours, others, equal_var=False)
    ends = theirs.confidence_interval(0.95)
    assert np.allclose(
        [result["p"], result["effect_low"], result["effect_high"]],
        [theirs.pvalue, ends.low, ends.high],
    )
    with pytest.raises(InputError, match="1 models and 9 controls"):
        removal_effect({"a": ours[:1]}, {"a": others})
