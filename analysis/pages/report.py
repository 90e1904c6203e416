"""The report of a comparison of a study: one HTML page with everything inside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import xarray as xr

from dmstore.analysis.captions.kept import kept_captions
from dmstore.analysis.evaluation.curve_summary import kept_curve
from dmstore.analysis.evaluation.evaluate import figures
from dmstore.analysis.pages.bundle import check_out, files_of, put, stem_of, write
from dmstore.analysis.pages.commands import compare_command, fit_command, report_command
from dmstore.analysis.pages.kept_effects import kept_effects
from dmstore.analysis.pages.kept_removals import kept_removals
from dmstore.analysis.pages.page import render
from dmstore.analysis.pages.page_data import Subject
from dmstore.analysis.plot.fits import NEEDED
from dmstore.core.progress import Count, Progress, counting
from dmstore.errors import InputError
from dmstore.schema.documents import load_document
from dmstore.schema.typed_documents import ComparisonDocument
from dmstore.storage.objects.local import LocalObjects
from dmstore.storage.published.published import refuse_read_only
from dmstore.study import results
from dmstore.study.results import runs_of
from dmstore.study.study import Study, check_opened
from dmstore.upkeep.retraction import retracted_since, retracted_text

# Key of an algorithm's config: the column of train images that it really trained on.
IMAGES = "image_annotation"
# Steps of the progress, and those of the figures of either algorithm.
_STEPS, _CARDS = 100, 20


def report(
    study: Study,
    a: str,
    b: str,
    *,
    comparison: str | None = None,
    out: str | Path | None = None,
    progress: Progress | None = None,
) -> str:
    """Write the page of a comparison of two algorithms.

    Up to 15 MB everything is inside ``report.html``; a larger page has its pictures and datamodels in the folder
    ``report`` beside it. ``report.json`` and ``report.zarr.zip`` hold the data of the page.

    Parameters
    ----------
    study : Study
    a, b : str
        Compared algorithms, in either order.
    comparison : str, optional
        Its name; the newest by default.
    out : path, optional
        Where to write it in the place of the study: a folder, or a file that ends in ``.html`` or ``.zip``.
    progress : callable, optional
        Called with ``report``, steps done and steps in all.

    Returns
    -------
    str
        Path of ``report.html`` inside the comparison, or of what is at `out`.

    Raises
    ------
    NotFoundError
        If they have not been compared.
    InputError
        If `out` cannot be a page's, or an image annotation that an algorithm names cannot be used.
    ReadOnlyError
        If the study is a published copy and there is no `out`.
    MissingDependencyError
        Without the extra ``analysis``.
    """
    check_opened(study)
    place = None if out is None else check_out(out)
    if place is None:
        refuse_read_only(study.objects)
    shown = study.comparison(a, b, comparison).load()
    where = f"comparisons/{shown.attrs['comparison']}/"
    tell = counting(progress, "report")
    subject = _subject(study, shown, where, tell)
    stem = stem_of(place)

    def read(done: int, total: int) -> None:
        tell(_CARDS + done * (_STEPS - _CARDS) * 2 // (3 * total), _STEPS)

    files = files_of(render(shown, subject, read, folder=stem), shown, stem)
    if place is not None:
        written = str(write(place, files))
    else:
        objects = study.objects
        put(objects, where, files)
        written = (
            str(objects.path(f"{where}report.html"))
            if isinstance(objects, LocalObjects)
            else f"{objects.url}/{where}report.html"
        )
    tell(_STEPS, _STEPS)
    return written


def rests_on_retracted(study: Study, a: str, b: str, comparison: str | None = None) -> list[str]:
    """A line for each fit of a comparison, the newest by default, whose runs were retracted since."""
    document = results.newest_comparison(study.objects, a, b, comparison)
    return [
        f"{name}: {text}"
        for name, fit in zip(document["algorithms"], document["fits"], strict=True)
        for text in _retracted(study, name, fit)
    ]


def _retracted(study: Study, name: str, fit: str) -> list[str]:
    document = study.newest_fit(name, fit)
    count = retracted_since(study.algorithm(name), document)
    return [retracted_text(document["version"], count)] if count else []


def _subject(
    study: Study,
    comparison: xr.Dataset,
    where: str,
    tell: Count,
) -> Subject:
    names = [str(name) for name in comparison["algorithm"].values]
    document = load_document("comparison", study.objects.get(f"{where}comparison.json"), where)
    about = study.objects.children("about/")
    title = (
        load_document("about", study.objects.get(f"about/{about[-1]}"), "about").get("title")
        if about
        else None
    )
    cards = []
    for name, fit in zip(names, document["fits"], strict=True):
        cards.append(_card(study, name, fit))
        tell(len(cards) * _CARDS // 2, _STEPS)
    curves = {
        name: curve
        for name, fit in zip(names, document["fits"], strict=True)
        if (curve := kept_curve(study, name, fit))
    }
    return Subject(
        title=title or study.path.rstrip("/").rpartition("/")[2],
        examples=study,
        cards=cards,
        provenance=_provenance(study, document, names),
        effects=kept_effects(study, where),
        curves=curves,
        commands=_commands(study, document, names),
        removals=kept_removals(study, where),
        captions=kept_captions(study, where),
        fits={
            name: study.datamodels(name, fit)[list(NEEDED)].load()
            for name, fit in zip(names, document["fits"], strict=True)
        },
        weights=[
            study.datamodels(name, fit)["weight"]
            for name, fit in zip(names, document["fits"], strict=True)
        ],
        runs=[
            runs_of(study.newest_fit(name, fit))
            for name, fit in zip(names, document["fits"], strict=True)
        ],
        outputs=[
            _output(study, name, fit) for name, fit in zip(names, document["fits"], strict=True)
        ],
        images=[
            str(study.algorithm(name).document["config"].get(IMAGES, "image")) for name in names
        ],
    )


def _commands(study: Study, document: ComparisonDocument, names: list[str]) -> list[str]:
    """What makes the comparison again, in order; a page that is passed on does not tell where its study lay."""
    path = study.path.rstrip("/").rpartition("/")[2]
    made = []
    for name, fit in zip(names, document["fits"], strict=True):
        entry = study.newest_fit(name, fit)
        made.append(fit_command(path, name, entry["output"], entry["parameters"]))
    return [
        *made,
        compare_command(path, names, document["parameters"]),
        report_command(path, names, document["comparison"]),
    ]


def _output(study: Study, name: str, fit: str) -> str:
    """What the fitted output of an algorithm is, which way it points, and in which unit weights are."""
    output = study.newest_fit(name, fit)["output"]
    declared = study.algorithm(name).document["outputs"].get(output)
    if declared is None:
        return output
    said = f"{output}: {declared['function']}, in {declared['units']}"
    orientation = declared["orientation"]
    return said if orientation in ("", "none") else f"{said}; {orientation}"


def _card(study: Study, name: str, fit: str) -> dict[str, Any]:
    """What says whether to trust an algorithm's datamodels."""
    runs = study.newest_fit(name, fit)["runs"]
    rows = [("runs fitted on", str(runs["train"] + runs["holdout"]))]
    rows += [("retracted since", text) for text in _retracted(study, name, fit)]
    try:
        numbers = figures(study, name, fit=fit)
    except InputError as error:
        rows.append(("LDS", f"not known: {error}"))
    else:
        rows += [
            (
                f"LDS on {numbers['eval_runs']} eval runs",
                "not known: no target could be scored"
                if numbers["lds"] is None
                else f"{numbers['lds']:.2f} ({numbers['lds_low']:.2f} to {numbers['lds_high']:.2f})",
            ),
            *(
                [("noise ceiling of the LDS", f"{numbers['ceiling']:.2f}")]
                if numbers["ceiling"] is not None
                else []
            ),
            (
                "holdout R², median target",
                "none" if numbers["holdout_r2"] is None else f"{numbers['holdout_r2']:.2f}",
            ),
        ]
    return {"title": f"Can {name} be trusted?", "rows": rows}


def _provenance(
    study: Study, document: ComparisonDocument, names: list[str]
) -> list[tuple[str, str]]:
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
