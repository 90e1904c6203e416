"""Spoiled bytes are read right or refused in one of our own words, wherever they come from.

Valid files are mutated: bits flipped, parts cut, repeated and spliced, lengths replaced.
"""

from __future__ import annotations

import importlib.resources
import io
import json
import shutil
import struct
import zipfile

import numpy as np
import pytest
from helpers import examples, fill, make_rows
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import dmstore
from dmstore.core.npz import NpzReader
from dmstore.errors import CorruptionError, DmstoreError, FormatError, InputError
from dmstore.readers.files import open_npy
from dmstore.readers.safetensors import open_safetensors
from dmstore.readers.torch_file import TorchFile
from dmstore.schema.documents import load_document
from dmstore.schema.files import read_schema
from dmstore.storage.objects import frames, metadata
from dmstore.storage.published import index
from dmstore.storage.table import chunks, segment
from dmstore.training.standalone import dmstore_writer
from dmstore.upkeep.maintenance import compact

KINDS = sorted(
    entry.name.removesuffix(".document.json")
    for entry in importlib.resources.files("dmstore.store_schemas").iterdir()
    if entry.name.endswith(".document.json")
)
_LENGTHS = st.sampled_from(
    [struct.pack(f, n) for f in ("<H", "<I", "<Q") for n in (0, 1, 2**7, 2**15, 2**16 - 1)]
    + [struct.pack("<I", 2**31 - 1), struct.pack("<Q", 2**63), b"\xff" * 4, b"\xff" * 8]
)


@st.composite
def spoiled(draw, raw):
    """Bytes that were `raw`."""
    found = bytearray(raw)
    for _ in range(draw(st.integers(1, 3))):
        if not found:
            break
        at = draw(st.integers(0, len(found) - 1))
        match draw(st.sampled_from(["bit", "byte", "length", "cut", "drop", "copy"])):
            case "bit":
                found[at] ^= 1 << draw(st.integers(0, 7))
            case "byte":
                found[at] = draw(st.integers(0, 255))
            case "length":
                length = draw(_LENGTHS)
                found[at : at + len(length)] = length
            case "cut":
                del found[at:]
            case "drop":
                del found[at : at + draw(st.integers(1, 40))]
            case "copy":
                start = draw(st.integers(0, len(found) - 1))
                found[at:at] = found[start : start + draw(st.integers(1, 80))]
    return bytes(found)


def fuzz(count):
    """So many examples, however long each takes."""

    return settings(max_examples=count, deadline=None, suppress_health_check=list(HealthCheck))


def one_line(error):
    assert len(str(error).splitlines()) == 1
    assert len(str(error)) < 3000


def any_of(raw):
    return st.one_of(spoiled(raw), st.binary(max_size=300))


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz")
    study = dmstore.create_study(folder / "study.dm", examples(train=9, target=4), seed=3)
    return study.add_algorithm("alpha", runs=8, outputs=["margin"]).table


@pytest.fixture(scope="module")
def stored(table):
    """Bytes of a segment, and the rows in it."""
    study = dmstore.open_study(table.objects.url)
    rows = make_rows(study.algorithm("alpha"), range(3))
    return segment.encode(rows, table.spec, table.identity), rows


def check_segment(raw, rows, table):
    """Whatever is accepted is what was written; whatever is refused is refused in our words."""
    shapes = table.shapes(["run", "mask", "margin", "host"], 3)
    try:
        info = segment.parse_info("x", raw, table.identity)
        found = chunks.read_group(io.BytesIO(raw), "x", list(shapes), shapes)
    except (CorruptionError, FormatError, chunks.UnknownLayoutError) as error:
        if not isinstance(error, chunks.UnknownLayoutError):
            one_line(error)
        return False
    for name, values in found.items():
        wanted = {"run": rows.run, **rows.arrays, **rows.columns}[name]
        assert values.shape == shapes[name]
        assert np.array_equal(values, wanted), name
    return len(info) > 0


@fuzz(120)
@given(data=st.data())
def test_segments(stored, table, data):
    raw, rows = stored
    check_segment(data.draw(any_of(raw)), rows, table)
    assert check_segment(raw, rows, table)


@fuzz(150)
@given(data=st.data())
def test_metadata_in_a_segment_whose_checksums_are_right(stored, table, data):
    """Documents are spoiled and packed again: nothing but their content can tell."""
    raw, rows = stored
    name = data.draw(st.sampled_from(["run", "mask", "margin", "host"]))
    changes = data.draw(
        st.dictionaries(
            st.sampled_from(
                ["shape", "data_type", "codecs", "chunk_grid", "chunk_key_encoding", "node_type"]
            ),
            _json(),
            min_size=1,
            max_size=2,
        )
    )
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(raw)) as old, zipfile.ZipFile(out, "w") as new:
        for info in old.infolist():
            content = old.read(info)
            if info.filename == f"{name}/zarr.json":
                content = json.dumps({**json.loads(content), **changes}).encode()
            new.writestr(info, content)
        new.comment = old.comment
    check_segment(out.getvalue(), rows, table)


@fuzz(150)
@given(data=st.data())
def test_chunks_that_say_other_lengths(data):
    """A chunk is decoded to what its array says, or not at all."""
    import google_crc32c

    text = data.draw(st.booleans())
    shape = (3,) if text else (2, 3)
    codecs = (("vlen-utf8", {}), ("zstd", {"level": 1})) if text else _BLOSC
    values = np.array(["a", "", "ccc"], dtype=object) if text else np.arange(6).reshape(2, 3)
    inner = chunks.encode_chunk(values, codecs)
    content = data.draw(any_of(inner))
    raw = content + google_crc32c.value(content).to_bytes(4, "little")
    layout = metadata.Layout(shape, shape, "string" if text else "int64", 0, shape)
    try:
        found = chunks.decode_chunk(raw, layout)
    except (ValueError, RuntimeError):
        return
    assert found.shape == shape
    assert found.dtype == (object if text else np.int64)
    if not data.draw(st.booleans()):
        return
    with pytest.raises(ValueError, match="checksum"):
        chunks.decode_chunk(raw[:-1] + bytes([raw[-1] ^ 1]), layout)


_BLOSC = (
    ("bytes", {"endian": "little"}),
    ("blosc", {"cname": "zstd", "clevel": 3, "shuffle": "shuffle", "typesize": 8, "blocksize": 0}),
)


@fuzz(200)
@given(data=st.data())
def test_zstd_frames_never_grow_beyond_what_they_say(data):
    from numcodecs import Zstd

    raw = Zstd(data.draw(st.sampled_from([1, 3]))).encode(data.draw(st.binary(max_size=600)) * 3)
    content = data.draw(any_of(raw))
    try:
        size = frames.zstd_size(content)
        decoded = Zstd().decode(content)
    except (ValueError, RuntimeError):
        return
    assert len(decoded) == size


def _json():
    leaves = st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**70), 2**70),
        st.floats(allow_nan=True),
        st.text(max_size=8),
        st.sampled_from(["../x", "/etc", "a\n", "string", "object", "int64", "regular"]),
    )
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=6), inner, max_size=3)
        ),
        max_leaves=6,
    )


@pytest.mark.parametrize("kind", KINDS)
@fuzz(40)
@given(data=st.data())
def test_documents(kind, data):
    """Also those that are nearly right: each property is what it should be or anything at all."""
    properties = read_schema(f"{kind}.document.json")["properties"]
    document = {"format_version": "1.0", "kind": kind} | data.draw(
        st.dictionaries(st.sampled_from(sorted(properties)), _json(), max_size=len(properties))
    )
    raw = json.dumps(document).encode()
    for content in (raw, data.draw(spoiled(raw))):
        try:
            found = load_document(kind, content, "x.json")
        except FormatError as error:
            one_line(error)
        else:
            assert found["kind"] == kind
            assert json.loads(json.dumps(found, allow_nan=False)) == found


@fuzz(100)
@given(data=st.data())
def test_indexes(data):
    names = data.draw(st.lists(st.one_of(st.text(max_size=9), st.just("a/b")), max_size=4))
    entries = [
        {"name": name, "size": data.draw(st.integers(-1, 2**70)), "sha256": "0" * 64}
        for name in names
    ]
    document = {"study": "0" * 32, "algorithms": {}, "objects": entries}
    raw = json.dumps({"format_version": "1.0", "kind": "index", **document}).encode()
    for content in (raw, data.draw(spoiled(raw))):
        try:
            found = index.load(content, "index.json")
        except FormatError:
            continue
        for name, entry in found.entries.items():
            assert index.is_safe(name)
            assert not {"", ".", ".."} & set(name.split("/"))
            assert entry.size >= 0


def _npz():
    out = io.BytesIO()
    np.savez_compressed(out, run=np.arange(3), mask=np.eye(3, 9) > 0, study=np.array("x"))
    return out.getvalue()


def _npy():
    out = io.BytesIO()
    np.save(out, np.asfortranarray(np.arange(12.0).reshape(3, 4)))
    return out.getvalue()


def _safetensors():
    header = json.dumps(
        {
            "mask": {"dtype": "BOOL", "shape": [2, 3], "data_offsets": [0, 6]},
            "bf": {"dtype": "BF16", "shape": [3], "data_offsets": [6, 12]},
        }
    ).encode()
    return struct.pack("<Q", len(header)) + header + bytes(12)


def _torch():
    storage = b"ctorch\nFloatStorage\n"
    pickled = (
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storage"
        + storage
        + b"X\x01\0\0\x000X\x03\0\0\0cpuK\x06tQK\0K\x02K\x03\x86K\x03K\x01\x86\x89ccollections\nOrderedDict\n)RtR."
    )
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("a/data.pkl", pickled)
        archive.writestr("a/byteorder", b"little")
        archive.writestr("a/data/0", np.arange(6, dtype="<f4").tobytes())
    return out.getvalue()


def read_npz(path):
    with NpzReader(path) as reader:
        return {name: (h, reader.load(name)) for name, h in reader.headers.items()}


def read_npy(path):
    array = open_npy(path)
    return {"array": (array, array.whole())}


def read_safetensors(path):
    return {name: (array, array.whole()) for name, array in open_safetensors(path).items()}


def read_torch(path):
    opened = TorchFile(path)
    return {name: (header, opened.load(name)) for name, header in opened.headers.items()}


READERS = {
    "x.npz": (_npz, read_npz),
    "x.npy": (_npy, read_npy),
    "x.safetensors": (_safetensors, read_safetensors),
    "x.pt": (_torch, read_torch),
}


@pytest.mark.parametrize("name", READERS)
@fuzz(120)
@given(data=st.data())
def test_files(tmp_path, name, data):
    make, read = READERS[name]
    path = tmp_path / name
    path.write_bytes(make())
    assert read(path)
    path.write_bytes(data.draw(any_of(make())))
    try:
        found = read(path)
    except InputError as error:
        one_line(error)
        return
    for header, values in found.values():
        assert values.shape == header.shape
        assert not values.dtype.hasobject


@fuzz(80)
@given(data=st.data())
def test_plans_of_workers(tmp_path, data):
    document = {
        **{"format_version": "1.0", "kind": "worker", "study": "0" * 32, "algorithm": "a"},
        **{"sampling": "planned", "seed": 1, "key": 1, "alpha": 0.5, "train": 9, "stored": []},
        "blocks": [{"first_run": 0, "runs": 3, "first_mask": 0, "repeats": 1}],
        "outputs": {"margin": {"dtype": "float32", "shape": [4]}},
    }
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(document))
    assert dmstore_writer.Plan.load(path).runs() == [0, 1, 2]
    changed = {**document, data.draw(st.sampled_from(sorted(document))): data.draw(_json())}
    path.write_bytes(
        data.draw(st.one_of(st.just(json.dumps(changed).encode()), any_of(path.read_bytes())))
    )
    try:
        plan = dmstore_writer.Plan.load(path)
    except dmstore_writer.WriterError as error:
        one_line(error)
        return
    assert isinstance(plan.study, str)
    assert plan.train == int(plan.train)


@pytest.mark.slow
@fuzz(1000)
@given(data=st.data())
def test_whole_studies(tmp_path_factory, data):
    """Any one file of a study is spoiled: every command ends in data or in one of our errors."""
    from hostile import commands

    root = tmp_path_factory.mktemp("whole") / "study.dm"
    study = dmstore.create_study(root, examples(train=9, target=4, side=2), seed=3)
    algorithm = study.add_algorithm("alpha", runs=8, outputs=["margin"])
    fill(algorithm, range(4), batch=2)
    compact(study)
    files = sorted(path for path in root.rglob("*") if path.is_file())
    path = data.draw(st.sampled_from(files))
    path.write_bytes(data.draw(any_of(path.read_bytes())))
    for action, command in commands(root, all_of_them=False).items():
        if action != "datamodels":
            try:
                command()
            except DmstoreError as error:
                one_line(error)
    shutil.rmtree(root.parent)
