"""Created and opened groups are held to the schema files; the files themselves: test_format.py."""

import numpy as np
import pytest
import zarr
from zarr.storage import MemoryStore

from dmstore.errors import FormatError
from dmstore.schema.documents import dump_document, load_document
from dmstore.schema.group_specs import (
    array_layout,
    check_group,
    create_group,
    group_spec,
    known_outputs,
)


def made(**changes):
    spec = group_spec("runs", {"margin": known_outputs()["margin"]})
    store = MemoryStore()
    shapes = {
        "run": (3,),
        "row_digest": (3, 16),
        "mask_id": (3,),
        "repeat": (3,),
        "seed": (3,),
        "time": (3,),
        "host": (3,),
        "mask": (3, 9),
        "margin": (3, 4),
    }
    create_group(store, spec, shapes)
    return spec, store, zarr.open_group(store)


def test_created_arrays_are_what_the_files_say():
    spec, _, group = made()
    assert group["mask"].metadata.dimension_names == ("run", "train")
    assert group["mask"].dtype == bool
    assert [c.to_dict()["name"] for c in group["margin"].compressors] == ["blosc"] or group[
        "margin"
    ].shards
    assert np.isnan(group["margin"].fill_value)
    check_group(group, spec, {"train": 9, "target": 4}, "here")


@pytest.mark.parametrize(
    ("sizes", "words"),
    [({"train": 8}, "train has length 9, expected 8"), ({"target": 5}, "target has length 4")],
)
def test_opened_groups_are_checked(sizes, words):
    spec, _, group = made()
    with pytest.raises(FormatError, match=words):
        check_group(group, spec, sizes, "here")


def test_foreign_groups_are_refused():
    spec, _, _ = made()
    plain = zarr.create_group(MemoryStore())
    with pytest.raises(FormatError, match="no valid format_version"):
        check_group(plain, spec, {}, "here")
    other = zarr.create_group(MemoryStore(), attributes={"format_version": "1.0", "kind": "fit"})
    with pytest.raises(FormatError, match="kind 'fit'"):
        check_group(other, spec, {}, "here")
    missing = zarr.create_group(MemoryStore(), attributes={"format_version": "1.0", "kind": "runs"})
    with pytest.raises(FormatError, match="no array 'run'"):
        check_group(missing, spec, {}, "here")


def test_documents_are_checked_before_they_are_written():
    with pytest.raises(FormatError, match="alpha"):
        dump_document(
            "algorithm",
            {
                "name": "a",
                "study": "0" * 32,
                "uuid": "0" * 32,
                "alpha": 2.0,
                "sampling": "planned",
                "masks": "shared",
                "target_set": "test",
                "outputs": {"margin": known_outputs()["margin"]},
                "task": None,
                "config": {},
            },
        )
    with pytest.raises(FormatError, match="not a JSON object"):
        load_document("plan", b"[]", "here")
    with pytest.raises(FormatError, match="no valid format_version"):
        load_document("plan", b"{}", "here")


@pytest.mark.parametrize("size", [1, 5, 1024, 5000, 9000])
def test_shards_hold_whole_chunks(size):
    spec = group_spec("runs").arrays["mask"]
    chunks, shards = array_layout(spec, (size, 20000))
    assert chunks == (min(size, 1024), 8192)
    assert all(s % c == 0 for s, c in zip(shards, chunks, strict=True))
    assert shards[0] <= 4096
    assert shards[1] >= 20000
