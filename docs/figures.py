"""Figures of the documentation: ``python docs/figures.py DEMO``, the directory that ``dmstore demo`` made."""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib

matplotlib.use("svg")

import matplotlib.pyplot as plt

import dmstore
from dmstore.analysis import plot


def main(demo: str) -> None:
    """Draw how the two fits of the demo went."""
    study = dmstore.open_study(demo)
    fits = {name: study.datamodels(name) for name in study.algorithms}
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.6), layout="constrained")
    draws = (plot.holdout_curves, plot.sparsity, plot.holdout_r2)
    for draw, place in zip(draws, axes, strict=True):
        draw(fits, place)
    # The same bytes from the same numbers.
    plt.rcParams["svg.hashsalt"] = "dmstore"
    figure.savefig(Path(__file__).parent / "reference" / "fit.svg", metadata={"Date": None})


if __name__ == "__main__":
    main(sys.argv[1])
