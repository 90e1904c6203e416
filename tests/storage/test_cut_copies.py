"""Copies of a study that were interrupted: verification tells, and no command deletes what is left of its rows."""

import os
import re
import shutil
import tarfile
from pathlib import Path

import pytest
from helpers import Done, fill
from paths import ROOT

import dmstore
from dmstore.errors import CorruptionError
from dmstore.regression import fit
from dmstore.storage.acts.compact import compact
from dmstore.storage.acts.vacuum import vacuum as vacuum_table
from dmstore.storage.table import log
from dmstore.upkeep.maintenance import vacuum
from dmstore.upkeep.verification import verify

ARCHIVE = ROOT / "tests/archives/v1.0/stores.tar.xz"
X = "[0-9a-f]+"
# One file of each kind, by what verification says of a study without it: a part of its kind and text.
TOLD = {
    r"algorithms/plain/runs/log/0*1\.json": "missing: is not there, though later entries are",
    rf"algorithms/plain/runs/segments/{X}/.*": "missing: is not there, though the log says",
    r"algorithms/other/algorithm\.json": "missing: is not there, but its runs are",
    r"algorithms/other/plans/0001\.json": "mask: run 0: not in the plan",
    r"algorithms/other/runs/base/.*/margin/c/.*": "unreadable: .*margin/c/.* is not there",
    r"algorithms/other/runs/base/.*/host/c/.*": "unreadable: .*host/c/.* is not there",
    r"algorithms/other/runs/base/.*/host/zarr\.json": "missing: is not there",
    rf"comparisons/{X}/comparison\.json": "unreadable: .*comparison.json",
    rf"comparisons/{X}/comparison-{X}\.zarr/direction/c/.*": "missing-chunk: .*direction/c",
    rf"datamodels/other/{X}/fit\.json": "missing: is not there",
    rf"datamodels/other/{X}/datamodels-{X}\.zarr/weight/c/.*": "missing-chunk: .*weight/c",
    r"examples/train\.zarr/id/c/.*": "examples: .*id/c/.* is not there",
    r"examples/annotations/train-weight\.zarr/c/.*|examples/annotations/.*\.zarr/value/c/.*": "annotation: .* is not there",
    r"targets/shifted\.json": "unreferenced: no document names this target set",
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    place = tmp_path_factory.mktemp("whole")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(place, filter="data")
    for path in place.rglob("*"):
        os.utime(path, (1_600_000_000, 1_600_000_000))
    return place / "local"


def names(root):
    return sorted(p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file())


def copy(whole, target, wanted):
    for name in wanted:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        # As copies are that keep times: to a vacuum all of it is old.
        shutil.copy2(whole / name, target / name)
    return target


def rows_in(path):
    """Bases, segments and groups of examples: what holds rows, by name."""
    return {n for n in names(path) if re.search(r"/(base|segments)/|^examples/", n)}


def tells(path):
    """What verification says, but for the conflicts that this study was given on purpose."""
    problems = [p for p in verify(dmstore.open_study(path)) if p.kind != "conflict"]
    return [f"{problem.kind}: {problem.text}" for problem in problems]


def test_the_whole_verifies(whole):
    assert tells(whole) == []


@pytest.mark.parametrize("pattern", TOLD)
def test_verification_tells_which_file_is_not_there(whole, tmp_path, pattern):
    left_out = next(name for name in names(whole) if re.fullmatch(pattern, name))
    cut = copy(whole, tmp_path / "cut", set(names(whole)) - {left_out})
    told = tells(cut)
    assert any(re.match(TOLD[pattern], line) for line in told), told


# Where a copy in the order of names may stop, `study.json` and examples being there already.
CUTS = {
    "in a base": r"algorithms/plain/runs/base/.*/margin/c/.*",
    "before the log": r"algorithms/plain/runs/log/.*1\.json",
    "in the log": r"algorithms/plain/runs/log/.*2\.json",
    "before the segments": r"algorithms/plain/runs/segments/.*",
}


@pytest.mark.parametrize("where", CUTS)
def test_a_copy_cut_off(whole, tmp_path, where):
    everything = names(whole)
    at = next(i for i, name in enumerate(everything) if re.fullmatch(CUTS[where], name))
    first = {n for n in everything if n.startswith(("study.json", "examples/", "targets/"))}
    cut = copy(whole, tmp_path / "cut", first | set(everything[:at]))
    assert tells(cut), "verification says nothing"
    before = rows_in(cut)
    with pytest.raises(CorruptionError, match="nothing was deleted"):
        vacuum(dmstore.open_study(cut))
    with pytest.raises(CorruptionError, match="nothing was deleted"):
        vacuum(dmstore.open_study(cut), grace=0)
    assert rows_in(cut) == before
    # The rest of the copy makes it whole again.
    copy(whole, cut, everything)
    assert tells(cut) == []


def test_a_base_without_a_log(study, algorithm):
    """What was copied before `runs/log/` reads as an algorithm without runs."""
    fill(algorithm, range(30))
    compact(algorithm.table)
    vacuum(study, grace=0)
    shutil.rmtree(algorithm.objects.path(f"{algorithm.table.prefix}log"))
    for path in Path(study.path).rglob("*"):
        os.utime(path, (1_600_000_000, 1_600_000_000))
    opened = dmstore.open_study(study.path)
    (problem,) = verify(opened)
    assert (problem.kind, problem.text.split(":")[0]) == (
        "unreferenced",
        "holds 30 runs that no log entry names",
    )
    assert "1 base that no log entry names" in Done("status", study.path).stdout
    done = Done("verify", study.path)
    assert done.returncode == 1
    assert "holds 30 runs" in done.stdout
    assert "holds 30 runs" in Done("vacuum", study.path, "--grace", "0").stderr
    # Without the check too: no entry was ever made, so nothing says that a base is waste.
    assert vacuum_table(opened.algorithm("alpha").table, set, grace=0).removed == ()


def test_a_fit_of_runs_that_are_not_there(study, algorithm):
    fill(algorithm, range(200))
    compact(algorithm.table)
    fill(algorithm, range(200, 300))
    fit(study, "alpha", lams=3, halves=False)
    newest = Path(algorithm.objects.path(log.entry_name(algorithm.table.prefix, 2)))
    newest.unlink()
    told = tells(study.path)
    assert any("is of version 2 of the runs, but the log ends at 1" in line for line in told), told


def test_a_comparison_whose_fits_are_not_there(whole, tmp_path):
    kept = {name for name in names(whole) if not name.startswith("algorithms/other/")}
    cut = copy(whole, tmp_path / "cut", {n for n in kept if not n.startswith("datamodels/other/")})
    told = tells(cut)
    assert any(re.match("missing: is of fit [0-9a-f]+, which is not there", t) for t in told), told


def test_a_flipped_byte_of_a_fit(study, algorithm):
    fill(algorithm, range(300))
    fit(study, "alpha", lams=3, halves=False)
    (chunk,) = Path(study.path, "datamodels").rglob("datamodels-*.zarr/weight/c/0/0")
    raw = bytearray(chunk.read_bytes())
    raw[len(raw) // 2] ^= 1
    chunk.write_bytes(raw)
    assert any(line.startswith("corrupt") and "weight" in line for line in tells(study.path))
    with pytest.raises(CorruptionError, match="weight: cannot be read"):
        dmstore.open_study(study.path).datamodels("alpha").weight.compute()
    done = Done("evaluate", study.path, "alpha", "--force")
    assert done.returncode == 1
    assert "weight: cannot be read" in done.stderr
    assert "fault of dmstore" not in done.stderr
