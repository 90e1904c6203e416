"""Banks of leave-k-out models of EleutherAI/bergson.

``subsets.json`` lists, a subset, the documents that a retrained model was *not* trained on. What the models say are
query losses: in ``query_loss_cache/losses_….pt`` (``per_subset`` (subset, query) or (subset,)), or in
``validation.csv`` as the loss of the full model less that of each, which is turned into losses here.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmstore.errors import InputError
from dmstore.readers import lists
from dmstore.readers.assembling import assemble
from dmstore.readers.files import MemoryArray, check_inside, file_size
from dmstore.readers.index_lists import read_json
from dmstore.readers.source import ArraySource, Request
from dmstore.readers.torch_content import TorchContent

FORMAT = "bergson"
_SUBSETS, _CACHE, _CONFIG = "subsets.json", "query_loss_cache", "config.yaml"
_VALIDATION = "validation"
_ABOUT = {
    "function": "cross-entropy of the query, mean over its tokens, as bergson's validation computes it",
    "orientation": "larger is worse",
    "units": "nat",
}
_LONGEST = 1 << 28


def sniff(path: Path) -> bool:
    """Whether a path is a folder with ``subsets.json``."""
    try:
        return (path / _SUBSETS).is_file()
    except (OSError, ValueError):
        return False


def open_source(path: Path, request: Request) -> ArraySource:
    """Open a bank; see :class:`~dmstore.readers.source.ArraySource`.

    Outputs have the names of files in ``query_loss_cache`` as keys, without ``.pt``, and ``validation``. Where one
    of the cache is there alone, it is the output ``loss``; else ``validation`` is, if it is there.

    Raises
    ------
    InputError
        If there are no losses, several and none is chosen, or the number of documents is not stated.
    """
    caches = {file.stem: file for file in sorted((path / _CACHE).glob("losses_*.pt"))}
    tables = sorted(path.glob(f"{_VALIDATION}*.csv"))
    keys = [*caches, *([_VALIDATION] if tables else [])]
    if not keys:
        msg = f"{path}: has {_SUBSETS}, but no losses; run bergson's validate on it, which leaves {_CACHE} or {_VALIDATION}.csv"
        raise InputError(msg)
    if not request.outputs:
        if len(caches) > 1:
            msg = f"{path}: has losses of {len(caches)} sets of queries ({', '.join(caches)[:200]}); say which with --output loss={keys[0]}"
            raise InputError(msg)
        request = replace(request, outputs={"loss": keys[0]})
    key = next(iter(request.outputs.values()))
    if key not in keys or len(request.outputs) > 1:
        msg = f"{path}: an output is one of {', '.join(keys)[:200]}, one at a time; say --output loss={keys[0]}"
        raise InputError(msg)
    _check_removed(path)
    subsets = lists.of_rows(_subsets(path), f"{path / _SUBSETS}")
    train = lists.needed(request, f"{path}")
    mask = lists.masks(subsets, train, left_out=True, where=f"{path / _SUBSETS}")
    if key == _VALIDATION:
        ids, loss, sign = _from_tables(tables, len(subsets))
    else:
        loss = _from_cache(caches[key], len(subsets))
        ids, sign = np.arange(len(subsets)), "losses as bergson has them"
    return assemble(
        FORMAT,
        "leave-k-out models of bergson",
        path,
        replace(mask, packed=mask.packed[ids]),
        {key: MemoryArray(loss)},
        request,
        ids=ids,
        about={key: _ABOUT},
        conventions={"masks": f"{_SUBSETS}: the documents that a model left out", "sign": sign},
    )


def _subsets(path: Path) -> list[Any]:
    check_inside(path / _SUBSETS, path)
    document = read_json(path / _SUBSETS)
    if not isinstance(document, list) or not all(isinstance(row, list) for row in document):
        msg = f"{path / _SUBSETS}: is no list of lists of documents; restore the file"
        raise InputError(msg)
    return document


def _check_removed(path: Path) -> None:
    """Documents can be given another weight than 0: then a model saw them."""
    try:
        text = (path / _CONFIG).read_text("utf-8", "replace")
    except OSError:
        return
    weight = re.search(r"^[\s-]*subset_weight: *(\S+)", text, re.MULTILINE)
    if weight and not re.fullmatch(r"-?0*\.?0*", weight[1]):
        msg = f"{path / _CONFIG}: its subsets have the weight {weight[1][:20]}, so they were not left out; only subset_weight 0 makes masks"
        raise InputError(msg)


def _from_cache(file: Path, subsets: int) -> NDArray[Any]:
    content = TorchContent(file)
    header = content.headers.get("per_subset")
    if header is None or header.dtype.kind != "f" or header.shape[:1] != (subsets,):
        there = "missing" if header is None else f"{header.dtype} {header.shape}"
        msg = f"{file}: 'per_subset' is {there}, expected a loss for each of {subsets} subsets; it belongs to another bank"
        raise InputError(msg)
    loss = content.load("per_subset")
    return loss.reshape(subsets, -1)


def _from_tables(
    tables: list[Path], subsets: int
) -> tuple[NDArray[np.int64], NDArray[np.float64], str]:
    """Losses of the subsets that stand in tables of validation, each of some of them."""
    losses: dict[int, dict[int, float]] = {}
    baseline: dict[int, float] = {}
    for table in tables:
        # The full model is one, so what the summary beside one table says holds for all.
        baseline |= _baseline(table)
        for line, row in enumerate(_rows(table, ("subset", "diff")), start=2):
            try:
                subset, query = int(row["subset"]), int(row.get("query") or 0)
                value = -float(row["diff"])
            except (TypeError, ValueError):
                msg = f"{table}: line {line} holds no numbers; restore the file"
                raise InputError(msg) from None
            if not 0 <= subset < subsets or query in losses.setdefault(subset, {}):
                msg = f"{table}: line {line} is of subset {subset}, which stands there twice or is none of the {subsets} of {_SUBSETS}"
                raise InputError(msg)
            losses[subset][query] = value
    ids = np.array(sorted(losses), dtype=np.int64)
    queries = sorted(losses[int(ids[0])]) if len(ids) else []
    if not queries or any(sorted(one) != queries for one in losses.values()):
        msg = f"{tables[0]}: not every subset has every query; restore the file, or validate again"
        raise InputError(msg)
    loss = np.array([[losses[int(subset)][query] for query in queries] for subset in ids])
    sign = "sign turned: validation.csv has the full model's loss less that of each subset"
    if not baseline.keys() >= set(queries):
        return ids, loss, f"{sign}; that of the full model is not stated of all and left out"
    return ids, loss + np.array([baseline[query] for query in queries]), sign


def _baseline(table: Path) -> dict[int, float]:
    """The full model's loss on each query, from the summary beside a table; empty where there is none."""
    file = table.with_name(table.name.replace(_VALIDATION, "summary", 1))
    if not file.is_file():
        return {}
    try:
        return {
            int(row.get("query") or 0): float(row["baseline_loss"])
            for row in _rows(file, ("baseline_loss",))
        }
    except (TypeError, ValueError):
        msg = f"{file}: holds no numbers; restore the file"
        raise InputError(msg) from None


def _rows(file: Path, needed: tuple[str, ...]) -> list[Mapping[str, str]]:
    if file_size(file) > _LONGEST:
        msg = f"{file}: too long for a table of validation"
        raise InputError(msg)
    reader = csv.DictReader(io.StringIO(file.read_text("utf-8", "replace"), newline=""))
    if missing := [name for name in needed if name not in (reader.fieldnames or ())]:
        msg = f"{file}: has no column {missing[0]!r}; it is no table of bergson's validation"
        raise InputError(msg)
    return list(reader)
