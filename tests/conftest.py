"""Fixtures that tests share."""

from __future__ import annotations

import os

# One BLAS thread: workers and xdist processes would otherwise fight for the cores.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import pytest
from helpers import examples

import dmstore


@pytest.fixture
def study(tmp_path):
    return dmstore.create_study(tmp_path / "study.dm", examples(), seed=3)


@pytest.fixture
def algorithm(study):
    return study.add_algorithm("alpha", runs=300, outputs=["margin", "prediction"])
