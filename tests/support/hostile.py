"""Studies as a stranger would make them: each function spoils a good one in one way.

Run as a program it opens each in one process of bounded memory and prints what every command says.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import struct
import sys
import zipfile
from pathlib import Path

import numpy as np
from helpers import examples, fill
from numcodecs import Blosc, Zstd

from dmstore.schema.documents import dump_document
from dmstore.schema.group_specs import group_spec

BILLION = 10**9
TRAIN_IDS = "examples/train.zarr"


def good(path):
    """A study with a base, two segments of a tail, a finished fit, a later target set and an annotation."""
    import dmstore
    from dmstore.storage.acts import tag
    from dmstore.storage.acts.compact import compact
    from dmstore.storage.table import groups

    study = dmstore.create_study(path, examples(), seed=3)
    algorithm = study.add_algorithm("alpha", runs=60, outputs=["margin"])
    fill(algorithm, range(20), batch=10)
    base = compact(algorithm.table).manifest.base
    tag.create(algorithm.table, "v1")
    fill(algorithm, range(20, 40), batch=10)
    study.annotate("train", group=np.arange(37))
    study.add_targets("later", {"label": np.zeros(4, dtype=np.int64)})
    spec = group_spec("datamodels")
    sizes = {"target": 23, "train": 37, "path": 2}
    arrays = {
        name: np.ones([sizes[dim] for dim in array.dims], dtype=array.dtype)
        for name, array in spec.arrays.items()
        if not array.optional
    }
    groups.write_directory(study.objects, "datamodels/alpha/f1/datamodels-0.zarr", spec, arrays)
    documents = {
        "fit": {
            **{"fit": "f1", "study": study.uuid, "algorithm": "alpha", "version": 1},
            **{"base": base.path, "content_id": base.content_id, "targets": 23},
            **{"runs": {"train": 20, "holdout": 0, "eval": 0}, "target_set": "test"},
            **{"output": "margin", "parameters": {}},
        },
        "complete": {"path": "datamodels-0.zarr"},
    }
    for kind, document in documents.items():
        raw = dump_document(kind, document)
        assert study.objects.put_if_absent(f"datamodels/alpha/f1/{kind}.json", raw)
    return study


def edit(path, /, **changes):
    document = json.loads(path.read_text())
    path.write_text(json.dumps({**document, **changes}))


def base_of(root):
    (found,) = (root / "algorithms/alpha/runs/base").iterdir()
    return found


def log_of(root):
    return max((root / "algorithms/alpha/runs/log").iterdir())


def segment_of(root):
    return max((root / "algorithms/alpha/runs/segments").rglob("*.zip"), key=lambda p: p.name)


def metadata(group, array, **changes):
    """Change an array's metadata where it stands twice."""
    edit(group / array / "zarr.json", **changes)
    whole = json.loads((group / "zarr.json").read_text())
    whole["consolidated_metadata"]["metadata"][array].update(changes)
    (group / "zarr.json").write_text(json.dumps(whole))


def grid(*lengths):
    return {"name": "regular", "configuration": {"chunk_shape": list(lengths)}}


def in_base(array, **changes):
    return lambda root: metadata(base_of(root), array, **changes)


def in_fit(array, **changes):
    return lambda root: metadata(root / "datamodels/alpha/f1/datamodels-0.zarr", array, **changes)


def codecs(*names):
    return [{"name": name, "configuration": {}} for name in names]


def with_crc(content):
    import google_crc32c

    return content + google_crc32c.value(content).to_bytes(4, "little")


def texts_that_grow(root):
    """Ids that are a gigabyte of zeros, in a few kilobytes that say so."""
    bomb = Zstd(1).encode(bytes(BILLION))
    (root / TRAIN_IDS / "id/c/0").write_bytes(with_crc(bomb))


def texts_that_say_little(root):
    """The same behind a frame that says 100 bytes."""
    content = Zstd(1).encode(bytes(100)) + Zstd(1).encode(bytes(BILLION))
    (root / TRAIN_IDS / "id/c/0").write_bytes(with_crc(content))


def numbers_that_grow(root):
    bomb = bytearray(Blosc("zstd", 1, 0).encode(bytes(1 << 20)))
    bomb[4:8] = struct.pack("<I", 2**31 - 1)
    (base_of(root) / "run/c/0").write_bytes(with_crc(bytes(bomb)))


def shard_that_grows(root):
    """A shard of a mask whose chunk is a bomb with right checksums."""
    shard = next(p for p in (base_of(root) / "mask/c").rglob("*") if p.is_file())
    bomb = with_crc(Blosc("zstd", 1, 0).encode(bytes(10**6)))
    shard.write_bytes(bomb + with_crc(struct.pack("<QQ", 0, len(bomb))))


def shard_of(root):
    return next(p for p in (base_of(root) / "margin/c").rglob("*") if p.is_file())


def shard_of_garbage(root):
    """A chunk with a right header and a right checksum that no codec can decode."""
    path = shard_of(root)
    raw = path.read_bytes()
    place, length = struct.unpack("<QQ", raw[-20:-4])
    chunk = with_crc(raw[place : place + 16] + b"\xff" * (length - 20))
    path.write_bytes(chunk + with_crc(struct.pack("<QQ", 0, len(chunk))))


def shard_that_points(place):
    def spoil(root):
        raw = shard_of(root).read_bytes()
        shard_of(root).write_bytes(raw[:-20] + with_crc(struct.pack("<QQ", place, 100)))

    return spoil


def directory_for_a_shard(root):
    path = shard_of(root)
    path.unlink()
    path.mkdir()


def two_dtypes(root):
    """An array that says another dtype than its group says of it."""
    edit(base_of(root) / "margin/zarr.json", data_type="int32", fill_value=0)


def many_texts(root):
    content = Zstd(1).encode(struct.pack("<I", 2**31 - 1) + bytes(100))
    (root / TRAIN_IDS / "id/c/0").write_bytes(with_crc(content))


def sparse(name):
    def spoil(root):
        with (root / name).open("r+b") as file:
            file.truncate(50 * BILLION)

    return spoil


def pipe(name):
    def spoil(root):
        (root / name).unlink()
        os.mkfifo(root / name)

    return spoil


def endless(name):
    def spoil(root):
        (root / name).unlink()
        (root / name).symlink_to("/dev/zero")

    return spoil


def text(name, content):
    return lambda root: (root / name).write_bytes(content)


def comment(**changes):
    """Change what a segment says of itself."""

    def spoil(root):
        path = segment_of(root)
        with zipfile.ZipFile(path, "a") as archive:
            document = json.loads(archive.comment)
            archive.comment = json.dumps({**document, **changes}, separators=(",", ":")).encode()

    return spoil


def inside(array, **changes):
    """Change the metadata of an array in a segment; its comment stays."""

    def spoil(root):
        path = segment_of(root)
        with zipfile.ZipFile(path) as archive:
            members = {info.filename: archive.read(info) for info in archive.infolist()}
            note = archive.comment
        place = f"{array}/zarr.json"
        members[place] = json.dumps({**json.loads(members[place]), **changes}).encode()
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in members.items():
                archive.writestr(name, content)
            archive.comment = note

    return spoil


def packed(root):
    """An annotation whose members are compressed: a gigabyte in a few megabytes."""
    path = next((root / "examples/annotations").glob("train-group*"))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("zarr.json", b" " * BILLION)


def listed(root):
    """An annotation with a list of members of many megabytes."""
    path = next((root / "examples/annotations").glob("train-group*"))
    entry = struct.pack("<4s6H3L5H2L", b"PK\x01\x02", *[0] * 9, 1, *[0] * 6) + b"a"
    content = entry * 2_000_000
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 65535, 65535, len(content), 0, 0)
    path.write_bytes(content + end)


def manifest(**changes):
    return lambda root: edit(log_of(root), **changes)


def base_path(path):
    def spoil(root):
        base = json.loads(log_of(root).read_text())["base"]
        edit(log_of(root), base={**base, "path": path})

    return spoil


def base_runs(root):
    """A log and a base that agree on a trillion runs."""
    base = json.loads(log_of(root).read_text())["base"]
    edit(log_of(root), base={**base, "runs": 10**12})
    for array in ("run", "row_digest"):
        shape = json.loads((base_of(root) / array / "zarr.json").read_text())["shape"]
        metadata(base_of(root), array, shape=[10**12, *shape[1:]])


def document(place, /, **changes):
    return lambda root: edit(root / place, **changes)


def outputs(**entry):
    def spoil(root):
        path = root / "algorithms/alpha/algorithm.json"
        known = json.loads(path.read_text())["outputs"]["margin"]
        name = entry.pop("name", "margin")
        edit(path, outputs={name: {**known, **entry}})

    return spoil


STUDY, ALGORITHM, FIT = "study.json", "algorithms/alpha/algorithm.json", "datamodels/alpha/f1/"
PLAN = "algorithms/alpha/plans/0001.json"
LATER = "targets/later.json"
UUID = "0" * 32

# Name to what is spoiled and a word that some command must say of it.
CASES = {
    "pickling codec": (
        in_base("mask", codecs=codecs("bytes", "numcodecs.pickle", "crc32c")),
        "none that",
    ),
    "no checksum": (in_base("run", codecs=codecs("bytes", "blosc")), "none that"),
    "other byte order": (
        in_base(
            "run",
            codecs=[
                {"name": "bytes", "configuration": {"endian": "big"}},
                *codecs("blosc", "crc32c"),
            ],
        ),
        "none that",
    ),
    "object dtype": (in_base("run", data_type="object"), "data type"),
    "wide dtype": (
        in_base(
            "run",
            data_type={"name": "null_terminated_bytes", "configuration": {"length_bytes": 10**12}},
        ),
        "data type",
    ),
    "absurd chunk": (in_fit("weight", chunk_grid=grid(2**40, 37)), "take more than"),
    "absurd shape": (in_fit("weight", shape=[2**40, 37]), "more than zarr|no shape|length"),
    "many chunks": (in_fit("bias", shape=[2**40], chunk_grid=grid(1)), "more than zarr"),
    "negative shape": (in_base("run", shape=[-1]), "no shape"),
    "shape of floats": (in_base("run", shape=[1.5]), "no shape"),
    "many dims": (in_fit("bias", shape=[1] * 99, chunk_grid=grid(*[1] * 99)), "do not lie"),
    "transformer": (in_base("run", storage_transformers=[{"name": "x"}]), "do not lie"),
    "texts that grow": (texts_that_grow, "longer than"),
    "texts that say little": (texts_that_say_little, "followed by something"),
    "many texts": (many_texts, "cannot be read"),
    "numbers that grow": (numbers_that_grow, "are expected"),
    "shard that grows": (shard_that_grows, "are expected"),
    "shard of garbage": (shard_of_garbage, "a chunk is damaged"),
    "shard that points outside": (shard_that_points(10**6), "lies outside"),
    "shard that points far outside": (shard_that_points(2**62 - 1), "lies outside"),
    "directory for a shard": (directory_for_a_shard, "is a directory"),
    "two dtypes": (two_dtypes, "says int32"),
    "a trillion runs": (base_runs, "10000000|run ids|more than zarr"),
    "sparse study": (sparse(STUDY), "bytes, at most"),
    "sparse ids": (sparse(f"{TRAIN_IDS}/id/c/0"), "make sense"),
    "sparse metadata": (sparse(f"{TRAIN_IDS}/zarr.json"), "make sense"),
    "pipe": (pipe(STUDY), "no plain file"),
    "pipe for a chunk": (pipe(f"{TRAIN_IDS}/id/c/0"), "no plain file"),
    "endless": (endless(ALGORITHM), "no plain file"),
    "endless chunk": (endless(f"{TRAIN_IDS}/id/c/0"), "no plain file"),
    "deep": (text(STUDY, b'{"a":' * 10**5), "levels"),
    "deep list": (text(ALGORITHM, b"[" * 10**5), "levels"),
    "long number": (text(STUDY, b'{"seed": ' + b"1" * 10**5 + b"}"), "digits"),
    "NaN": (text(STUDY, b'{"seed": NaN}'), "no JSON number"),
    "infinite": (text(STUDY, b'{"seed": 1e999}'), "no number"),
    "many values": (text(STUDY, b"[" + b"[]," * 3_000_000 + b"[]]"), "more than"),
    "twice": (text(STUDY, b'{"kind": "study", "kind": "study"}'), "twice"),
    "half a surrogate": (text(STUDY, b'{"kind": "\\ud800"}'), "not valid JSON"),
    "other encoding": (text(STUDY, '{"kind": "study"}'.encode("utf-16")), "not valid JSON"),
    "absurd train": (document(STUDY, train={"count": 2**62, "sha256": "0" * 64}), "greater than"),
    "float seed": (document(STUDY, seed=1.0), "integer"),
    "other study": (document(STUDY, uuid=UUID), "not to this one|belongs"),
    "newline in uuid": (document(STUDY, uuid=UUID + "\n"), "does not match"),
    "set with a path": (
        document(STUDY, targets={"../../etc": {"count": 1, "sha256": "0" * 64}}),
        "does not match",
    ),
    "algorithm of another name": (document(ALGORITHM, name="beta"), "does not belong here"),
    "algorithm without its set": (document(ALGORITHM, target_set="none"), "does not belong here"),
    "algorithm without alpha": (document(ALGORITHM, alpha=None), "without an alpha"),
    "output called mask": (outputs(name="mask"), "reserved"),
    "output of odd dims": (outputs(dims=["class", "class"]), "begin with run"),
    "endless plan": (document(PLAN, runs=10**15), "greater than"),
    "plan of huge ids": (document(PLAN, first_run=2**70), "greater than"),
    "target set elsewhere": (document(LATER, path="../../secret.zarr.zip"), "does not match"),
    "fit of another name": (document(f"{FIT}fit.json", fit="../../../etc"), "does not belong here"),
    "fit on a base elsewhere": (document(f"{FIT}fit.json", base="../../x"), "does not match"),
    "result elsewhere": (document(f"{FIT}complete.json", path=".."), "does not match"),
    "result in a folder": (document(f"{FIT}complete.json", path="a/b"), "does not match"),
    "tag elsewhere": (
        document("algorithms/alpha/runs/tags/v1.json", base="base/../.."),
        "does not match",
    ),
    "tag of another name": (
        document("algorithms/alpha/runs/tags/v1.json", name="v2"),
        "belong here",
    ),
    "base above": (base_path("../../../etc"), "does not match"),
    "base in a base": (base_path("base/../.."), "does not match"),
    "absolute base": (base_path("/etc"), "does not match"),
    "base with a newline": (base_path("base/00000001-00000000.zarr\n"), "does not match"),
    "removed above": (manifest(removed=["../../../../victim"]), "does not match"),
    "absorbed elsewhere": (manifest(absorbed=["/etc/passwd"]), "does not match"),
    "retracted beyond": (manifest(retracted=[{"run": 2**70, "digest": UUID}]), "greater than"),
    "segment of huge ids": (comment(run=[2**70]), "greater than"),
    "segment of negative ids": (comment(run=[-1]), "less than"),
    "half a digest": (comment(digest="abc"), "does not match"),
    "column with a path": (comment(columns={"../../x": "int64"}), "not allowed"),
    "column called mask": (comment(columns={"mask": "int64"}), "reserved"),
    "segment of another table": (comment(table="outputs/later"), "belongs elsewhere"),
    "segment of wide masks": (
        inside("mask", shape=[10, 10**8], chunk_grid=grid(10, 10**8)),
        "has shape",
    ),
    "segment with a pickle": (inside("mask", codecs=codecs("pickle")), "none that"),
    "segment of objects": (inside("mask", data_type="object"), "data type"),
    "packed annotation": (packed, "compressed"),
    "long list": (listed, "list of members|shall|cannot be read"),
}


def linked(part):
    """A directory of the study that is a link to one outside."""

    def spoil(root):
        shutil.rmtree(root / part)
        (root / part).symlink_to(root.parent / "victim")

    return spoil


LINKS = {
    part: (linked(part), "link to a directory")
    for part in (
        "algorithms/alpha/runs",
        "algorithms/alpha/runs/base",
        "algorithms/alpha/runs/segments",
        "algorithms/alpha/runs/log",
        "datamodels/alpha",
        "examples/annotations",
    )
}


_WRITING = ("compact", "vacuum")
# Cases in which these are tried too: they take long.
WRITTEN = {*LINKS, "base above", "base in a base", "removed above", "absorbed elsewhere"}


def commands(path, *, all_of_them=True):
    """What may be done with a study that somebody handed over; the last two write."""
    import dmstore
    from dmstore.upkeep import maintenance, verification

    def opened():
        return dmstore.open_study(path)

    found = {
        "open": lambda: [opened().train.load(), repr(opened()), opened().targets.load()],
        "runs": lambda: opened().runs("alpha").load(),
        "datamodels": lambda: opened().datamodels("alpha").load(),
        "status": lambda: maintenance.status(opened()),
        "verify": lambda: [problem.text for problem in verification.verify(opened())],
        "compact": lambda: maintenance.compact(opened()),
        "vacuum": lambda: maintenance.vacuum(opened(), grace=0),
    }
    return found if all_of_them else {k: v for k, v in found.items() if k not in _WRITING}


def say(command):
    """What a command has to say: its error, or the problems that it found."""
    from dmstore.errors import DmstoreError

    try:
        result = command()
    except DmstoreError as error:
        return str(error)
    except BaseException as error:  # noqa: BLE001 - that is what is looked for
        return f"not ours: {error!r}"
    told = isinstance(result, list) and all(isinstance(line, str) for line in result)
    return "; ".join(result) if told else ""


# Files


def npz(path, *, compression=zipfile.ZIP_STORED, names=("run.npy",), change=None):
    """An .npz whose members are what is given, and its bytes changed."""
    array = io.BytesIO()
    np.save(array, np.arange(3))
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name in names:
            archive.writestr(name, array.getvalue())
    if change:
        raw = bytearray(path.read_bytes())
        change(raw)
        path.write_bytes(raw)


def deflated(path, name, shape, dtype="|b1"):
    """A member of zeros of a gigabyte in a megabyte, whose header is right."""
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open(name, "w", force_zip64=True) as member,
    ):
        member.write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text)
        for _ in range(100):
            member.write(bytes(10**7))


def long_header(path):
    """A header that says two gigabytes of itself, with more behind it than memory allows."""
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("run.npy", "w", force_zip64=True) as member,
    ):
        member.write(b"\x93NUMPY\x02\x00" + struct.pack("<I", 2 * BILLION))
        for _ in range(110):
            member.write(b" " * 10**7)


def sparse_header(path):
    path.write_bytes(b"\x93NUMPY\x02\x00" + struct.pack("<I", 4 * BILLION))
    with path.open("r+b") as file:
        file.truncate(5 * BILLION)


def encrypted(raw):
    raw[6] |= 1
    raw[raw.index(b"PK\x01\x02") + 8] |= 1


def two_lengths(raw):
    at = raw.index(b"PK\x01\x02")
    raw[at + 24 : at + 28] = struct.pack("<I", 10**9)


def many_members(path):
    entry = struct.pack("<4s6H3L5H2L", b"PK\x01\x02", *[0] * 9, 1, *[0] * 6) + b"a"
    content = entry * 2_000_000
    path.write_bytes(
        content + struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 65535, 65535, len(content), 0, 0)
    )


def shared(path):
    """A hundred members that are the same bytes."""
    array = io.BytesIO()
    np.save(array, np.zeros(10**5))
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(100):
            archive.writestr(f"a{number}.npy", array.getvalue() if not number else b"")
        for info in archive.filelist[1:]:
            first = archive.filelist[0]
            info.header_offset, info.CRC = first.header_offset, first.CRC
            info.compress_size = info.file_size = first.file_size


def tensor_header(header):
    def make(path):
        path.write_bytes(struct.pack("<Q", len(header)) + header)

    return make


def lines(content):
    return lambda path: path.write_bytes(content)


FILES = {
    "member above": ("w.npz", lambda p: npz(p, names=["../../x.txt"]), "is no array"),
    "absolute member": ("w.npz", lambda p: npz(p, names=["/etc/passwd"]), "is no array"),
    "member in a folder": (
        "w.npz",
        lambda p: npz(p, names=["../run.npy"]),
        "a worker's file holds",
    ),
    "name that steers": (
        "w.npz",
        lambda p: npz(p, names=["\x1b[2J\x07.npy"]),
        "a worker's file holds",
    ),
    "encrypted member": ("w.npz", lambda p: npz(p, change=encrypted), "encrypted"),
    "two lengths": ("w.npz", lambda p: npz(p, change=two_lengths), "two lengths"),
    "lzma": ("w.npz", lambda p: npz(p, compression=zipfile.ZIP_LZMA), "compressed"),
    "many members": ("w.npz", many_members, "list of members"),
    "shared bytes": ("w.npz", shared, "claim"),
    "long header": ("w.npz", long_header, "cut or too long"),
    "grown columns": ("c.npz", lambda p: deflated(p, "a.npy", "(1000000000,)"), "would grow"),
    "grown scores": (
        "s.npz",
        lambda p: deflated(p, "weight.npy", "(250000, 1000)", "<f4"),
        "would grow",
    ),
    "sparse header": ("c.npy", sparse_header, "cut or too long"),
    "sparse scores": ("s.npy", sparse_header, "cut or too long"),
    "many tensors": (
        "s.safetensors",
        tensor_header(b"[" + b"[]," * 9_000_000 + b"[]]"),
        "more than",
    ),
    "deep tensors": ("s.safetensors", tensor_header(b'{"a":' * 10**5), "levels"),
    "deep columns": ("c.json", lines(b"[" * 10**5), "levels"),
    "long numbers": ("c.json", lines(b"[" + b"1" * 10**5 + b"]"), "digits"),
    "infinite columns": ("c.json", lines(b"[1e999]"), "no number"),
    "many columns": ("c.json", lines(b"[" + b"[]," * 20_000_000 + b"[]]"), "more than"),
}


def read_file(path, study):
    """A command that reads a file: as a worker's, as scores, or as columns."""
    from dmstore.errors import InputError
    from dmstore.intake.ingest import take_in as ingest
    from dmstore.readers.columns import read_columns
    from dmstore.readers.scores import labelled, open_scores
    from dmstore.readers.units import Units

    def take():
        errors = ingest(study.algorithm("alpha"), [path]).errors
        raise InputError(errors[0])

    def score():
        labelled(open_scores(path), orientation=("target-train", ""), units=Units())

    return {"w": take, "s": score, "c": lambda: read_columns(path, "a")}[path.name[0]]


def snapshot(root):
    return sorted((str(p), p.lstat().st_size, p.lstat().st_mtime_ns) for p in root.rglob("*"))


def main(folder, names):
    import resource

    study = good(folder / "good.dm")
    shutil.copytree(folder / "good.dm", folder / "warm.dm")
    for command in commands(folder / "warm.dm").values():
        assert not say(command), say(command)
    # What the interpreter and its threads have mapped already, and one gigabyte.
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()

    def limit(most):
        resource.setrlimit(resource.RLIMIT_AS, (most, resource.RLIM_INFINITY))

    for name in names:
        parent = folder / "case"
        shutil.rmtree(parent, ignore_errors=True)
        parent.mkdir()
        limit(resource.RLIM_INFINITY)
        precious = [parent / "victim/00000001-00000000.zarr/.profile", parent / "victim/.profile"]
        for path in precious:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("precious")
        if name in FILES:
            root = folder / "good.dm"
            file, make, _ = FILES[name]
            make(parent / file)
            todo = {"read": read_file(parent / file, study)}
        else:
            root = parent / "study.dm"
            shutil.copytree(folder / "good.dm", root)
            {**CASES, **LINKS}[name][0](root)
            todo = commands(root, all_of_them=name in WRITTEN)
        limit(used + BILLION)
        before, said, unchanged = snapshot(root), {}, True
        for action, command in todo.items():
            said[action] = say(command)
            unchanged &= action in _WRITING or snapshot(root) == before
        kept = all(path.exists() for path in precious)
        told = {"case": name, "said": said, "unchanged": unchanged, "kept": kept}
        print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
