"""The report of a comparison: one HTML page with everything inside it."""

from __future__ import annotations

import base64
import importlib.resources
import io
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from dmstore import schema
from dmstore.analysis import plot
from dmstore.analysis.evaluate import evaluate
from dmstore.errors import InputError, MissingDependencyError
from dmstore.storage import groups, log
from dmstore.storage.objects import LocalObjects
from dmstore.study import Study

_SHOWN = 3
_HEAVY = 24
_THUMBNAIL = 96


def report(study: Study, a: str, b: str) -> str:
    """Write the report of the newest comparison of two algorithms.

    Parameters
    ----------
    study : Study
    a, b : str
        Compared algorithms, in either order.

    Returns
    -------
    str
        Path of ``report.html`` inside the comparison.

    Raises
    ------
    NotFoundError
        If they have not been compared.
    MissingDependencyError
        Without the extra ``analysis``.
    """
    try:
        import jinja2
    except ImportError as error:
        msg = "reports need jinja2; pip install 'dmstore[analysis]'"
        raise MissingDependencyError(msg) from error
    comparison = study.comparison(a, b).load()
    where = f"comparisons/{comparison.attrs['comparison']}/"
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    source = (
        importlib.resources.files("dmstore.analysis").joinpath("report.html").read_text("utf-8")
    )
    html = environment.from_string(source).render(**_context(study, comparison, where))
    objects = study.objects
    objects.delete(f"{where}report.html")
    objects.put_if_absent(f"{where}report.html", html.encode())
    return (
        str(objects.path(f"{where}report.html"))
        if isinstance(objects, LocalObjects)
        else f"{objects.url}/{where}report.html"
    )


def _context(study: Study, comparison: xr.Dataset, where: str) -> dict[str, Any]:
    names = [str(name) for name in comparison["algorithm"].values]
    document = schema.load_document(
        "comparison", study.objects.get(f"{where}comparison.json"), where
    )
    quality = [
        _quality(study, name, fit) for name, fit in zip(names, document["fits"], strict=True)
    ]
    effects = counterfactuals(study, where)
    sides = [_side(study, comparison, row) for row in range(2)]
    about = study.objects.children("about/")
    title = (
        schema.load_document("about", study.objects.get(f"about/{about[-1]}"), "about").get("title")
        if about
        else None
    )
    return {
        "title": title or study.path.rstrip("/").rpartition("/")[2],
        "names": names,
        "quality": quality,
        "sides": sides,
        "headline": _headline(comparison, names, sides, effects),
        "score": _score(comparison, names),
        "figures": {
            "directions": plot.svg(plot.directions(comparison)),
            "similarity": plot.svg(plot.similarity(comparison)),
        },
        "effects": [
            {
                **entry,
                "figure": plot.svg(plot.counterfactual(entry["result"], label=entry["class"])),
            }
            for entry in effects
        ],
        "excluded": int((~comparison["included"].values).sum()),
        "targets": comparison.sizes["target"],
        "train": comparison.sizes["train"],
        "provenance": _provenance(study, document, names),
        "colors": plot.COLORS,
        "has_out": "delta_out" in comparison,
        "software": log.software(),
    }


def _quality(study: Study, name: str, fit: str) -> dict[str, Any]:
    """What says whether to trust an algorithm's datamodels."""
    try:
        results = evaluate(study, name, fit=fit)
    except InputError as error:
        return {
            "name": name,
            "runs": study.newest_fit(name, fit)["runs"],
            "note": str(error),
            "lds": None,
        }
    return {"name": name, "runs": study.newest_fit(name, fit)["runs"], "note": "", **results}


def counterfactuals(study: Study, where: str) -> list[dict[str, Any]]:
    """Counterfactual checks kept beside a comparison."""
    found = []
    for child in study.objects.children(where):
        if child.startswith("counterfactual-") and child.endswith(".zarr.zip"):
            arrays = groups.read(study.objects, f"{where}{child}")
            dims = ("algorithm", "intensity")
            result = xr.Dataset(
                {k: (dims, arrays[k]) for k in ("effect", "effect_low", "effect_high")},
                coords={"algorithm": arrays["algorithm"], "intensity": arrays["intensity"]},
            )
            name, _, label = (
                child.removeprefix("counterfactual-").removesuffix(".zarr.zip").partition("-on-")
            )
            number = int(label) if label.isdigit() and int(label) < len(study.class_names) else None
            found.append(
                {
                    "name": name.replace("_", " "),
                    "class": study.class_names[number] if number is not None else label,
                    "result": result,
                    "rows": [
                        {
                            "algorithm": str(a),
                            "effect": float(result["effect"][i, -1]) * 100,
                            "low": float(result["effect_low"][i, -1]) * 100,
                            "high": float(result["effect_high"][i, -1]) * 100,
                        }
                        for i, a in enumerate(result["algorithm"].values)
                    ],
                }
            )
    return found


def _score(comparison: xr.Dataset, names: list[str]) -> dict[str, Any]:
    """Mean cosine similarity between the algorithms, and that of each with itself."""
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
        f"{own} relies on training examples that {other} relies on less: direction {panel['code']}, about "
        f"class {panel['about']}, explains {explained[own]:.2f} % of {own}'s datamodels and "
        f"{explained[other]:.2f} % of {other}'s (out of sample the gap is {panel['delta_out']:+.2f} points, "
        f"chance alone reaches {panel['delta_null']:.2f})."
    )


def _headline(
    comparison: xr.Dataset,
    names: list[str],
    sides: list[dict[str, Any]],
    effects: list[dict[str, Any]],
) -> str:
    sentences = [_sentence(side, names) for side in sides]
    found = [sentence for sentence in sentences if sentence]
    if found:
        text = " ".join(found)
    elif "delta_out" in comparison:
        text = (
            f"With this many runs, no direction was found again in which {names[0]} and {names[1]} differ by "
            f"more than chance; more runs may show one."
        )
    else:
        text = f"{names[0]} and {names[1]} were compared in sample only: their fits have no parts to check with."
    score = _score(comparison, names)
    if score["ceiling"]:
        own = " and ".join(
            f"{name} with itself at {value:.2f}" for name, value in score["ceiling"].items()
        )
        text += (
            f" Over all targets their datamodels agree with a mean cosine similarity of {score['between']:.2f}; "
            f"{own}."
        )
    if effects:
        rows = effects[0]["rows"]
        text += f" Adding the {effects[0]['name']} changes P({effects[0]['class']}) by "
        text += (
            " and by ".join(f"{r['effect']:+.1f} points under {r['algorithm']}" for r in rows) + "."
        )
    return text


def _side(study: Study, comparison: xr.Dataset, row: int) -> dict[str, Any]:
    label = study.label()
    panels = []
    for component in range(min(_SHOWN, comparison.sizes["component"])):
        one = comparison.isel(algorithm=row, component=component)
        ends = []
        for end, title in enumerate(("top", "bottom")):
            members, random = one["subpopulation"].values[end], one["contrast"].values[end]
            ends.append(
                {
                    "title": title,
                    "members": _pictures(study, "target", members),
                    "random": _pictures(study, "target", random),
                }
            )
        heavy = one["heaviest"].values[:_HEAVY]
        members = one["subpopulation"].values[0]
        common = np.bincount(label[members[members >= 0]]) if (members >= 0).any() else np.zeros(1)
        share = common.max() / max(common.sum(), 1)
        labelled = "label" in study.targets
        about = study.class_names[int(common.argmax())] if labelled else "targets without labels"
        panels.append(
            {
                "number": component + 1,
                "code": f"{'AB'[row]}{component + 1}",
                "ends": ends,
                "about": about if share > 0.5 else f"{about} among others",
                "explained": (one["explained_variance"].values * 100).tolist(),
                "delta": float(one["delta"]) * 100,
                **_outside(one),
                "heavy": _pictures(study, "train", heavy, one["direction"].values[heavy]),
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


def _pictures(
    study: Study, kind: str, positions: NDArray[np.int64], weights: NDArray[Any] | None = None
) -> list[dict[str, Any]]:
    """Thumbnails (where the study has images), ids, classes, and signs of weights."""
    examples = study.train if kind == "train" else study.targets
    valid = positions[positions >= 0]
    images = (
        examples["image"].isel({kind: valid}).values if "image" in examples and len(valid) else None
    )
    found = []
    for place, position in enumerate(valid):
        weight = float(weights[place]) if weights is not None else None
        found.append(
            {
                "id": str(examples[kind].values[position]),
                "class": study.class_names[int(examples["label"].values[position])]
                if "label" in examples
                else "",
                "weight": weight,
                "image": thumbnail(images[place]) if images is not None else None,
            }
        )
    return found


def thumbnail(image: NDArray[np.uint8]) -> str:
    """A PNG of an image as a data URI, scaled down to 96 pixels if it is larger."""
    from PIL import Image

    picture = Image.fromarray(image[..., 0] if image.ndim == 3 and image.shape[2] == 1 else image)
    if max(picture.size) > _THUMBNAIL:
        picture.thumbnail((_THUMBNAIL, _THUMBNAIL))
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _provenance(study: Study, document: dict[str, Any], names: list[str]) -> list[tuple[str, str]]:
    rows = [
        ("study", study.uuid),
        ("comparison", document["comparison"]),
        ("parameters", ", ".join(f"{k} {v}" for k, v in document["parameters"].items())),
    ]
    for name, fit in zip(names, document["fits"], strict=True):
        entry = study.newest_fit(name, fit)
        declared = study.algorithm(name).document
        rows += [
            (f"{name}: task", f"{declared['task']} {declared['config'] or ''}".strip()),
            (
                f"{name}: sampling",
                f"{declared['sampling']}, alpha {declared['alpha']}, masks {declared['masks']}",
            ),
            (f"{name}: snapshot", f"version {entry['version']}, content id {entry['content_id']}"),
            (
                f"{name}: fit",
                f"{fit}, output {entry['output']}; "
                + ", ".join(f"{k} {v}" for k, v in entry["parameters"].items()),
            ),
            (f"{name}: software", entry.get("software", "not recorded")),
        ]
    return rows
