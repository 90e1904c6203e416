"""The page that shows a comparison: labelled data in, one HTML text out, nothing read or written."""

from __future__ import annotations

import base64
import importlib.resources
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from dmstore import provenance
from dmstore.analysis import plot
from dmstore.analysis.comparison.answer import DirectionClaim, answer
from dmstore.analysis.comparison.explain import Examples, best
from dmstore.analysis.comparison.modeldiff import rank
from dmstore.analysis.comparison.sentences import interval, named, rate, share
from dmstore.analysis.comparison.where import left_out
from dmstore.analysis.pages.headline import headline
from dmstore.analysis.plot import drawing
from dmstore.errors import MissingDependencyError

_SHOWN = 3
# Pictures of a subpopulation: thousands would make a page of hundreds of megabytes, which no browser opens.
_MOST = 64
_HEAVY = 24
_THUMBNAIL = 96


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
    return [drawing.svg(draw) for draw in drawn]


def _context(comparison: xr.Dataset, subject: Subject) -> dict[str, Any]:
    names = [str(name) for name in comparison["algorithm"].values]
    sides = [_side(subject.examples, comparison, row) for row in range(2)]
    for side, explained in zip(sides, best(comparison, subject.examples), strict=True):
        for panel in side["panels"]:
            panel["explained_by"] = explained[panel["number"] - 1]["line"].replace("`", "")
    return {
        "title": subject.title,
        "names": names,
        "cards": subject.cards,
        "sides": sides,
        "headline": headline(
            comparison,
            names,
            {panel["code"]: panel["about"] for side in sides for panel in side["panels"]},
            subject.effects,
            scores_only=subject.scores_only,
        ),
        "score": score(comparison),
        "groups": _groups(comparison),
        "figures": {
            "directions": drawing.svg(partial(plot.directions, comparison)),
            "similarity": drawing.svg(partial(plot.similarity, comparison)),
        },
        "curves": _curves(subject.curves),
        "fits": [
            drawing.svg(partial(draw, subject.fits))
            for draw in (plot.holdout_curves, plot.sparsity, plot.holdout_r2)
        ]
        if subject.fits
        else [],
        "effects": [
            {
                **entry,
                "figure": drawing.svg(partial(plot.effect, entry["result"], label=entry["class"])),
            }
            for entry in subject.effects
        ],
        "excluded": left_out(comparison),
        "targets": comparison.sizes["target"],
        "train": comparison.sizes["train"],
        "provenance": subject.provenance,
        "colors": drawing.COLORS,
        "measured": "q" in comparison,
        "has_labels": "label" in subject.examples.targets,
        "scores_only": subject.scores_only,
        "software": provenance.software(),
    }


def score(comparison: xr.Dataset) -> dict[str, Any]:
    """Similarity over all targets without noise, where it was measured, and the mean cosine of the fits."""
    said = answer(comparison)
    return {
        "full": float(np.nanmean(comparison["cosine"].values)),
        "similarity": interval(said.similarity) if said.similarity else "",
    }


def _groups(comparison: xr.Dataset) -> list[dict[str, Any]]:
    """Groups of targets, those beyond chance first, the least alike first."""
    return [
        {
            "name": named(one),
            "targets": one.targets,
            "similarity": interval(one.similarity),
            "q": rate(one.q),
            "beyond": one.beyond,
        }
        for one in answer(comparison).groups
        if np.isfinite(one.similarity.estimate)
    ]


def _side(examples: Examples, comparison: xr.Dataset, row: int) -> dict[str, Any]:
    names = examples.class_names
    own = str(comparison["algorithm"].values[row])
    claims = {one.component: one for one in answer(comparison).directions if one.algorithm == own}
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
                **_outside(claims.get(component)),
                "heavy": _pictures(
                    examples.train, "train", heavy, names, one["direction"].values[heavy]
                ),
            }
        )
    return {
        "name": str(comparison["algorithm"].values[row]),
        "color": drawing.COLORS[row],
        "panels": panels,
    }


def _outside(claim: DirectionClaim | None) -> dict[str, Any]:
    """What a direction shows on runs that did not find it."""
    if claim is None:
        return {"energy": None, "beyond": False, "rate": "", "difference": ""}
    known = np.isfinite(claim.estimate)
    return {
        "energy": [share(one) for one in claim.energy] if known else None,
        "difference": f"{claim.estimate:+.3f} (standard error {claim.standard_error:.3f})"
        if known
        else "",
        "rate": rate(claim.q),
        "beyond": claim.beyond,
    }


def _about(examples: Examples, members: NDArray[np.int64]) -> str:
    """The class that most of a subpopulation is of; empty where there are no labels."""
    there = members[members >= 0]
    if "label" not in examples.targets or not len(there):
        return ""
    common = np.bincount(np.asarray(examples.targets["label"].values)[there])
    name = examples.class_names[int(common.argmax())]
    return f"class {name}" if common.max() / common.sum() > 0.5 else ""


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
