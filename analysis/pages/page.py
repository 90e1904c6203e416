"""The page that shows a comparison: labelled data in, HTML and its files out, nothing read or written."""

from __future__ import annotations

import base64
import importlib.resources
import json
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from urllib.parse import quote

import numpy as np
import xarray as xr

from dmstore import provenance
from dmstore.analysis import plot
from dmstore.analysis.comparison.answer import answer
from dmstore.analysis.comparison.sentences import interval
from dmstore.analysis.comparison.where import left_out
from dmstore.analysis.pages.headline import headline
from dmstore.analysis.pages.page_data import (
    PageData,
    Subject,
    about_directions,
    numbers,
    page_data,
)
from dmstore.analysis.pages.sheets import Sheets
from dmstore.analysis.pages.svg import inline
from dmstore.analysis.pages.units import drawn, layout
from dmstore.errors import MissingDependencyError

# One file up to this size; beyond, what is large lies beside it.
LARGEST = 15_000_000
# Targets whose datamodels lie in one file.
_CHUNK = 512


@dataclass(frozen=True)
class Page:
    """A page, ready to be written.

    Attributes
    ----------
    html : str
        ``report.html``.
    files : dict
        Name to content of what must lie in a folder beside it; empty where everything is inside.
    json : str
        The data of the page, without pictures.
    made : PageData
    """

    html: str
    files: dict[str, bytes] = field(default_factory=dict)
    json: str = ""
    made: PageData | None = None


def render(
    comparison: xr.Dataset,
    subject: Subject,
    tell: Any = None,
    *,
    largest: int = LARGEST,
    folder: str = "report",
) -> Page:
    """Make the page.

    Parameters
    ----------
    comparison : Dataset
        From :func:`dmstore.analysis.modeldiff`, in memory.
    subject : Subject
    tell : callable, optional
        Called with targets done and targets in all.
    largest : int
        Bytes up to which everything is in one file.
    folder : str
        What the folder beside a larger page is called.

    Returns
    -------
    Page

    Raises
    ------
    InputError
        If an image annotation that an algorithm names cannot be used.
    MissingDependencyError
        Without the extra ``analysis``.
    """
    try:
        import jinja2
    except ImportError as error:
        msg = "reports need jinja2; pip install 'dmstore[analysis]'"
        raise MissingDependencyError(msg) from error
    made = page_data(comparison, subject, tell)
    drawings = _drawings(subject, made)
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(_asset("page.html"))
    context = _context(comparison, subject, made) | {
        "css": _asset("page.css"),
        "script": _asset("page.js"),
    }
    rows = _rows(made)
    whole = json.dumps(
        made.data | {"influences": {"first": 0, "rows": rows}}, ensure_ascii=False, allow_nan=False
    )
    # Pictures become base64.
    size = sum(len(f) * 4 // 3 for one in drawings.values() for f in one.files) + len(whole)
    files: dict[str, bytes] = {}
    data = dict(made.data)
    if size <= largest:
        urls = {key: [_uri(one, file) for file in one.files] for key, one in drawings.items()}
        data["influences"] = {"first": 0, "rows": rows}
    else:
        urls = {key: _placed(key, one, files, folder) for key, one in drawings.items()}
        data["influences"] = _chunked(rows, files, folder)
    data["figures"] = {
        one["name"]: one["table"]
        for part in ("shown", "curves", "fits", "effects")
        for one in context[part]
    }
    data["sheets"] = {key: layout(one, urls[key]) for key, one in drawings.items()}
    if subject.images[1] != subject.images[0]:
        # Said, so that the second algorithm is not shown what the first one saw.
        data["sheets"].setdefault("train1", None)
    html = template.render(**context, data=_script_json(data))
    return Page(html, files, whole, made)


def _asset(name: str) -> str:
    return importlib.resources.files("dmstore.analysis.pages").joinpath(name).read_text("utf-8")


def _script_json(data: Any) -> str:
    """JSON that cannot end the element that it stands in, whatever names hold."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for char in "<>&\u2028\u2029":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return text


def _drawings(subject: Subject, made: PageData) -> dict[str, Sheets]:
    """Thumbnails: ``target``, and of train units ``train0`` and, where the second algorithm saw others, ``train1``."""
    examples = subject.examples
    every = np.arange(len(made.data["target"]["ids"]))
    wanted = {"target": (examples.targets, "target", every, "image")}
    for row, column in enumerate(subject.images):
        if row == 0 or column != subject.images[0]:
            wanted[f"train{row}"] = (examples.train, "train", made.shown, column)
    found = {key: drawn(*of) for key, of in wanted.items()}
    return {key: one for key, one in found.items() if one is not None and one.files}


def _uri(one: Sheets, file: bytes) -> str:
    return f"data:{one.mime};base64,{base64.b64encode(file).decode()}"


def _placed(key: str, one: Sheets, files: dict[str, bytes], folder: str) -> list[str]:
    """Put sheets beside the page."""
    names = [f"{key}-{number:04d}.{one.kind}" for number in range(len(one.files))]
    files |= dict(zip(names, one.files, strict=True))
    return [f"{quote(folder)}/{name}" for name in names]


def _rows(made: PageData) -> list[Any] | None:
    """Datamodels of the targets: by algorithm, by target, pairs of train unit and weight in one flat list."""
    if made.influences is None:
        return None
    return [
        [
            [v for u, w in zip(us, numbers(ws), strict=True) if u >= 0 for v in (u, w)]
            for us, ws in zip(units.tolist(), weights, strict=True)
        ]
        for units, weights in zip(made.influences.unit, made.influences.weight, strict=True)
    ]


def _chunked(rows: list[Any] | None, files: dict[str, bytes], folder: str) -> dict[str, Any]:
    """Datamodels in scripts beside the page: a page that is opened from disk may load scripts, and no other data."""
    if rows is None:
        return {"first": 0, "rows": None}
    urls = []
    for start in range(0, len(rows[0]), _CHUNK):
        name = f"targets-{start // _CHUNK:04d}.js"
        part = {"first": start, "rows": [one[start : start + _CHUNK] for one in rows]}
        files[name] = f"dmstoreChunk({_script_json(part)});\n".encode()
        urls.append(f"{quote(folder)}/{name}")
    return {"first": 0, "rows": None, "per": _CHUNK, "urls": urls}


def _context(comparison: xr.Dataset, subject: Subject, made: PageData) -> dict[str, Any]:
    names = made.data["names"]
    groups = made.data["groups"]
    return {
        "title": subject.title,
        "names": names,
        "cards": subject.cards,
        "headline": headline(
            comparison,
            names,
            about_directions(made.data["directions"]),
            subject.effects,
            scores_only=subject.scores_only,
            runs=subject.runs,
        ),
        "doubts": subject.doubts,
        "score": score(comparison),
        "groups": groups,
        "shown": [_figure(*entry) for entry in _figures(comparison, subject)],
        "curves": [_figure(*entry) for entry in _curves(subject.curves)],
        "fits": [_figure(*entry) for entry in _fits(subject.fits)],
        "effects": [_effect(entry, n) for n, entry in enumerate(subject.effects, start=1)],
        "removals": subject.removals,
        "excluded": left_out(comparison),
        "targets": comparison.sizes["target"],
        "train": comparison.sizes["train"],
        "provenance": subject.provenance,
        "commands": subject.commands,
        "measured": "q" in comparison,
        "has_labels": made.data["target"]["labels"] is not None,
        "has_captions": bool(subject.captions),
        "outputs": subject.outputs,
        "scores_only": subject.scores_only,
        "software": provenance.software(),
    }


def _figure(name: str, draw: Any, caption: str) -> dict[str, str]:
    svg, table = inline(draw)
    return {"name": name, "svg": svg, "caption": caption, "table": table}


def _figures(comparison: xr.Dataset, subject: Subject) -> list[tuple[str, Any, str]]:
    a, b = (str(name) for name in comparison["algorithm"].values)
    taken = ", with noise taken out; errors can carry it beyond 1" if "q" in comparison else ""
    return [
        (
            "directions",
            partial(plot.directions, comparison),
            f"Each point is a weighted combination of training examples. Far below the dashed line: {a} relies on it more "
            f"than {b}; far above: the reverse. Numbers rank the directions of either side.",
        ),
        (
            "similarity",
            partial(plot.similarity, comparison),
            f"Similarity of the two datamodels of each target{taken}.",
        ),
    ]


def _curves(curves: dict[str, dict[str, Any]]) -> list[tuple[str, Any, str]]:
    """Figures of learning curves; those kept by an earlier version do not have all of them."""
    if not curves:
        return []
    made: list[tuple[str, Any, str]] = [
        (
            "learning-curve",
            partial(plot.learning_curve, curves),
            "Datamodels fitted on growing numbers of runs, on a sample of targets, judged by runs that nothing was fitted "
            "on; bands are 95 % intervals over masks. Where a line still rises, more runs help.",
        ),
        (
            "sample-size",
            partial(plot.sample_size, curves),
            "Similarity of the same targets' datamodels with those from all runs. The larger samples hold the smaller ones.",
        ),
    ]
    if all("explained" in step for curve in curves.values() for step in curve["steps"]):
        made += [
            (
                f"explained-by-{which}",
                partial(plot.explained_by_samples, curves, step),
                "How much of the variance of datamodels from each number of runs lies along the principal components of "
                f"those from {which} runs. Where lines lie together, fewer runs would find the same directions.",
            )
            for step, which in ((0, "the fewest"), (-1, "all"))
        ]
    return made


def _fits(fits: dict[str, xr.Dataset]) -> list[tuple[str, Any, str]]:
    if not fits:
        return []
    return [
        (
            "holdout-error",
            partial(plot.holdout_curves, fits),
            "Error on the runs that choose lam, over that of predicting the mean, as lam falls from the smallest value that "
            "leaves no weight: median and quartiles of the targets, and a few of them. The lowest point chooses lam; a target "
            "that left the path counts with its last error. Where the median still falls at its end, a smaller last lam would "
            "fit better.",
        ),
        (
            "sparsity",
            partial(plot.sparsity, fits),
            "Training examples with any weight, of each target.",
        ),
        (
            "holdout-r2",
            partial(plot.holdout_r2, fits),
            "Share of the variance over those runs that the best lam explains. It chose lam, and so is slightly too high.",
        ),
    ]


def _effect(entry: dict[str, Any], number: int) -> dict[str, Any]:
    full = "; ".join(
        f"{row['algorithm']} {_signed(row['effect'])}{entry['unit']} "
        + (
            f"({_signed(row['low'])} to {_signed(row['high'])})"
            if np.isfinite(row["low"])
            else "(no interval: one model)"
        )
        for row in entry["rows"]
    )
    # A check of several classes is several figures, each with data of its own.
    return _figure(
        f"effect-{number}-of-{entry['name']}".replace(" ", "-"),
        partial(plot.effect, entry["result"], label=entry["class"]),
        f"Effect of {entry['name']} on the {entry['what']}, over models trained on all data; bands are 95 % intervals "
        f"clustered by model and example. At full intensity: {full}.",
    )


def _signed(value: float) -> str:
    return f"{value:+.1f}" if abs(value) >= 0.05 else "0.0"


def score(comparison: xr.Dataset) -> dict[str, Any]:
    """Similarity over all targets without noise, where it was measured, and the mean cosine of the fits."""
    said = answer(comparison)
    return {
        "full": float(np.nanmean(comparison["cosine"].values)) + 0.0,
        "similarity": interval(said.similarity) if said.similarity else "",
    }
