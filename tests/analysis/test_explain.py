"""What explains a direction: figures against SciPy and scikit-learn, chance, and the line that is read."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from commands import run, run_json
from helpers import examples
from pages import page_json
from scipy.stats import hypergeom, mannwhitneyu, spearmanr
from sklearn.metrics import roc_auc_score

import dmstore
from dmstore.analysis import explain
from dmstore.analysis.explaining.annotations import annotated
from dmstore.analysis.explaining.association import auroc, enrichment, spearman
from dmstore.analysis.explaining.lines import best
from dmstore.analysis.explaining.scores import explanations
from dmstore.errors import InputError, NotFoundError
from dmstore.readers.labels import Labels

NONE = np.zeros(90, dtype=np.int64)


@pytest.mark.parametrize("tied", [False, True])
def test_auroc_is_that_of_scikit_learn_and_its_p_that_of_scipy(tied):
    draw = np.random.default_rng(0)
    values = draw.normal(size=(3, 90))
    member = draw.random((90, 4)) < [0.1, 0.3, 0.5, 0.9]
    values[0] += member[:, 1]
    if tied:
        values = np.round(values)
    found = auroc(values, member, NONE)
    for row, column in np.ndindex(3, 4):
        inside = member[:, column]
        expected = roc_auc_score(inside, values[row])
        assert found.score[row, column] == pytest.approx(expected)
        test = mannwhitneyu(
            values[row, inside], values[row, ~inside], method="asymptotic", use_continuity=False
        )
        assert found.p[row, column] == pytest.approx(test.pvalue)
    assert np.isnan(auroc(values, np.ones((90, 1), dtype=bool), NONE).score).all()


def test_within_strata_pairs_of_one_stratum_alone_count():
    draw = np.random.default_rng(1)
    stratum = draw.integers(0, 3, 90)
    # Between strata all is turned round.
    member = draw.random(90) < np.array([0.2, 0.5, 0.8])[stratum]
    values = draw.normal(size=90) + member - 9.0 * stratum
    found = auroc(values[None], member[:, None], stratum)
    above = [
        (values[i] > values[j])
        for i in np.flatnonzero(member)
        for j in np.flatnonzero(~member)
        if stratum[i] == stratum[j]
    ]
    assert found.score[0, 0] == pytest.approx(np.mean(above))
    assert found.score[0, 0] > 0.6 > 0.4 > roc_auc_score(member, values)
    # P is how often a random order within strata does as much.
    drawn = []
    for _ in range(4000):
        other = values.copy()
        for value in range(3):
            here = stratum == value
            other[here] = draw.permutation(values[here])
        drawn.append(other)
    null = auroc(np.array(drawn), member[:, None], stratum)
    far = np.abs(null.score - 0.5) >= abs(found.score[0, 0] - 0.5)
    assert found.p[0, 0] == pytest.approx(far.mean(), abs=0.01)
    assert (null.p < 0.05).mean() == pytest.approx(0.05, abs=0.012)


@pytest.mark.parametrize("tied", [False, True])
def test_rank_correlation_is_that_of_scipy(tied):
    draw = np.random.default_rng(2)
    values, number = draw.normal(size=(3, 90)), draw.normal(size=90)
    values[1] += 0.5 * number
    if tied:
        values, number = np.round(values), np.round(2 * number)
    found = spearman(values, number, NONE)
    expected = [spearmanr(row, number) for row in values]
    assert np.allclose(found.score[:, 0], [one.statistic for one in expected])
    assert np.allclose(found.p[:, 0], [one.pvalue for one in expected], atol=0.01)
    stratum = np.repeat([0, 1], 45)
    apart = spearman(np.where(stratum, 50 + values, values), number - 50 * stratum, stratum)
    parts = [spearmanr(values[1, stratum == s], number[stratum == s]).statistic for s in (0, 1)]
    assert apart.score[1, 0] == pytest.approx(np.mean(parts), abs=0.02)
    assert np.isnan(spearman(values, np.ones(90), NONE).score).all()


def test_enrichment_is_hypergeometric_within_strata_too():
    draw = np.random.default_rng(3)
    member = draw.random((90, 2)) < 0.2
    chosen = np.arange(90) < 12
    member[:7, 0] = True
    found = enrichment(member, chosen, NONE)
    for column in (0, 1):
        hits, inside = member[:12, column].sum(), member[:, column].sum()
        assert found.p[column] == pytest.approx(hypergeom.sf(hits - 1, 90, inside, 12))
        assert found.share[column] == hits / 12
        assert found.overall[column] == pytest.approx(inside / 90)
    stratum = draw.integers(0, 4, 90)
    within = enrichment(member, chosen, stratum)
    null = []
    for _ in range(4000):
        other = chosen.copy()
        for value in range(4):
            here = stratum == value
            other[here] = draw.permutation(chosen[here])
        null.append(member[other].sum(axis=0))
    assert np.allclose(
        (np.array(null) >= member[:12].sum(axis=0)).mean(axis=0), within.p, atol=0.02
    )
    assert within.overall == pytest.approx(np.mean(null, axis=0) / 12, abs=0.01)
    # All of a stratum, or none, leaves nothing to chance.
    assert np.isnan(enrichment(stratum[:, None] == 1, chosen, stratum).p[0])


TRAIN, TARGET = 200, 300


def compared(projection, heaviest, residual=None):
    """A comparison that holds what is explained."""
    rows, count = projection.shape[:2]
    variance = np.ones((rows, count)) if residual is None else residual
    return xr.Dataset(
        {
            "projection": (("algorithm", "component", "target"), projection.astype("f4")),
            "heaviest": (("algorithm", "component", "heavy"), heaviest),
            "residual_variance": (("algorithm", "component"), variance),
        },
        coords={"algorithm": ["a", "b"], "train": np.arange(TRAIN)},
    )


def known(seed=0, **targets):
    draw = np.random.default_rng(seed)
    one = {
        "label": draw.integers(0, 4, TARGET),
        "web": draw.random(TARGET) < 0.3,
        "group": np.array(["red", "green", "blue", ""])[draw.integers(0, 4, TARGET)],
        "size": draw.normal(size=TARGET),
        "caption": np.array(["x" * n for n in draw.integers(1, 200, TARGET)]),
        **targets,
    }
    train = {"label": draw.integers(0, 4, TRAIN), "web": draw.random(TRAIN) < 0.3}
    return Labels(
        xr.Dataset({k: ("train", v) for k, v in train.items()}, coords={"train": np.arange(TRAIN)}),
        xr.Dataset(
            {k: ("target", v) for k, v in one.items()}, coords={"target": np.arange(TARGET)}
        ),
        ["ant", "bee", "spider", "wasp"],
    )


def random_comparison(seed, count=3):
    draw = np.random.default_rng(100 + seed)
    heaviest = np.array([[draw.permutation(TRAIN)[:40] for _ in range(count)] for _ in range(2)])
    return compared(draw.normal(size=(2, count, TARGET)), heaviest)


def test_annotations_that_say_nothing_are_rarely_named():
    """Over studies of random annotations, some direction is explained in about one of twenty."""
    claimed, small = [], []
    for seed in range(15):
        found = explanations(random_comparison(seed), known(seed))
        claimed.append(any(one.q <= 0.05 for one in found))
        small += [one.p <= 0.1 for one in found if one.measure != "share"]
        assert len(found) > 100
    assert sum(claimed) <= 4
    assert np.mean(small) == pytest.approx(0.1, abs=0.02)


def test_a_class_with_what_is_within_it_is_named():
    draw = np.random.default_rng(4)
    examples, comparison = known(), random_comparison(0)
    label, web = (examples.targets[k].values for k in ("label", "web"))
    projection = comparison["projection"].values.copy()
    spiders = (label == 2) & web
    projection[0, 0] = draw.normal(size=TARGET) + 4 * spiders
    # The other end, a number, the length of a text; and a train side alone.
    projection[0, 1] = draw.normal(size=TARGET) - 4 * (label == 1)
    projection[0, 2] = draw.normal(size=TARGET) - examples.targets["size"].values
    projection[1, 0] = draw.normal(size=TARGET) + np.char.str_len(
        examples.targets["caption"].values
    )
    heaviest = comparison["heaviest"].values.copy()
    heaviest[1, 1] = np.argsort(~examples.train["web"].values, kind="stable")[:40]
    comparison = compared(projection, heaviest)
    found = best(comparison, examples)
    area = roc_auc_score(spiders, projection[0, 0].astype("f4"))
    assert (
        found[0][0]["line"] == f"spider with `web` = true, AUROC {f'{area:.4f}'[1:5].rstrip('0')}"
    )
    assert found[0][0]["score"] == pytest.approx(area)
    assert (found[0][0]["label"], found[0][0]["annotation"], found[0][0]["end"]) == (
        "spider",
        "web",
        "top",
    )
    assert found[0][0]["q"] < 1e-6
    assert found[0][1]["line"].startswith("bee, AUROC .9")
    assert found[0][1]["line"].endswith(", at its bottom end")
    assert found[0][2]["line"].startswith("`size`, rank correlation -0.")
    assert found[1][0]["line"].startswith("`length of caption`, rank correlation +0.9")
    share = examples.train["web"].values.mean()
    assert (
        found[1][1]["line"]
        == f"`web` = true at 100% of its heaviest train units, {share:.0%} of all"
    )
    assert found[1][2]["line"] == ""
    ordered = [
        one for one in explanations(comparison, examples) if (one.row, one.component) == (0, 0)
    ]
    sure = [one for one in ordered if one.q <= 0.05]
    assert ordered[: len(sure)] == sure
    assert sure == sorted(sure, key=lambda one: -one.strength)


def test_the_line_is_of_what_accounts_for_most_of_the_direction():
    """A few targets at its very end have a larger AUROC than the class that it is about, and are not what it is about."""
    draw = np.random.default_rng(7)
    examples = known()
    label, web = (examples.targets[k].values for k in ("label", "web"))
    projection = random_comparison(0)["projection"].values.copy()
    few = np.flatnonzero((label == 2) & web)[:12]
    rare = np.full(TARGET, "common")
    rare[few] = "rare"
    bees = np.where(label == 1, draw.choice([-1.0, 6.0], TARGET, p=[0.15, 0.85]), 0)
    projection[0, 0] = 0.5 * draw.normal(size=TARGET) + bees
    projection[0, 0, few] = 7
    examples.targets["rare"] = ("target", rare)
    found = explanations(compared(projection, random_comparison(0)["heaviest"].values), examples)
    here = [one for one in found if (one.row, one.component) == (0, 0) and one.of == "targets"]
    of = {(one.annotation, one.value): one for one in here}
    small, large = of["rare", "rare"], of["label", "bee"]
    assert small.score > large.score > 0.75
    assert max(small.q, large.q) < 1e-3
    values = projection[0, 0].astype("f4")
    for one, member in ((small, rare == "rare"), (large, label == 1)):
        assert one.explained == pytest.approx(np.corrcoef(values, member)[0, 1] ** 2)
    line = best(compared(projection, random_comparison(0)["heaviest"].values), examples)[0][0]
    assert line["line"].startswith("bee, AUROC .")


def test_what_lies_at_the_other_end_accounts_for_nothing():
    """Members lie above most others, but a few far below pull their mean there."""
    draw = np.random.default_rng(8)
    examples = known()
    label = examples.targets["label"].values
    projection = random_comparison(0)["projection"].values.copy()
    values = draw.normal(size=TARGET) + 0.9 * (label == 1)
    values[np.flatnonzero(label == 1)[:3]] = -40
    heaviest = random_comparison(0)["heaviest"].values
    for sign in (1, -1):
        projection[0, 0] = sign * values
        found = explanations(compared(projection, heaviest), examples)
        (bee,) = [
            one
            for one in found
            if (one.row, one.component, one.of, one.value) == (0, 0, "targets", "bee")
        ]
        assert sign * (bee.score - 0.5) > 0.1
        assert np.corrcoef(values, label == 1)[0, 1] < -0.1
        assert bee.explained == 0


def test_directions_of_rounding_and_targets_without_datamodels_do_not_count():
    examples, comparison = known(), random_comparison(1)
    projection = comparison["projection"].values.copy()
    projection[:, :, ::2] = np.nan
    projection[0, 0] += 9.0 * examples.targets["web"].values
    residual = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    found = best(compared(projection, comparison["heaviest"].values, residual), examples)
    assert "web" in found[0][0]["line"]
    assert found[0][0]["score"] == 1
    assert not any(one["line"] for row in found for one in row[1:])
    assert {
        one.component
        for one in explanations(
            compared(projection, comparison["heaviest"].values, residual), examples
        )
    } == {0}


def test_nothing_known_explains_nothing():
    empty = Labels(
        xr.Dataset(coords={"train": np.arange(TRAIN)}),
        xr.Dataset(coords={"target": np.arange(TARGET)}),
        [],
    )
    assert explanations(random_comparison(2), empty) == []
    assert best(random_comparison(2), empty)[1][2]["line"] == ""


def test_what_of_an_annotation_is_scored():
    data = xr.Dataset(
        {
            "yes": ("target", np.arange(40) < 8),
            "few": ("target", np.arange(40) < 3),
            "kind": ("target", np.repeat(["b", "a", "", "rare"], [20, 14, 2, 4])),
            "count": ("target", np.arange(40) % 3),
            "number": ("target", np.where(np.arange(40) < 4, np.nan, np.arange(40.0))),
            "image": (("target", "height", "width"), np.zeros((40, 2, 2), "u1")),
            "label": ("target", np.arange(40) % 2),
        }
    )
    found = {one.name: one for one in annotated(data, ["zero", "one"])}
    assert next(iter(found)) == "label"
    assert found["label"].values == ["zero", "one"]
    assert found["yes"].values == ["true"]
    assert found["few"].values == []
    assert found["kind"].values == ["b", "a"]
    assert found["kind"].known.sum() == 38
    assert found["count"].values == ["0", "1", "2"]
    assert found["count"].number.tolist() == (np.arange(40) % 3).tolist()
    assert found["number"].values == []
    assert np.isnan(found["number"].number).sum() == 4
    assert "image" not in found


def test_compare_and_its_page_say_it(tmp_path, monkeypatch):
    """Of two files of scores whose examples have an annotation."""
    monkeypatch.chdir(tmp_path)
    draw = np.random.default_rng(5)
    web = np.arange(60) % 5 == 0
    a, b = draw.normal(size=(2, 60, 40)) * 0.2 + draw.normal(size=(60, 40))
    a[np.ix_(web, np.arange(40) < 8)] += 4
    np.save("a.npy", a)
    np.save("b.npy", b)
    label = np.arange(60) % 3
    np.savez(
        "e.npz",
        train_label=np.arange(40) % 3,
        target_label=label,
        target_web=web,
        target_train=np.full(60, -1),
        class_name=np.array(["ant", "bee", "cat"]),
    )
    found = run_json("compare", "a.npy", "b.npy", "--examples", "e.npz", "--components", "3", "-Q")
    best_of = found["explained_by"]
    assert [len(row) for row in best_of] == [3, 3]
    assert best_of[0][0]["line"] == "`web` = true, AUROC 1"
    out, _ = run("compare", "a.npy", "b.npy", "--examples", "e.npz", "--components", "3", "-Q")
    assert "       `web` = true, AUROC 1\n" in out
    page = page_json(Path(found["report"]).read_text())
    assert "web = true, AUROC 1" in {one["annotation"] for one in page["directions"]}
    bare = run_json(
        "compare", "a.npy", "b.npy", "--components", "3", "-Q", "--orientation", "target-train"
    )
    assert not any(one["line"] for row in bare["explained_by"] for one in row)


def test_a_comparison_of_a_study_is_explained(tmp_path):
    study = dmstore.create_study(tmp_path / "s.dm", examples(), seed=1)
    with pytest.raises(InputError, match="between 0 and 1"):
        explain(study, "a", "b", fdr=2)
    with pytest.raises(NotFoundError):
        explain(study, "a", "b")
