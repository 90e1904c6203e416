"""PyTorch files without PyTorch: what torch.save wrote, and what an attacker might."""

import io
import os
import pickle
import struct
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from paths import DATA

from dmstore.errors import InputError
from dmstore.readers.torch_file import TorchFile

SCORES = DATA / "scores"
BASE = np.arange(60, dtype=np.float32).reshape(6, 10)


def test_every_dtype_and_view_that_torch_wrote():
    file = TorchFile(SCORES / "dtypes.pt")
    expected = {
        "plain": BASE,
        "transposed": BASE.T,
        "slice": BASE[1:5, 2:9:3],
        "half": BASE.astype(np.float16),
        "bfloat16": BASE,
        "double": BASE.astype(np.float64),
        "int": BASE.astype(np.int32),
        "long": BASE.astype(np.int64),
        "flags": BASE > 5,
        "shared": BASE[0],
        "parameter": BASE[:2],
    }
    assert set(file.headers) == set(expected)
    for name, values in expected.items():
        found = file.load(name)
        assert np.array_equal(found, values), name
        assert found.dtype == values.dtype == file.headers[name].dtype, name
        assert found.shape == file.headers[name].shape


def test_a_lone_tensor_and_a_state_dict():
    assert np.array_equal(TorchFile(SCORES / "tensor.pt").load("tensor"), BASE)
    assert set(TorchFile(SCORES / "state_dict.pt").headers) == {"weight", "bias"}


def test_what_torch_writes_here_is_what_torch_reads(tmp_path):
    torch = pytest.importorskip("torch")
    values = torch.randn(7, 5, dtype=torch.float64)
    torch.save({"weight": values.T[1:], "bias": values[0].bfloat16()}, tmp_path / "a.pt")
    file = TorchFile(tmp_path / "a.pt")
    again = torch.load(tmp_path / "a.pt", weights_only=True)
    assert np.array_equal(file.load("weight"), again["weight"].numpy())
    assert np.array_equal(file.load("bias"), again["bias"].float().numpy())


# Opcodes by hand, so that no pickler stands between the test and the bytes.
def text(value):
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def integer(value):
    return (
        b"J" + struct.pack("<i", value)
        if -(2**31) <= value < 2**31
        else (b"\x8a\x09" + value.to_bytes(9, "little", signed=True))
    )


def items(*values):
    return b"(" + b"".join(values) + b"t"


def named(name):
    module, _, attribute = name.rpartition(".")
    return f"c{module}\n{attribute}\n".encode()


def tensor(shape, strides, *, offset=0, numel=60, key="0", storage="torch.FloatStorage"):
    place = items(text("storage"), named(storage), text(key), text("cpu"), integer(numel)) + b"Q"
    return (
        named("torch._utils._rebuild_tensor_v2")
        + items(
            place,
            integer(offset),
            items(*map(integer, shape)),
            items(*map(integer, strides)),
            b"\x89",
            named("collections.OrderedDict") + b")R",
        )
        + b"R"
    )


def dictionary(**values):
    return b"\x80\x02}(" + b"".join(text(k) + v for k, v in values.items()) + b"u."


def archive(path, pickled, *, members=None, compression=zipfile.ZIP_STORED):
    content = {
        "a/data.pkl": pickled,
        "a/byteorder": b"little",
        "a/data/0": BASE.tobytes(),
        **(members or {}),
    }
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, raw in content.items():
            if raw is not None:
                file.writestr(name, raw)
    return path


def test_the_bytes_by_hand_are_what_torch_would_write(tmp_path):
    path = archive(tmp_path / "a.pt", dictionary(weight=tensor((6, 10), (10, 1))))
    assert np.array_equal(TorchFile(path).load("weight"), BASE)
    path = archive(
        tmp_path / "b.pt",
        dictionary(weight=tensor((6, 10), (10, 1))),
        members={"a/byteorder": b"big", "a/data/0": BASE.astype(">f4").tobytes()},
    )
    assert np.array_equal(TorchFile(path).load("weight"), BASE)


class Attack:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_nothing_is_ever_executed(tmp_path, protocol):
    marker = tmp_path / "executed"
    raw = pickle.dumps({"weight": Attack(marker)}, protocol=protocol)
    with pytest.raises(InputError) as error:
        TorchFile(archive(tmp_path / "a.pt", raw))
    assert not marker.exists()
    if protocol >= 2:
        assert "posix.system" in str(error.value)
    assert str(tmp_path / "a.pt") in str(error.value)


HOSTILE = {
    "another global": (
        dictionary(weight=named("builtins.eval") + items(text("1")) + b"R"),
        "builtins.eval",
    ),
    "a global of torch": (dictionary(weight=named("torch.hub.load") + b")R"), "torch.hub.load"),
    "module": (b"\x80\x02" + named("torch.nn.Linear") + b")\x81.", "torch.nn.Linear"),
    "stack global": (b"\x80\x04" + text("os") + text("system") + b"\x93.", "os.system"),
    "stack global of a tuple": (b"\x80\x04)" + text("system") + b"\x93.", "no text"),
    "extension registry": (b"\x80\x02\x82\x01.", "EXT1"),
    "instance": (b"(ios\nsystem\n.", "INST"),
    "persistent id of text": (b"Pevil\n.", "PERSID"),
    "called storage": (dictionary(weight=named("torch.FloatStorage") + b")R"), "calls something"),
    "filled OrderedDict": (
        dictionary(weight=named("collections.OrderedDict") + b"](\x85R"),
        "calls something",
    ),
    "negative size": (dictionary(weight=tensor((-6, 10), (10, 1))), "-6"),
    "negative stride": (dictionary(weight=tensor((6, 10), (-10, 1))), "-10"),
    "negative offset": (dictionary(weight=tensor((6, 10), (10, 1), offset=-1)), "offset -1"),
    "offset beyond": (dictionary(weight=tensor((6, 10), (10, 1), offset=1)), "beyond its storage"),
    "size beyond": (dictionary(weight=tensor((7, 10), (10, 1))), "beyond its storage"),
    "stride beyond": (dictionary(weight=tensor((6, 10), (10, 2))), "beyond its storage"),
    "huge": (dictionary(weight=tensor((2**40, 2**40), (2**40, 1))), "beyond its storage"),
    "wraps around": (dictionary(weight=tensor((2, 2**32), (2**62, 1))), "beyond its storage"),
    "larger than 64 bits": (
        dictionary(weight=tensor((2**64, 1), (1, 1))),
        "size, stride or offset",
    ),
    "memory out of nothing": (dictionary(weight=tensor((10**6, 10**6), (0, 0))), "contiguous"),
    "more numbers than bytes": (dictionary(weight=tensor((6, 10), (10, 1), numel=61)), "244 bytes"),
    "fewer numbers than bytes": (
        dictionary(weight=tensor((5, 10), (10, 1), numel=50)),
        "200 bytes",
    ),
    "other item size": (
        dictionary(weight=tensor((6, 10), (10, 1), storage="torch.DoubleStorage")),
        "480 bytes",
    ),
    "no such storage": (dictionary(weight=tensor((6, 10), (10, 1), key="7")), "missing"),
    "storage outside": (dictionary(weight=tensor((6, 10), (10, 1), key="../0")), "missing"),
    "more strides than dims": (dictionary(weight=tensor((6, 10), (10,))), "no shape"),
    "shape of text": (
        dictionary(
            weight=named("torch._utils._rebuild_tensor_v2") + items(b"N", b"N", b"N", b"N") + b"R"
        ),
        "damaged",
    ),
    "no tensor": (dictionary(number=integer(3)), "neither a tensor"),
    "a list": (b"\x80\x02]" + tensor((6, 10), (10, 1)) + b"a.", "neither a tensor"),
    "key that is no text": (b"\x80\x02})Ns.", "key that is no text"),
    "empty": (b"", "damaged"),
    "stops with nothing": (b"\x80\x02.", "damaged"),
    "cut": (dictionary(weight=tensor((6, 10), (10, 1)))[:-5], "damaged"),
    "no mark": (b"\x80\x02}u.", "damaged"),
    "unknown memo": (b"\x80\x02h\x05.", "damaged"),
    "text longer than the file": (b"\x80\x02X\xff\xff\xff\x7fa.", "damaged"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_pickles_are_refused(tmp_path, case):
    raw, said = HOSTILE[case]
    with pytest.raises(InputError) as error:
        TorchFile(archive(tmp_path / "a.pt", raw))
    assert said in str(error.value)
    assert str(tmp_path / "a.pt") in str(error.value)
    assert len(str(error.value)) < 600


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("to_sparse", "a sparse tensor; save tensor.to_dense"),
        ("cfloat", "complex numbers"),
    ],
)
def test_what_no_block_of_numbers_is_is_called_by_its_name(tmp_path, change, said):
    torch = pytest.importorskip("torch")
    torch.save({"weight": getattr(torch.eye(3), change)()}, tmp_path / "x.pt")
    with pytest.raises(InputError, match=said):
        TorchFile(tmp_path / "x.pt")


def test_tuples_that_share_parts_do_not_blow_up(tmp_path):
    """2**200 leaves if anything prints, compares or hashes them."""
    deep = b")" + b"q\x01h\x01\x86" * 200
    for raw in (
        b"\x80\x02}" + deep + b"Ns.",
        dictionary(weight=named("torch._utils._rebuild_tensor_v2") + b"(" + deep + deep + b"tR"),
        dictionary(weight=tensor((6, 10), (10, 1)).replace(text("0"), deep)),
        dictionary(weight=tensor((6, 10), (10, 1)).replace(integer(10), deep)),
    ):
        with pytest.raises(InputError) as error:
            TorchFile(archive(tmp_path / "a.pt", raw))
        assert len(str(error.value)) < 600


def test_a_stride_that_is_never_walked_does_not_matter(tmp_path):
    path = archive(tmp_path / "a.pt", dictionary(weight=tensor((1, 60), (2**62, 1))))
    assert np.array_equal(TorchFile(path).load("weight"), BASE.reshape(1, 60))
    path = archive(tmp_path / "b.pt", dictionary(weight=tensor((0, 10), (10, 1))))
    assert TorchFile(path).load("weight").shape == (0, 10)


GOOD = dictionary(weight=tensor((6, 10), (10, 1)))


def test_compressed_members_are_refused_so_that_nothing_grows(tmp_path):
    bomb = {"a/data/0": bytes(50_000_000)}
    path = archive(tmp_path / "a.pt", GOOD, members=bomb, compression=zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 100_000
    with pytest.raises(InputError, match="compressed"):
        TorchFile(path)


def test_duplicate_members(tmp_path):
    path = archive(tmp_path / "a.pt", GOOD)
    with zipfile.ZipFile(path, "a") as file, pytest.warns(UserWarning, match="Duplicate"):
        file.writestr("a/data/0", bytes(240))
    with pytest.raises(InputError, match="twice"):
        TorchFile(path)


def test_encrypted_member(tmp_path):
    path = archive(tmp_path / "a.pt", GOOD)
    raw = bytearray(path.read_bytes())
    at = raw.find(b"PK\x01\x02")
    raw[at + 8] |= 1
    path.write_bytes(raw)
    with pytest.raises(InputError, match="encrypted"):
        TorchFile(path)


def test_a_size_larger_than_the_file(tmp_path):
    path = archive(tmp_path / "a.pt", GOOD)
    raw = bytearray(path.read_bytes())
    at = raw.rfind(b"PK\x01\x02")
    raw[at + 20 : at + 28] = struct.pack("<II", 0x7FFFFFFF, 0x7FFFFFFF)
    path.write_bytes(raw)
    with pytest.raises(InputError, match="more than the file has"):
        TorchFile(path)


def test_a_flipped_bit_is_an_error(tmp_path):
    path = archive(tmp_path / "a.pt", GOOD)
    raw = path.read_bytes()
    at = raw.find(BASE.tobytes())
    path.write_bytes(raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :])
    with pytest.raises(InputError, match=r"CRC|cannot be read"):
        TorchFile(path).load("weight")


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({"b/data.pkl": GOOD}, "2 data.pkl"),
        ({"a/data.pkl": None}, "0 data.pkl"),
        ({"a/byteorder": b"middle"}, "neither little nor big"),
        ({"a/byteorder": bytes(10_000)}, "neither little nor big"),
        ({"a/data.pkl": bytes(5_000_000)}, "too many"),
    ],
)
def test_archives_that_are_not_torchs(tmp_path, members, said):
    with pytest.raises(InputError, match=said):
        TorchFile(archive(tmp_path / "a.pt", GOOD, members=members))


def test_files_that_are_none(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        TorchFile(tmp_path / "none.pt")
    with pytest.raises(InputError, match=r"torch\.save it again"):
        TorchFile(SCORES / "legacy.pt")
    with pytest.raises(InputError, match=r"torch\.nn\.modules\.linear\.Linear"):
        TorchFile(SCORES / "module.pt")
    whole = (SCORES / "datamodels.pt").read_bytes()
    for length in (0, 10, len(whole) // 2, len(whole) - 1):
        (tmp_path / "cut.pt").write_bytes(whole[:length])
        with pytest.raises(InputError, match=r"cut\.pt"):
            TorchFile(tmp_path / "cut.pt")


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_changed_bytes_are_read_or_refused_but_nothing_else(tmp_path, data):
    """Any damage ends in an InputError or in arrays no larger than the file."""
    whole = (SCORES / "datamodels.pt").read_bytes()
    with zipfile.ZipFile(io.BytesIO(whole)) as file:
        content = {name: file.read(name) for name in file.namelist()}
    raw = bytearray(content["datamodels/data.pkl"])
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path = archive(
        tmp_path / "a.pt",
        bytes(raw),
        members={f"a/data/{k}": content[f"datamodels/data/{k}"] for k in "012"},
    )
    try:
        opened = TorchFile(path)
        sizes = [opened.load(name).nbytes for name in opened.headers]
    except InputError:
        return
    assert max(sizes) <= 8 * len(whole)
