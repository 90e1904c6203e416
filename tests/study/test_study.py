"""Studies: making, opening, labels, trees, and bad input."""

import json
from pathlib import Path

import dask
import numpy as np
import pytest
import xarray as xr
from helpers import examples, fill, make_rows

import dmstore
from dmstore.errors import ExistsError, FormatError, InputError, NotFoundError, StudyNotFoundError
from dmstore.regression import fit


def test_examples_round_trip(tmp_path):
    given = {
        **examples(),
        "train_id": np.array([f"t{i}" for i in range(37)]),
        "target_train": np.arange(23) - 1,
        "train_text": np.array(["ä"] * 37),
        "target_score": np.linspace(0, 1, 23),
    }
    np.savez(tmp_path / "e.npz", **given)
    study = dmstore.create_study(tmp_path / "s", tmp_path / "e.npz", seed=5, about={"title": "T"})
    assert study.seed == 5
    assert study.class_names == ["class0", "class1", "class2"]
    assert np.array_equal(study.train.image, given["train_image"])
    assert np.array_equal(study.train.label, given["train_label"])
    assert study.train.train.values.tolist() == given["train_id"].tolist()
    assert study.train.text.values.tolist() == ["ä"] * 37
    assert np.array_equal(study.targets.score, given["target_score"])
    assert study.targets.target.values.tolist() == list(range(23))
    assert dask.is_dask_collection(study.train.image.data)
    raw = xr.open_zarr(tmp_path / "s/examples/test.zarr")
    assert np.array_equal(raw.target_train, given["target_train"])
    assert json.loads((tmp_path / "s/about/0001.json").read_text())["title"] == "T"


BAD_EXAMPLES = {
    "no labels": ({"target_label": None}, "target_label"),
    "labels of the wrong length": ({"train_image": np.zeros((36, 6, 6), np.uint8)}, "37 labels"),
    "float labels": ({"train_label": np.zeros(37)}, "class indices"),
    "negative labels": ({"train_label": np.full(37, -1)}, "class indices"),
    "label without a name": ({"train_label": np.full(37, 7)}, "class_name has 3"),
    "two-dimensional labels": ({"train_label": np.zeros((37, 2), int)}, "one label"),
    "no examples": (
        {"train_label": np.zeros(0, int), "train_image": None, "train_weight": None},
        "one label",
    ),
    "float images": ({"train_image": np.zeros((37, 6, 6))}, "uint8"),
    "flat images": ({"train_image": np.zeros((37, 36), np.uint8)}, "uint8"),
    "channels first": (
        {"train_image": np.zeros((37, 3, 6, 6), np.uint8)},
        r"transpose\(0, 2, 3, 1",
    ),
    "ids twice": ({"train_id": np.zeros(37, int)}, "'0' is there twice"),
    "float ids": ({"train_id": np.arange(37.0)}, "dtype float64; ids and names are texts"),
    "unknown ids": ({"train_id": np.r_[np.nan, 1:37]}, "ids and names are texts"),
    "an empty id": ({"train_id": np.array(["", *map(str, range(36))])}, "position 0. is empty"),
    "an id with a blank": ({"target_id": np.array([*map(str, range(22)), "1 "])}, "blanks"),
    "float names": ({"class_name": np.array([0.5, 1, 2])}, "class_name has dtype float64"),
    "names that are objects": ({"class_name": np.array(["a", None, "c"])}, "dtype object"),
    "only case differs": ({"train_Weight": np.zeros(37)}, "differ in case alone"),
    "labels in capitals": (
        {"train_label": None, "train_id": np.arange(37), "train_Label": np.zeros(37, int)},
        "train_Label is not train_label",
    ),
    "ids in capitals": ({"train_ID": np.arange(37)}, "train_ID is not train_id"),
    "where labels begin": ({"train_label": np.arange(37) - 1}, "it has -1 to 35"),
    "object column": ({"train_thing": np.array([None] * 37)}, "numbers, bools or text"),
    "unknown array": ({"labels": np.zeros(37)}, "rename or drop"),
    "enormous labels": ({"train_label": np.full(37, 2**62)}, "class indices"),
    "names that are no list": ({"class_name": np.array("x")}, "one name per class"),
    "bytes that are no text": ({"train_text": np.array([b"\xff"] * 37)}, "Unicode"),
    "reserved column": ({"train_train": np.zeros(37)}, "reserved"),
    "empty images": ({"train_image": np.zeros((37, 0, 6), np.uint8)}, "uint8"),
    "target_train below": ({"target_train": np.full(23, -9)}, "target_train"),
    "target_train beyond": ({"target_train": np.full(23, 37)}, "target_train"),
}


@pytest.mark.parametrize("case", BAD_EXAMPLES)
def test_bad_examples_make_no_study(tmp_path, case):
    change, words = BAD_EXAMPLES[case]
    given = {k: v for k, v in {**examples(), **change}.items() if v is not None}
    with pytest.raises(InputError, match=words):
        dmstore.create_study(tmp_path / "s", given)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["e.csv", "e.npy", "folder"])
def test_examples_come_in_one_kind_of_file(tmp_path, name):
    (tmp_path / "folder").mkdir()
    (tmp_path / "e.csv").write_text("train_label\n1\n")
    np.save(tmp_path / "e.npy", np.arange(3))
    with pytest.raises(InputError, match=f"{name}: an examples file is an .npz"):
        dmstore.create_study(tmp_path / "s", tmp_path / name)


def test_paths_that_are_taken(tmp_path, study):
    with pytest.raises(ExistsError, match="a study exists"):
        dmstore.create_study(study.path, examples())
    (tmp_path / "full").mkdir()
    (tmp_path / "full/x").touch()
    for path in (tmp_path / "full", tmp_path / "full/x"):
        with pytest.raises(ExistsError, match="choose a new path"):
            dmstore.create_study(path, examples())
    (tmp_path / "empty").mkdir()
    assert dmstore.create_study(tmp_path / "empty", examples()).algorithms == []


def test_a_target_that_is_not_there_shows_what_ids_look_like(tmp_path):
    given = {**examples(), "target_id": np.array([f"t{i}" for i in range(23)])}
    study = dmstore.create_study(tmp_path / "s", given)
    with pytest.raises(NotFoundError, match=r"ids such as 't0', 't1', 't2'$"):
        study.target("12")
    assert study.target("t12").id == study.target(12).id == "t12"


def test_a_class_name_that_stands_twice_is_asked_by_number(tmp_path):
    given = {**examples(), "class_name": np.array(["crane", "dog", "crane"])}
    study = dmstore.create_study(tmp_path / "s", given)
    assert [study.class_number(text) for text in ("dog", "0", "2")] == [1, 0, 2]
    with pytest.raises(InputError, match="classes 0 and 2; give the number"):
        study.class_number("crane")


def test_parts_of_a_study_without_its_document(study):
    Path(study.path, "study.json").unlink()
    with pytest.raises(StudyNotFoundError, match=r"copy that was interrupted.*copy it again"):
        dmstore.open_study(study.path)


@pytest.mark.parametrize("name", [3, None, ["alpha"]])
def test_what_is_no_name_is_refused(study, name):
    for call in (study.algorithm, study.runs, study.view, lambda name: fit(study, name)):
        with pytest.raises(InputError, match=r"algorithm name .* is not allowed"):
            call(name)


def test_no_study_and_damaged_study(tmp_path, study):
    for path in (tmp_path, tmp_path / "nothing", Path(study.path, "study.json")):
        with pytest.raises(StudyNotFoundError, match="dmstore init"):
            dmstore.open_study(path)
    Path(study.path, "study.json").write_text('{"format_version": "1.0"')
    with pytest.raises(FormatError, match="not valid JSON"):
        dmstore.open_study(study.path)


def test_changed_ids_are_noticed(study):
    import zarr

    group = zarr.open_group(Path(study.path, "examples/train.zarr"), mode="r+")
    group["id"][3] = "other"
    with pytest.raises(FormatError, match="not those that the study was made with"):
        _ = dmstore.open_study(study.path).train


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("a/b", {}, "not allowed"),
        ("", {}, "not allowed"),
        (".a", {}, "not allowed"),
        ("a--b", {}, "not allowed"),
        ("ä", {}, "not allowed"),
        ("../x", {}, "not allowed"),
        ("x" * 200, {}, "not allowed"),
        ("b", {"alpha": 0.0}, "strictly between"),
        ("b", {"alpha": 1.0}, "strictly between"),
        ("b", {"alpha": float("nan")}, "strictly between"),
        ("b", {"alpha": 0.001}, "less than one"),
        ("b", {"alpha": "0.5"}, "strictly between"),
        ("b", {"runs": 3.0}, "give whole numbers"),
        ("b", {"repeats": "2"}, "give whole numbers"),
        ("b", {"outputs": ["marg"]}, "not known"),
        ("b", {"outputs": []}, "at least one"),
        ("b", {"runs": -1}, "0 or more"),
        ("b", {"repeats": 0}, "1 or more"),
        ("b", {"runs": 5, "repeats": 10**23}, "at most"),
        (
            "b",
            {"outputs": {"x": {"dtype": "float32", "dims": ["target", "run"]}}},
            "begin with run, target",
        ),
        ("b", {"sampling": "other"}, "sampling"),
        ("b", {"sampling": "foreign", "runs": 5}, "no plan"),
    ],
)
def test_bad_algorithms(study, name, options, words):
    with pytest.raises(InputError, match=words):
        study.add_algorithm(name, **options)
    assert study.algorithms == []


def test_algorithm_names_are_unique_without_regard_to_case(study, algorithm):
    with pytest.raises(ExistsError, match="'alpha' exists"):
        study.add_algorithm("Alpha")
    with pytest.raises(NotFoundError, match="it has: alpha"):
        study.algorithm("beta")


def test_runs_are_labelled_lazy_and_pinned(study, algorithm):
    fill(algorithm, range(100))
    runs = study.runs("alpha")
    assert runs.mask.dims == ("run", "train")
    assert dask.is_dask_collection(runs.margin.data)
    assert runs.margin.dtype == np.float32
    assert set(np.unique(runs.split)) <= {"train", "holdout", "eval"}
    assert np.array_equal(runs.train_label, study.train.label)
    fill(algorithm, range(100, 110))
    assert runs.sizes["run"] == 100
    assert np.array_equal(runs.margin.values, make_rows(algorithm, range(100)).arrays["margin"])
    assert study.runs("alpha").sizes["run"] == 110
    assert np.array_equal(runs.mask.sel(run=7).values, algorithm.masks([7])[0])
    part = study.runs("alpha").isel(run=slice(95, 105), target=[3, 5]).margin.values
    assert np.array_equal(part, make_rows(algorithm, range(95, 105)).arrays["margin"][:, [3, 5]])


def test_masks_are_shared_unless_independent(study):
    one = study.add_algorithm("one", runs=5)
    two = study.add_algorithm("two", runs=5)
    apart = study.add_algorithm("apart", runs=5, masks="independent")
    assert np.array_equal(one.masks([3]), two.masks([3]))
    assert not np.array_equal(one.masks([3]), apart.masks([3]))
    seeds = [{run.seed for run in a.describe(np.arange(5))} for a in (one, two, apart)]
    assert len(set.union(*seeds)) == 15


def test_repeats_share_masks_and_splits(study):
    made = study.add_algorithm("r", runs=9, repeats=3)
    runs = made.describe(np.arange(9))
    assert [(r.mask_id, r.repeat) for r in runs] == [(m, k) for m in range(3) for k in range(3)]
    assert np.array_equal(runs[0].mask, runs[2].mask)
    made.extend(4, repeats=2)
    assert [r.mask_id for r in made.describe(np.arange(9, 13))] == [3, 3, 4, 4]


def test_a_comparison_reads_the_fits_that_it_names(study, algorithm, monkeypatch):
    from dmstore.analysis import compare
    from dmstore.regression import fit

    fill(algorithm, range(200))
    fill(study.add_algorithm("beta", runs=300, outputs=["margin"]), range(200), seed=1)
    named = [fit(study, name).document["fit"] for name in ("alpha", "beta")]
    real, read = type(study).datamodels, []

    def meanwhile(self, algorithm, fitted=None):
        if not read:
            fit(self, "beta", lams=10)
        found = real(self, algorithm, fitted)
        read.append(found.attrs["fit"])
        return found

    monkeypatch.setattr(type(study), "datamodels", meanwhile)
    compare(study, "alpha", "beta", components=2, top=3)
    assert read[:2] == named
    assert study.comparisons[0]["fits"] == named


def test_tree_and_targets(study, algorithm):
    from dmstore.analysis import compare
    from dmstore.regression import fit

    other = study.add_algorithm("beta", runs=300, outputs=["margin", "prediction"])
    fill(algorithm, range(200))
    fill(other, range(200), seed=1)
    for name in ("alpha", "beta"):
        with pytest.raises(NotFoundError, match="dmstore fit"):
            study.datamodels(name)
        fit(study, name)
    with pytest.raises(NotFoundError, match="dmstore compare"):
        study.comparison("alpha", "beta")
    found = compare(study, "alpha", "beta", components=2, top=3)
    assert found.direction.dims == ("algorithm", "component", "train")
    tree = study.tree
    assert set(tree.children) == {"train", "targets", "runs", "datamodels", "comparisons"}
    assert tree["runs/alpha"].sizes["run"] == 200
    top = study.target(4).top(3)
    weight = study.datamodels("alpha").weight.sel(target=4)
    assert (
        top.weight.sel(algorithm="alpha").values[0]
        == weight.values[np.argmax(np.abs(weight.values))]
    )
    with pytest.raises(NotFoundError, match=r"target 99 .* ids such as 0, 1, 2$"):
        study.target(99)
    for a, b in (("alpha", "alpha"),):
        with pytest.raises(InputError, match="itself"):
            compare(study, a, b)
    with pytest.raises(NotFoundError, match="gamma"):
        compare(study, "alpha", "gamma")
