"""What dmstore leans on in zarr beyond what zarr makes public: here alone, and each part by its name."""

import ast
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import zarr
from paths import ROOT
from zarr.core.sync import sync
from zarr.storage import LocalStore, MemoryStore

from dmstore.schema.group_specs import create_group, group_spec
from dmstore.storage.objects import zarr_internals as internals


def test_private_parts_are_where_they_were():
    assert isinstance(MemoryStore()._store_dict, dict)
    assert callable(sync)


def test_keys_are_read_and_written():
    store = MemoryStore()
    assert internals.read_key(store, "a") is None
    internals.write_key(store, "b/c", b"12")
    internals.write_key(store, "a", b"3")
    internals.write_key(store, "zarr.json", b"{}")
    assert internals.read_key(store, "b/c") == b"12"
    assert internals.memory_items(store) == [("zarr.json", b"{}"), ("a", b"3"), ("b/c", b"12")]


def small(store):
    """Texts, bits and numbers, in shards and not."""
    margin = {"dtype": "float32", "dims": ["run", "target"], "function": "its margin"}
    spec = group_spec("runs", {"margin": margin}).with_columns({"loss": "float64"})
    shapes = {name: (3, 20)[: len(array.dims)] for name, array in spec.arrays.items()}
    made = create_group(store, spec, shapes, attrs={"note": "é"})
    made["host"][:] = np.array(["a", "b", "c"], dtype=object)
    return store


@pytest.mark.filterwarnings("ignore:Consolidated metadata is currently")
def test_a_group_is_consolidated_as_zarr_does_it():
    ours, theirs = small(MemoryStore()), small(MemoryStore())
    internals.consolidate(ours)
    zarr.consolidate_metadata(theirs)
    assert internals.memory_items(ours) == internals.memory_items(theirs)
    found = zarr.open_group(ours, mode="r", use_consolidated=True)
    assert {"mask", "margin", "loss"} < set(found.array_keys())
    assert found["host"][:].tolist() == ["a", "b", "c"]


def test_no_thread_sees_other_filters_while_groups_are_consolidated(tmp_path):
    """Warnings are errors here: in every thread, and while others write groups."""
    filters = list(warnings.filters)

    def write(number):
        internals.consolidate(small(LocalStore(tmp_path / str(number))))
        assert list(warnings.filters) == filters
        with pytest.raises(UserWarning):
            warnings.warn("Consolidated metadata is currently not", UserWarning, stacklevel=1)

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(write, range(24))) == [None] * 24
    assert list(warnings.filters) == filters


def test_no_module_changes_the_filters_of_warnings():
    """They are the whole process's: a change in one thread hides, or raises, what others warn of."""
    forbidden = {"catch_warnings", "filterwarnings", "simplefilter", "resetwarnings"}
    for folder in ("dmstore", "training", "analysis"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                name = getattr(node, "attr", getattr(node, "id", getattr(node, "name", None)))
                assert name not in forbidden, (path, name)


def test_no_other_module_leans_on_private_parts():
    private = {"_store_dict"}
    for folder in ("dmstore", "training", "analysis"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            if path.name == "zarr_internals.py":
                continue
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ImportFrom):
                    assert not (node.module or "").startswith("zarr.core"), path
                elif isinstance(node, ast.Attribute):
                    assert node.attr not in private, (path, node.attr)
