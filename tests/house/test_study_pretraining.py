"""The parts of the study of pre-training that need no training."""

import sys

import numpy as np
import pytest
from paths import ROOT

sys.path.insert(0, str(ROOT))
from studies.pretraining import colours, figure


def plain(colour):
    """An image of one colour."""
    return np.broadcast_to(np.array(colour, dtype=np.uint8), (16, 16, 3))


def test_borders_are_named_by_their_colour_and_not_by_the_middle():
    images = np.stack(
        [plain(c) for c in [(90, 95, 99), (40, 80, 220), (60, 120, 40), (200, 90, 9)]]
    )
    images[1, 4:-4, 4:-4] = (255, 0, 0)
    assert colours.border(images).tolist() == ["grey", "blue", "green", "warm"]


def test_light_is_the_mean_brightness():
    images = np.stack([plain((k, k, k)) for k in (99, 101, 139, 141)])
    assert colours.light(images).tolist() == ["dark", "middle", "middle", "light"]


@pytest.mark.parametrize(("intensity", "expected"), [(0, (200, 90, 9)), (1, (114, 114, 114))])
def test_grey_takes_the_colour_away(intensity, expected):
    changed = colours.grey(plain((200, 90, 9))[None], intensity)
    assert changed.dtype == np.uint8
    assert (changed == np.array(expected)).all()


def test_blue_is_half_way_at_a_half():
    assert colours.blue(plain((0, 0, 0))[None], 0.5)[0, 0, 0].tolist() == [35, 65, 100]


def test_the_table_counts_all_that_a_method_took():
    interval = {"lds_low": 0.1, "lds_high": 0.3}
    judged = {
        "curve": {"steps": [{"runs": 100, "lds": 0.2, **interval}]},
        "methods": [{"method": "fit", "lds": 0.9}, {"method": "trak-3", "lds": 0.25, **interval}],
    }
    cost = {"run": 0.6, "full": 1.2, "trak": 18.8, "fit": 12.0}
    made = figure.rows("head", judged, cost, (3,))
    assert [row[3] for row in made] == pytest.approx([72.0, 60.0])
    assert figure.lines(made)[1].split()[:5] == ["head", "datamodels", "100", "1.2", "0.200"]
    assert figure.lines(made)[2].split()[:5] == ["head", "TRAK", "3", "1.0", "0.250"]
