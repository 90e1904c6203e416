"""Loaders: the same images from tensors, torchvision's workers and ffcv, augmented by the seed."""

import functools
import gc
import importlib.util
import sys

import numpy as np
import pytest
from commands import run, run_json
from miniatures import folders, put

import dmstore
from dmstore.errors import InputError, MissingDependencyError
from dmstore.training.config import TrainingConfig
from dmstore.training.datasets import make_study, pictures
from dmstore.training.datasets.pixels import files

torch = pytest.importorskip("torch")
pytest.importorskip("PIL")

from dmstore.training.augmentation import Augmentation
from dmstore.training.loaders import beton
from dmstore.training.loaders.ffcv import FfcvLoader
from dmstore.training.loaders.make import _of_sample, make_loader
from dmstore.training.loaders.tensors import TensorLoader
from dmstore.training.loaders.torchvision import TorchvisionLoader

# When compiled code of ffcv is thrown away, numba says so on the way.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
CPU = torch.device("cpu")
MEAN, DEVIATION = np.array([0.5, 0.4, 0.3]), np.array([0.2, 0.25, 0.3])


def needs(package):
    return pytest.mark.skipif(
        importlib.util.find_spec(package) is None, reason=f"{package} is not installed"
    )


vision, fast = needs("torchvision"), needs("ffcv")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A study that holds its images, with its .beton file."""
    draw = np.random.default_rng(0)
    arrays = {
        "train_image": draw.integers(0, 256, (37, 16, 16, 3)).astype(np.uint8),
        "train_label": np.arange(37) % 3,
        "target_image": draw.integers(0, 256, (11, 16, 16, 3)).astype(np.uint8),
        "target_label": np.arange(11) % 3,
    }
    path = tmp_path_factory.mktemp("small") / "s.dm"
    study = dmstore.create_study(path, arrays, seed=0)
    run("beton", path, "-Q")
    return study


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A study of JPEG files of two shapes, with its .beton file; and their folder."""
    root = tmp_path_factory.mktemp("large")
    folders(root / "d", sizes=((150, 180), (200, 170)), each=4)
    study, _ = make_study(root / "s.dm", "imagefolder", root / "d", seed=0)
    run("beton", root / "s.dm", "--data", root / "d", "-Q")
    return study, root / "d"


@functools.cache
def make(name, study, size=0, data=None, **more):
    """A loader; made once for all tests, as ffcv compiles each anew."""
    if name == "tensors":
        return TensorLoader(study, "image", MEAN, DEVIATION, size, CPU)
    if name == "torchvision":
        return TorchvisionLoader(
            study, MEAN, DEVIATION, size, CPU, data=data, **{"workers": 0, **more}
        )
    return FfcvLoader(study, MEAN, DEVIATION, size, CPU, **more)


@pytest.fixture(autouse=True, scope="module")
def thrown_away_here():
    """Compiled code goes while the mark above still holds."""
    yield
    make.cache_clear()
    gc.collect()


BOTH = [pytest.param("torchvision", marks=vision), pytest.param("ffcv", marks=fast)]
BATCHES = [np.array([5, 0, 30]), np.array([7, 7, 1, 2]), np.array([36])]
NONE = Augmentation()


@pytest.mark.parametrize("name", BOTH)
def test_images_of_a_study_are_those_of_the_tensors(small, name):
    ours, theirs = make("tensors", small), make(name, small)
    assert theirs.shape == ours.shape == (3, 16, 16)
    for one, other in zip(
        ours.epoch(BATCHES, NONE, 1), theirs.epoch(BATCHES, NONE, 1), strict=True
    ):
        assert one.shape == other.shape
        assert other.dtype == torch.float32
        assert torch.equal(one, other)
    for part in ("train", "test"):
        pairs = zip(ours.evaluate(part, 4), theirs.evaluate(part, 4), strict=True)
        assert all(torch.equal(one, other) for one, other in pairs)
    assert torch.equal(theirs.seen(BATCHES[1]), ours.seen(BATCHES[1]))
    images = np.asarray(small.targets.image.values)
    assert torch.equal(theirs.inputs(images), torch.cat(list(ours.evaluate("test", 99))))


@pytest.mark.parametrize("name", BOTH)
def test_flips_and_shifts_follow_the_seed(small, name):
    loader = make(name, small)
    plain = torch.cat(list(loader.epoch(BATCHES, NONE, 1)))
    shifted = Augmentation(crop="pad", padding=2, flip="random")
    one, again, other = (
        torch.cat(list(loader.epoch(BATCHES, shifted, seed, number)))
        for seed, number in ((3, 0), (3, 0), (3, 1))
    )
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert loader.reproducible
    # Each is a shift of its image, mirrored or not, zeros (the mean) where nothing is.
    for image, moved in zip(plain, one, strict=True):
        padded = torch.nn.functional.pad(image, (2, 2, 2, 2))
        places = [
            padded[:, top : top + 16, left : left + 16] for top in range(5) for left in range(5)
        ]
        near = [
            (abs(moved - turned) < 0.02).all()
            for place in places
            for turned in (place, place.flip(2))
        ]
        assert sum(map(bool, near)) == 1
    # Mirrored in every second epoch, whatever way it was drawn to begin.
    turning = Augmentation(flip="alternating")
    first, second, third = (
        torch.cat(list(loader.epoch(BATCHES, turning, 5, number))) for number in range(3)
    )
    assert torch.equal(first, third)
    assert torch.equal(first, second.flip(3))
    begun = torch.cat(list(make("tensors", small).epoch(BATCHES, turning, 5, 0)))
    assert torch.equal(first, begun)


@pytest.mark.parametrize("name", BOTH)
def test_files_are_cropped_to_one_size(large, name):
    study, data = large
    loader = make(name, study, 64, data=data)
    assert loader.shape == (3, 64, 64)
    whole = torch.cat(list(loader.evaluate("test", 3)))
    assert whole.shape == (8, 3, 64, 64)
    # The middle of each image: 224/256 of its shorter side.
    for place in (0, 1):
        path = data / str(study.targets.file.values[place])
        image = pictures.decode(path.read_bytes(), path)
        side = round(min(image.size) * 224 / 256)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        wanted = image.crop((left, top, left + side, top + side)).resize((64, 64))
        pixels = whole[place].permute(1, 2, 0).numpy() * DEVIATION + MEAN
        assert abs(pixels - np.asarray(wanted) / 255).mean() < 0.02
    order = [np.array([3, 1, 6]), np.array([0])]
    assert torch.equal(
        torch.cat(list(loader.epoch(order, NONE, 1))),
        torch.cat(list(loader.evaluate("train", 8)))[[3, 1, 6, 0]],
    )


@pytest.mark.parametrize("name", BOTH)
def test_random_crops_follow_the_seed(large, name):
    study, data = large
    loader = make(name, study, 64, data=data)
    crops = Augmentation(crop="resized", scale=(0.2, 0.5), flip="random")
    order = [np.array([2, 2, 5, 2]), np.array([5, 0])]
    one, again, other, later = (
        list(loader.epoch(order, crops, seed, number))
        for seed, number in ((1, 0), (1, 0), (2, 0), (1, 1))
    )
    assert [len(batch) for batch in one] == [4, 2]
    for made in (again, other, later):
        assert torch.equal(torch.cat(made), torch.cat(one)) == (made is again)
    # The same image thrice in a batch is cropped in three ways.
    assert not torch.equal(one[0][0], one[0][1])
    assert not torch.equal(one[0][1], one[0][3])


@fast
def test_crops_of_ffcv_are_of_the_sizes_asked_for(tmp_path):
    from dmstore.training.loaders.ffcv_crop import _uniform

    with np.errstate(over="ignore"):
        drawn = np.array([_uniform(np.uint64(seed), np.uint64(0)) for seed in range(4000)])
    assert abs(np.histogram(drawn, 10, (0, 1))[0] - 400).max() < 100
    # A gradient tells where it was cropped: its ends are the area's.
    column, row = np.meshgrid(np.arange(240), np.arange(200))
    images = np.stack([row, column, 0 * row], axis=2).astype(np.uint8)[None].repeat(300, axis=0)
    study = dmstore.create_study(
        tmp_path / "s.dm",
        {
            "train_image": images,
            "train_label": np.zeros(300, int),
            "target_image": images[:1],
            "target_label": np.zeros(1, int),
        },
    )
    run("beton", tmp_path / "s.dm", "-Q")
    loader = FfcvLoader(study, np.zeros(3), np.ones(3), 100, CPU)
    crops = Augmentation(crop="resized", scale=(0.3, 0.6), ratio=(0.8, 1.25))
    made = 255 * next(iter(loader.epoch([np.arange(300)], crops, 0)))
    tall = (made[:, 0].amax((1, 2)) - made[:, 0].amin((1, 2))) / 0.99
    wide = (made[:, 1].amax((1, 2)) - made[:, 1].amin((1, 2))) / 0.99
    share = (tall * wide / (200 * 240)).numpy()
    assert 0.28 < share.min() < 0.33
    assert 0.57 < share.max() < 0.62
    assert abs(share.mean() - 0.45) < 0.02
    ratio = (wide / tall).numpy()
    assert 0.76 < ratio.min() < 0.85
    assert 1.18 < ratio.max() < 1.31
    top = made[:, 0].amin((1, 2)).numpy()
    assert top.min() < 10
    assert top.max() > 60


@vision
def test_the_number_of_workers_changes_nothing(large):
    study, data = large
    crops = Augmentation(crop="resized", flip="random")
    order = [np.array([2, 4, 5]), np.array([5, 0])]
    alone = make("torchvision", study, 32, data=data)
    two = make("torchvision", study, 32, data=data, workers=2)
    for number in (0, 1):
        pairs = zip(
            alone.epoch(order, crops, 1, number), two.epoch(order, crops, 1, number), strict=True
        )
        assert all(torch.equal(one, other) for one, other in pairs)


@vision
def test_the_generator_of_the_process_is_left_alone(small):
    torch.manual_seed(1)
    wanted = torch.rand(3)
    torch.manual_seed(1)
    list(make("torchvision", small).epoch(BATCHES, Augmentation(flip="random"), 1))
    assert torch.equal(torch.rand(3), wanted)


@fast
def test_ffcv_leaves_torch_as_it_was(small):
    before = torch.get_num_threads()
    state = np.random.mtrand._rand.get_state()[1].copy()
    loader = FfcvLoader(small, MEAN, DEVIATION, 0, CPU)
    one = list(loader.epoch(BATCHES, NONE, 1))
    kept = [batch.clone() for batch in one]
    list(loader.epoch([np.arange(37)] * 9, NONE, 1))
    assert all(torch.equal(batch, copy) for batch, copy in zip(one, kept, strict=True))
    assert torch.get_num_threads() == before
    assert (np.random.mtrand._rand.get_state()[1] == state).all()
    # A batch is given up half-way, as an epoch that is cut short does.
    next(iter(loader.epoch([np.arange(9)] * 4, NONE, 1)))
    assert len(list(loader.epoch(BATCHES, NONE, 1))) == 3


def test_a_beton_file_is_known_again(small, large, tmp_path):
    study, data = large
    said = run_json(
        "beton", study.path, "--data", data, "-o", tmp_path / "x.beton", "--max-size", 100
    )
    assert said["images"] == 16
    places = beton.check(tmp_path / "x.beton", study)
    assert places["train"].tolist() == list(range(8))
    assert places["test"].tolist() == list(range(8, 16))
    assert beton.one_size(tmp_path / "x.beton") is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.beton"]
    with pytest.raises(InputError, match="its images are not those of"):
        beton.check(tmp_path / "x.beton", small)
    with pytest.raises(
        InputError, match=r"nothing\.beton: not there; write it with 'dmstore beton"
    ):
        beton.check(tmp_path / "nothing.beton", study)
    raw = (tmp_path / "x.beton").read_bytes()
    put(tmp_path / "x.beton", raw[:-24])
    with pytest.raises(InputError, match="or it is cut"):
        beton.check(tmp_path / "x.beton", study)
    put(tmp_path / "x.beton", b"x" * 9)
    with pytest.raises(InputError, match="cannot be read as a"):
        beton.check(tmp_path / "x.beton", study)


def test_an_image_that_cannot_be_read_leaves_no_beton_file(tmp_path):
    folders(tmp_path / "d")
    study, _ = make_study(tmp_path / "s.dm", "imagefolder", tmp_path / "d")
    raw = (tmp_path / "d/test/dog/2.jpg").read_bytes()
    put(tmp_path / "d/test/dog/2.jpg", raw[:-300])
    put(tmp_path / "s.beton", b"the one before")
    error = run("beton", study.path, "--data", tmp_path / "d", "-Q", code=1)[1]
    assert "2.jpg: " in error
    assert error.count("\n") == 1
    assert (tmp_path / "s.beton").read_bytes() == b"the one before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["d", "s.beton", "s.dm"]


@fast
def test_targets_that_came_after_the_beton_file_are_asked_for(small, tmp_path):
    path = tmp_path / "s.dm"
    draw = np.random.default_rng(0)
    image = draw.integers(0, 256, (4, 8, 8, 3)).astype(np.uint8)
    study = dmstore.create_study(
        path,
        {
            "train_image": image,
            "train_label": np.zeros(4, int),
            "target_image": image,
            "target_label": np.zeros(4, int),
        },
    )
    run("beton", path, "-Q")
    study.add_targets("later", {"label": np.zeros(2, int), "image": image[:2]})
    loader = FfcvLoader(study, MEAN, DEVIATION, 0, CPU)
    with pytest.raises(InputError, match=r"has no images of 'later', which came later"):
        next(loader.evaluate("later", 2))


@pytest.mark.parametrize(("name", "package"), [("torchvision", "torchvision"), ("ffcv", "ffcv")])
def test_a_loader_that_is_not_installed_says_how_it_is(small, monkeypatch, name, package):
    monkeypatch.setitem(__import__("sys").modules, package, None)
    kind = {"torchvision": TorchvisionLoader, "ffcv": FfcvLoader}[name]
    with pytest.raises(MissingDependencyError, match=r"pip install 'dmstore\["):
        kind(small, MEAN, DEVIATION, 0, CPU)


@pytest.mark.parametrize("name", BOTH)
def test_grey_images_have_one_channel(tmp_path, name):
    draw = np.random.default_rng(0)
    image = draw.integers(0, 256, (5, 12, 10)).astype(np.uint8)
    arrays = {"train_image": image, "train_label": np.zeros(5, int)}
    study = dmstore.create_study(
        tmp_path / "s.dm", arrays | {"target_image": image[:2], "target_label": np.zeros(2, int)}
    )
    run("beton", study.path, "-Q")
    kinds = {"torchvision": TorchvisionLoader, "ffcv": FfcvLoader}
    grey = np.array([0.5]), np.array([0.2])
    theirs = kinds[name](study, *grey, 0, CPU)
    ours = TensorLoader(study, "image", *grey, 0, CPU)
    assert theirs.shape == ours.shape == (1, 12, 10)
    assert torch.equal(next(theirs.evaluate("train", 9)), next(ours.evaluate("train", 9)))


def test_thumbnails_are_not_trained_on(large, monkeypatch):
    study, data = large
    monkeypatch.delenv("DMSTORE_DATA", raising=False)
    with pytest.raises(
        InputError, match="holds thumbnails of its images, for pages; take the loader"
    ):
        make_loader(TrainingConfig(loader="tensors"), study, CPU)
    # A missing torchvision is told before files are looked for.
    there = importlib.util.find_spec("torchvision") is not None
    with pytest.raises(
        InputError if there else MissingDependencyError,
        match="images of 'train' are files elsewhere" if there else "needs torchvision",
    ):
        make_loader(TrainingConfig(loader="torchvision"), study, CPU)
    monkeypatch.setenv("DMSTORE_DATA", str(data))
    mean, deviation = _of_sample(study)
    pixels = [
        np.asarray(pictures.decode(path.read_bytes(), path)) for path in files(study, "train")
    ]
    wanted = np.array([one.reshape(-1, 3).mean(axis=0) / 255 for one in pixels])
    assert np.allclose(mean, wanted.mean(axis=0))
    assert (deviation > 0.05).all()


@pytest.mark.parametrize("name", BOTH)
def test_a_recipe_trains_on_image_files(tmp_path, large, name, monkeypatch):
    _, data = large
    # Given by --data and heard by the workers; taken back after the test.
    monkeypatch.setenv("DMSTORE_DATA", "")
    path = tmp_path / "s.dm"
    run("init", path, "--dataset", "imagefolder", "--root", data, "--seed", 0, "-Q")
    run("beton", path, "--data", data, "-Q")
    settings = [
        "epochs=1",
        "batch_size=3",
        "image_size=32",
        "width=2",
        f"loader={name}",
        "workers=0",
    ]
    settings += ["crop=resized"]
    for algorithm in ("a", "b"):
        given = [part for setting in settings for part in ("--set", setting)]
        given += ["--set", "order_seed=1", "--set", "init_seed=1", "--set", "augmentation_seed=1"]
        run("add", path, algorithm, "--runs", 1, "--recipe", "small-cnn", *given)
        run("train", path, algorithm, "--data", data, "-Q")
    study = dmstore.open_study(path)
    one, again = (study.runs(algorithm).margin.values for algorithm in ("a", "b"))
    assert one.shape == (1, 8)
    assert np.isfinite(one).all()
    assert np.array_equal(one, again)


def test_without_torchvision_that_is_said_before_files_are_looked_for(monkeypatch):
    from dmstore.training.models.make import require_packages

    monkeypatch.setitem(sys.modules, "torchvision", None)
    # No attribute of a study is asked for.
    with pytest.raises(MissingDependencyError, match=r"dmstore\[vision\]"):
        make_loader(TrainingConfig(loader="torchvision"), object(), None)
    with pytest.raises(MissingDependencyError, match="model resnet18 is torchvision's"):
        require_packages(TrainingConfig(model="resnet18"))
    require_packages(TrainingConfig(model="resnet9"))


def test_add_takes_the_folder_of_the_images_that_its_warning_names():
    from dmstore.cli import add

    assert "--data" in [name for one in add.command.params for name in one.opts]
