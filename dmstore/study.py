"""A study: one training set, its target sets, its algorithms, and what was computed from them."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dmstore import algorithm as algorithms
from dmstore import examples as example_sets
from dmstore import schema
from dmstore.algorithm import ANCHOR, Algorithm
from dmstore.errors import InputError, NotFoundError, StudyNotFoundError
from dmstore.storage import groups
from dmstore.storage.objects import LocalObjects, Objects, storage_error

if TYPE_CHECKING:
    import xarray as xr


def open_study(path: str | Path) -> Study:
    """Open a study.

    Parameters
    ----------
    path : path
        The study's directory.

    Returns
    -------
    Study

    Raises
    ------
    StudyNotFoundError
        If there is no study.
    FormatError
        If it is damaged or of a newer format.
    """
    root = Path(path)
    try:
        raw = (root / ANCHOR).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        msg = f"{path}: no study there (no {ANCHOR}); make one with 'dmstore init'"
        raise StudyNotFoundError(msg) from None
    except OSError as error:
        raise storage_error(error, root / ANCHOR) from error
    document = schema.load_document("study", raw, str(root / ANCHOR))
    return Study(LocalObjects(root, anchor=ANCHOR), document)


class Study:
    """An opened study. Make one with :func:`open_study` or :func:`create_study`.

    Attributes
    ----------
    objects : Objects
        Its storage.
    document : dict
        ``study.json``.
    """

    def __init__(self, objects: Objects, document: Mapping[str, Any]) -> None:
        self.objects = objects
        self.document = dict(document)
        self.uuid: str = document["uuid"]
        self.seed: int = document["seed"]

    @property
    def path(self) -> str:
        """Where the study is."""
        return self.objects.url

    @property
    def algorithms(self) -> list[str]:
        """Names of the algorithms."""
        return [
            name
            for name in self.objects.children("algorithms/")
            if self.objects.exists(f"algorithms/{name}/algorithm.json")
        ]

    @functools.cached_property
    def class_names(self) -> list[str]:
        """Names of the classes; their numbers where the study has no names."""
        import zarr

        where = "examples/annotations/class-name.zarr"
        if self.objects.children(where):
            group: Any = zarr.open_group(self.objects.reader(where), mode="r", zarr_format=3)
            return [str(name) for name in group["value"][:]]
        return [str(number) for number in range(self.document.get("classes", 0))]

    def class_number(self, text: str) -> int:
        """Number of a class given by its name or number; InputError if there is none."""
        if text in self.class_names:
            return self.class_names.index(text)
        if text.isdecimal() and int(text) < len(self.class_names):
            return int(text)
        msg = f"class {text!r} is not in the study; it has {', '.join(self.class_names)} (classes 0 to {len(self.class_names) - 1})"
        raise InputError(msg)

    @functools.cached_property
    def train(self) -> xr.Dataset:
        """The train units: ids and annotations, dim ``train``."""
        return example_sets.dataset(self.objects, "train", self._ids("train"), "train")

    @functools.cached_property
    def targets(self) -> xr.Dataset:
        """The target set ``test``: ids and annotations, dim ``target``."""
        return self.target_set("test")

    def target_set(self, name: str) -> xr.Dataset:
        """A named target set: ids and annotations, dim ``target``."""
        return example_sets.dataset(self.objects, name, self._ids(name), "target")

    def label(self, name: str = "test") -> NDArray[np.int64]:
        """Class of each example of a set (``train`` or a target set): (example,) int64.

        One class for all, 0, where the study has no labels.
        """
        examples = self.train if name == "train" else self.target_set(name)
        if "label" in examples:
            return np.asarray(examples["label"].values, dtype=np.int64)
        return np.zeros(len(self._ids(name)), dtype=np.int64)

    def _ids(self, name: str) -> NDArray[Any]:
        entry = self.document["train"] if name == "train" else self.document["targets"].get(name)
        if entry is None:
            msg = f"target set {name!r} is not in this study"
            raise NotFoundError(msg)
        try:
            return example_sets.read_ids(self.objects, name, entry["count"], entry["sha256"])
        except FileNotFoundError:
            msg = f"{self.path}: examples/{name}.zarr is gone; the study was deleted or damaged"
            raise StudyNotFoundError(msg) from None

    def target_train(self, name: str = "test") -> NDArray[np.int64]:
        """The train unit that each target of a set is, -1 where it is none: (target,) int64."""
        ids = self._ids(name)
        found = groups.read(self.objects, f"examples/{name}.zarr")
        return np.asarray(found.get("target_train", np.full(len(ids), -1)), dtype=np.int64)

    def add_algorithm(
        self,
        name: str,
        *,
        alpha: float | None = 0.5,
        runs: int = 0,
        repeats: int = 1,
        sampling: str = "planned",
        masks: str = "shared",
        outputs: Sequence[str] | Mapping[str, Mapping[str, Any]] = ("margin",),
        task: str | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> Algorithm:
        """Add an algorithm.

        Parameters
        ----------
        name : str
        alpha : float
            Share of the training set that a run sees, strictly between 0 and 1.
        runs : int
            Runs to plan now; more can be added with :meth:`Algorithm.extend`.
        repeats : int
            Runs that share a mask.
        sampling : {"planned", "foreign"}
            Whether masks are the plan's or made elsewhere.
        masks : {"shared", "independent"}
            Whether mask m is the same for all algorithms of the study.
        outputs : sequence of str or mapping
            What a run says on each target; see :func:`dmstore.algorithm.declare_outputs`.
        task : str, optional
            ``package.module:function`` that makes the training task.
        config : mapping, optional
            Passed to the task.

        Raises
        ------
        InputError, ExistsError
            If a value is not allowed or the name is taken.
        """
        return algorithms.add(
            self.objects,
            self.document,
            name,
            alpha=alpha,
            runs=runs,
            repeats=repeats,
            sampling=sampling,
            masks=masks,
            outputs=outputs,
            task=task,
            config=config,
        )

    def algorithm(self, name: str) -> Algorithm:
        """Open an algorithm; NotFoundError if the study has none of this name."""
        return algorithms.open_algorithm(self.objects, self.document, name)

    def runs(self, algorithm: str) -> xr.Dataset:
        """The finished runs of an algorithm, pinned to this moment.

        Returns
        -------
        xarray.Dataset
            ``mask`` (run, train) bool and every declared output (run, target[, class]), lazy;
            coordinates ``run``, ``split`` (train, holdout or eval), ``seed``, ``mask_id``, further
            columns, and the ids and labels of train units and targets.
        """
        from dmstore import dataset

        opened = self.algorithm(algorithm)
        view = opened.table.view()
        mask_id = view.read(["mask_id"])["mask_id"]
        split = opened.split(mask_id) if len(view) else np.empty(0, dtype="<U7")
        attrs = {
            "study": self.uuid,
            "algorithm": algorithm,
            "version": view.manifest.version,
            "content_id": view.content_id(),
            "conflicts": len(view.conflicts),
        }
        coords = {**self._labels(opened.target_set), "split": ("run", split)}
        if any("class" in entry["dims"] for entry in opened.outputs.values()):
            coords["class"] = self.class_names
        return dataset.runs_dataset(view, coords, attrs)

    def _labels(self, target_set: str = "test") -> dict[str, Any]:
        targets = self.target_set(target_set)
        found: dict[str, Any] = {
            "train": self.train["train"].values,
            "target": targets["target"].values,
        }
        for dim, examples in (("train", self.train), ("target", targets)):
            if "label" in examples:
                found[f"{dim}_label"] = (dim, examples["label"].values)
        return found

    def fits(self, algorithm: str) -> list[dict[str, Any]]:
        """Documents of an algorithm's fits, oldest first, with ``complete`` added."""
        self.algorithm(algorithm)
        found = []
        for name in self.objects.children(f"datamodels/{algorithm}/"):
            where = f"datamodels/{algorithm}/{name}"
            if self.objects.exists(f"{where}/fit.json"):
                document = schema.load_document("fit", self.objects.get(f"{where}/fit.json"), where)
                found.append(
                    {**document, "complete": self.objects.exists(f"{where}/complete.json")}
                )
        return sorted(found, key=lambda fit: (fit.get("created", ""), fit["fit"]))

    def newest_fit(self, algorithm: str, fit: str | None = None) -> dict[str, Any]:
        """The newest complete fit of an algorithm, or the one named.

        Raises
        ------
        NotFoundError
            If there is none.
        """
        found = [f for f in self.fits(algorithm) if f["complete"] and fit in (None, f["fit"])]
        if not found:
            named = f"fit {fit!r}" if fit else "finished fit"
            msg = f"algorithm {algorithm!r} has no {named}; run 'dmstore fit {self.path} {algorithm}' first"
            raise NotFoundError(msg)
        return found[-1]

    def datamodels(self, algorithm: str, fit: str | None = None) -> xr.Dataset:
        """The datamodels of an algorithm: its newest complete fit, or the one named.

        Returns
        -------
        xarray.Dataset
            ``weight`` (target, train), ``bias``, ``lam``, certificates; lazy.
        """
        document = self.newest_fit(algorithm, fit)
        result = self._open_result(f"datamodels/{algorithm}/{document['fit']}/", "datamodels")
        labels = self._labels(document["target_set"])
        result = result.assign_coords(labels)
        return result.assign_attrs(
            {k: document[k] for k in ("fit", "algorithm", "content_id", "version", "output")}
        )

    def comparisons(self) -> list[dict[str, Any]]:
        """Documents of finished comparisons, oldest first."""
        found = []
        for name in self.objects.children("comparisons/"):
            where = f"comparisons/{name}/comparison.json"
            if self.objects.exists(f"comparisons/{name}/complete.json"):
                found.append(schema.load_document("comparison", self.objects.get(where), where))
        return sorted(found, key=lambda entry: (entry.get("created", ""), entry["comparison"]))

    def comparison(self, a: str, b: str, comparison: str | None = None) -> xr.Dataset:
        """The newest comparison of algorithms `a` and `b` (in either order).

        Raises
        ------
        NotFoundError
            If they have not been compared.
        """
        for name in (a, b):
            self.algorithm(name)
        found = [
            entry
            for entry in self.comparisons()
            if set(entry["algorithms"]) == {a, b} and comparison in (None, entry["comparison"])
        ]
        if not found:
            msg = f"{a!r} and {b!r} have not been compared; run 'dmstore compare {self.path} {a} {b}' first"
            raise NotFoundError(msg)
        document = found[-1]
        result = self._open_result(f"comparisons/{document['comparison']}/", "comparison")
        return result.assign_coords(self._labels()).assign_attrs(
            {"comparison": document["comparison"], "algorithms": document["algorithms"]}
        )

    def _open_result(self, directory: str, kind: str) -> xr.Dataset:
        """Open what a ``complete.json`` names."""
        import xarray as xr
        import zarr

        where = f"{directory}complete.json"
        try:
            complete = schema.load_document("complete", self.objects.get(where), where)
        except FileNotFoundError:
            msg = f"{self.path}/{where}: is gone; the study was deleted or damaged"
            raise StudyNotFoundError(msg) from None
        where = f"{directory}{complete['path']}"
        try:
            store = self.objects.reader(where)
            group = zarr.open_group(store, mode="r", zarr_format=3)
        except FileNotFoundError:
            msg = f"{self.path}/{where}: is gone; the study was deleted or damaged"
            raise StudyNotFoundError(msg) from None
        schema.check_group(group, schema.group_spec(kind), {}, where)
        opened: xr.Dataset = xr.open_zarr(store, chunks={}, consolidated=True)
        texts = {
            name: (array.dims, schema.text(array.values))
            for name, array in opened.variables.items()
            if array.dtype.kind in "OT"
        }
        return opened.assign_coords(texts)

    def tree(self) -> xr.DataTree:
        """Everything as one lazy tree: ``train``, ``targets``, ``runs/NAME``, ``datamodels/NAME``,
        ``comparisons/A,B``.
        """
        import xarray as xr

        nodes: dict[str, xr.Dataset] = {"/train": self.train, "/targets": self.targets}
        for name in self.algorithms:
            nodes[f"/runs/{name}"] = self.runs(name)
            if any(fit["complete"] for fit in self.fits(name)):
                nodes[f"/datamodels/{name}"] = self.datamodels(name)
        for entry in self.comparisons():
            a, b = entry["algorithms"]
            nodes[f"/comparisons/{a},{b}"] = self.comparison(a, b)
        return xr.DataTree.from_dict(nodes, name=Path(self.path).name)

    def target(self, target: int | str) -> Target:
        """One target, by id: its datamodels under every fitted algorithm."""
        index = self.targets.indexes["target"]
        if target not in index:
            msg = f"target {target!r} is not in this study"
            raise NotFoundError(msg)
        return Target(self, int(index.get_loc(target)))

    def __repr__(self) -> str:
        names = ", ".join(self.algorithms) or "no algorithms yet"
        return (
            f"<dmstore.Study {self.path}: {self.document['train']['count']} train units, "
            f"{self.document['targets']['test']['count']} targets; {names}>"
        )


class Target:
    """One target of a study."""

    def __init__(self, study: Study, position: int) -> None:
        self.study = study
        self.position = position

    def top(self, count: int = 10) -> xr.Dataset:
        """Its most influential train units under each fitted algorithm.

        Parameters
        ----------
        count : int
            How many.

        Returns
        -------
        xarray.Dataset
            ``train`` (algorithm, rank): ids; ``weight`` and ``label`` beside them; by decreasing
            absolute weight, which is NaN where the target has fewer with any.
        """
        import xarray as xr

        names = [
            name
            for name in self.study.algorithms
            if any(f["complete"] for f in self.study.fits(name))
        ]
        units, weights, labels = [], [], []
        for name in names:
            row = self.study.datamodels(name)["weight"].isel(target=self.position).values
            order = np.argsort(-np.abs(row), kind="stable")[:count]
            units.append(self.study.train["train"].values[order])
            weights.append(np.where(row[order] != 0, row[order], np.nan))
            labels.append(self.study.label("train")[order])
        shape = (len(names), min(count, self.study.document["train"]["count"]))
        dims = ("algorithm", "rank")
        return xr.Dataset(
            {
                "train_id": (dims, np.reshape(units, shape)),
                "weight": (dims, np.reshape(weights, shape)),
                "label": (dims, np.reshape(labels, shape)),
            },
            coords={
                "algorithm": names,
                "target": self.study.targets["target"].values[self.position],
            },
        )
