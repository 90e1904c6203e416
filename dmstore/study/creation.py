"""Making a study: examples checked, ids frozen, the whole of it there at once or not at all."""

from __future__ import annotations

import os
import secrets
import tempfile
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from dmstore import provenance
from dmstore.errors import DmstoreError, ExistsError, InputError
from dmstore.schema.documents import dump_document
from dmstore.schema.typed_documents import AboutDocument, StudyDocument, StudyTrain
from dmstore.storage.location import open_location
from dmstore.storage.objects.build_aside import beside
from dmstore.storage.objects.local import LocalObjects
from dmstore.storage.objects.objects import Objects
from dmstore.storage.objects.permissions import permissions_of, share
from dmstore.storage.objects.posix import sync_path
from dmstore.storage.objects.refusals import storage_error
from dmstore.storage.objects.remote import is_url
from dmstore.study import annotation
from dmstore.study import examples as example_sets
from dmstore.study import target_sets as later_sets
from dmstore.study.algorithm import ANCHOR
from dmstore.study.outside import outside_studies
from dmstore.study.study import Study, open_study


def create_study(
    path: str | Path,
    examples: str | Path | Mapping[str, NDArray[Any]],
    *,
    seed: int | None = None,
    about: AboutDocument | None = None,
    classes: int | None = None,
    target_sets: Mapping[str, Mapping[str, NDArray[Any]]] | None = None,
) -> Study:
    """Create a study. What a killed call for the same path left beside it is removed after a day.

    Parameters
    ----------
    path : path or str
        A directory that does not exist yet or is empty, or a URL of an object store.
    examples : path or mapping
        An ``.npz`` file or arrays: ``train_label`` (train,) and ``target_label`` (target,) integers, or
        ids alone where the labels are not known; optional ``train_image`` and ``target_image`` (example, height, width[, 3]) uint8,
        ``class_name`` (class,) text, ``train_id``, ``target_id``, ``target_train`` (the train
        example that a target is, or -1), and further ``train_*`` and ``target_*`` columns.
    seed : int, optional
        0 to 2**63-1; masks, splits and training seeds follow from it. Drawn at random if not given.
    about : mapping, optional
        ``title``, ``authors``, ``licence``, ``citation``, ``doi``.
    classes : int, optional
        Number of classes, where neither names nor labels tell it.
    target_sets : mapping, optional
        Further target sets: name to columns, as :meth:`Study.add_targets` takes them. They are there with the study
        or not at all.

    Returns
    -------
    Study

    Raises
    ------
    ExistsError
        If there is something at the path.
    InputError
        If the examples cannot be used.
    StorageError
        If the file system refuses; nothing is left behind then.
    """
    target = Path(path) if is_url(path) else outside_studies(path, itself=False)
    if isinstance(examples, Mapping):
        arrays, where = dict(examples), "examples"
    else:
        arrays, where = example_sets.read_npz(examples), str(examples)
    sets = example_sets.check(arrays, where)
    if seed is None:
        seed = secrets.randbits(63)
    if not 0 <= seed < 2**63:
        msg = f"seed {seed} is not allowed; give 0 to 2**63 - 1"
        raise InputError(msg)
    document = _document(sets, seed, classes)
    if is_url(path):
        return _create_remote(str(path), sets, document, about, target_sets or {})
    _check_free(target)
    try:
        with beside(target) as building:
            building.mkdir(parents=True)
            if target.is_dir():
                # An empty directory that was made for it says who may use it.
                share(building, permissions_of(target))
            _build(LocalObjects(building), sets, document, about, target_sets or {})
            # Renaming a finished directory is atomic, and fails if the name was taken meanwhile.
            building.rename(target)
        sync_path(target.parent)
    except OSError as error:
        _check_free(target)
        if isinstance(error, DmstoreError):
            raise
        raise storage_error(error, target) from error
    return open_study(target)


def _create_remote(
    url: str,
    sets: Mapping[str, Mapping[str, NDArray[Any]]],
    document: StudyDocument,
    about: AboutDocument | None,
    further: Mapping[str, Mapping[str, NDArray[Any]]],
) -> Study:
    """Build the study here, then put object after object there, ``study.json`` last."""
    objects = open_location(url)
    if objects.exists(ANCHOR):
        msg = f"{objects.url}: a study exists there; choose another path"
        raise ExistsError(msg)
    with tempfile.TemporaryDirectory() as folder:
        built = LocalObjects(folder)
        _build(built, sets, document, about, further)
        names = [info.name for info in built.entries("") if info.name != ANCHOR]
        for name in (*names, ANCHOR):
            # Examples are the same bytes whoever puts them, so an unfinished attempt may be repeated;
            # what is for people says when it was made, and a target set which attempt it is of.
            content = built.get(name)
            if name.startswith(("about/", later_sets.PLACE)):
                objects.replace(name, content)
            elif not objects.put_if_absent(name, content) and (
                name == ANCHOR or (name in names and objects.get(name) != content)
            ):
                msg = f"{objects.url}/{name}: exists with other content; choose another path"
                raise ExistsError(msg)
    return open_study(url)


def _check_free(target: Path) -> None:
    if (target / ANCHOR).exists():
        msg = f"{target}: a study exists there; choose another path"
        raise ExistsError(msg)
    if os.path.lexists(target) and not (target.is_dir() and not any(target.iterdir())):
        msg = f"{target}: not empty and no study; choose a new path"
        raise ExistsError(msg)


def _document(
    sets: Mapping[str, Mapping[str, NDArray[Any]]], seed: int, classes: int | None
) -> StudyDocument:
    def describe(ids: NDArray[Any]) -> StudyTrain:
        return {"count": len(ids), "sha256": example_sets.id_hash(ids)}

    labels = [
        int(sets[name]["label"].max()) + 1 for name in ("train", "test") if "label" in sets[name]
    ]
    known = len(sets["class"]["name"]) if "name" in sets["class"] else max(labels, default=0)
    return {
        "uuid": uuid.uuid4().hex,
        "seed": seed,
        "created": provenance.utc_now(),
        "software": provenance.software(),
        "train": describe(sets["train"]["id"]),
        "targets": {"test": describe(sets["test"]["id"])},
        "classes": known or classes or 0,
    }


def _build(
    objects: Objects,
    sets: Mapping[str, Mapping[str, NDArray[Any]]],
    document: StudyDocument,
    about: AboutDocument | None,
    further: Mapping[str, Mapping[str, NDArray[Any]]],
) -> None:
    for name in ("train", "test"):
        columns = sets[name]
        example_sets.write_set(
            objects, name, columns["id"], columns.get("train") if name == "test" else None
        )
        for column, values in columns.items():
            if column != "id" and not (name == "test" and column == "train"):
                annotation.write_directory(objects, name, column, values)
    if "name" in sets["class"]:
        annotation.write_directory(objects, "class", "name", sets["class"]["name"])
    stated: AboutDocument = {"created": provenance.utc_now()}
    if about:
        stated = {**stated, **about}
    objects.put_if_absent("about/0001.json", dump_document("about", stated))
    for name, columns in further.items():
        later_sets.add(objects, document, name, columns, f"target set {name!r}")
    objects.put_if_absent(ANCHOR, dump_document("study", document))
