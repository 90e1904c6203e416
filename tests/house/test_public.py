"""The public surface: every name is there, says what it takes, gives and raises, and hides no module."""

import importlib.machinery
import inspect
import re

import pytest

import dmstore
from dmstore.errors import DmstoreError
from dmstore.regression.problem.parameters import FitOptions, Parameters

PACKAGES = ("analysis", "regression", "sharing", "training")
# Classes whose methods and properties are public, beside those that packages name.
FACADES = ("study.algorithm:Algorithm", "study.runs_view:RunsView", "study.target:Target")
SECTION = re.compile(r"^(\w[\w ]*)\n-{3,}$", re.MULTILINE)


def _names():
    """Every public function and method: its name to the function."""
    found = {}
    for place, names in (
        (dmstore, dmstore.__all__),
        *((getattr(dmstore, p), getattr(dmstore, p).__all__) for p in PACKAGES),
    ):
        for name in names:
            found[f"{place.__name__}.{name}"] = getattr(place, name)
    for text in FACADES:
        module, name = text.split(":")
        found[f"dmstore.{name}"] = getattr(importlib.import_module(f"dmstore.{module}"), name)
    functions = {}
    for name, value in found.items():
        if inspect.isclass(value) and not issubclass(value, Exception):
            functions |= {
                f"{name}.{attribute}": member
                for attribute, member in vars(value).items()
                if not attribute.startswith("_")
                and (inspect.isfunction(member) or isinstance(member, classmethod))
            }
        elif inspect.isfunction(value):
            functions[name] = value
    return functions


FUNCTIONS = _names()


def sections(text):
    """Sections of a numpydoc docstring: heading to text."""
    parts = SECTION.split(inspect.cleandoc(text or ""))
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def arguments(function):
    signature = inspect.signature(getattr(function, "__func__", function))
    return [
        (p.name, p.kind) for p in signature.parameters.values() if p.name not in ("self", "cls")
    ], signature


def documented(text):
    """Names that a section describes: those before a colon or alone on a line that is not indented."""
    lines = [line for line in text.splitlines() if line and not line[0].isspace()]
    return {
        name.strip().lstrip("*") for line in lines for name in line.partition(" : ")[0].split(",")
    }


@pytest.mark.parametrize("name", FUNCTIONS)
def test_arguments_results_and_errors_are_documented(name):
    function = FUNCTIONS[name]
    given, signature = arguments(function)
    text = inspect.getdoc(function) or ""
    assert text, f"{name} has no docstring"
    said = sections(text)
    if given:
        described = documented(said.get("Parameters", ""))
        options = {n for n, kind in given if kind is inspect.Parameter.VAR_KEYWORD}
        missing = {n for n, _ in given} - described - options
        assert not missing, f"{name}: {sorted(missing)} stand under no Parameters"
        assert {"Returns", "Yields"} & said.keys() or signature.return_annotation in (
            "None",
            None,
        ), f"{name} does not say what it returns"
        assert "Raises" in said, f"{name} does not say what it raises"


def test_options_of_a_fit_are_stated_once():
    assert set(FitOptions.__annotations__) == set(Parameters.__dataclass_fields__)
    from dmstore.analysis.comparison.parameters import ComparisonOptions, ComparisonParameters

    assert set(ComparisonOptions.__annotations__) == set(ComparisonParameters.__dataclass_fields__)
    for function in (dmstore.regression.fit, dmstore.regression.lasso_path):
        described = documented(sections(inspect.getdoc(function))["Parameters"])
        assert set(FitOptions.__annotations__) - {"halves"} <= described
    for name in ("compare", "modeldiff", "compare_scores"):
        described = documented(
            sections(inspect.getdoc(getattr(dmstore.analysis, name)))["Parameters"]
        )
        assert set(ComparisonOptions.__annotations__) <= described


@pytest.mark.parametrize("name", FUNCTIONS)
def test_options_are_given_by_keyword(name):
    _, signature = arguments(FUNCTIONS[name])
    for parameter in signature.parameters.values():
        if parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD:
            assert isinstance(parameter.default, type(inspect.Parameter.empty)) or (
                parameter.default in (inspect.Parameter.empty, None) or name.count(".") > 2
            ), f"{name}: option {parameter.name} can be given by place"


@pytest.mark.parametrize("package", ["dmstore", *(f"dmstore.{name}" for name in PACKAGES)])
def test_no_function_has_the_name_of_a_module_beside_it(package):
    module = importlib.import_module(package)
    for name in module.__all__:
        if inspect.ismodule(getattr(module, name)):
            continue
        found = importlib.machinery.PathFinder.find_spec(f"{package}.{name}", module.__path__)
        assert found is None, f"{package}.{name} is a module too"


@pytest.mark.parametrize(
    "name", [n for n, f in FUNCTIONS.items() if "study" in [p for p, _ in arguments(f)[0][:1]]]
)
def test_a_path_is_no_study_and_it_is_said_how_to_open_one(name, tmp_path):
    function = FUNCTIONS[name]
    given, signature = arguments(function)
    needed = [n for n, _ in given[1:] if signature.parameters[n].default is inspect.Parameter.empty]
    by_name = {n: "x" for n in needed if signature.parameters[n].kind == 3}
    by_place = ["x" for n in needed if signature.parameters[n].kind in (0, 1)]
    for wrong in (str(tmp_path / "s.dm"), tmp_path, None):
        with pytest.raises(DmstoreError, match="open_study\\(path\\)"):
            # What is lazy says it when it is first asked.
            list(function(wrong, *by_place, **by_name))
