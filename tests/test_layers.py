"""The direction of imports, the package list, and what ``import dmstore`` may load."""

import ast
import configparser
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HEAVY = {
    "torch",
    "torchvision",
    "ffcv",
    "fast_l1",
    "open_clip",
    "matplotlib",
    "sklearn",
    "scipy",
    "numba",
    "distributed",
    "PIL",
    "jinja2",
}
NUMBA = ("bit_planes", "descent", "gradient", "kernels", "popcount", "prediction", "working_set")
# Modules that are made of a heavy package, and are imported inside functions themselves.
MAY_IMPORT = {
    **{f"dmstore.regression.{part}": {"numba"} for part in NUMBA},
    **{f"dmstore.regression.torch_{part}": {"torch"} for part in ("design", "steps", "solver")},
}
# A module may import from its own layer and from those before it.
LAYERS = [
    ["errors", "finite", "memory", "npy", "npz", "strictjson", "threads", "validation", "zips"],
    ["layout", "schema", "bits", "plan"],
    ["storage"],
    [
        *("examples", "annotation", "target_sets", "summary", "declaration", "algorithm"),
        *("add", "dataset"),
        *("outputs", "runs", "results", "target", "tree", "study", "creation"),
    ],
    ["selection"],
    [
        *("ingest", "intake", "adoption", "maintenance", "readers", "regression", "exporters"),
        *("sharing", "doctor", "torture", "retraction"),
    ],
    ["training", "analysis"],
    ["counterfactual"],
    ["cli", "demo", "__main__"],
]
SOURCES = {
    "dmstore": ROOT / "dmstore",
    "dmstore.training": ROOT / "training",
    "dmstore.analysis": ROOT / "analysis",
}


def modules():
    for package, folder in SOURCES.items():
        for path in sorted(folder.rglob("*.py")):
            relative = path.relative_to(folder)
            if package == "dmstore" and relative.parts[0] in (
                "training",
                "analysis",
                "store_schemas",
            ):
                continue
            parts = [package, *relative.with_suffix("").parts]
            yield ".".join(parts).removesuffix(".__init__"), path


def layer(name):
    first = name.split(".")[1] if "." in name else "__init__"
    return next((i for i, names in enumerate(LAYERS) if first in names), None)


def imports(path):
    """Names imported, and whether at the top of the module (outside functions and type checking)."""
    tree = ast.parse(path.read_text())
    checking = {
        id(n)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for n in ast.walk(node)
    }
    inside = {
        id(n)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
        for n in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in checking:
            continue
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            yield name, id(node) not in inside


MODULES = list(modules())


@pytest.mark.parametrize(("name", "path"), MODULES, ids=[name for name, _ in MODULES])
def test_imports_go_one_way(name, path):
    if name == "dmstore":
        return
    own = layer(name)
    assert own is not None, f"{name} stands in no layer"
    for target, _ in imports(path):
        if not target.startswith("dmstore.") or target == "dmstore.__version__":
            continue
        other = layer(target)
        assert other is not None, target
        assert other <= own, f"{name} imports {target}"
        kinds = {name.split(".")[1], target.split(".")[1]}
        assert kinds != {"training", "analysis"}, f"{name} imports {target}"
        assert not target.startswith(("dmstore.cli", "dmstore.demo")) or own == len(LAYERS) - 1


@pytest.mark.parametrize(("name", "path"), MODULES, ids=[name for name, _ in MODULES])
def test_heavy_packages_are_imported_inside_functions(name, path):
    top = {target.split(".")[0] for target, outside in imports(path) if outside}
    assert not (top & HEAVY) - MAY_IMPORT.get(name, set())


def test_import_loads_nothing_heavy():
    code = "import sys, dmstore; print(*sorted({m.split('.')[0] for m in sys.modules}))"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not set(loaded) & (HEAVY | {"numpy", "zarr", "xarray"})


def test_package_list_is_the_folders():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    listed = set(config["options"]["packages"].split())
    found = {name for name, path in MODULES if path.name == "__init__.py"} | {
        "dmstore.store_schemas"
    }
    assert listed == found


def test_links_serve_the_checkout():
    for name in ("training", "analysis", "store_schemas"):
        assert (ROOT / "dmstore" / name).resolve() == ROOT / name


def test_modules_stay_small():
    long = {
        name: count for name, path in MODULES if (count := len(path.read_text().splitlines())) > 450
    }
    assert long == {}
