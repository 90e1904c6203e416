"""A second implementation of store format 1, made from docs/reference/format.md: nothing of dmstore is imported."""

from __future__ import annotations

import hashlib
import json
import uuid
import zipfile
from pathlib import Path

import numpy as np
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec
from zarr.storage import ZipStore

WORD = 2**64


# Section 3: documents


def document(raw, kind):
    found = json.loads(raw)
    if found["format_version"].split(".")[0] != "1":
        raise ValueError(f"format {found['format_version']} is not read here")
    assert found["kind"] == kind
    return found


# Section 6: hashes, masks, purposes


def hashed(*parts):
    raw = b"\0".join(str(part).encode() for part in parts)
    return int.from_bytes(hashlib.blake2b(raw, digest_size=8).digest(), "little")


def philox(key, count):
    """`count` numbers of Philox4x64-10, in Python's own integers."""
    numbers = []
    for block in range(1, -(-count // 4) + 1):
        (c0, c1, c2, c3), (k0, k1) = (block, 0, 0, 0), key
        for step in range(10):
            if step:
                k0 = (k0 + 0x9E3779B97F4A7C15) % WORD
                k1 = (k1 + 0xBB67AE8584CAA73B) % WORD
            p, q = 0xD2E7470EE14C6C93 * c0, 0xCA5A826395121157 * c2
            c0, c1, c2, c3 = (q // WORD) ^ c1 ^ k0, q % WORD, (p // WORD) ^ c3 ^ k1, p % WORD
        numbers += [c0, c1, c2, c3]
    return numbers[:count]


def mask_of(key, mask_id, train, alpha):
    numbers = philox((key, mask_id), train)
    smallest = sorted(range(train), key=lambda unit: (numbers[unit], unit))
    mask = np.zeros(train, dtype=bool)
    mask[smallest[: int(np.floor(alpha * train))]] = True
    return mask


def mask_key(study, algorithm):
    if algorithm["masks"] == "shared":
        return study["seed"]
    return hashed("masks", study["seed"], algorithm["name"])


def foreign_mask_id(mask):
    packed = np.packbits(mask, bitorder="little").tobytes()
    return int.from_bytes(hashlib.blake2b(packed, digest_size=8).digest(), "little") % 2**62


def training_seed(seed, algorithm, run):
    return hashed("training", seed, algorithm, run) >> 1


def split_of(seed, mask_id):
    u = float(hashed("split", seed, mask_id)) / 2.0**64
    return "eval" if u < 0.05 else "holdout" if u < 0.05 + 0.10 else "train"


def purpose(study, algorithm, mask_id):
    return algorithm.get("split") or split_of(study["seed"], mask_id)


def quarter_of(seed, mask_id):
    return min(3, int(4 * (float(hashed("quarter", seed, mask_id)) / 2.0**64)))


def plan(root, algorithm):
    """Run id to (mask id, repeat), by the blocks of a plan."""
    planned = {}
    for path in sorted((root / f"algorithms/{algorithm}/plans").glob("*.json")):
        block = document(path.read_bytes(), "plan")
        for j in range(block["runs"]):
            mask = block["first_mask"] + j // block["repeats"]
            planned[block["first_run"] + j] = (mask, j % block["repeats"])
    return planned


# Section 7: digests


def row_digest(run, mask, outputs, declared):
    state = hashlib.blake2b(digest_size=16)
    state.update(int(run).to_bytes(8, "little", signed=True))
    if mask is not None:
        state.update(np.packbits(mask, bitorder="little").tobytes())
    for name in sorted(outputs):
        dtype = np.dtype(declared[name]["dtype"]).newbyteorder("<")
        state.update(np.ascontiguousarray(outputs[name], dtype=dtype).tobytes())
    return state.digest()


def content_id(rows):
    state = hashlib.sha256()
    for run, digest in sorted(rows):
        state.update(int(run).to_bytes(8, "little", signed=True) + digest)
    return state.hexdigest()


def id_hash(ids):
    state = hashlib.sha256()
    for name in ids:
        raw = str(name).encode()
        state.update(len(raw).to_bytes(8, "little") + raw)
    return state.hexdigest()


# Sections 4, 8 and 9: groups and tables


def arrays_of(path, kind):
    """All arrays of a stored group, in memory; a chunk that is missing is damage."""
    zipped = path.suffix == ".zip"
    if zipped:
        with zipfile.ZipFile(path) as archive:
            keys = archive.namelist()
        assert len(keys) == len(set(keys))
    else:
        keys = [file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file()]
    store = ZipStore(path, mode="r") if zipped else path
    group = zarr.open_group(store, mode="r", zarr_format=3)
    assert group.attrs["kind"] == kind
    assert group.attrs["format_version"].split(".")[0] == "1"
    found = {}
    for name, array in group.arrays():
        lengths = zip(array.shape, array.shards or array.chunks, strict=True)
        wanted = np.prod([-(-size // length) for size, length in lengths])
        assert sum(key.startswith(f"{name}/c/") for key in keys) == wanted
        found[name] = array[...]
    if zipped:
        store.close()
    return found


def manifest(table):
    """The log entry in force; None if there is none."""
    versions = [int(path.stem) for path in table.glob("log/*.json") if len(path.stem) == 20]
    if not versions:
        return None
    found = document((table / f"log/{max(versions):020d}.json").read_bytes(), "manifest")
    assert found["version"] == max(versions)
    return found


def segment_comment(path):
    with zipfile.ZipFile(path) as archive:
        return document(archive.comment, "segment")


def view(root, study, algorithm, table="runs"):
    """The visible rows of a table in order of arrival, the conflicts, and the content id."""
    place = root / f"algorithms/{algorithm['name']}/{table}"
    kind = table.split("/")[0]
    entry = manifest(place) or {"base": None, "absorbed": [], "removed": [], "retracted": []}
    candidates = []
    if entry["base"]:
        arrays = arrays_of(place / entry["base"]["path"], kind)
        digests = [row.tobytes() for row in arrays["row_digest"]]
        runs = arrays["run"].tolist()
        assert len(runs) == entry["base"]["runs"]
        assert content_id(zip(runs, digests, strict=True)) == entry["base"]["content_id"]
        candidates += rows_of(arrays, digests, in_base=True)
    hidden = {*entry["absorbed"], *entry["removed"]}
    stored = {path.relative_to(root).as_posix(): path for path in place.glob("segments/**/*.zip")}
    names = [name for name in stored if name not in hidden and not is_temporary(stored[name].name)]
    for name in sorted(names, key=lambda name: stored[name].name):
        comment = segment_comment(stored[name])
        found = (comment["study"], comment["algorithm"], comment["table"])
        assert found == (study["uuid"], algorithm["name"], table)
        arrays = arrays_of(stored[name], kind)
        raw = bytes.fromhex(comment["digest"])
        digests = [raw[at : at + 16] for at in range(0, len(raw), 16)]
        assert comment["run"] == arrays["run"].tolist()
        assert digests == [row.tobytes() for row in arrays["row_digest"]]
        candidates += rows_of(arrays, digests, in_base=False)
    retracted = {(pair["run"], bytes.fromhex(pair["digest"])) for pair in entry["retracted"]}
    shown = [row for row in candidates if (row["run"], row["row_digest"]) not in retracted]
    winners = {}
    for row in shown:
        best = winners.get(row["run"])
        if best is None or (not best["in_base"], best["row_digest"]) > (
            not row["in_base"],
            row["row_digest"],
        ):
            winners[row["run"]] = row
    kept = [row for row in shown if winners[row["run"]] is row]
    lost = [r for r in shown if r["row_digest"] != winners[r["run"]]["row_digest"]]
    conflicts = sorted((row["run"], row["row_digest"].hex()) for row in lost)
    return kept, conflicts, content_id((row["run"], row["row_digest"]) for row in kept)


def rows_of(arrays, digests, in_base):
    for number, digest in enumerate(digests):
        row = {name: values[number] for name, values in arrays.items()}
        yield {**row, "run": int(row["run"]), "row_digest": digest, "in_base": in_base}


def is_temporary(name):
    return name.startswith(".") or name.endswith(".partial")


def check_row(row, algorithm, table="runs"):
    """The digest of a row against its content."""
    outputs = {name: row[name] for name in algorithm["outputs"]}
    mask = row["mask"] if table == "runs" else None
    assert row_digest(row["run"], mask, outputs, algorithm["outputs"]) == row["row_digest"]


def check_planned(row, root, study, algorithm):
    """Mask, mask id and repeat of a planned row against the plan."""
    assert (row["mask_id"], row["repeat"]) == plan(root, algorithm["name"])[row["run"]]
    key = mask_key(study, algorithm)
    mask = mask_of(key, int(row["mask_id"]), study["train"]["count"], algorithm["alpha"])
    assert np.array_equal(row["mask"], mask)


# Sections 8 and 10: a segment


def codecs(values, level, shuffle):
    if values.dtype.kind == "O":
        return [ZstdCodec(level=1), Crc32cCodec()]
    return [BloscCodec(cname="zstd", clevel=level, shuffle=shuffle), Crc32cCodec()]


def write_segment(root, study, algorithm, arrays, columns, dims, fills):
    """Put a segment of rows of runs; its name."""
    outputs = sorted(algorithm["outputs"])
    digests = [
        row_digest(run, arrays["mask"][i], {n: arrays[n][i] for n in outputs}, algorithm["outputs"])
        for i, run in enumerate(arrays["run"])
    ]
    arrays = {**arrays, "row_digest": np.frombuffer(b"".join(digests), "u1").reshape(-1, 16)}
    unique = uuid.uuid4().hex
    name = (
        f"algorithms/{algorithm['name']}/runs/segments/{unique[:2]}/1700000000000-{unique}.zarr.zip"
    )
    target = root / name
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{unique}.part")
    store = ZipStore(temporary, mode="w")
    group = zarr.create_group(
        store, zarr_format=3, attributes={"format_version": "1.0", "kind": "runs"}
    )
    for array, values in arrays.items():
        level, shuffle = (1, "bitshuffle") if array == "mask" else (3, "shuffle")
        made = group.create_array(
            array,
            shape=values.shape,
            dtype=str if values.dtype.kind == "O" else values.dtype,
            chunks=values.shape,
            dimension_names=dims.get(array, ("run",)),
            compressors=codecs(values, level, shuffle),
            fill_value=fills.get(array, "" if values.dtype.kind == "O" else 0),
            config={"write_empty_chunks": True},
        )
        made[...] = values
    store.close()
    comment = {
        "format_version": "1.0",
        "kind": "segment",
        "study": study["uuid"],
        "algorithm": algorithm["name"],
        "table": "runs",
        "run": arrays["run"].tolist(),
        "digest": b"".join(digests).hex(),
        "columns": columns,
    }
    with zipfile.ZipFile(temporary, "a") as archive:
        archive.comment = json.dumps(comment).encode()
    Path(target).hardlink_to(temporary)
    temporary.unlink()
    return name
