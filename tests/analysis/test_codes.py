"""Codes of directions: what is written is read back, and nothing else is."""

import pytest

from dmstore.analysis.comparison.codes import direction_code, direction_place


@pytest.mark.parametrize("place", [(0, 0), (1, 1), (0, 99), (1, 999_998)])
def test_a_code_is_read_back(place):
    assert direction_place(direction_code(*place)) == place


def test_the_first_of_either_algorithm():
    assert [direction_code(row, 0) for row in (0, 1)] == ["A1", "B1"]


@pytest.mark.parametrize(
    "text",
    ["", "A", "1", "A0", "A01", "C1", "a1", "A1 ", "A1\n", "AA1", "A-1", "A1234567", "A\u0661"],
)
def test_what_is_no_code(text):
    assert direction_place(text) is None
