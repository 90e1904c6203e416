"""Ground truth in the shape in which kronfluence's examples hold it: torch.save of NumPy arrays."""

import json

import numpy as np
import pytest
from helpers import Done

import dmstore
from dmstore.errors import InputError
from dmstore.readers import open_source, sniff
from dmstore.readers.source import Request

torch = pytest.importorskip("torch")

MASKS = (np.random.default_rng(1).random((9, 14)).argsort(axis=1) < 7).astype(np.int8)
MARGINS = np.random.default_rng(2).normal(size=(9, 4)).astype(np.float32)


def write(folder, **arrays):
    folder.mkdir(exist_ok=True)
    for name, values in {"masks": MASKS, **arrays}.items():
        torch.save(values, folder / f"{name}.pt")
    return folder


@pytest.mark.parametrize(
    ("key", "name", "orientation"),
    [
        ("margins", "log_odds", "larger is more confident in the label"),
        ("losses", "loss", "larger is worse"),
    ],
)
def test_ground_truth_becomes_a_study(tmp_path, key, name, orientation):
    path = write(tmp_path / "files", **{key: MARGINS})
    assert sniff(path) == "kronfluence"
    done = Done("ingest", tmp_path / "s.dm", "rte", path, "--create", "--json")
    assert json.loads(done.stdout)["new"] == 9, done.stderr
    study = dmstore.open_study(tmp_path / "s.dm")
    runs = study.view("rte").dataset.sortby("run")
    assert np.array_equal(runs.mask.values, MASKS == 1)
    assert np.array_equal(runs[name].values, MARGINS)
    algorithm = study.algorithm("rte")
    assert algorithm.outputs[name]["orientation"] == orientation
    assert "kronfluence" in algorithm.outputs[name]["function"]
    assert "mean over" in algorithm.document["config"]["imported"]["conventions"]["repeats"]


def test_ground_truth_that_does_not_fit(tmp_path):
    path = write(tmp_path / "a", margins=MARGINS[:8])
    with pytest.raises(InputError, match=r"margins has shape \(8, 4\), but there are masks of 9"):
        open_source(path, "kronfluence", Request())
    torch.save(MASKS[0], path / "masks.pt")
    with pytest.raises(InputError, match=r"masks.pt: is int8 \(14,\)"):
        open_source(path, "kronfluence", Request())
    write(path, margins=MARGINS)
    torch.save(MASKS + 1, path / "masks.pt")
    with pytest.raises(InputError, match="other than 0 and 1"):
        open_source(path, "kronfluence", Request()).masks(np.arange(9))
    (path / "margins.pt").unlink()
    with pytest.raises(InputError, match=r"neither margins.pt nor losses.pt"):
        open_source(path, "kronfluence", Request())
