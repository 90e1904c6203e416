"""Folders of attribution scores of EleutherAI/bergson: ``scores.bin``, ``info.json`` and ``config.yaml``.

A row is a train document and holds, a query, a score and whether it was written. Whether larger scores support a
query or harm it, ``config.yaml`` says (``score_cfg.higher_is_better``); they are given here so that larger supports.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmstore.core import strictjson
from dmstore.core.npy import Header
from dmstore.errors import InputError
from dmstore.readers.files import file_size

SUFFIX, KEY = ".bin", "scores"
_FILE, _INFO, _CONFIG = "scores.bin", "info.json", "config.yaml"
_LONGEST = 64 << 20
_DTYPES = {"float16": "<f2", "float32": "<f4", "float64": "<f8", "bfloat16": "<u2"}


def is_folder(path: Path) -> bool:
    """Whether bergson saved scores there."""
    return (path / _FILE).is_file() and (path / _INFO).is_file()


def find(folder: Path, experiment: str | None = None) -> Path:
    """The file of scores in a folder.

    Raises
    ------
    InputError
        If an experiment is named: there is one in a folder.
    """
    if experiment is not None:
        msg = f"{folder}: is a folder of bergson's with one set of scores; leave {experiment!r} out"
        raise InputError(msg)
    return folder / _FILE


@dataclass
class BergsonScores:
    """Scores of a folder, opened.

    Attributes
    ----------
    path : Path
        ``scores.bin``.
    rows, columns : int
        Train documents and queries.
    dtype : str
        What bergson calls the dtype of a score.
    offsets : list of (int, int)
        Where the score and its flag lie in a row, for each query.
    width : int
        Bytes of a row.
    turned : bool
        Whether larger scores harm the query in the file.
    headers : dict
        The one array that there is: (train, query).
    """

    path: Path
    rows: int
    columns: int
    dtype: str
    offsets: list[tuple[int, int]]
    width: int
    turned: bool

    def __post_init__(self) -> None:
        name = "float32" if self.dtype == "bfloat16" else self.dtype
        self.headers = {KEY: Header((self.rows, self.columns), np.dtype(name))}

    @property
    def format(self) -> str:
        """What it is, in words."""
        sign = "sign turned, as lower is better there" if self.turned else "higher is better"
        return f"bergson scores ({sign})"

    def load(self, name: str) -> NDArray[Any]:
        """The scores: (train, query).

        Raises
        ------
        InputError
            If some were never written.
        """
        assert name == KEY
        raw = np.memmap(self.path, np.uint8, "r", shape=(self.rows, self.width))
        stored = np.dtype(_DTYPES[self.dtype])
        values = np.empty((self.rows, self.columns), dtype=stored)
        for place, (score, flag) in enumerate(self.offsets):
            if not (written := raw[:, flag] != 0).all():
                missing = int(self.rows - written.sum())
                msg = f"{self.path}: {missing} of {self.rows} scores of query {place} were never written; let bergson's score finish"
                raise InputError(msg)
            part = np.ascontiguousarray(raw[:, score : score + stored.itemsize])
            values[:, place] = part.view(stored)[:, 0]
        if self.dtype == "bfloat16":
            values = (values.astype(np.uint32) << 16).view(np.float32)
        return -values if self.turned else values


def open_scores(path: Path) -> BergsonScores:
    """Open ``scores.bin`` by the ``info.json`` beside it.

    Parameters
    ----------
    path : Path

    Returns
    -------
    BergsonScores

    Raises
    ------
    InputError
        If the two do not fit, scores are of tokens, or nothing says whether larger scores support a query.
    """
    where = path.with_name(_INFO)
    info = _info(where)
    if info.get("attribute_tokens"):
        msg = f"{path}: scores of tokens; add them up by document, and save a matrix (document, query) as .npy"
        raise InputError(msg)
    try:
        rows, columns, dtype = int(info["num_rows"]), int(info["num_scores"]), info["dtype"]
        fields = dict(
            zip(dtype["names"], zip(dtype["formats"], dtype["offsets"], strict=True), strict=True)
        )
        width = int(dtype["itemsize"])
        places = [
            (int(fields[f"score_{i}"][1]), int(fields[f"written_{i}"][1])) for i in range(columns)
        ]
        names = {str(fields[f"score_{i}"][0]) for i in range(columns)}
    except (KeyError, TypeError, ValueError) as error:
        msg = f"{where}: does not describe scores ({type(error).__name__}: {error}); restore it"
        raise InputError(" ".join(msg.split())) from None
    if len(names) != 1 or not names <= _DTYPES.keys():
        msg = f"{where}: scores are {', '.join(sorted(names)) or 'none'}, and {', '.join(_DTYPES)} are read; score again with one of these"
        raise InputError(msg)
    name = names.pop()
    size = np.dtype(_DTYPES[name]).itemsize
    inside = all(0 <= s <= width - size and 0 <= f < width for s, f in places)
    if rows < 1 or not inside or file_size(path) != rows * width:
        msg = f"{path}: has {file_size(path)} bytes, but {_INFO} says {rows} rows of {width}; the two do not belong together"
        raise InputError(msg)
    return BergsonScores(path, rows, columns, name, places, width, _is_turned(path))


def _info(where: Path) -> Mapping[str, Any]:
    try:
        document = strictjson.parse(where.read_bytes(), _LONGEST)
    except (OSError, ValueError):
        document = None
    if not isinstance(document, dict):
        msg = f"{where}: missing or not valid JSON, and scores.bin cannot be read without it; restore it"
        raise InputError(msg)
    return document


def _is_turned(path: Path) -> bool:
    """Whether larger scores harm, by the first ``score_cfg`` of the configuration."""
    where = path.with_name(_CONFIG)
    try:
        lines = where.read_text("utf-8", "replace").splitlines()
    except OSError:
        lines = []
    depth: int | None = None
    for line in lines:
        indent = len(line) - len(line.lstrip(" -"))
        if depth is not None and line.strip() and indent <= depth:
            break
        if re.match(r"[ -]*score_cfg:", line) and depth is None:
            depth = indent
        if depth is not None and (said := re.search(r"\bhigher_is_better: *(true|false)\b", line)):
            return said[1] == "false"
    msg = f"{path}: nothing says whether larger scores support a query or harm it; write 'score_cfg: {{higher_is_better: true}}' (or false, as for MAGIC and SOURCE) into {where}"
    raise InputError(msg)
