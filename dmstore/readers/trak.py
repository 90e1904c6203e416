"""The folder that TRAK saves to: ``scores/<experiment>.mmap`` and ``experiments.json``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dmstore.core import strictjson
from dmstore.errors import InputError

_LARGEST = 10_000_000


def is_folder(path: Path) -> bool:
    """Whether TRAK saved scores there."""
    return (path / "experiments.json").is_file() and (path / "scores").is_dir()


def find(folder: Path, experiment: str | None = None) -> Path:
    """The file of an experiment's scores.

    ``experiments.json`` holds absolute paths of the machine that wrote it; they are not used. What
    counts is what lies in ``scores/``.

    Parameters
    ----------
    folder : path
    experiment : str, optional
        Needed where there are several.

    Returns
    -------
    Path

    Raises
    ------
    InputError
        If there is no such experiment, or its scores are not finished.
    """
    if not is_folder(folder):
        msg = f"{folder}: a directory, but no folder of TRAK (experiments.json and scores/); give a file of scores"
        raise InputError(msg)
    places = {
        path.name.removesuffix(".mmap"): path
        for path in sorted((folder / "scores").iterdir())
        if path.name.endswith(".mmap") and path.is_file()
    }
    names = ", ".join(places)[:300] or "none"
    if experiment is None and len(places) != 1:
        msg = f"{folder}: holds scores of {len(places)} experiments ({names}); name one with --experiment"
        raise InputError(msg)
    name = experiment if experiment is not None else next(iter(places))
    if name not in places:
        msg = f"{folder}: has no experiment {name!r} with scores; it has {names}"
        raise InputError(msg)
    check_finished(places[name])
    return places[name]


def check_finished(file: Path) -> None:
    """Refuse scores that TRAK has made room for but not filled.

    Parameters
    ----------
    file : path
        ``scores/<experiment>.mmap``, beside whose folder ``experiments.json`` may stand.

    Raises
    ------
    InputError
        If ``experiments.json`` says so, or is damaged.
    """
    listed = file.parent.parent / "experiments.json"
    name = file.name.removesuffix(".mmap")
    if listed.is_file() and _entry(listed, name).get("scores_finalized") == 0:
        msg = f"{file}: the scores of {name!r} are not finished; run finalize_scores of TRAK first"
        raise InputError(msg)


def _entry(path: Path, name: str) -> dict[str, Any]:
    try:
        if path.stat().st_size > _LARGEST:
            msg = f"{path}: larger than any list of experiments; restore it"
            raise InputError(msg)
        content = strictjson.parse(path.read_bytes())
    except InputError:
        raise
    except (OSError, ValueError):
        msg = f"{path}: not valid JSON; restore it from a copy"
        raise InputError(msg) from None
    entry = content.get(name) if isinstance(content, dict) else None
    return entry if isinstance(entry, dict) else {}
