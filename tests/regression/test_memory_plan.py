"""What a fit does with the memory that it may take."""

import json
import subprocess
import sys

import numpy as np
import pytest

import dmstore
from dmstore.errors import InputError
from dmstore.regression.fitting.memory_plan import Need, plan
from dmstore.storage.table.rows import Rows

LIVING17 = {
    "words": [88_400 * 1616 * 8, 88_400 * 208 * 8],
    "train": 88_400,
    "runs": 114_000,
    "most": 58_000,
    "raw": 2,
    "stages": 2,
    "results": 1,
    "kept": 0,
    "folds": False,
    "lam0": False,
    "shared": True,
    "own": False,
    "whole": False,
}
GB = 10**9


def need(**changes):
    return Need(**{**LIVING17, **changes})


def test_what_is_planned_is_what_there_is():
    for gigabytes in (4, 10, 21, 37, 60):
        room = plan(need(), gigabytes * GB, 2, None)
        grams = 0 if room.allocate.__class__.__name__ == "partial" else room.stages
        assert need().beside(2) + grams * need().gram + room.working <= gigabytes * GB
        assert grams == {4: 0, 10: 0, 21: 1, 37: 2, 60: 2}[gigabytes]
        assert room.working > 0


def test_more_is_needed_for_more():
    base = need().beside(2)
    for changes in (
        {"folds": True},
        {"own": True},
        {"results": 3},
        {"kept": 9},
        {"raw": 8},
        {"runs": 200_000},
    ):
        assert need(**changes).beside(2) > base, changes
    assert need().beside(16) > base
    # Where nobody says how much there is, there is enough for one Gram.
    assert plan(need(raw=8), None, 2, None).stages >= 1
    assert need(most=70_000).gram == 2 * need().gram
    one, eight = (need(lam0=True, own=True).unpenalised(threads) for threads in (1, 8))
    assert eight > 4 * one
    assert need().unpenalised(8) == 0


def test_too_little_is_refused():
    with pytest.raises(
        InputError, match=r"1 GB of memory are too little: 3\.6 GB are needed beside the Grams"
    ):
        plan(need(), GB, 2, None)
    small = need(train=9000, words=[9000 * 1616 * 8] * 2, lam0=True)
    with pytest.raises(InputError, match="lam 0 takes"):
        plan(small, 4 * GB, 2, None)


FIT = """
import json, resource, sys
import dmstore
from dmstore.regression import fit
from dmstore.regression.problem.parameters import Parameters
found = fit(dmstore.open_study(sys.argv[1]), "a", memory=int(sys.argv[2]), halves=False)
print(json.dumps([resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, found.summary["nonzeros"]]))
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peak memory is in other units")
def test_memory_is_kept(tmp_path):
    """Targets of thousands of weights in less memory than their working sets would take."""
    runs, train, targets = 6000, 9000, 256
    draw = np.random.default_rng(0)
    study = dmstore.create_study(
        tmp_path / "s.dm",
        {"train_id": np.arange(train).astype(str), "target_id": np.arange(targets).astype(str)},
    )
    algorithm = study.add_algorithm("a", sampling="foreign", alpha=0.5)
    mask = draw.random((runs, train)) < 0.5
    weight = draw.normal(size=(train, targets)).astype(np.float32)
    weight *= draw.random(weight.shape) < 0.2
    columns = {"time": np.zeros(runs, np.int64), "host": np.full(runs, "h")}
    margin = mask.astype(np.float32) @ weight
    rows = Rows(np.arange(runs), {"mask": mask, "margin": margin}, columns)
    algorithm.table.append(algorithm.complete(rows, "test"))
    memory = 1_150_000_000
    command = [sys.executable, "-c", FIT, str(study.path), str(memory)]
    peak, nonzeros = json.loads(subprocess.check_output(command))
    assert nonzeros[1] > 1500
    assert peak <= memory
