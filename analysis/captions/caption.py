"""Captions of the directions of a comparison, proposed on some images and tested on others."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from dmstore.analysis.captions import kept
from dmstore.analysis.captions.embedder import Embedder, check_embedder
from dmstore.analysis.captions.embedding import caption_embeddings, image_embeddings, images_of
from dmstore.analysis.captions.groups import FEWEST, Halves, default_size, halves
from dmstore.analysis.captions.loading import load_embedder
from dmstore.analysis.captions.ranking import Cosines, Ranked, Scores, centred, ranked
from dmstore.analysis.captions.texts import Presence
from dmstore.analysis.captions.words import Words, checked_words, words_of
from dmstore.analysis.comparison.answer import FDR, answer
from dmstore.analysis.comparison.modeldiff import rank
from dmstore.analysis.experiment.inference import discovery_rates
from dmstore.core.given import seed_of
from dmstore.core.progress import Progress
from dmstore.errors import InputError, NotFoundError
from dmstore.schema.documents import FORMAT_VERSION
from dmstore.storage.published.published import refuse_read_only
from dmstore.study.results import name_of
from dmstore.study.study import Study, check_opened

PROPOSED = 20
TEXTS = "words of the targets' texts"
_PLAIN = "{}"


def caption(
    study: Study,
    a: str,
    b: str,
    *,
    embedder: str | Embedder | None = None,
    words: str | Iterable[str] | None = None,
    texts: str | None = None,
    images: str = "image",
    comparison: str | None = None,
    components: Sequence[int] | None = None,
    everything: bool = False,
    top: int | None = None,
    contrast: str = "class",
    templates: Sequence[str] = (_PLAIN,),
    fdr: float = FDR,
    random_state: int = 0,
    progress: Progress | None = None,
) -> xr.Dataset:
    """Caption both ends of the directions of a comparison (paper, F.5). Embeddings and captions are kept in the study.

    An end is the targets with the largest, or the smallest, projections. A random half of them, and of others of their classes,
    proposes 20 captions; the other half tests them.

    Parameters
    ----------
    study : Study
    a, b : str
        Compared algorithms, in either order.
    embedder : str or Embedder, optional
        Of images: see :func:`dmstore.analysis.captions.loading.load_embedder`. Without one the words of the targets' texts are looked at.
    words : str or iterable of str, optional
        ``wordfreq``, ``wordfreq:N``, a file of captions, one a line, or the captions themselves. With an embedder ``wordfreq`` by default,
        without one all words of the texts.
    texts : str, optional
        Annotation with the targets' texts (``text``); not with an embedder.
    images : str
        Annotation with the images.
    comparison : str, optional
        Its name; the newest by default.
    components : sequence of int, optional
        Directions of either algorithm, counted from 0; all by default.
    everything : bool
        Whether directions that are not beyond chance are captioned too. Their captions are never called beyond chance.
    top : int, optional
        Targets of an end; by default a tenth of all, from 48 to 200, and a quarter at most.
    contrast : {"class", "all"}
        Whether an end is compared with others of its classes, or with any others, as in the paper.
    templates : sequence of str
        Each with one ``{}``, which the caption takes the place of; embeddings are the mean over them. The paper's is the word alone.
    fdr : float
        False discovery rate at which captions are claimed.
    random_state : int
        Draws the halves and the contrast.
    progress : callable, optional
        Called with ``images`` or ``captions``, how many are done and how many there are.

    Returns
    -------
    xarray.Dataset
        As in ``captions.group.json``: ``caption`` (algorithm, component, end, rank) positions in ``text``, -1 where there is none, with ``score``, ``auroc`` and
        its interval, ``p``, ``q``, ``beyond_chance``; ``paper`` and ``paper_score`` by the paper's ranking; ``images`` and ``contrast``, how many targets.
        Attributes say what made it, and ``notes`` what was left out.

    Raises
    ------
    InputError
        If anything given cannot be used, or there are too few targets.
    NotFoundError
        If the two have not been compared, or no direction is beyond chance.
    StorageError
        If the study is published, so that nothing can be kept in it, and no such captions are.
    """
    check_opened(study)
    _check(top, contrast, fdr, templates)
    seed = seed_of(random_state)
    data = study.comparison(a, b, comparison).load()
    where = f"comparisons/{data.attrs['comparison']}/"
    target_set = _target_set(study, data)
    notes: list[str] = []
    chosen = _chosen(data, components, everything=everything, notes=notes)
    subject = _subject(study, target_set, embedder, words, texts, images)
    label = study.label(target_set) if contrast == "class" else _one_class(data)
    if contrast == "class" and "label" not in study.target_set(target_set):
        notes.append("the targets have no labels, so that any others are the contrast")
    if subject.words and subject.words.dropped:
        notes.append(
            f"{subject.words.dropped} captions of {subject.words.name} were there before and are dropped"
        )
    there = ~np.isnan(data["projection"].values).any(axis=(0, 1))
    size = default_size(int(there.sum())) if top is None else top
    attrs: dict[str, Any] = {
        "comparison": data.attrs["comparison"],
        **subject.about,
        "set": target_set,
        "contrast": contrast,
        "templates": list(templates) if subject.embedder else [],
        "size": size,
        "fdr": float(fdr),
        "random_state": seed,
    }
    stated = {**attrs, "ends": chosen, "format_version": FORMAT_VERSION}
    name = f"{where}{kept.PREFIX}{name_of(stated)}{kept.SUFFIX}"
    if study.objects.exists(name):
        return kept.read(study.objects, name).assign_attrs(notes=notes)
    refuse_read_only(study.objects)
    draw = np.random.default_rng(seed)
    ends = [
        _End(row, k, e, halves(sign * data["projection"].values[row, k], label, size, draw))
        for row, k in chosen
        for e, sign in enumerate((1, -1))
    ]
    few = [one for one in ends if not one.split.enough]
    if len(few) == len(ends):
        msg = f"{study.path}: an end of {size} of {int(there.sum())} targets leaves fewer than {FEWEST} in a half with others of their classes to compare with; take more targets, a smaller top, or contrast 'all'"
        raise InputError(msg)
    if few:
        notes.append(
            f"{len(few)} of {len(ends)} ends have fewer than {FEWEST} targets in a half with others of their classes, and are left out"
        )
    ends = [one for one in ends if one.split.enough]
    scores, captions = subject.scores(study, target_set, label, there, templates, progress)
    made = list(ranked(scores, [one.split for one in ends], label, PROPOSED))
    found = _labelled(data, ends, made, captions, _beyond(data), fdr)
    kept.write(study.objects, name, found, attrs)
    return kept.read(study.objects, name).assign_attrs(notes=notes)


@dataclass(frozen=True)
class _End:
    """One end of a direction, and its targets."""

    row: int
    component: int
    end: int
    split: Halves


@dataclass(frozen=True)
class _Subject:
    """What is captioned with what."""

    embedder: Embedder | None
    words: Words | None
    annotation: str

    @property
    def about(self) -> dict[str, Any]:
        """What decides the result, as JSON holds it."""
        return {
            "embedder": self.embedder.name if self.embedder else TEXTS,
            "content": self.embedder.content if self.embedder else "",
            "annotation": self.annotation,
            "words": self.words.name if self.words else "all",
            "words_sha256": self.words.digest if self.words else "",
            "count": len(self.words.texts) if self.words else 0,
        }

    def scores(
        self,
        study: Study,
        target_set: str,
        label: NDArray[np.int64],
        there: NDArray[np.bool_],
        templates: Sequence[str],
        progress: Progress | None,
    ) -> tuple[Scores, Sequence[str]]:
        """Scores of captions, and the captions."""
        only = self.words.texts if self.words else None
        if self.embedder is None or only is None:
            said = [str(one) for one in study.target_set(target_set)[self.annotation].values]
            presence = Presence(said, label, only)
            return presence, presence.words
        # Captions first: what is wrong with an embedder shows before hours of images.
        rows = np.zeros((len(only), int(self.embedder.dim)), dtype=np.float32)
        for template in templates:
            told = [template.replace(_PLAIN, one) for one in only]
            rows += caption_embeddings(study, self.embedder, told, progress)
        rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
        seen = image_embeddings(study, self.embedder, target_set, self.annotation, progress)
        return Cosines(centred(seen, label, there), rows), only


def _check(top: int | None, contrast: str, fdr: float, templates: Sequence[str]) -> None:
    if contrast not in ("class", "all"):
        msg = f"contrast {contrast!r:.40}: give class or all"
        raise InputError(msg)
    if top is not None and (isinstance(top, bool) or top != int(top) or top < 2 * FEWEST):
        msg = f"top {top!r:.40}: give a whole number from {2 * FEWEST}; half of it proposes captions, half of it tests them"
        raise InputError(msg)
    if not (isinstance(fdr, int | float) and 0 < fdr < 1):
        msg = f"fdr {fdr!r:.40}: give a number between 0 and 1"
        raise InputError(msg)
    if isinstance(templates, str) or not templates:
        msg = "templates: give a list of texts with {} where the caption goes"
        raise InputError(msg)
    for one in templates:
        if str(one).count(_PLAIN) != 1 or not str(one).isprintable():
            msg = f"template {one!a:.80}: give a text with one {{}} where the caption goes, such as 'a photo of {{}}'"
            raise InputError(msg)


def _target_set(study: Study, data: xr.Dataset) -> str:
    """The target set that a comparison is of."""
    document = next(
        one for one in study.comparisons if one["comparison"] == data.attrs["comparison"]
    )
    return str(study.newest_fit(document["algorithms"][0], document["fits"][0])["target_set"])


def _one_class(data: xr.Dataset) -> NDArray[np.int64]:
    return np.zeros(data.sizes["target"], dtype=np.int64)


def _beyond(data: xr.Dataset) -> set[tuple[int, int]]:
    """Directions that are beyond chance, as row and component."""
    names = [str(one) for one in data["algorithm"].values]
    return {
        (names.index(one.algorithm), one.component) for one in answer(data).directions if one.beyond
    }


def _chosen(
    data: xr.Dataset,
    components: Sequence[int] | None,
    *,
    everything: bool,
    notes: list[str],
) -> list[tuple[int, int]]:
    """Directions to caption, as row and component."""
    most = data.sizes["component"]
    for one in components or ():
        if isinstance(one, bool) or one != int(one) or not 0 <= one < most:
            msg = f"component {one!r:.40}: the comparison has {most} directions of either algorithm, counted from 0"
            raise InputError(msg)
    listed = [
        (row, k)
        for row, count in enumerate(rank(data))
        for k in range(count)
        if not components or k in components
    ]
    beyond = _beyond(data)
    kept_ones = [one for one in listed if everything or one in beyond]
    if not kept_ones:
        names = " and ".join(repr(str(one)) for one in data["algorithm"].values)
        why = (
            "no direction is more than rounding"
            if not listed
            else "none of these directions is beyond chance, so that a caption would describe noise; everything=True (--all) captions them all the same"
            if "q" in data
            else "nothing is known of chance, since no runs were measured; everything=True (--all) captions all directions"
        )
        msg = f"{names}: {why}"
        raise NotFoundError(msg)
    if len(kept_ones) < len(listed):
        notes.append(
            f"{len(listed) - len(kept_ones)} of {len(listed)} directions are not beyond chance and have no captions"
        )
    return kept_ones


def _subject(
    study: Study,
    target_set: str,
    embedder: str | Embedder | None,
    words: str | Iterable[str] | None,
    texts: str | None,
    images: str,
) -> _Subject:
    """What is asked for, with all that can be refused refused before anything is computed."""
    data = study.target_set(target_set)
    listed = None if words is None else _words(words)
    if embedder is not None:
        if texts is not None:
            msg = "give an embedder for images, or texts; not both"
            raise InputError(msg)
        images_of(study, target_set, images)
        listed = listed or words_of("wordfreq")
        made = (
            load_embedder(embedder)
            if isinstance(embedder, str)
            else check_embedder(embedder, type(embedder).__name__)
        )
        return _Subject(made, listed, images)
    name = texts or "text"
    if name not in data:
        if texts is None and images in data:
            msg = f"{study.path}: the targets are images, and what puts them beside captions is not given; give an embedder, such as --embedder open_clip:local-dir:FOLDER, or --embedder standin"
            raise InputError(msg)
        there = ", ".join(str(one) for one in data.data_vars) or "none"
        msg = f"{study.path}: target set {target_set!r} has no annotation {name!r} of texts and no images; it has {there}"
        raise InputError(msg)
    if data[name].dtype.kind not in "UOT" or data[name].ndim != 1:
        msg = f"{study.path}: annotation {name!r} of {target_set!r} is {data[name].dtype} of shape {data[name].shape}, expected one text a target"
        raise InputError(msg)
    return _Subject(None, listed, name)


def _words(words: str | Iterable[str]) -> Words:
    return words_of(words) if isinstance(words, str) else checked_words(words, "given")


def _labelled(
    data: xr.Dataset,
    ends: list[_End],
    made: list[Ranked],
    captions: Sequence[str],
    beyond: set[tuple[int, int]],
    fdr: float,
) -> xr.Dataset:
    """All captions as one dataset; see :func:`caption`."""
    rows = data["algorithm"].values
    components = sorted({one.component for one in ends})
    width = max(max(len(one.caption), len(one.paper)) for one in made)
    shape = (len(rows), len(components), 2, width)
    q = discovery_rates([np.concatenate([one.p for one in made])])[0]
    places = np.unique(np.concatenate([part for one in made for part in (one.caption, one.paper)]))
    of_text = {int(place): number for number, place in enumerate(places)}
    numbers = {
        key: np.full(shape, np.nan)
        for key in ("score", "auroc", "auroc_low", "auroc_high", "p", "q", "paper_score")
    }
    texts = {key: np.full(shape, -1, dtype=np.int64) for key in ("caption", "paper")}
    claimed = np.zeros(shape, dtype=bool)
    counts = {key: np.zeros(shape[:3], dtype=np.int64) for key in ("images", "contrast")}
    start = 0
    for end, one in zip(ends, made, strict=True):
        at = (end.row, components.index(end.component), end.end)
        count = len(one.caption)
        own = q[start : start + count]
        start += count
        values = (one.score, one.auroc, one.low, one.high, one.p, own, one.paper_score)
        for key, value in zip(numbers, values, strict=True):
            numbers[key][at][: len(value)] = value
        for key, positions in (("caption", one.caption), ("paper", one.paper)):
            texts[key][at][: len(positions)] = [of_text[int(place)] for place in positions]
        claimed[at][:count] = (own <= fdr) & ((end.row, end.component) in beyond)
        counts["images"][at] = sum(map(len, end.split.members))
        counts["contrast"][at] = sum(map(len, end.split.contrast))
    sure = [[(row, k) in beyond for k in components] for row in range(len(rows))]
    dims = ("algorithm", "component", "end", "rank")
    return xr.Dataset(
        {
            **{key: (dims, value) for key, value in (texts | numbers).items()},
            "beyond_chance": (dims, claimed),
            **{key: (dims[:3], value) for key, value in counts.items()},
            "direction_beyond_chance": (dims[:2], np.array(sure, dtype=bool)),
        },
        coords={
            "algorithm": rows.astype(str),
            "component": components,
            "end": list(kept.ENDS),
            "text": [captions[int(place)] for place in places],
        },
    )
