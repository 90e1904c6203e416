"""What torch.save writes of lists of indices and of NumPy arrays, read without torch."""

import numpy as np
import pytest

from dmstore.errors import InputError
from dmstore.readers import open_source, sniff, torch_content
from dmstore.readers.source import Request
from dmstore.readers.torch_content import TorchContent

torch = pytest.importorskip("torch")

LISTS = [[3, 1, 0], [4], [], [0, 2, 4, 1]]
MASKS = np.array([np.isin(np.arange(5), one) for one in LISTS])
LOSS = np.random.default_rng(1).random((4, 6)).astype(np.float32)


def tensors():
    return [torch.tensor(one, dtype=torch.int64) for one in LISTS]


@pytest.mark.parametrize(
    "content",
    [
        lambda: tensors(),
        lambda: tuple(tensors()),
        lambda: {"indices": tensors(), "losses": torch.from_numpy(LOSS)},
        lambda: {"indices": [t.numpy() for t in tensors()], "losses": LOSS},
        lambda: {"indices": LISTS, "losses": torch.from_numpy(LOSS)},
    ],
)
def test_lists_of_tensors_become_masks(tmp_path, content):
    saved = content()
    torch.save(saved, tmp_path / "a.pt")
    torch.save(torch.from_numpy(LOSS), tmp_path / "loss.pt")
    beside = {} if isinstance(saved, dict) else {"loss": str(tmp_path / "loss.pt")}
    assert sniff(tmp_path / "a.pt") == "index-lists"
    source = open_source(
        tmp_path / "a.pt", "index-lists", Request(train=5, lists="seen", outputs=beside)
    )
    places = np.arange(4)
    assert np.array_equal(source.masks(places), MASKS)
    assert np.array_equal(source.read(places, ["loss"]).arrays["loss"], LOSS)


def test_a_tensor_of_lists_of_one_length(tmp_path):
    torch.save(torch.tensor([[4, 0], [1, 2]]), tmp_path / "a.pt")
    torch.save(torch.zeros(2, 3), tmp_path / "loss.pt")
    request = Request(train=5, lists="left-out", outputs={"loss": str(tmp_path / "loss.pt")})
    source = open_source(tmp_path / "a.pt", "index-lists", request)
    assert source.masks(np.arange(2)).tolist() == [[0, 1, 1, 1, 0], [1, 0, 0, 1, 1]]


@pytest.mark.parametrize("protocol", [2, 3, 4])
@pytest.mark.parametrize(
    "values",
    [
        LOSS,
        np.asfortranarray(LOSS.astype(">f8")),
        LOSS.astype(np.float16)[:, ::2],
        (LOSS > 0.5),
        np.arange(256, dtype=np.uint8).reshape(4, 64),
        np.arange(6, dtype=np.int64),
    ],
)
def test_arrays_in_torch_files(tmp_path, values, protocol):
    torch.save(values, tmp_path / "a.pt", pickle_protocol=protocol)
    read = TorchContent(tmp_path / "a.pt").only()
    assert np.array_equal(read, values)
    assert read.dtype == values.dtype.newbyteorder("=")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.array([{}], dtype=object), "holds an array of dtype 'O8' that is not of plain numbers"),
        (np.array(["a"]), "not of plain numbers"),
        (np.zeros(2, dtype="i4,f4"), "not of plain numbers"),
        (np.zeros(2, dtype=complex), "not of plain numbers"),
        ({"a": 1.0}, "holds no tensor and no array"),
        ([[object]], "would have to be executed; nothing was"),
    ],
)
def test_other_arrays_are_refused(tmp_path, values, words):
    torch.save(values, tmp_path / "a.pt")
    with pytest.raises(InputError) as error:
        TorchContent(tmp_path / "a.pt")
    assert words in str(error.value)


def test_lists_that_hold_each_other_a_thousand_times_end(tmp_path, monkeypatch):
    monkeypatch.setattr(torch_content, "_MOST", 5000)
    inner = [torch.zeros(1)] * 1000
    torch.save([[inner] * 1000] * 1000, tmp_path / "a.pt")
    with pytest.raises(InputError, match="more than"):
        TorchContent(tmp_path / "a.pt")
