"""Small fits of every kind find what they found when tests/data/small_fits.npz was made.

Bit by bit where processor and libraries are those of that day, else as far as rounding goes.
"""

import numpy as np
import pytest
from paths import DATA
from small_fits import all_fits, machine


@pytest.fixture(scope="module")
def fits(tmp_path_factory):
    return all_fits(tmp_path_factory.mktemp("fits"))


@pytest.fixture(scope="module")
def kept():
    with np.load(DATA / "small_fits.npz") as file:
        return {name: file[name] for name in file.files}


def check(found, expected, *, bits):
    for name, values in expected.items():
        if bits:
            assert np.array_equal(found[name], values, equal_nan=values.dtype.kind == "f"), name
        elif name in ("kkt", "gap", "sweeps"):
            # Of what is left of a solve, rounding is most.
            assert found[name].shape == values.shape
        else:
            assert np.allclose(found[name], values, rtol=1e-3, atol=1e-4, equal_nan=True), name


def test_what_is_found_is_what_was_found(fits, kept):
    bits = str(kept["machine"]) == machine()
    names = {name.partition("/")[0] for name in kept} - {"machine"}
    assert names == {name for name in fits if not name.endswith(("scratch", "cluster"))}
    for case in sorted(names):
        expected = {key.partition("/")[2]: kept[key] for key in kept if key.startswith(f"{case}/")}
        check(fits[case], expected, bits=bits)


@pytest.mark.parametrize("own", ["", "own "])
@pytest.mark.parametrize("way", ["scratch", "cluster"])
def test_other_ways_find_the_same_bits(fits, own, way):
    found, expected = fits[f"{own}shared, {way}"], fits[f"{own}shared"]
    assert found.keys() == expected.keys()
    check(found, expected, bits=True)
