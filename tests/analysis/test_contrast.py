"""Effects of groups of train units: against plain formulas, all masks there are, simulations, and the command."""

import itertools
import shutil

import numpy as np
import pytest
from commands import run, run_json
from helpers import files
from scipy.sparse import csr_array
from scipy.stats import t as student

import dmstore
from benchmarks import contrasts
from dmstore.analysis import contrast
from dmstore.analysis.experiment.arms import Arm, arms_of
from dmstore.analysis.experiment.effects import effects
from dmstore.errors import InputError
from dmstore.regression import fit
from dmstore.storage.table.rows import Rows
from dmstore.upkeep.maintenance import compact

# Every mask of 4 of 8 units, with all that it can say: sums over them are what is expected.
EVERY = np.array(
    [[i in chosen for i in range(8)] for chosen in itertools.combinations(range(8), 4)]
)


def group(size, *members):
    made = np.zeros(size)
    made[list(members)] = 1 / len(members)
    return made


def every_mask(outputs, unit=None):
    """Arms in either half of which each mask stands once."""
    mask = np.concatenate([EVERY, EVERY])
    half = np.repeat([0, 1], len(EVERY))
    arms = arms_of(mask, np.concatenate([outputs, outputs]), half, rate=0.5)
    if unit is None:
        return arms
    return tuple(Arm(one.masks, one.used, one.rate, one.outputs, unit) for one in arms)


def test_an_effect_is_the_covariance_with_what_masks_say_of_the_group():
    draw = np.random.default_rng(0)
    mask = draw.random((200, 30)) < 0.4
    values = mask @ draw.normal(size=(30, 5)) + draw.normal(size=(200, 5))
    half = draw.integers(0, 2, 200)
    train = np.stack([group(30, 0, 1, 2), group(30, *range(10, 20))], axis=1)
    target = np.stack([group(5, 0, 3), group(5, 1)], axis=1)
    found = effects([arms_of(mask, values, half)], train, target)
    rate = mask.mean(axis=0)
    z = ((mask - rate) / (rate * (1 - rate))) @ train
    expected, variance = np.zeros((2, 2)), np.zeros((2, 2))
    for h in (0, 1):
        rows, share = half == h, (half == h).mean()
        for i, j in np.ndindex(2, 2):
            x, y = z[rows, i], (values @ target)[rows, j]
            expected[i, j] += share * np.cov(x, y)[0, 1]
            # The jackknife: each mask left out once.
            left = [np.cov(np.delete(x, r), np.delete(y, r))[0, 1] for r in range(len(x))]
            variance[i, j] += share**2 * (len(x) - 1) * np.var(left)
    assert np.allclose(found.estimate[0], expected, rtol=1e-5)
    assert np.allclose(found.error[0] ** 2, variance, rtol=1e-5)
    assert (found.freedom == 198).all()


@pytest.mark.parametrize("fitted", [False, True])
def test_of_masks_of_one_size_a_unit_stands_in_the_place_of_another(fitted):
    draw = np.random.default_rng(1)
    weight, fits = draw.normal(1.0, 1.0, (2, 6, 8)).astype(np.float32)
    train = np.stack([group(8, 0, 1, 2), group(8, 5, 6)], axis=1)
    target = np.stack([group(6, 0, 1, 2, 3), group(6, 4, 5)], axis=1)
    arms = every_mask(EVERY @ weight.T)
    given = [lambda half, start, stop: csr_array(fits[start:stop])] if fitted else None
    found = effects([arms], train, target, fits=given).estimate[0]

    def exchanged(weight):
        """Mean over units of the group, and over all others whose place each may take."""
        return np.array(
            [
                [
                    np.mean([w[j] - np.delete(w, j).mean() for j in np.flatnonzero(u)])
                    for w in (target.T @ weight)
                ]
                for u in train.T
            ]
        )

    # A covariance of a sample is taken over one less than all.
    more = 70 / 69
    expected = more * exchanged(weight)
    if fitted:
        expected = more * exchanged(weight - fits) + exchanged(fits)
    assert np.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("fitted", [False, True])
def test_a_target_that_is_a_train_unit_is_measured_where_it_was_not_seen(fitted):
    """Its own unit is no part of the group then, nor of what a unit may stand in the place of."""
    draw = np.random.default_rng(2)
    unit = np.array([0, 6, -1])
    weight, fits = draw.normal(1.0, 1.0, (2, 3, 8)).astype(np.float32)
    saw = EVERY[:, np.maximum(unit, 0)] & (unit >= 0)
    said = np.where(saw, 1000.0, EVERY @ weight.T)
    train = np.stack([group(8, 0, 1, 2), group(8, 5, 6)], axis=1)
    target = np.eye(3)
    given = [lambda half, start, stop: csr_array(fits[start:stop])] if fitted else None
    found = effects([every_mask(said, unit)], train, target, fits=given)

    def exchanged(w, own, members):
        others = [j for j in range(8) if j != own]
        kept = [j for j in members if j != own]
        return np.mean([w[j] - np.mean([w[i] for i in others if i != j]) for j in kept])

    for place, own in enumerate(unit):
        # 35 of 70 masks did not see a unit.
        more = 70 / 69 if own < 0 else 35 / 34
        for row, members in enumerate(([0, 1, 2], [5, 6])):
            expected = more * exchanged(weight[place], own, members)
            if fitted:
                expected = more * exchanged(weight[place] - fits[place], own, members)
                expected += exchanged(fits[place], own, members)
            assert found.estimate[0, row, place] == pytest.approx(expected, abs=1e-4)
    together = effects([every_mask(said, unit)], train, np.full((3, 1), 1 / 3), fits=given)
    assert np.allclose(together.estimate[0, :, 0], found.estimate[0].mean(axis=1), atol=1e-5)


def test_the_error_of_targets_that_are_train_units_is_right():
    """Over many studies estimates scatter as they say."""
    draw = np.random.default_rng(3)
    weight = draw.normal(1.0, 1.0, (12, 30))
    unit = np.array([*range(6), *range(20, 23), -1, -1, -1])
    train, target = group(30, *range(6))[:, None], np.full((12, 1), 1 / 12)
    estimate, error = [], []
    for _ in range(150):
        mask = draw.random((80, 30)).argsort(axis=1) < 15
        said = mask @ weight.T + draw.normal(size=(80, 12))
        arms = arms_of(mask, said, np.arange(80) % 2, rate=0.5)
        arms = tuple(Arm(one.masks, one.used, one.rate, one.outputs, unit) for one in arms)
        found = effects([arms], train, target)
        estimate.append(found.estimate[0, 0, 0])
        error.append(found.error[0, 0, 0])
    assert np.mean(error) == pytest.approx(np.std(estimate), rel=0.15)


@pytest.mark.parametrize("name", ["Bernoulli masks", "24 masks", "all at once"])
def test_intervals_hold_what_they_promise(name):
    found = contrasts.rates(contrasts.SETTINGS[name], 25)
    assert 0.9 <= found["covers"] <= 0.99
    assert 0.9 <= found["covers_difference"] <= 0.99
    assert found["claimed"] <= 0.1
    assert abs(found["bias"]) < 0.35


def test_fits_make_intervals_narrower_and_move_nothing():
    draw = np.random.default_rng(4)
    weight = draw.normal(0.5, 1.0, (4, 40))
    mask = draw.random((400, 40)).argsort(axis=1) < 20
    said = mask @ weight.T + draw.normal(size=(400, 4))
    arms = arms_of(mask, said, np.arange(400) % 2, rate=0.5)
    train, target = group(40, *range(10))[:, None], np.full((4, 1), 0.25)
    near = (weight + 0.2 * draw.normal(size=weight.shape)).astype(np.float32)
    bare = effects([arms], train, target)
    good = effects([arms], train, target, fits=[lambda h, i, j: csr_array(near[i:j])])
    assert good.error[0] < 0.5 * bare.error[0]
    assert abs(good.estimate - bare.estimate)[0] < 3 * bare.error[0]
    assert good.fitted == (True,)


@pytest.mark.parametrize("kind", ["each by itself", "in blocks", "beside others", "of one size"])
def test_masks_that_draw_units_together_are_told(kind):
    draw = np.random.default_rng(5)
    mask = draw.random((600, 40)) < 0.5
    if kind == "in blocks":
        mask[:, :8] = mask[:, :1] ^ (draw.random((600, 8)) < 0.1)
    if kind == "beside others":
        # Each of the group with one that is not of it: the group itself varies as it should.
        mask[:, 20:28] = mask[:, :8]
    if kind == "of one size":
        mask = draw.random((600, 40)).argsort(axis=1) < 20
    said = mask @ draw.normal(size=(40, 3)) + draw.normal(size=(600, 3))
    arms = arms_of(mask, said, np.arange(600) % 2)
    train = np.stack([group(40, *range(8)), group(40, *range(30, 38))], axis=1)
    fits = [lambda h, i, j: csr_array(np.ones((j - i, 40), dtype=np.float32))]
    found = effects([arms], train, np.eye(3), planned=[False], fits=fits)
    wanted = kind in ("in blocks", "beside others")
    assert found.together.tolist() == [[wanted, False]]
    # What fits are expected to say is not known then.
    assert found.fitted == (not wanted,)


TRAIN, TARGET = 60, 30


def store(algorithm, count, weight, masks=None, **outputs):
    draw = np.random.default_rng([count, len(algorithm.name)])
    ids = np.arange(count)
    mask = masks if masks is not None else np.array([r.mask for r in algorithm.describe(ids)])
    margin = mask @ weight.T + draw.normal(size=(count, TARGET))
    arrays = {"mask": mask, "margin": margin, **{k: f(margin) for k, f in outputs.items()}}
    fixed = {"time": ids, "host": np.full(count, "h")}
    algorithm.table.append(algorithm.complete(Rows(ids, arrays, fixed), "test"))


def weights(more=0.0):
    weight = np.random.default_rng(6).normal(0.1, 0.3, (TARGET, TRAIN))
    weight[:10, :12] += 1 + more
    return weight


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """A study in which train units with the mark move targets with the mark, by one more under b."""
    marked = np.arange(TRAIN) < 12
    site = np.where(np.arange(TRAIN) % 3 == 0, "here", "there").astype("<U5")
    site[:4] = ""
    study = dmstore.create_study(
        tmp_path_factory.mktemp("contrast") / "s.dm",
        {
            "train_label": np.arange(TRAIN) % 3,
            "target_label": np.arange(TARGET) % 3,
            "class_name": np.array(["zero", "one", "two"]),
            "train_marked": marked,
            "target_marked": np.arange(TARGET) < 10,
            "train_site": site,
            "train_age": np.where(np.arange(TRAIN) < 3, np.nan, np.arange(TRAIN) * 1.5),
            "train_same": np.ones(TRAIN, dtype=int),
            "train_name": np.array([f"unit {i}" for i in range(TRAIN)]),
            "train_text": np.arange(2 * TRAIN).reshape(TRAIN, 2) * 1.0,
            "target_size": np.arange(TARGET) * 0.5,
        },
        seed=1,
    )
    outputs = ["margin", "loss", "prediction"]
    more = {"loss": lambda m: -m, "prediction": lambda m: (m > 0).astype("i2")}
    store(study.add_algorithm("a", runs=700, outputs=outputs), 700, weights(), **more)
    store(study.add_algorithm("b", runs=600, outputs=["margin"]), 600, weights(1.0))
    store(study.add_algorithm("few", runs=24, outputs=["margin"]), 24, weights())
    kept = study.add_algorithm("kept", alpha=None, sampling="foreign", split="eval")
    foreign = study.add_algorithm("foreign", alpha=None, sampling="foreign")
    masks = np.random.default_rng(7).random((300, TRAIN)) < 0.6
    store(kept, 300, weights(), masks)
    masks = masks.copy()
    masks[:, :12] = masks[:, :1] ^ (np.random.default_rng(8).random((300, 12)) < 0.05)
    store(foreign, 300, weights(), masks)
    compact(study)
    fit(study, "a")
    return study


def test_marked_units_move_marked_targets(planted):
    found = contrast(planted, "a", "b", by="marked")
    assert found["of"].values.tolist() == ["a", "b", "a - b"]
    assert found["train_group"].values.tolist() == ["marked=false", "marked=true"]
    one = found.sel(train_group="marked=true", target_group="marked=true")
    for name, more in (("a", 0.0), ("b", 1.0)):
        w = weights(more)[:10].mean(axis=0)
        true = (w[:12].mean() - w.mean()) * TRAIN / (TRAIN - 1)
        assert float(one["low"].sel(of=name)) < true < float(one["high"].sel(of=name))
        assert float(one["standard_error"].sel(of=name)) < 0.1
    assert bool(one["beyond_chance"].sel(of="a - b"))
    other = found.sel(train_group="marked=true", target_group="marked=false", of="a - b")
    assert float(other["low"]) < 0 < float(other["high"])
    assert found.attrs["units"] == "logit"
    assert found.attrs["fits"][0]
    assert found.attrs["fits"][1] == ""
    assert found.attrs["notes"] == [
        "b: no fit of 'margin' with halves, and none is needed; one may make intervals narrower"
    ]
    assert found["train_count"].values.tolist() == [48, 12]
    assert found["target_count"].values.tolist() == [20, 10]
    # p, q and interval say the same.
    t = abs(found["effect"] / found["standard_error"]).values[0]
    masks = int(found["masks"][0])
    assert np.allclose(found["p"].values[0], 2 * student.sf(t, masks - 2))
    assert (found["q"] >= found["p"]).all()
    assert np.array_equal(found["beyond_chance"], found["q"] <= 0.05)


def test_an_output_that_is_the_negative_has_the_negative_effects(planted):
    margin = contrast(planted, "a", by="marked", targets_by="label", fits=False)
    loss = contrast(planted, "a", by="marked", targets_by="label", output="loss")
    assert np.allclose(margin["effect"], -loss["effect"], atol=1e-5)
    assert loss.attrs["orientation"] == "larger is worse"
    assert loss.attrs["fits"] == [""]
    assert loss["of"].values.tolist() == ["a"]
    assert loss["target_group"].values.tolist() == ["label=zero", "label=one", "label=two"]


def test_groups_are_asked_for_in_many_ways(planted, tmp_path):
    marked = np.arange(TRAIN) < 12
    (tmp_path / "ids.txt").write_text("\n".join(map(str, range(12))) + "\n")
    (tmp_path / "ids.csv").write_text("id\n" + "\n".join(map(str, range(12))))
    np.save(tmp_path / "yes.npy", marked)
    np.save(tmp_path / "direction.npy", marked / 12)
    (tmp_path / "part.csv").write_text("id,value\n" + "".join(f"{i},{1 / 12}\n" for i in range(12)))
    specs = ["marked=true", "age<18 & marked=true", "label=one,two", "label!=0"]
    named = [
        str(tmp_path / n) for n in ("ids.txt", "ids.csv", "yes.npy", "direction.npy", "part.csv")
    ]
    found = contrast(planted, "a", by=[*specs, *named], targets_by=["size<5", "marked"])
    effect = found["effect"].values[0]
    same = [0, *range(4, 4 + 4 - 1)]
    assert found["train_group"].values.tolist()[4:] == ["ids", "yes", "direction", "part"]
    assert np.allclose(effect[same], effect[0], atol=1e-5)
    assert np.allclose(effect[-1], effect[0], atol=1e-5)
    # Units whose age is not known are in no group.
    assert found["train_count"].values.tolist()[:4] == [12, 9, 40, 40]
    assert np.allclose(effect[2], effect[3])
    assert found["target_group"].values.tolist() == ["size<5", "marked=false", "marked=true"]
    assert "3 of 60 train units have no 'age' and are in no group" in found.attrs["notes"]
    arrays = contrast(planted, "a", by={"mine": marked, "u": marked / 12})
    assert np.allclose(arrays["effect"][0], found["effect"][0, 0, :1] * 0 + arrays["effect"][0, 0])
    assert arrays["target_group"].values.tolist() == ["all targets"]
    by_site = contrast(planted, "a", by="site")
    assert by_site["train_group"].values.tolist() == ["site=here", "site=there"]
    other = contrast(planted, "a", by="marked", train_by="site")
    assert other["train_group"].values.tolist() == ["site=here", "site=there"]
    assert other["target_group"].values.tolist() == ["marked=false", "marked=true"]
    assert by_site.attrs["notes"][0] == "4 of 60 train units have no 'site' and are in no group"


REFUSED = {
    "unknown": ({"by": "colour"}, "'train' is not there; it has age, label, marked"),
    "unknown of targets": ({"by": "marked", "targets_by": "site"}, "'test' is not there"),
    "several numbers": ({"by": "text"}, "is no number, text or bool an example"),
    "unknown value": ({"by": "site=nowhere"}, "'site' is here, there"),
    "unknown class": (
        {"by": "label=nope"},
        "class 'nope' is not in the study; 'label' is zero, one",
    ),
    "unknown number": ({"by": "age>900"}, "'age' goes from 4.5 to 88.5"),
    "many numbers": ({"by": "age"}, "57 different values; give a condition"),
    "another each": ({"by": "name"}, "another value for each train unit"),
    "equal": ({"by": "same"}, "is '1' everywhere"),
    "all": ({"by": "same=1"}, "all 60 train units"),
    "one": ({"by": "name=unit 3"}, "a group of one train unit ('3')"),
    "order of texts": ({"by": "site<3"}, "texts, which have no order"),
    "empty": ({"by": []}, "no group of train units"),
    "no file": ({"by": "none.txt"}, "no such file"),
    "length": ({"by": {"u": np.arange(7.0)}}, "has 7 values, but there are 60"),
    "NaN": ({"by": {"u": np.full(60, np.nan)}}, "NaN or infinity"),
    "flat": ({"by": {"u": np.ones(60)}}, "give a direction that varies"),
    "none of them": ({"by": {"u": np.zeros(60, dtype=bool)}}, "names no train unit"),
    "direction of targets": (
        {"by": "marked", "targets_by": {"t": np.arange(30.0)}},
        "a direction over train units",
    ),
    "output": ({"by": "marked", "output": "nothing"}, "'a' has loss, margin"),
    "class index": ({"by": "marked", "output": "prediction"}, "'a' has loss, margin"),
    "not of both": ({"by": "marked", "b": "b", "output": "loss"}, "'b' has margin"),
    "itself": ({"by": "marked", "b": "a"}, "itself"),
    "few": ({"by": "marked", "b": "few"}, "masks in one half"),
    "eval": ({"by": "marked", "b": "kept"}, "evaluation only"),
    "fdr": ({"by": "marked", "fdr": 0}, "between 0 and 1"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_contrasted_is_refused_in_one_line(planted, case):
    options, words = REFUSED[case]
    before = files(planted.objects.path(""))
    with pytest.raises(InputError) as error:
        contrast(planted, "a", **options)
    assert words in str(error.value)
    assert "\n" not in str(error.value)
    assert files(planted.objects.path("")).keys() == before.keys()


def test_masks_from_elsewhere_are_told_of(planted):
    found = contrast(planted, "foreign", by="marked")
    assert found.attrs["notes"][0].startswith("foreign: masks do not draw the units of marked=")
    assert "together with what it is drawn with" in found.attrs["notes"][0]
    effect = found["effect"].sel(
        of="foreign", train_group="marked=true", target_group="marked=true"
    )
    # Eleven of twelve others come with each.
    assert float(effect) > 8


def test_a_file_of_ids_that_are_not_there_names_the_first(planted, tmp_path):
    (tmp_path / "ids.txt").write_text("3\nx7\n")
    with pytest.raises(InputError, match=r"'x7' is no id of a train unit of 'train' .1 of 2"):
        contrast(planted, "a", by=str(tmp_path / "ids.txt"))


def test_the_command_says_what_the_function_does(planted, tmp_path):
    expected = contrast(planted, "a", "b", by="marked")
    found = run_json("contrast", planted.path, "a", "b", "--by", "marked", "-Q")
    best = found["pairs"][0]
    assert {best["train_group"], best["target_group"]} == {"marked=true"}
    one = expected.sel(train_group="marked=true", target_group="marked=true", of="a - b")
    for key in ("effect", "standard_error", "low", "high", "p", "q"):
        assert best["of"]["a - b"][key] == pytest.approx(float(one[key]), rel=1e-6)
    assert best["of"]["a - b"]["beyond_chance"]
    assert found["train_groups"] == {"marked=false": 48, "marked=true": 12}
    assert (found["output"], found["units"], len(found["pairs"])) == ("margin", "logit", 4)
    out, _ = run(
        "contrast", planted.path, "a", "--train-by", "marked=true", "--targets-by", "label"
    )
    assert out.count("marked=true (12 train units) on label=") == 3
    assert "larger is more confident in the label" in out
    assert "no group of train units" in run("contrast", planted.path, "a", code=2)[1]


def test_a_published_study_is_contrasted_and_nothing_is_written(planted, tmp_path):
    run("publish", planted.path, tmp_path / "out", "-Q")
    before = files(tmp_path / "out")
    found = contrast(dmstore.open_study(tmp_path / "out"), "a", "b", by="marked")
    assert np.allclose(found["effect"], contrast(planted, "a", "b", by="marked")["effect"])
    assert files(tmp_path / "out") == before
    shutil.rmtree(tmp_path / "out")
