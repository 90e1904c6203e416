"""Figures: what they show, names as they are, labels apart, colours that everybody tells apart."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import SimpleNamespace

import matplotlib as mpl
import numpy as np
import pytest
import xarray as xr

from dmstore import analysis
from dmstore.analysis import plot
from dmstore.analysis.plot import drawing
from dmstore.analysis.plot.settings import own_settings
from dmstore.errors import InputError
from dmstore.regression import lasso_path


@pytest.fixture(scope="module")
def fits():
    draw = np.random.default_rng(0)
    masks = draw.random((400, 30)) < 0.5
    outputs = masks[:, :6] @ draw.normal(size=(6, 9)) + draw.normal(0, 0.5, (400, 9))
    outputs[:, 4] = 1.0
    return {"one": lasso_path(masks, outputs), "other": lasso_path(~masks, outputs, lams=20)}


def test_holdout_curves_start_at_the_mean_and_end_at_the_best_error(fits):
    axes = plot.holdout_curves(fits)
    median = next(line for line in axes.lines if line.get_label() == "one: median")
    assert median.get_xdata()[0] == pytest.approx(1.0)
    # No weights at lam_max: the error is that of the mean.
    assert median.get_ydata()[0] == pytest.approx(1.0)
    fitted = ~fits["one"].status.isin((3, 5))
    best = 1 - fits["one"].holdout_r2.values[fitted]
    assert np.median(best) <= median.get_ydata().min() < np.median(best) + 0.1


def test_histograms_leave_out_constant_targets(fits):
    for draw, name in ((plot.sparsity, "nonzeros"), (plot.holdout_r2, "holdout_r2")):
        axes = draw(fits)
        labels = [text.get_text() for text in axes.get_legend().get_texts()]
        values = fits["one"][name].values[np.arange(9) != 4]
        form = ".0f" if name == "nonzeros" else ".2f"
        assert labels[0] == f"one: median {np.median(values):{form}}"


def test_a_fit_of_nothing_but_constants_is_drawn(fits):
    nothing = fits["one"].isel(target=[4])
    assert not len(plot.holdout_curves({"one": nothing}).collections)
    for draw in (plot.sparsity, plot.holdout_r2):
        labels = [text.get_text() for text in draw({"one": nothing}).get_legend().get_texts()]
        assert labels == ["one: median none"]


# As TeX and as matplotlib's mathematics each of them is a fault, or nothing at all.
NAMES = ("_$x_1$ & 100%", "$\\frac{")


def with_names(fits):
    """Every figure that has names of algorithms or classes, as functions that draw it."""
    step = {"lds": 0.3, "lds_low": 0.2, "lds_high": 0.4, "r2": 0.1, "cosine": 0.5}
    step |= {"cosine_low": 0.4, "explained": [[0.5, 0.4]] * 2}
    curves = {name: {"steps": [{"runs": runs, **step} for runs in (100, 200)]} for name in NAMES}
    own = dict(zip(NAMES, fits.values(), strict=True))
    coords = {"algorithm": list(NAMES), "intensity": [0.0, 1.0]}
    effect = {
        key: (tuple(coords), np.full((2, 2), 0.1))
        for key in ("effect", "effect_low", "effect_high")
    }
    measured = {
        "effect": (("algorithm", "component", "on"), np.full((2, 3, 2), 0.1)),
        "effect_error": (("algorithm", "component", "on"), np.full((2, 3, 2), 0.01)),
        "energy": (("algorithm", "component", "on"), np.full((2, 3, 2), 0.02)),
        "similarity": ("target", np.linspace(0, 1, 5)),
        "similarity_error": ("target", np.full(5, 0.1)),
        "included": ("target", np.ones(5, dtype=bool)),
        "group_size": ("group", [5, 2]),
        "detectable": ("algorithm", [0.01, 0.02]),
    }
    ways = ("difference", "difference_error", "p", "q")
    measured |= {key: (("algorithm", "component"), np.full((2, 3), 0.01)) for key in ways}
    groups = ("similarity", "similarity_error", "p", "q")
    measured |= {f"group_{key}": ("group", [0.5, 0.01]) for key in groups}
    comparison = {
        "explained_variance": (("algorithm", "component", "on"), np.full((2, 3, 2), 0.1)),
        "residual_variance": (("algorithm", "component"), np.full((2, 3), 0.1)),
        "cosine": ("target", np.linspace(0, 1, 5)),
    }
    own_coords = coords | {"group": ["all targets", f"{NAMES[0]}={NAMES[1]}"]}
    claims = xr.Dataset(comparison | measured, own_coords)
    contrast = {"effect": 0.1, "low": 0.0, "high": 0.2, "p": 0.01, "beyond_chance": True}
    pairs = {"of": list(NAMES), "train_group": list(NAMES), "target_group": list(NAMES)}
    square = {"algorithm": list(NAMES), "other": list(NAMES)}
    return {
        "explained variance": partial(plot.explained_variance, claims),
        "direction intervals": partial(plot.direction_intervals, claims),
        "groups": partial(plot.groups, claims),
        "power": partial(plot.power, claims),
        "contrast": partial(
            plot.contrast,
            xr.Dataset(
                {k: (tuple(pairs), np.full((2, 2, 2), v)) for k, v in contrast.items()}, pairs
            ),
        ),
        "matrix": partial(
            plot.similarity_matrix,
            xr.Dataset({"cosine": (tuple(square), np.eye(2)), "order": ("leaf", [0, 1])}, square),
        ),
        "histograms": partial(
            plot.similarity_histograms,
            xr.Dataset(
                {"cosine_of_target": ((*square, "target"), np.full((2, 2, 3), 0.5))}, square
            ),
        ),
        "proposition": partial(
            plot.proposition,
            xr.Dataset(
                {
                    "predicted": (("direction", "on", "target"), np.ones((1, 2, 3))),
                    "shift": (("direction", "on", "target"), np.ones((1, 2, 3))),
                    "slope": (("direction", "on"), np.ones((1, 2))),
                },
                {"direction": ["A1"], "on": list(NAMES)},
            ),
        ),
        "datamodel": partial(
            plot.datamodel,
            xr.DataArray(
                np.ones((2, 3)), dims=("algorithm", "train"), coords={"algorithm": list(NAMES)}
            ),
            shown(NAMES[1]),
            0,
        ),
        "directions": partial(plot.directions, xr.Dataset(comparison, coords)),
        "similarity": partial(plot.similarity, xr.Dataset(comparison, coords)),
        "effect": partial(plot.effect, xr.Dataset(effect, coords), label=NAMES[1]),
        "curve": partial(plot.learning_curve, curves),
        "size": partial(plot.sample_size, curves),
        "explained": partial(plot.explained_by_samples, curves, 0),
        "holdout": partial(plot.holdout_curves, own),
        "sparsity": partial(plot.sparsity, own),
        "r2": partial(plot.holdout_r2, own),
    }


def shown(text):
    """Examples without images: a text, an id and a class of the same name each."""

    def one(dim, count):
        data = {"label": (dim, np.zeros(count, dtype=int)), "text": (dim, np.array([text] * count))}
        return xr.Dataset(data, {dim: [f"{text}{k}" for k in range(count)]})

    return SimpleNamespace(train=one("train", 3), targets=one("target", 2), class_names=[text])


def test_names_stand_as_they_are_whatever_the_users_settings(fits):
    draws = with_names(fits)
    plain = {key: drawing.svg(draw) for key, draw in draws.items()}
    for key, text in plain.items():
        for name in NAMES if key not in ("similarity", "groups") else NAMES[:1]:
            assert name.replace("&", "&amp;") in text, key
    with mpl.rc_context({"text.usetex": True, "lines.linewidth": 9, "svg.fonttype": "path"}):
        before = mpl.rcParams.copy()
        for key in ("directions", "r2"):
            assert drawing.svg(draws[key]) == plain[key]
        assert mpl.rcParams.copy() == before


def test_figures_in_threads_are_the_same_and_leave_the_settings(fits):
    before = mpl.rcParams.copy()
    draw = with_names(fits)["r2"]
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(drawing.svg, [draw] * 8))
    assert set(made) == {drawing.svg(draw)}
    assert mpl.rcParams.copy() == before


def pixels(axes):
    """Boxes of the labels in axes, in pixels, and places of the points."""
    axes.get_figure().draw_without_rendering()
    texts = [text for text in axes.texts if text.get_text()]
    return {text.get_text(): text.get_window_extent() for text in texts}


@pytest.mark.parametrize("spread", [1.0, 0.02, 0.0])
def test_labels_of_directions_do_not_cover_one_another(spread):
    """Ten directions apart, close together, and all in one place."""
    draw = np.random.default_rng(0)
    explained = 0.01 * np.exp(spread * draw.normal(size=(2, 5, 2)))
    comparison = xr.Dataset(
        {
            "explained_variance": (("algorithm", "component", "on"), explained),
            "residual_variance": (("algorithm", "component"), np.full((2, 5), 0.1)),
        },
        {"algorithm": ["one", "other"]},
    )
    axes = plot.directions(comparison)
    boxes = pixels(axes)
    assert set(boxes) == {f"{way}{k}" for way in "AB" for k in range(1, 6)}
    frame = axes.get_window_extent()
    listed = list(boxes.values())
    for place, box in enumerate(listed):
        assert frame.x0 <= box.x0 < box.x1 <= frame.x1
        assert frame.y0 <= box.y0 < box.y1 <= frame.y1
        assert not any(box.overlaps(other) for other in listed[:place])
    # Where there is room, each label is nearer to its own point than any other label.
    if spread == 1:
        points = axes.transData.transform(100 * explained.reshape(-1, 2))
        middle = np.array([(b.x0 + b.x1, b.y0 + b.y1) for b in listed]) / 2
        names = [f"{way}{k}" for way in "AB" for k in range(1, 6)]
        near = np.linalg.norm(points[:, None] - middle[None], axis=2).argmin(axis=1)
        assert sum(list(boxes)[k] == name for k, name in zip(near, names, strict=True)) >= 8


def luminance(rgb):
    return np.asarray(rgb) @ (0.2126, 0.7152, 0.0722)


# Machado, Oliveira and Fernandes (2009), severity 1: what protanopes, deuteranopes and tritanopes see of linear RGB.
BLIND = {
    "protan": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
    "deutan": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
    "tritan": [[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]],
}


def linear(color):
    value = np.array(mpl.colors.to_rgb(color))
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def test_colours_are_told_apart_and_can_be_read_on_white():
    for color in (*drawing.MORE, drawing.GREY):
        assert 1.05 / (luminance(linear(color)) + 0.05) >= 4.5, color
    a, b = (linear(color) for color in drawing.COLORS)
    for name, seen in BLIND.items():
        # The paper's green and red come to .10 for deuteranopes.
        assert (
            np.linalg.norm(
                np.sqrt(np.clip(np.array(seen) @ a, 0, 1))
                - np.sqrt(np.clip(np.array(seen) @ b, 0, 1))
            )
            > 0.35
        ), name


def test_a_direction_that_is_not_there_is_named():
    comparison = xr.Dataset(
        {"residual_variance": (("algorithm", "component"), [[0.5, 0.1], [0.0, 0.0]])},
        {"algorithm": ["one", "other"]},
    )
    for code in ("A3", "B1", "C1", "A0", "\n", 7):
        with pytest.raises(InputError, match="this comparison has A1 to A2"):
            plot.subpopulation(comparison, shown("x"), code)
    for draw in (plot.groups, plot.power, plot.unlike_targets, plot.direction_intervals):
        with pytest.raises(InputError, match="was not measured"):
            draw(comparison)


def test_shares_beside_intervals_are_not_cut_in_any_resolution(fits):
    """Texts are wider in some than in the one that was laid out."""
    with own_settings():
        drawn = with_names(fits)["direction intervals"]().figure
        drawn.draw_without_rendering()
        drawn.set_layout_engine("none")
        for dpi in (72, 100, 150):
            drawn.dpi = dpi
            texts = drawn.axes[0].texts
            ends = [one.get_window_extent(drawn._get_renderer()).x1 for one in texts]
            assert len(ends) > 1
            assert max(ends) <= drawn.bbox.x1


def test_a_heat_map_has_alike_ones_side_by_side_and_a_tree():
    draw = np.random.default_rng(0)
    base = draw.normal(size=(2, 6, 20))
    given = {
        f"{g}{k}": xr.DataArray(base[g] + 0.2 * draw.normal(size=(6, 20)), dims=("target", "train"))
        for k in "xy"
        for g in (0, 1)
    }
    axes = plot.similarity_matrix(analysis.cosines(given))
    names = [label.get_text() for label in axes.get_xticklabels()]
    assert [name[0] for name in names] in (["0", "0", "1", "1"], ["1", "1", "0", "0"])
    assert len(axes.child_axes[0].lines) == 3
