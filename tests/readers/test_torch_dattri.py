"""LDS ground truth in the shape in which dattri's own code writes it."""

import json

import numpy as np
import pytest
from helpers import Done

import dmstore
from dmstore.errors import InputError
from dmstore.readers import open_source, sniff
from dmstore.readers.source import Request

torch = pytest.importorskip("torch")

TRAIN, TARGETS, SUBSETS, SIZE = 20, 6, 8, 10
INDICES = np.array([np.random.default_rng(3 + i).permutation(TRAIN)[:SIZE] for i in range(SUBSETS)])
LOSS = np.random.default_rng(1).random((SUBSETS, TARGETS)).astype(np.float32)
MASKS = np.array([np.isin(np.arange(TRAIN), one) for one in INDICES])
ASKED = {"loss": "target_values_lds"}


def benchmark(folder):
    """As ``load_benchmark`` downloads it: what ``calculate_lds_ground_truth`` gave, sign turned."""
    (folder / "lds").mkdir(parents=True)
    torch.save(torch.from_numpy(INDICES), folder / "lds/indices_lds.pt")
    torch.save(-torch.from_numpy(LOSS), folder / "lds/target_values_lds.pt")
    return folder


def retrained(folder, about=True):
    for number, row in enumerate(INDICES):
        (folder / str(number)).mkdir(parents=True)
        (folder / str(number) / "indices.txt").write_text("\n".join(map(str, row)))
        torch.save({"w": torch.zeros(2)}, folder / str(number) / "model_weights_0.pt")
    if about:
        (folder / "metadata.yml").write_text(
            f"data_length: {TRAIN}\nmode: lds\nnum_runs_per_subset: 1\nnum_subsets: {SUBSETS}\n"
            "subset_dir_map:\n  0: /gone/0\nsubset_ratio: 0.5\ntrain_func: train\n"
        )
    return folder


@pytest.mark.parametrize("inside", ["", "lds"])
def test_a_benchmark_says_losses_again(tmp_path, inside):
    path = benchmark(tmp_path / "mnist_mlp") / inside
    assert sniff(path) == "dattri"
    source = open_source(path, "dattri", Request(train=TRAIN, outputs=ASKED))
    rows = source.read(np.arange(SUBSETS), ["loss"])
    assert np.array_equal(rows.arrays["loss"], LOSS)
    assert np.array_equal(rows.arrays["mask"], MASKS)
    assert "sign turned back" in source.title


def test_a_study_of_a_benchmark_keeps_its_conventions(tmp_path):
    path = benchmark(tmp_path / "b")
    call = ("ingest", tmp_path / "s.dm", "mlp", path, "--create", "--train", TRAIN, "--json")
    refused = Done(*call)
    assert refused.returncode == 1
    assert "--output loss=target_values_lds" in refused.stdout + refused.stderr
    assert not (tmp_path / "s.dm").exists()
    done = Done(*call, "--output", "loss=target_values_lds")
    assert json.loads(done.stdout)["new"] == SUBSETS
    algorithm = dmstore.open_study(tmp_path / "s.dm").algorithm("mlp")
    assert algorithm.alpha == SIZE / TRAIN
    assert algorithm.outputs["loss"]["orientation"] == "larger is worse"
    said = algorithm.document["config"]["imported"]["conventions"]
    assert "seen" in said["masks"]
    assert "turned back" in said["sign"]
    assert "mean over the runs" in said["repeats"]


def test_values_that_cannot_be_losses_are_refused(tmp_path):
    path = benchmark(tmp_path / "b") / "lds"
    torch.save(torch.from_numpy(LOSS), path / "target_values_lds.pt")
    with pytest.raises(InputError, match="no loss is below 0"):
        open_source(path, "dattri", Request(train=TRAIN, outputs=ASKED))
    source = open_source(
        path, "dattri", Request(train=TRAIN, outputs={"gain": "target_values_lds"})
    )
    assert np.array_equal(source.read(np.arange(2), ["gain"]).arrays["gain"], -LOSS[:2])


@pytest.mark.parametrize("name", ["target_values_lds.pt", "own.pt", "own.npy"])
def test_retrained_folders_with_values_of_their_own(tmp_path, name):
    path = retrained(tmp_path / "lds-models")
    file = tmp_path / name
    values = -LOSS if name.startswith("target_values") else LOSS
    if file.suffix == ".npy":
        np.save(file, values)
    else:
        torch.save(torch.from_numpy(values), file)
    assert sniff(path) == "dattri"
    source = open_source(path, "dattri", Request(outputs={"loss": str(file)}))
    rows = source.read(np.arange(SUBSETS), ["loss"])
    assert np.array_equal(rows.arrays["loss"], LOSS)
    assert np.array_equal(rows.arrays["mask"], MASKS)


def test_traps_of_retrained_folders(tmp_path):
    path = retrained(tmp_path / "m", about=False)
    with pytest.raises(InputError, match="give --train"):
        open_source(path, "dattri", Request())
    with pytest.raises(InputError, match="--output margin=FILE"):
        open_source(path, "dattri", Request(train=TRAIN))
    torch.save(-torch.from_numpy(LOSS[:5]), tmp_path / "target_values_lds.pt")
    asked = Request(train=TRAIN, outputs={"loss": str(tmp_path / "target_values_lds.pt")})
    with pytest.raises(InputError, match=r"shape \(5, 6\), but there are masks of 8 runs"):
        open_source(path, "dattri", asked)
    (path / "3/indices.txt").write_text("1\n2\nthree")
    with pytest.raises(InputError, match="holds 'three'"):
        open_source(path, "dattri", asked)
    (path / "3/indices.txt").unlink()
    with pytest.raises(InputError, match="none of number 3"):
        open_source(path, "dattri", asked)
    (path / "metadata.yml").write_text("mode: loo\ndata_length: 20\n")
    (path / "3/indices.txt").write_text("1")
    with pytest.raises(InputError, match="of mode loo"):
        open_source(path, "dattri", asked)
