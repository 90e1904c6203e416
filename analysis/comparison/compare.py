"""ModelDiff from end to end: two fitted algorithms of a study to distinguishing subpopulations."""

from __future__ import annotations

from dataclasses import asdict
from typing import Unpack

import xarray as xr

from dmstore import provenance
from dmstore.analysis.comparison.differences import differences
from dmstore.analysis.comparison.modeldiff import modeldiff, rank, stored_arrays
from dmstore.analysis.comparison.parameters import ComparisonOptions, ComparisonParameters
from dmstore.analysis.comparison.target_groups import target_groups
from dmstore.analysis.experiment.reading import pin, read_arms
from dmstore.analysis.geometry.rows import sparse_rows
from dmstore.core.progress import Progress, counting
from dmstore.core.threads import cores
from dmstore.errors import InputError
from dmstore.schema.documents import FORMAT_VERSION, dump_document
from dmstore.schema.group_specs import group_spec
from dmstore.schema.typed_documents import ComparisonDocument
from dmstore.storage.table import groups
from dmstore.study import results
from dmstore.study.results import ListedFit
from dmstore.study.study import Study, check_opened


def compare(
    study: Study,
    a: str,
    b: str,
    *,
    progress: Progress | None = None,
    **options: Unpack[ComparisonOptions],
) -> xr.Dataset:
    """Compare two algorithms of a study, and keep the result.

    Parameters
    ----------
    study : Study
    a, b : str
        Fitted algorithms.
    progress : callable, optional
        Called with ``compare``, steps done and steps in all.
    components : int
        Directions each way (10).
    top : int
        Targets in a subpopulation (16).
    heavy : int
        Heaviest train units to list for a direction (50).
    center : bool
        Whether PCA subtracts the mean residual (True).
    random_state : int
        Draws contrasts (0).

    Returns
    -------
    xarray.Dataset
        As in ``comparison.group.json``: directions, projections, explained variance and Delta(u)
        each way, cosine similarities with their ceiling, subpopulations and contrasts.

    Raises
    ------
    InputError
        If A is B, or they explain different outputs or targets.
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
    measured = [pin(study, name) for name in (a, b)] if _measurable(study, (a, b), fits) else []
    stated = {
        "fits": [fit["fit"] for fit in fits],
        "parameters": asdict(parameters),
        "study": study.uuid,
        "algorithms": [a, b],
        "format_version": FORMAT_VERSION,
        "measured": [one.content_id for one in measured],
    }
    name = results.name_of(stated)
    where = f"comparisons/{name}/"
    if not results.is_complete(study.objects, where):
        document: ComparisonDocument = {
            "comparison": name,
            "study": study.uuid,
            "algorithms": [a, b],
            "fits": [fit["fit"] for fit in fits],
            "content_ids": [fit["content_id"] for fit in fits],
            "parameters": asdict(parameters),
            "created": provenance.utc_now(),
            "software": provenance.software(),
        }
        if measured:
            document["measured"] = [one.content_id for one in measured]
        study.objects.put_if_absent(
            f"{where}comparison.json", dump_document("comparison", document)
        )
        data = [study.datamodels(name, fit["fit"]) for name, fit in zip((a, b), fits, strict=True)]
        result = modeldiff(
            data[0],
            data[1],
            names=(a, b),
            label=study.label(),
            progress=progress,
            **options,
        )
        if measured:
            output = fits[0]["output"]
            counted = counting(progress, "read")
            arms = read_arms(study, tuple(measured), output, threads=cores(), progress=counted)
            halves = [
                [sparse_rows(one["weight_half"].isel(half=h)) for h in (0, 1)] for one in data
            ]
            made = differences(
                (arms[0], arms[1]),
                (halves[0], halves[1]),
                result["projection"].values,
                rank(result),
                target_groups(study.target_set(fits[0]["target_set"]), study.class_names),
                parameters,
                threads=cores(),
                progress=counting(progress, "measure"),
            )
            spec = group_spec("comparison").arrays
            result = result.assign({key: (spec[key].dims, value) for key, value in made.items()})
        with results.completing(study.objects, where, "comparison") as path:
            groups.write_directory(
                study.objects, path, group_spec("comparison"), stored_arrays(result)
            )
    return study.comparison(a, b, name)


def _measurable(study: Study, names: tuple[str, str], fits: list[ListedFit]) -> bool:
    """Whether both fits have halves, so that what one half of the runs proposes can be measured on the other."""
    return all(
        "weight_half" in study.datamodels(name, fit["fit"])
        for name, fit in zip(names, fits, strict=True)
    )
