"""The demo, smaller: it finds the planted mark, and goes on after a kill."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from pages import page_json

import dmstore
from dmstore.demo import auc, demo, digits


def test_digits_are_real_and_marked():
    data = digits()
    assert data["train_image"].shape == (1000, 8, 8)
    assert len(data["target_label"]) == 797
    for part in ("train", "target"):
        marked, label, image = (data[f"{part}_{k}"] for k in ("marked", "label", "image"))
        assert set(label[marked]) == {9}
        assert abs(marked.sum() / (label == 9).sum() - 0.4) < 0.02
        assert (image[marked, :2, :2] == 255).all()
        assert not (image[~marked, :2, :2] == 255).all(axis=(1, 2)).any()
    assert all(np.array_equal(a, b) for a, b in zip(data.values(), digits().values(), strict=True))


def test_auc():
    assert auc(np.array([1, 2, 3, 4]), np.array([False, False, True, True])) == 1
    assert auc(np.array([1, 1, 1, 1]), np.array([False, False, True, True])) == 0.5


@pytest.mark.slow
def test_kill_and_go_on(tmp_path):
    """Killed twice, hard, while workers write; the third call finishes with every run once."""
    path = tmp_path / "demo"
    command = [sys.executable, "-m", "dmstore", "demo", str(path), "--runs", "800", "-Q", "--json"]
    for _ in range(2):
        process = subprocess.Popen(
            command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 120
        before = stored(path)
        while (
            stored(path) < before + 150 and process.poll() is None and time.monotonic() < deadline
        ):
            time.sleep(0.2)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert stored(path) > 0
    result = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert result["runs"] == {"plain": 800, "pasted": 800}
    assert set(result) >= {
        "runs",
        "holdout_r2",
        "lds",
        "auc",
        "marked_in_top50",
        "effect_a",
        "effect_b",
        "seconds",
        "report",
    }
    assert result["auc"] > 0.9
    assert result["marked_in_top50"] > 0.25
    assert result["effect_a"] > 5 * abs(result["effect_b"])
    assert result["worst_kkt"] <= 1e-4
    html = Path(result["report"]).read_text()
    # Three of the comparison, three of how the fits went.
    assert html.count("<svg xmlns") == 6
    data = page_json(html)
    assert len(data["sheets"]["target"]["urls"]) == 4
    assert "marked = true" in data["directions"][0]["about"]
    study = dmstore.open_study(path)
    accuracy = study.runs("plain").accuracy.values
    assert accuracy.mean() > 0.9
    again = demo(path)
    assert again.result["auc"] == result["auc"]
    assert len(again.lines) <= 20
    assert again.lines[-1] == result["report"]
    # It says what to look at, and the page has these parts.
    (where,) = (line for line in again.lines if line.startswith("On the page,"))
    assert f"open direction A{result['direction']}" in where
    assert "Where they differ" in html


def stored(path):
    try:
        study = dmstore.open_study(path)
        return sum(len(study.algorithm(name).table.view()) for name in study.algorithms)
    except dmstore.DmstoreError:
        return 0


@pytest.mark.slow
def test_whole_demo(tmp_path):
    result = demo(tmp_path / "demo").result
    assert result["auc"] >= 0.95
    assert result["marked_in_top50"] >= 1 / 3
    assert result["effect_a"] >= 5 * result["effect_b"]
