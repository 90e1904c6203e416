"""Many models at once: each is what the loop makes of it alone."""

import numpy as np
import pytest

import dmstore
from dmstore.errors import InputError
from dmstore.study.algorithm import Run
from dmstore.training import recipe
from dmstore.training.ensemble.steps import steps
from dmstore.training.task import make_task

torch = pytest.importorskip("torch")

SIDE, TRAIN, TARGETS = 8, 70, 12


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    draw = np.random.default_rng(0)
    given = {}
    for name, count in (("train", TRAIN), ("target", TARGETS)):
        label = np.arange(count) % 3
        image = draw.integers(0, 150, (count, SIDE, SIDE, 3), dtype=np.uint8)
        image[np.arange(count), :, :, label] += 100
        given |= {f"{name}_label": label, f"{name}_image": image}
        given[f"{name}_features"] = draw.standard_normal((count, 20)).astype(np.float32)
    return dmstore.create_study(tmp_path_factory.mktemp("photos") / "s", given, seed=1)


def runs_of(*sizes):
    draw = np.random.default_rng(3)
    masks = np.zeros((len(sizes), TRAIN), dtype=bool)
    for mask, size in zip(masks, sizes, strict=True):
        mask[draw.permutation(TRAIN)[:size]] = True
    return [Run(number, mask, 100 + number, number, 0) for number, mask in enumerate(masks)]


def task_of(study, **changes):
    values = {"epochs": 4, "batch_size": 16, "width": 6, "precision": "float32", **changes}
    config = recipe.resolve("mlp", values)
    return make_task(study, recipe.TASK, config, ["margin", "logit"])


EVEN, UNEVEN = (40, 40, 40), (40, 23, 33, 9, 40)
CASES = {
    "linear": {"model": "linear", "features": "features"},
    "linear-images": {"model": "linear", "flip": "random"},
    "mlp": {"model": "mlp", "features": "features", "label_smoothing": 0.1},
    "mlp-nesterov": {"nesterov": True, "schedule": "triangle", "peak_epoch": 1.5},
    "mlp-rounded": {"batches": "rounded", "crop": "resized", "crop_scale": [0.3, 1.0]},
    "mlp-whole": {"batches": "whole", "weight_decay": 0.0, "momentum": 0.0},
    "mlp-held": {"order_seed": 4, "init_seed": 1, "schedule": "step", "schedule_epochs": 2},
    "cnn": {"model": "cnn", "crop": "pad", "crop_padding": 2, "flip": "random"},
    "cnn-alternating": {"model": "cnn", "flip": "alternating", "label_smoothing": 0.2},
}


@pytest.mark.parametrize("sizes", [EVEN, UNEVEN], ids=["even", "uneven"])
@pytest.mark.parametrize("case", CASES)
def test_each_model_is_what_the_loop_makes_of_it(photos, case, sizes):
    runs = runs_of(*sizes)
    alone = task_of(photos, **CASES[case], together=1)
    beside = task_of(photos, **CASES[case], together=4)
    assert (alone.batch, beside.batch) == (1, 4)
    one, many = alone.train(runs), beside.train(runs)
    assert np.allclose(one["logit"], many["logit"], atol=1e-4)
    assert np.allclose(one["training_loss"], many["training_loss"], atol=1e-4)
    assert np.array_equal(one["epochs"], many["epochs"])
    # Something was learnt, and no two are the same.
    assert one["logit"].std() > 0.1
    assert np.abs(one["logit"][0] - one["logit"][1]).max() > 0.01


HALF = ["linear", "linear-images", "mlp", "mlp-nesterov", "mlp-rounded", "mlp-held", "cnn"]


@pytest.mark.parametrize("sizes", [EVEN, UNEVEN], ids=["even", "uneven"])
@pytest.mark.parametrize("case", HALF)
def test_in_bf16_too(photos, case, sizes):
    runs, values = runs_of(*sizes), {**CASES[case], "learning_rate": 0.02}
    whole = task_of(photos, **values, together=4).train(runs)
    one, many = (
        task_of(photos, **values, precision="bf16", together=count).train(runs) for count in (1, 4)
    )
    assert set(many["precision"]) == {"bfloat16"}
    # bfloat16 has 8 bits: sums in another order round to other numbers, by a share of what rounding itself does.
    between = np.abs(one["logit"] - many["logit"]).mean()
    rounding = np.abs(whole["logit"] - many["logit"]).mean()
    assert 0 < rounding < 0.03 * whole["logit"].std()
    assert between < 1.5 * rounding
    assert np.array_equal(one["epochs"], many["epochs"])
    assert np.allclose(one["training_loss"], many["training_loss"], rtol=0.03)


@pytest.mark.parametrize("group", [2, 8])
def test_grouped_convolutions_are_the_same(photos, monkeypatch, group):
    from dmstore.training.ensemble import convolutions

    monkeypatch.setattr(convolutions.Convolutions, "group", lambda *_: group)
    values = CASES["cnn"]
    for sizes in (EVEN, UNEVEN):
        runs = runs_of(*sizes)
        one = task_of(photos, **values, together=1).train(runs)
        many = task_of(photos, **values, together=8).train(runs)
        assert np.allclose(one["logit"], many["logit"], atol=1e-4)


@pytest.mark.parametrize("model", ["mlp", "cnn"])
def test_a_model_stops_alone(photos, model):
    values = {"model": model, "stop_loss": 0.4, "epochs": 30, "learning_rate": 0.03}
    runs = runs_of(*UNEVEN)
    one = task_of(photos, **values, together=1).train(runs)
    many = task_of(photos, **values, together=8).train(runs)
    assert len(set(one["epochs"])) > 1
    assert np.array_equal(one["epochs"], many["epochs"])
    assert np.allclose(one["logit"], many["logit"], atol=1e-4)


def test_a_model_that_diverges_harms_no_other(photos):
    runs = runs_of(*EVEN)
    task = task_of(photos, model="linear", features="features", together=4)
    whole = task.train(runs)["logit"]
    unit = np.flatnonzero(runs[0].mask & ~runs[1].mask & ~runs[2].mask)[0]
    task.loader._train[unit] = torch.inf
    made = task.train(runs)
    assert not np.isfinite(made["logit"][0]).all()
    assert made["epochs"].tolist() == [1, 4, 4]
    assert np.allclose(made["logit"][1:], whole[1:], atol=1e-6)


@pytest.mark.parametrize("case", ["linear", "mlp", "cnn"])
def test_a_run_does_not_depend_on_those_beside_it(photos, case):
    runs = runs_of(*UNEVEN)
    task = task_of(photos, **CASES[case], together=4)
    whole = task.train(runs)["logit"]
    assert np.allclose(task.train(runs[::-1])["logit"][::-1], whole, atol=1e-5)
    assert np.allclose(task.train(runs[2:3])["logit"], whole[2:3], atol=1e-5)


class Interrupted(Exception):
    """The end of a worker."""


class Kept:
    """A checkpoint in memory, which ends the runs after so many saves."""

    def __init__(self, saves):
        self.data, self.saves = None, saves

    def load(self):
        return self.data

    def due(self):
        return True

    def save(self, data):
        self.data = data
        self.saves -= 1
        if not self.saves:
            raise Interrupted


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("model", ["mlp", "cnn"])
def test_unfinished_runs_go_on_bit_for_bit(photos, model, precision):
    values = {"model": model, "stop_loss": 0.4, "epochs": 30, "learning_rate": 0.03}
    values |= {"together": 8, "precision": precision}
    runs = runs_of(*UNEVEN)
    whole = task_of(photos, **values).train(runs)
    kept = Kept(whole["epochs"].max() - 1)
    with pytest.raises(Interrupted):
        task_of(photos, **values).train_resumable(runs, kept)
    made = task_of(photos, **values).train_resumable(runs, kept)
    for name in ("logit", "epochs", "training_loss"):
        assert np.array_equal(made[name], whole[name])


def test_out_of_memory_takes_fewer_models(photos, monkeypatch):
    from dmstore.training.ensemble import dense

    runs = runs_of(*UNEVEN)
    task = task_of(photos, together=8)
    whole = task.train(runs)["logit"]
    step = dense.Dense.step

    def limited(self, *given):
        if len(self) > 2:
            raise torch.cuda.OutOfMemoryError
        return step(self, *given)

    monkeypatch.setattr(dense.Dense, "step", limited)
    with pytest.warns(UserWarning, match="models at once: now"):
        made = task.train(runs)["logit"]
    assert np.allclose(made, whole, atol=1e-5)
    assert task.batch == 2


def test_kept_models_are_those_of_the_loop(photos):
    runs = runs_of(*EVEN)
    masks, seeds = np.array([run.mask for run in runs]), [run.seed for run in runs]
    alone = task_of(photos, **CASES["cnn"], together=1).models(masks, seeds)
    beside = task_of(photos, **CASES["cnn"], together=2).models(masks, seeds)
    assert {key: value.dtype for key, value in alone.items()} == {
        key: value.dtype for key, value in beside.items()
    }
    assert all(np.allclose(alone[key], beside[key], atol=1e-4) for key in alone)


def test_how_many_at_once_is_chosen(photos):
    assert task_of(photos).batch > 1
    assert task_of(photos, batch_size=100_000_000).batch == 1
    for changes in ({"model": "fastnet", "image_size": 16}, {"compile": True}):
        assert task_of(photos, **changes).batch == 1
        with pytest.raises(InputError, match="together is 8"):
            task_of(photos, **changes, together=8)


def test_steps_of_models_with_fewer_batches():
    made = steps([[np.array([4, 5]), np.array([6])], [np.array([7, 8, 9])]])
    assert [one.models.tolist() for one in made] == [[0, 1], [0]]
    assert made[0].position.tolist() == [[4, 5, 4], [7, 8, 9]]
    assert np.allclose(made[0].weight, [[0.5, 0.5, 0], [1 / 3] * 3])
    assert made[1].share.tolist() == [0.5]


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({}, {"linear": None, "cnn": None}),
        ({"avx512_bf16": True}, {"linear": None, "cnn": torch.bfloat16}),
        ({"amx_bf16": True}, {"linear": torch.bfloat16, "cnn": torch.bfloat16}),
    ],
)
def test_precision_is_what_the_cpu_multiplies(monkeypatch, flags, expected):
    from dmstore.training.config import TrainingConfig
    from dmstore.training.loop.precision import half

    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: flags, raising=False)
    device = torch.device("cpu")
    made = {model: half(TrainingConfig(model=model), device) for model in expected}
    assert made == expected
    assert half(TrainingConfig(model="linear", precision="bf16"), device) is torch.bfloat16
    # One at a time they are faster in float32.
    for alone in ({"together": 1}, {"choose": "validation"}, {"compile": True}):
        assert half(TrainingConfig(model="linear", **alone), device) is None
    assert half(TrainingConfig(model="cnn", together=1), device) is expected["cnn"]


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("mode", [0, 1, 2])
def test_the_process_is_left_as_it_was(mode, deterministic, compiled):
    from torch._inductor import config as compiler

    from dmstore.training.config import TrainingConfig
    from dmstore.training.loop.fit import repeatable

    def state():
        filled = torch.utils.deterministic.fill_uninitialized_memory
        return torch.get_deterministic_debug_mode(), compiler.deterministic, filled

    torch.use_deterministic_algorithms(mode > 0, warn_only=mode == 1)
    before = state()
    inside = []

    def interrupted():
        with repeatable(TrainingConfig(compile=compiled, deterministic=deterministic)):
            inside.append(state())
            raise Interrupted

    try:
        with pytest.raises(Interrupted):
            interrupted()
        assert state() == before
        # Others are warned of; what the compiler was told before stays, where nothing is compiled.
        assert inside == [(int(deterministic), deterministic if compiled else mode > 0, False)]
    finally:
        torch.use_deterministic_algorithms(False)
