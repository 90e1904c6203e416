"""What dmstore leans on in zarr beyond what zarr makes public: here alone, and each part by its name."""

import ast

from paths import ROOT
from zarr.core.sync import sync
from zarr.storage import MemoryStore

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
