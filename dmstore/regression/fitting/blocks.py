"""Blocks of targets on disk: each lands whole, and the last act joins them and names the result."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmstore.core.progress import Count, Progress, counting
from dmstore.errors import CorruptionError
from dmstore.regression.problem.block_arrays import NOT_CONVERGED
from dmstore.schema.group_specs import create_group, group_spec
from dmstore.storage.objects.objects import Objects
from dmstore.storage.objects.zarr_internals import consolidate
from dmstore.storage.table import groups
from dmstore.study import results

# Targets of a block: those of a chunk of the outputs and of the weights.
TARGETS = 256
_NAME = re.compile(r"([0-9]{5})(?:-([0-9]+))?\.zarr\.zip")
Arrays = dict[str, NDArray[Any]]


class Blocks:
    """The blocks of a fit.

    Parameters
    ----------
    objects : Objects
    where : str
        Prefix of the fit.
    targets : int
    stages : int
        After how many stages a block is finished.
    """

    def __init__(self, objects: Objects, where: str, targets: int, stages: int) -> None:
        self._objects = objects
        self._where = where
        self._targets = targets
        self._stages = stages
        self._done = dict.fromkeys(range(count_of(targets)), 0)
        self._further: dict[int, str] = {}
        self.look()

    def look(self) -> None:
        """See what is stored, perhaps by another process since."""
        for name in self._objects.children(f"{self._where}blocks/"):
            match = _NAME.fullmatch(name)
            if match and int(match[1]) in self._done:
                number = int(match[1])
                done = self._stages if match[2] is None else int(match[2])
                if match[2] and done >= self._stages:
                    # Earlier versions went on to quarters: the last stage is done again, and ends the block.
                    done, self._further[number] = self._stages - 1, f"{self._where}blocks/{name}"
                self._done[number] = max(done, self._done[number])

    def bounds(self, number: int) -> tuple[int, int]:
        """First target of a block, and the one behind its last."""
        return number * TARGETS, min((number + 1) * TARGETS, self._targets)

    def todo(self, stages: int) -> list[int]:
        """Blocks that have not been through so many stages."""
        return [number for number, done in self._done.items() if done < stages]

    @property
    def begun(self) -> bool:
        """Whether any block has been through any stage."""
        return any(self._done.values())

    def note(self, number: int, stages: int) -> None:
        """Take it from whoever stored it that a block has been through so many stages.

        What a listing on a shared file system says may be a minute old.
        """
        self._done[number] = max(stages, self._done[number])

    def stages(self, number: int) -> int:
        """How many stages a block has been through."""
        return self._done[number]

    def there(self, number: int, stages: int) -> bool:
        """Whether the storage has what so many stages found of a block, or all of them."""
        return any(
            self._objects.exists(self._name(number, done)) for done in (stages, self._stages)
        )

    def load(self, number: int) -> tuple[int, Arrays]:
        """How many stages a block has been through, and what they found."""
        done = self._done[number]
        if not done:
            return 0, {}
        arrays = _read(self._objects, self._begun(number, done))
        # What is read may not be written to.
        return done, {name: np.array(values) for name, values in arrays.items() if name != "target"}

    def store(self, number: int, stages: int, result: Arrays) -> None:
        """Store what so many stages found of a block, in the place of what fewer found."""
        start, stop = self.bounds(number)
        arrays = {"target": np.arange(start, stop, dtype=np.int64), **result}
        before = self._done[number]
        spec = group_spec("datamodels")
        groups.write_zip(self._objects, self._name(number, stages), spec, arrays)
        self._done[number] = stages
        # Never what was just stored, or goes further.
        if 0 < before < stages:
            self._objects.delete(self._begun(number, before))

    def _begun(self, number: int, stages: int) -> str:
        """Name of a block that has been through so many stages, by whatever version."""
        further = self._further.get(number) if stages == self._stages - 1 else None
        return further or self._name(number, stages)

    def _name(self, number: int, stages: int) -> str:
        return block_name(self._where, number, None if stages == self._stages else stages)


def count_of(targets: int) -> int:
    """Blocks of so many targets."""
    return -(-targets // TARGETS)


def block_name(where: str, number: int, stages: int | None = None) -> str:
    """Name of a finished block, or of one that has been through so many stages."""
    return f"{where}blocks/{number:05d}{'' if stages is None else f'-{stages}'}.zarr.zip"


def _read(objects: Objects, name: str) -> Arrays:
    """A block, without the quarters of the masks that earlier versions fitted."""
    arrays = dict(groups.read(objects, name))
    arrays.pop("weight_quarter", None)
    return arrays


def join(
    objects: Objects,
    where: str,
    targets: int,
    cost: Callable[[], dict[str, Any]],
    progress: Progress | None = None,
) -> None:
    """Join the blocks into one group, block by block, and name it: the commit of the fit.

    Parameters
    ----------
    objects : Objects
    where : str
        Prefix of the fit.
    targets : int
    cost : callable
        What the fit took, to be kept with its summary.
    progress : callable, optional

    Raises
    ------
    CorruptionError
        If some blocks have arrays that others have not.
    """
    merged: Arrays = {}
    with results.completing(
        objects, where, "datamodels", lambda: {**summarise(merged), **cost()}
    ) as path:
        merged.update(_write_joined(objects, where, path, targets, counting(progress, "join")))


def _write_joined(objects: Objects, where: str, path: str, targets: int, tell: Count) -> Arrays:
    """Write the group of all blocks; returns the arrays that have no train units."""
    spec = group_spec("datamodels")
    count = count_of(targets)
    store = objects.writer(path)
    made: dict[str, Any] = {}
    small: dict[str, list[NDArray[Any]]] = {}
    for number in range(count):
        arrays = _read(objects, block_name(where, number))
        if made and made.keys() != arrays.keys():
            name = min(made.keys() ^ arrays.keys())
            msg = f"{objects.url}/{where}: some blocks have {name} and some have not, as an earlier version began this fit; remove that folder and run the fit again"
            raise CorruptionError(msg)
        if not made:
            shapes = {
                name: tuple(
                    targets if dim == "target" else size
                    for dim, size in zip(spec.arrays[name].dims, values.shape, strict=True)
                )
                for name, values in arrays.items()
            }
            made = create_group(store, spec, shapes)
        for name, values in arrays.items():
            if "train" not in spec.arrays[name].dims:
                small.setdefault(name, []).append(values)
                continue
            start = number * TARGETS
            window = tuple(
                slice(start, start + TARGETS) if dim == "target" else slice(None)
                for dim in spec.arrays[name].dims
            )
            made[name][window] = values
        tell(number + 1, count)
    merged = {
        name: np.concatenate(parts, axis=spec.arrays[name].dims.index("target"))
        for name, parts in small.items()
    }
    for name, values in merged.items():
        made[name][...] = values
    consolidate(store)
    objects.sync(path)
    return merged


def summarise(arrays: dict[str, NDArray[Any]]) -> dict[str, Any]:
    """Numbers over the targets of a fit."""

    def quartiles(values: NDArray[Any]) -> list[float | None]:
        finite = values[np.isfinite(values)]
        return (
            [float(v) for v in np.quantile(finite, [0.25, 0.5, 0.75])]
            if len(finite)
            else [None] * 3
        )

    status = arrays["status"]
    names = ("fitted", "lam_at_start", "lam_at_end", "constant", "not_converged", "too_few_runs")
    return {
        "targets": len(status),
        "nonzeros": quartiles(arrays["nonzeros"].astype(float)),
        "without_weights": int((arrays["nonzeros"] == 0).sum()),
        "lam": quartiles(arrays["lam"]),
        "holdout_r2": quartiles(arrays["holdout_r2"]),
        "worst_kkt": float(np.fmax.reduce(arrays["kkt"], initial=0.0)),
        "worst_gap": float(np.fmax.reduce(arrays["gap"], initial=0.0)),
        "status": {name: int((status == number).sum()) for number, name in enumerate(names)},
        "unconverged_targets": [int(t) for t in arrays["target"][status == NOT_CONVERGED]],
    }
