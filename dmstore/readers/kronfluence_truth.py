"""LDS ground truth of kronfluence's examples: ``masks.pt`` with ``margins.pt`` or ``losses.pt``, NumPy arrays all.

``masks`` (mask, train) are 1 where a unit was trained on, as predictions are sums of scores over these; outputs
(mask, query) are means over the repeats of a mask. ``margins`` is what its tasks measure, log(p / (1 - p)) of the
label; predictions of ``losses`` have their sign turned there.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from dmstore.errors import InputError
from dmstore.readers.assembling import assemble
from dmstore.readers.files import MemoryArray
from dmstore.readers.source import ArraySource, Request
from dmstore.readers.torch_content import TorchContent

FORMAT = "kronfluence"
_MASKS = "masks"
_OUTPUTS = {"margins": "log_odds", "losses": "loss"}
_ABOUT = {
    "margins": {
        "function": "log(p / (1 - p)) of the label's probability p, as kronfluence's tasks measure it",
        "orientation": "larger is more confident in the label",
        "units": "logit",
    },
    "losses": {
        "function": "loss of the query, as its task in kronfluence's examples computes it (a sum over tokens for texts)",
        "orientation": "larger is worse",
        "units": "nat",
    },
}


def sniff(path: Path) -> bool:
    """Whether a path is a folder with ``masks.pt`` and one of its outputs."""
    try:
        return (path / f"{_MASKS}.pt").is_file() and bool(_there(path))
    except (OSError, ValueError):
        return False


def _there(path: Path) -> list[str]:
    return [name for name in _OUTPUTS if (path / f"{name}.pt").is_file()]


def open_source(path: Path, request: Request) -> ArraySource:
    """Open ground truth; see :class:`~dmstore.readers.source.ArraySource`.

    Raises
    ------
    InputError
        If a file is missing or does not fit.
    """
    files = [_MASKS, *_there(path)]
    if len(files) == 1:
        msg = f"{path}: has neither margins.pt nor losses.pt beside {_MASKS}.pt; put them there"
        raise InputError(msg)
    arrays = {name: TorchContent(path / f"{name}.pt").only() for name in files}
    for name, values in arrays.items():
        if values.ndim != 2 or values.dtype.kind not in "biuf":
            msg = f"{path / name}.pt: is {values.dtype} {values.shape}, expected a row a mask"
            raise InputError(msg)
    mask = arrays.pop(_MASKS)
    if not request.outputs:
        request = replace(request, outputs={_OUTPUTS[name]: name for name in arrays})
    return assemble(
        FORMAT,
        "LDS ground truth of kronfluence",
        path,
        MemoryArray(mask),
        {name: MemoryArray(values) for name, values in arrays.items()},
        request,
        about=_ABOUT,
        conventions={
            "masks": "1 where a unit was trained on",
            "sign": "outputs as they are",
            "repeats": "a value is the mean over the repeats of a mask",
        },
    )
