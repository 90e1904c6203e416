"""What a comparison says of runs: how they are read, what is claimed, on the page and by the command."""

import json
import re
import shutil
import signal
import tarfile
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from commands import run, run_json
from helpers import files
from pages import page_text
from paths import ARCHIVES
from scipy.sparse import diags_array

import dmstore
from benchmarks import simulated
from dmstore.analysis import compare
from dmstore.analysis.comparison import differences
from dmstore.analysis.comparison.answer import answer, plain
from dmstore.analysis.comparison.enough import Enough, coordinate_noise, enough, enough_text
from dmstore.analysis.comparison.target_groups import ALL, target_groups
from dmstore.analysis.experiment import reading
from dmstore.analysis.experiment.reading import pin, read_arms
from dmstore.analysis.pages.headline import headline
from dmstore.core import bits
from dmstore.errors import InputError
from dmstore.regression import fit
from dmstore.storage.table.rows import Rows
from dmstore.upkeep.maintenance import compact

TRAIN, TARGET = 40, 60
UNIT = np.where(np.arange(TARGET) % 4 == 0, np.arange(TARGET) % TRAIN, -1)
HOSTILE = '<b>"&'
MARKED = np.arange(TARGET) % 5 == 0


def weights(more=0.0):
    """Each class of targets has its units; marked targets use five more, by `more`."""
    draw = np.random.default_rng(6)
    weight = draw.normal(0, 0.1, (TARGET, TRAIN))
    for target in range(TARGET):
        weight[target, 10 * (target % 3) : 10 * (target % 3) + 8] += draw.uniform(0.5, 1.5)
    weight[MARKED, 34:39] += more
    return weight


def store(algorithm, ids, weight, masks=None, noise=1.0):
    ids = np.asarray(ids)
    draw = np.random.default_rng([len(ids), *algorithm.name.encode()])
    mask = masks if masks is not None else np.array([r.mask for r in algorithm.describe(ids)])
    margin = mask @ weight.T + noise * draw.normal(size=(len(ids), TARGET))
    fixed = {"time": ids, "host": np.full(len(ids), "h")}
    rows = Rows(ids, {"mask": mask, "margin": margin}, fixed)
    algorithm.table.append(algorithm.complete(rows, "test"))


def data(**more):
    return {
        "train_label": np.arange(TRAIN) % 3,
        "target_label": np.arange(TARGET) % 3,
        "class_name": np.array(["zero", HOSTILE, "two"]),
        "target_marked": MARKED,
        **more,
    }


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Algorithms of one study: a and b differ on marked targets, a and same do not."""
    study = dmstore.create_study(tmp_path_factory.mktemp("differences") / "s.dm", data(), seed=1)
    outputs = ["margin"]
    more = {"a": 0.0, "same": 0.0, "b": 2.5, "bare": 0.0}
    for name, by in more.items():
        store(study.add_algorithm(name, runs=400, outputs=outputs), range(400), weights(by))
    store(study.add_algorithm("few", runs=240, outputs=outputs), range(240), weights())
    other = study.add_algorithm("alpha", runs=200, alpha=0.3, outputs=outputs)
    store(other, range(200), weights())
    twice = study.add_algorithm("twice", runs=300, repeats=2, outputs=outputs)
    store(twice, range(300), weights())
    for name, size in (("bernoulli", None), ("of one size", 12)):
        draw = np.random.default_rng(7).random((200, TRAIN))
        masks = draw < 0.6 if size is None else draw.argsort(axis=1).argsort(axis=1) < size
        foreign = study.add_algorithm(
            name.replace(" ", "-"), alpha=None, sampling="foreign", outputs=outputs
        )
        store(foreign, range(200), weights(), masks)
    compact(study)
    for name in more:
        fit(study, name, lams=6, halves=name != "bare")
    return study


# Runs as arms.


def unpacked(arm):
    return bits.unpack_runs(arm.masks.words, len(arm.used))


def test_runs_are_read_by_half_and_mask(made):
    first, second = read_arms(made, (pin(made, "few"), pin(made, "a")), "margin")
    algorithm, runs = made.algorithm("few"), made.runs("few")
    mask_id = runs["mask_id"].values
    kept = algorithm.split(mask_id) != "eval"
    assert not kept.all()
    for h in (0, 1):
        arm = first[h]
        ids = arm.masks.mask_id[arm.used]
        rows = np.flatnonzero(kept & (algorithm.half(mask_id) == h))
        assert sorted(ids.tolist()) == sorted(mask_id[rows].tolist())
        # The runs of one are among those of the other, so that its masks are read once.
        assert arm.masks is second[h].masks
        assert arm.count < second[h].count
        assert np.array_equal(unpacked(arm)[arm.used], algorithm.masks(ids))
        assert arm.rate.tolist() == [0.5] * TRAIN
        assert arm.fixed == 1
        said = arm.outputs(10, 30)
        assert not said[~arm.used].any()
        row = {m: r for r, m in enumerate(mask_id.tolist())}
        expected = runs["margin"].values[[row[m] for m in ids.tolist()], 10:30]
        # Up to a constant of each target.
        away = said[arm.used] - expected
        assert np.ptp(away, axis=0).max() < 1e-5
        assert np.abs(said[arm.used].mean(axis=0)).max() < 1
    assert read_arms(made, (pin(made, "few"),), "margin")[0][0].count == first[0].count


def test_repeats_of_a_mask_are_their_mean(made):
    (arms,) = read_arms(made, (pin(made, "twice"),), "margin")
    runs = made.runs("twice")
    for arm in arms:
        for bit in np.flatnonzero(arm.used)[:20]:
            rows = np.flatnonzero(runs["mask_id"].values == arm.masks.mask_id[bit])
            assert len(rows) == 2
            mean = runs["margin"].values[rows].mean(axis=0, dtype=float)
            first = arm.outputs(0, TARGET)
            assert np.allclose(
                np.diff(first[bit] - mean),
                np.diff(first[arm.used][0] - _mean(runs, arm)),
                atol=1e-5,
            )


@pytest.mark.parametrize("name", ["a", "twice"])
def test_parts_that_threads_read_and_turn_are_the_whole(made, monkeypatch, name):
    (whole,) = read_arms(made, (pin(made, name),), "margin")
    monkeypatch.setattr(reading, "BLOCK", 64)
    monkeypatch.setattr(reading, "_MASKS", 7)
    (parts,) = read_arms(made, (pin(made, name),), "margin", threads=3)
    for one, other in zip(whole, parts, strict=True):
        assert np.array_equal(one.outputs(5, 40), other.outputs(5, 40))


def _mean(runs, arm):
    rows = runs["mask_id"].values == arm.masks.mask_id[arm.used][0]
    return runs["margin"].values[rows].mean(axis=0, dtype=float)


def test_other_masks_are_other_sets(made):
    a, alpha = read_arms(made, (pin(made, "a"), pin(made, "alpha")), "margin")
    assert a[0].masks is not alpha[0].masks
    assert alpha[0].rate.tolist() == [12 / 40] * TRAIN
    assert alpha[0].fixed == 1
    assert np.array_equal(
        unpacked(alpha[1])[alpha[1].used],
        made.algorithm("alpha").masks(alpha[1].masks.mask_id[alpha[1].used]),
    )


def test_of_masks_from_elsewhere_rates_are_counted(made):
    for name, fixed in (("bernoulli", 0.0), ("of-one-size", 1.0)):
        (arms,) = read_arms(made, (pin(made, name),), "margin")
        mask = np.concatenate([unpacked(arm)[arm.used] for arm in arms])
        assert np.allclose(arms[0].rate, mask.mean(axis=0))
        assert arms[0].fixed == pytest.approx(fixed, abs=0.2)


def test_some_targets_and_targets_that_are_train_units(tmp_path):
    study = dmstore.create_study(tmp_path / "s.dm", data(target_train=UNIT), seed=1)
    algorithm = study.add_algorithm("a", runs=100, outputs=["margin"])
    store(algorithm, range(100), weights())
    positions = np.array([0, 3, 8, 59])
    whole, some = (
        read_arms(study, (pin(study, "a"),), "margin", positions=p)[0][1] for p in (None, positions)
    )
    assert some.unit.tolist() == UNIT[positions].tolist() == [0, -1, 8, -1]
    assert np.allclose(some.outputs(1, 4), whole.outputs(0, TARGET)[:, positions[1:]])
    saw = unpacked(some)
    there = np.broadcast_to(some.there(0, 4), (len(some.used), 4))
    for place, unit in enumerate([0, -1, 8, -1]):
        expected = some.used if unit < 0 else some.used & ~saw[:, unit]
        assert np.array_equal(there[:, place], expected)
    assert some.there(1, 2).shape[1] == 1


def test_too_few_runs_in_a_half_are_refused(tmp_path):
    study = dmstore.create_study(tmp_path / "s.dm", data(), seed=1)
    store(study.add_algorithm("a", runs=20, outputs=["margin"]), range(20), weights())
    with pytest.raises(InputError, match=r"'a' has [0-9] masks in one half of its runs"):
        read_arms(study, (pin(study, "a"),), "margin")


# Groups of targets.


def columns(**values):
    return xr.Dataset({name: ("target", np.asarray(one)) for name, one in values.items()})


def test_groups_of_targets_are_classes_and_values():
    n = np.arange(60)
    targets = columns(
        label=n % 3,
        web=n % 4 == 0,
        site=np.where(n < 20, "here", np.where(n < 40, "", "there")),
        again=np.where(n % 3 == 0, "x", "y"),
        rare=np.where(n < 4, "rare", "common"),
        each=n.astype(str),
        same=np.ones(60, dtype=int),
        age=n / 7,
        kind=np.array(["p", None] * 30, dtype=object),
    )
    targets["image"] = (("target", "row"), np.zeros((60, 2)))
    groups = target_groups(targets, ["zero", "one", "two"])
    assert groups.name == [
        ALL,
        "class zero",
        "class one",
        "class two",
        # x is class zero, y the rest.
        "again=y",
        "kind=p",
        "rare=common",
        "site=here",
        "site=there",
        "web=false",
        "web=true",
    ]
    assert groups.member.sum(axis=0).tolist() == [60, 20, 20, 20, 40, 30, 56, 20, 20, 45, 15]
    assert np.array_equal(groups.member[:, 2], n % 3 == 1)
    assert target_groups(columns(label=np.zeros(9, dtype=int)), ["0"]).name == [ALL]


# The answer.


def test_a_difference_on_some_targets_is_claimed_there(made):
    said = answer(compare(made, "a", "b", components=3))
    assert said.measured
    assert said.differs
    first = said.groups[0]
    assert (first.group, first.targets, first.beyond) == ("marked=true", 12, True)
    weight = [one - one.mean(axis=1, keepdims=True) for one in (weights(), weights(2.5))]
    cosine = (weight[0] * weight[1]).sum(axis=1) / np.prod(
        [np.linalg.norm(one, axis=1) for one in weight], axis=0
    )
    for one, true in ((first, cosine[MARKED].mean()), (said, cosine.mean())):
        value = one.similarity
        assert abs(value.estimate - true) < 2 * (value.high - value.low) / 3.92 * 1.5
        assert value.low < value.estimate < value.high
    best = min(said.directions, key=lambda one: one.q)
    assert (best.algorithm, best.component, best.beyond) == ("b", 0, True)
    # Five of b's 34 to 38 on a fifth of the targets, which a does not use, less their mean as masks of one size have it.
    for mine, energy in zip(weight, best.energy, strict=True):
        along = (mine[:, 34:39].sum(axis=1) ** 2 / 5 / (mine**2).sum(axis=1)).mean()
        assert energy == pytest.approx(along, rel=0.35, abs=0.01)
    assert best.estimate > 5 * best.standard_error > 0
    assert [one.component for one in said.directions] == [0, 1, 2] * 2


def test_how_far_a_comparison_is_is_told_of_each_of_its_parts(made):
    told = []
    compare(made, "a", "b", components=2, random_state=5, progress=lambda *one: told.append(one))
    stages = dict.fromkeys(what for what, _, _ in told)
    assert list(stages) == ["compare", "read", "propose", "measure"]
    for stage in stages:
        done = [(one, total) for what, one, total in told if what == stage]
        assert [one for one, _ in done] == sorted(one for one, _ in done)
        assert done[-1][0] == done[-1][1]


def test_halves_that_are_told_of_at_the_same_time_go_on_from_each_other(made):
    told, other, first = [], threading.Event(), threading.Lock()

    def progress(what, done, total):
        if what == "propose":
            # The first waits for the second, which must not overtake it.
            if first.acquire(blocking=False):
                other.wait(0.2)
            else:
                other.set()
            told.append(done)

    compare(made, "a", "b", components=2, threads=2, progress=progress)
    assert told == sorted(told)
    assert told[-1] == 100


def test_ctrl_c_ends_the_search_of_both_halves(monkeypatch):
    ended = []

    def propose(half, *_, tell, **__):
        # Pressed once, when both have begun: a second press would end the wait for threads.
        time.sleep(0.1)
        if half == 0:
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        for step in range(200):
            time.sleep(0.01)
            tell(step / 200)
        ended.append(step)

    monkeypatch.setattr(differences, "propose", propose)
    nothing = np.zeros((2, 3, 4))
    with pytest.raises(KeyboardInterrupt):
        differences.differences((), ([0, 1], [0, 1]), nothing, [], None, None, threads=2)
    assert not ended


def test_the_same_algorithm_does_not_differ(made):
    comparison = compare(made, "a", "same", components=3)
    said = answer(comparison)
    assert not said.differs
    assert said.similarity.estimate == pytest.approx(1, abs=0.02)
    assert all(not one.beyond for one in [*said.directions, *said.groups])
    assert np.nanmean(comparison["cosine"]) < 0.99
    said = headline(comparison, ["a", "same"], {}, [], scores_only=False)
    assert said.answer == "There is no sign that a and same use the training examples differently."
    assert said.alike.startswith("On a scale where 1 means that every training example matters in")
    assert re.search(
        r"would have shown, four times in five, .* for \d+\.\d % of|too few to show", said.sure
    )


def _page(study, a, b):
    """The text of the page, without markup."""

    return page_text(Path(run("report", study.path, a, b)[0].strip()).read_text(encoding="utf-8"))


def test_without_halves_it_says_that_nothing_was_measured(made):
    comparison = compare(made, "a", "bare", components=2)
    said = plain(answer(comparison))
    assert (said["measured"], said["differs"], said["similarity"]) == (False, False, None)
    assert said["directions"] == []
    assert "q" not in comparison
    assert "noise included" in run("compare", made.path, "a", "bare", "--components", 2)[0]
    said = headline(comparison, ["a", "bare"], {}, [], scores_only=False)
    assert said.text.count("nothing was measured on runs") == 1
    assert "dmstore fit --halves" in said.next


def test_the_command_says_it_in_json_and_in_lines(made):
    out, _ = run("compare", made.path, "a", "b", "--components", 3, "--json")
    # No NaN: JSON has none.
    found = json.loads(out, parse_constant=lambda text: pytest.fail(text))
    assert found["differs"] is True
    assert found["fdr"] == 0.05
    assert (
        found["similarity"]["low"] < found["similarity"]["estimate"] < found["similarity"]["high"]
    )
    assert len(found["directions"]) == 6
    for one in found["directions"]:
        assert {"algorithm", "component", "estimate", "standard_error", "q"} <= one.keys()
        assert one["q"] is None or 0 <= one["q"] <= 1
    lines = run("compare", made.path, "a", "b", "--components", 3)[0]
    assert "They differ: " in lines
    assert "targets with marked = true: similarity " in lines
    assert "similarity without noise " in lines
    page = _page(made, "a", "b")
    assert (
        "a and b use the training examples differently, most of all for targets with marked" in page
    )
    assert re.search(r"training examples .{0,60}\(shown below as [AB]\d+\): they make up \d", page)


def test_comparing_again_finds_the_same_until_there_are_more_runs(made, tmp_path):
    first = compare(made, "a", "b", components=3)
    study = dmstore.open_study(shutil.copytree(made.objects.path(""), tmp_path / "s.dm"))
    before = files(tmp_path / "s.dm")
    assert compare(study, "a", "b", components=3).identical(first)
    assert files(tmp_path / "s.dm") == before
    study.algorithm("a").extend(50)
    store(study.algorithm("a"), range(400, 450), weights())
    compact(study)
    more = compare(study, "a", "b", components=3)
    assert more.attrs["comparison"] != first.attrs["comparison"]
    # The fits are the same, what is measured is not.
    assert np.array_equal(more["direction"], first["direction"])
    assert not np.array_equal(more["similarity"], first["similarity"], equal_nan=True)
    assert study.comparison("a", "b").attrs["comparison"] == more.attrs["comparison"]
    # An annotation that came since makes groups.
    study.annotate("test", side=np.where(np.arange(TARGET) % 2, "left", "right"))
    noted = compare(study, "a", "b", components=2)
    assert set(noted["group"].values) - set(more["group"].values) == {"side=left", "side=right"}


def test_a_comparison_of_some_targets_measures_these(made):
    found = compare(made, "a", "b", components=2, where=["marked=True"])
    assert found["group"].values.tolist() == [ALL]
    assert found["group_size"].values.tolist() == [12]
    # One or two of them are too weak to be measured by themselves.
    known = np.isfinite(found["similarity"].values)
    assert not known[~MARKED].any()
    assert known.sum() >= 10
    whole = compare(made, "a", "b", components=3)
    place = whole["group"].values.tolist().index("marked=true")
    for name in ("group_similarity", "group_similarity_error"):
        assert float(found[name][0]) == pytest.approx(float(whole[name][place]), rel=1e-3)


@pytest.mark.parametrize("fdr", [0, 1, -0.1, 2, float("nan"), "x"])
def test_a_rate_that_is_none_is_refused_in_one_line(made, fdr):
    with pytest.raises(InputError, match="give a rate between 0 and 1") as error:
        compare(made, "a", "b", fdr=fdr)
    assert "\n" not in str(error.value)
    # click takes NaN for a number within any range.
    code = 2 if fdr == fdr else 1
    assert "fdr" in run("compare", made.path, "a", "b", "--fdr", fdr, code=code)[1]


def test_the_rate_decides_what_is_claimed(made):
    kept = compare(made, "a", "b", components=3)
    loose, strict = (answer(kept.assign_attrs(fdr=f)) for f in (0.9, 1e-12))
    assert strict.fdr == 1e-12
    counts = [
        sum(one.beyond for one in [*said.directions, *said.groups]) for said in (loose, strict)
    ]
    assert counts[0] > counts[1]
    assert [one.q for one in loose.directions] == [one.q for one in strict.directions]


def test_comparisons_of_earlier_versions_are_shown(tmp_path):
    with tarfile.open(ARCHIVES / "v1.0" / "stores.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    study = dmstore.open_study(tmp_path / "local")
    said = answer(study.comparison("plain", "other"))
    assert not said.measured
    page = _page(study, "plain", "other")
    assert "nothing was measured on runs" in page
    assert "nan" not in page.lower().split()


def test_the_page_of_an_earlier_comparison_is_written_by_its_name(made, monkeypatch):
    from dmstore.analysis.pages import report

    monkeypatch.setattr(report, "_subject", lambda *_: None)
    monkeypatch.setattr(report, "render", lambda *_, **__: None)
    monkeypatch.setattr(report, "files_of", lambda *_: {"report.html": b"", "report.json": b"{}"})
    first = compare(made, "a", "same", components=1)
    newest = compare(made, "a", "same", components=1, where=["marked=True"])
    again = run("compare", made.path, "a", "same", "--components", 1)[0].splitlines()[-1]
    name, other = (one.attrs["comparison"] for one in (first, newest))
    assert again.endswith(f"a same --comparison {name}")
    page = run_json("report", made.path, "a", "same", "--comparison", name)["report"]
    assert f"/{name}/" in page
    assert f"/{other}/" in run_json("report", made.path, "a", "same")["report"]
    found = run_json("status", made.path)["comparisons"]
    where = {one["comparison"]: one["where"] for one in found}
    assert (where[name], where[other]) == (None, "marked=True")
    lines = run("compare", made.path, "a", "same", "--components", 1, "--where", "marked=True")[0]
    assert lines.splitlines()[-1].endswith("a same")
    error = run("report", made.path, "a", "same", "--comparison", "none", code=1)[1]
    assert "have no comparison 'none'" in error


def test_status_has_the_newest_comparison_of_each_question():
    from dmstore.cli.status import _lines

    made = [
        {"algorithms": list(pair), "where": where, "detectable": shown}
        for pair, where, shown in (("ab", None, 0.5), ("ba", None, 0.25), ("ab", "label=9", 2.0))
    ]
    nothing = {"study": "s", "targets": {}, "train": 9, "bytes": 9, "annotations": {}}
    state = {**nothing, "algorithms": {}, "removed": {}, "comparisons": made}
    lines = [one for one in _lines(state) if "compared" in one]
    assert ["b and a; " in lines[0], "25.0%" in lines[0]] == [True, True]
    assert lines[1:] == [
        "  compared: a and b where label=9; these runs are too few to show any direction"
    ]


def test_a_published_copy_is_compared_and_keeps_nothing(made, monkeypatch):
    import importlib

    from dmstore.errors import StorageError
    from dmstore.storage.published.published import PublishedDirectory

    options = {"components": 1, "random_state": 7}
    copy = dmstore.open_study(made.path)
    monkeypatch.setattr(copy, "objects", PublishedDirectory(made.path))
    before = len(made.comparisons)
    told = compare(copy, "a", "same", where=["marked=true"], **options)
    assert len(made.comparisons) == before
    assert told.attrs["kept"] is False
    kept = compare(made, "a", "same", where=["marked=true"], **options)
    assert "kept" not in kept.attrs
    assert told.attrs["comparison"] == kept.attrs["comparison"]
    for key in ("algorithms", "where", "targets", "fdr"):
        assert told.attrs[key] == kept.attrs[key]
    xr.testing.assert_equal(
        told[sorted(kept.data_vars)].load(), kept[sorted(kept.data_vars)].load()
    )
    # Its page would be written there.
    place = importlib.import_module("dmstore.analysis.pages.report")
    monkeypatch.setattr(place, "_subject", lambda *_, **__: pytest.fail("worked first"))
    with pytest.raises(StorageError, match="read-only"):
        dmstore.analysis.report(copy, "a", "same")


def _claims(**values):
    """A comparison of nothing but groups."""
    count = len(values["similarity"])
    group = {"group_similarity": values["similarity"], "group_similarity_error": values["error"]}
    group |= {"group_p": values["q"], "group_q": values["q"], "group_size": [9] * count}
    arrays = {key: ("group", np.asarray(one)) for key, one in group.items()}
    direction = ("algorithm", "component")
    for key in ("difference", "difference_error", "p", "q", "energy", "residual_variance"):
        arrays[key] = (direction, np.zeros((2, 1)))
    arrays["detectable"] = ("algorithm", np.full(2, values["detectable"]))
    arrays["similarity"] = ("target", np.ones(2))
    arrays["included"] = ("target", np.ones(2, dtype=bool))
    coords = {"algorithm": ["a", "b"], "group": [ALL, *"wxyz"[: count - 1]]}
    return answer(xr.Dataset(arrays, coords=coords))


@pytest.mark.filterwarnings("error")
def test_what_is_not_known_has_no_place_and_no_warning():
    said = _claims(
        similarity=[0.9, np.nan, 0.8, np.nan, 0.2],
        error=[0.01] * 5,
        q=[0.5, 0.01, 0.01, 0.5, 0.01],
        detectable=np.nan,
    )
    assert [one.group for one in said.groups] == ["z", "x", "w", ALL, "y"]
    assert np.isnan(said.detectable)
    assert said.similarity.estimate == 0.9


def test_an_interval_of_all_that_a_cosine_may_be_is_no_similarity():
    from dmstore.analysis.comparison.sentences import difference, verdict

    nothing, negative = (
        _claims(similarity=[value], error=[error], q=[0.9], detectable=0.1)
        for value, error in ((-0.27, 1.4), (-1.02, 0.02))
    )
    assert nothing.similarity is None
    assert "too weak to be measured" in verdict(nothing)[0]
    assert difference(nothing).startswith("No difference is beyond chance")
    assert negative.similarity.low < -1
    assert negative.differs
    assert difference(negative).startswith("They are opposite")


def test_directions_of_noise_have_no_numbers(made):
    from dmstore.cli.compare import _summary

    comparison = compare(made, "a", "same", components=2).load()
    because = [[{"line": "explained"}] * 2] * 2
    lines = _summary(comparison, because)[1]
    assert any("difference +" in line or "difference -" in line for line in lines)
    noisy = comparison.copy(deep=True)
    noisy["difference_error"][:] = [[9.0, 0.0], [0.1, 9.0]]
    noisy["q"][:] = 0.9
    result, lines = _summary(noisy, because)
    told = [one["estimate"] is not None for one in result["directions"]]
    assert told == [False, False, True, False]
    assert [one["energy"] == [None, None] for one in result["directions"]] == [not t for t in told]
    assert result["directions"][0]["q"] == 0.9
    assert (
        "  no direction of a less same is shown: with these runs nothing tells them from noise"
        in lines
    )
    assert sum("explained" in line for line in lines) == 1
    # What is claimed keeps its numbers.
    noisy["q"][0, 0] = 0.01
    assert answer(noisy).directions[0].standard_error == 9.0


def test_units_that_one_algorithm_always_saw_are_no_difference():
    from scipy.sparse import csr_array

    from dmstore.analysis.comparison.measured import on_varied_units
    from dmstore.analysis.experiment.arms import arms_of
    from dmstore.analysis.experiment.measure import Proposal, measure

    draw = np.random.default_rng(3)
    weight = draw.normal(size=(8, 20))
    weight[:, :3] += 3
    arms, half = [], np.arange(400) % 2
    for always in (0, 3):
        mask = draw.random((400, 20)) < 0.5
        mask[:, :always] = True
        arms.append(arms_of(mask, mask @ weight.T + draw.normal(size=(400, 8)), half))
    # No fit weighs what all runs saw.
    own = (weight, weight * (np.arange(20) >= 3))
    fits = [[csr_array(one.astype(np.float32))] * 2 for one in own]
    nothing = Proposal(np.zeros((1, 20), np.float32), np.zeros((1, 8)))
    whole = []
    for given in ((tuple(arms), fits), on_varied_units(tuple(arms), fits)):
        found = measure(*given, (nothing, nothing), np.ones((8, 1), dtype=bool))
        whole.append(found.similarity.group[0])
    assert whole[0] < 0.8
    assert whole[1] == pytest.approx(1, abs=0.02)
    same = on_varied_units((arms[0], arms[0]), fits)
    assert same[1] is fits


# Calibration, in short; `python -m benchmarks calibration` is the long one.


@pytest.fixture
def small(monkeypatch):
    for name, value in {"TARGETS": 60, "_STEPS": 12, "_LAMS": 8}.items():
        monkeypatch.setattr(simulated, name, value)


@pytest.mark.parametrize("count", [4, pytest.param(8, marks=pytest.mark.slow)])
@pytest.mark.parametrize("times", [1, 4])
def test_nothing_is_claimed_of_one_truth(small, times, count):
    one, other = (simulated.Setting(runs=500, noise=by * simulated.NOISE) for by in (1, times))
    pairs = [simulated.simulate(simulated.Condition(one, other), seed) for seed in range(count)]
    made = [simulated.compared(pair, components=5) for pair in pairs]
    z = np.concatenate([one["half_z"].ravel() for one in made])
    z = z[np.isfinite(z)]
    assert len(z) == count * 2 * 5 * 2
    assert abs(z.mean()) < 0.4
    assert 0.6 < z.std() < 1.3
    assert (z > 3.3).sum() == 0
    assert sum((one["q"] <= 0.05).any() for one in made) <= count // 4
    whole = np.array([one["group_similarity"][0] for one in made])
    error = np.array([one["group_similarity_error"][0] for one in made])
    assert (np.abs(whole - 1) < 3.5 * error).all()


def test_a_planted_direction_is_claimed(small):
    pair = simulated.simulate(simulated.Condition(), 1, 0.4)
    made = simulated.compared(pair, components=5)
    like = np.abs(made["direction"] @ pair.planted)
    assert like[0].max() > 0.5
    assert made["q"][0, like[0].argmax()] < 0.01
    assert made["difference"][0, like[0].argmax()] > 0
    assert made["energy"][0, like[0].argmax(), 0] > 2 * made["energy"][0, like[0].argmax(), 1]


# One algorithm alone.


def test_one_algorithm_says_what_a_comparison_would_show(made):
    said = run_json("evaluate", made.path, "a", "--no-baselines", "--resamples", 20, "-Q")
    compared = answer(compare(made, "a", "same"))
    # Two algorithms that share their masks have some noise in common, so the one alone says no less.
    assert 0.9 * compared.detectable < said["detectable"] < 3 * compared.detectable
    assert said["runs_stored"] == 400
    assert said["runs_for_1_percent"] == pytest.approx(40_000 * said["detectable"], rel=0.1)
    few = enough(made, "bare", made.newest_fit("bare")["fit"])
    assert few.detectable is None
    assert "halves" in few.unknown


def test_noise_is_told_at_any_scale_and_is_less_with_more_runs():
    pair = simulated.simulate(simulated.NULLS["B: half of the runs"], 0)
    a, b = (coordinate_noise(arms, fits) for arms, fits in zip(pair.arms, pair.halves, strict=True))
    assert 1.5 < b / a < 5
    larger = [
        replace(arm, outputs=lambda start, stop, one=arm: 8 * one.outputs(start, stop))
        for arm in pair.arms[0]
    ]
    scaled = coordinate_noise((larger[0], larger[1]), [8 * one for one in pair.halves[0]])
    assert scaled == pytest.approx(a, rel=1e-3)
    # Outputs that have nothing to do with the masks have no length to measure noise by.
    draw = np.random.default_rng(0)
    noise = [replace(arm, outputs=_noise(draw, arm)) for arm in pair.arms[0]]
    assert np.isnan(coordinate_noise((noise[0], noise[1]), pair.halves[0]))
    assert enough_text(Enough(None, 9, None, "w")).endswith("is not known: w.")
    assert "no direction; one of 1%" in enough_text(Enough(2.0, 9, 1800))


def _noise(draw, arm):
    said = draw.normal(size=(len(arm.used), simulated.TARGETS)) * arm.used[:, None]
    return lambda start, stop: said[:, start:stop]


# One algorithm that is the other's opposite.


def _turned(pair, which):
    """The pair with outputs and fits of B turned on some targets."""
    sign = np.where(which, -1.0, 1.0)
    sets = [(diags_array(sign) @ one).tocsr().astype(np.float32) for one in pair.halves[1]]
    arms = [
        replace(arm, outputs=lambda low, high, one=arm: one.outputs(low, high) * sign[low:high])
        for arm in pair.arms[1]
    ]
    weight = (pair.weight[1] * sign[:, None]).astype(np.float32)
    return replace(
        pair,
        arms=(pair.arms[0], (arms[0], arms[1])),
        halves=(pair.halves[0], sets),
        weight=(pair.weight[0], weight),
    )


@pytest.mark.parametrize("effect", [0.0, 0.5])
def test_the_opposite_of_an_algorithm_differs_by_its_sign_alone(small, effect):
    pair = simulated.simulate(simulated.NULLS["the same"], 3, effect)
    plain_ = simulated.compared(pair)
    every = np.ones(simulated.TARGETS, dtype=bool)
    opposite = simulated.compared(_turned(pair, every))
    assert opposite["group_similarity"] == pytest.approx(-plain_["group_similarity"], abs=1e-6)
    assert opposite["group_similarity_error"][0] < 0.05
    # What is measured of directions is the same, but for the sign of the algorithms' own coordinates.
    for key in ("p", "difference", "difference_error", "detectable", "unlike_z"):
        assert opposite[key] == pytest.approx(plain_[key], abs=1e-4, nan_ok=True), key
    assert (opposite["q"] <= 0.05).any() == (effect > 0)
    # All groups are beyond chance, since the sign is.
    assert (opposite["group_q"] < 1e-6).all()
    if not effect:
        # Exact copies too: nothing but the sign, and no number that rounding made.
        copy = replace(pair, arms=(pair.arms[0],) * 2, halves=(pair.halves[0],) * 2)
        copy = replace(copy, weight=(pair.weight[0],) * 2)
        exact = simulated.compared(_turned(copy, every))
        assert exact["group_similarity"][0] == pytest.approx(-1, abs=0.02)
        assert not (exact["q"] <= 0.05).any()
        assert np.nanmax(np.abs(exact["difference"]), initial=0) < 1e-4


def test_a_class_that_is_turned_is_a_difference_there(small):
    pair = simulated.simulate(simulated.NULLS["the same"], 3)
    made = simulated.compared(_turned(pair, pair.label == 1))
    assert (made["group_q"][1:] <= 0.05).tolist() == [k == 1 for k in range(simulated.CLASSES)]
    assert made["group_similarity"][2] < -0.9
