"""Banks of leave-k-out models in the shape in which bergson's validate writes them."""

import csv
import json

import numpy as np
import pytest
from helpers import Done

import dmstore
from dmstore.errors import InputError
from dmstore.readers import open_source, sniff
from dmstore.readers.source import Request

torch = pytest.importorskip("torch")

DOCS, QUERIES = 15, 4
SUBSETS = [np.random.default_rng(i).permutation(DOCS)[:3].tolist() for i in range(6)]
SEEN = ~np.array([np.isin(np.arange(DOCS), one) for one in SUBSETS])
LOSS = np.random.default_rng(8).random((6, QUERIES)).astype(np.float32) + 2
BASE = np.full(QUERIES, 1.5, dtype=np.float32)


def bank(folder, losses=LOSS, name="losses_0123456789abcdef"):
    (folder / "query_loss_cache").mkdir(parents=True, exist_ok=True)
    (folder / "subsets.json").write_text(json.dumps(SUBSETS))
    blob = {
        "baseline": 0.0,
        "baseline_per_doc": torch.from_numpy(BASE),
        "per_subset": torch.from_numpy(losses),
    }
    torch.save(blob, folder / f"query_loss_cache/{name}.pt")
    return folder


def table(folder, name, columns, rows):
    folder.mkdir(exist_ok=True)
    with (folder / name).open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)


def validation(folder, subsets=range(6), suffix="", summary=True):
    """The loss of the full model less that of the subset, and the sum of scores beside it."""
    rows = [(i, q, float(BASE[q] - LOSS[i, q]), 0.25) for i in subsets for q in range(QUERIES)]
    table(folder, f"validation{suffix}.csv", ("subset", "query", "diff", "score_sum"), rows)
    (folder / "subsets.json").write_text(json.dumps(SUBSETS))
    if summary:
        rows = [(q, 0.5, 0.1, 0.5, 0.1, 6, float(BASE[q])) for q in range(QUERIES)]
        columns = (
            "query",
            "spearman_corr",
            "spearman_p",
            "pearson_corr",
            "pearson_p",
            "N",
            "baseline_loss",
        )
        table(folder, f"summary{suffix}.csv", columns, rows)
    return folder


def losses(path, **more):
    source = open_source(path, "bergson", Request(train=DOCS, **more))
    return source, source.read(np.arange(len(source.ids)), ["loss"])


def test_masks_are_what_was_not_left_out(tmp_path):
    path = bank(tmp_path / "bank")
    assert sniff(path) == "bergson"
    _, rows = losses(path)
    assert np.array_equal(rows.arrays["mask"], SEEN)
    assert np.array_equal(rows.arrays["loss"], LOSS)
    call = ("ingest", tmp_path / "s.dm", "gpt", path, "--create", "--json")
    refused = Done(*call)
    assert "give --train" in refused.stdout + refused.stderr
    assert json.loads(Done(*call, "--train", DOCS).stdout)["new"] == 6
    algorithm = dmstore.open_study(tmp_path / "s.dm").algorithm("gpt")
    assert algorithm.alpha == 12 / 15
    assert algorithm.outputs["loss"]["orientation"] == "larger is worse"
    said = algorithm.document["config"]["imported"]["conventions"]
    assert said["masks"] == "subsets.json: the documents that a model left out"
    assert said["sign"] == "losses as bergson has them"


def test_one_query_is_one_target(tmp_path):
    source, rows = losses(bank(tmp_path / "bank", LOSS[:, 0].copy()))
    assert source.targets == 1
    assert np.array_equal(rows.arrays["loss"], LOSS[:, :1])


def test_several_sets_of_queries_are_chosen_from(tmp_path):
    path = bank(tmp_path / "bank")
    bank(path, LOSS + 1, "losses_ffff")
    with pytest.raises(InputError, match=r"2 sets of queries.*--output loss=losses_"):
        losses(path)
    assert np.array_equal(losses(path, outputs={"loss": "losses_ffff"})[1].arrays["loss"], LOSS + 1)
    with pytest.raises(InputError, match="an output is one of losses_"):
        losses(path, outputs={"loss": "losses_eeee"})


def test_tables_of_validation_are_turned_into_losses(tmp_path):
    source, rows = losses(validation(tmp_path / "a"))
    assert np.allclose(rows.arrays["loss"], LOSS, rtol=0, atol=1e-6)
    assert source.conventions["sign"].startswith("sign turned: validation.csv")
    # Workers each validate a slice; one has not come yet.
    path = validation(tmp_path / "b", [4, 3], "_3_5", summary=False)
    validation(path, [0, 1], "_0_2", summary=False)
    source, rows = losses(path)
    assert source.ids.tolist() == [0, 1, 3, 4]
    assert np.array_equal(rows.arrays["mask"], SEEN[[0, 1, 3, 4]])
    assert np.allclose(rows.arrays["loss"], (LOSS - BASE)[[0, 1, 3, 4]], rtol=0, atol=1e-6)
    assert "not stated of all and left out" in source.conventions["sign"]
    # The full model is one: what stands beside one table holds for all, and what is not known of one query for none.
    validation(tmp_path / "c", [0, 1, 2], "_0_2")
    source, rows = losses(validation(tmp_path / "c", [3, 4, 5], "_3_5", summary=False))
    assert np.allclose(rows.arrays["loss"], LOSS, rtol=0, atol=1e-6)
    assert "left out" not in source.conventions["sign"]
    lines = (tmp_path / "a/summary.csv").read_text().splitlines()
    (tmp_path / "a/summary.csv").write_text("\n".join(lines[:-1]))
    source, rows = losses(tmp_path / "a")
    assert np.allclose(rows.arrays["loss"], LOSS - BASE, rtol=0, atol=1e-6)
    assert "not stated of all and left out" in source.conventions["sign"]


def test_traps(tmp_path):
    path = bank(tmp_path / "bank")
    (path / "config.yaml").write_text("steps:\n- magic:\n    subset_weight: 0.5\n")
    with pytest.raises(InputError, match=r"weight 0.5, so they were not left out"):
        losses(path)
    (path / "config.yaml").write_text("steps:\n- magic:\n    subset_weight: 0.0\n")
    bank(path, LOSS[:5])
    with pytest.raises(InputError, match="belongs to another bank"):
        losses(path)
    (path / "query_loss_cache/losses_0123456789abcdef.pt").unlink()
    with pytest.raises(InputError, match="run bergson's validate"):
        losses(path)
    validation(path, [0, 0])
    with pytest.raises(InputError, match="line 6 is of subset 0, which stands there twice"):
        losses(path)
    table(path, "validation.csv", ("subset", "diff"), [(0, "x")])
    with pytest.raises(InputError, match="line 2 holds no numbers"):
        losses(path)
    (path / "subsets.json").write_text("[1, 2]")
    with pytest.raises(InputError, match="no list of lists of documents"):
        losses(path)
