"""The house: which room may import which, no circles, the package list, and what ``import dmstore`` loads."""

import ast
import configparser
import functools
import subprocess
import sys

from paths import ROOT

HEAVY = {
    "torch",
    "torchvision",
    "ffcv",
    "fast_l1",
    "open_clip",
    "sentence_transformers",
    "timm",
    "wordfreq",
    "matplotlib",
    "sklearn",
    "scipy",
    "numba",
    "distributed",
    "submitit",
    "PIL",
    "jinja2",
}
# Rooms that are made of a heavy package; everywhere else it is imported inside functions.
MAY_IMPORT = {
    "dmstore.regression.kernels": {"numba"},
    "dmstore.training.loaders.draws": {"torch"},
    "dmstore.training.loaders.tensors": {"torch"},
    "dmstore.training.loaders.make": {"torch"},
    **{
        f"dmstore.training.ensemble.{part}": {"torch"}
        for part in ("choice", "convolutions", "dense", "feed", "fit", "stack")
    },
    "dmstore.training.loaders.torchvision": {"torch"},
    "dmstore.training.loaders.ffcv": {"torch"},
    "dmstore.training.loaders.ffcv_crop": {"ffcv"},
    **{f"dmstore.training.loop.{part}": {"torch"} for part in ("fit", "precision")},
    **{
        f"dmstore.training.models.{part}": {"torch"}
        for part in ("fastnet", "make", "resnet9", "small", "strided")
    },
    **{
        f"dmstore.regression.solvers.torch_{part}": {"torch"}
        for part in ("design", "steps", "solver")
    },
}
# Rooms (or modules that stand in no room) from the ground floor up. A module imports from its own
# room and from the floors below it, and from no other room on its own floor.
FLOORS = [
    ["errors", "store_schemas"],
    ["provenance", "core"],
    ["schema"],
    ["storage.objects"],
    ["storage.table", "storage.published"],
    ["storage.acts", "storage.location"],
    ["study"],
    ["readers", "upkeep", "exporters", "regression.kernels"],
    ["intake", "sharing", "regression.problem"],
    ["regression.solvers"],
    ["regression.fitting", "storage"],
    ["regression"],
    ["training", "analysis.geometry"],
    ["analysis.experiment"],
    ["analysis.evaluation", "analysis.comparison", "analysis.explaining"],
    ["analysis.plot", "analysis.captions"],
    ["analysis.pages"],
    ["analysis"],
    ["counterfactual"],
    ["demo"],
    ["cli"],
    ["__main__"],
]
FLOOR = {f"dmstore.{room}": floor for floor, rooms in enumerate(FLOORS) for room in rooms}
# ``storage``, ``regression`` and ``analysis`` have rooms inside; by their own names they are doors, which
# hold public names and stand above these rooms.
SOURCES = {
    "dmstore": ROOT / "dmstore",
    "dmstore.training": ROOT / "training",
    "dmstore.analysis": ROOT / "analysis",
    "dmstore.store_schemas": ROOT / "store_schemas",
}


def modules():
    for package, folder in SOURCES.items():
        for path in sorted(folder.rglob("*.py")):
            relative = path.relative_to(folder)
            if package == "dmstore" and f"dmstore.{relative.parts[0]}" in SOURCES:
                continue
            parts = [package, *relative.with_suffix("").parts]
            yield ".".join(parts).removesuffix(".__init__"), path


MODULES = dict(modules())


def room(name):
    """The room that a module stands in: the longest of its prefixes that is one."""
    parts = name.split(".")
    prefixes = (".".join(parts[:count]) for count in range(len(parts), 1, -1))
    return next((prefix for prefix in prefixes if prefix in FLOOR), None)


@functools.cache
def parsed(name):
    return ast.parse(MODULES[name].read_text())


@functools.cache
def imports(name):
    """Names that a module imports, but for type checking, and whether outside of functions."""
    found = []

    def walk(node, outside):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            return
        if isinstance(node, ast.Import):
            found.extend((alias.name, outside) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.extend((f"{node.module}.{alias.name}", outside) for alias in node.names)
        elif not isinstance(node, ast.expr):
            for child in ast.iter_child_nodes(node):
                walk(child, outside and not isinstance(node, ast.FunctionDef))

    walk(parsed(name), True)
    return found


def module_of(name):
    """The module that an imported name is, or is in."""
    while name not in MODULES:
        name = name.rpartition(".")[0]
    return name


@functools.cache
def arrows():
    """Module to the modules that it imports anywhere, also inside functions."""
    return {
        name: {
            module_of(target)
            for target, _ in imports(name)
            if target.partition(".")[0] == "dmstore"
        }
        - {name}
        for name in MODULES
    }


def circle(graph):
    """A circle in a graph of names, as a list that ends where it begins; None if there is none."""
    done, way = set(), []

    def walk(name):
        if name in way:
            return [*way[way.index(name) :], name]
        if name in done:
            return None
        way.append(name)
        for target in sorted(graph.get(name, ())):
            if found := walk(target):
                return found
        done.add(way.pop())
        return None

    return next((found for name in sorted(graph) if (found := walk(name))), None)


def test_each_module_stands_in_a_room():
    assert [name for name in MODULES if not room(name)] == ["dmstore"]


def test_a_room_imports_from_the_floors_below():
    wrong = []
    for name, targets in arrows().items():
        own = room(name)
        for target in targets:
            other = room(target)
            if target == "dmstore":
                allowed = name in ("dmstore.provenance", "dmstore.cli")
            else:
                allowed = not own or other == own or FLOOR[other] < FLOOR[own]
            if not allowed:
                wrong.append(f"{name} imports {target}")
    assert wrong == []


def test_no_module_imports_itself_by_way_of_others():
    assert circle(arrows()) is None


def test_a_circle_would_be_found():
    graph = dict(arrows())
    graph["dmstore.storage.table.log"] = graph["dmstore.storage.table.log"] | {
        "dmstore.storage.table.view"
    }
    assert {"dmstore.storage.table.log", "dmstore.storage.table.view"} <= set(circle(graph))
    assert circle({"a": {"b"}, "b": {"c"}, "c": set(), "d": {"a", "b"}}) is None


def test_heavy_packages_are_imported_inside_functions():
    wrong = {}
    for name in MODULES:
        top = {target.split(".")[0] for target, outside in imports(name) if outside}
        wrong[name] = (top & HEAVY) - MAY_IMPORT.get(name, MAY_IMPORT.get(room(name), set()))
    assert {name: packages for name, packages in wrong.items() if packages} == {}


def test_a_room_says_what_it_is_for():
    missing = []
    for name in (name for name, path in MODULES.items() if path.stem == "__init__"):
        text = ast.get_docstring(parsed(name)) or ""
        words = ("Imports:", "To add") if name in FLOOR else ()
        missing += [f"{name}: its docstring has no line {w!r}" for w in words if w not in text]
        missing += [f"{name}: its docstring says nothing"] * (len(text) <= 20)
    assert missing == []


def test_import_loads_nothing_heavy():
    code = "import sys, dmstore; print(*sorted({m.split('.')[0] for m in sys.modules}))"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not set(loaded) & (HEAVY | {"numpy", "zarr", "xarray"})


def test_package_list_is_the_folders():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    listed = config["options"]["packages"].split()
    found = [name for name, path in MODULES.items() if path.name == "__init__.py"]
    assert listed == sorted(found)


def test_links_serve_the_checkout():
    for name in ("training", "analysis", "store_schemas"):
        assert (ROOT / "dmstore" / name).resolve() == ROOT / name


def lines_of(name):
    """Lines of a module but for its docstrings, which are as long as its public names need."""
    documented = sum(
        node.body[0].end_lineno - node.body[0].lineno + 1
        for node in ast.walk(parsed(name))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and ast.get_docstring(node) is not None
    )
    return len(MODULES[name].read_text().splitlines()) - documented


def test_modules_stay_small():
    assert {n: lines for n in MODULES if (lines := lines_of(n)) > 400} == {}


def test_few_modules_stand_beside_the_rooms():
    assert len(list((ROOT / "dmstore").glob("*.py"))) <= 6
