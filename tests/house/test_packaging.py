"""The wheel: what is in it, and that it works in a fresh environment with nothing else installed."""

import os
import subprocess
import sys
import venv
import zipfile

import numpy as np
import pytest
from helpers import examples
from paths import ROOT


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel built from the files that git knows, in a folder of their own."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    names = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    for name in filter(None, names.split("\0")):
        path, target = ROOT / name, source / name
        if not path.exists() and not path.is_symlink():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.is_symlink():
            target.symlink_to(path.readlink())
        else:
            target.write_bytes(path.read_bytes())
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "-w",
        str(folder),
        str(source),
    ]
    subprocess.run(command, check=True, capture_output=True)
    (found,) = folder.glob("*.whl")
    return found


def test_wheel_holds_the_package_and_nothing_else(wheel):
    inside = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    expected = {"dmstore/py.typed"}
    expected |= {f"dmstore/analysis/pages/page.{kind}" for kind in ("html", "css", "js")}
    for package, folder in (
        ("dmstore", "dmstore"),
        ("dmstore/training", "training"),
        ("dmstore/analysis", "analysis"),
    ):
        for path in (ROOT / folder).rglob("*.py"):
            relative = path.relative_to(ROOT / folder)
            if package != "dmstore" or relative.parts[0] not in (
                "training",
                "analysis",
                "store_schemas",
            ):
                expected.add(f"{package}/{relative.as_posix()}")
    expected |= {
        f"dmstore/store_schemas/{p.name}"
        for p in (ROOT / "store_schemas").iterdir()
        if p.suffix in (".py", ".json")
    }
    expected |= {
        f"dmstore/training/recipes/{path.name}"
        for path in (ROOT / "training" / "recipes").glob("*.json")
    }
    assert inside == expected


def test_wheel_works_with_the_core_alone(wheel, tmp_path):
    # The pip of these tests installs there: another would be unpacked for nothing else.
    venv.create(tmp_path / "env")
    python = tmp_path / "env/bin/python"
    install = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(python),
        "install",
        "-q",
        "--no-compile",
    ]
    subprocess.run([*install, str(wheel)], check=True, capture_output=True)
    # What is started compiles what it imports, which is little of what was installed.
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}
    environment.pop("PYTHONPATH", None)
    np.savez(tmp_path / "e.npz", **examples())

    def dmstore(*arguments, code=0):
        command = [tmp_path / "env/bin/dmstore", *arguments]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == code, done.stderr
        return done.stdout + done.stderr

    assert "counterfactual" in dmstore("--help")
    dmstore("init", "s.dm", "--examples", "e.npz")
    task = ["--task", "dmstore.training.tasks:dense"]
    dmstore("add", "s.dm", "a", "--runs", "30", *task)
    dmstore("train", "s.dm", "a", "-Q")
    assert "30 runs stored of 30 planned" in dmstore("status", "s.dm")
    assert "nothing wrong" in dmstore("verify", "s.dm")
    assert "pip install 'dmstore[fit]'" in dmstore("fit", "s.dm", "a", code=1)
    assert "pip install 'dmstore[demo]'" in dmstore("demo", "d", code=1)
    code = "import dmstore; print(float(dmstore.open_study('s.dm').runs('a').mask.mean()))"
    done = subprocess.run(
        [python, "-W", "error", "-c", code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert abs(float(done.stdout) - 18 / 37) < 1e-6
