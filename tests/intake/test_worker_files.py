"""Worker files: what is taken, what is refused, and that refusal changes nothing."""

import gc
import io
import weakref
import zipfile

import numpy as np
import pytest
from helpers import make_rows
from numpy.lib import format as npy

from dmstore import readers
from dmstore.core import bits
from dmstore.errors import InputError
from dmstore.intake import ingest as engine
from dmstore.intake.ingest import take_in as ingest
from dmstore.readers.npz import NpzSource
from dmstore.readers.source import Request
from dmstore.upkeep.retraction import retract_runs


@pytest.fixture
def single(study):
    return study.add_algorithm("one", runs=300)


def arrays(algorithm, ids, seed=0, **changes):
    rows = make_rows(algorithm, ids, seed)
    found = {"run": rows.run, **rows.arrays, "accuracy": rows.columns["accuracy"], **changes}
    return {name: value for name, value in found.items() if value is not None}


def save(path, **members):
    np.savez(path, **members)
    return path


def test_new_present_and_packed(single, tmp_path):
    one = save(
        tmp_path / "one.npz",
        **arrays(single, range(5)),
        study=single.table.identity["study"],
        algorithm="one",
    )
    data = arrays(single, range(3, 9))
    bytes_of_mask = bits.pack_rows(data.pop("mask"))
    packed = save(tmp_path / "two.npz", **data, mask_packed=bytes_of_mask)
    result = ingest(single, [one, packed])
    assert (result.new, result.present, result.conflicting, result.refused) == (9, 2, 0, 0)
    again = ingest(single, [tmp_path])
    assert (again.new, again.present) == (0, 11)
    found = single.table.view().read(["mask", "margin", "accuracy"])
    assert np.array_equal(found["mask"], make_rows(single, range(9)).arrays["mask"])
    assert single.table.view().run.tolist() == list(range(9))


def test_many_small_files_become_few_segments(single, tmp_path):
    for run in range(40):
        save(tmp_path / f"{run:03d}.npz", **arrays(single, [run]))
    assert ingest(single, [tmp_path]).new == 40
    assert len(single.table.view().segments) == 1


def test_foreign_files(study, tmp_path):
    made = study.add_algorithm("elsewhere", sampling="foreign", alpha=None)
    masks = np.random.default_rng(0).random((30, 37)) < 0.2
    margin = np.random.default_rng(1).normal(size=(30, 23))
    path = save(tmp_path / "f.npz", run=np.arange(30) * 7, mask=masks, margin=margin)
    assert ingest(made, [path]).new == 30
    view = made.table.view()
    assert np.array_equal(view.read(["mask"])["mask"], masks)
    assert view.run.tolist() == (np.arange(30) * 7).tolist()


def npz(path, members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, raw in members.items():
            archive.writestr(name, raw)
    return path


def header(shape, dtype="<f4"):
    buffer = io.BytesIO()
    npy.write_array_header_1_0(buffer, {"shape": shape, "fortran_order": False, "descr": dtype})
    return buffer.getvalue()


def strange(folder, content):
    (folder / "x.npz").write_bytes(content)
    return folder / "x.npz"


BAD = {
    "missing": (lambda a, p: p / "none.npz", "no such file"),
    "empty": (lambda a, p: ((p / "x.npz").write_bytes(b"") and None) or p / "x.npz", "is empty"),
    "no zip": (
        lambda a, p: ((p / "x.npz").write_bytes(b"hello" * 100), p / "x.npz")[1],
        "not a whole .npz",
    ),
    "cut": (
        lambda a, p: (
            save(p / "w.npz", **arrays(a, range(4))),
            (p / "x.npz").write_bytes((p / "w.npz").read_bytes()[:-200]),
            p / "x.npz",
        )[2],
        "not a whole .npz",
    ),
    "wrong shape": (
        lambda a, p: save(p / "x.npz", **arrays(a, range(4), margin=np.zeros((4, 22)))),
        "shape",
    ),
    "wrong train": (
        lambda a, p: save(p / "x.npz", **arrays(a, range(4), mask=np.zeros((4, 36), bool))),
        "shape",
    ),
    "uint8 mask": (
        lambda a, p: save(p / "x.npz", **arrays(a, range(4), mask=np.zeros((4, 37), np.uint8))),
        "mask_packed",
    ),
    "float ids": (
        lambda a, p: save(p / "x.npz", **arrays(a, range(4), run=np.arange(4.0))),
        "integers",
    ),
    "negative ids": (
        lambda a, p: save(p / "x.npz", **arrays(a, range(4), run=np.arange(-1, 3))),
        "run ids",
    ),
    "same id twice": (
        lambda a, p: save(p / "x.npz", **arrays(a, range(4), run=np.array([0, 1, 1, 2]))),
        "twice",
    ),
    "beyond the plan": (
        lambda a, p: save(p / "x.npz", **arrays(a, range(4), run=np.arange(298, 302))),
        "dmstore extend",
    ),
    "other mask": (
        lambda a, p: save(
            p / "x.npz", **arrays(a, range(4), mask=~make_rows(a, range(4)).arrays["mask"])
        ),
        "--sampling foreign",
    ),
    "NaN": (
        lambda a, p: save(p / "x.npz", **arrays(a, range(4), margin=np.full((4, 23), np.nan))),
        "NaN",
    ),
    "infinite": (
        lambda a, p: save(p / "x.npz", **arrays(a, range(4), margin=np.full((4, 23), np.inf))),
        "infinite",
    ),
    "overflow": (
        lambda a, p: save(p / "x.npz", **arrays(a, range(4), margin=np.full((4, 23), 1e300))),
        "too large",
    ),
    "no output": (lambda a, p: save(p / "x.npz", **arrays(a, range(4), margin=None)), "margin"),
    "no mask": (lambda a, p: save(p / "x.npz", **arrays(a, range(4), mask=None)), "mask_packed"),
    "no runs": (
        lambda a, p: save(
            p / "x.npz",
            **{name: values[:0] for name, values in arrays(a, range(4)).items()},
            row_digest=np.zeros((0, 16), np.uint8),
        ),
        "at least one",
    ),
    "object array": (
        lambda a, p: save(
            p / "x.npz", **arrays(a, range(4)), note=np.array([{}, 1, 2, 3], dtype=object)
        ),
        "unpickling",
    ),
    "other study": (
        lambda a, p: save(p / "x.npz", **arrays(a, range(4)), study="0" * 32),
        "ingest it where",
    ),
    "other algorithm": (
        lambda a, p: save(p / "x.npz", **arrays(a, range(4)), algorithm="two"),
        "ingest it where",
    ),
    "column of another length": (
        lambda a, p: save(p / "x.npz", **arrays(a, range(4)), step=np.arange(3)),
        "4 runs",
    ),
    "reserved column": (
        lambda a, p: save(p / "x.npz", **arrays(a, range(4)), split=np.arange(4)),
        "reserved",
    ),
    "huge header": (
        lambda a, p: npz(
            p / "x.npz",
            {"run.npy": header((2**50,), "<i8") + b"\0" * 64, "mask.npy": header((4, 37), "|b1")},
        ),
        "says",
    ),
    "hostile header": (
        lambda a, p: npz(
            p / "x.npz",
            {
                "run.npy": b"\x93NUMPY\x01\x00\x0c\x00{'descr': (\n ",
                "mask.npy": header((4, 37), "|b1"),
            },
        ),
        "no NumPy array",
    ),
    "column with a bad name": (
        lambda a, p: save(p / "x.npz", **arrays(a, range(4)), **{"zarr.json": np.arange(4)}),
        "not allowed",
    ),
    "text that is no Unicode": (
        lambda a, p: save(p / "x.npz", **arrays(a, range(4)), note=np.array(["\udcff"] * 4)),
        "Unicode",
    ),
    "no array": (
        lambda a, p: npz(p / "x.npz", {"../../run.npy": b"junk", "mask.npy": b"junk"}),
        "no NumPy array",
    ),
    "stray bits": (
        lambda a, p: save(
            p / "x.npz",
            **arrays(a, range(4), mask=None),
            mask_packed=np.full((4, 5), 255, np.uint8),
        ),
        "beyond train unit 36",
    ),
    "one run": (
        lambda a, p: save(p / "x.npz", **{n: v[0] for n, v in arrays(a, range(4)).items()}),
        "mask=mask[None] and margin=margin[None]",
    ),
    "complex": (
        lambda a, p: save(p / "x.npz", **arrays(a, range(4), margin=np.zeros((4, 23), complex))),
        "complex numbers are not taken",
    ),
    "dates": (
        lambda a, p: save(p / "x.npz", **arrays(a, range(4)), time=np.full(4, "2026", "M8[s]")),
        "dates are not taken; store milliseconds",
    ),
    "bfloat16": (
        lambda a, p: save(p / "x.npz", **arrays(a, range(4), margin=np.zeros((4, 23), "V2"))),
        "store them as float32",
    ),
    "Git LFS": (
        lambda a, p: strange(p, b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
        "run 'git lfs pull'",
    ),
    "macOS": (lambda a, p: strange(p, b"\0\5\x16\7" + bytes(90)), "macOS's note"),
    "web page": (lambda a, p: strange(p, b"<!DOCTYPE html><html>" * 9), "is a web page"),
    "torch": (
        lambda a, p: npz(p / "x.npz", {"archive/data.pkl": b"junk"}),
        "is a file of torch.save",
    ),
    "directory without files": (lambda a, p: ((p / "d").mkdir(), p / "d")[1], "no .npz file"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files_are_refused_and_change_nothing(single, tmp_path, case):
    make, words = BAD[case]
    ingest(single, [save(tmp_path / "good.npz", **arrays(single, range(10, 14)))])
    before = {i.name: i for i in single.objects.entries("")}
    folder = tmp_path / "bad"
    folder.mkdir()
    path = make(single, folder)
    try:
        result = ingest(single, [path])
    except InputError as error:
        message = str(error)
    else:
        assert (result.new, result.present, len(result.errors)) == (0, 0, 1)
        message = result.errors[0]
    assert words in message
    assert str(path) in message
    assert "\n" not in message
    assert {i.name: i for i in single.objects.entries("")} == before


def test_conflicting_file_is_refused_whole(single, tmp_path):
    ingest(single, [save(tmp_path / "a.npz", **arrays(single, range(4)))])
    result = ingest(single, [save(tmp_path / "b.npz", **arrays(single, range(2, 6), seed=1))])
    assert (result.new, result.conflicting, result.refused) == (0, 2, 2)
    assert "other content" in result.errors[0]
    assert single.table.view().run.tolist() == [0, 1, 2, 3]
    assert single.table.view().conflicts == ()


def test_conflict_within_one_call(single, tmp_path):
    one = save(tmp_path / "a.npz", **arrays(single, range(4)))
    two = save(tmp_path / "b.npz", **arrays(single, range(4), seed=1))
    result = ingest(single, [one, two])
    assert (result.new, result.conflicting) == (4, 4)


def test_a_bad_file_does_not_stop_the_others(single, tmp_path):
    save(tmp_path / "a.npz", **arrays(single, range(4)))
    (tmp_path / "b.npz").write_bytes(b"torn")
    save(tmp_path / "c.npz", **arrays(single, range(4, 8)))
    result = ingest(single, [tmp_path])
    assert (result.new, len(result.errors)) == (8, 1)


def test_big_endian_and_fortran_arrays_are_the_same_rows(single, tmp_path):
    data = arrays(single, range(6))
    ingest(single, [save(tmp_path / "a.npz", **data)])
    other = {
        **data,
        "margin": np.asfortranarray(data["margin"].astype(">f4")),
        "run": data["run"].astype(">i8"),
    }
    result = ingest(single, [save(tmp_path / "b.npz", **other)])
    assert (result.new, result.present) == (0, 6)


def test_retracted_rows_of_a_worker_are_skipped(single, tmp_path):
    save(tmp_path / "w.npz", **arrays(single, range(10, 14)))
    ingest(single, [tmp_path / "w.npz"])
    retract_runs(single, ["run=12-13"], reason="bad memory")
    before = len(single.table.segment_names())
    result = ingest(single, [tmp_path / "w.npz"])
    assert (result.new, result.present, result.skipped, result.errors) == (0, 2, 2, [])
    assert (
        "study.dm one --restore --where run=…' takes them back (run 12, 13)" in result.warnings[0]
    )
    assert len(single.table.segment_names()) == before


def test_a_refused_file_tells_of_its_retracted_rows_too(single, tmp_path):
    save(tmp_path / "w.npz", **arrays(single, range(10, 14)))
    ingest(single, [tmp_path / "w.npz"])
    retract_runs(single, ["run=12-13"], reason="bad memory")
    data = arrays(single, range(10, 16))
    data["margin"][0] += 1
    result = ingest(single, [save(tmp_path / "x.npz", **data)])
    assert (result.new, result.conflicting, result.refused, result.skipped) == (0, 1, 3, 2)
    assert "2 runs skipped, retracted here" in result.warnings[0]


def test_a_workers_file_is_a_source(single, tmp_path):
    path = save(tmp_path / "w.npz", **arrays(single, range(5)))
    assert readers.sniff(path) == "npz"
    source = readers.open_source(path, "npz", Request(table=single.table))
    source.load()
    expected = make_rows(single, range(5)).arrays
    places = np.array([1, 3])
    assert source.ids.tolist() == list(range(5))
    assert np.array_equal(source.masks(places), expected["mask"][places])
    rows = source.read(places, ["margin"])
    assert rows.run.tolist() == [1, 3]
    assert np.array_equal(rows.arrays["margin"], expected["margin"][places])
    assert rows.columns.keys() == {"accuracy", "time", "host"}
    with pytest.raises(InputError, match="name the study"):
        readers.open_source(path, "npz", Request())


def test_few_files_are_in_memory_at_a_time(single, tmp_path, monkeypatch):
    """What was read is let go of when it is stored, however many files there are."""
    for run in range(30):
        save(tmp_path / f"{run:03d}.npz", **arrays(single, [run]))
    load, loaded, most = NpzSource.load, weakref.WeakSet(), []

    def spy(self):
        load(self)
        loaded.add(self)
        gc.collect()
        most.append(len(loaded))

    monkeypatch.setattr(NpzSource, "load", spy)
    monkeypatch.setattr(engine, "BATCH_RUNS", 4)
    assert ingest(single, [tmp_path]).new == 30
    assert max(most) == 1
    # In the order of the files, though the next ones are read meanwhile.
    assert single.table.view().run.tolist() == list(range(30))
