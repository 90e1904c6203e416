"""ModelDiff from end to end: two fitted algorithms of a study to distinguishing subpopulations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Unpack

import xarray as xr

from dmstore import provenance
from dmstore.analysis.comparison.agreement import agreement
from dmstore.analysis.comparison.answer import answer, finite
from dmstore.analysis.comparison.measured import runs_to_measure, with_measured
from dmstore.analysis.comparison.modeldiff import modeldiff, stored_arrays
from dmstore.analysis.comparison.parameters import ComparisonOptions, ComparisonParameters
from dmstore.analysis.comparison.target_groups import target_groups
from dmstore.analysis.comparison.where import restriction, spread
from dmstore.core.given import threads_of
from dmstore.core.progress import Progress
from dmstore.errors import InputError
from dmstore.schema.documents import FORMAT_VERSION, dump_document
from dmstore.schema.group_specs import group_spec
from dmstore.schema.typed_documents import ComparisonDocument
from dmstore.storage.published.published import ReadOnly
from dmstore.storage.table import groups
from dmstore.study import results
from dmstore.study.study import Study, check_opened


def compare(
    study: Study,
    a: str,
    b: str,
    *,
    where: Sequence[str] = (),
    agree: bool = False,
    progress: Progress | None = None,
    memory: int | str | None = None,
    threads: int | None = None,
    **options: Unpack[ComparisonOptions],
) -> xr.Dataset:
    """Compare two algorithms of a study, and keep the result.

    Parameters
    ----------
    study : Study
    a, b : str
        Fitted algorithms.
    where : sequence of str
        Only targets that meet all of these: ``label=9``, ``type=mono`` (any column of the targets, as
        :func:`dmstore.study.selection.select` reads conditions), or a file with one target id a line.
    agree : bool
        Only targets for which most runs of both predict the same class (Appendix F.4); takes the output ``prediction``.
    progress : callable, optional
        Called with ``compare``, ``read``, ``propose`` and ``measure``, steps done and steps in all.
    memory : int or str, optional
        Bytes, or a size such as ``8GB``; most of what is free by default.
    threads : int, optional
        All cores by default.
    components : int
        Directions each way (10).
    top : int
        Targets in a subpopulation (16).
    heavy : int
        Heaviest train units to list for a direction (50).
    center : bool
        Whether PCA subtracts the mean residual (True).
    random_state : int
        Draws contrasts, and the sketch of train units where there are many (0).
    fdr : float
        False discovery rate at which a difference is called beyond chance (0.05).

    Returns
    -------
    xarray.Dataset
        As in ``comparison.group.json``: directions, projections, explained variance and Delta(u)
        each way, subpopulations and contrasts; where both fits have halves, what is beyond chance: ``difference``,
        ``q``, ``similarity`` and more (:func:`dmstore.analysis.comparison.answer.answer` reads the answer off). With `where`, targets
        that are left out are not ``included``, and the attributes ``where`` and ``targets`` say which there are. Of a published
        copy, which is read-only, the result is in memory alone, and the attribute ``kept`` is False.

    Raises
    ------
    InputError
        If A is B, they explain different outputs or targets, `where` or `agree` leaves fewer than two, there is no
        ``prediction`` to agree in, or more memory is needed.
    NotFoundError
        If one is not in the study or has no finished fit.

    References
    ----------
    ModelDiff, section 3 and Appendices A, D, F.1, F.2.
    """
    check_opened(study)
    if a == b:
        msg = f"comparing {a!r} with itself tells nothing; name two algorithms"
        raise InputError(msg)
    parameters = ComparisonParameters(**options)
    fits = [study.newest_fit(name) for name in (a, b)]
    for key, mine, theirs in (
        ("output", fits[0]["output"], fits[1]["output"]),
        ("target_set", fits[0]["target_set"], fits[1]["target_set"]),
    ):
        if mine != theirs:
            msg = f"{a!r} was fitted on {key} {mine!r}, {b!r} on {theirs!r}; fit both on the same"
            raise InputError(msg)
    target_set = fits[0]["target_set"]
    targets = study.target_set(target_set)
    chosen = restriction(where, targets, study.class_names)
    same = agreement(study, a, b, target_set) if agree else None
    if same:
        chosen = same.among(chosen)
    kept = asdict(parameters) | (chosen.stated if chosen else {})
    if same:
        # Which targets these are depends on the runs that there are.
        kept["agree"] = same.content_ids
    runs = runs_to_measure(study, (a, b), [fit["fit"] for fit in fits])
    stated = {
        "fits": [fit["fit"] for fit in fits],
        "parameters": kept,
        "study": study.uuid,
        "algorithms": [a, b],
        "format_version": FORMAT_VERSION,
        "measured": [one.content_id for one in runs],
    }
    if runs:
        # Annotations that came since make more groups of targets to measure.
        stated["groups"] = target_groups(targets, study.class_names).name
    name = results.name_of(stated)
    place = f"comparisons/{name}/"
    if not results.is_complete(study.objects, place):
        document: ComparisonDocument = {
            "comparison": name,
            "study": study.uuid,
            "algorithms": [a, b],
            "fits": [fit["fit"] for fit in fits],
            "content_ids": [fit["content_id"] for fit in fits],
            "parameters": kept,
            "created": provenance.utc_now(),
            "software": provenance.software(),
        }
        if runs:
            document["measured"] = [one.content_id for one in runs]
        data = [study.datamodels(x, fit["fit"]) for x, fit in zip((a, b), fits, strict=True)]
        label = study.label(target_set)
        if chosen:
            data = [one.isel(target=chosen.positions) for one in data]
            label = label[chosen.positions]
        result = modeldiff(
            data[0],
            data[1],
            names=(a, b),
            label=label,
            progress=progress,
            memory=memory,
            threads=threads,
            **options,
        )
        if runs:
            result = with_measured(
                result,
                study,
                runs,
                data,
                fits[0]["output"],
                target_set,
                chosen.positions if chosen else None,
                parameters,
                threads=threads_of(threads),
                memory=memory,
                progress=progress,
            )
        if chosen:
            result = spread(result, chosen, targets["target"])
        if isinstance(study.objects, ReadOnly):
            # Nothing can be kept there; the answer is what was asked for.
            about = {"comparison": name, "algorithms": [a, b], "fdr": parameters.fdr}
            return result.assign_coords(study.labels(target_set)).assign_attrs(about, kept=False)
        study.objects.put_if_absent(
            f"{place}comparison.json", dump_document("comparison", document)
        )
        said = answer(result.assign_attrs(fdr=parameters.fdr))
        summary = {"differs": said.differs, "detectable": finite(said.detectable)}
        with results.completing(
            study.objects, place, "comparison", lambda: summary if said.measured else {}
        ) as path:
            groups.write_directory(
                study.objects, path, group_spec("comparison"), stored_arrays(result)
            )
    return study.comparison(a, b, name)
