"""What dmstore leans on in zarr beyond what zarr makes public: here alone, and each part by its name."""

import ast
import zipfile

import pytest
import zarr
from paths import ROOT
from zarr.core.sync import sync
from zarr.storage import MemoryStore, ZipStore

from dmstore.storage.objects import zarr_internals as internals


def test_private_parts_are_where_they_were():
    assert isinstance(MemoryStore()._store_dict, dict)
    assert callable(ZipStore._sync_open)
    assert callable(sync)


def test_keys_are_read_and_written():
    store = MemoryStore()
    assert internals.read_key(store, "a") is None
    internals.write_key(store, "b/c", b"12")
    internals.write_key(store, "a", b"3")
    internals.write_key(store, "zarr.json", b"{}")
    assert internals.read_key(store, "b/c") == b"12"
    assert internals.memory_items(store) == [("zarr.json", b"{}"), ("a", b"3"), ("b/c", b"12")]


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_zip_store_takes_stored_members_alone(tmp_path, compression):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", compression) as archive:
        archive.writestr("zarr.json", '{"zarr_format": 3, "node_type": "group", "attributes": {}}')
    store = internals.StoredZipStore(tmp_path / "a.zip", mode="r")
    if compression == zipfile.ZIP_STORED:
        assert dict(zarr.open_group(store, mode="r").attrs) == {}
        store.close()
    else:
        with pytest.raises(zipfile.BadZipFile):
            zarr.open_group(store, mode="r")


def test_no_other_module_leans_on_private_parts():
    private = {"_store_dict", "_sync_open", "_zf"}
    for folder in ("dmstore", "training", "analysis"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            if path.name == "zarr_internals.py":
                continue
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ImportFrom):
                    assert not (node.module or "").startswith("zarr.core"), path
                elif isinstance(node, ast.Attribute):
                    assert node.attr not in private, (path, node.attr)
