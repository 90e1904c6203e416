"""What explains the directions of a kept comparison, as one dataset."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from dmstore.analysis.explaining.explanation import Explanation
from dmstore.analysis.explaining.lines import best
from dmstore.analysis.explaining.scores import explanations
from dmstore.errors import InputError
from dmstore.study.study import Study, check_opened

if TYPE_CHECKING:
    import xarray as xr


def explain(
    study: Study, a: str, b: str, comparison: str | None = None, *, fdr: float = 0.05
) -> xr.Dataset:
    """What explains the directions of a comparison: every annotation of targets and train units, scored.

    Parameters
    ----------
    study : Study
    a, b : str
        Compared algorithms, in either order.
    comparison : str, optional
        Its name; the newest by default.
    fdr : float
        False discovery rate at which ``beyond_chance`` is told and ``line`` names anything.

    Returns
    -------
    xarray.Dataset
        Dim ``explanation``, those of one direction together, best first: ``algorithm``, ``component`` (from 1),
        ``of`` (targets, all, within classes, or of the one class ``within``; heaviest train units, all or within classes),
        ``annotation``, ``value`` (empty for a
        number), ``measure`` (``auroc`` of a value; ``spearman`` of a number; ``share`` of the heaviest train units),
        ``score``, ``expected`` by chance, ``explained`` (share of the variance of the projections of these targets; NaN of train units), ``p``, ``q`` (Benjamini-Hochberg over all directions and annotations, each kind of `of` having an equal share) and ``beyond_chance``. And
        ``line`` (algorithm, component): in words, what accounts for most of the direction; empty where nothing is beyond chance.

    Raises
    ------
    InputError
        If `fdr` is no share.
    NotFoundError
        If the two have not been compared.
    """
    check_opened(study)
    if not (isinstance(fdr, int | float) and 0 < fdr < 1):
        msg = f"fdr {fdr!r}: give a number between 0 and 1"
        raise InputError(msg)
    data = study.comparison(a, b, comparison).load()
    found = explanations(data, study, fdr=fdr)
    said = [[one["line"] for one in row] for row in best(data, study, found=found, fdr=fdr)]
    return _labelled(data, found, said, fdr)


def _labelled(
    comparison: xr.Dataset, found: list[Explanation], said: list[list[str]], fdr: float
) -> xr.Dataset:
    """Explanations as one dataset; see :func:`explain`."""
    import xarray as xr

    names = [str(name) for name in comparison["algorithm"].values]
    columns: dict[str, list[Any]] = {
        "of_algorithm": [names[one.row] for one in found],
        "component": [one.component + 1 for one in found],
        **{
            key: [getattr(one, key) for one in found]
            for key in (
                "of",
                "within",
                "annotation",
                "value",
                "measure",
                "score",
                "expected",
                "explained",
                "p",
                "q",
            )
        },
        "beyond_chance": [one.q <= fdr for one in found],
    }
    number = {
        "score": float,
        "expected": float,
        "explained": float,
        "p": float,
        "q": float,
        "component": int,
        "beyond_chance": bool,
    }
    arrays: dict[str, Any] = {
        key: ("explanation", np.array(values, dtype=number.get(key, str)))
        for key, values in columns.items()
    }
    width = max(map(len, said), default=0)
    text = np.array([row + [""] * (width - len(row)) for row in said], dtype=str)
    return xr.Dataset(
        {**arrays, "line": (("algorithm", "direction"), text)},
        coords={"algorithm": names, "direction": np.arange(1, width + 1)},
        attrs={"fdr": float(fdr), "comparison": comparison.attrs.get("comparison", "")},
    )
