"""A study: one training set, its target sets, its algorithms, and what was computed from them."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dmstore.errors import DmstoreError, InputError, StudyNotFoundError
from dmstore.schema.documents import load_document
from dmstore.schema.typed_documents import (
    AboutDocument,
    AlgorithmMasks,
    AlgorithmSampling,
    AlgorithmSplit,
    ComparisonDocument,
    StudyDocument,
)
from dmstore.storage.location import open_location
from dmstore.storage.objects.objects import Objects
from dmstore.storage.objects.refusals import storage_error
from dmstore.study import changes, results, target_sets
from dmstore.study import removal as removals
from dmstore.study.about import read_about
from dmstore.study.algorithm import ANCHOR, Algorithm, require_study
from dmstore.study.algorithms import add_algorithm, open_algorithm
from dmstore.study.display import Displayed, Facts, size
from dmstore.study.example_sets import ExampleSets
from dmstore.study.examples import read_npz
from dmstore.study.full import MODELS, FullModels
from dmstore.study.removal import RemovalRuns
from dmstore.study.results import ListedFit
from dmstore.study.runs_view import RunsView
from dmstore.study.target import Target, find
from dmstore.study.target_outputs import TargetOutputs
from dmstore.study.target_sets import TargetSet

if TYPE_CHECKING:
    import xarray as xr


def open_study(path: str | Path) -> Study:
    """Open a study.

    Parameters
    ----------
    path : path or str
        The study's directory, or its ``s3://``, ``gs://``, ``az://``, ``memory://`` or ``https://`` URL.

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
    objects = open_location(path, anchor=ANCHOR)
    try:
        raw = objects.get(ANCHOR)
    except (FileNotFoundError, NotADirectoryError):
        msg = f"{objects.url}: no study there (no {ANCHOR}); make one with 'dmstore init'"
        if objects.children("algorithms/") or objects.children("examples/"):
            msg = f"{objects.url}: parts of a study without {ANCHOR}, as a copy that was interrupted leaves them; copy it again, whole"
        raise StudyNotFoundError(msg) from None
    except OSError as error:
        if isinstance(error, DmstoreError):
            raise
        raise storage_error(error, f"{objects.url}/{ANCHOR}") from error
    return Study(objects, load_document("study", raw, f"{objects.url}/{ANCHOR}"))


def check_opened(study: object) -> None:
    """Say how a study is opened where its path was given.

    Raises
    ------
    InputError
        If it is no study.
    """
    if not isinstance(study, Study):
        shown = f"{study!r:.80}" if isinstance(study, str | Path) else f"{type(study).__name__}"
        msg = f"{shown} is no opened study; give dmstore.open_study(path)"
        raise InputError(msg)


class Study(Displayed):
    """An opened study. Make one with :func:`open_study` or :func:`create_study`.

    Attributes
    ----------
    objects : Objects
        Its storage.
    document : dict
        ``study.json``.
    """

    def __init__(self, objects: Objects, document: StudyDocument) -> None:
        self.objects = objects
        self.document = document.copy()
        self.uuid = document["uuid"]
        self.seed = document["seed"]
        self._sets = ExampleSets(objects, self.document)

    @property
    def path(self) -> str:
        """Where the study is."""
        return self.objects.url

    @property
    def algorithms(self) -> list[str]:
        """Names of the algorithms, without those that were removed."""
        listed = changes.of_all(self.objects)
        return [name for name, state in listed.items() if not state.removed]

    @property
    def removed(self) -> dict[str, str]:
        """Names of the algorithms that were removed, and why."""
        listed = changes.of_all(self.objects)
        return {name: state.reason for name, state in listed.items() if state.removed}

    def remove_algorithm(self, name: str, *, reason: str = "") -> None:
        """Take an algorithm out of the study; see :meth:`Algorithm.remove`. The same call again does nothing.

        Parameters
        ----------
        name : str
        reason : str
            Stands in the log; needed where any run is stored.

        Raises
        ------
        NotFoundError
            If there never was one of this name.
        InputError
            If it has runs and there is no reason.
        ConflictError
            If a run was stored at the same moment, and there is no reason.
        """
        open_algorithm(self.objects, self.document, name, removed=True).remove(reason=reason)

    def restore_algorithm(self, name: str, *, reason: str = "") -> Algorithm:
        """Take a removed algorithm back, with all that is stored of it.

        Parameters
        ----------
        name : str
        reason : str
            Stands in the log.

        Returns
        -------
        Algorithm

        Raises
        ------
        NotFoundError
            If there never was one of this name.
        ConflictError
            If another host changed the algorithm at the same moment.
        """
        opened = open_algorithm(self.objects, self.document, name, removed=True)
        opened.restore(reason=reason)
        return opened

    @property
    def class_names(self) -> list[str]:
        """Names of the classes; their numbers where the study has no names."""
        return self._sets.class_names

    def class_number(self, text: str) -> int:
        """Number of a class given by its name or number.

        Parameters
        ----------
        text : str

        Returns
        -------
        int

        Raises
        ------
        InputError
            If there is no such class, or there are several.
        """
        return self._sets.class_number(text)

    @property
    def train(self) -> xr.Dataset:
        """The train units: ids and annotations, dim ``train``."""
        return self._sets["train"]

    @property
    def targets(self) -> xr.Dataset:
        """The target set ``test``: ids and annotations, dim ``target``."""
        return self._sets["test"]

    @property
    def classes(self) -> xr.Dataset:
        """The classes: names and annotations, dim ``class``."""
        return self._sets["class"]

    def target_set(self, name: str) -> xr.Dataset:
        """A named target set.

        Parameters
        ----------
        name : str

        Returns
        -------
        xarray.Dataset
            Ids and annotations, dim ``target``.

        Raises
        ------
        NotFoundError
            If there is no such set.
        """
        return self._sets[name]

    def label(self, name: str = "test", /) -> NDArray[np.int64]:
        """Class of each example of a set.

        Parameters
        ----------
        name : str
            ``train``, or a target set.

        Returns
        -------
        (example,) int64
            All 0 where the set has no labels.

        Raises
        ------
        NotFoundError
            If there is no such set.
        """
        return self._sets.label(name)

    @property
    def target_sets(self) -> dict[str, TargetSet]:
        """All target sets: name to ``count``, ``sha256``, ``path`` and ``later`` (added later)."""
        return self._sets.all_targets()

    def ids(self, name: str) -> NDArray[np.str_]:
        """Ids of a set.

        Parameters
        ----------
        name : str
            ``train``, a target set, or ``class``.

        Returns
        -------
        (example,) str
            Of ``class`` the names of the classes.

        Raises
        ------
        NotFoundError
            If there is no such set.
        FormatError
            If they are not those that the study was made with.
        """
        return self._sets.ids(name)

    def target_train(self, name: str = "test", /) -> NDArray[np.int64]:
        """The train unit that each target of a set is.

        Parameters
        ----------
        name : str
            A target set.

        Returns
        -------
        (target,) int64
            -1 where a target is none.

        Raises
        ------
        NotFoundError
            If there is no such set.
        """
        return self._sets.target_train(name)

    def annotate(
        self,
        set_name: str,
        columns: Mapping[str, Any] | None = None,
        origin: Mapping[str, Any] | None = None,
        /,
        **more: Any,
    ) -> dict[str, str]:
        """Add labels, groups, images, texts or numbers to a set. They never change after that.

        Parameters
        ----------
        set_name : str
            ``train``, ``test``, another target set, or ``class``.
        columns, **more
            Name to one value per example (of ``class``: a class), in the order of the set's ids.
            All are checked before the first is written; each is there whole or not at all.
        origin : mapping, optional
            What made them, kept beside each.

        Returns
        -------
        dict
            Name to ``new``, or ``present`` where the very same values were there already.

        Raises
        ------
        NotFoundError
            If there is no such set.
        InputError
            If a column cannot be stored, or is not one value per example.
        ExistsError
            If an annotation of the name is there with other values.
        """
        return self._sets.annotate(set_name, {**(columns or {}), **more}, made=origin)

    def annotation_origin(self, set_name: str, column: str, /) -> dict[str, Any] | None:
        """What made an annotation.

        Parameters
        ----------
        set_name : str
            ``train``, a target set, or ``class``.
        column : str

        Returns
        -------
        dict, or None
            As it was given to :meth:`annotate`, {} if nothing was; None if there is no such annotation.

        Raises
        ------
        NotFoundError
            If there is no such set.
        """
        return self._sets.origin(set_name, column)

    def check_annotations(self, set_name: str, columns: Mapping[str, Any]) -> dict[str, str]:
        """What :meth:`annotate` would do with columns; nothing is stored.

        Parameters
        ----------
        set_name : str
        columns : mapping
            Name to one value per example.

        Returns
        -------
        dict
            Name to ``new``, or ``present`` where the very same values are there.

        Raises
        ------
        NotFoundError, InputError, ExistsError
            As :meth:`annotate`.
        """
        return self._sets.annotate(set_name, columns, dry_run=True)

    def add_targets(self, name: str, examples: str | Path | Mapping[str, Any]) -> str:
        """Add a target set, on which outputs of existing runs can be stored.

        Parameters
        ----------
        name : str
            Letters, digits, ``.`` and ``_``; a ``-`` is stored, and found again, as ``_``.
        examples : path or mapping
            An ``.npz`` file or arrays: ``label`` (target,) integers; optional ``image``, ``id``,
            ``train`` (the train unit that a target is, or -1) and further columns, each with or
            without ``target_`` before it.

        Returns
        -------
        str
            ``new``, or ``present`` if the set is there with the same content.

        Raises
        ------
        InputError
            If the name or the examples cannot be used.
        ExistsError
            If there is another set of that name.
        """
        name = target_sets.canonical(name)
        if isinstance(examples, Mapping):
            return target_sets.add(self.objects, self.document, name, examples, "examples")
        arrays = read_npz(examples)
        return target_sets.add(self.objects, self.document, name, arrays, str(examples))

    def add_algorithm(
        self,
        name: str,
        *,
        alpha: float | None = 0.5,
        runs: int = 0,
        repeats: int = 1,
        sampling: AlgorithmSampling = "planned",
        masks: AlgorithmMasks = "shared",
        outputs: Sequence[str] | Mapping[str, Mapping[str, Any]] = ("margin",),
        task: str | None = None,
        config: Mapping[str, Any] | None = None,
        split: AlgorithmSplit | None = None,
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
            What a run says on each target; see :func:`dmstore.study.declaration.declare_outputs`.
        task : str, optional
            ``package.module:function`` that makes the training task.
        config : mapping, optional
            Passed to the task.
        split : {"eval"}, optional
            All runs are for evaluation, as of a benchmark that was made elsewhere: nothing is fitted on them.
            By default a hash of each mask says what its runs are for.

        Returns
        -------
        Algorithm

        Raises
        ------
        InputError
            If a value is not allowed.
        ExistsError
            If the name is taken.
        """
        return add_algorithm(
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
            split=split,
        )

    def algorithm(self, name: str) -> Algorithm:
        """Open an algorithm.

        Parameters
        ----------
        name : str

        Returns
        -------
        Algorithm

        Raises
        ------
        NotFoundError
            If the study has none of this name.
        FormatError
            If its document is damaged, of another study, or of another format.
        """
        return open_algorithm(self.objects, self.document, name)

    def runs(self, algorithm: str) -> xr.Dataset:
        """The finished runs of an algorithm, pinned to this moment: ``view(algorithm).dataset``.

        Parameters
        ----------
        algorithm : str

        Returns
        -------
        xarray.Dataset
            See :attr:`dmstore.study.runs_view.RunsView.dataset`.

        Raises
        ------
        NotFoundError
            If the study has no algorithm of this name.
        """
        return self.view(algorithm).dataset

    def outputs(self, algorithm: str, target_set: str) -> xr.Dataset:
        """The runs that have outputs on a later target set, pinned: ``view(algorithm, target_set).dataset``.

        Parameters
        ----------
        algorithm : str
        target_set : str

        Returns
        -------
        xarray.Dataset
            As of :meth:`runs` with the outputs and labels of that set; attribute ``pending`` is the number of
            stored runs that have no outputs there yet.

        Raises
        ------
        NotFoundError
            If there is no such algorithm or set.
        """
        return self.view(algorithm, target_set).dataset

    def view(self, algorithm: str, target_set: str | None = None) -> RunsView:
        """A pinned view of an algorithm's runs.

        Parameters
        ----------
        algorithm : str
        target_set : str, optional
            Show outputs on this set, of the runs that have them.

        Returns
        -------
        RunsView
            With ``dataset``, ``pending`` and ``refresh()``.

        Raises
        ------
        NotFoundError
            If there is no such algorithm or set.
        """
        opened = self.algorithm(algorithm)
        target_set = None if target_set is None else target_sets.canonical(target_set)
        own = target_set in (None, opened.target_set)
        outputs = None if own else self.target_outputs(algorithm, str(target_set))
        shown = opened.target_set if own else str(target_set)
        return RunsView(opened, outputs, self.uuid, functools.partial(self._names, shown))

    def _names(self, target_set: str) -> dict[str, Any]:
        """Coordinates of a view on a target set."""
        return {**self.labels(target_set), "class": self.class_names}

    def full_models(self, algorithm: str, count: int | None = None) -> FullModels:
        """The models of an algorithm that were trained on all data, for counterfactual checks.

        They are no runs of the algorithm: nothing is fitted on them.

        Parameters
        ----------
        algorithm : str
        count : int, optional
            How many there are to be; the paper's 500 by default.

        Returns
        -------
        FullModels

        Raises
        ------
        NotFoundError
            If the study has no algorithm of this name.
        InputError
            If the number is not positive.
        """
        opened = self.algorithm(algorithm)
        wanted = MODELS if count is None else count
        return FullModels(self.objects, self.document, opened.document, wanted)

    def removals(self, algorithm: str, /) -> list[str]:
        """Names of the removals that models of an algorithm were asked for, and of their controls.

        What a loop of your own trains: each with ``RunWriter(study, algorithm, removal=name)``.

        Parameters
        ----------
        algorithm : str

        Returns
        -------
        list of str
            As :meth:`removal_runs` takes them.

        Raises
        ------
        NotFoundError
            If there is no such algorithm.
        """
        return removals.names(self.objects, self.algorithm(algorithm).prefix)

    def removal_runs(self, algorithm: str, removal: str, count: int | None = None) -> RemovalRuns:
        """The models of an algorithm that were trained without some train units, or the controls of such.

        They are no runs of the algorithm: nothing is fitted on them.

        Parameters
        ----------
        algorithm : str
        removal : str
            The name that 'dmstore removal' gives.
        count : int, optional
            How many there are to be; 10 by default.

        Returns
        -------
        RemovalRuns

        Raises
        ------
        NotFoundError
            If there is no such algorithm or removal.
        InputError
            If the number is negative.
        """
        opened = self.algorithm(algorithm)
        document = removals.read(
            self.objects, opened.prefix, removal, opened.document, opened.train
        )
        wanted = removals.MODELS if count is None else count
        return RemovalRuns(self.objects, self.document, opened.document, document, wanted)

    def target_outputs(
        self, algorithm: str, target_set: str, *, full: bool = False
    ) -> TargetOutputs:
        """The table of an algorithm's outputs on a target set that was added later.

        Parameters
        ----------
        algorithm : str
        target_set : str
        full : bool
            Of its models trained on all data instead of its runs.

        Returns
        -------
        TargetOutputs

        Raises
        ------
        NotFoundError
            If there is no such algorithm or set.
        InputError
            If outputs on the set are part of the runs themselves.
        """
        opened = self.full_models(algorithm) if full else self.algorithm(algorithm)
        target_set = target_sets.canonical(target_set)
        if target_set == opened.target_set:
            msg = f"outputs on {target_set!r} are part of the runs of {algorithm!r}; store them with the runs"
            raise InputError(msg)
        entry = target_sets.require(self.objects, self.document, target_set)
        return TargetOutputs(opened, target_set, entry["count"])

    def labels(self, target_set: str = "test", /) -> dict[str, Any]:
        """Coordinates that name train units and targets.

        Parameters
        ----------
        target_set : str

        Returns
        -------
        dict
            ``train`` and ``target`` ids; ``train_label`` and ``target_label`` where there are labels.

        Raises
        ------
        NotFoundError
            If there is no such set.
        """
        return self._sets.labels(target_set)

    def fits(self, algorithm: str) -> list[ListedFit]:
        """Documents of an algorithm's fits, oldest first.

        Parameters
        ----------
        algorithm : str

        Returns
        -------
        list of dict
            ``fit.json`` of each, with ``complete`` added.

        Raises
        ------
        NotFoundError
            If the study has no algorithm of this name.
        """
        self.algorithm(algorithm)
        return results.fits(self.objects, algorithm)

    def newest_fit(
        self, algorithm: str, fit: str | None = None, output: str | None = None
    ) -> ListedFit:
        """The document of the newest complete fit, or of the one named.

        Parameters
        ----------
        algorithm : str
        fit : str, optional
            Its name.
        output : str, optional
            Of this output alone.

        Returns
        -------
        dict
            ``fit.json``, with ``complete`` added.

        Raises
        ------
        NotFoundError
            If there is no such algorithm or fit.
        """
        self.algorithm(algorithm)
        return results.newest_fit(self.objects, algorithm, fit, output)

    def datamodels(self, algorithm: str, fit: str | None = None) -> xr.Dataset:
        """The datamodels of an algorithm.

        Parameters
        ----------
        algorithm : str
        fit : str, optional
            The newest complete one by default.

        Returns
        -------
        xarray.Dataset
            ``weight`` (target, train) float32 in output units per train unit seen, ``bias``, ``lam``, certificates;
            lazy.

        Raises
        ------
        NotFoundError
            If there is no such algorithm or fit.
        """
        document = self.newest_fit(algorithm, fit)
        result = results.opened(
            self.objects, f"datamodels/{algorithm}/{document['fit']}/", "datamodels"
        )
        labels = self.labels(document["target_set"])
        return result.assign_coords(labels).assign_attrs(
            fit=document["fit"],
            algorithm=document["algorithm"],
            content_id=document["content_id"],
            version=document["version"],
            output=document["output"],
        )

    @property
    def comparisons(self) -> list[ComparisonDocument]:
        """Documents of finished comparisons of algorithms that are there, oldest first."""
        gone = set(self.removed)
        listed = results.comparisons(self.objects)
        return [entry for entry in listed if not gone & set(entry["algorithms"])]

    def comparison(self, a: str, b: str, comparison: str | None = None) -> xr.Dataset:
        """A finished comparison of two algorithms.

        Parameters
        ----------
        a, b : str
            In either order.
        comparison : str, optional
            Its name; the newest by default.

        Returns
        -------
        xarray.Dataset
            As in ``comparison.group.json``, lazy; of some targets alone, the attributes ``where`` and
            ``targets`` say which and how many.

        Raises
        ------
        NotFoundError
            If they have not been compared.
        """
        for name in (a, b):
            self.algorithm(name)
        document = results.newest_comparison(self.objects, a, b, comparison)
        result = results.opened(
            self.objects, f"comparisons/{document['comparison']}/", "comparison"
        )
        fit = self.newest_fit(document["algorithms"][0], document["fits"][0])
        about = {
            key: document["parameters"][key]
            for key in ("where", "targets", "fdr")
            if key in document["parameters"]
        }
        return result.assign_coords(self.labels(fit["target_set"])).assign_attrs(
            {"comparison": document["comparison"], "algorithms": document["algorithms"], **about}
        )

    @property
    def tree(self) -> xr.DataTree:
        """Everything as one lazy tree: ``train``, ``targets``, ``target_sets/SET``, ``runs/NAME``,
        ``outputs/NAME/SET``, ``datamodels/NAME``, ``comparisons/A,B``.
        """
        from dmstore.study.tree import study_tree

        return study_tree(self)

    def target(self, target: int | str) -> Target:
        """One target and its datamodels under every fitted algorithm.

        Parameters
        ----------
        target : int or str
            Its id, of the target set ``test``; its place, from 0, where ids are texts and a number is given.

        Returns
        -------
        Target
            With ``top(10)`` and ``show()``.

        Raises
        ------
        NotFoundError
            If there is no such target.
        """
        own, position = find(self.targets, target)
        weights = functools.partial(self._weights, position)
        return Target(own, position, self, weights, self.train["train"].values, self.label("train"))

    def _weights(self, position: int) -> dict[str, NDArray[np.float32]]:
        """Weights of one target of the set ``test`` under each algorithm that is fitted on it."""
        rows = {}
        for name in self.algorithms:
            own = [f["fit"] for f in self.fits(name) if f["complete"] and f["target_set"] == "test"]
            if own:
                weight = self.datamodels(name, own[-1])["weight"]
                rows[name] = np.asarray(weight.isel(target=position).values)
        return rows

    @property
    def about(self) -> AboutDocument:
        """The newest title, authors, licence and citation; empty if there are none."""
        return read_about(self.objects)

    def _facts(self) -> Facts:
        """Its sets, its algorithms with their runs, fits and sizes, comparisons."""
        require_study(self.objects)
        rows: list[tuple[str, ...]] = []
        for name in self.algorithms:
            algorithm = self.algorithm(name)
            fits = [fit["complete"] for fit in self.fits(name)]
            unfinished = "" if all(fits) else f" and {len(fits) - sum(fits)} unfinished"
            stored, size_ = algorithm.rows_stored(), size(algorithm.stored_bytes())
            rows.append((name, stored, f"{algorithm.alpha}", f"{sum(fits)}{unfinished}", size_))
        compared = ", ".join(" and ".join(entry["algorithms"]) for entry in self.comparisons)
        lines = [
            ("title", str(self.about.get("title") or "")),
            ("train units", f"{self.document['train']['count']}"),
            (
                "targets",
                ", ".join(f"{e['count']} in {name}" for name, e in self.target_sets.items()),
            ),
            ("algorithms", "" if rows else "none yet"),
            ("compared", compared),
        ]
        header = ("algorithm", "runs", "alpha", "fits", "stored")
        return Facts(self._title(), [line for line in lines if line[1]], header, rows)

    def _title(self) -> str:
        """What it is called where it is displayed."""
        return f"dmstore study {self.path}"
