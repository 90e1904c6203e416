"""What a fit stands on, a base that is pinned, and the document that names it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from dmstore import provenance
from dmstore.errors import (
    CorruptionError,
    DmstoreError,
    FormatError,
    IncompleteError,
    InputError,
)
from dmstore.regression.fitting.run_groups import Runs
from dmstore.regression.problem.parameters import FEWEST_RUNS, Parameters
from dmstore.schema.documents import FORMAT_VERSION, dump_document, load_document
from dmstore.schema.typed_documents import FitDocument
from dmstore.storage.acts.compact import compact
from dmstore.storage.objects.local import LocalObjects
from dmstore.storage.table import log
from dmstore.storage.table.view import View
from dmstore.study import results
from dmstore.study.algorithm import Algorithm
from dmstore.study.results import base_of
from dmstore.study.study import Study

_ATTEMPTS = 5


def pinned(study: Study, algorithm: Algorithm) -> View:
    """The committed base of all rows there are now."""
    table = algorithm.table
    for _ in range(_ATTEMPTS):
        compact(table)
        manifest = log.newest(table.objects, table.prefix)
        # The fit reads the base whole, so no row of it may be hidden.
        view = table.view_of(log.Manifest(manifest.version, base=manifest.base))
        if len(view) == len(table.view_of(manifest)):
            break
    else:
        msg = (
            f"{study.path}: runs of {algorithm.name!r} were retracted {_ATTEMPTS} times in a row "
            f"while the fit began; run it again"
        )
        raise IncompleteError(msg)
    if len(view) < FEWEST_RUNS:
        msg = (
            f"algorithm {algorithm.name!r} has {len(view)} runs, a fit needs at least {FEWEST_RUNS}; "
            f"add some with your own loop (RunWriter), 'dmstore train {study.path} {algorithm.name}' or 'dmstore ingest {study.path} {algorithm.name} …'"
        )
        raise InputError(msg)
    return view


def view_of(algorithm: Algorithm, document: FitDocument, where: str) -> View:
    """The base that a fit stands on."""
    table = algorithm.table
    base = base_of(document)
    name = f"{table.prefix}{base.path}"
    removed = name in log.newest(table.objects, table.prefix).removed
    if removed or not table.objects.exists(f"{name}/zarr.json"):
        # A fit is called by its content, so the next call finds this name again: free it.
        table.objects.delete(f"{where}fit.json")
        msg = f"{name}: vacuum removed the base at the same moment; run the fit again"
        raise IncompleteError(msg)
    return table.view_of(log.Manifest(document["version"], base=base))


@contextmanager
def begun(study: Study, where: str, stated: FitDocument) -> Iterator[FitDocument]:
    """``fit.json``, written if it is not there, while a fit is made.

    An earlier call may have begun on another base of the same content: that one is pinned. Where a fit is
    refused before anything is stored, the study is left as it was.
    """
    objects, name = study.objects, f"{where}fit.json"
    document = dump_document("fit", stated)
    first = not objects.exists(name) and objects.put_if_absent(name, document)
    try:
        stored = load(study, where, stated)
        yield stored
    except IncompleteError:
        raise
    except DmstoreError:
        if first and not objects.children(f"{where}blocks/"):
            objects.delete(name)
            if isinstance(objects, LocalObjects):
                with suppress(OSError):
                    objects.path(where).rmdir()
        raise
    # Another process at the same fit may have been refused, and have taken it away.
    objects.put_if_absent(name, dump_document("fit", stored))


def load(study: Study, where: str, stated: FitDocument) -> FitDocument:
    """``fit.json``, which must be what its name says: blocks of another fit are not this one's.

    Raises
    ------
    CorruptionError
    """
    name = f"{where}fit.json"
    try:
        document = load_document("fit", study.objects.get(name), f"{study.path}/{name}")
    except FormatError as error:
        msg = f"{error}, or remove {study.path}/{where} and run the fit again"
        raise CorruptionError(msg) from error
    for key in (
        "fit",
        "study",
        "algorithm",
        "content_id",
        "output",
        "parameters",
        "targets",
        "runs",
    ):
        # As JSON has it.
        expected = json.loads(json.dumps(stated.get(key)))
        if document.get(key) != expected:
            msg = f"{study.path}/{name}: says {key} {document.get(key)!r}, but this fit's is {expected!r}; move its folder away and run the fit again"
            raise CorruptionError(msg)
    return document


def describe(
    study: Study, algorithm: Algorithm, view: View, runs: Runs, output: str, parameters: Parameters
) -> FitDocument:
    """What ``fit.json`` says of a fit; its name is a digest of all that decides the result."""
    assert view.manifest.base is not None
    content_id = view.manifest.base.content_id
    stated = {
        "format_version": FORMAT_VERSION,
        "study": study.uuid,
        "algorithm": algorithm.name,
        "content_id": content_id,
        "output": output,
        "parameters": parameters.document(),
    }
    name = results.name_of(stated)
    return {
        "fit": name,
        "study": study.uuid,
        "algorithm": algorithm.name,
        "version": view.manifest.version,
        "base": view.manifest.base.path,
        "content_id": content_id,
        "runs": runs.count,
        "targets": algorithm.table.sizes["target"],
        "target_set": algorithm.target_set,
        "output": output,
        "parameters": parameters.document(),
        "created": provenance.utc_now(),
        "software": provenance.software(),
    }
