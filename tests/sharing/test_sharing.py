"""Publish, pull, verify, diff, and opening what was published from everywhere."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import webserver
from commands import run, run_json
from helpers import examples, fill, make_rows

import dmstore
from dmstore.errors import (
    ConflictError,
    CorruptionError,
    DmstoreError,
    ExistsError,
    FormatError,
    InputError,
    NotFoundError,
    StorageError,
    StudyNotFoundError,
)
from dmstore.schema.documents import load_document
from dmstore.sharing import check_index, diff, publish, pull
from dmstore.sharing.checking import read_index
from dmstore.sharing.contents import Selection
from dmstore.sharing.staging import Staging
from dmstore.storage.acts import tag
from dmstore.storage.acts.compact import compact
from dmstore.storage.location import open_location
from dmstore.storage.published import index as indexes
from dmstore.storage.table.rows import Rows
from dmstore.study import removal
from dmstore.upkeep.verification import verify

ABOUT = {
    "title": "Toy",
    "authors": ["A. Lab", "B: Lab"],
    "licence": "CC-BY-4.0",
    "citation": "A, 2026",
}


def make(path, runs=60):
    content = examples(train=40, target=24)
    content["train_id"] = np.array([f"photo-{i}" for i in range(40)])
    study = dmstore.create_study(path, content, seed=5, about={"title": "before"})
    for name in ("plain", "other"):
        algorithm = study.add_algorithm(name, runs=runs, outputs=["margin", "prediction"])
        fill(algorithm, range(runs), batch=30)
    return study


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A study with a tag, an unfinished fit, fits, and a comparison with its report."""
    from dmstore.analysis import compare
    from dmstore.regression import fit

    folder = tmp_path_factory.mktemp("sharing")
    study = make(folder / "study.dm", runs=200)
    for name in ("plain", "other"):
        fit(study, name)
    compare(study, "plain", "other", components=2, top=3)
    report = f"comparisons/{study.comparisons[0]['comparison']}/report.html"
    study.objects.put_if_absent(report, b"<img> of photo-1")
    tag.create(study.algorithm("plain").table, "v1")
    return study


@pytest.fixture(scope="module")
def published(finished, tmp_path_factory):
    path = tmp_path_factory.mktemp("published") / "toy"
    publish(finished, path, about=ABOUT)
    return path


@pytest.fixture
def small(tmp_path):
    return make(tmp_path / "small.dm")


def names(path):
    return sorted(p.relative_to(path).as_posix() for p in Path(path).rglob("*") if p.is_file())


def problems(path):
    study = dmstore.open_study(path)
    return [*verify(study), *check_index(study.objects, read_index(study.objects))]


def same_runs(one, other, name="plain"):
    a, b = dmstore.open_study(one).runs(name), dmstore.open_study(other).runs(name)
    assert a.attrs["content_id"] == b.attrs["content_id"]
    assert a.load().identical(b.load())


# Publishing


def test_published_directory_has_what_it_should(finished, published):
    found = names(published)
    index = json.loads((published / "index.json").read_text())
    assert sorted(o["name"] for o in index["objects"]) == [n for n in found if n != "index.json"]
    assert not [n for n in found if "/segments/" in n or "/blocks/" in n]
    assert [n for n in found if n.startswith("algorithms/plain/runs/log/")] == [
        "algorithms/plain/runs/log/00000000000000000001.json"
    ]
    assert "algorithms/plain/runs/tags/v1.json" in found
    assert sum(n.endswith("complete.json") for n in found) == 3
    assert sum(n.endswith("report.html") for n in found) == 1
    snapshot = finished.runs("plain").attrs
    assert index["algorithms"]["plain"] == {
        "version": 1,
        "runs": 200,
        "content_id": snapshot["content_id"],
    }
    log = json.loads(
        (published / "algorithms/plain/runs/log/00000000000000000001.json").read_text()
    )
    assert (log["absorbed"], log["removed"], "host" in log) == ([], [], False)
    about = json.loads((published / "about/0002.json").read_text())
    assert about["licence"] == "CC-BY-4.0"
    readme = (published / "README.md").read_text()
    assert snapshot["content_id"] in readme
    assert "CC-BY-4.0" in readme
    assert '  - name: "B: Lab"' in (published / "CITATION.cff").read_text()
    assert problems(published) == []
    same_runs(finished.path, published)
    opened = dmstore.open_study(published)
    assert opened.datamodels("plain").identical(finished.datamodels("plain"))
    assert opened.comparison("plain", "other").identical(finished.comparison("plain", "other"))


def test_python_of_the_published_readme_runs(published):
    code = (published / "README.md").read_text().split("```python")[1:]
    shown = code[1].split("```")[0]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", shown + "\nprint(runs.mask.shape)"],
        cwd=published,
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == "(200, 40)", done.stderr


def test_published_again_changes_nothing_and_other_content_is_refused(finished, published):
    before = {name: (published / name).stat().st_mtime_ns for name in names(published)}
    assert publish(finished, published, about=ABOUT)["written"] == 0
    with pytest.raises(ExistsError, match="another state"):
        publish(finished, published, Selection(images=False), about=ABOUT)
    assert {name: (published / name).stat().st_mtime_ns for name in names(published)} == before
    assert list(published.parent.iterdir()) == [published]


def test_selection(finished, tmp_path):
    publish(finished, tmp_path / "some", Selection(("plain",), images=False, ids=False))
    found = names(tmp_path / "some")
    assert not [n for n in found if "image" in n or "other" in n or n.startswith("comparisons")]
    assert b"photo-" not in b"".join((tmp_path / "some" / n).read_bytes() for n in found)
    opened = dmstore.open_study(tmp_path / "some")
    assert opened.algorithms == ["plain"]
    assert opened.train.train.values.tolist() == list(range(40))
    assert opened.document == finished.document
    assert len(opened.fits("plain")) == 1
    assert problems(tmp_path / "some") == []
    found = diff(tmp_path / "some", finished.path)
    assert found["ids"] == {"train": True, "test": True}
    assert found["only_y"] == ["other"]

    publish(finished, tmp_path / "bare", Selection(datamodels=False))
    assert not [n for n in names(tmp_path / "bare") if n.startswith(("datamodels", "comparisons"))]
    publish(finished, tmp_path / "withheld", Selection(ids=False))
    assert not [n for n in names(tmp_path / "withheld") if "/report" in n]
    assert dmstore.open_study(tmp_path / "withheld").comparisons


def test_what_is_called_by_an_id_is_withheld_and_a_large_page_has_its_folder(finished, tmp_path):
    from zarr.storage import MemoryStore

    from dmstore.analysis import compare
    from dmstore.schema.group_specs import group_spec
    from dmstore.storage.table import groups

    path = shutil.copytree(finished.path, tmp_path / "study.dm")
    study = dmstore.open_study(path)
    first = f"comparisons/{study.comparisons[0]['comparison']}/"
    study.objects.put_if_absent(f"{first}report/target-0000.jpg", b"picture")
    numbers = ("effect", "effect_low", "effect_high", "p", "predicted")
    arrays = {
        "algorithm": np.array(["plain"], dtype=object),
        "unit": np.array([1]),
        "target": np.array([2]),
        **{key: np.zeros(1) for key in numbers},
        **{key: np.array([2]) for key in ("models", "controls", "seen")},
    }
    for place, of in ((first, "direction A1"), ("algorithms/plain/removals/", "target photo-3")):
        store = MemoryStore()
        attrs = {"name": f"top 5 % of {of}", "output": "margin", "share": "5"}
        groups.fill(store, group_spec("removals"), arrays, whole=True, attrs=attrs)
        study.objects.put_if_absent(f"{place}removal-00.zarr.zip", groups.zip_bytes(store))
    compare(study, "plain", "other", components=1, top=3, where=["target!=3"])
    publish(study, tmp_path / "whole")
    assert (tmp_path / "whole" / first / "report/target-0000.jpg").is_file()
    assert len(dmstore.open_study(tmp_path / "whole").comparisons) == 2
    assert problems(tmp_path / "whole") == []
    publish(study, tmp_path / "withheld", Selection(ids=False))
    found = names(tmp_path / "withheld")
    assert [n for n in found if "/removal-" in n] == [f"{first}removal-00.zarr.zip"]
    assert len(dmstore.open_study(tmp_path / "withheld").comparisons) == 1
    assert b"photo-" not in b"".join((tmp_path / "withheld" / n).read_bytes() for n in found)


def test_withheld_ids_must_say_so(finished, tmp_path):
    publish(finished, tmp_path / "p", Selection(ids=False))
    pull(tmp_path / "p", tmp_path / "copy")
    group = tmp_path / "copy/examples/train.zarr/zarr.json"
    group.write_text(group.read_text().replace("withheld", "given"))
    with pytest.raises(FormatError, match="not those"):
        _ = dmstore.open_study(tmp_path / "copy").train


def test_tagged_state(small, tmp_path):
    algorithm = small.algorithm("plain")
    compact(algorithm.table)
    v1 = tag.create(algorithm.table, "v1")
    algorithm.extend(30)
    fill(algorithm, range(60, 90))
    compact(algorithm.table)
    with pytest.raises(NotFoundError, match="no tag 'v1'"):
        publish(small, tmp_path / "none", Selection(tag="v1"))
    publish(small, tmp_path / "old", Selection(("plain",), tag="v1"))
    publish(small, tmp_path / "new")
    old, new = (dmstore.open_study(tmp_path / name).runs("plain") for name in ("old", "new"))
    assert (len(old.run), len(new.run)) == (60, 90)
    assert old.attrs["content_id"] == v1["content_id"]
    assert problems(tmp_path / "old") == []
    # The log of a copy begins with the entry of its state: nothing before it is missing.
    for name in ("old", "new"):
        pull(tmp_path / name, tmp_path / f"{name}-pulled")
        assert list(verify(dmstore.open_study(tmp_path / f"{name}-pulled"))) == []
    publish(small, tmp_path / "new.zip")
    assert problems(tmp_path / "new.zip") == []
    # The tag's own base is not that of the newest state.
    assert not (tmp_path / "new/algorithms/plain/runs/tags").exists()
    assert not (tmp_path / "none").exists()


def test_an_algorithm_without_runs(tmp_path):
    study = dmstore.create_study(tmp_path / "s", examples(), seed=1)
    study.add_algorithm("empty", runs=5)
    made = publish(study, tmp_path / "p")
    assert made["algorithms"] == {"empty": {"version": 0, "runs": 0, "content_id": None}}
    pull(tmp_path / "p", tmp_path / "copy")
    assert dmstore.open_study(tmp_path / "copy").algorithm("empty").pending().tolist() == [
        *range(5)
    ]


def test_a_published_study_is_read_only(finished, published):
    opened = dmstore.open_study(published)
    with pytest.raises(StorageError, match="dmstore pull"):
        opened.add_algorithm("more", runs=3)
    with pytest.raises(StorageError, match="read-only"):
        fill(opened.algorithm("plain"), [0])
    assert problems(published) == []


def test_damaged_rows_are_not_published(small, tmp_path):
    compact(small.algorithm("plain").table)
    digest = next(Path(small.path).glob("algorithms/plain/runs/base/*/margin/c/0/0"))
    raw = bytearray(digest.read_bytes())
    raw[len(raw) // 3] ^= 1
    digest.write_bytes(raw)
    with pytest.raises(CorruptionError, match="nothing was published"):
        publish(small, tmp_path / "p")
    with pytest.raises(CorruptionError, match="nothing was published"):
        publish(small, tmp_path / "p.zip")
    assert not (tmp_path / "p").exists()
    assert not (tmp_path / "p.zip").exists()


def test_destinations_that_are_refused(small, tmp_path):
    with pytest.raises(InputError, match="inside the study"):
        publish(small, Path(small.path) / "published")
    with pytest.raises(InputError, match="web server"):
        publish(small, "https://example.org/x")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken/file").touch()
    with pytest.raises(ExistsError, match="there already"):
        publish(small, tmp_path / "taken")
    with pytest.raises(NotFoundError, match="it has: other, plain"):
        publish(small, tmp_path / "p", Selection(("none",)))
    assert names(tmp_path / "taken") == ["file"]


def test_names_that_no_other_lab_could_pull(tmp_path):
    study = dmstore.create_study(tmp_path / "s", examples(), seed=1)
    # As earlier versions could make a study.
    stored = tmp_path / "s/examples/annotations"
    shutil.copytree(stored / "train-weight.zarr", stored / "train-Weight.zarr")
    with pytest.raises(FormatError, match="cannot stand in one directory"):
        publish(study, tmp_path / "p")
    (tmp_path / "s/examples/notes (1).txt").write_text("mine")
    with pytest.raises(InputError, match="notes"):
        publish(study, tmp_path / "p")
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


def test_a_column_that_stands_in_the_way_is_left_out(tmp_path):
    """Two writers may have stored columns that differ in case alone."""
    study = make(tmp_path / "s", runs=12)
    for first, column in ((12, "lr"), (18, "LR")):
        algorithm = study.algorithm("plain")
        if first == 12:
            algorithm.extend(12)
        rows = make_rows(algorithm, range(first, first + 6))
        more = {**rows.columns, column: np.ones(6)}
        algorithm.table.append(Rows(rows.run, rows.arrays, more))
    with pytest.raises(FormatError, match="--without-columns NAME"):
        publish(study, tmp_path / "p")
    with pytest.raises(InputError, match="a column 'nothing'"):
        publish(study, tmp_path / "p", Selection(without_columns=("nothing",)))
    run("publish", study.path, tmp_path / "p", "--without-columns", "LR", "-Q")
    assert problems(tmp_path / "p") == []
    runs = dmstore.open_study(tmp_path / "p").runs("plain")
    assert "lr" in runs.coords
    assert "LR" not in runs.coords
    assert runs.attrs["content_id"] == study.runs("plain").attrs["content_id"]
    pull(tmp_path / "p", tmp_path / "q")
    assert "LR" not in dmstore.open_study(tmp_path / "q").runs("plain").coords


# Later target sets, their outputs, and annotations added later


def write_outputs(study, target_set, ids, seed=0):
    outputs = study.target_outputs("plain", target_set)
    count = outputs.table.sizes["target"]
    margin = [np.random.default_rng([seed, int(run)]).normal(size=count) for run in ids]
    given = {
        "margin": np.array(margin, "f4"),
        "prediction": np.zeros((len(ids), count), int),
    }
    columns = {"time": np.full(len(ids), 7), "host": np.full(len(ids), "gpu")}
    outputs.table.append(outputs.complete(Rows(np.asarray(ids), given, columns), "test"))


@pytest.fixture
def later(small):
    """A study with two later target sets, outputs on one, and annotations added later."""
    draw = np.random.default_rng(3)
    for name, count in (("shifted", 11), ("unused", 4)):
        columns = {
            "label": draw.integers(0, 3, count),
            "image": draw.integers(0, 256, (count, 6, 6)).astype(np.uint8),
            "id": np.array([f"secret-{name}-{i}" for i in range(count)]),
            "train": np.arange(count) - 1,
            "photo": draw.integers(0, 256, (count, 3, 3, 3)).astype(np.uint8),
            "night": np.arange(count) % 2 == 0,
        }
        small.add_targets(name, columns)
    small.annotate("train", camera=np.arange(40), thumb=np.zeros((40, 2, 2), np.uint8))
    small.annotate("shifted", image2=np.zeros((11, 2, 2), np.uint8), place=np.arange(11) * 0.5)
    small.annotate("class", colour=np.array(["red", "green", "blue"]))
    write_outputs(small, "shifted", range(20))
    write_outputs(small, "shifted", range(20, 45))
    # What a lost race left: named by nothing.
    path = small.target_sets["unused"]["path"]
    raw = small.objects.get(path)
    small.objects.put_if_absent("examples/unused-00000000.zarr.zip", raw)
    return small


def test_later_sets_annotations_and_outputs_are_shared(later, tmp_path):
    made = publish(later, tmp_path / "p")
    found = names(tmp_path / "p")
    assert {"targets/shifted.json", "targets/unused.json"} <= set(found)
    assert "examples/unused-00000000.zarr.zip" not in found
    assert sum("/outputs/shifted/log/" in name for name in found) == 1
    assert not [name for name in found if "/segments/" in name]
    stated = made["algorithms"]["plain"]["outputs"]["shifted"]
    assert (stated["version"], stated["runs"]) == (1, 45)
    assert "outputs" not in made["algorithms"]["other"]
    assert "11 targets (shifted)" in (tmp_path / "p/README.md").read_text()
    assert problems(tmp_path / "p") == []
    assert publish(later, tmp_path / "p")["written"] == 0
    publish(later, tmp_path / "p.zip")
    assert problems(tmp_path / "p.zip") == []
    pull(tmp_path / "p.zip", tmp_path / "copy")
    with webserver.serve(tmp_path / "p") as server:
        for place in (tmp_path / "p", tmp_path / "p.zip", tmp_path / "copy", server.url):
            opened = dmstore.open_study(place)
            assert opened.target_set("shifted").load().identical(later.target_set("shifted").load())
            assert opened.train.load().identical(later.train.load())
            assert opened.classes.load().identical(later.classes.load())
            outputs = opened.outputs("plain", "shifted")
            assert outputs.load().identical(later.outputs("plain", "shifted").load())
            assert outputs.attrs["pending"] == 15
        assert diff(server.url, tmp_path / "copy")["equal"]
    assert diff(later.path, tmp_path / "copy")["equal"]
    copy = dmstore.open_study(tmp_path / "copy")
    write_outputs(copy, "shifted", range(45, 60))
    assert list(verify(copy)) == []
    again = publish(copy, tmp_path / "again")
    assert again["algorithms"]["plain"]["outputs"]["shifted"]["runs"] == 60


def test_later_images_and_ids_are_withheld_too(later, tmp_path):
    publish(later, tmp_path / "p", Selection(images=False, ids=False))
    raw = b"".join((tmp_path / "p" / name).read_bytes() for name in names(tmp_path / "p"))
    found = [name for name in names(tmp_path / "p") if "image" in name or "thumb" in name]
    assert found == []
    assert b"secret-" not in raw
    assert problems(tmp_path / "p") == []
    assert publish(later, tmp_path / "p", Selection(images=False, ids=False))["written"] == 0
    pull(tmp_path / "p", tmp_path / "copy")
    shifted = dmstore.open_study(tmp_path / "copy").target_set("shifted")
    assert shifted.target.values.tolist() == list(range(11))
    assert set(shifted.data_vars) == {"label", "night", "place"}
    assert np.array_equal(shifted.night, later.target_set("shifted").night)
    assert np.array_equal(
        dmstore.open_study(tmp_path / "copy").target_train("shifted"), np.arange(11) - 1
    )
    different = diff(later.path, tmp_path / "copy")
    assert different["ids"] == {"train": True, "shifted": True, "test": True, "unused": True}
    left_out = "shifted-image shifted-image2 shifted-photo test-image train-image train-thumb"
    left_out += " unused-image unused-photo"
    assert different["annotations"]["only_x"] == left_out.split()
    assert different["annotations"]["differing"] == []
    assert not different["equal"]
    # Published once more with everything there is: the ids stay withheld.
    publish(dmstore.open_study(tmp_path / "copy"), tmp_path / "again")
    assert problems(tmp_path / "again") == []
    publish(later, tmp_path / "q", Selection(images=False))
    assert dmstore.open_study(tmp_path / "q").ids("shifted")[0] == "secret-shifted-0"
    publish(dmstore.open_study(tmp_path / "copy"), tmp_path / "r", Selection(ids=False))
    assert problems(tmp_path / "r") == []


def test_outputs_go_with_a_tag_too(later, tmp_path):
    compact(later.algorithm("plain").table)
    tag.create(later.algorithm("plain").table, "v1")
    made = publish(later, tmp_path / "p", Selection(("plain",), tag="v1"))
    assert made["algorithms"]["plain"]["outputs"]["shifted"]["runs"] == 45
    assert problems(tmp_path / "p") == []


def test_differences_of_outputs_sets_and_annotations(later, tmp_path):
    shutil.copytree(later.path, tmp_path / "y.dm")
    other = dmstore.open_study(tmp_path / "y.dm")
    later.annotate("train", angle=np.zeros(40), same=np.arange(40))
    other.annotate("train", angle=np.ones(40), same=np.arange(40))
    other.annotate("test", angle=np.ones(24))
    other.add_targets("more", {"label": np.zeros(3, int)})
    write_outputs(later, "shifted", [50, 51])
    write_outputs(other, "shifted", [51, 52, 53], seed=1)
    found = diff(later.path, other.path)
    assert found["annotations"] == {
        "only_x": [],
        "only_y": ["more-label", "test-angle"],
        "differing": ["train-angle"],
    }
    assert found["ids"]["more"] is None
    outputs = found["algorithms"]["plain"]["outputs"]["shifted"]
    assert (outputs["shared"], outputs["only_y"]["run"]) == (45, [52, 53])
    assert (outputs["only_x"]["run"], outputs["conflicting"]["run"]) == ([50], [51])
    assert not found["algorithms"]["plain"]["equal"]
    assert found["algorithms"]["other"]["equal"]
    text = run("diff", later.path, other.path)[0]
    assert "annotations of other content: train-angle" in text
    assert "plain, outputs on shifted: 45 runs in both, 1 only in X, 2 only in Y, 1 of" in text


def other_outputs(path, index):
    index["algorithms"]["plain"]["outputs"]["shifted"]["runs"] = 44


def absent_outputs(path, index):
    del index["algorithms"]["plain"]["outputs"]


def invented_outputs(path, index):
    stated = index["algorithms"]["plain"]["outputs"]
    stated["unused"] = stated["shifted"]


def another_set(path, index):
    file = path / "targets/shifted.json"
    file.write_text(file.read_text().replace('"count": 11', '"count": 12'))


def zipped(path, change):
    """Write a zip anew with its members changed."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, *change(name, content))


def absurd_annotation(path, index):
    zipped(
        path / "examples/annotations/train-camera.zarr.zip",
        lambda name, raw: (raw.replace(b"40", b"400000000000"),),
    )


def bomb_in_a_set(path, index):
    zipped(
        next(path.glob("examples/shifted-*.zarr.zip")),
        lambda name, raw: (raw, zipfile.ZIP_DEFLATED),
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (other_outputs, "on 'shifted' is not the snapshot"),
        (absent_outputs, "on 'shifted' is not the snapshot"),
        (invented_outputs, "names outputs of 'plain' on 'unused'"),
        (another_set, "has length 11, expected 12"),
        (absurd_annotation, "chunks of"),
        (bomb_in_a_set, "is compressed"),
    ],
)
def test_lies_about_later_sets_are_refused(later, tmp_path, change, words):
    publish(later, tmp_path / "p")
    rewrite(tmp_path / "p", change)
    with pytest.raises(CorruptionError, match=words) as caught:
        pull(tmp_path / "p", tmp_path / "copy")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "copy").exists()


# Archives and pulling


def test_zip_opens_where_it_lies_and_pulls(finished, tmp_path):
    made = publish(finished, tmp_path / "toy.zip", about=ABOUT)
    assert made["written"] == made["objects"]
    same_runs(finished.path, tmp_path / "toy.zip")
    assert problems(tmp_path / "toy.zip") == []
    opened = dmstore.open_study(tmp_path / "toy.zip")
    assert opened.train.image.values.shape == (40, 6, 6)
    assert opened.class_names == ["class0", "class1", "class2"]
    assert opened.tree["runs/plain"].mask.shape == (200, 40)
    assert publish(finished, tmp_path / "toy.zip", about=ABOUT)["written"] == 0
    pull(tmp_path / "toy.zip", tmp_path / "copy")
    same_runs(finished.path, tmp_path / "copy")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["copy", "toy.zip"]


def test_pulled_study_goes_on(finished, published, tmp_path):
    made = pull(published, tmp_path / "copy")
    origin = load_document("origin", (tmp_path / "copy/origin.json").read_bytes(), "origin.json")
    assert origin["branch"] == made["branch"]
    assert 1 <= origin["branch"] < 2**29
    assert origin["source"] == "toy"
    assert origin["content_ids"]["plain"] == finished.runs("plain").attrs["content_id"]
    assert not (tmp_path / "copy/index.json").exists()
    assert not (tmp_path / "copy/README.md").exists()
    copy = dmstore.open_study(tmp_path / "copy")
    algorithm = copy.algorithm("plain")
    block = algorithm.extend(10)
    fill(algorithm, np.arange(block.first_run, block.stop))
    assert compact(algorithm.table).manifest.version == 2
    assert list(verify(copy)) == []
    found = diff(finished.path, tmp_path / "copy")["algorithms"]["plain"]
    assert (found["shared"], found["only_x"]["count"], found["only_y"]["count"]) == (200, 0, 10)
    again = publish(copy, tmp_path / "again")
    assert again["algorithms"]["plain"]["runs"] == 210
    assert problems(tmp_path / "again") == []
    with pytest.raises(ExistsError):
        pull(published, tmp_path / "copy")
    assert pull(published, tmp_path / "second")["branch"] != made["branch"]


def test_what_is_no_published_study(small, tmp_path):
    with pytest.raises(StudyNotFoundError, match="dmstore publish"):
        pull(small.path, tmp_path / "copy")
    with pytest.raises(StudyNotFoundError):
        pull(tmp_path / "nowhere", tmp_path / "copy")
    (tmp_path / "no.zip").write_bytes(b"PK no zip at all")
    with pytest.raises(InputError, match="no whole zip"):
        pull(tmp_path / "no.zip", tmp_path / "copy")
    with pytest.raises(InputError, match="local path"):
        pull(small.path, "memory://x")
    assert not (tmp_path / "copy").exists()


def test_a_killed_pull_goes_on(published, tmp_path, monkeypatch):
    """Refused in the middle, then repeated: what was there is kept."""
    write, calls = Staging.write, []

    def failing(self, name, blocks):
        calls.append(name)
        if len(calls) > 20:
            raise StorageError("the connection is gone")
        return write(self, name, blocks)

    with monkeypatch.context() as patch:
        patch.setattr(Staging, "write", failing)
        with pytest.raises(StorageError, match="gone"):
            pull(published, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
    part = tmp_path / ".copy.part"
    kept = names(part)
    assert len(kept) >= 15
    # One is cut, one is of something else: both are put right.
    (part / kept[0]).write_bytes(b"")
    (part / "left.json").write_text("{}")
    made = pull(published, tmp_path / "copy")
    assert made["fetched"] == made["objects"] - len(kept) + 1
    assert [p.name for p in tmp_path.iterdir()] == ["copy"]
    same_runs(published, tmp_path / "copy")


def test_a_killed_zip_begins_anew(small, tmp_path):
    """What a kill leaves is hidden, opens nowhere, and is gone after the next attempt."""
    left = tmp_path / ".p.zip.part"
    left.mkdir()
    (left / "p.zip").write_bytes(b"PK" * 1000)
    with pytest.raises(StudyNotFoundError):
        dmstore.open_study(tmp_path / "p.zip")
    publish(small, tmp_path / "p.zip")
    assert problems(tmp_path / "p.zip") == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p.zip", "small.dm"]


KILLED = """
import os, sys
from dmstore.sharing.staging import Staging
from dmstore import open_study
from dmstore.sharing import publish, pull
write, seen = Staging.write, []
def dying(self, name, blocks):
    seen.append(name)
    if len(seen) == int(sys.argv[3]):
        os.kill(os.getpid(), 9)
    return write(self, name, blocks)
Staging.write = dying
if sys.argv[4] == "pull":
    pull(sys.argv[1], sys.argv[2])
else:
    publish(open_study(sys.argv[1]), sys.argv[2])
"""


@pytest.mark.parametrize("action", ["pull", "publish"])
def test_kill_9_leaves_nothing_that_opens(published, small, tmp_path, action):
    source = published if action == "pull" else small.path
    target = tmp_path / "target"
    for at in (25, 40):
        done = subprocess.run(
            [sys.executable, "-c", KILLED, source, target, str(at), action], capture_output=True
        )
        assert done.returncode == -signal.SIGKILL, done.stderr
        assert not target.exists()
        with pytest.raises(StudyNotFoundError):
            dmstore.open_study(target)
    if action == "pull":
        made = pull(source, target)
        assert made["fetched"] < made["objects"]
    else:
        made = publish(small, target)
        assert made["written"] < made["objects"]
        assert problems(target) == []
    same_runs(source, target)
    assert not (tmp_path / ".target.part").exists()


def test_one_process_at_a_time(published, tmp_path):
    with Staging(tmp_path / "copy"), pytest.raises(ConflictError, match="another process"):
        pull(published, tmp_path / "copy")
    pull(published, tmp_path / "copy")


def test_endless_objects_are_cut_off(published, tmp_path, monkeypatch):
    from dmstore.sharing import blocks

    sent = []

    def endless(objects, name):
        while True:
            sent.append(1 << 16)
            yield bytes(1 << 16)

    objects = open_location(published)
    index = read_index(objects)
    monkeypatch.setattr(blocks, "read", endless)
    assert len(list(check_index(objects, index))) == len(index.entries)
    assert sum(sent) < sum(entry.size for entry in index.entries.values()) + (
        len(index.entries) << 17
    )


@pytest.mark.parametrize("damage", ["bytes", "length", "missing", "surplus"])
def test_damage_is_told_and_never_pulled(published, tmp_path, damage):
    broken = tmp_path / "broken"
    shutil.copytree(published, broken)
    victim = next(broken.glob("algorithms/plain/runs/base/*/mask/c/0/0"))
    raw = bytearray(victim.read_bytes())
    if damage == "bytes":
        raw[-10] ^= 1
        victim.write_bytes(raw)
    elif damage == "length":
        victim.write_bytes(raw + b"x")
    elif damage == "missing":
        victim.unlink()
    else:
        victim.with_name("7").write_bytes(b"x")
    found = run_json("verify", broken, code=1)["problems"]
    kind = {"bytes": "content", "length": "format"}.get(damage, damage)
    assert kind in {problem["kind"] for problem in found}
    if damage == "surplus":
        pull(broken, tmp_path / "copy")
        assert problems(published) == []
        return
    with pytest.raises(DmstoreError, match="publish the study again"):
        pull(broken, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def rewrite(path, change):
    """Change objects of a published directory and make its index agree."""
    index = json.loads((path / "index.json").read_text())
    change(path, index)
    for entry in index["objects"]:
        file = path / entry["name"]
        if file.is_file():
            entry["size"], entry["sha256"] = indexes.sha256([file.read_bytes()])
    (path / "index.json").write_text(json.dumps(index))


def other_row(path, index):
    """A whole base of right checksums whose rows are not those of the digests."""
    import zarr

    base = next(path.glob("algorithms/plain/runs/base/*.zarr"))
    group = zarr.open_group(base, mode="r+")
    group["margin"][3, 3] += 1


def other_study(path, index):
    index["study"] = "0" * 32


def other_snapshot(path, index):
    index["algorithms"]["plain"]["content_id"] = "1" * 64


def absent_algorithm(path, index):
    del index["algorithms"]["other"]


def absurd_shape(path, index):
    base = next(path.glob("algorithms/plain/runs/base/*.zarr"))
    for file in (base / "zarr.json", base / "run/zarr.json"):
        file.write_text(file.read_text().replace("200\n", "200000000000\n"))


def unknown_codec(path, index):
    file = next(path.glob("algorithms/plain/runs/base/*.zarr/mask/zarr.json"))
    file.write_text(file.read_text().replace('"blosc"', '"pickle"'))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (other_row, "does not match its digest"),
        (other_study, "is of study"),
        (other_snapshot, "not the snapshot"),
        (absent_algorithm, "names the algorithms"),
        (absurd_shape, "chunks of|cannot be|length 200000000000"),
        (unknown_codec, "codecs 'bytes, pickle, crc32c'"),
    ],
)
def test_a_lying_publication_is_refused(published, tmp_path, change, words):
    broken = tmp_path / "broken"
    shutil.copytree(published, broken)
    rewrite(broken, change)
    with pytest.raises(CorruptionError, match=words) as caught:
        pull(broken, tmp_path / "copy")
    assert "\n" not in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["broken"]


@pytest.mark.parametrize(
    "name",
    [
        "../escaped",
        "/etc/escaped",
        "a/../../escaped",
        "a\\..\\escaped",
        "C:escaped",
        ".hidden",
        "a//b",
        "a/",
        "x\u202ey",
        "x\n",
        "origin.json",
        "index.json",
        "study.json/inside",
        "STUDY.json",
        "study.json",
        "a.partial",
        "n" * 300,
    ],
)
def test_unsafe_names_in_an_index(published, tmp_path, name):
    broken = tmp_path / "broken"
    shutil.copytree(published, broken)
    index = json.loads((broken / "index.json").read_text())
    index["objects"].append({"name": name, "size": 1, "sha256": "0" * 64})
    (broken / "index.json").write_text(json.dumps(index))
    with pytest.raises(FormatError):
        pull(broken, tmp_path / "copy")
    assert [p.name for p in tmp_path.iterdir()] == ["broken"]


def test_absurd_sizes_and_documents_in_an_index(published, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(published, broken)
    index = json.loads((broken / "index.json").read_text())
    for size in (10**17, 2**70, -1, 1.5, True):
        index["objects"][-1]["size"] = size
        (broken / "index.json").write_text(json.dumps(index))
        with pytest.raises((StorageError, FormatError)):
            pull(broken, tmp_path / "copy")
    for text in ("[" * 100000, "[]", "{}", "\x00", '{"format_version": "9.0"}'):
        (broken / "index.json").write_text(text)
        with pytest.raises(FormatError):
            pull(broken, tmp_path / "copy")
    assert [p.name for p in tmp_path.iterdir()] == ["broken"]


def test_links_in_a_published_directory(published, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(published, broken)
    (tmp_path / "secret").write_bytes((broken / "study.json").read_bytes())
    (broken / "study.json").unlink()
    (broken / "study.json").symlink_to(tmp_path / "secret")
    with pytest.raises(FormatError, match="symbolic link"):
        pull(broken, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def hostile(path, kind):
    """Write a zip that is like a published one but for one thing."""
    info = zipfile.ZipInfo("study.json", (1980, 1, 1, 0, 0, 0))
    content, compression = b"{}", zipfile.ZIP_STORED
    with zipfile.ZipFile(path, "w") as archive:
        if kind == "link":
            info.external_attr = 0o120777 << 16
        elif kind == "bomb":
            content, compression = bytes(10**7), zipfile.ZIP_DEFLATED
        elif kind == "index bomb":
            info.filename, content, compression = "index.json", bytes(10**7), zipfile.ZIP_DEFLATED
        elif kind in NAMES:
            info.filename = NAMES[kind]
        info.compress_type = compression
        archive.writestr(info, content)
        if kind == "twice":
            with pytest.warns(UserWarning, match="Duplicate"):
                archive.writestr("study.json", b"{}")
    raw = bytearray(path.read_bytes())
    central = raw.index(b"PK\x01\x02")
    if kind == "encrypted":
        raw[6] |= 1
        raw[central + 8] |= 1
    elif kind == "compressed size":
        raw[central + 24 : central + 28] = (10**9).to_bytes(4, "little")
        raw[central + 20 : central + 24] = (10**9).to_bytes(4, "little")
    elif kind == "offset":
        raw[central + 42 : central + 46] = (10**6).to_bytes(4, "little")
    elif kind == "list length":
        raw[-10:-6] = (2**31).to_bytes(4, "little")
    elif kind == "cut":
        del raw[-5:]
    elif kind == "empty":
        raw.clear()
    path.write_bytes(raw)


NAMES = {
    "parent": "../escaped",
    "absolute": "/tmp/escaped",
    "backslash": "..\\escaped",
    "drive": "C:/escaped",
    "deep": "examples/../../escaped",
    "control": "a\x07b",
}
KINDS = [
    "link",
    "bomb",
    "index bomb",
    "twice",
    "encrypted",
    "compressed size",
    "offset",
    "list length",
    "cut",
    "empty",
    "no index",
    *NAMES,
]


@pytest.mark.parametrize("kind", KINDS)
def test_hostile_archives(tmp_path, kind):
    hostile(tmp_path / "bad.zip", kind)
    for action in (
        lambda: pull(tmp_path / "bad.zip", tmp_path / "copy"),
        lambda: dmstore.open_study(tmp_path / "bad.zip"),
    ):
        with pytest.raises((InputError, FormatError, StudyNotFoundError)) as caught:
            action()
        assert "bad.zip" in str(caught.value)
        assert "\n" not in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["bad.zip"]


def test_flipped_bits_of_an_archive(finished, tmp_path):
    """Wherever a bit flips, nothing wrong is pulled and the error is one of ours."""
    publish(finished, tmp_path / "toy.zip", Selection(("plain",), datamodels=False, images=False))
    raw = (tmp_path / "toy.zip").read_bytes()
    draw = np.random.default_rng(0)
    refused = 0
    for place in [*draw.integers(0, len(raw), 15), *(len(raw) - draw.integers(1, 3000, 15))]:
        bad = bytearray(raw)
        bad[place] ^= 1 << int(draw.integers(8))
        (tmp_path / "bad.zip").write_bytes(bad)
        shutil.rmtree(tmp_path / "copy", ignore_errors=True)
        try:
            pull(tmp_path / "bad.zip", tmp_path / "copy")
        except DmstoreError:
            refused += 1
            assert not (tmp_path / "copy").exists()
        else:
            same_runs(finished.path, tmp_path / "copy")
    assert refused > 12


# Buckets and web servers


def test_bucket(finished, s3, tmp_path, monkeypatch):
    """A publication that fails in the middle opens nowhere; repeated, it goes on."""
    from dmstore.storage.objects.remote import RemoteObjects

    url = f"{s3()}/toy"
    put, calls = RemoteObjects.put_if_absent, []

    def failing(self, name, content):
        calls.append(name)
        if len(calls) in (60, 150):
            raise StorageError("the connection is gone")
        return put(self, name, content)

    monkeypatch.setattr(RemoteObjects, "put_if_absent", failing)
    for _ in range(2):
        with pytest.raises(StorageError, match="gone"):
            publish(finished, url, about=ABOUT)
        with pytest.raises(StudyNotFoundError):
            dmstore.open_study(url)
        with pytest.raises(StudyNotFoundError):
            pull(url, tmp_path / "copy")
    made = publish(finished, url, about=ABOUT)
    assert 0 < made["written"] < made["objects"] - 50
    assert calls[-2:] == ["index.json", "study.json"]
    assert problems(url) == []
    assert not open_location(url).leftovers()
    assert publish(finished, url, about=ABOUT)["written"] == 0
    with pytest.raises(StorageError, match="read-only"):
        dmstore.open_study(url).add_algorithm("more", runs=1)
    assert run_json("verify", url)["problems"] == []
    pull(url, tmp_path / "copy")
    same_runs(url, tmp_path / "copy")
    assert diff(url, tmp_path / "copy")["equal"]


def test_every_refused_put_of_a_bucket_leaves_nothing_that_opens(tmp_path, monkeypatch):
    """Killed before any of the last steps: whole or not there."""
    from dmstore.storage.objects.remote import RemoteObjects

    study = dmstore.create_study(
        tmp_path / "s", {k: v for k, v in examples(9, 5).items() if "label" in k}, seed=1
    )
    algorithm = study.add_algorithm("a", runs=4)
    fill(algorithm, range(4))
    total = publish(study, "memory://whole/x")["objects"]
    steps = ("put_if_absent", "delete")
    originals = {name: getattr(RemoteObjects, name) for name in steps}
    opened = 0
    for at in (1, 2, 7, *range(total - 3, total + 5)):
        url, count = f"memory://crash-{at}/x", [0]

        def make_step(name, at=at, count=count):
            def step(self, *arguments):
                count[0] += 1
                if count[0] == at:
                    raise KeyboardInterrupt
                return originals[name](self, *arguments)

            return step

        with monkeypatch.context() as patch:
            for name in steps:
                patch.setattr(RemoteObjects, name, make_step(name))
            with contextlib.suppress(KeyboardInterrupt):
                publish(study, url)
        try:
            dmstore.open_study(url)
        except StudyNotFoundError:
            pass
        else:
            opened += 1
            found = problems(url)
            assert found == []
        publish(study, url)
        assert problems(url) == []
        assert not open_location(url).leftovers()
    assert 0 < opened < 8


def test_a_bucket_with_other_things_is_left_alone(small, s3):
    url = s3()
    open_location(url).put_if_absent("thesis.tex", b"mine")
    with pytest.raises(ExistsError, match=r"thesis\.tex"):
        publish(small, url)
    assert [info.name for info in open_location(url).entries("")] == ["thesis.tex"]


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """A published study with many targets: what a column read must not fetch."""
    folder = tmp_path_factory.mktemp("wide")
    study = dmstore.create_study(
        folder / "s",
        {"train_label": np.zeros(64, int), "target_label": np.zeros(4096, int)},
        seed=1,
    )
    algorithm = study.add_algorithm("a", runs=256)
    fill(algorithm, range(256))
    publish(study, folder / "wide")
    return folder / "wide"


def test_https_fetches_only_what_a_query_needs(wide):
    base = sum(
        p.stat().st_size for p in wide.glob("algorithms/a/runs/base/*/margin/c/**/*") if p.is_file()
    )
    with webserver.serve(wide) as server:
        study = dmstore.open_study(server.url)
        runs = study.runs("a")
        before = server.sent
        assert before < base / 4
        values = runs.margin.isel(target=[3, 5, 100]).values
        assert server.requests > 0
        assert 0 < server.sent - before < base / 10
    local = dmstore.open_study(wide).runs("a").margin.isel(target=[3, 5, 100]).values
    assert np.array_equal(values, local)


def test_a_server_of_whole_files_works_too(wide, tmp_path, caplog):
    with webserver.serve(wide, webserver.Whole) as server:
        runs = dmstore.open_study(server.url).runs("a")
        values = runs.margin.isel(target=[3, 4000]).values
        sent = server.sent
        # Kept: the same file is not fetched again.
        assert np.array_equal(values, runs.margin.isel(target=[3, 4000]).values)
        assert server.sent == sent
        assert "whole objects only" in caplog.text
        assert run_json("verify", server.url)["problems"] == []
        pull(server.url, tmp_path / "copy")
        assert json.loads((tmp_path / "copy/origin.json").read_text())["source"] == server.url
    same_runs(wide, tmp_path / "copy", "a")
    local = dmstore.open_study(wide).runs("a").margin.isel(target=[3, 4000]).values
    assert np.array_equal(values, local)


def test_https_refuses_what_changed_and_what_is_not_there(published, tmp_path):
    shutil.copytree(published, tmp_path / "toy")
    with webserver.serve(tmp_path) as server:
        with pytest.raises(StudyNotFoundError, match=r"index\.json"):
            dmstore.open_study(f"{server.url}/nothing")
        url = f"{server.url}/toy"
        study = dmstore.open_study(url)
        plan = tmp_path / "toy/algorithms/plain/plans/0001.json"
        plan.write_bytes(plan.read_bytes().replace(b"200", b"201"))
        with pytest.raises(CorruptionError, match="not what the index says"):
            list(study.algorithm("plain").blocks)
        assert "content" in {p["kind"] for p in run_json("verify", url, code=1)["problems"]}
        with pytest.raises(StorageError, match="read-only"):
            study.add_algorithm("x", runs=1)
        with pytest.raises(InputError, match="no user"):
            pull(url.replace("http://", "http://me:secret@"), tmp_path / "copy")


def test_a_server_that_compresses_is_named(published):
    with (
        webserver.serve(published, webserver.Gzipped) as server,
        pytest.raises(StorageError, match="compresses what it sends"),
    ):
        dmstore.open_study(server.url)


def test_what_else_lies_beside_the_about_documents_is_left_alone(small, tmp_path):
    where = Path(small.path, "about")
    (where / "x.json").write_text("no JSON")
    (where / "0009.txt").write_text("mine")
    assert dmstore.open_study(small.path).about["title"] == "before"
    publish(small, tmp_path / "p", about={"title": "after"})
    assert sorted(p.name for p in (tmp_path / "p/about").iterdir()) == ["0001.json", "0002.json"]
    assert dmstore.open_study(tmp_path / "p").about["title"] == "after"


# Other readers


def arrays(base):
    import zarr

    group = zarr.open_group(base, mode="r")
    return {
        name: np.asarray(array[...]) for name, array in group.arrays() if array.dtype.kind in "biuf"
    }


def test_xarray_tensorstore_and_zarrs_read_the_same_bits(published):
    import tensorstore
    import xarray as xr
    import zarr

    base = next(published.glob("algorithms/plain/runs/base/*.zarr"))
    expected = arrays(base)
    assert {"mask", "margin", "prediction", "run", "row_digest"} <= expected.keys()
    with xr.open_zarr(base) as opened:
        assert opened.sizes == {"run": 200, "train": 40, "target": 24, "byte": 16}
        for name, values in expected.items():
            assert opened[name].values.tobytes() == values.tobytes()
    for name, values in expected.items():
        spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{base}/{name}/"}}
        found = tensorstore.open(spec, read=True).result().read().result()
        assert found.dtype == values.dtype
        assert found.tobytes() == values.tobytes()
    # As docs/reference/format.md says; a later tensorstore may know texts.
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{base}/host/"}}
    hosts = zarr.open_group(base, mode="r")["host"][...]
    try:
        found = tensorstore.open(spec, read=True).result().read().result()
    except ValueError as error:
        found = str(error)
    assert "string data type is not" in found or np.array_equal(found, hosts)
    with zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"}):
        found = arrays(base)
        assert np.array_equal(zarr.open_group(base, mode="r")["host"][...], hosts)
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert found[name].dtype == values.dtype
        assert found[name].tobytes() == values.tobytes()


# Differences


def test_diff(small, tmp_path):
    shutil.copytree(small.path, tmp_path / "copy.dm")
    found = diff(small.path, tmp_path / "copy.dm")
    assert found["equal"]
    assert found["algorithms"]["plain"]["shared"] == 60
    copy = dmstore.open_study(tmp_path / "copy.dm")
    compact(copy.algorithm("plain").table)
    assert diff(small.path, tmp_path / "copy.dm")["equal"]
    tag.create(copy.algorithm("plain").table, "v1")
    for study, count, seed in ((small, 64, 0), (copy, 70, 1)):
        algorithm = study.algorithm("plain")
        algorithm.extend(count - 60)
        fill(algorithm, range(60, count), seed=seed)
    copy.add_algorithm("new", runs=2)
    found = diff(small.path, tmp_path / "copy.dm")
    assert not found["equal"]
    assert found["only_y"] == ["new"]
    plain = found["algorithms"]["plain"]
    assert plain["shared"] == 60
    assert plain["conflicting"] == {"count": 4, "run": [60, 61, 62, 63]}
    assert plain["only_y"] == {"count": 6, "run": [*range(64, 70)]}
    assert plain["only_x"]["count"] == 0
    assert (plain["plan_only_x"][0]["runs"], plain["plan_only_y"][0]["runs"]) == (4, 10)
    assert found["algorithms"]["other"]["equal"]
    found = diff(f"{tmp_path}/copy.dm@plain:v1", small.path)["algorithms"]["plain"]
    assert (found["shared"], found["only_y"]["count"]) == (60, 4)
    found = diff(f"{small.path}@plain", f"{small.path}@other")["algorithms"]["plain,other"]
    assert found["shared"] == 60
    with pytest.raises(NotFoundError, match="it has: v1"):
        diff(f"{tmp_path}/copy.dm@plain:v2", small.path)
    with pytest.raises(InputError, match="STUDY@ALGORITHM"):
        diff(f"{tmp_path}/copy.dm@new", small.path)
    out = run("diff", small.path, tmp_path / "copy.dm")[0]
    assert "60 runs in both, 0 only in X, 6 only in Y, 4 of the same id with other content" in out
    assert (
        run_json("diff", small.path, tmp_path / "copy.dm", "--exit-code", code=3)["equal"] is False
    )
    run("diff", small.path, small.path, "--exit-code")


def test_a_removal_without_models_is_a_difference(small, tmp_path):
    places = [small.path, f"{tmp_path}/copy.dm"]
    shutil.copytree(*places)
    names = []
    # In one only, and in both but of other units.
    for units, seen, at in (([0, 1], 3, places[:1]), ([2], 3, places[:1]), ([3], 3, places[1:])):
        for place in at:
            plain = dmstore.open_study(place).algorithm("plain")
            stated = removal.stated(units, seen, plain.uuid)
            removal.add(plain.objects, plain.prefix, stated)
        names.append(stated["removal"])
    found = diff(*places)
    assert not found["equal"]
    plain = found["algorithms"]["plain"]
    assert plain["removals_only_x"] == sorted(names[:2])
    assert plain["removals_only_y"] == names[2:]
    assert found["algorithms"]["other"]["equal"]
    out = run("diff", *places)[0]
    assert f"removal only in X: {names[0]}" in out
    # A tag names a state of runs alone.
    compact(small.algorithm("plain").table)
    tag.create(small.algorithm("plain").table, "v0")
    assert diff(f"{small.path}@plain:v0", places[1])["algorithms"]["plain"]["equal"]


def test_diff_of_unrelated_studies(small, tmp_path):
    study = dmstore.create_study(tmp_path / "x", examples(), seed=9)
    study.add_algorithm("plain", alpha=0.3)
    found = diff(small.path, study.path)
    assert found["study"] == {"uuid": False, "seed": False}
    assert found["ids"] == {"train": False, "test": False}
    assert found["algorithms"]["plain"]["declared"] == ["alpha", "outputs"]


def test_commands(small, tmp_path):
    made = run_json(
        "publish",
        small.path,
        tmp_path / "p",
        "--licence",
        "MIT",
        "--author",
        "A",
        "--no-images",
        "-Q",
    )
    assert made["algorithms"]["plain"]["runs"] == 60
    assert (
        "all there already"
        in run(
            "publish",
            small.path,
            tmp_path / "p",
            "--licence",
            "MIT",
            "--author",
            "A",
            "--no-images",
            "-Q",
        )[0]
    )
    assert run_json("verify", tmp_path / "p")["problems"] == []
    pulled = run_json("pull", tmp_path / "p", tmp_path / "copy", "-Q")
    assert pulled["fetched"] == pulled["objects"]
    assert "all verified" in run("pull", tmp_path / "p", tmp_path / "copy2", "-Q")[0]
    assert run_json("verify", tmp_path / "copy")["runs"] == 120
    assert "there already" in run("pull", tmp_path / "p", tmp_path / "copy", code=1)[1]
    assert run_json("status", tmp_path / "p")["algorithms"]["plain"]["stored"] == 60
