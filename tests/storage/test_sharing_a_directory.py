"""A study in a directory that a group shares: what is created is the group's, whatever anybody's umask."""

import contextlib
import os
import stat
from pathlib import Path

import numpy as np
import pytest
from helpers import Done, examples, fill, make_rows

import dmstore
from dmstore.errors import StorageError
from dmstore.storage.acts import tag
from dmstore.storage.acts.compact import compact
from dmstore.storage.objects.permissions import differing, permissions_of
from dmstore.storage.objects.refusals import storage_error
from dmstore.upkeep.doctor import diagnose

GROUP = 54321


@contextlib.contextmanager
def umask(mask):
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


@pytest.fixture
def shared(tmp_path):
    """A study in an empty directory that was made for a group."""
    place = tmp_path / "study.dm"
    place.mkdir()
    if os.geteuid() == 0:
        os.chown(place, -1, GROUP)
    place.chmod(0o2770)
    with umask(0o077):
        study = dmstore.create_study(place, examples(), seed=3)
    return study


def modes(path):
    kinds = {True: set(), False: set()}
    for each in (path, *path.rglob("*")):
        status = each.lstat()
        kinds[each.is_dir()].add((stat.S_IMODE(status.st_mode), status.st_gid))
    return kinds[True], kinds[False]


def test_everything_created_has_the_mode_and_group_of_the_study(shared):
    from dmstore.analysis import compare
    from dmstore.regression import fit
    from dmstore.upkeep.retraction import retract_runs

    path = Path(shared.path)
    group = path.stat().st_gid
    with umask(0o077):
        for name in ("one", "two"):
            algorithm = shared.add_algorithm(name, runs=300)
            fill(algorithm, range(200), seed=len(name) + ord(name[0]))
            compact(algorithm.table)
            fill(algorithm, range(200, 260))
            tag.create(algorithm.table, "first")
            fit(shared, name, lams=3)
        compare(shared, "one", "two", components=1)
        retract_runs(shared.algorithm("one"), ["run<3"], reason="test")
        shared.annotate("train", {"mark": np.arange(37)})
    directories, files = modes(path)
    assert directories == {(0o2770, group)}
    assert files == {(0o660, group)}
    assert list(differing(path)) == []


def test_a_private_study_stays_private(tmp_path):
    with umask(0o077):
        study = dmstore.create_study(tmp_path / "study.dm", examples(), seed=3)
    algorithm = study.add_algorithm("one", runs=10)
    fill(algorithm, range(5))
    directories, files = modes(Path(study.path))
    assert {mode for mode, _ in directories} == {0o700}
    assert {mode for mode, _ in files} == {0o600}


def test_an_unfinished_base_is_open_to_the_group(shared):
    with umask(0o077):
        store = shared.objects.writer("algorithms/one/runs/base/00000001-dead.zarr")
        from zarr import create_array

        create_array(store, name="run", shape=(8,), chunks=(4,), dtype="i8")[:] = 1
    assert list(differing(Path(shared.path))) == []


def test_a_folder_that_was_shut_is_opened_by_its_owner(shared):
    """An earlier version, or a process that died at once, left it."""
    algorithm = shared.add_algorithm("one", runs=10)
    fill(algorithm, range(2))
    folder = Path(shared.path, "algorithms/one/runs/segments")
    folder.chmod(0o700)
    fill(dmstore.open_study(shared.path).algorithm("one"), range(2, 5))
    assert stat.S_IMODE(folder.stat().st_mode) == 0o2770


def test_a_folder_that_opens_in_a_moment_is_waited_for(algorithm, monkeypatch):
    real, refused = os.open, []

    def opening(path, *arguments, **named):
        if str(path).endswith(".part") and len(refused) < 2:
            refused.append(path)
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *arguments, **named)

    monkeypatch.setattr(os, "open", opening)
    algorithm.table.append(make_rows(algorithm, range(3)))
    assert len(refused) == 2
    assert algorithm.table.view().run.tolist() == [0, 1, 2]


def test_an_error_names_mode_owner_and_group(algorithm, monkeypatch):
    folder = Path(algorithm.objects.root, "algorithms/alpha")
    real = os.access
    monkeypatch.setattr(os, "access", lambda p, mode: Path(p) != folder and real(p, mode))

    def opening(path, *arguments, **named):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "open", opening)
    status = folder.stat()
    expected = (
        rf"{folder} has mode {stat.S_IMODE(status.st_mode):o}, owner .* and group .*chmod -R g\+rwX"
    )
    with pytest.raises(StorageError, match=expected):
        algorithm.table.append(make_rows(algorithm, range(3)))


def test_an_error_on_a_folder_that_has_gone_is_told_too(tmp_path):
    refused = PermissionError(13, "Permission denied")
    told = str(storage_error(refused, tmp_path / "gone" / "file"))
    assert told.startswith(f"{tmp_path}/gone/file: Permission denied: use an account")


def test_doctor_tells(shared):
    assert diagnose(shared.path).safe("ingest")
    shut = Path(shared.path, "examples/train.zarr")
    shut.chmod(0o700)
    diagnosis = diagnose(shared.path)
    assert not diagnosis.safe("ingest")
    (finding,) = [f for f in diagnosis.findings if f.name == "sharing"]
    assert str(shut) in finding.text
    assert "chmod -R g+rwX" in finding.text
    assert Done("doctor", shared.path).returncode == 1


def test_a_published_copy_takes_the_mode_of_the_directory_made_for_it(shared, tmp_path):
    from dmstore.sharing.publishing import publish

    algorithm = shared.add_algorithm("one", runs=10)
    fill(algorithm, range(5))
    place = tmp_path / "public"
    place.mkdir()
    place.chmod(0o2775)
    with umask(0o077):
        publish(shared, place)
    assert permissions_of(place).directory == 0o2775
    assert list(differing(place)) == []
