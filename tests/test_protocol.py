"""The protocol's own steps under a scheduler: interleavings, faults and deaths, each by its seed."""

import pytest
from simulation import STALE, Faults, World

KINDS = {
    # Without a grace period, and listings that are never old: what two hosts do at the same moment.
    "no grace": {"grace": 0.0, "faults": Faults()},
    "deaths": {"grace": 0.0, "faults": Faults(death=0.01)},
    "faults": {
        "grace": 0.0,
        "faults": Faults(lost_reply=0.1, false_exists=0.05, refused=0.02, death=0.003),
    },
    "grace": {"grace": 2 * STALE, "faults": Faults(), "readers": 3},
    "tags": {"grace": 0.0, "faults": Faults(), "taggers": 3},
    "stale listings": {"grace": 4 * STALE, "faults": Faults(stale=0.5)},
    "stale and refused": {
        "grace": 4 * STALE,
        "faults": Faults(stale=0.5, refused=0.1),
        "vacuums": 3,
        "readers": 3,
        "taggers": 0,
    },
    "stale tags": {
        "grace": 2 * STALE,
        "faults": Faults(stale=0.5),
        "vacuums": 3,
        "readers": 1,
        "taggers": 4,
    },
    "everything": {
        "grace": 4 * STALE,
        "faults": Faults(lost_reply=0.1, false_exists=0.05, refused=0.02, stale=0.5, death=0.003),
    },
    "conflicts": {"grace": 0.0, "faults": Faults(lost_reply=0.05), "conflicts": True},
    "retraction": {"grace": 0.0, "faults": Faults(lost_reply=0.05, death=0.003), "retractor": True},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("schedules", [50, pytest.param(1500, marks=pytest.mark.slow)])
def test_schedules(kind, schedules):
    reads = 0
    for seed in range(schedules):
        world = World(f"{kind} {seed}", **KINDS[kind])
        try:
            world.run()
        except Exception as error:
            error.add_note(f"World('{kind} {seed}', **KINDS['{kind}']).run()")
            raise
        reads += world.history.reads
    assert reads > schedules
