"""Comparisons of some targets alone."""

import numpy as np
import pytest
import xarray as xr

from dmstore.analysis import modeldiff
from dmstore.analysis.comparison.where import left_out, restriction, spread
from dmstore.errors import InputError

TARGETS = xr.Dataset(
    {
        "label": ("target", [0, 1, 1, 2, 2, 2]),
        "type": ("target", np.array(["mono", "stereo", "mono", "mono", "x", "x"])),
        "image": (("target", "row"), np.zeros((6, 2))),
    },
    coords={"target": [f"t{i}" for i in range(6)]},
)


@pytest.mark.parametrize(
    ("where", "positions", "said"),
    [
        (["label=2"], [3, 4, 5], "label=2"),
        (["label=dog,2"], [1, 2, 3, 4, 5], "label=dog,2"),
        (["label>=1", "type=mono"], [2, 3], "label>=1, type=mono"),
        (["type!=mono"], [1, 4, 5], "type!=mono"),
        (["target=t4,t0"], [0, 4], "target=t4,t0"),
    ],
)
def test_conditions(where, positions, said):
    found = restriction(where, TARGETS, ["cat", "dog", "owl"])
    assert found.positions.tolist() == positions
    assert found.stated == {"where": said, "targets": len(positions)}


def test_a_file_of_ids_is_known_by_its_content(tmp_path):
    for name, text in (("a.txt", "t1\nt5\n"), ("b.txt", " t5 \n\nt1")):
        (tmp_path / name).write_text(text)
    found = [restriction([str(tmp_path / name)], TARGETS) for name in ("a.txt", "b.txt")]
    assert [one.positions.tolist() for one in found] == [[1, 5], [1, 5]]
    assert found[0].said.partition(" ")[2] == found[1].said.partition(" ")[2]
    (tmp_path / "c.txt").write_text("t1\nt5\nt7")
    (tmp_path / "d.txt").write_bytes(b"\xff\xfe\x00")
    for name, said in (("c.txt", "1 of its ids are no targets, the first 't7'"), ("d.txt", "text")):
        with pytest.raises(InputError, match=said):
            restriction([str(tmp_path / name)], TARGETS)


@pytest.mark.parametrize(
    ("where", "said"),
    [
        (["label=0"], "1 of 6 targets; a comparison needs two"),
        (["label=1", "label=2"], "0 of 6 targets"),
        (["colour=red"], "no column 'colour'; they have label, type, target"),
        (["image=1"], "no column 'image'"),
        (["label=wolf"], "not an integer"),
        (["nowhere.txt"], "neither a condition such as label=9 nor a file"),
    ],
)
def test_what_cannot_be_chosen(where, said):
    with pytest.raises(InputError, match=said):
        restriction(where, TARGETS, ["cat", "dog", "owl"])


def test_one_text_is_no_list_and_nothing_is_everything():
    with pytest.raises(InputError, match="expected a list"):
        restriction("label=1", TARGETS)
    assert restriction([], TARGETS) is None


def test_the_others_stand_among_them_without_numbers():
    draw = np.random.default_rng(0)
    a, b = (xr.DataArray(draw.normal(size=(6, 9)), dims=("target", "train")) for _ in range(2))
    a[4] = 0
    chosen = restriction(["label>=1"], TARGETS)
    part = modeldiff(*(one.isel(target=chosen.positions) for one in (a, b)), components=2, top=2)
    found = spread(part, chosen, TARGETS["target"])
    assert found["included"].values.tolist() == [False, True, True, True, False, True]
    assert np.isnan(found["cosine"].values[[0, 4]]).all()
    np.testing.assert_array_equal(found["projection"].values[..., 1:], part["projection"])
    np.testing.assert_array_equal(found["subpopulation"], part["subpopulation"].values + 1)
    assert set(np.unique(found["contrast"])) <= {-1, 1, 2, 3, 5}
    assert left_out(found) == 1
    assert left_out(part) == 1
