"""Data sets on disk as studies, in miniatures of their layouts, and their images found again."""

import pickle
import shutil

import numpy as np
import pytest
from commands import run, run_json
from miniatures import (
    WATERBIRDS,
    cifar_bin,
    cifar_py,
    cifar_rows,
    folders,
    imagenet,
    photo,
    put,
    python2_batch,
    waterbirds,
)

import dmstore
from dmstore.errors import InputError, StorageError
from dmstore.readers import torch_pickle
from dmstore.training.datasets import DATASETS, make_study, pictures, pixels
from dmstore.training.datasets.living17_classes import SUPERCLASSES


def made(tmp_path, dataset, root, **more):
    study, notes = make_study(tmp_path / f"{dataset}.dm", dataset, root, seed=1, **more)
    return study, notes


def test_cifar10_binary_and_python_version_are_the_same_study(tmp_path):
    cifar_bin(tmp_path / "a")
    cifar_py(tmp_path / "b")
    one, notes = make_study(tmp_path / "a.dm", "cifar10", tmp_path / "a")
    other, _ = make_study(tmp_path / "b.dm", "cifar10", tmp_path / "b/cifar-10-batches-py")
    assert one.document["train"] == other.document["train"]
    assert one.ids("test").tolist() == [f"test_batch/{n}" for n in range(4)]
    assert one.ids("train")[5] == "data_batch_2/1"
    labels, rows = cifar_rows(4, 1)
    assert one.train.label.values[4:8].tolist() == labels.tolist()
    image = one.train.image.values
    assert image.shape == (20, 32, 32, 3)
    # Three planes of red, green and blue, row by row.
    assert (image[5, :, :, 0].ravel() == rows[1, :1024]).all()
    assert image[5, 3, 7, 2] == rows[1, 2048 + 3 * 32 + 7]
    assert (other.train.image.values == image).all()
    assert other.train.filename.values[4] == "toad_s_100000.png"
    assert one.class_names[6] == "frog"
    assert "file" not in one.train
    assert notes == ["train: 20 images, CIFAR-10 has 50000", "test: 4 images, CIFAR-10 has 10000"]


def test_the_python_version_is_what_python_2_wrote_and_is_not_unpickled(tmp_path):
    labels, rows = cifar_rows(3, 0)
    raw = python2_batch(labels, rows, ["a", "b", "c"])
    said = pickle.loads(raw, encoding="latin1")
    assert (said["data"] == rows).all()
    read = torch_pickle.parse(raw, "x", arrays=True, python2=True)
    assert (read["data"].values == rows).all()
    assert read["labels"] == labels.tolist() == said["labels"]
    with pytest.raises(InputError, match="BINSTRING"):
        torch_pickle.parse(raw, "x", arrays=True)
    cifar_py(tmp_path)
    evil = raw[:3] + b"(cposix\nsystem\n" + raw[4:]
    put(tmp_path / "cifar-10-batches-py/test_batch", evil)
    with pytest.raises(InputError, match=r"posix\.system.*nothing was"):
        make_study(tmp_path / "s.dm", "cifar10", tmp_path)


@pytest.mark.parametrize("layout", ["keras", "ours", "planes"])
def test_cifar10_of_arrays(tmp_path, layout):
    draw = np.random.default_rng(0)
    x, t = (draw.integers(0, 256, (n, 32, 32, 3)).astype(np.uint8) for n in (6, 3))
    y, u = np.arange(6), np.array([9, 0, 3])
    arrays = {
        "keras": {"x_train": x, "y_train": y[:, None], "x_test": t, "y_test": u[:, None]},
        "ours": {"train_image": x, "train_label": y, "target_image": t, "target_label": u},
        "planes": {
            "train_data": x.transpose(0, 3, 1, 2).reshape(6, -1),
            "train_labels": y,
            "test_data": t.transpose(0, 3, 1, 2),
            "test_labels": u,
        },
    }[layout]
    np.savez(tmp_path / "c.npz", **arrays)
    study, _ = made(tmp_path, "cifar10", tmp_path / "c.npz", limit=1)
    assert (study.train.image.values == x).all()
    assert (study.targets.image.values == t).all()
    assert study.targets.label.values.tolist() == [9, 0, 3]
    assert study.ids("test").tolist() == ["test/0", "test/1", "test/2"]


def test_waterbirds(tmp_path):
    rows = waterbirds(tmp_path)
    study, notes = made(tmp_path, "waterbirds", tmp_path)
    wanted = [row for row in rows if row[3] == 2]
    assert study.ids("test").tolist() == [row[1] for row in wanted]
    assert study.class_names == ["landbird", "waterbird"]
    targets = study.targets
    assert targets.label.values.tolist() == [row[2] for row in wanted]
    assert targets.place.values.tolist() == [("land", "water")[row[4]] for row in wanted]
    assert targets.group.values[2] == "landbird on water"
    assert targets.bird.values[0] == "Black footed Albatross"
    assert targets.scene.values[2] == "ocean"
    assert study.target_set("validation").sizes["target"] == 8
    assert study.target_set("validation").label.values.tolist() == [0] * 4 + [1] * 4
    assert notes[0] == "train: 8 images, the whole data set has 4795"
    # A thumbnail is the whole picture on paper: its middle is the image, made small.
    small = study.train.image.values
    assert small.shape[1:] == (64, 64, 3)
    assert (small[0, 0] == 255).all()
    assert not (small[0, 32] == 255).all()
    # Found again below either folder, and each file is the one that was read.
    for data in (tmp_path, tmp_path / WATERBIRDS):
        paths = pixels.check(study, "test", data, sample=100)
        assert [path.name for path in paths] == [row[1].split("/")[1] for row in wanted]


@pytest.mark.parametrize("flat", [False, True])
def test_living17_is_the_same_study_however_imagenet_is_laid_out(tmp_path, flat):
    root = tmp_path / "ILSVRC/Data/CLS-LOC" if flat else tmp_path / "imagenet"
    imagenet(root, flat=flat)
    top = tmp_path if flat else root
    if flat:
        shutil.move(root / "LOC_val_solution.csv", tmp_path / "LOC_val_solution.csv")
    study, notes = made(tmp_path, "living17", top)
    assert (len(study.ids("train")), len(study.ids("test"))) == (68, 68)
    assert study.ids("train")[0] == "train/n01630670/n01630670_0.JPEG"
    assert study.ids("test")[0] == "val/n01630670/ILSVRC2012_val_00000001.JPEG"
    assert study.class_names[0] == "salamander"
    assert study.targets.label.values.tolist() == [n // 4 for n in range(68)]
    assert study.targets.subclass.values[1] == "eft"
    assert study.targets.wnid.values[-1] == "n02493793"
    assert "88400" in notes[0]
    assert "3400" in notes[1]
    # A lab with the other layout finds the same images.
    other = tmp_path / "other"
    imagenet(other, flat=not flat)
    assert len(pixels.check(study, "test", other, sample=68)) == 68
    assert len(pixels.check(study, "train", other, sample=68)) == 68


def test_living17_has_seventeen_times_four_classes():
    wnids = [wnid for classes in SUPERCLASSES.values() for wnid in classes]
    assert len(SUPERCLASSES) == 17
    assert len(set(wnids)) == 17 * 4
    assert all(len(classes) == 4 for classes in SUPERCLASSES.values())
    # Every class has 1,300 and 50 images in ImageNet: the sizes that the paper states.
    assert (len(wnids) * 1300, len(wnids) * 50) == (88_400, 3_400)


def test_an_image_folder(tmp_path):
    folders(tmp_path / "d", parts=("train", "val", "test"))
    put(tmp_path / "d/train/cat/inside/Thumbs.db", b"x")
    put(tmp_path / "d/train/cat/inside/grey.png", photo(99, 30, 30, "PNG"))
    study, _ = made(tmp_path, "imagefolder", tmp_path / "d")
    assert study.ids("train").tolist()[:4] == [
        "train/cat/0.jpg",
        "train/cat/1.jpg",
        "train/cat/2.jpg",
        "train/cat/inside/grey.png",
    ]
    assert study.class_names == ["cat", "dog"]
    assert list(study.target_sets) == ["test", "validation"]
    assert pixels.files(study, "validation", tmp_path / "d")[0] == tmp_path / "d/val/cat/0.jpg"


def test_small_images_of_one_size_are_held_by_the_study(tmp_path):
    folders(tmp_path / "d", sizes=((20, 24),), kind="PNG")
    study, _ = made(tmp_path, "imagefolder", tmp_path / "d")
    assert "file" not in study.train
    assert study.train.image.shape == (6, 20, 24, 3)
    raw = (tmp_path / "d/train/dog/0.png").read_bytes()
    assert (study.train.image.values[3] == np.asarray(pictures.decode(raw, "x"))).all()
    assert pixels.files(study, "train") is None


def test_a_limit_is_by_class_and_set(tmp_path):
    folders(tmp_path / "d")
    study, notes = made(tmp_path, "imagefolder", tmp_path / "d", limit=2)
    assert np.bincount(study.train.label.values).tolist() == [2, 2]
    assert np.bincount(study.targets.label.values).tolist() == [2, 2]
    assert notes == []


def small_notes(tmp_path):
    """What init says of images that the study itself holds."""
    folders(tmp_path / "small", sizes=((32, 32),))
    arguments = ["--dataset", "imagefolder", "--root", tmp_path / "small"]
    return run_json("init", tmp_path / "small.dm", *arguments, "-Q")["notes"]


def test_by_the_command(tmp_path, monkeypatch):
    waterbirds(tmp_path)
    said = run_json("init", tmp_path / "s.dm", "--dataset", "waterbirds", "--root", tmp_path, "-Q")
    assert (said["train"], said["targets"], said["target_sets"]) == (
        8,
        8,
        {"test": 8, "validation": 8},
    )
    assert "place" in said["columns"]["train"]
    out, err = run("init", tmp_path / "t.dm", "--dataset", "waterbirds", "--root", tmp_path)
    assert "target set validation: 8 targets" in out
    assert "note: train: 8 images, the whole data set has 4795" in out
    assert "24 of 24 images" in err
    assert f"--data {tmp_path.resolve()}, or export DMSTORE_DATA=" in out
    assert not any("--data" in note for note in small_notes(tmp_path))
    for wrong in (["--dataset", "waterbirds"], ["--root", "x"], []):
        assert "--root DIR" in run("init", tmp_path / "u.dm", *wrong, code=2)[1]
    help_text = run("init", "--help")[0]
    assert all(name in help_text for name in DATASETS)
    monkeypatch.setenv("DMSTORE_DATA", str(tmp_path))
    assert len(pixels.check(dmstore.open_study(tmp_path / "s.dm"), "train")) == 8


def cut(path):
    path.write_bytes(path.read_bytes()[:-400])


FAULTS = {
    "no cifar": ("cifar10", lambda root: root.mkdir(), r"no cifar-10-batches-bin.*cs\.toronto"),
    "cifar still packed": (
        "cifar10",
        lambda root: put(root / "cifar-10-python.tar.gz", b""),
        r"unpack cifar-10-python\.tar\.gz",
    ),
    "cifar cut": (
        "cifar10",
        lambda root: (cifar_bin(root), cut(root / "cifar-10-batches-bin/data_batch_3.bin")),
        r"data_batch_3\.bin: has 11892 bytes, no whole number",
    ),
    "cifar label": (
        "cifar10",
        lambda root: (
            cifar_bin(root),
            put(root / "cifar-10-batches-bin/test_batch.bin", b"\x0b" + bytes(3072)),
        ),
        r"test_batch\.bin: image 0 has label 11, and CIFAR-10 has 0 to 9",
    ),
    "cifar lacks a batch": (
        "cifar10",
        lambda root: (cifar_py(root), (root / "cifar-10-batches-py/data_batch_4").unlink()),
        r"data_batch_4: not there",
    ),
    "no waterbirds": (
        "waterbirds",
        lambda root: root.mkdir(),
        r"metadata\.csv there; get it from https",
    ),
    "waterbirds lacks images": (
        "waterbirds",
        lambda root: (waterbirds(root), shutil.rmtree(root / WATERBIRDS / "002.Laysan_Albatross")),
        r"12 of the 24 images of metadata\.csv are not there, such as 002",
    ),
    "waterbirds split": (
        "waterbirds",
        lambda root: (
            waterbirds(root),
            (root / WATERBIRDS / "metadata.csv").write_text(
                "img_filename,y,split,place\na.jpg,0,7,0\n"
            ),
        ),
        r"metadata\.csv, line 2: split is '7', expected 0 to 2",
    ),
    "waterbirds path": (
        "waterbirds",
        lambda root: (
            waterbirds(root),
            (root / WATERBIRDS / "metadata.csv").write_text(
                "img_filename,y,split,place\n../a.jpg,0,0,0\n"
            ),
        ),
        r"line 2: img_filename '\.\./a\.jpg' is no path inside",
    ),
    "another table": (
        "waterbirds",
        lambda root: put(root / "metadata.csv", b"a,b\n1,2\n"),
        r"has no column 'img_filename' \(it has a, b\)",
    ),
    "no imagenet": ("living17", lambda root: root.mkdir(), r"no ImageNet folder.*image-net\.org"),
    "imagenet lacks a class": (
        "living17",
        lambda root: (imagenet(root), shutil.rmtree(root / "train/n01631663")),
        r"1 of the 68 ImageNet classes of Living17 have no images in 'train', such as n01631663",
    ),
    "flat val without a list": (
        "living17",
        lambda root: (imagenet(root, flat=True), (root / "LOC_val_solution.csv").unlink()),
        r"neither folders of classes .* put LOC_val_solution\.csv",
    ),
    "no folder": ("imagefolder", lambda root: root.mkdir(), r"no folders 'train' and 'test'"),
    "class without images": (
        "imagefolder",
        lambda root: (folders(root), (root / "train/owl").mkdir()),
        r"owl: no images in it",
    ),
    "class that train lacks": (
        "imagefolder",
        lambda root: (folders(root), put(root / "test/owl/1.jpg", photo(1))),
        r"'train' has no class 'owl' \(it has cat, dog\)",
    ),
    "image cut": (
        "imagefolder",
        lambda root: (folders(root), cut(root / "train/dog/1.jpg")),
        r"dog/1\.jpg: no image that can be read .*copy it again",
    ),
    "no image at all": (
        "imagefolder",
        lambda root: (folders(root), put(root / "train/dog/1.jpg", b"\xff\xd8none")),
        r"dog/1\.jpg: no image that can be read; copy it again",
    ),
    "two images that are none": (
        "imagefolder",
        lambda root: (
            folders(root),
            put(root / "train/cat/1.jpg", b"version https://git-lfs.github.com/spec/v1\n"),
            put(root / "train/dog/1.jpg", b""),
        ),
        r"2 of 12 images cannot be used; the first: .*cat/1\.jpg: is a pointer of Git LFS",
    ),
    "16 bits": (
        "imagefolder",
        lambda root: (folders(root), put(root / "train/cat/1.png", deep())),
        r"more than 8 bits a channel \(I;16\)",
    ),
}


def deep():
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(np.full((80, 80), 40000, dtype=np.uint16)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_wrong_with_a_data_set_is_said_in_one_line(tmp_path, fault):
    dataset, spoil, said = FAULTS[fault]
    spoil(tmp_path / "root")
    with pytest.raises(InputError, match=said) as error:
        make_study(tmp_path / "s.dm", dataset, tmp_path / "root")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "s.dm").exists()


def test_images_found_again_are_those_of_the_study(tmp_path, monkeypatch):
    monkeypatch.delenv("DMSTORE_DATA", raising=False)
    folders(tmp_path / "d")
    study, _ = made(tmp_path, "imagefolder", tmp_path / "d")
    with pytest.raises(
        InputError, match=r"6 images of 'train' are files elsewhere; name their folder with --data"
    ):
        pixels.check(study, "train")
    with pytest.raises(InputError, match="no such folder"):
        pixels.check(study, "train", tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"6 of the 6 images .* is it the folder of this data set"):
        pixels.check(study, "train", tmp_path)
    folders(tmp_path / "e", sizes=((71, 91),))
    with pytest.raises(InputError, match=r"none of 6 images of 'train' that were compared"):
        pixels.check(study, "train", tmp_path / "e")
    put(tmp_path / "d/train/cat/2.jpg", photo(77))
    with pytest.raises(InputError, match=r"cat/2\.jpg: not the file .* \(1 of 6"):
        pixels.check(study, "train", tmp_path / "d")
    (tmp_path / "d/train/cat/2.jpg").unlink()
    with pytest.raises(
        InputError, match=r"1 of the 6 images of 'train' are not there, such as train/cat/2\.jpg"
    ):
        pixels.check(study, "train", tmp_path / "d")


def test_paths_of_a_study_stay_in_the_folder_that_was_named(tmp_path):
    put(tmp_path / "secret.jpg", photo(1))
    (tmp_path / "data").mkdir()
    study = dmstore.create_study(
        tmp_path / "s.dm",
        {
            "train_id": np.array(["../secret.jpg", str(tmp_path / "secret.jpg")]),
            "train_file": np.array(["../secret.jpg", str(tmp_path / "secret.jpg")]),
            "target_label": np.array([0]),
        },
    )
    with pytest.raises(InputError, match="2 of the 2 images"):
        pixels.files(study, "train", tmp_path / "data")


def test_what_is_published_without_ids_names_no_files(tmp_path):
    waterbirds(tmp_path)
    study, _ = made(tmp_path, "waterbirds", tmp_path)
    run("publish", study.path, tmp_path / "out", "--no-ids")
    published = dmstore.open_study(tmp_path / "out")
    for columns in (published.train, published.targets, published.target_set("validation")):
        assert {"bird", "place", "label"} <= set(columns)
        assert not {"file", "digest"} & set(columns)
    run("publish", study.path, tmp_path / "whole", "--no-images")
    whole = dmstore.open_study(tmp_path / "whole")
    assert len(pixels.check(whole, "validation", tmp_path)) == 8


def test_thumbnails_of_many_images_lie_in_a_file(tmp_path, monkeypatch):
    folders(tmp_path / "d")
    wanted, _ = made(tmp_path, "imagefolder", tmp_path / "d")
    monkeypatch.setattr(pictures, "_MOST_IN_MEMORY", 1)
    study, _ = make_study(tmp_path / "s.dm", "imagefolder", tmp_path / "d")
    assert (study.train.image.values == wanted.train.image.values).all()

    def full(*_):
        msg = "/tmp: no room for 1.1 GB of scratch (x); name another directory with --scratch"
        raise StorageError(msg)

    monkeypatch.setattr(pictures, "scratch_array", full)
    with pytest.raises(
        StorageError, match=r"of scratch \(x\); name another directory with .* TMPDIR"
    ):
        make_study(tmp_path / "t.dm", "imagefolder", tmp_path / "d")
    assert not (tmp_path / "t.dm").exists()
