"""Places that results are written to, outside of every study: what lies in one is the study's own."""

from __future__ import annotations

import os
from pathlib import Path

from dmstore.core.given import local_path
from dmstore.errors import InputError
from dmstore.study.algorithm import ANCHOR


def outside_studies(path: str | os.PathLike[str], *, itself: bool = True) -> Path:
    """A local path that is no study, or published copy of one, and in none.

    Parameters
    ----------
    path : path
    itself : bool
        Whether it must be no study itself.

    Returns
    -------
    Path

    Raises
    ------
    InputError
        If it is, or is no path.
    """
    place = local_path(path)
    whole = Path(os.path.realpath(place))
    for folder in (whole, *whole.parents) if itself else whole.parents:
        # Of a folder that may not be looked into nothing is known.
        if os.access(folder / ANCHOR, os.F_OK):
            what = "is a study" if folder == whole else f"is inside the study {folder}"
            msg = f"{place}: {what}, where only its own files belong; choose a place outside"
            raise InputError(msg)
    return place
