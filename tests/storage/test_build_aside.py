"""Hidden files beside a target: what kills left goes after a day, and errors name the target."""

import errno
import os
import time
from pathlib import Path

import numpy as np
import pytest
from commands import run
from helpers import examples, fill

import dmstore
from dmstore.errors import StorageError
from dmstore.storage.objects.build_aside import beside
from dmstore.training.standalone.dmstore_writer import Writer

DAY = 86400
UNIQUE = "0123456789abcdef" * 2


def age(path, seconds):
    """Let a file or folder, and all in it, be as old as that."""
    when = time.time() - seconds
    for each in (path, *path.rglob("*")):
        os.utime(each, (when, when))


def leave(path, seconds, *, folder=True):
    """What a killed build leaves."""
    if folder:
        (path / "inside").mkdir(parents=True)
        (path / "inside/file").write_bytes(b"half")
    else:
        path.write_bytes(b"half")
    age(path, seconds)
    return path


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez("e.npz", **examples())
    study = dmstore.create_study("s.dm", examples(), seed=1)
    fill(study.add_algorithm("a", runs=3), range(3))
    for seed, name in enumerate(("x", "y")):
        np.save(f"{name}.npy", np.random.default_rng(seed).normal(size=(23, 37)))
    return tmp_path


COMMANDS = {
    "init": ("new", ["init", "new", "--examples", "e.npz"]),
    "export": ("runs", ["export", "s.dm", "a", "--to", "npy", "runs", "-Q"]),
    "export to a file": ("plan.json", ["export", "s.dm", "a", "--to", "plan", "plan.json", "-Q"]),
    "compare": (
        "out",
        ["compare", "x.npy", "y.npy", "--out", "out", "--examples", "e.npz", "--components", "2"],
    ),
}


@pytest.mark.parametrize("case", COMMANDS)
def test_what_kills_left_goes_after_a_day(folder, case):
    target, command = COMMANDS[case]
    dead = [leave(folder / f".{target}.{UNIQUE}.part", 2 * DAY)]
    dead.append(leave(folder / f".{target}.{UNIQUE[::-1]}.part", 2 * DAY, folder=False))
    kept = [
        leave(folder / f".{target}.{'0' * 32}.part", DAY / 2),
        leave(folder / f".{target}.{'1' * 32}.part", DAY / 2, folder=False),
        leave(folder / f".{target}2.{UNIQUE}.part", 2 * DAY),
        leave(folder / f".{target}.mine.part", 2 * DAY),
        leave(folder / f"{target}.{UNIQUE}.part", 2 * DAY),
        leave(folder / f".{target}.{'2' * 32}.part", 2 * DAY),
    ]
    # Somebody still writes in the last one, deep inside.
    os.utime(kept[-1] / "inside/file")
    # No build makes a link.
    link = folder / f".{target}.{'3' * 32}.part"
    link.symlink_to(folder / "s.dm")
    os.utime(link, (0, 0), follow_symlinks=False)
    run(*command)
    assert (folder / target).exists()
    assert {p.name for p in folder.glob(".*")} == {
        p.name for p in (*kept, link) if p.name[0] == "."
    }
    assert [path for path in dead if path.exists()] == []
    assert [path for path in (*kept, link) if not path.exists()] == []
    assert len(dmstore.open_study("s.dm").view("a")) == 3


def test_what_killed_writers_left_goes_after_a_day(tmp_path):
    dead = leave(tmp_path / f".{UNIQUE}.part", 2 * DAY, folder=False)
    kept = [
        leave(tmp_path / f".{'0' * 32}.part", DAY / 2, folder=False),
        leave(tmp_path / ".mine.part", 2 * DAY, folder=False),
        leave(tmp_path / f"{UNIQUE}.part", 2 * DAY, folder=False),
        leave(tmp_path / f".{'1' * 32}.part", 2 * DAY),
    ]
    with Writer(tmp_path):
        assert not dead.exists()
    assert [path for path in kept if not path.exists()] == []


def test_a_zip_killed_while_it_was_published_leaves_nothing_when_it_is_published(folder):
    left = leave(folder / ".s.zip.part", 0)
    run(
        "publish", "s.dm", "s.zip", "-Q", "--licence", "CC0-1.0", "--author", "A", "--citation", "c"
    )
    assert (folder / "s.zip").is_file()
    assert not left.exists()


@pytest.mark.parametrize("case", [*COMMANDS, "publish"])
def test_a_refusal_names_the_target(folder, monkeypatch, case):
    target, command = COMMANDS.get(case, ("pub", ["publish", "s.dm", "pub", "-Q"]))
    refused = []

    def refuse(path):
        if f"/.{target}." in f"/{path}":
            refused.append(path)
            raise PermissionError(errno.EACCES, "Permission denied", str(path))

    def before(owner, name):
        real = getattr(owner, name)

        def call(path, *arguments, **named):
            refuse(path)
            return real(path, *arguments, **named)

        monkeypatch.setattr(owner, name, call)

    before(Path, "mkdir")
    before(Path, "open")
    err = run(*command, code=1)[1]
    assert refused
    assert ".part" not in err
    assert err.startswith("error: ")
    assert target in err
    assert "Permission denied" in err
    assert not (folder / target).exists()


def test_errors_elsewhere_keep_their_names(tmp_path):
    with pytest.raises(PermissionError) as found, beside(tmp_path / "target"):
        raise PermissionError(errno.EACCES, "Permission denied", "/elsewhere")
    assert found.value.filename == "/elsewhere"
    with pytest.raises(StorageError, match="other: full"), beside(tmp_path / "target"):
        raise StorageError("other: full")
