"""Analyses of the paper beside the comparison itself: right values by hand, and one study."""

import re

import numpy as np
import pytest
import xarray as xr
from commands import run, run_json
from helpers import examples

import dmstore
from dmstore import analysis
from dmstore.analysis.comparison.agreement import agreement, without_agreement
from dmstore.analysis.comparison.where import restriction
from dmstore.analysis.pages import figures
from dmstore.errors import InputError, NotFoundError
from dmstore.regression import fit
from dmstore.storage.table.rows import Rows


def rows(*values):
    return xr.DataArray(np.array(values, dtype=float), dims=("target", "train"))


def test_influence_goes_from_targets_to_units_and_back():
    a = rows([3, 4, 0, 0], [0, 0, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0])
    b = rows([0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, -1], [1, 0, 0, 1])
    found = analysis.influence_contrast(a, b, np.array([0, -1]), units=2, top=2)
    # Unit rows: (.6, .8, 0, 0) under A, (0, 1, 0, 0) under B.
    assert np.allclose(found.relative_influence, [0.6, -0.2, 0, 0])
    assert found.unit.values.tolist() == [0, 1]
    assert np.allclose(found.influence, [[1.4, 0, 1, 0], [1, 0, 0, np.sqrt(0.5)]])
    assert found.most_influenced.values.tolist() == [[0, 2], [0, 3]]
    alone = analysis.influence_contrast(a, b, np.array([0]), under="a")
    assert alone.unit.values.tolist() == [0]
    assert alone.most_influenced.values[1].tolist() == [3, -1, -1, -1]
    dense = analysis.influence_contrast(a + 1, b + 1, np.array([0]), units=2)
    unit = [analysis.normalize(one + 1).values for one in (a, b)]
    sums = [np.abs(one[:, dense.unit.values]).sum(axis=1) for one in unit]
    assert np.allclose(dense.influence, sums, atol=1e-6)


@pytest.mark.parametrize("dense", [0.0, 1.0])
def test_coherence_is_the_mean_cosine_over_pairs(dense):
    draw = np.random.default_rng(0)
    label = np.repeat([0, 1], 15)
    a, b = (
        rows(*(draw.normal(size=(30, 40)) * (draw.random((30, 40)) < 0.2 + dense))) for _ in "ab"
    )
    members = np.array([2, 5, 7, 20])
    found = analysis.coherence(a, b, members, label, draws=70)
    rest = analysis.residual(a, b).residual.values[members]
    rest /= np.linalg.norm(rest, axis=1, keepdims=True)
    pairs = (rest @ rest.T)[np.triu_indices(4, 1)]
    assert np.isclose(found.coherence, pairs.mean(), atol=1e-6)
    assert np.isclose(found.p, (1 + (found.null >= found.coherence).sum()) / 71)


def test_coherence_sees_what_a_class_has_in_common_in_random_sets_too():
    draw = np.random.default_rng(1)
    b = rows(*draw.normal(size=(60, 30)))
    label = np.repeat([0, 1], 30)
    common = draw.normal(size=30)
    # All of class 0 alike, and half of class 1.
    a = rows(*(draw.normal(size=(60, 30)) + 3 * common * (np.arange(60) < 45)[:, None]))
    alike = analysis.coherence(a, b, np.arange(8), label, draws=200)
    assert float(alike.coherence) > 0.5
    assert float(alike.p) > 0.05
    assert float(analysis.coherence(a, b, np.arange(30, 40), label, draws=200).p) < 0.01
    anyone = analysis.coherence(a, b, np.arange(8), draws=200)
    assert float(anyone.null.mean()) < float(alike.null.mean()) - 0.1


def test_directions_within_a_class_are_those_of_its_targets_alone():
    draw = np.random.default_rng(2)
    a, b = (rows(*(draw.normal(size=(24, 30)) * (draw.random((24, 30)) < 0.2))) for _ in "ab")
    label = np.array([0] * 10 + [3] * 13 + [5])
    found = analysis.within_classes(a, b, label, components=2, top=4)
    assert found["class"].values.tolist() == [0, 3, 5]
    members = np.flatnonzero(label == 3)
    alone = analysis.modeldiff(a[members], b[members], components=2, top=4)
    for key in ("direction", "explained_variance", "delta", "residual_variance"):
        assert np.allclose(found[key].sel({"class": 3}), alone[key], atol=1e-5), key
    assert (found.subpopulation.sel({"class": 3}) == members[alone.subpopulation.values]).all()
    outside = found.projection.sel({"class": 3}).values[..., label != 3]
    assert np.isnan(outside).all()
    # One target has no directions.
    assert (found.residual_variance.sel({"class": 5}) == 0).all()
    assert (found.subpopulation.sel({"class": 5}) == -1).all()


@pytest.mark.parametrize("fixed", [False, True])
def test_runs_move_along_a_direction_as_proposition_1_says(fixed):
    """A quarter of the squared product, by weighting runs as by the datamodels; repeats and any order of masks."""
    draw = np.random.default_rng(3)
    theta, u = draw.normal(size=(5, 40)), draw.normal(size=(2, 40))
    u /= np.linalg.norm(u, axis=1, keepdims=True)
    noise = draw.random((3000, 40))
    mask = noise.argsort(axis=1) < 20 if fixed else noise < 0.5
    ids = np.concatenate([draw.permutation(3000), np.arange(500)])
    order = np.argsort(ids[:3000])
    mask = mask[np.concatenate([np.arange(3000), order[:500]])]
    output = mask @ theta.T
    direction = xr.DataArray(u, dims=("component", "train"))
    said = analysis.sensitivity(rows(*theta), direction, fixed=fixed)
    if not fixed:
        assert np.allclose(said.sensitivity, ((u @ theta.T) ** 2) / 4)
    found = analysis.reweighting(
        xr.DataArray(mask, dims=("run", "train")),
        xr.DataArray(output, dims=("run", "target")),
        direction,
        mask_id=ids,
    )
    once = [
        analysis.reweighting(
            xr.DataArray(mask[:3000], dims=("run", "train")),
            xr.DataArray(output[:3000], dims=("run", "target")),
            direction,
            mask_id=given,
        )
        for given in (None, ids[:3000])
    ]
    assert np.allclose(once[0]["shift"], once[1]["shift"])
    z = (found["shift"].values - said["shift"].values) / found.shift_error.values
    assert np.abs(z).max() < 3.5
    assert found.attrs["masks"] == 3000
    total = (found.sensitivity - said.sensitivity.sum("target")) / found.sensitivity_error
    assert np.abs(total).max() < 3.5
    # The paper's proof drops the factor; so large a sensitivity is ruled out.
    wrong = (found.sensitivity - 4 * said.sensitivity.sum("target")) / found.sensitivity_error
    assert (np.abs(wrong) > 6).all()


def test_cosines_of_many_put_alike_ones_side_by_side():
    draw = np.random.default_rng(4)
    base = draw.normal(size=(2, 12, 20))
    given = {
        f"{g}{k}": rows(*(base[g] + 0.3 * draw.normal(size=(12, 20)))) for k in "xy" for g in (0, 1)
    }
    given["0x"][3] = 0
    found = analysis.cosines(given)
    assert np.allclose(
        found.cosine.sel(algorithm="0x", other="1y"),
        analysis.cosine(given["0x"], given["1y"]).mean(),
    )
    assert np.isnan(found.cosine_of_target.sel(algorithm="0x", other="0y")[3])
    names = found.algorithm.values[found.order.values]
    assert [name[0] for name in names] in (["0", "0", "1", "1"], ["1", "1", "0", "0"])


TRAIN, TARGET = 30, 12


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Three algorithms of linear outputs: two alike but for a mark on some targets, one of its own; two predictions."""
    given = examples(train=TRAIN, target=TARGET)
    given["target_id"] = np.array(["_$x$", *(f"t{k}" for k in range(1, TARGET))])
    made = dmstore.create_study(tmp_path_factory.mktemp("paper") / "s.dm", given, seed=3)
    draw = np.random.default_rng(5)
    one = draw.normal(size=(TARGET, TRAIN)) * (draw.random((TARGET, TRAIN)) < 0.4)
    marked = one.copy()
    marked[:6, :4] += 2
    thetas = {"_$a$": one, "b": marked, "c": draw.normal(size=(TARGET, TRAIN))}
    thetas["plain"] = one
    for name, theta in thetas.items():
        outputs = ["margin"] if name == "plain" else ["margin", "prediction"]
        algorithm = made.add_algorithm(name.replace("$", ""), runs=300, outputs=outputs)
        mask = np.array([run.mask for run in algorithm.describe(np.arange(300))])
        arrays = {
            "mask": mask,
            "margin": (mask @ theta.T + draw.normal(0, 0.3, (300, TARGET))).astype(np.float32),
        }
        if "prediction" in outputs:
            said = np.tile(np.arange(TARGET) % 3, (300, 1))
            if name == "b":
                said[:160, 2] = 0
                said[:140, 3] = 2
            arrays["prediction"] = said.astype(np.int16)
        columns = {"time": np.full(300, 1_700_000_000_000), "host": np.full(300, "h")}
        algorithm.table.append(algorithm.complete(Rows(np.arange(300), arrays, columns), "test"))
        if name != "plain":
            fit(made, algorithm.name, lams=8)
    analysis.compare(made, "_a", "b", components=3, top=3)
    return made


def test_targets_on_which_modal_predictions_agree(study):
    mode = analysis.modal_prediction(study, "b")
    assert mode["mode"].values.tolist() == [0, 1, 0, 0, *(np.arange(4, TARGET) % 3)]
    assert np.allclose(mode["share"].values[[0, 2, 3]], [1, 160 / 300, 160 / 300])
    whole = study.comparison("_a", "b")
    some = analysis.compare(study, "_a", "b", components=3, top=3, agree=True)
    # Target 2 is told apart; of target 3 a minority.
    assert np.flatnonzero(~some.included.values).tolist() == [2]
    assert some.attrs["where"] == "modal predictions agree"
    found = analysis.direction_likeness(whole, some)
    first = whole.direction.values[0] @ some.direction.values[0].T
    assert np.allclose(found.likeness.values[0], np.abs(first).max(axis=1))
    assert float(found.likeness[1, 0]) > 0.9
    told = run_json("compare", study.path, "_a", "b", "--components", 3, "--top", 3, "--agree")
    assert told["comparison"] == some.attrs["comparison"]
    assert np.allclose(told["outlasts"], found.likeness)
    documents = study.comparisons
    assert without_agreement(documents, documents[-1]) == documents[0]
    same = agreement(study, "_a", "b")
    listed = restriction(["target=t1,t2,t3"], study.targets)
    assert same.among(listed).positions.tolist() == [1, 3]
    assert same.among(listed).said == "target=t1,t2,t3, modal predictions agree"
    for call, words in (
        (lambda: analysis.modal_prediction(study, "plain"), "no output 'prediction'"),
        (
            lambda: analysis.compare(study, "_a", "b", agree=True, where=["target=t1,t2"]),
            "1 of 2 targets",
        ),
    ):
        with pytest.raises(InputError, match=words):
            call()


def test_similarities_are_those_of_comparisons(study):
    found = analysis.similarities(study, ["_a", "c", "b"])
    pair = study.comparison("_a", "b", study.comparisons[0]["comparison"])
    alone = found.sel(algorithm="_a", other="b")
    assert np.isclose(alone.similarity, pair.group_similarity[0])
    assert np.isclose(alone.similarity_error, pair.group_similarity_error[0])
    assert np.isclose(alone.cosine, np.nanmean(pair.cosine), atol=1e-6)
    assert found.order.values.tolist() in ([0, 2, 1], [1, 2, 0], [2, 0, 1], [1, 0, 2])
    lines = run("compare", study.path, "_a", "c", "b", "-Q")[0].splitlines()
    rows_of = {line.split()[0]: line for line in lines[2:5]}
    assert set(rows_of) == {"_a", "b", "c"}
    said = f"{float(alone.similarity):.3f} ± {float(alone.similarity_error):.3f}"
    assert said in rows_of["_a"]
    assert said in rows_of["b"]
    for names, words in ((["_a"], "two or more"), (["_a", "b", "_a"], "named twice")):
        with pytest.raises(InputError, match=words):
            analysis.similarities(study, names)


def test_proposition_1_on_a_study(study):
    found = analysis.proposition(study, "_a", "b", components=1)
    assert found.direction.values.tolist() == ["A1", "B1"]
    assert (np.abs(found["shift"] - found.predicted) < 4.5 * found.shift_error).all()
    assert (found.slope > 0.7).all()
    assert (found.slope < 1.7).all()
    assert (np.abs(found.gap - found.gap_predicted) < 4 * found.gap_error).all()
    with pytest.raises(InputError, match="components 0"):
        analysis.proposition(study, "_a", "b", components=0)


def test_a_direction_that_cannot_be_weighted_along_is_left_out_alone(study, monkeypatch):
    from dmstore.analysis.comparison import proposition as module

    whole = analysis.proposition(study, "_a", "b", components=1)
    directions = study.comparison("_a", "b")["direction"].values[:, 0]
    small, large = np.sort(np.abs(directions).max(axis=1))
    heavy = int(np.abs(directions[1]).max() == large)
    monkeypatch.setattr(module, "most_weight", lambda alpha: large)
    found = analysis.proposition(study, "_a", "b", components=1)
    assert found.attrs["left_out"] == [["A1", "B1"][heavy]]
    for key in ("shift", "predicted", "gap", "slope", "sensitivity"):
        assert np.isnan(found[key].values[heavy]).all(), key
        assert np.allclose(found[key].values[1 - heavy], whole[key].values[1 - heavy]), key
    kept = ["A1", "B1"][1 - heavy]
    assert kept in analysis.plot.proposition(found).get_xlabel()
    with pytest.raises(InputError, match="weighs too much"):
        analysis.plot.proposition(found, direction=found.attrs["left_out"][0])
    monkeypatch.setattr(module, "most_weight", lambda alpha: small / 2)
    with pytest.raises(InputError, match="every direction has a weight"):
        analysis.proposition(study, "_a", "b", components=1)


def test_subpopulations_of_half_of_the_runs_are_coherent_on_the_other(study):
    (whole,) = (
        one
        for one in study.comparisons
        if one["algorithms"] == ["_a", "b"] and "agree" not in one["parameters"]
    )
    pair, top = whole["comparison"], whole["parameters"]["top"]
    found = analysis.coherences(study, "_a", "b", comparison=pair, components=2, draws=200)
    assert found["coherence"].dims == ("algorithm", "component")
    halves = [study.datamodels(name)["weight_half"] for name in ("_a", "b")]
    first, second = ([one.isel(half=h) for one in halves] for h in (0, 1))
    chosen = analysis.modeldiff(*first, label=study.label(), top=top).subpopulation.values[1, 0, 0]
    own = analysis.coherence(*second[::-1], chosen, study.label(), draws=200)
    assert found["member"].values[1, 0].tolist() == chosen.tolist()
    for key in ("coherence", "p"):
        assert np.isclose(found[key].values[1, 0], own[key])
    said = run_json("compare", study.path, "_a", "b", "--coherence")["coherence"]
    assert {one["algorithm"] for one in said} == {"_a", "b"}
    with pytest.raises(InputError, match="components 0"):
        analysis.coherences(study, "_a", "b", components=0)


def test_figures_are_written_whole_in_place_of_what_is_there(study, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("x")
    for folder, words in (
        (tmp_path / "file", "is a file"),
        (tmp_path / "no/where", "make it first"),
    ):
        with pytest.raises(InputError, match=words):
            figures.save_figures(study, "_a", "b", folder)
    with pytest.raises(NotFoundError, match="not been compared"):
        figures.save_figures(study, "_a", "c", tmp_path / "figures")
    assert [one.name for one in tmp_path.iterdir()] == ["file"]
    draws = figures.figures_of(study, "_a", "b")
    assert {"directions", "groups", "power", "subpopulation-b1", "relative-influence-a1"} <= set(
        draws
    )
    draws["relative-influence-a1"]()
    some = {name: draws[name] for name in ("directions", "subpopulation-b1")}
    monkeypatch.setattr(figures, "figures_of", lambda *_: some)
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures/directions.pdf").write_text("old")
    steps = []
    written = figures.save_figures(
        study, "_a", "b", tmp_path / "figures", progress=lambda *step: steps.append(step)
    )
    assert steps == [("figures", 1, 2), ("figures", 2, 2)]
    assert set(written) == set((tmp_path / "figures").iterdir())
    assert [path.name for path in written[:3]] == [f"directions.{k}" for k in ("png", "pdf", "svg")]
    heads = {".png": b"\x89PNG", ".pdf": b"%PDF", ".svg": b"<?xml"}
    assert all(path.read_bytes().startswith(heads[path.suffix]) for path in written)
    assert "directions of _a less b" in written[2].read_text()


def test_a_target_is_shown_beside_what_moves_it(study, tmp_path):
    by_place, by_id = study.target(0), study.target("_$x$")
    assert (by_place.id, by_place.position) == (by_id.id, by_id.position) == ("_$x$", 0)
    picture = by_id.show(3)
    texts = [text.get_text() for text in picture.axes.texts]
    assert {"the target", "most influential train units under _a"} <= set(texts)
    top = by_id.top(3).sel(algorithm="b")
    weights = [text for text in texts if re.search(r"[+-]\.?\d", text)]
    assert f"{float(top.weight[0]):+.2g}" in " ".join(weights)
    # The target, and three train units of each of three algorithms.
    assert len(picture.axes.images) == 10
    assert picture._repr_png_().startswith(b"\x89PNG")
    picture.save(tmp_path / "17.svg")
    for call, error, words in (
        (lambda: study.target(12), NotFoundError, "from 0 to 11"),
        (lambda: study.target("x\n"), NotFoundError, "ids such as"),
        (lambda: by_id.show(0), InputError, "1 or more"),
    ):
        with pytest.raises(error, match=words):
            call()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda a: analysis.influence_contrast(a, a, np.array([2])), "from 0 to 1"),
        (lambda a: analysis.influence_contrast(a, a, np.array([0.5])), "whole numbers"),
        (lambda a: analysis.influence_contrast(a, a, np.array([-1])), "no target"),
        (lambda a: analysis.influence_contrast(a, a, np.array([0]), under="x"), "either, a, b"),
        (lambda a: analysis.influence_contrast(a, a, np.array([0]), units=0), "units 0"),
        (lambda a: analysis.coherence(a, a, np.array([0, 1])), "0 of the targets"),
        (lambda a: analysis.coherence(a, a, np.array([0, 0])), "each target once"),
        (lambda a: analysis.coherence(a, a, np.array([0, 1]), np.zeros(3, int)), "3 labels"),
        (lambda a: analysis.coherence(a, a, np.array([0, 1]), draws=0), "draws 0"),
        (lambda a: analysis.within_classes(a, a, np.array([0, 1])), "no class has two"),
        (lambda a: analysis.within_classes(a, a, np.zeros(3, int)), "one whole number"),
        (lambda a: analysis.sensitivity(a, a[0] * 2), "below 1"),
        (lambda a: analysis.sensitivity(a, a[0], alpha=1), "between 0 and 1"),
        (lambda a: analysis.sensitivity(a[:, :1], a[0] / 2), "train units"),
        (
            lambda a: analysis.reweighting(
                a.rename(target="run"), a.rename(target="run", train="target"), a[0] / 2
            ),
            "2 masks",
        ),
        (lambda a: analysis.cosines({"a": a}), "two or more"),
    ],
)
def test_what_cannot_be_analysed_is_refused(call, words):
    with pytest.raises(InputError, match=words):
        call(rows([1, 0], [0, 1]))
