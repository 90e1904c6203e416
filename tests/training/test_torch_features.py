"""Features of a frozen network: kept once, with what made them, and heads that train on them."""

import sys

import numpy as np
import pytest

import dmstore
from dmstore.errors import ExistsError, InputError, MissingDependencyError
from dmstore.study.algorithm import Run
from dmstore.training import features, recipe
from dmstore.training.task import make_task

torch = pytest.importorskip("torch")


class Tiny(torch.nn.Module):
    """Four maps of an image."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.maps = torch.nn.Conv2d(3, 4, 3)

    def forward(self, x):
        return self.maps(x)


@pytest.fixture
def photos(tmp_path):
    draw = np.random.default_rng(0)
    given = {}
    for name, count in (("train", 70), ("target", 9)):
        given[f"{name}_label"] = np.arange(count) % 3
        given[f"{name}_image"] = draw.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    study = dmstore.create_study(tmp_path / "s", given, seed=1)
    study.add_targets(
        "later", {"target_label": np.zeros(2, int), "target_image": given["target_image"][:2]}
    )
    return study


@pytest.fixture
def frozen(monkeypatch):
    monkeypatch.setitem(sys.modules, "tiny", sys.modules[__name__])
    return features.network("tiny:Tiny")


def test_features_are_what_the_network_says(photos, frozen):
    made = features.compute_features(photos, frozen)
    assert made == {"train": (70, 4), "test": (9, 4), "later": (2, 4)}
    pixels = torch.from_numpy(photos.train["image"].values / 255).float().permute(0, 3, 1, 2)
    mean, deviation = (torch.tensor(one)[:, None, None] for one in (frozen.mean, frozen.deviation))
    expected = frozen.module((pixels - mean) / deviation).mean((2, 3)).detach().numpy()
    assert np.allclose(photos.train["features"].values, expected, atol=1e-5)
    assert np.array_equal(
        photos.target_set("later")["features"].values, photos.targets["features"].values[:2]
    )
    origin = photos.annotation_origin("train", "features")
    assert origin["model"] == "tiny:Tiny"
    assert len(origin["weights"]) == 32
    assert origin["mean"] == list(frozen.mean)


def test_what_is_there_is_not_computed_again_and_never_mixed(photos, frozen):
    features.compute_features(photos, frozen)
    assert features.compute_features(photos, frozen) == {}
    photos.add_targets(
        "more", {"target_label": np.zeros(9, int), "target_image": photos.targets["image"].values}
    )
    assert features.compute_features(photos, frozen) == {"more": (9, 4)}
    with pytest.raises(ExistsError, match="another image_size"):
        features.compute_features(photos, frozen, image_size=16)
    with torch.no_grad():
        frozen.module.maps.bias += 1
    with pytest.raises(ExistsError, match="another weights"):
        features.compute_features(photos, frozen)
    assert set(features.compute_features(photos, frozen, name="other")) == {
        "train",
        "test",
        "later",
        "more",
    }
    photos.annotate("train", plain=np.zeros((70, 4), dtype=np.float32))
    assert photos.annotation_origin("train", "plain") == {}
    assert photos.annotation_origin("train", "none") is None
    with pytest.raises(ExistsError, match="not said"):
        features.compute_features(photos, frozen, name="plain")


def test_heads_train_on_features(photos, frozen):
    features.compute_features(photos, frozen)
    task = make_task(photos, recipe.TASK, recipe.resolve("linear-head"), ["margin"])
    assert task.batch > 1
    runs = [Run(number, np.ones(70, dtype=bool), number, number, 0) for number in range(3)]
    assert task.train(runs)["margin"].shape == (3, 9)


@pytest.mark.parametrize(
    ("name", "weights", "text"),
    [
        ("nothing", "", "there is no model 'nothing'"),
        ("none_such:fn", "", "cannot be imported"),
        ("builtins:dict", "", "returned dict"),
        ("resnet18", "", "wants weights"),
        ("efficientnet_lite0", "w.pt", "weights are for"),
    ],
)
def test_networks_that_are_none_are_refused(name, weights, text):
    with pytest.raises(InputError, match=text):
        features.network(name, weights)


def test_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    with pytest.raises(MissingDependencyError, match=r"dmstore\[features\]"):
        features.network("efficientnet_lite0")


def test_numbers_that_are_none_are_refused(photos, frozen):
    with torch.no_grad():
        frozen.module.maps.bias += torch.nan
    with pytest.raises(InputError, match="not finite"):
        features.compute_features(photos, frozen)
    assert "features" not in photos.train
