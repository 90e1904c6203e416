"""Stores of every format version so far: the present code reads all that their own version read in them."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import sys
import tarfile

import pytest
import second_reader as second
from paths import ARCHIVES

import dmstore
from dmstore.errors import FormatError
from dmstore.sharing import check_index, diff
from dmstore.sharing.checking import read_index
from dmstore.upkeep.maintenance import compact, status, vacuum
from dmstore.upkeep.verification import verify

VERSIONS = sorted(path.name for path in ARCHIVES.iterdir() if (path / "expected.json").is_file())
EXPECTED = {
    version: json.loads((ARCHIVES / version / "expected.json").read_text(encoding="utf-8"))
    for version in VERSIONS
}
STORES = [(version, store) for version in VERSIONS for store in EXPECTED[version]]
MADE = ("local", "copy")


def load_maker():
    spec = importlib.util.spec_from_file_location("make_archives", ARCHIVES / "make.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


maker = load_maker()


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    """All archives, unpacked once: a folder a version."""
    folder = tmp_path_factory.mktemp("archives")
    for version in VERSIONS:
        with tarfile.open(ARCHIVES / version / "stores.tar.xz") as archive:
            archive.extractall(folder / version, filter="data")
    return folder


@pytest.fixture
def stores(unpacked, tmp_path):
    """A function that gives a copy of a store, to be changed."""

    def copied(version, store):
        source, target = unpacked / version / store, tmp_path / store
        return (shutil.copytree if source.is_dir() else shutil.copyfile)(source, target)

    return copied


def test_there_are_archives_and_they_are_small():
    assert {"v1.0", "v1.0-first"} <= set(VERSIONS)
    assert max(path.stat().st_size for path in ARCHIVES.glob("*/*")) < 150_000
    assert {store for version, store in STORES if version == "v1.0"} == {
        "local",
        "published.zip",
        "copy",
    }


@pytest.mark.parametrize(("version", "store"), STORES)
def test_everything_is_read_as_its_own_version_read_it(unpacked, version, store):
    study = dmstore.open_study(unpacked / version / store)
    found = json.loads(json.dumps(maker.describe(study)))
    assert found == EXPECTED[version][store]
    problems = list(verify(study))
    conflicts = [len(e["conflicts"]) for e in EXPECTED[version][store]["algorithms"].values()]
    assert [problem.kind for problem in problems] == ["conflict"] * sum(conflicts)
    if store.endswith(".zip"):
        assert list(check_index(study.objects, read_index(study.objects))) == []
    told = status(study)["algorithms"]
    assert {n: e["stored"] for n, e in told.items()} == {
        n: len(e["run"]) for n, e in EXPECTED[version][store]["algorithms"].items()
    }
    assert study.tree["datamodels/plain"].weight.shape == (5, 16)


def test_the_archives_hold_what_they_are_for():
    local = EXPECTED["v1.0"]["local"]
    plain = local["algorithms"]["plain"]
    assert [run for run, _ in plain["conflicts"]] == [3, 64]
    assert not {10, 11, 12} & set(plain["run"])
    assert (plain["segments"], plain["pending"]) == (2, [10, 11, 12, 67, 68])
    assert local["sets"]["shifted"]["columns"]["place"] == ["north", "south", ""]
    assert len(local["sets"]["shifted"]["run"]) == 16
    assert EXPECTED["v1.0-first"]["local"]["algorithms"]["plain"]["segments"] == 2


@pytest.mark.parametrize("version", VERSIONS)
def test_an_old_study_goes_on(stores, version):
    """Compacted, vacuumed and extended by the present code, it still shows what it showed."""
    study = dmstore.open_study(stores(version, "local"))
    compact(study)
    vacuum(study, grace=0)
    again = json.loads(json.dumps(maker.describe(dmstore.open_study(study.path))))
    expected = EXPECTED[version]["local"]
    for name, entry in expected["algorithms"].items():
        found = again["algorithms"][name]
        for key in ("content_id", "conflicts", "pending", "split", "arrays", "tags"):
            assert found[key] == entry[key], (name, key)
    assert {**again, "algorithms": 0} == {**expected, "algorithms": 0}
    plain = study.algorithm("plain")
    plain.table.append(maker.rows(plain, [67, 68]))
    assert {67, 68} <= set(study.runs("plain").run.values.tolist())
    assert {problem.kind for problem in verify(study)} == {"conflict"}


def test_an_old_copy_is_its_publication(unpacked):
    folder = unpacked / "v1.0"
    assert diff(folder / "published.zip", folder / "copy")["equal"]


@pytest.mark.parametrize("version", VERSIONS)
def test_the_second_reader_reads_them_too(unpacked, version):
    root = unpacked / version / "local"
    study = second.document((root / "study.json").read_bytes(), "study")
    for name, expected in EXPECTED[version]["local"]["algorithms"].items():
        path = root / f"algorithms/{name}/algorithm.json"
        algorithm = second.document(path.read_bytes(), "algorithm")
        rows, conflicts, content_id = second.view(root, study, algorithm)
        assert [row["run"] for row in rows] == expected["run"]
        assert [list(pair) for pair in conflicts] == expected["conflicts"]
        assert content_id == expected["content_id"]
        for row in rows:
            second.check_row(row, algorithm)
            if algorithm["sampling"] == "planned":
                second.check_planned(row, root, study, algorithm)
        splits = [second.split_of(study["seed"], int(row["mask_id"]))[0] for row in rows]
        assert "".join(splits) == expected["split"]


# Other versions


def changed(path, change):
    """Change every document and group of a store."""
    for file in (*path.rglob("*.json"), *path.rglob("zarr.json")):
        document = json.loads(file.read_text(encoding="utf-8"))
        change(document.get("attributes", document))
        file.write_text(json.dumps(document), encoding="utf-8")


def versioned(version):
    def change(document):
        if "format_version" in document:
            document["format_version"] = version

    return change


@pytest.mark.parametrize("store", MADE)
def test_unknown_keys_and_minor_versions_are_accepted(stores, store):
    path = stores("v1.0", store)

    def change(document):
        versioned("1.9")(document)
        document["of_later_days"] = {"deep": [1, None]}

    changed(path, change)
    (path / "later.bin").write_bytes(b"?")
    (path / "algorithms/plain/later").mkdir()
    (path / "algorithms/plain/later/x.json").write_text("{}")
    found = json.loads(json.dumps(maker.describe(dmstore.open_study(path))))
    assert found == EXPECTED["v1.0"][store]


def test_a_study_of_another_major_version_is_refused(stores):
    path = stores("v1.0", "local")
    changed(path, versioned("2.0"))
    with pytest.raises(
        FormatError, match=r"store format 2\.0, .*; install a dmstore that reads format 2"
    ):
        dmstore.open_study(path)


PLACES = {
    "algorithms/plain/algorithm.json": lambda study: study.algorithm("plain"),
    "algorithms/plain/plans/0001.json": lambda study: study.algorithm("plain").blocks,
    "algorithms/plain/runs/log/*": lambda study: study.algorithm("plain").table.view(),
    "algorithms/plain/runs/base/*/zarr.json": lambda study: study.algorithm("plain").table.view(),
    "algorithms/plain/runs/tags/v1.json": lambda study: status(study),
    "targets/shifted.json": lambda study: study.target_sets,
    "examples/train.zarr/zarr.json": lambda study: study.train,
    "examples/annotations/train-label.zarr/zarr.json": lambda study: study.train,
    "datamodels/plain/*/fit.json": lambda study: study.datamodels("plain"),
    "datamodels/plain/*/complete.json": lambda study: study.datamodels("plain"),
    "datamodels/plain/*/datamodels-*/zarr.json": lambda study: study.datamodels("plain"),
    "comparisons/*/comparison.json": lambda study: study.comparison("plain", "other"),
}


@pytest.mark.parametrize("place", PLACES)
def test_any_part_of_another_major_version_is_refused(stores, place):
    """A later dmstore may have written a part of an old study: it is named, not misread."""
    path = stores("v1.0", "local")
    files = list(path.glob(place))
    for file in files:
        text, count = re.subn(r'("format_version": *")1\.', r"\g<1>3.", file.read_text())
        assert count >= 1
        file.write_text(text)
    assert files
    study = dmstore.open_study(path)
    with pytest.raises(FormatError, match=r"store format 3\.0.*reads format 3"):
        PLACES[place](study)


@pytest.mark.parametrize("first", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_the_script_makes_the_same_again(tmp_path, first, monkeypatch):
    """But for what follows from the fit, which other libraries may round otherwise."""
    monkeypatch.setattr(sys, "argv", ["make.py"])
    monkeypatch.setattr("dmstore.analysis.pages.page.inline", lambda _: ("<svg></svg>", ""))
    maker.make(tmp_path, first)
    found = json.loads((tmp_path / "expected.json").read_text(encoding="utf-8"))
    version = "v1.0-first" if first else "v1.0"
    assert found.keys() == EXPECTED[version].keys()
    for store, entry in EXPECTED[version].items():
        same = {key: value for key, value in entry.items() if key not in ("fits", "comparisons")}
        assert {key: found[store][key] for key in same} == same
    assert (tmp_path / "stores.tar.xz").stat().st_size < 150_000
