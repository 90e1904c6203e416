"""What a page is made of: influences, thumbnails, columns, commands, and where it is written."""

import dataclasses
import io
import shlex
import zipfile

import numpy as np
import pytest
import xarray as xr
from PIL import Image

from dmstore.analysis.comparison.answer import Answer, DirectionClaim, Estimate, GroupClaim
from dmstore.analysis.pages.bundle import check_out, write
from dmstore.analysis.pages.commands import compare_command, fit_command
from dmstore.analysis.pages.headline import _measured, _telling
from dmstore.analysis.pages.influences import influences
from dmstore.analysis.pages.page_data import _about, _influencers, numbers
from dmstore.analysis.pages.sheets import sheets
from dmstore.analysis.pages.units import described, drawn, text_column
from dmstore.errors import InputError
from dmstore.readers.labels import Labels


def test_influences_are_the_largest_of_either_sign():
    weight = np.array([[0.5, -2, 0, 3, -1, 0.25], [0, 0, 0, 0, -4, 0], [np.nan, 1, 1, 1, 0, 0]])
    found = influences([xr.DataArray(weight, dims=("target", "train"))], count=2)
    assert found.unit[0].tolist() == [[3, 0, 1, 4], [-1, -1, 4, -1], [1, 2, -1, -1]]
    assert found.weight[0].tolist() == [[3, 0.5, -2, -1], [0, 0, -4, 0], [1, 1, 0, 0]]


@pytest.mark.parametrize("share", [0.02, 0.9])
def test_influences_in_blocks_are_those_of_each_target_by_itself(share, monkeypatch):
    monkeypatch.setattr("dmstore.analysis.pages.influences._BLOCK", 4 * 300 * 7)
    draw = np.random.default_rng(0)
    # Few different values: many are equal, as those of scores in half precision are.
    weight = draw.integers(-9, 10, (50, 300)) * (draw.random((50, 300)) < share)
    both = [xr.DataArray(one, dims=("target", "train")) for one in (weight, -weight)]
    found = influences([both[0], both[1].chunk(target=20)], count=5)
    for row, values in ((0, weight), (1, -weight)):
        for target, own in enumerate(values):
            for start, sign in ((0, 1), (5, -1)):
                order = np.argsort(-sign * own, kind="stable")[:5]
                order = order[sign * own[order] > 0].tolist()
                none = 5 - len(order)
                there = (row, target, slice(start, start + 5))
                assert found.unit[there].tolist() == order + [-1] * none
                assert found.weight[there].tolist() == own[order].tolist() + [0] * none


@pytest.mark.parametrize("shape", [(300, 8, 8), (300, 32, 32, 3), (5, 100, 200, 3), (3, 20, 20, 1)])
def test_every_example_has_its_own_cell(shape):
    grey = np.linspace(0, 255, shape[0]).astype("u1").reshape(-1, *[1] * (len(shape) - 1))
    images = xr.DataArray(np.broadcast_to(grey, shape), dims=("train", "h", "w", "c")[: len(shape)])
    order = np.arange(shape[0])[::-1]
    made = sheets(images, order)
    assert max(made.image) <= 64
    for place in (0, 1, 16, 255, 256, 299):
        if place >= shape[0]:
            continue
        sheet = Image.open(io.BytesIO(made.files[place // 256])).convert("L")
        row, column = divmod(place % 256, 16)
        x, y = column * made.cell[0] + made.image[0] // 2, row * made.cell[1] + made.image[1] // 2
        assert sheet.getpixel((x, y)) == pytest.approx(grey.ravel()[order[place]], abs=3)


def test_long_texts_and_columns_are_cut_and_said(monkeypatch):
    examples = xr.Dataset(
        {
            "text": ("target", ["x" * 1_000_000, "short"]),
            "value": ("target", [1 / 3, np.nan]),
            "label": ("target", [1, 0]),
        },
        coords={"target": [7, 8]},
    )
    found = described(examples, "target", np.array([0, 1]), ["no", "yes"])
    assert found["ids"] == ["7", "8"]
    assert found["labels"] == [1, 0]
    assert found["texts"] == ["x" * 400 + "… (1,000,000 characters)", "short"]
    assert found["columns"] == {"value": [0.33333, None]}


def test_whole_numbers_that_javascript_would_round_are_texts():
    numbers = [2**53, 2**53 + 1, -(2**60), 3]
    data = xr.Dataset({"key": ("train", numbers)}, {"train": [str(one) for one in numbers]})
    said = described(data, "train", np.arange(4), [])
    assert said["columns"]["key"] == [2**53, str(2**53 + 1), str(-(2**60)), 3]
    assert said["ids"] == [str(one) for one in numbers]


def test_the_texts_are_the_longest_column_of_examples_without_images():
    columns = {
        "topic": ("train", ["news", "sport"]),
        "body": ("train", ["a long text about something", "another one about other things"]),
    }
    examples = xr.Dataset(columns, coords={"train": [0, 1]})
    assert text_column(examples, "train") == "body"
    assert text_column(examples.drop_vars("body"), "train") is None
    image = ("train", "h", "w"), np.zeros((2, 8, 8), "u1")
    assert text_column(examples.assign(image=image), "train") is None


def test_an_image_annotation_that_is_none_is_refused():
    image = (("train", "h", "w"), np.zeros((2, 8, 8), "u1"))
    examples = xr.Dataset({"image": image, "label": ("train", [0, 1])}, coords={"train": [0, 1]})
    assert drawn(examples, "train", np.arange(2)) is not None
    assert drawn(examples.drop_vars("image"), "train", np.arange(2)) is None
    for column, words in (("marked", "have no such column; they have"), ("label", "is int64")):
        with pytest.raises(InputError, match=words):
            drawn(examples, "train", np.arange(2), column)


def test_a_class_is_named_only_where_chance_would_not_make_it_so():
    nothing = {"measure": "", "score": None, "end": "", "label": "", "annotation": "", "value": ""}
    label = np.arange(1000) % 2

    def about(members, classes, among=None):
        targets = xr.Dataset({"label": ("target", np.arange(1000) % len(classes))})
        among = np.ones(1000, dtype=bool) if among is None else among
        return _about(nothing, Labels(targets, targets, classes), np.array(members), among)

    nine_of_16 = [*np.flatnonzero(label == 0)[:9], *np.flatnonzero(label == 1)[:7]]
    assert about(nine_of_16, ["no", "yes"]) == ""
    assert about(np.flatnonzero(label == 1)[:16], ["no", "yes"]) == "targets of class yes"
    ten = [str(k) for k in range(10)]
    assert about([*range(3, 93, 10), 0, 1, 2, 4, 5, 6, 7], ten) == "targets of class 3"
    # Of a comparison of targets of one class alone, the class says nothing.
    assert about(range(3, 93, 10), ten, np.arange(1000) % 10 == 3) == ""
    # As many as the largest subpopulation that may be asked for.
    assert about(np.tile(np.flatnonzero(label == 1), 5), ["no", "yes"]) == "targets of class yes"


def test_influencers_are_those_of_the_algorithm_itself():
    assert _influencers(np.array([0.5, -3, 0, 2])) == [[3, 2.0], [0, 0.5]]


def test_numbers_are_short_and_never_negative_zero():
    assert numbers([1 / 3, np.nan, -0.0, np.inf, 1e-9]) == [0.33333, None, 0.0, None, 1e-9]
    assert str(numbers([-0.0])[0]) == "0.0"


def test_commands_say_what_is_not_as_by_default():
    parameters = {"lams": 50, "lam_ratio": 0.001, "lam": None, "folds": 3, "halves": False}
    assert fit_command("a b.dm", "x", "loss", parameters) == (
        "dmstore fit 'a b.dm' x --output loss --lam-ratio 0.001 --folds 3 --no-halves"
    )
    stated = {
        "components": 3,
        "center": True,
        "where": "label=1,2, some ids.txt (4 ids, sha256 0af1)",
    }
    assert shlex.split(compare_command("s.dm", ["a", "b"], stated)) == [
        *("dmstore", "compare", "s.dm", "a", "b", "--components", "3"),
        *("--where", "label=1,2", "--where", "some ids.txt"),
    ]
    for stated, words in (
        ("label=cat, dog, x>1", ["--where", "label=cat, dog", "--where", "x>1"]),
        ("modal predictions agree", ["--agree"]),
        ("label=3, modal predictions agree", ["--where", "label=3", "--agree"]),
    ):
        parameters = {"where": stated} | ({"agree": ["0a", "1b"]} if "agree" in stated else {})
        said = shlex.split(compare_command("s.dm", ["a", "b"], parameters))
        assert said == ["dmstore", "compare", "s.dm", "a", "b", *words]


def test_a_page_is_written_where_it_is_asked_for(tmp_path):
    files = {"report/target-0000.jpg": b"x", "report.json": b"{}", "report.html": b"<html>"}
    assert write(check_out(tmp_path / "folder"), files) == tmp_path / "folder" / "report.html"
    assert (tmp_path / "folder" / "report" / "target-0000.jpg").read_bytes() == b"x"
    out = write(check_out(tmp_path / "page.zip"), files)
    assert zipfile.ZipFile(out).namelist() == list(files)
    (tmp_path / "is.html").mkdir()
    (tmp_path / "file.txt").touch()
    (tmp_path / "mine.json").write_text("of somebody")
    for name, words in (
        ("none/report.html", "make it first"),
        ("is.html", "is a folder"),
        ("file.txt", "ends neither in .html nor in .zip"),
        ("mine.html", "mine.json: is there and no page's"),
    ):
        with pytest.raises(InputError, match=words):
            check_out(tmp_path / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("file.txt", "folder", "is.html", "mine.json", "page.zip")
    ]
    assert check_out(tmp_path / "folder") == tmp_path / "folder"


@pytest.mark.parametrize(("low", "hardly"), [(0.993, True), (0.98, False)])
def test_a_difference_that_is_certain_but_small_is_called_small(low, hardly):
    from dmstore.analysis.comparison import sentences

    group = GroupClaim("class bird", 50, Estimate(0.996, low, 0.999), 0.001, 0.003, beyond=True)
    whole = Estimate(0.999, 0.998, 1.0)
    said = Answer(measured=True, differs=True, similarity=whole, groups=[group])
    assert said.hardly == hardly
    answer = _measured(said, ["a", "b"], {}, (), ()).answer
    assert ("in nearly the same way" in answer) == hardly
    assert "most of all for targets of class bird" in answer
    assert sentences.difference(said).startswith(
        "They differ, though hardly: 1" if hardly else "They differ: 1"
    )
    # A direction beyond chance is told as one, however alike the rest.
    one = DirectionClaim("a", 0, 0.5, 0.05, 1e-6, 1e-5, [0.2, 0.1], beyond=True)
    assert not dataclasses.replace(said, directions=[one]).hardly


def test_a_difference_is_told_where_the_similarity_of_all_targets_is_not_known():
    one = DirectionClaim("a", 0, 0.5, 0.05, 1e-6, 1e-5, [0.2, float("nan")], beyond=True)
    said = _measured(
        Answer(measured=True, differs=True, similarity=None, directions=[one]),
        ["a", "b"],
        {},
        (),
        (),
    )
    assert said.answer.startswith("a and b use the training examples differently.")
    assert said.alike.startswith("Over all targets the datamodels are too weak to be measured")
    few = _measured(Answer(measured=True, differs=False, similarity=None), ["a", "b"], {}, (), ())
    assert "too few" in few.answer


@pytest.mark.parametrize(
    ("ends", "said"),
    [
        ([(-2.4, -1.5), (-3.0, -2.1)], False),
        ([(-2, -1), (1, 2)], True),
        ([(np.nan, np.nan)] * 2, False),
    ],
)
def test_a_check_is_a_finding_only_where_intervals_are_apart(ends, said):
    one = check(*ends)
    assert _telling([one]) == [one] * said


def test_of_several_checks_the_one_that_tells_most_is_said():
    overlapping = check((-1, 9), (0, 30))
    small, large = check((0, 1), (2, 3)), check((5, 6), (-4, -3))
    unknown = check((np.nan, np.nan), (9, 9))
    assert _telling([overlapping, unknown, small, large]) == [large]
    assert _telling([]) == []


def check(*ends):
    rows = zip("ab", ends, strict=True)
    return {"rows": [{"algorithm": n, "low": low, "high": high} for n, (low, high) in rows]}
