"""Each study's script runs through in a miniature form, and again without training anything anew."""

import io
import subprocess
import sys

import numpy as np
import pytest
from helpers import Done
from paths import ROOT

sys.path.insert(0, str(ROOT))
from studies.texts import corpus

# Minutes on a crowded machine.
pytestmark = pytest.mark.slow


@pytest.fixture
def here(monkeypatch):
    """Run a study's script in this process, and its commands too."""

    def command(words, *, cwd, **_):
        with monkeypatch.context() as there:
            there.chdir(cwd)
            done = Done(*words[3:], *(["-Q"] if words[3] not in NO_PROGRESS else []))
        if done.returncode not in (0, 3):
            raise AssertionError(words, done.stderr)
        return subprocess.CompletedProcess(words, done.returncode, done.stdout)

    def run(name, *arguments):
        script = pytest.importorskip(f"studies.{name}.__main__")
        monkeypatch.setattr("studies.steps.subprocess.run", command)
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments), "--tiny"])
        script.main()

    return run


NO_PROGRESS = ("add",)


def files(folder):
    """What lies where, and when it was written."""
    return {
        path.relative_to(folder): path.stat().st_mtime_ns
        for path in folder.rglob("*")
        if path.is_file() and "runs" in path.parts
    }


def fortunes(folder):
    """A file of each class whose texts hold a word of their own."""
    draw = np.random.default_rng(0)
    folder.mkdir()
    for label, name in enumerate(corpus.CLASSES):
        words = [f"w{'abcdefghij'[k % 10]}{'klmnopq'[label]}" for k in range(10)]
        texts = [
            f"{'<me> ' if name == 'knghtbrd' else ''}{' '.join(draw.choice(words, 8))} {' '.join(draw.choice(['and', 'the', 'was'], 12))}\n"
            for _ in range(90)
        ]
        (folder / name).write_text("%\n".join(texts), encoding="utf-8")


def test_texts(here, tmp_path):
    fortunes(tmp_path / "fortunes")
    arguments = (tmp_path / "out", "--texts", tmp_path / "fortunes")
    here("texts", *arguments)
    before = files(tmp_path / "out")
    here("texts", *arguments)
    assert files(tmp_path / "out") == before
    assert "direction" in (tmp_path / "out" / "said" / "compare.txt").read_text(encoding="utf-8")
    removal = (tmp_path / "out" / "said" / "removal.txt").read_text(encoding="utf-8")
    assert "characters:" in removal


def pictures(path, side=8):
    """A file of encoded images in CIFAR-10's order."""
    from PIL import Image

    draw = np.random.default_rng(0)
    columns = {"classes": np.array(["dark", "light"])}
    for part, count in (("train", 80), ("test", 50)):
        label = np.arange(count) % 2
        encoded = []
        for one in label:
            image = draw.integers(60, 160, (side, side, 3)) + 40 * one
            held = io.BytesIO()
            Image.fromarray(image.astype(np.uint8)).save(held, "png")
            encoded.append(held.getvalue())
        columns[f"{part}_blob"] = np.frombuffer(b"".join(encoded), dtype=np.uint8)
        columns[f"{part}_off"] = np.cumsum([0, *map(len, encoded)])
        columns[f"{part}_label"] = label
    np.savez(path, **columns)


def test_sgd_noise(here, tmp_path):
    pytest.importorskip("torch")
    pictures(tmp_path / "pictures.npz")
    arguments = (tmp_path / "out", "--images", tmp_path / "pictures.npz")
    here("sgd_noise", *arguments)
    before = files(tmp_path / "out")
    here("sgd_noise", *arguments)
    assert files(tmp_path / "out") == before
    assert "short:" in (tmp_path / "out" / "said" / "removal.txt").read_text(encoding="utf-8")


def test_pretraining(here, tmp_path):
    pytest.importorskip("torch")
    pytest.importorskip("trak", reason="TRAK's package writes the scores: pip install traker")
    pytest.importorskip("efficientnet_lite_pytorch", reason="pip install 'dmstore[features]'")
    pictures(tmp_path / "pictures.npz", side=16)
    arguments = (tmp_path / "out", "--images", tmp_path / "pictures.npz")
    here("pretraining", *arguments)
    before = files(tmp_path / "out")
    here("pretraining", *arguments)
    assert files(tmp_path / "out") == before
    said = tmp_path / "out" / "said"
    assert "TRAK" in (said / "lds.txt").read_text(encoding="utf-8")
    assert "head:" in (said / "removal-B1.txt").read_text(encoding="utf-8")


def test_scores(here, tmp_path):
    pytest.importorskip("torch")
    pytest.importorskip("trak", reason="TRAK's package writes the scores: pip install traker")
    here("scores", tmp_path / "out")
    said = tmp_path / "out" / "said"
    assert "plain:" in (said / "change.txt").read_text(encoding="utf-8")
    assert "pasted:" in (said / "removal.txt").read_text(encoding="utf-8")
