"""Whichever way zarr reads, a guard sees it: with each of its pipelines, whole arrays and parts of them."""

import hashlib
import uuid
import zipfile

import numpy as np
import pytest
import zarr
import zarr.storage
from zarr.codecs import BloscCodec, Crc32cCodec

from dmstore.errors import CorruptionError, DmstoreError, MissingChunkError, StorageError
from dmstore.storage.objects.remote import connect
from dmstore.storage.objects.strict import (
    BucketStore,
    StrictLocalStore,
    StrictStore,
    StrictZipStore,
    zip_in_memory,
)
from dmstore.storage.published.index import Entry, Index
from dmstore.storage.published.published import IndexedObjects, IndexedStore

# Arrays of 120 values: chunks of 10, in one of them five to a shard, the last shard with two.
SHARDED, PLAIN = "sharded", "plain"
WINDOWS = [slice(None), slice(3, 35), slice(3, 5), slice(45, 55), slice(60, 61), slice(100, 120)]
PIPELINES = {
    "batched": "zarr.core.codec_pipeline.BatchedCodecPipeline",
    # Without an event loop, by zarr 3.3 and later.
    "fused": "zarr.core.codec_pipeline.FusedCodecPipeline",
    # Reads files itself where it knows the store.
    "zarrs": "zarrs.ZarrsCodecPipeline",
}


@pytest.fixture(params=PIPELINES)
def pipeline(request):
    if request.param == "zarrs":
        pytest.importorskip("zarrs")
    elif not hasattr(zarr.core.codec_pipeline, PIPELINES[request.param].rpartition(".")[2]):
        pytest.skip("this zarr has no such pipeline")
    with zarr.config.set({"codec_pipeline.path": PIPELINES[request.param]}):
        yield request.param


@pytest.fixture
def folder(tmp_path):
    """A group as dmstore writes it, in a directory."""
    group = zarr.create_group(str(tmp_path / "group"), zarr_format=3)
    for name, shards in ((SHARDED, (50,)), (PLAIN, None)):
        array = group.create_array(
            name,
            shape=(120,),
            dtype="int32",
            chunks=(10,),
            shards=shards,
            compressors=[BloscCodec(), Crc32cCodec()],
            config={"write_empty_chunks": True},
        )
        array[:] = np.arange(120)
    return tmp_path / "group"


def contents(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


class Listed(IndexedObjects):
    """What an index lists, in memory."""

    def __init__(self, found):
        self.url, self.found = "https://example.org", found
        entries = {
            f"g/{name}": Entry(f"g/{name}", len(content), hashlib.sha256(content).hexdigest())
            for name, content in found.items()
        }
        self.index = Index("", {}, entries)

    def read(self, name, start, stop):
        return self.found[name.removeprefix("g/")][start:stop]


def in_bucket(folder):
    url, store = connect(f"memory://tests/{uuid.uuid4().hex}")
    for name, content in contents(folder).items():
        store.put(f"g/{name}", content)
    return BucketStore(store, "g", url, read_only=True)


def zipped(folder):
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in contents(folder).items():
            archive.writestr(name, content)
    return path


STORES = {
    "local": StrictLocalStore,
    "zip": lambda folder: StrictZipStore(zipped(folder)),
    "memory": lambda folder: zip_in_memory(zipped(folder).read_bytes(), "archive"),
    "bucket": in_bucket,
    "index": lambda folder: IndexedStore(Listed(contents(folder)), "g"),
}


@pytest.fixture(params=STORES)
def make(request):
    return STORES[request.param]


def test_no_way_of_reading_is_inherited():
    """What zarr's own stores can do beside ``get``, a strict one must not be able to."""
    own = {getattr(zarr.storage, name) for name in zarr.storage.__all__ if name.endswith("Store")}
    found = set(StrictStore.__subclasses__())
    while found != (more := found.union(*(kind.__subclasses__() for kind in found))):
        found = more
    assert {kind.__name__ for kind in found} >= {
        "BucketStore",
        "IndexedStore",
        "StrictLocalStore",
        "StrictMemoryStore",
        "StrictZipStore",
    }
    for kind in found:
        assert not own.intersection(kind.__mro__), kind
        assert not hasattr(kind, "get_sync"), kind


@pytest.mark.filterwarnings("ignore:Array is unsupported by ZarrsCodecPipeline")
def test_a_missing_chunk_is_an_error(folder, make, pipeline):
    group = zarr.open_group(make(folder), mode="r")
    for name in (SHARDED, PLAIN):
        for window in WINDOWS:
            assert np.array_equal(group[name][window], np.arange(120)[window]), (name, window)
    for name in (f"{SHARDED}/c/0", *(f"{PLAIN}/c/{at}" for at in range(5))):
        (folder / name).unlink()
    group = zarr.open_group(make(folder), mode="r")
    for name in (SHARDED, PLAIN):
        for window in WINDOWS:
            if window.start is None or window.start < 50:
                with pytest.raises(MissingChunkError, match=f"{name}/c/.*is not there"):
                    group[name][window]
            else:
                assert np.array_equal(group[name][window], np.arange(120)[window])


@pytest.mark.filterwarnings("ignore:Array is unsupported by ZarrsCodecPipeline")
def test_a_chunk_that_a_shard_lacks_is_an_error(folder, make, pipeline):
    """An index with a right checksum that does not know a chunk; where the array ends, none is needed."""
    import google_crc32c

    path = folder / SHARDED / "c/0"
    content, length = path.read_bytes(), 5 * 16
    index = bytearray(content[-length - 4 : -4])
    index[16:32] = b"\xff" * 16
    crc = google_crc32c.value(bytes(index)).to_bytes(4, "little")
    path.write_bytes(content[: -length - 4] + index + crc)
    array = zarr.open_group(make(folder), mode="r")[SHARDED]
    for window in WINDOWS[:4]:
        with pytest.raises(CorruptionError, match="a chunk of a shard is not there"):
            array[window]
    assert np.array_equal(array[50:], np.arange(50, 120))


@pytest.mark.filterwarnings("ignore:Array is unsupported by ZarrsCodecPipeline")
@pytest.mark.parametrize("damage", ["gone", "longer", "refused"])
def test_what_becomes_of_a_shard_between_two_reads_is_an_error(
    folder, make, pipeline, damage, monkeypatch
):
    """Its index is read, then the chunks: by then vacuum, or a server, may have had their way."""
    store = make(folder)
    array = zarr.open_group(store, mode="r")[SHARDED]
    fetch = type(store)._fetch

    async def late(self, key, prototype, byte_range):
        found = await fetch(self, key, prototype, byte_range)
        if not hasattr(byte_range, "start"):
            return found
        if damage == "refused":
            msg = "no connection"
            raise StorageError(msg)
        # Blosc says in bytes 4 to 8 what a chunk grows to.
        longer = found.to_bytes()[:4] + b"\xff\xff\xff\x7f" + found.to_bytes()[8:]
        return prototype.buffer.from_bytes(longer) if damage == "longer" else None

    monkeypatch.setattr(type(store), "_fetch", late)
    expected = {"gone": MissingChunkError, "longer": CorruptionError, "refused": StorageError}
    for window in (slice(3, 35), slice(3, 5)):
        with pytest.raises(DmstoreError) as raised:
            array[window]
        assert type(raised.value) is expected[damage]


def test_strict_stores_refuse_to_be_written(folder, make):
    store = make(folder)
    for mode in ("r+", "a", "w"):
        with pytest.raises((ValueError, DmstoreError)):
            zarr.open_group(store, mode=mode).create_array("more", shape=(1,), dtype="int8")
    assert PLAIN in zarr.open_group(make(folder), mode="r")


def test_keys_are_listed(folder, make):
    """A group without consolidated metadata finds its arrays by the names below it."""
    group = zarr.open_group(make(folder), mode="r")
    assert sorted(group.array_keys()) == [PLAIN, SHARDED]
    assert group[PLAIN].nchunks_initialized == 12


def test_a_zip_store_takes_stored_members_alone(tmp_path):
    for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        with zipfile.ZipFile(tmp_path / "a.zip", "w", compression) as archive:
            text = '{"zarr_format": 3, "node_type": "group", "attributes": {}}'
            archive.writestr("zarr.json", text)
        store = StrictZipStore(tmp_path / "a.zip")
        if compression == zipfile.ZIP_STORED:
            assert dict(zarr.open_group(store, mode="r").attrs) == {}
        else:
            with pytest.raises(zipfile.BadZipFile):
                zarr.open_group(store, mode="r")
        store.close()
        store.close()
