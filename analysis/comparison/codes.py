"""What directions of a comparison are called in figures, on pages and by commands.

``A1`` is the first of the comparison's first algorithm, ``B2`` the second of its other one.
"""

from __future__ import annotations

import re

# One an algorithm, in the order of the comparison.
LETTERS = "AB"
_CODE = re.compile(rf"([{LETTERS}])([1-9][0-9]{{0,5}})")


def direction_code(row: int, component: int) -> str:
    """Code of a direction.

    Parameters
    ----------
    row : int
        Of the algorithm whose residuals it is a direction of: 0 or 1.
    component : int
        From 0.

    Returns
    -------
    str
        ``A1``, ``B2``, …

    Raises
    ------
    IndexError
        If there is no such algorithm.
    """
    return f"{LETTERS[row]}{component + 1}"


def direction_place(code: str) -> tuple[int, int] | None:
    """Where a direction stands, by its code: what :func:`direction_code` was given.

    Parameters
    ----------
    code : str
        In capitals.

    Returns
    -------
    row, component : int
        From 0; None if it is no code.
    """
    match = _CODE.fullmatch(code)
    return (LETTERS.index(match[1]), int(match[2]) - 1) if match else None
