"""The report of a comparison of a study: one HTML page with everything inside it."""

from __future__ import annotations

from typing import Any

import xarray as xr

from dmstore.analysis.evaluation.curve_summary import kept_curve
from dmstore.analysis.evaluation.evaluate import figures
from dmstore.analysis.pages.kept_effects import kept_effects
from dmstore.analysis.pages.page import Subject, render
from dmstore.analysis.plot.fits import NEEDED
from dmstore.core.progress import Count, Progress, counting
from dmstore.errors import InputError
from dmstore.schema.documents import load_document
from dmstore.schema.typed_documents import ComparisonDocument
from dmstore.storage.objects.local import LocalObjects
from dmstore.storage.published.published import refuse_read_only
from dmstore.study import results
from dmstore.study.study import Study, check_opened
from dmstore.upkeep.retraction import retracted_since, retracted_text


def report(
    study: Study,
    a: str,
    b: str,
    *,
    comparison: str | None = None,
    progress: Progress | None = None,
) -> str:
    """Write the report of a comparison of two algorithms.

    Parameters
    ----------
    study : Study
    a, b : str
        Compared algorithms, in either order.
    comparison : str, optional
        Its name; the newest by default.
    progress : callable, optional
        Called with ``report``, steps done and steps in all.

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
    check_opened(study)
    refuse_read_only(study.objects)
    shown = study.comparison(a, b, comparison).load()
    where = f"comparisons/{shown.attrs['comparison']}/"
    tell = counting(progress, "report")
    subject = _subject(study, shown, where, tell)
    html = render(shown, subject)
    tell(3, 3)
    objects = study.objects
    objects.replace(f"{where}report.html", html.encode())
    return (
        str(objects.path(f"{where}report.html"))
        if isinstance(objects, LocalObjects)
        else f"{objects.url}/{where}report.html"
    )


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
        tell(len(cards), 3)
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
        fits={
            name: study.datamodels(name, fit)[list(NEEDED)].load()
            for name, fit in zip(names, document["fits"], strict=True)
        },
    )


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
