"""Score folders in the shape in which bergson's score writers leave them."""

import json

import numpy as np
import pytest

from dmstore.analysis import compare_scores
from dmstore.errors import InputError
from dmstore.readers.scores import decide_orientation, is_scores, labelled, open_scores
from dmstore.readers.units import Units

DOCS, QUERIES = 12, 5
SCORES = np.random.default_rng(6).normal(size=(DOCS, QUERIES)).astype(np.float32)
CONFIG = """\
steps:
- score:
    score_cfg:
      query_path: runs/query
      score: individual
      higher_is_better: {}
    index_cfg:
      run_path: runs/index
- recall:
    higher_is_better: null
metadata:
  bergson_version: 0.26.1
"""
HIGHER = CONFIG.format("true")


def write(folder, kind="float32", config=HIGHER, unwritten=(), scores=SCORES, **info):
    """Pairs of a score and its flag, each as wide as the next power of two; rows a multiple of 8."""
    stored = np.dtype("<u2" if kind == "bfloat16" else kind)
    pair = 1 << stored.itemsize.bit_length()
    width = -(-QUERIES * pair // 8) * 8
    names = [f"{what}_{i}" for i in range(QUERIES) for what in ("score", "written")]
    offsets = [i * pair + shift for i in range(QUERIES) for shift in (0, stored.itemsize)]
    formats = [stored, "bool"] * QUERIES
    rows = np.zeros(
        DOCS, dtype={"names": names, "formats": formats, "offsets": offsets, "itemsize": width}
    )
    for i in range(QUERIES):
        values = scores[:, i]
        rows[f"score_{i}"] = (
            (values.view(np.uint32) >> 16).astype(np.uint16) if kind == "bfloat16" else values
        )
        rows[f"written_{i}"] = True
    for row, query in unwritten:
        rows[f"written_{query}"][row] = False
    folder.mkdir(parents=True, exist_ok=True)
    rows.tofile(folder / "scores.bin")
    described = {
        "names": names,
        "formats": [kind, "bool"] * QUERIES,
        "offsets": offsets,
        "itemsize": width,
    }
    about = {"attribute_tokens": False, "num_items": DOCS, "num_rows": DOCS, "num_scores": QUERIES}
    (folder / "info.json").write_text(json.dumps({**about, "dtype": described, **info}))
    if config is not None:
        (folder / "config.yaml").write_text(config)
    return folder


def read(path):
    file = open_scores(path)
    data = labelled(file, orientation=decide_orientation(file), units=Units())
    return file, data


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "bfloat16"])
def test_scores_of_a_folder(tmp_path, dtype):
    folder = write(tmp_path / "scores", dtype)
    assert is_scores(folder)
    file, data = read(folder)
    expected = SCORES.astype("f4" if dtype == "bfloat16" else dtype)
    if dtype == "bfloat16":
        expected = (SCORES.view(np.uint32) >> 16 << 16).view(np.float32)
    assert np.array_equal(data["weight"].values, expected.T)
    assert data.attrs["format"] == "bergson scores (higher is better)"
    assert data.attrs["orientation"].startswith("train-target")
    # The file itself can be named too.
    assert open_scores(folder / "scores.bin").shape == file.shape == (DOCS, QUERIES)


def test_scores_that_harm_are_turned(tmp_path):
    _, data = read(write(tmp_path / "a", config=CONFIG.format("false")))
    assert np.array_equal(data["weight"].values, -SCORES.T)
    assert data.attrs["format"] == "bergson scores (sign turned, as lower is better there)"
    one_line = "steps:\n- score:\n    score_cfg: {higher_is_better: false, score: individual}\n"
    assert np.array_equal(read(write(tmp_path / "b", config=one_line))[1]["weight"], -SCORES.T)


@pytest.mark.parametrize(
    "config",
    [
        None,
        "steps:\n- magic:\n    seed: 0\n",
        CONFIG.format("null"),
        "steps:\n- recall:\n    higher_is_better: true\n",
    ],
)
def test_a_sign_that_is_not_stated_is_asked_for(tmp_path, config):
    with pytest.raises(InputError, match=r"score_cfg: \{higher_is_better: true\}"):
        open_scores(write(tmp_path / "a", config=config))


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"attribute_tokens": True}, "scores of tokens"),
        ({"num_rows": DOCS + 1}, "do not belong together"),
        ({"num_scores": QUERIES + 1}, "does not describe scores (KeyError: 'score_5')"),
        ({"dtype": {}}, "does not describe scores"),
        ({"num_rows": -1}, "do not belong together"),
    ],
)
def test_folders_that_lie_are_refused(tmp_path, more, words):
    with pytest.raises(InputError) as error:
        open_scores(write(tmp_path / "a", **more))
    assert words in str(error.value)


def test_unfinished_scores_are_refused(tmp_path):
    with pytest.raises(InputError, match="1 of 12 scores of query 2 were never written"):
        read(write(tmp_path / "a", unwritten=[(7, 2)]))


def test_two_folders_are_compared(tmp_path):
    other = np.ascontiguousarray(-SCORES + 0.1 * SCORES[::-1])
    a = write(tmp_path / "a")
    b = write(tmp_path / "b", config=CONFIG.format("false"), scores=other)
    result = compare_scores(a, b, out=tmp_path / "out", names=("up", "down"), components=2)
    assert result["cosine"].values.min() > 0.9
    assert result.sizes["target"] == QUERIES
