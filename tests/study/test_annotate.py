"""Annotations added later: every kind of file, never changed, never half there."""

import json
import multiprocessing
import shutil
from pathlib import Path

import crash
import dask
import numpy as np
import pytest
from commands import run, run_json
from helpers import TRAIN, examples, files
from scipy.sparse import csr_array

import dmstore
from dmstore.errors import CorruptionError, ExistsError, InputError, NotFoundError
from dmstore.readers.columns import in_order, read_columns
from dmstore.study import annotation
from dmstore.upkeep.maintenance import vacuum
from dmstore.upkeep.verification import verify

GROUP = np.arange(TRAIN) % 5


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A study that no test changes."""
    made = dmstore.create_study(tmp_path_factory.mktemp("kept") / "s.dm", examples(), seed=3)
    made.annotate("train", group=GROUP)
    return made


def test_what_is_added_comes_back_bit_for_bit(study):
    draw = np.random.default_rng(0)
    given = {
        "group": GROUP.astype(np.int16),
        "score": np.where(GROUP == 0, np.nan, draw.normal(size=TRAIN)).astype(">f4"),
        "odd": GROUP % 2 == 1,
        "caption": np.array([f"ä line\nand {i}" for i in range(TRAIN)]),
        "thumbnail": draw.integers(0, 256, (TRAIN, 4, 4, 3)).astype(np.uint8),
        "feature": draw.normal(size=(TRAIN, 7)),
    }
    assert study.annotate("train", given) == dict.fromkeys(given, "new")
    assert study.annotate("train", **given) == dict.fromkeys(given, "present")
    for opened in (study, dmstore.open_study(study.path)):
        for name, values in given.items():
            assert np.array_equal(opened.train[name], values, equal_nan=name == "score"), name
        assert dask.is_dask_collection(opened.train.thumbnail.data)
        assert opened.train.thumbnail.dims[1:] == tuple(
            f"thumbnail_{d}" for d in ("height", "width", "channel")
        )
        assert opened.train.score.dtype == np.float32
        part = opened.train.thumbnail.isel(train=slice(30, 5, -4), thumbnail_height=2)
        assert np.array_equal(part, given["thumbnail"][30:5:-4, 2])
    assert list(verify(study)) == []


def test_what_the_study_was_made_with_is_read_and_kept(study):
    assert Path(study.path, "examples/annotations/train-weight.zarr").is_dir()
    weight = examples()["train_weight"]
    assert study.annotate("train", weight=weight) == {"weight": "present"}
    with pytest.raises(ExistsError, match="never change"):
        study.annotate("train", weight=weight + 1)
    assert study.annotate("class", name=study.class_names, superclass=["a", "b", "a"]) == {
        "name": "present",
        "superclass": "new",
    }
    assert study.classes.superclass.sel({"class": "class2"}) == "a"


REFUSED = {
    "other values": (lambda: {"group": GROUP + 1}, ExistsError, "other values"),
    "other dtype": (lambda: {"group": GROUP.astype(float)}, ExistsError, "other values"),
    "too few": (lambda: {"more": GROUP[:-1]}, InputError, "37 examples"),
    "a number": (lambda: {"more": np.array(3)}, InputError, "one value per example"),
    "objects": (lambda: {"more": [None] * TRAIN}, InputError, "numbers, bools or text"),
    "complex": (lambda: {"more": GROUP * 1j}, InputError, "numbers, bools or text"),
    "labels beyond": (lambda: {"label": GROUP}, InputError, "0 to 2"),
    "float images": (lambda: {"image": np.zeros((TRAIN, 2, 2))}, InputError, "uint8"),
    "nothing": (dict, InputError, "at least one"),
    "only case differs": (lambda: {"Group": GROUP}, ExistsError, "case alone"),
    "case differs in one call": (lambda: {"x": GROUP, "X": GROUP}, InputError, "case alone"),
    "reserved": (lambda: {"Train": GROUP}, InputError, "reserved"),
    "path": (lambda: {"../x": GROUP}, InputError, "not allowed"),
    "control character": (lambda: {"a\x1b[31m": GROUP}, InputError, "not allowed"),
    "line end": (lambda: {"a\n": GROUP}, InputError, "not allowed"),
    "right to left": (lambda: {"a\u202eb": GROUP}, InputError, "not allowed"),
    "look-alike": (lambda: {"gr\u043eup": GROUP}, InputError, "not allowed"),
    "lone surrogate": (lambda: {"text": ["\udc80"] * TRAIN}, InputError, "Unicode"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals_change_nothing(kept, case):
    make, error, words = REFUSED[case]
    before = files(Path(kept.path))
    with pytest.raises(error, match=words):
        kept.annotate("train", {"fine": GROUP, **make()} if make is not dict else {})
    assert files(Path(kept.path)) == before


def test_unknown_sets_and_names_of_classes(tmp_path):
    given = {k: v for k, v in examples().items() if k != "class_name"}
    study = dmstore.create_study(tmp_path / "s", given, seed=1)
    with pytest.raises(NotFoundError, match="it has: test"):
        study.annotate("nothing", x=GROUP)
    for bad in (["a\x07", "b", "c"], ["a", "b", "e\u0301"], ["a", "b\u200b", "c"]):
        with pytest.raises(InputError, match="the name"):
            study.annotate("class", name=bad)
    with pytest.raises(InputError, match="'class' has 3 classes"):
        study.annotate("class", name=["a", "b"])
    assert study.class_names == ["0", "1", "2"]
    study.annotate("class", name=["a", "b", "é"])
    assert study.class_names == ["a", "b", "é"]


FILES = {
    "c.csv": (b"group,score,code\r\n1,.5,007\r\n2,1e3,x\r\n", {"group": "i", "score": "f", "code": "U"}),
    "c.txt": (b"\xef\xbb\xbfone\xe2\x80\xa8still one\n\xc3\xa4", {"text": "U"}),
    "list.json": (b'["a", "b"]', {"text": "U"}),
    "object.json": (b'{"group": [1, 2], "f": [1, 2.5], "ok": [true, false]}', {"group": "i", "f": "f", "ok": "b"}),
}  # fmt: skip


CSV = {
    "separators of other kinds": ("caption\nx\u2028y\nb\x85\x0b\x1c\n", {"caption": ["x\u2028y", "b\x85\x0b\x1c"]}),
    "one column, blank": ("caption\nx\n\ny\n\n\n", {"caption": ["x", "", "y"]}),
    "two columns, blank": ("a,b\r\n1,x\r\n\r\n2,y\r\n", {"a": [1, 2], "b": ["x", "y"]}),
    "quoted": ('a\n"say ""x"",\r\n\ny"\n""\n', {"a": ['say "x",\r\n\ny', ""]}),
    "bools": ("a,b,c\nTrue,TRUE,false\nFalse, true ,true\n", {"a": [True, False], "b": [True, True], "c": [False, True]}),
    "gaps": ("a,b,c\n1,,.5\nNA,2e3,NaN\n", {"a": [1.0, np.nan], "b": [np.nan, 2e3], "c": [0.5, np.nan]}),
    "no gaps of texts": ("a,b\nNA,\nx,\n", {"a": ["NA", "x"], "b": ["", ""]}),
    "leading zeros": ("zip\n02139\n10001\n", {"zip": ["02139", "10001"]}),
    "beyond 64 bits": ("a\n99999999999999999999\n1\n", {"a": ["99999999999999999999", "1"]}),
    "beyond a float": ("a,b\n9007199254740993,1e999\n,1\n", {"a": ["9007199254740993", ""], "b": ["1e999", "1"]}),
    "edges": ("a,b\n-9223372036854775808,-inf\n9223372036854775807,1\n", {"a": [-(1 << 63), (1 << 63) - 1], "b": [-np.inf, 1.0]}),
    "signs": ("a,b\n-0,+1\n1,-2\n", {"a": [0, 1], "b": [1, -2]}),
    "names are texts": ("name\n5\n6\n", {"name": ["5", "6"]}),
    "other digits": ("a\n\u0661\n2\n", {"a": ["\u0661", "2"]}),
    "ids stay texts": ("\ufeffid,a\n007,1\n1,2\n", {"id": ["007", "1"], "a": [1, 2]}),
}  # fmt: skip


@pytest.mark.parametrize("case", CSV)
def test_csv_is_taken_as_the_standard_has_it(tmp_path, case):
    from dmstore.readers.columns import read_columns

    text, expected = CSV[case]
    (tmp_path / "t.csv").write_bytes(text.encode())
    taken = read_columns(tmp_path / "t.csv")
    assert taken.keys() == expected.keys()
    for name, values in expected.items():
        assert taken[name].dtype.kind == np.array(values).dtype.kind
        assert np.array_equal(
            taken[name], np.array(values), equal_nan=taken[name].dtype.kind == "f"
        )


def test_channels_of_images_stand_last(study):
    study.annotate("train", a=np.zeros((TRAIN, 3, 5, 6), np.uint8), b=np.zeros((TRAIN, 5, 6, 4)))
    assert study.train.a.dims[1:] == ("a_axis1", "a_axis2", "a_axis3")
    assert study.train.b.dims[1:] == ("b_height", "b_width", "b_channel")


def test_gaps_of_lists(tmp_path):
    from dmstore.readers.columns import read_columns

    (tmp_path / "t.json").write_text('{"a": [1, null], "b": [0.5, null]}')
    taken = read_columns(tmp_path / "t.json")
    assert np.array_equal(taken["a"], [1, np.nan], equal_nan=True)
    assert np.array_equal(taken["b"], [0.5, np.nan], equal_nan=True)


def test_a_sparse_matrix_is_named(kept):
    with pytest.raises(InputError, match=r"a sparse matrix \(scipy.csr_array, .*toarray"):
        kept.annotate("train", words=csr_array(np.eye(37)))


def test_what_is_masked_is_never_a_value(kept):
    mask = GROUP == 1
    with pytest.raises(InputError, match=r"8 values are masked, the first at \[1\]"):
        kept.annotate("train", fine=GROUP, m=np.ma.array(GROUP, mask=mask))
    with pytest.raises(InputError, match=r"the first at \[0, 0\]"):
        kept.annotate("train", m=[np.ma.array([1, 2], mask=[True, False])] * TRAIN)
    assert "fine" not in kept.train
    with pytest.raises(InputError, match="masked"):
        dmstore.create_study(
            "none.dm", {**examples(), "train_label": np.ma.masked_equal([0, 1], 1)}
        )
    with pytest.raises(InputError, match="masked"):
        kept.add_targets("none", {"label": np.ma.masked_equal([0, 1], 1)})


def test_masked_floats_are_missing_and_nothing_masked_is_plain(study):
    mask = GROUP == 1
    study.annotate(
        "train",
        float=np.ma.array(GROUP, mask=mask, dtype=np.float32),
        whole=np.ma.array(GROUP, mask=False),
    )
    train = dmstore.open_study(study.path).train
    assert np.array_equal(train["float"], np.where(mask, np.nan, GROUP), equal_nan=True)
    assert train["float"].dtype == np.float32
    assert np.array_equal(train["whole"], GROUP)


@pytest.mark.parametrize("name", FILES)
def test_files_of_text(tmp_path, name):
    from dmstore.readers.columns import read_columns

    content, kinds = FILES[name]
    (tmp_path / name).write_bytes(content)
    found = read_columns(tmp_path / name, "text" if "text" in kinds else None)
    assert {key: values.dtype.kind for key, values in found.items()} == kinds
    assert {len(values) for values in found.values()} == {2}


def test_command_takes_every_file_and_ids_in_any_order(tmp_path, study):
    order = np.random.default_rng(1).permutation(TRAIN)
    np.savez(tmp_path / "a.npz", group=GROUP[order], id=order)
    np.save(tmp_path / "b.npy", GROUP * 2)
    lines = "".join(f"{i},{float(GROUP[i] / 3)!r}\n" for i in order)
    (tmp_path / "c.csv").write_text(f"id,third\n{lines}")
    (tmp_path / "d.json").write_text(json.dumps([f"text {i}" for i in range(TRAIN)]))
    path = study.path
    before = files(Path(path))
    tried = run_json("annotate", path, "train", tmp_path / "a.npz", "--dry-run")
    assert (tried["new"], tried["columns"]) == (["group"], {"group": "int64"})
    assert (
        "would be added\n  third: float64\n"
        in run("annotate", path, "train", tmp_path / "c.csv", "--dry-run")[0]
    )
    assert files(Path(path)) == before
    assert run_json("annotate", path, "train", tmp_path / "a.npz")["new"] == ["group"]
    assert run_json("annotate", path, "train", tmp_path / "a.npz")["present"] == ["group"]
    assert (
        "double added" in run("annotate", path, "train", tmp_path / "b.npy", "--name", "double")[0]
    )
    run("annotate", path, "train", tmp_path / "c.csv")
    run("annotate", path, "train", tmp_path / "d.json", "--name", "caption")
    train = dmstore.open_study(path).train
    assert np.array_equal(train.group, GROUP)
    assert np.array_equal(train.double, GROUP * 2)
    assert np.array_equal(train.third, GROUP / 3)
    assert train.caption.values[3] == "text 3"
    names = run_json("status", path)["annotations"]["train"]
    assert names == ["caption", "double", "group", "image", "label", "third", "weight"]
    assert "train: caption, double" in run("status", path)[0]
    np.save(tmp_path / "b.npy", GROUP * 3)
    assert (
        "never change"
        in run("annotate", path, "train", tmp_path / "b.npy", "--name", "double", code=1)[1]
    )


def claims_too_much() -> bytes:
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }"
    header += b" " * (117 - len(header)) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(80)


BAD_FILES = {
    "x.npy": (claims_too_much(), "cut or damaged"),
    "garbage.npy": (b"PK\x03\x04 nonsense", "is no NumPy array"),
    "torn.npz": (b"PK\x03\x04", "not a whole .npz"),
    "nan.json": (b'{"a": [NaN]}', "not valid JSON"),
    "deep.json": (b"[" * 100_000, "not valid JSON|RecursionError"),
    "mixed.json": (b'{"a": [1, "x"]}', "all of one kind"),
    "huge.json": (b'{"a": [1, 99999999999999999999999]}', "64 bits"),
    "number.json": (b"3", "neither a list"),
    "ragged.csv": (b"a,b\n1,2\n\n3\n", "line 4 has 1 field"),
    "bool-gap.csv": (b"id,a\n1,True\n2,\n", "'a' holds true and false but for line 3"),
    "nul.csv": (b"a\n1\n\0", "line 3 holds a NUL"),
    "long.csv": (b"a\n" + b"x" * 200_000, "save longer texts as .json"),
    "nul.json": (b'{"a": ["\\u0000"]}', "'a' holds a NUL"),
    "null-text.json": (b'{"a": ["x", null]}', "among numbers alone"),
    "inexact.json": (b'{"a": [0.5, 9007199254740993]}', "53 bits"),
    "twice.csv": (b"a,a\n1,2\n", "one name"),
    "empty.csv": (b"a\n", "no rows"),
    "latin.csv": (b"a\n\xe9\n", "UTF-8"),
    "unclosed.csv": (b'a\n"x', "no valid .csv"),
    "control.csv": (b"a\x07\n" + b"1\n" * TRAIN, "not allowed"),
    "two-ids.csv": (b"id,ID\n" + b"1,1\n" * TRAIN, "each hold the ids"),
    "ids.csv": (b"id,a\n" + b"1,1\n" * TRAIN, "every id"),
    "id-twice.csv": (
        b"id,a\n" + b"".join(b"%d,1\n" % (i // 2) for i in range(TRAIN)),
        "'0' is there twice",
    ),
    "ID.csv": (b"ID\n" + b"1\n" * TRAIN, "'1' is there twice"),
    "wide.json": (
        json.dumps({"a": ["x" * 100_000] + [""] * 20_000}).encode(),
        "take more than 4.3 GB",
    ),
    "strange-id.csv": (b"id,a\n" + b"zz,1\n", "'zz' is none of them"),
    "x.pkl": (b"cos\nsystem\n", "not a .npz"),
    "unnamed.npy": (None, "--name"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_files_change_nothing(tmp_path, kept, name):
    content, words = BAD_FILES[name]
    if content is None:
        np.save(tmp_path / name, GROUP)
    else:
        (tmp_path / name).write_bytes(content)
    before = files(Path(kept.path))
    _, err = run("annotate", kept.path, "train", tmp_path / name, code=1)
    assert len(err.splitlines()) == 1
    assert any(word in err for word in words.split("|")), err
    assert "\x07" not in err
    assert files(Path(kept.path)) == before


@pytest.mark.parametrize("name", ["ID", "Id", " id "])
def test_ids_may_be_spelt_as_spreadsheets_do(tmp_path, name):
    (tmp_path / "c.csv").write_text(f"{name},v\n" + "".join(f"{i},{i}\n" for i in range(9)[::-1]))
    np.savez(tmp_path / "c.npz", **{name: np.arange(9)[::-1], "v": np.arange(9)[::-1]})
    for file in ("c.csv", "c.npz"):
        for only in (None, "v"):
            columns = in_order(read_columns(tmp_path / file, only), np.arange(9), file)
            assert list(columns) == ["v"]
            assert columns["v"].tolist() == list(range(9))


def test_pickles_and_missing_files(tmp_path, study):
    np.save(tmp_path / "o.npy", np.array([None] * TRAIN), allow_pickle=True)
    out = run("annotate", study.path, "train", tmp_path / "o.npy", "--name", "o", code=1)[1]
    assert "unpickled" in out
    out = run("annotate", study.path, "train", tmp_path / "none.npy", "--name", "o", code=1)[1]
    assert "no such file" in out
    out = run("annotate", study.path, "bad", tmp_path / "o.npy", code=1)[1]
    assert "'bad' is not in this study" in out


def annotate_two(path):
    study = dmstore.open_study(path)
    study.annotate("train", group=GROUP, image2=np.zeros((TRAIN, 3, 3), np.uint8))


def test_killed_at_any_call_it_is_whole_or_not_there(tmp_path):
    dmstore.create_study(tmp_path / "new", examples(), seed=1)
    died, at = True, 0
    while died:
        at += 1
        path = tmp_path / f"s{at}"
        shutil.copytree(tmp_path / "new", path)
        died, _ = crash.run(annotate_two, str(path), at)
        study = dmstore.open_study(path)
        if "group" in study.train:
            assert np.array_equal(study.train.group, GROUP)
        assert list(verify(study)) == []
        annotate_two(path)
        again = dmstore.open_study(path)
        assert {"group", "image2"} <= set(again.train)
        vacuum(again, grace=0)
        assert again.objects.leftovers() == []
    assert at > 6


def racer(path, value, barrier, results):
    study = dmstore.open_study(path)
    barrier.wait()
    try:
        results.put(study.annotate("train", group=GROUP + value)["group"])
    except ExistsError:
        results.put("refused")


@pytest.mark.parametrize("differ", [False, True])
def test_of_two_hosts_one_is_first(study, differ):
    context = multiprocessing.get_context("forkserver")
    barrier, results = context.Barrier(2), context.Queue()
    both = [
        context.Process(target=racer, args=(study.path, value * differ, barrier, results))
        for value in (0, 1)
    ]
    for process in both:
        process.start()
    said = sorted(results.get(timeout=60) for _ in both)
    for process in both:
        process.join()
    assert said == (["new", "refused"] if differ else ["new", "present"])
    assert list(verify(study)) == []


def test_damage_is_told_with_the_file(study):
    study.annotate("train", group=GROUP)
    where = Path(study.path, "examples/annotations/train-group.zarr.zip")
    whole = where.read_bytes()
    for damaged in (b"", b"garbage", whole[: len(whole) // 2]):
        where.write_bytes(damaged)
        with pytest.raises(CorruptionError, match=r"train-group\.zarr\.zip: cannot be read"):
            _ = dmstore.open_study(study.path).train
        problems = list(verify(study))
        assert [problem.kind for problem in problems] == ["annotation"]
        assert "train-group" in problems[0].where
    flipped = bytearray(whole)
    flipped[whole.index(b"value/c/0") + 40] ^= 1
    where.write_bytes(flipped)
    assert [p.kind for p in verify(study)] == ["annotation"]


def test_what_is_gone_is_told_with_its_path(study):
    Path(study.path, "examples/annotations/test-label.zarr/zarr.json").unlink()
    with pytest.raises(
        CorruptionError, match=r"^examples/annotations/test-label.zarr: zarr.json is"
    ):
        _ = dmstore.open_study(study.path).targets
    Path(study.path, "examples/train.zarr/zarr.json").unlink()
    problems = [str(problem) for problem in verify(study)]
    assert len(problems) == 2
    assert all("test-label.zarr" in text or "train.zarr" in text for text in problems)
    assert not any("object at 0x" in text for text in problems)


def test_what_holds_a_place_shows_it(study):
    algorithm = study.add_algorithm("a")
    for shown in (study.objects, study.objects.reader("examples/train.zarr"), algorithm.table):
        assert study.path in repr(shown)


def test_strange_files_beside_annotations_are_no_annotations(study):
    folder = Path(study.path, "examples/annotations")
    for name in ("train-a\x1b[31m.zarr", "train-train.zarr.zip", "other-x.zarr", "notes"):
        (folder / name).write_bytes(b"x")
    train = dmstore.open_study(study.path).train
    assert set(train) == {"label", "image", "weight"}
    told = [problem.where for problem in verify(study)]
    assert len(told) == 4
    assert all(where.isprintable() for where in told)


def test_large_images_have_small_chunks(study):
    images = np.zeros((TRAIN, 1024, 1024), np.uint8)
    study.annotate("train", large=images)
    chunks = study.train.large.data.chunks[0]
    assert max(chunks) * 2**20 <= 16 << 20
    assert sum(chunks) == TRAIN
    assert annotation.names(study.objects, "train")["large"].endswith(".zarr.zip")
    assert Path(study.path, "examples/annotations/train-large.zarr.zip").stat().st_size < 2**20
