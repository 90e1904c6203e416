"""Output functions and the writer with torch's tensors, against torch's own functions."""

import numpy as np
import pytest

from dmstore.errors import InputError
from dmstore.training import RunWriter, log_odds, loss, margin, prediction, probability
from dmstore.training.standalone.dmstore_writer import Writer

torch = pytest.importorskip("torch")

from torch.nn import functional

FUNCTIONS = [log_odds, loss, margin, prediction, probability]
DRAW = torch.Generator().manual_seed(0)
LOGIT = 8 * torch.randn(4, 7, 5, generator=DRAW, dtype=torch.float64)
LABEL = torch.arange(7) % 5
ONE = 8 * torch.randn(4, 7, generator=DRAW, dtype=torch.float64)
BIT = torch.arange(7) % 2
DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]


@pytest.mark.parametrize("dtype", DTYPES)
def test_of_classes_as_torch_has_them(dtype):
    logit = LOGIT.to(dtype)
    wide = logit.double()
    label = LABEL.expand(4, 7)
    close = {"rtol": 1e-12, "atol": 0} if dtype is torch.float64 else {"rtol": 2e-6, "atol": 2e-6}
    cross = functional.cross_entropy(wide.flatten(0, 1), label.flatten(), reduction="none")
    p = wide.softmax(-1).gather(-1, label[..., None])[..., 0]
    others = wide.masked_fill(functional.one_hot(label, 5).bool(), -np.inf)
    own = wide.gather(-1, label[..., None])[..., 0]
    expected = {
        loss: cross.reshape(4, 7),
        probability: p,
        log_odds: own - others.logsumexp(-1),
        margin: own - others.max(-1).values,
        prediction: wide.argmax(-1),
    }
    for function, wanted in expected.items():
        found = function(logit, LABEL)
        assert found.dtype in (torch.float32, torch.float64, torch.int64)
        tight = {"rtol": 1e-9, "atol": 1e-12} if dtype is torch.float64 else close
        torch.testing.assert_close(found.double(), wanted.double(), **tight)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("axis", [False, True])
def test_of_one_logit_as_torch_has_them(dtype, axis):
    logit = ONE.to(dtype)
    wide = logit.double()
    given = logit[..., None] if axis else logit
    bit = BIT.expand(4, 7).double()
    cross = functional.binary_cross_entropy_with_logits(wide, bit, reduction="none")
    sign = 2 * bit - 1
    for function, wanted in {
        loss: cross,
        probability: (-cross).exp(),
        log_odds: sign * wide,
        margin: sign * wide,
        prediction: (wide > 0).double(),
    }.items():
        torch.testing.assert_close(function(given, BIT).double(), wanted, rtol=2e-6, atol=1e-9)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_numpy_and_torch_agree(function):
    for logit, label in ((LOGIT, LABEL), (LOGIT.float(), LABEL), (ONE, BIT), (ONE[..., None], BIT)):
        found = function(logit.numpy(), label.numpy())
        assert isinstance(found, np.ndarray)
        assert np.allclose(found, function(logit, label).numpy(), rtol=1e-5, atol=1e-9)
        assert np.array_equal(function(logit[0].numpy(), label.numpy()), found[0])
        assert torch.equal(function(logit[0], label), function(logit, label)[0])


def test_one_logit_is_two_classes_the_first_of_which_has_logit_0():
    two = torch.stack([torch.zeros_like(ONE), ONE], dim=-1)
    for function in FUNCTIONS:
        torch.testing.assert_close(function(ONE, BIT), function(two, BIT), rtol=1e-9, atol=1e-12)


def test_shapes_that_may_mean_two_things_and_labels_that_are_none():
    with pytest.raises(InputError, match="may be"):
        margin(torch.zeros(7, 7), LABEL)
    with pytest.raises(
        InputError, match=r"label 2 is none of 2 .*with more give logits \(target, class\)"
    ):
        margin(ONE, LABEL)
    with pytest.raises(InputError, match=r"logit has shape \(5, 4\), and there are 7"):
        margin(torch.zeros(5, 4), LABEL)


@pytest.mark.parametrize(
    "make",
    [
        lambda x: torch.tensor(x, dtype=torch.bfloat16),
        lambda x: torch.tensor(x, dtype=torch.float16),
        lambda x: torch.tensor(x, dtype=torch.float64, requires_grad=True) * 1,
        lambda x: torch.tensor(x).to(torch.float8_e5m2),
        lambda x: torch.tensor(x).T.contiguous().T,
        lambda x: [torch.tensor(row, requires_grad=True) for row in x],
        lambda x: [list(torch.tensor(row)) for row in x],
    ],
)
def test_a_writer_takes_tensors(study, algorithm, make):
    values = np.tile([0.5, -2.0, 16.0], (3, 8))[:, :23].astype(np.float32)
    with RunWriter(study, "alpha") as writer:
        (batch, *_) = writer.pending(batch=3)
        writer.append_many(
            batch,
            margin=make(values),
            prediction=torch.ones(3, 23, dtype=torch.uint8),
            accuracy=torch.full((3,), 0.5, dtype=torch.bfloat16, requires_grad=True),
        )
        run = next(writer.pending())
        writer.append(run, margin=make(values)[0], prediction=torch.ones(23).int(), accuracy=0.5)
    runs = study.runs("alpha")
    assert np.array_equal(runs.margin.values[:3], values)
    assert runs.accuracy.values.tolist() == [0.5] * 4


def test_tensors_that_are_refused(study, algorithm):
    with RunWriter(study, "alpha") as writer:
        run = next(writer.pending())
        good = torch.zeros(23)
        for bad, words in (
            (good.to_sparse(), r"run 0: margin.*to_dense"),
            (torch.zeros(23, device="meta"), "run 0: margin: no array can be made"),
            (good.cfloat(), "complex64"),
        ):
            with pytest.raises(InputError, match=words):
                writer.append(run, margin=bad, prediction=good.int())


@pytest.mark.parametrize(
    "make",
    [
        lambda x: torch.tensor(x, dtype=torch.bfloat16, requires_grad=True),
        lambda x: torch.tensor(x).to(torch.float8_e5m2),
        lambda x: list(torch.tensor(x, requires_grad=True)),
        lambda x: x.astype(pytest.importorskip("ml_dtypes").bfloat16),
    ],
)
def test_the_one_file_writer_takes_them_too(tmp_path, make):
    values = np.array([0.5, -2.0, 16.0], np.float32)
    with Writer(tmp_path / "runs") as writer:
        writer.append(0, mask=[True, False], margin=make(values))
    (file,) = (tmp_path / "runs").glob("*.npz")
    assert np.array_equal(np.load(file)["margin"], [values])
