"""The torch loop: every recipe trains, runs repeat, unfinished runs go on bit for bit."""

import copy

import numpy as np
import pytest
from commands import run
from helpers import examples

import dmstore
from dmstore.errors import DmstoreError, InputError, MissingDependencyError
from dmstore.study.algorithm import Run
from dmstore.training import recipe
from dmstore.training.augmentation import Augmentation, augmented
from dmstore.training.config import TrainingConfig
from dmstore.training.task import make_task
from dmstore.training.worker import train

torch = pytest.importorskip("torch")

from dmstore.training.loaders.make import channels
from dmstore.training.models import make
from dmstore.training.models.strided import guard

SIDE = 16
TRAIN, TARGETS = 60, 20
SMALL = {
    "epochs": 2,
    "batch_size": 16,
    "image_size": 0,
    "width": 4,
    "loader": "tensors",
    "peak_epoch": 1,
}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A study of two colours, which any network learns, with a validation set and features."""
    draw = np.random.default_rng(0)

    def colours(count):
        label = np.arange(count) % 2
        image = draw.integers(0, 120, (count, SIDE, SIDE, 3), dtype=np.uint8)
        image[np.arange(count), :, :, label] += 100
        return label, image

    given = {}
    for name, count in (("train", TRAIN), ("target", TARGETS)):
        given[f"{name}_label"], given[f"{name}_image"] = colours(count)
        given[f"{name}_features"] = given[f"{name}_image"].mean(axis=(1, 2)).astype(np.float32)
    study = dmstore.create_study(tmp_path_factory.mktemp("photos") / "s", given, seed=1)
    label, image = colours(10)
    study.add_targets("validation", {"target_label": label, "target_image": image})
    return study


def run_of(number=0, seed=5):
    mask = np.zeros(TRAIN, dtype=bool)
    mask[np.random.default_rng(number).permutation(TRAIN)[: TRAIN // 2]] = True
    return Run(number, mask, seed, number, 0)


def task_of(study, name="small-cnn", outputs=("margin", "logit"), **changes):
    config = recipe.resolve(name, {**SMALL, **changes})
    return make_task(study, recipe.TASK, config, list(outputs))


@pytest.mark.parametrize("name", [one.name for one in recipe.recipes()])
def test_every_recipe_trains_a_run(photos, name, tmp_path):
    config = recipe.find(name).config
    changes = {}
    if config.model in ("resnet18", "resnet50"):
        torchvision = pytest.importorskip("torchvision")
        changes["width"] = 0
        if config.weights or name == "waterbirds-synthetic":
            with torch.random.fork_rng():
                torch.manual_seed(0)
                made = getattr(torchvision.models, config.model)(num_classes=7)
            torch.save(made.state_dict(), tmp_path / "w.pt")
            changes["weights"] = str(tmp_path / "w.pt")
    made = task_of(photos, name, **changes).train([run_of()])
    assert made["margin"].shape == (1, TARGETS)
    assert np.isfinite(made["logit"]).all()
    # The best epoch hides one that ended in NaN.
    assert np.isfinite(made["training_loss"]).all()
    assert made["epochs"][0] in (1, 2)


def leave_garbage():
    """Memory that is handed out next is full of NaN, and not of the zeros or old numbers that hide its use."""
    for count in (64, 1000, 5000, 20_000, 100_000, 500_000, 2_000_000):
        torch.full((count,), float("nan"))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    ("height", "width"), [(1, 1), (4, 1), (1, 2), (2, 2), (4, 2), (1, 4), (4, 4)]
)
@pytest.mark.parametrize(("kernel", "stride"), [(3, 2), (5, 2), (3, 3), (1, 2)])
def test_strided_convolutions_in_bfloat16(height, width, kernel, stride, layout):
    """Values and both gradients are those of float64, to bfloat16's rounding."""
    draw = torch.Generator().manual_seed(0)
    made = torch.nn.Sequential(torch.nn.Conv2d(128, 192, kernel, stride, kernel // 2, bias=False))
    guard(made)
    given = torch.randn(5, 128, height, width, generator=draw)
    wanted = copy.deepcopy(made).double()
    made.to(memory_format=layout)
    one = given.clone().to(memory_format=layout).requires_grad_()
    other = given.double().requires_grad_()
    leave_garbage()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        said = made(one).float()
    right = wanted(other)
    change = torch.randn(right.shape, generator=draw)
    leave_garbage()
    said.backward(change)
    right.backward(change.double())
    for value, known in (
        (said, right),
        (one.grad, other.grad),
        (made[0].weight.grad, wanted[0].weight.grad),
    ):
        assert (value.double() - known).abs().max() <= 0.02 * known.abs().max()


@pytest.mark.parametrize("side", [8, 16, 32, 33])
@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_gradients_of_resnets_repeat_in_bfloat16(name, side):
    pytest.importorskip("torchvision")
    torch.manual_seed(0)
    network = make(TrainingConfig(model=name), (3, side, side), 2)
    network.to(memory_format=torch.channels_last)
    given = torch.randn(5, 3, side, side)

    def gradients():
        network.zero_grad()
        leave_garbage()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = network(given).float().square().sum()
        leave_garbage()
        loss.backward()
        return [one.grad.clone() for one in network.parameters()]

    first = gradients()
    assert all(torch.isfinite(one).all() for one in first)
    assert all(
        torch.equal(one, two) for _ in range(2) for one, two in zip(first, gradients(), strict=True)
    )


@pytest.mark.parametrize("model", ["cnn", "mlp", "linear", "resnet9", "fastnet"])
def test_networks_learn(photos, model):
    rate = 0.5 if model == "fastnet" else 0.05
    task = task_of(photos, model=model, epochs=12, width=8, learning_rate=rate, weight_decay=0.0)
    made = task.train([run_of()])
    assert made["accuracy"][0] >= 0.9
    assert made["training_loss"][0] < 0.5


def test_a_run_follows_from_its_mask_and_seed(photos):
    first = task_of(photos, crop="pad", flip="random").train([run_of(), run_of(1)])["logit"]
    again = task_of(photos, crop="pad", flip="random").train([run_of(1), run_of()])["logit"]
    assert np.array_equal(first[0], again[1])
    assert np.array_equal(first[1], again[0])
    assert not np.array_equal(first[0], task_of(photos).train([run_of(seed=6)])["logit"][0])


@pytest.mark.parametrize("held", ["init_seed", "order_seed", "augmentation_seed"])
def test_each_seed_moves_the_run_alone(photos, held):
    """With all three held runs of one mask are equal; with one let go they differ."""
    fixed = {"init_seed": 1, "order_seed": 2, "augmentation_seed": 3, "flip": "random"}
    task = task_of(photos, **fixed)
    same = task.train([run_of(seed=1), run_of(seed=2)])["logit"]
    assert np.array_equal(same[0], same[1])
    apart = task_of(photos, **{**fixed, held: -1}).train([run_of(seed=1), run_of(seed=2)])["logit"]
    assert not np.array_equal(apart[0], apart[1])


def test_only_the_mask_is_seen(photos):
    """Whitening, normalising and training of a run must not look at labels or images that it does not see."""
    task = task_of(photos, "cifar10-fast")
    one = run_of()
    before = task.train([one])["logit"]
    unseen, seen = np.flatnonzero(~one.mask)[0], np.flatnonzero(one.mask)[0]
    task.loader._train[unseen] = 255 - task.loader._train[unseen]
    task._label[unseen] = 1 - task._label[unseen]
    assert np.array_equal(task.train([one])["logit"], before)
    task._label[seen] = 1 - task._label[seen]
    assert not np.array_equal(task.train([one])["logit"], before)


class Interrupted(Exception):
    """The end of a worker."""


class Kept:
    """A checkpoint in memory, which ends the run after so many saves."""

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


@pytest.mark.parametrize("choose", ["last", "validation"])
def test_an_unfinished_run_goes_on_bit_for_bit(photos, choose):
    values = {"crop": "pad", "flip": "alternating", "epochs": 5, "choose": choose}
    whole = task_of(photos, **values).train([run_of()])
    kept = Kept(2)
    with pytest.raises(Interrupted):
        task_of(photos, **values).train_resumable([run_of()], kept)
    made = task_of(photos, **values).train_resumable([run_of()], kept)
    for name in ("logit", "epochs", "training_loss"):
        assert np.array_equal(made[name], whole[name])


def test_validation_chooses_the_first_of_the_best_epochs(photos):
    made = task_of(photos, choose="validation", epochs=8, learning_rate=0.05).train([run_of()])
    assert 1 <= made["epochs"][0] < 8
    assert made["accuracy"][0] >= 0.9


def test_training_stops_early_below_a_loss(photos):
    made = task_of(photos, epochs=50, stop_loss=0.2, learning_rate=0.05).train([run_of()])
    assert made["epochs"][0] < 50
    assert made["training_loss"][0] < 0.2


def test_out_of_memory_takes_batches_in_parts(photos, monkeypatch):
    """A network without batch norm learns the same from a batch in parts."""
    values = {"model": "mlp", "precision": "float32", "together": 1}
    whole = task_of(photos, **values).train([run_of()])["logit"]
    task = task_of(photos, **values)
    forward = torch.nn.Linear.forward

    def limited(self, x):
        if self.training and len(x) > 4:
            raise torch.cuda.OutOfMemoryError
        return forward(self, x)

    monkeypatch.setattr(torch.nn.Linear, "forward", limited)
    with pytest.warns(UserWarning, match="each is taken in"):
        made = task.train([run_of()])["logit"]
    assert np.allclose(made, whole, atol=1e-4)
    monkeypatch.setattr(
        torch.nn.Linear,
        "forward",
        lambda self, x: (_ for _ in ()).throw(torch.cuda.OutOfMemoryError),
    )
    with (
        pytest.raises(InputError, match="no memory for one example"),
        pytest.warns(UserWarning, match="parts"),
    ):
        task.train([run_of()])


def test_models_can_be_kept_and_asked_again(photos):
    task = task_of(photos)
    one = run_of()
    models = task.models(one.mask[None], [one.seed])
    logit = task.logits(models, photos.targets.image.values)
    assert np.allclose(logit, task.train([one])["logit"], atol=1e-5)


def test_the_worker_stores_runs_of_a_recipe(photos):
    photos.add_algorithm(
        "mlp", runs=3, outputs=["margin"], task=recipe.TASK, config=recipe.resolve("mlp", SMALL)
    )
    assert train(photos, "mlp") == 3
    runs = photos.runs("mlp")
    assert runs.margin.shape == (3, TARGETS)
    assert {"accuracy", "epochs", "training_loss"} <= set(runs.coords) | set(runs.data_vars)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"precision": "fp16"}, "fp16 is for GPUs"),
        ({"model": "linear", "features": "none"}, "have no 'none'"),
        ({"model": "linear", "features": "label"}, "features are"),
        ({"choose": "validation", "validation_set": "other"}, "other"),
        ({"model": "resnet9", "image_size": 8}, "at least 12 px"),
        ({"model": "resnet9", "weights": "none.pt"}, "no such file"),
    ],
)
def test_what_a_study_has_not_is_said_before_the_first_run(photos, changes, text):
    with pytest.raises(DmstoreError, match=text):
        task_of(photos, **changes)


def test_targets_of_another_shape_are_refused(tmp_path):
    draw = np.random.default_rng(0)
    given = {
        "train_label": np.arange(6) % 2,
        "target_label": np.arange(4) % 2,
        "train_image": draw.integers(0, 256, (6, 8, 8), dtype=np.uint8),
        "target_image": draw.integers(0, 256, (4, 8, 8, 3), dtype=np.uint8),
    }
    study = dmstore.create_study(tmp_path / "s", given)
    with pytest.raises(InputError, match=r"shape \(1, 8, 8\), targets of \(3, 8, 8\)"):
        task_of(study, "mlp")


def test_weights_are_never_unpickled_and_must_fit(photos, tmp_path):
    import pickle

    (tmp_path / "w.pt").write_bytes(pickle.dumps({"x": print}))
    with pytest.raises(InputError, match="cannot be read"):
        task_of(photos, model="resnet9", weights=str(tmp_path / "w.pt"))
    torch.save({"x": torch.zeros(3)}, tmp_path / "other.pt")
    with pytest.raises(InputError, match="do not fit"):
        task_of(photos, model="resnet9", weights=str(tmp_path / "other.pt"))


def test_torchvision_is_named_where_it_is_missing(photos, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(MissingDependencyError, match=r"dmstore\[vision\]"):
        task_of(photos, model="resnet18", width=0)


def test_resnet9_is_that_of_the_paper():
    network = make(TrainingConfig(model="resnet9"), (3, 32, 32), 10)
    convolutions = [
        m.weight.numel()
        for m in network.modules()
        if hasattr(m, "kernel_size") and hasattr(m, "weight")
    ]
    assert sum(convolutions) == 2_270_912
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


def test_whitened_patches_are_uncorrelated():
    network = make(TrainingConfig(model="fastnet"), (3, 12, 12), 10)
    draw = torch.Generator().manual_seed(0)
    images = torch.randn(200, 3, 12, 12, generator=draw).cumsum(dim=3)
    network.whiten(images)
    made = torch.nn.functional.conv2d(images, network.patches.weight)[:, :12]
    rows = made.permute(0, 2, 3, 1).reshape(-1, 12)
    assert torch.allclose(rows.T @ rows / len(rows), torch.eye(12), atol=0.02)


def test_padded_crops_are_shifts_of_the_image():
    images = torch.arange(1.0, 1 + 50 * 3 * 25).reshape(50, 3, 5, 5)
    made = augmented(images, Augmentation(crop="pad", padding=2), torch.Generator().manual_seed(1))
    padded = torch.nn.functional.pad(images, (2,) * 4)
    shifts = set()
    for image, whole in zip(made, padded, strict=True):
        places = [
            (row, column)
            for row in range(5)
            for column in range(5)
            if torch.equal(image, whole[:, row : row + 5, column : column + 5])
        ]
        assert len(places) == 1
        shifts.update(places)
    assert len(shifts) > 15


def test_resized_crops_of_the_whole_image_change_nothing_and_others_stay_within():
    images = torch.rand(20, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    whole = Augmentation(crop="resized", scale=(1.0, 1.0), ratio=(1.0, 1.0))
    generator = torch.Generator().manual_seed(1)
    assert torch.allclose(augmented(images, whole, generator), images, atol=1e-5)
    part = augmented(images, Augmentation(crop="resized", scale=(0.1, 0.5)), generator)
    assert not torch.allclose(part, images, atol=0.1)
    assert part.min() >= images.min() - 1e-5
    assert part.max() <= images.max() + 1e-5


def test_alternating_flips_show_each_image_both_ways(photos):
    loader = task_of(photos).loader
    flips = Augmentation(flip="alternating")
    batch = [np.arange(TRAIN)]
    epochs = [next(loader.epoch(batch, flips, 9, number)) for number in range(3)]
    assert torch.equal(epochs[0], epochs[2])
    assert torch.equal(epochs[0].flip(3), epochs[1])


def test_channels_are_those_of_all_pixels():
    images = np.random.default_rng(0).integers(0, 256, (5000, 3, 3, 3), dtype=np.uint8)
    mean, deviation = channels(images, "data")
    assert np.allclose(mean, images.reshape(-1, 3).mean(axis=0) / 255)
    assert np.allclose(deviation, images.reshape(-1, 3).std(axis=0) / 255)


def test_the_commands_say_what_to_do_next(tmp_path):
    path = tmp_path / "s.dm"
    dmstore.create_study(path, examples(train=20, target=5), seed=0)
    out, err = run("add", path, "head", "--recipe", "linear-head", "--runs", 4)
    assert (
        "have no 'features' (they have image, label, weight); 'dmstore features --name features'"
        in err
    )
    assert f"'dmstore remove {path} head' takes it out" in err
    bare = {
        name: values for name, values in examples(train=20, target=5).items() if "image" not in name
    }
    dmstore.create_study(tmp_path / "t.dm", bare, seed=0)
    err = run("add", tmp_path / "t.dm", "a", "--recipe", "mlp", "--runs", 4)[1]
    assert "make the study with images, or train on features (--set features=NAME)" in err
    assert "dmstore extend" not in out
    out, err = run("add", path, "dense", "--task", "dmstore.training.tasks:dense")
    assert f"plan some with 'dmstore extend {path} dense --total N'" in out
    assert err == ""
    assert "no runs are planned: 'dmstore extend" in run("train", path, "dense", "-Q")[0]
    assert "extend" not in run("add", path, "own", "--sampling", "foreign")[0]
