"""What explains a direction: which annotations of targets and of train units go with it, and how surely."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dmstore.analysis.comparison.annotations import FEWEST, Annotation, annotated
from dmstore.analysis.comparison.association import Association, auroc, enrichment, spearman
from dmstore.analysis.experiment.inference import discovery_rates
from dmstore.errors import InputError
from dmstore.study.study import Study, check_opened

if TYPE_CHECKING:
    import xarray as xr

TARGETS, WITHIN, ONE_CLASS = "targets", "targets within classes", "targets of one class"
HEAVY, HEAVY_WITHIN = "heaviest train units", "heaviest train units within classes"
# By how much an AUROC may be below the best one, where it says of which class the targets are.
_NEARLY = 0.01
# Pairs of a class and a value that are looked at for the line, the strongest within the class.
_PAIRS = 20


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
class Explanation:
    """One annotation, or a value of it, on one direction.

    Attributes
    ----------
    row, component : int
        Algorithm and direction, counted from 0.
    of : str
        ``targets``, ``targets within classes``, ``targets of one class``; ``heaviest train units``, and these within
        classes.
    annotation, value : str
        The value is empty where the annotation is a number.
    measure : str
        ``auroc``, ``spearman`` or ``share``.
    score : float
        AUROC and correlation of the projections of targets; of train units the share among the heaviest.
    expected : float
        What chance gives.
    p, q : float
    within : str
        The class, of ``targets of one class``.
    """

    row: int
    component: int
    of: str
    annotation: str
    value: str
    measure: str
    score: float
    expected: float
    p: float
    q: float = float("nan")
    within: str = ""

    @property
    def strength(self) -> float:
        """From 0, what chance gives, to 1."""
        if self.measure == "auroc":
            return abs(2 * self.score - 1)
        if self.measure == "spearman":
            return abs(self.score)
        return max(0.0, self.score - self.expected)


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
        ``score``, ``expected`` by chance, ``p``, ``q`` (Benjamini-Hochberg over all directions and annotations, each kind of `of` having an equal share) and ``beyond_chance``. And
        ``line`` (algorithm, component): the best of it in words, empty where nothing is beyond chance.

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
                "p",
                "q",
            )
        },
        "beyond_chance": [one.q <= fdr for one in found],
    }
    number = {
        "score": float,
        "expected": float,
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


def explanations(
    comparison: xr.Dataset, examples: Examples, *, fdr: float = 0.05
) -> list[Explanation]:
    """Every annotation on every direction that is more than rounding, those of one direction best first.

    Parameters
    ----------
    comparison : xarray.Dataset
        In memory.
    examples : Examples
    fdr : float
        What is beyond it comes last.
    """
    found = [*_of_targets(comparison, examples), *_of_train(comparison, examples)]
    if not found:
        return []
    # Many classes must not make it harder for what is looked at over all of them.
    kinds = [[one for one in found if one.of == of] for of in dict.fromkeys(o.of for o in found)]
    rates = discovery_rates([np.array([one.p for one in kind]) for kind in kinds])
    made = [
        replace(one, q=float(q))
        for kind, own in zip(kinds, rates, strict=True)
        for one, q in zip(kind, own, strict=True)
    ]
    return sorted(made, key=lambda one: (one.row, one.component, one.q > fdr, -one.strength))


def _counted(comparison: xr.Dataset) -> list[int]:
    """Directions of either algorithm that are more than rounding."""
    return [int(count) for count in (comparison["residual_variance"].values > 0).sum(axis=1)]


def _strata(
    known: list[Annotation], label: NDArray[np.int64] | None, count: int
) -> NDArray[np.int64] | None:
    """Classes to look within, where there are several."""
    if label is None or len(label) != count or len(np.unique(label)) < 2:
        return None
    return label if any(one.name != "label" for one in known) else None


def _label(data: xr.Dataset) -> NDArray[np.int64] | None:
    return np.asarray(data["label"].values, dtype=np.int64) if "label" in data else None


def _of_targets(comparison: xr.Dataset, examples: Examples) -> list[Explanation]:
    known = annotated(examples.targets, examples.class_names)
    projection = comparison["projection"].values
    there = np.isfinite(projection).all(axis=(0, 1))
    places = [(row, k) for row, count in enumerate(_counted(comparison)) for k in range(count)]
    if not places or examples.targets.sizes.get("target") != len(there):
        return []
    rows = np.array([projection[row, k] for row, k in places], dtype=np.float64)
    classes = _strata(known, _label(examples.targets), len(there))
    made: list[Explanation] = []
    for one in known:
        for of, strata in ((TARGETS, np.zeros(len(there), dtype=np.int64)), (WITHIN, classes)):
            if strata is None or (of == WITHIN and one.name == "label"):
                continue
            used = there & one.known
            for column, value in enumerate(one.values):
                kept = used & _mixed(one.member[:, column], strata, used)
                inside = one.member[kept, column]
                if min(inside.sum(), (~inside).sum()) >= FEWEST:
                    score = auroc(rows[:, kept], inside[:, None], strata[kept])
                    made += _listed(places, score, of, one.name, value, "auroc", 0.5)
            if one.number is not None and used.sum() > 2 * FEWEST:
                score = spearman(rows[:, used], one.number[used], strata[used])
                made += _listed(places, score, of, one.number_name, "", "spearman", 0.0)
        if classes is not None and one.name != "label":
            for value in np.unique(classes[there]):
                made += _of_one_class(
                    places,
                    rows,
                    there & one.known & (classes == value),
                    one,
                    examples.class_names[int(value)],
                )
    return made


def _of_one_class(
    places: list[tuple[int, int]],
    rows: NDArray[np.float64],
    used: NDArray[np.bool_],
    one: Annotation,
    label: str,
) -> list[Explanation]:
    """Values of an annotation among the targets of a class."""
    member = one.member[used]
    counts = member.sum(axis=0)
    kept = np.flatnonzero((counts >= FEWEST) & (len(member) - counts >= FEWEST))
    if not len(kept):
        return []
    score = auroc(rows[:, used], member[:, kept], np.zeros(len(member), dtype=np.int64))
    return [
        replace(found, within=label)
        for place, column in enumerate(kept.tolist())
        for found in _listed(
            places,
            Association(score.score[:, place, None], score.p[:, place, None]),
            *(ONE_CLASS, one.name, one.values[column], "auroc", 0.5),
        )
    ]


def _mixed(
    member: NDArray[np.bool_], strata: NDArray[np.int64], used: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Examples of strata that have members and others: the rest has nothing to compare."""
    inside = np.isin(strata, strata[used & member])
    return inside & np.isin(strata, strata[used & ~member])


def _listed(
    places: list[tuple[int, int]],
    score: Association,
    of: str,
    name: str,
    value: str,
    measure: str,
    chance: float,
) -> list[Explanation]:
    return [
        Explanation(row, k, of, name, value, measure, float(s), chance, float(p))
        for (row, k), s, p in zip(places, score.score[:, 0], score.p[:, 0], strict=True)
        if np.isfinite(s)
    ]


def _of_train(comparison: xr.Dataset, examples: Examples) -> list[Explanation]:
    known = annotated(examples.train, examples.class_names)
    count = comparison.sizes["train"]
    if examples.train.sizes.get("train") != count:
        return []
    heaviest = comparison["heaviest"].values
    classes = _strata(known, _label(examples.train), count)
    made: list[Explanation] = []
    for row, k in ((r, k) for r, most in enumerate(_counted(comparison)) for k in range(most)):
        chosen = np.zeros(count, dtype=bool)
        chosen[heaviest[row, k][heaviest[row, k] >= 0]] = True
        if chosen.all():
            continue
        for one in known:
            used = one.known
            for of, strata in ((HEAVY, np.zeros(count, dtype=np.int64)), (HEAVY_WITHIN, classes)):
                if strata is None or (of == HEAVY_WITHIN and one.name == "label"):
                    continue
                share = enrichment(one.member[used], chosen[used], strata[used])
                made += [
                    Explanation(row, k, of, one.name, value, "share", s, e, p)
                    for value, s, e, p in zip(
                        one.values,
                        share.share.tolist(),
                        share.overall.tolist(),
                        share.p.tolist(),
                        strict=True,
                    )
                    if np.isfinite(p)
                ]
    return made


def best(
    comparison: xr.Dataset,
    examples: Examples,
    *,
    found: list[Explanation] | None = None,
    fdr: float = 0.05,
) -> list[list[dict[str, Any]]]:
    """The best explanation of each direction, for programs and for people.

    Parameters
    ----------
    comparison : xarray.Dataset
        In memory.
    examples : Examples
    found : list of Explanation, optional
        From :func:`explanations`, where they are there already.
    fdr : float

    Returns
    -------
    list of list of dict
        Of each algorithm, of each component: ``line``, such as "nine with `marked` = true, AUROC .99", and ``label``,
        ``annotation``, ``value``, ``measure``, ``score``, ``end`` (top or bottom) and ``q``. Empty texts and None where
        nothing is beyond chance.
    """
    every = explanations(comparison, examples, fdr=fdr) if found is None else found
    sure = [one for one in every if one.q <= fdr]
    targets = annotated(examples.targets, examples.class_names)
    return [
        [
            _best(
                [one for one in sure if (one.row, one.component) == (row, k)],
                comparison["projection"].values[row, k],
                {one.name: one for one in targets},
            )
            for k in range(comparison.sizes["component"])
        ]
        for row in range(comparison.sizes["algorithm"])
    ]


_NOTHING = {
    "line": "",
    **dict.fromkeys(("label", "annotation", "value", "measure", "end"), ""),
    **dict.fromkeys(("score", "q")),
}


def _best(
    sure: list[Explanation], projection: NDArray[Any], known: dict[str, Annotation]
) -> dict[str, Any]:
    """The best of what is beyond chance on one direction; a class together with what is within it, where that is as good."""

    def first(*of: str, label: bool) -> Explanation | None:
        kept = [one for one in sure if one.of in of and (one.annotation == "label") == label]
        return max(kept, key=lambda one: one.strength, default=None)

    single = max(
        (one for one in sure if one.of == TARGETS), key=lambda one: one.strength, default=None
    )
    pairs = sorted((o for o in sure if o.of == ONE_CLASS), key=lambda one: -one.strength)[:_PAIRS]
    both = [made for one in pairs if (made := _both(one, projection, known))]
    pair = max(both, key=lambda one: one["score"], default=None)
    if pair and (single is None or pair["score"] >= (1 + single.strength) / 2 - _NEARLY):
        return pair
    chosen = single or first(WITHIN, label=False)
    if chosen is None:
        heavy = first(HEAVY, label=True) or first(HEAVY, label=False)
        return _NOTHING | (_heavy(heavy) if heavy else {})
    return _alone(chosen)


def _both(
    one: Explanation, projection: NDArray[Any], known: dict[str, Annotation]
) -> dict[str, Any] | None:
    """A class with a value within it, against all other targets."""
    other, label = known[one.annotation], known["label"]
    if one.within not in label.values:
        return None
    there = np.isfinite(projection) & other.known
    of_class = label.member[:, label.values.index(one.within)] & there
    inside = other.member[:, other.values.index(one.value)]

    def area(member: NDArray[np.bool_]) -> float:
        none = np.zeros(int(there.sum()), dtype=np.int64)
        return float(auroc(projection[None, there], member[there, None], none).score[0, 0])

    # Those that have the value at one end, or those that have not at the other.
    top = one.score > one.expected
    ends = [(area(of_class & inside), top, "with"), (area(of_class & ~inside), not top, "without")]
    score, end, sign = max(((s if e else 1 - s), e, sign) for s, e, sign in ends)
    return {
        "line": f"{one.within} {sign} `{one.annotation}` = {one.value}, AUROC {_two(score)}{_end(end)}",
        "label": one.within,
        "annotation": one.annotation,
        "value": one.value if sign == "with" else f"not {one.value}",
        "measure": "auroc",
        "score": score,
        "end": "top" if end else "bottom",
        "q": one.q,
    }


def _alone(one: Explanation) -> dict[str, Any]:
    """One annotation of targets."""
    top = one.score > one.expected
    where = " within its class" if one.of == WITHIN else ""
    if one.measure == "spearman":
        line = f"`{one.annotation}`{where}, rank correlation {np.trunc(100 * one.score) / 100:+.2f}"
        score = one.score
    else:
        score = one.score if top else 1 - one.score
        what = one.value if one.annotation == "label" else f"`{one.annotation}` = {one.value}"
        line = f"{what}{where}, AUROC {_two(score)}{_end(top)}"
    return {
        "line": line,
        "label": one.value if one.annotation == "label" else "",
        "annotation": one.annotation,
        "value": one.value,
        "measure": one.measure,
        "score": score,
        "end": "top" if top else "bottom",
        "q": one.q,
    }


def _heavy(one: Explanation) -> dict[str, Any]:
    """One annotation of train units, where those of targets say nothing."""
    what = one.value if one.annotation == "label" else f"`{one.annotation}` = {one.value}"
    return {
        "line": f"{what} at {one.score:.0%} of its heaviest train units, {one.expected:.0%} of all",
        "annotation": one.annotation,
        "value": one.value,
        "measure": "share",
        "score": one.score,
        "q": one.q,
    }


def _two(score: float) -> str:
    """Of an AUROC two digits, and no 1 that is none."""
    return (
        f"{np.floor(score * 1000) / 1000:.3f}".rstrip("0").replace("0.", ".") if score < 1 else "1"
    )


def _end(top: bool) -> str:  # noqa: FBT001 - one of two ends
    return "" if top else ", at its bottom end"
