"""The page that shows a comparison: labelled data in, one HTML text out, nothing read or written."""

from __future__ import annotations

import base64
import importlib.resources
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from dmstore import provenance
from dmstore.analysis.comparison.modeldiff import likeness, rank
from dmstore.analysis.comparison.where import left_out
from dmstore.analysis.pages import fit_plot, plot
from dmstore.errors import MissingDependencyError

_SHOWN = 3
# Pictures of a subpopulation: thousands would make a page of hundreds of megabytes, which no browser opens.
_MOST = 64
_HEAVY = 24
_THUMBNAIL = 96


class Examples(Protocol):
    """What is known of the examples; a study is one, and so is :class:`dmstore.readers.labels.Labels`."""

    @property
    def train(self) -> xr.Dataset:
        """Dim ``train``; ``label`` and ``image`` where they are known."""

    @property
    def targets(self) -> xr.Dataset:
        """The same with dim ``target``."""

    @property
    def class_names(self) -> list[str]:
        """Names of the classes that labels count."""


@dataclass(frozen=True)
class Subject:
    """What a page says beside the comparison itself.

    Attributes
    ----------
    title : str
    examples : Examples
    cards : list of dict
        One an algorithm: ``title`` and ``rows``, pairs of texts.
    provenance : list of pair of str
    effects : list of dict
        Counterfactual checks, from :func:`dmstore.analysis.pages.report.counterfactuals`.
    curves : dict
        Algorithm to its learning curve, from :func:`dmstore.analysis.evaluation.curve_summary.kept_curve`.
    fits : dict
        Algorithm to its fit, without what has train units.
    scores_only : bool
        Whether there are no runs behind the comparison, and so no check against chance.
    """

    title: str
    examples: Examples
    cards: list[dict[str, Any]]
    provenance: list[tuple[str, str]]
    effects: list[dict[str, Any]] = field(default_factory=list)
    curves: dict[str, dict[str, Any]] = field(default_factory=dict)
    fits: dict[str, xr.Dataset] = field(default_factory=dict)
    scores_only: bool = False


def render(comparison: xr.Dataset, subject: Subject) -> str:
    """The page.

    Parameters
    ----------
    comparison : Dataset
        From :func:`dmstore.analysis.modeldiff`, in memory.
    subject : Subject

    Returns
    -------
    str
        HTML with everything inside it.

    Raises
    ------
    MissingDependencyError
        Without the extra ``analysis``.
    """
    try:
        import jinja2
    except ImportError as error:
        msg = "reports need jinja2; pip install 'dmstore[analysis]'"
        raise MissingDependencyError(msg) from error
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    source = (
        importlib.resources.files("dmstore.analysis").joinpath("report.html").read_text("utf-8")
    )
    return environment.from_string(source).render(**_context(comparison, subject))


def _curves(curves: dict[str, dict[str, Any]]) -> list[str]:
    """Figures of learning curves; those kept by an earlier version do not have all of them."""
    if not curves:
        return []
    drawn = [partial(plot.learning_curve, curves), partial(plot.sample_size, curves)]
    if all("explained" in step for curve in curves.values() for step in curve["steps"]):
        drawn += [partial(plot.explained_by_samples, curves, step) for step in (0, -1)]
    return [plot.svg(draw) for draw in drawn]


def _context(comparison: xr.Dataset, subject: Subject) -> dict[str, Any]:
    names = [str(name) for name in comparison["algorithm"].values]
    sides = [_side(subject.examples, comparison, row) for row in range(2)]
    return {
        "title": subject.title,
        "names": names,
        "cards": subject.cards,
        "sides": sides,
        "headline": _headline(comparison, names, sides, subject),
        "score": score(comparison),
        "figures": {
            "directions": plot.svg(partial(plot.directions, comparison)),
            "similarity": plot.svg(partial(plot.similarity, comparison)),
        },
        "curves": _curves(subject.curves),
        "fits": [
            plot.svg(partial(draw, subject.fits))
            for draw in (fit_plot.holdout_curves, fit_plot.sparsity, fit_plot.holdout_r2)
        ]
        if subject.fits
        else [],
        "effects": [
            {
                **entry,
                "figure": plot.svg(
                    partial(plot.counterfactual, entry["result"], label=entry["class"])
                ),
            }
            for entry in subject.effects
        ],
        "excluded": left_out(comparison),
        "targets": comparison.sizes["target"],
        "train": comparison.sizes["train"],
        "provenance": subject.provenance,
        "colors": plot.COLORS,
        "has_out": "delta_out" in comparison,
        "has_labels": "label" in subject.examples.targets,
        "scores_only": subject.scores_only,
        "software": provenance.software(),
    }


def score(comparison: xr.Dataset) -> dict[str, Any]:
    """Mean cosine similarity between the algorithms, and that of each with itself."""
    names = [str(name) for name in comparison["algorithm"].values]
    key = "cosine_cross" if "cosine_cross" in comparison else "cosine"
    ceiling = (
        [float(np.nanmean(row)) for row in comparison["cosine_ceiling"].values]
        if "cosine_ceiling" in comparison
        else []
    )
    return {
        "full": float(np.nanmean(comparison["cosine"].values)),
        "between": float(np.nanmean(comparison[key].values)),
        "ceiling": dict(zip(names, ceiling, strict=False)),
    }


def _sentence(side: dict[str, Any], names: list[str]) -> str:
    """What one algorithm relies on and the other less: its strongest direction beyond chance."""
    panels = [panel for panel in side["panels"] if panel["beyond"]]
    if not panels:
        return ""
    panel = max(panels, key=lambda panel: panel["delta_out"])
    own, other = side["name"], names[1 - names.index(side["name"])]
    explained = dict(zip(names, panel["explained"], strict=True))
    return (
        f"{own} relies on training examples that {other} relies on less: {_named(panel)} explains "
        f"{explained[own]:.2f} % of {own}'s datamodels and "
        f"{explained[other]:.2f} % of {other}'s (out of sample the gap is {panel['delta_out']:+.2f} points, "
        f"chance alone reaches {panel['delta_null']:.2f})."
    )


def _in_sample(side: dict[str, Any], names: list[str]) -> str:
    """The direction of a side with the largest gap, whatever it is worth."""
    own, other = side["name"], names[1 - names.index(side["name"])]
    if not side["panels"]:
        return f"{own} has no direction beyond rounding that {other} has less of."
    panel = max(side["panels"], key=lambda panel: panel["delta"])
    if panel["delta"] <= 0:
        return f"None of the first {len(side['panels'])} directions of {own} explains more of {own} than of {other}."
    explained = dict(zip(names, panel["explained"], strict=True))
    return (
        f"What {own} uses and {other} uses less, by the largest gap: {_named(panel)} explains {explained[own]:.2f} % "
        f"of {own}'s datamodels and {explained[other]:.2f} % of {other}'s."
    )


def _named(panel: dict[str, Any]) -> str:
    about = f", about class {panel['about']}," if panel["about"] else ""
    return f"direction {panel['code']}{about}"


def _headline(
    comparison: xr.Dataset, names: list[str], sides: list[dict[str, Any]], subject: Subject
) -> str:
    sentences = [sentence for side in sides if (sentence := _sentence(side, names))]
    kept = score(comparison)
    same = not any(rank(comparison))
    if same:
        text = likeness(comparison) or "No direction is longer than rounding makes it."
    elif sentences:
        text = " ".join(sentences)
    elif "delta_out" in comparison:
        text = (
            f"With this many runs, no direction was found again in which {names[0]} and {names[1]} differ by "
            f"more than chance; more runs may show one."
        )
    else:
        text = " ".join(_in_sample(side, names) for side in sides)
        text += f" Over all targets the mean cosine similarity is {kept['full']:.2f}."
        text += (
            " This is from scores alone, in sample: without the runs behind them nothing says how much of it is noise."
            if subject.scores_only
            else " This is in sample only: the fits have no parts to check with."
        )
    if not same and (said := likeness(comparison)):
        text = f"{said} {text}"
    if kept["ceiling"]:
        own = " and ".join(
            f"{name} with itself at {value:.2f}" for name, value in kept["ceiling"].items()
        )
        text += (
            f" Over all targets their datamodels agree with a mean cosine similarity of {kept['between']:.2f}; "
            f"{own}."
        )
    if subject.effects:
        effect = subject.effects[0]
        text += f" Adding the {effect['name']} changes P({effect['class']}) by "
        text += (
            " and by ".join(
                f"{r['effect']:+.1f} points under {r['algorithm']}" for r in effect["rows"]
            )
            + "."
        )
    return text


def _side(examples: Examples, comparison: xr.Dataset, row: int) -> dict[str, Any]:
    names = examples.class_names
    panels = []
    for component in range(min(_SHOWN, rank(comparison)[row])):
        one = comparison.isel(algorithm=row, component=component)
        ends = []
        for end, title in enumerate(("top", "bottom")):
            members, random = one["subpopulation"].values[end], one["contrast"].values[end]
            there = int((members >= 0).sum())
            ends.append(
                {
                    "title": f"{title} ({_MOST} of {there})" if there > _MOST else title,
                    "members": _pictures(examples.targets, "target", members[:_MOST], names),
                    "random": _pictures(examples.targets, "target", random[:_MOST], names),
                }
            )
        heavy = one["heaviest"].values[:_HEAVY]
        panels.append(
            {
                "number": component + 1,
                "code": f"{'AB'[row]}{component + 1}",
                "ends": ends,
                "about": _about(examples, one["subpopulation"].values[0]),
                "explained": (one["explained_variance"].values * 100).tolist(),
                "delta": float(one["delta"]) * 100,
                **_outside(one),
                "heavy": _pictures(
                    examples.train, "train", heavy, names, one["direction"].values[heavy]
                ),
            }
        )
    return {
        "name": str(comparison["algorithm"].values[row]),
        "color": plot.COLORS[row],
        "panels": panels,
    }


def _outside(one: xr.Dataset) -> dict[str, Any]:
    """What a direction shows out of sample, in points, and whether that is more than chance."""
    if "delta_out" not in one:
        return {"delta_out": None, "delta_null": None, "again": None, "beyond": False}
    gap, null, again = float(one["delta_out"]), float(one["delta_null"]), float(one["found_again"])
    return {
        "delta_out": gap * 100 if np.isfinite(gap) else None,
        "delta_null": null * 100,
        "again": round(again * 12),
        "beyond": bool(np.isfinite(gap) and gap > null and again >= 0.5),
    }


def _about(examples: Examples, members: NDArray[np.int64]) -> str:
    """The class that most of a subpopulation is of; empty where there are no labels."""
    there = members[members >= 0]
    if "label" not in examples.targets or not len(there):
        return ""
    common = np.bincount(np.asarray(examples.targets["label"].values)[there])
    name = examples.class_names[int(common.argmax())]
    return name if common.max() / common.sum() > 0.5 else f"{name} among others"


def _pictures(
    examples: xr.Dataset,
    dim: str,
    positions: NDArray[np.int64],
    class_names: Sequence[str],
    weights: NDArray[Any] | None = None,
) -> list[dict[str, Any]]:
    """Thumbnails, ids, classes (empty where there are none), and signs of weights."""
    valid = positions[positions >= 0]
    ids = examples[dim].values[valid]
    images = examples["image"].isel({dim: valid}).values if "image" in examples else None
    labels = examples["label"].values[valid] if "label" in examples else None
    return [
        {
            "id": str(ids[place]),
            "class": class_names[int(labels[place])] if labels is not None else "",
            "weight": float(weights[place]) if weights is not None else None,
            "image": thumbnail(images[place]) if images is not None else None,
        }
        for place in range(len(valid))
    ]


def thumbnail(image: NDArray[np.uint8]) -> str:
    """A PNG of an image as a data URI, scaled down to 96 pixels if it is larger."""
    from PIL import Image

    picture = Image.fromarray(image[..., 0] if image.ndim == 3 and image.shape[2] == 1 else image)
    if max(picture.size) > _THUMBNAIL:
        picture.thumbnail((_THUMBNAIL, _THUMBNAIL))
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
