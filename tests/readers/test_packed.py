"""Packed masks: the order of their bits is said or proved, never assumed."""

from types import SimpleNamespace

import numpy as np
import pytest
from helpers import Done, examples

import dmstore
from dmstore.core import bits
from dmstore.errors import InputError
from dmstore.intake.ingest import take_in as ingest
from dmstore.readers import packed
from dmstore.readers.source import Request

RUNS, TRAIN = 12, 40


@pytest.fixture
def study(tmp_path):
    # A multiple of 8: no bit is spare, and nothing in a packed mask says its order.
    return dmstore.create_study(tmp_path / "study.dm", examples(train=TRAIN), seed=3)


@pytest.fixture
def foreign(study):
    return study.add_algorithm("f", sampling="foreign", alpha=None)


def masks(train=TRAIN):
    return np.random.default_rng(1).random((RUNS, train)) < 0.5


def arrays(**more):
    margin = np.random.default_rng(2).normal(size=(RUNS, 23))
    return {"run": np.arange(RUNS), "margin": margin, **more}


def npz(folder, **members):
    np.savez(folder / "w.npz", **members)
    return folder / "w.npz"


def npy_folder(folder, **members):
    place = folder / "npy"
    place.mkdir(exist_ok=True)
    for name, values in members.items():
        np.save(place / f"{name}.npy", values)
    return place


def plain_npz(folder, **members):
    np.savez(folder / "p.npz", **{n: v for n, v in members.items() if n != "run"})
    return folder / "p.npz"


@pytest.mark.parametrize("save", [npz, npy_folder, plain_npz])
@pytest.mark.parametrize("order", ["little", "big"])
def test_the_order_is_said_by_the_file_or_by_the_user(foreign, tmp_path, save, order):
    octets = np.packbits(masks(), axis=1, bitorder=order)
    path = save(tmp_path, **arrays(mask_packed=octets))
    try:
        error = ingest(foreign, [path]).errors[0]
    except InputError as raised:
        error = str(raised)
    assert "bit order" in error
    assert "mask_bitorder" in error
    assert len(foreign.table.view()) == 0
    said = ingest(foreign, [path], request=Request(bitorder=order))
    assert (said.new, said.errors) == (RUNS, [])
    assert np.array_equal(foreign.table.view().read(["mask"])["mask"], masks())
    path = save(tmp_path, **arrays(mask_packed=octets, mask_bitorder=np.array(order)))
    assert ingest(foreign, [path]).present == RUNS
    other = Request(bitorder={"little": "big", "big": "little"}[order])
    assert f"in {order} bit order" in ingest(foreign, [path], request=other).errors[0]
    path = save(tmp_path, **arrays(mask_packed=octets, mask_bitorder=np.array("mixed")))
    assert "'little' or 'big'" in ingest(foreign, [path]).errors[0]


def test_a_plan_proves_the_order(study, tmp_path):
    planned = study.add_algorithm("p", runs=RUNS)
    own = np.array([run.mask for run in planned.describe(np.arange(RUNS))])
    path = npz(tmp_path, **arrays(mask_packed=np.packbits(own, axis=1)))
    assert ingest(planned, [path]).new == RUNS
    path = npy_folder(tmp_path, **arrays(mask_packed=bits.pack_rows(own)))
    assert ingest(planned, [path]).present == RUNS
    path = npz(tmp_path, **arrays(mask_packed=np.packbits(~own, axis=1)))
    assert "not the plan's" in ingest(planned, [path]).errors[0]
    path = npz(tmp_path, **arrays(mask_packed=np.packbits(own, axis=1), run=np.arange(RUNS) + 900))
    assert "not in the plan" in ingest(planned, [path]).errors[0]


def test_spare_bits_prove_the_order(tmp_path):
    study = dmstore.create_study(tmp_path / "s.dm", examples(train=37), seed=3)
    foreign = study.add_algorithm("f", sampling="foreign", alpha=None)
    path = npz(tmp_path, **arrays(mask_packed=np.packbits(masks(37), axis=1)))
    assert ingest(foreign, [path]).new == RUNS
    assert np.array_equal(foreign.table.view().read(["mask"])["mask"], masks(37))
    path = npz(tmp_path, **arrays(mask_packed=bits.pack_rows(masks(37))))
    assert ingest(foreign, [path]).present == RUNS


def test_what_spare_bits_cannot_prove():
    nothing = np.zeros(3, np.uint8)
    with pytest.raises(InputError, match="nothing says"):
        packed.decide(nothing, 37, None, "x")
    assert packed.decide(nothing, 37, "big", "x") == "big"
    assert packed.decide(np.array([0b0001_1111], np.uint8), 37, None, "x") == "little"
    assert packed.decide(np.array([0b1111_1000], np.uint8), 37, None, "x") == "big"
    for last, said in ((0b1000_0001, None), (0b1111_1000, "little"), (0b0001_1111, "big")):
        with pytest.raises(InputError, match="beyond train unit 36"):
            packed.decide(np.array([last], np.uint8), 37, said, "x")


def test_our_own_files_say_it_and_older_ones_prove_it(study, tmp_path):
    """Files of earlier writers say no order, but have digests of the rows."""
    from dmstore.training.standalone import dmstore_writer as own

    foreign = study.add_algorithm("g", sampling="foreign", alpha=None)
    with own.Writer(tmp_path / "w") as writer:
        for run, mask in enumerate(masks()):
            writer.append(run, mask=mask, margin=arrays()["margin"][run])
    (path,) = (tmp_path / "w").glob("*.npz")
    with np.load(path) as file:
        members = dict(file)
    assert str(members.pop("mask_bitorder")) == "little"
    older = npz(tmp_path, **members)
    assert (ingest(foreign, [older]).new, ingest(foreign, [path]).present) == (RUNS, RUNS)
    assert np.array_equal(foreign.table.view().read(["mask"])["mask"], masks())
    turned = npz(tmp_path, **{**members, "mask_packed": np.packbits(masks(), axis=1)})
    assert "row_digest" in ingest(foreign, [turned]).errors[0]


def test_on_the_command_line(study, foreign, tmp_path):
    path = npz(tmp_path, **arrays(mask_packed=np.packbits(masks(), axis=1)))
    done = Done("ingest", study.path, "f", path)
    assert done.returncode == 1
    assert "--mask-bitorder" in done.stderr
    done = Done("ingest", study.path, "f", path, "--mask-bitorder", "big")
    assert (done.returncode, "12 runs new" in done.stdout) == (0, True)


def test_no_algorithm_no_plan():
    assert packed.order_of_plan(None, 0, np.zeros(5, np.uint8)) is None
    assert packed.order_of_plan(SimpleNamespace(planned=False), 0, np.zeros(5, np.uint8)) is None
