"""The reference pages name all that there is: public names, variables, errors, exit codes."""

import doctest
import importlib
import re

import numpy as np
import pytest
from helpers import TARGET, examples, fill
from paths import ROOT

import dmstore
from dmstore import errors

PAGES = ROOT / "docs" / "reference"
SOURCES = [
    p for folder in ("dmstore", "training", "analysis") for p in (ROOT / folder).rglob("*.py")
]
PACKAGES = ("analysis", "analysis.plot", "counterfactual", "regression", "sharing", "training")


def page(name):
    return (PAGES / f"{name}.md").read_text(encoding="utf-8")


def is_error(module, name):
    value = getattr(module, name)
    return isinstance(value, type) and issubclass(value, errors.DmstoreError)


def public_names():
    """Functions and classes of each ``__all__``; packages stand for theirs."""
    for package in ("dmstore", *(f"dmstore.{name}" for name in PACKAGES)):
        module = importlib.import_module(package)
        for name in module.__all__:
            if callable(getattr(module, name)) and not is_error(module, name):
                yield f"{package}.{name}"


def test_api_page_has_every_public_name_and_no_other():
    stated = re.findall(r"^\.\. auto(?:class|function):: (\S+)$", page("api"), re.M)
    assert len(stated) == len(set(stated))
    facades = {name for name in stated if name.startswith("dmstore.study.")}
    assert set(stated) - facades == set(public_names())
    assert ".. automodule:: dmstore.errors" in page("api")


def test_every_variable_is_on_its_page():
    names = {
        name
        for path in SOURCES
        for name in re.findall(
            r"""["']((?:DMSTORE|AWS|OMP|MKL|OPENBLAS|NUMBA|CUDA|TORCH|SLURM)_[A-Z_]+)["']""",
            path.read_text(encoding="utf-8"),
        )
    }
    assert names >= {"DMSTORE_DATA", "DMSTORE_DEVICE", "CUDA_VISIBLE_DEVICES"}
    assert not {name for name in names if f"`{name}`" not in page("environment")}


def test_every_kind_of_error_is_on_the_page_of_exit_codes():
    kinds = {
        f"| `{value.kind}` | `{name}` |"
        for name, value in vars(errors).items()
        if isinstance(value, type) and value is not errors.DmstoreError
    }
    assert not {kind for kind in kinds if kind not in page("exit-codes")}


@pytest.mark.parametrize(
    "path",
    [path for path in SOURCES if ">>> " in path.read_text(encoding="utf-8")],
    ids=lambda path: path.stem,
)
def test_examples_in_docstrings_run(path, tmp_path, monkeypatch):
    study = dmstore.create_study(tmp_path / "digits.dm", examples(), seed=0)
    study.add_algorithm("plain", runs=203)
    fill(study.algorithm("plain"), range(200))
    monkeypatch.chdir(tmp_path)
    parts = path.relative_to(ROOT).with_suffix("").parts
    name = ".".join(parts if parts[0] == "dmstore" else ("dmstore", *parts))
    module = importlib.import_module(name)
    given = {"train": lambda mask, seed: np.random.default_rng(seed).normal(size=TARGET)}
    result = doctest.testmod(module, extraglobs=given)
    assert result.attempted > 0
    assert result.failed == 0


def test_versions_stand_once():
    citation = (ROOT / "CITATION.cff").read_text()
    assert re.search(r"^version: (.*)$", citation, re.M)[1] == dmstore.__version__
