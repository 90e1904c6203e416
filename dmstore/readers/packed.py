"""Masks that somebody packed into bytes: in which order of bits, and what proves it.

Nothing in a packed mask says its order. NumPy packs big order by default, dmstore little, and where the number of
train units is a multiple of 8 the wrong one gives whole masks of permuted units, on which everything runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dmstore.core import bits
from dmstore.errors import InputError

if TYPE_CHECKING:
    from dmstore.study.algorithm import Algorithm

ORDERS = ("little", "big")
KEY = "mask_bitorder"


@dataclass(frozen=True)
class Evidence:
    """What can say the bit order of packed masks, besides their own spare bits.

    Attributes
    ----------
    stated : str, optional
        What the file says.
    asked : str, optional
        What the user says.
    """

    stated: str | None = None
    asked: str | None = None

    def order(self, where: str) -> str | None:
        """The order that is said: None where nobody says one.

        Raises
        ------
        InputError
            If it is none, or the file and the user say different ones.
        """
        said = self.stated or self.asked
        if said not in (None, *ORDERS):
            msg = f"{where}: {KEY} is {said!r}; say 'little' or 'big', as numpy.packbits calls them"
            raise InputError(msg)
        if self.stated and self.asked and self.stated != self.asked:
            msg = f"{where}: says that its masks are packed in {self.stated} bit order, not {self.asked}; leave --mask-bitorder out"
            raise InputError(msg)
        return said


def decide(last: NDArray[np.uint8], train: int, said: str | None, where: str) -> str:
    """The bit order of packed masks, as said or as their spare bits prove.

    Parameters
    ----------
    last : (run,) uint8
        The last byte of every mask.
    train : int
        Number of train units.
    said : {"little", "big"}, optional
        By the file, the user, or what the masks were compared with.
    where : str
        For error texts.

    Returns
    -------
    {"little", "big"}

    Raises
    ------
    InputError
        If nothing says or proves an order, or spare bits are set.
    """
    spare = -train % 8
    possible = [order for order in ORDERS if not spare_bits(last, spare, order).any()]
    if not possible or (said is not None and said not in possible):
        order = f" in {said} bit order" if said else ""
        msg = f"{where} has bits set beyond train unit {train - 1}{order}; pack masks of {train} train units, and say {KEY}"
        raise InputError(msg)
    if said is not None:
        return said
    if len(possible) == 1:
        return possible[0]
    msg = (
        f"{where}: nothing says in which bit order it is packed; save {KEY} beside it, 'little' or 'big' "
        f"(numpy.packbits packs 'big' unless told otherwise), or give --mask-bitorder"
    )
    raise InputError(msg)


def spare_bits(last: NDArray[np.uint8], spare: int, order: str) -> NDArray[np.uint8]:
    """The bits of last bytes that are no train unit's: (run,) uint8."""
    unused = (1 << spare) - 1 << (8 - spare) if order == "little" else (1 << spare) - 1
    return last & np.uint8(unused & 0xFF)


def order_of_plan(algorithm: Algorithm | None, run: Any, packed: NDArray[np.uint8]) -> str | None:
    """The bit order in which a packed mask is the plan's.

    Parameters
    ----------
    algorithm : Algorithm, optional
    run : int
    packed : (ceil(train / 8),) uint8
        Its mask.

    Returns
    -------
    {"little", "big"} or None
        None where there is no plan. Little where neither is the plan's: whoever stores the run refuses it.
    """
    if algorithm is None or not algorithm.planned:
        return None
    try:
        mask = algorithm.describe(np.array([run], dtype=np.int64))[0].mask
    except (InputError, OverflowError):
        # Not in the plan, as whoever stores the run says.
        return ORDERS[0]
    fits = [
        order
        for order in ORDERS
        if np.array_equal(bits.unpack_rows(packed[None], algorithm.train, order)[0], mask)
    ]
    return fits[0] if fits else ORDERS[0]
