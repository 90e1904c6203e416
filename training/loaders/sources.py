"""Where the images of a set come from: the study itself, or files that are decoded one by one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dmstore.errors import InputError
from dmstore.training.datasets.pictures import decode, read_file
from dmstore.training.datasets.pixels import check, examples_of

if TYPE_CHECKING:
    from dmstore.study.study import Study

# Share of the shorter side that is kept of files of any shape, as ImageNet models are evaluated.
CENTRE = 224 / 256


@dataclass(frozen=True)
class Source:
    """Images of a set, by position.

    Attributes
    ----------
    name : str
        The set.
    files : list of path, optional
        Where the images are files.
    values : array, optional
        (example, height, width[, channel]) uint8, where the study holds them.
    """

    name: str
    files: list[Path] | None = None
    values: NDArray[Any] | None = None

    def __len__(self) -> int:
        held = self.values if self.files is None else self.files
        return 0 if held is None else len(held)

    @property
    def channels(self) -> int:
        """1 for grey images of the study, else 3."""
        grey = self.values is not None and (self.values.ndim == 3 or self.values.shape[3] == 1)
        return 1 if grey else 3

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width of all images, where they have one."""
        return None if self.values is None else self.values.shape[1:3]

    def image(self, position: int) -> Any:
        """One image as Pillow has it, 8-bit RGB or grey."""
        if self.files is not None:
            return decode(read_file(self.files[position]), self.files[position])
        from PIL import Image

        assert self.values is not None
        value = self.values[position]
        return Image.fromarray(value[..., 0] if value.ndim == 3 and value.shape[2] == 1 else value)


def source_of(study: Study, part: str, data: str | Path | None) -> Source:
    """The images of ``train``, ``test`` or another target set; of files a sample is compared with the study.

    Raises
    ------
    InputError
        If there are none, or they are not those of the study.
    """
    files = check(study, part, data)
    if files is not None:
        return Source(part, files)
    columns = examples_of(study, part)
    if "image" not in columns:
        whose = "train units" if part == "train" else f"targets of {part!r}"
        msg = f"{study.path}: the {whose} have no 'image' and no 'file'; make the study with images"
        raise InputError(msg)
    return Source(part, values=np.asarray(columns["image"].values))
