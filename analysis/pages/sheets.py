"""Thumbnails of many images in a few files: sheets of equal cells, so that a page of thousands of images stays small."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import xarray as xr

CELL = 64
ACROSS = 16
PER_SHEET = ACROSS * ACROSS
# Up to this size every pixel counts, and a lossless sheet is smaller than a lossy one.
_LOSSLESS = 16
# JPEG codes blocks of eight pixels: cells of whole blocks do not bleed into each other.
_BLOCK = 8
_QUALITY = 85


@dataclass(frozen=True)
class Sheets:
    """Thumbnails of examples, in the order in which they were given.

    Attributes
    ----------
    cell : pair of int
        Width and height of a cell in pixels.
    image : pair of int
        Width and height of the picture inside it, at its upper left.
    kind : str
        Ending of the files: ``webp`` or ``jpg``.
    files : list of bytes
        Sheets of 16 x 16 cells, filled row by row.
    """

    cell: tuple[int, int]
    image: tuple[int, int]
    kind: str
    files: list[bytes] = field(default_factory=list)

    @property
    def mime(self) -> str:
        """Type of the files as browsers name it."""
        return "image/webp" if self.kind == "webp" else "image/jpeg"


def sheets(images: xr.DataArray, positions: Sequence[int] | NDArray[np.int64]) -> Sheets:
    """Draw thumbnails of some examples.

    Parameters
    ----------
    images : (example, height, width[, channel]) uint8
        In memory or lazy: read one sheet at a time.
    positions : (unit,) int
        Which of them, in the order of the cells.

    Returns
    -------
    Sheets
        At most 64 pixels high and wide.
    """
    height, width = (int(size) for size in images.shape[1:3])
    scale = min(1.0, CELL / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    lossless = max(size) <= _LOSSLESS
    cell = (size[0], size[1]) if lossless else (_whole(size[0]), _whole(size[1]))
    return Sheets(
        cell,
        size,
        "webp" if lossless else "jpg",
        [_drawn(part, size, cell, lossless=lossless) for part in _parts(images, positions)],
    )


def _whole(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK


def _parts(images: xr.DataArray, positions: Any) -> Iterator[NDArray[np.uint8]]:
    """Images of one sheet after another."""
    dim = images.dims[0]
    chosen = np.asarray(positions, dtype=np.int64)
    for start in range(0, len(chosen), PER_SHEET):
        some = chosen[start : start + PER_SHEET]
        # Sorted, because a lazy array reads each chunk once then.
        order = np.argsort(some, kind="stable")
        values = np.empty((len(some), *images.shape[1:]), dtype=np.uint8)
        values[order] = images.isel({dim: some[order]}).values
        yield values


def _drawn(
    images: NDArray[np.uint8], size: tuple[int, int], cell: tuple[int, int], *, lossless: bool
) -> bytes:
    """One sheet as the bytes of a picture."""
    from PIL import Image

    grey = images.ndim == 3 or images.shape[3] == 1
    rows = -(-len(images) // ACROSS)
    across = min(ACROSS, len(images))
    sheet = Image.new("L" if grey else "RGB", (across * cell[0], rows * cell[1]))
    for place, one in enumerate(images):
        picture = Image.fromarray(one.reshape(one.shape[:2]) if grey else one[..., :3])
        if picture.size != size:
            picture = picture.resize(size, Image.Resampling.LANCZOS)
        row, column = divmod(place, ACROSS)
        sheet.paste(picture, (column * cell[0], row * cell[1]))
    buffer = io.BytesIO()
    if lossless:
        sheet.save(buffer, format="WEBP", lossless=True, quality=60)
    else:
        # Without `optimize`, whose buffer in Pillow is too small for a sheet of noise.
        sheet.save(buffer, format="JPEG", quality=_QUALITY, subsampling=0)
    return buffer.getvalue()
