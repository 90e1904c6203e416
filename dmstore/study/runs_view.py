"""The finished runs of an algorithm as labelled data, pinned to a moment."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dmstore.storage.table.snapshot import content_id
from dmstore.study import dataset, display, plan
from dmstore.study.annotation import portable
from dmstore.study.target_outputs import TargetOutputs, joined

if TYPE_CHECKING:
    import xarray as xr

    from dmstore.study.algorithm import Algorithm
    from dmstore.study.study import Study


class RunsView:
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

    def __init__(self, study: Study, algorithm: Algorithm, outputs: TargetOutputs | None) -> None:
        self._study = study
        self._outputs = outputs
        self.algorithm = algorithm
        self.target_set = outputs.target_set if outputs else algorithm.target_set
        self._runs = algorithm.table.view()
        if outputs is None:
            self._shown = self._runs
            self._row = np.arange(len(self._runs), dtype=np.int64)
            self._position = self._row
            self.pending = algorithm.missing(self._runs.run)
        else:
            self._shown = outputs.table.view()
            position = joined(self._runs, self._shown)
            self._row = np.flatnonzero(position >= 0)
            self._position = position[self._row]
            self.pending = self._runs.run[position < 0]
        self.run: NDArray[np.int64] = self._runs.run[self._row]
        self.version = self._shown.manifest.version
        self.content_id = content_id(self.run, self._shown.digest[self._position])

    def __len__(self) -> int:
        return len(self.run)

    def refresh(self) -> RunsView:
        """The runs as they are now. This view stays what it is."""
        return RunsView(self._study, self.algorithm, self._outputs)

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
        coords: dict[str, Any] = {
            "run": self.run,
            **columns,
            **self._study.labels(self.target_set),
            "split": ("run", split),
        }
        if any("class" in entry["dims"] for entry in self.algorithm.outputs.values()):
            coords["class"] = self._study.class_names
        names = sorted(self.algorithm.outputs)
        attrs = {
            "study": self._study.uuid,
            "algorithm": self.algorithm.name,
            "target_set": self.target_set,
            "version": self.version,
            "content_id": self.content_id,
            "conflicts": len(self._shown.conflicts),
            "pending": len(self.pending),
        }
        variables = {
            **dataset.wide_arrays(self._runs, ["mask"], self._row),
            **dataset.wide_arrays(self._shown, names, self._position),
        }
        return portable(xr.Dataset(variables, coords=coords, attrs=attrs))

    def _known(self) -> dict[str, NDArray[Any]]:
        """Coordinates that are known without reading them: digests, and what the plan says."""
        known: dict[str, NDArray[Any]] = {"row_digest": self._runs.digest}
        if self.algorithm.planned:
            blocks, run = self.algorithm.blocks(), self._runs.run
            known |= {"mask_id": plan.masks_of(run, blocks), "repeat": plan.repeats_of(run, blocks)}
        return known

    def _facts(self) -> display.Facts:
        on = f" on {self.target_set}" if self._outputs else ""
        of = len(self) + len(self.pending)
        rows = f"{len(self)} of {of}" if self.algorithm.planned or self._outputs else f"{len(self)}"
        return display.Facts(
            f"dmstore runs of {self.algorithm.name}{on}",
            [
                ("runs", rows),
                ("train units", f"{self.algorithm.train}"),
                ("targets", f"{self._shown.table.sizes['target']} in {self.target_set}"),
                ("outputs", ", ".join(sorted(self.algorithm.outputs))),
                ("content id", self.content_id[:12]),
            ],
        )

    def __repr__(self) -> str:
        return display.as_text(self._facts())

    def _repr_html_(self) -> str:
        return display.as_html(self._facts())
