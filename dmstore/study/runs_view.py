"""The finished runs of an algorithm as labelled data, pinned to a moment."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dmstore.storage.table.snapshot import content_id
from dmstore.study import dataset, plan
from dmstore.study.algorithm import Algorithm
from dmstore.study.annotation import portable
from dmstore.study.display import Displayed, Facts
from dmstore.study.target_outputs import TargetOutputs, joined

if TYPE_CHECKING:
    import xarray as xr


class RunsView(Displayed):
    """The runs that an algorithm had when the view was made, whatever is stored later.

    Make one with :meth:`dmstore.study.study.Study.view`.

    Attributes
    ----------
    algorithm : Algorithm
    target_set : str
        The set whose outputs the view shows.
    run : (run,) int64
        Ids in order of arrival.
    pending : (run,) int64
        Runs that are missing: of the plan; with a later target set, stored runs without outputs on it.
    version : int
        Version of the table that the view stands on.
    content_id : str
        sha256 over ids and digests of what is shown: equal in any two studies that hold the same.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        outputs: TargetOutputs | None,
        study_uuid: str,
        names: Callable[[], dict[str, Any]],
    ) -> None:
        # Coordinates that name train units, targets and classes, read when they are needed.
        self._study_uuid = study_uuid
        self._names = names
        self._outputs = outputs
        self.algorithm = algorithm
        self.target_set = outputs.target_set if outputs else algorithm.target_set
        self._runs = algorithm.table.view()
        if outputs is None:
            self._rows = self._runs
            self._row = np.arange(len(self._runs), dtype=np.int64)
            self._position = self._row
            self.pending = algorithm.missing(self._runs.run)
        else:
            self._rows = outputs.table.view()
            position = joined(self._runs, self._rows)
            self._row = np.flatnonzero(position >= 0)
            self._position = position[self._row]
            self.pending = self._runs.run[position < 0]
        self.run: NDArray[np.int64] = self._runs.run[self._row]
        self.version = self._rows.manifest.version
        self.content_id = content_id(self.run, self._rows.digest[self._position])

    def __len__(self) -> int:
        return len(self.run)

    def refresh(self) -> RunsView:
        """The runs as they are now. This view stays what it is."""
        return RunsView(self.algorithm, self._outputs, self._study_uuid, self._names)

    @functools.cached_property
    def dataset(self) -> xr.Dataset:
        """The runs as data.

        Returns
        -------
        xarray.Dataset
            ``mask`` (run, train) bool and every declared output (run, target[, class]), lazy;
            coordinates ``run``, ``split`` (train, holdout or eval), ``seed``, ``time`` (UTC),
            ``mask_id``, ``repeat``, ``host``, further columns, and the ids and labels of train units
            and targets.
        """
        import xarray as xr

        whole = len(self._row) == len(self._runs)
        columns = {
            name: (dims, values if whole else values[self._row])
            for name, (dims, values) in dataset.coordinates(self._runs, self._known()).items()
        }
        mask_id = columns["mask_id"][1]
        split = self.algorithm.split(mask_id) if len(self) else np.empty(0, dtype="<U7")
        coords = {"run": self.run, **columns, **self._names(), "split": ("run", split)}
        if not any("class" in entry["dims"] for entry in self.algorithm.outputs.values()):
            del coords["class"]
        names = sorted(self.algorithm.outputs)
        attrs = {
            "study": self._study_uuid,
            "algorithm": self.algorithm.name,
            "target_set": self.target_set,
            "version": self.version,
            "content_id": self.content_id,
            "conflicts": len(self._rows.conflicts),
            "pending": len(self.pending),
        }
        variables = {
            **dataset.wide_arrays(self._runs, ["mask"], self._row),
            **dataset.wide_arrays(self._rows, names, self._position),
        }
        return portable(xr.Dataset(variables, coords=coords, attrs=attrs))

    def _known(self) -> dict[str, NDArray[Any]]:
        """Coordinates that are known without reading them: digests, and what the plan says."""
        known: dict[str, NDArray[Any]] = {"row_digest": self._runs.digest}
        if self.algorithm.planned:
            blocks, run = self.algorithm.blocks, self._runs.run
            known |= {"mask_id": plan.masks_of(run, blocks), "repeat": plan.repeats_of(run, blocks)}
        return known

    def _title(self) -> str:
        on = f" on {self.target_set}" if self._outputs else ""
        return f"dmstore runs of {self.algorithm.name}{on}"

    def _facts(self) -> Facts:
        of = len(self) + len(self.pending)
        rows = f"{len(self)} of {of}" if self.algorithm.planned or self._outputs else f"{len(self)}"
        return Facts(
            self._title(),
            [
                ("runs", rows),
                ("train units", f"{self.algorithm.train}"),
                ("targets", f"{self._rows.table.sizes['target']} in {self.target_set}"),
                ("outputs", ", ".join(sorted(self.algorithm.outputs))),
                ("content id", self.content_id[:12]),
            ],
        )
