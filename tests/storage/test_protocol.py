"""The protocol's own steps under a scheduler: interleavings, faults and deaths, each by its seed."""

import pytest
from simulation import KINDS, PREFIX, STALE, Faults, World

from dmstore.errors import IncompleteError
from dmstore.storage.acts import tag, vacuum
from dmstore.storage.acts.compact import compaction_steps
from dmstore.storage.table import protocol


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("schedules", [50, pytest.param(1500, marks=pytest.mark.slow)])
def test_schedules(kind, schedules):
    reads = fills = 0
    for seed in range(schedules):
        world = World(f"{kind} {seed}", **KINDS[kind])
        try:
            world.run()
        except Exception as error:
            error.add_note(f"World('{kind} {seed}', **KINDS['{kind}']).run()")
            raise
        reads += world.history.reads
        fills += world.history.fills
    assert reads > schedules
    assert (fills > 0) == (kind == "fills")


@pytest.fixture
def world():
    """A base in force, rows in the tail, and nobody at work."""
    made = World("quiet", grace=4 * STALE, faults=Faults())
    for number, rows in enumerate(([100], [101], [102])):
        made.alone(made.append(rows, 7)[0]())
        if number == 1:
            made.alone(compaction_steps(PREFIX, {}, protocol.Call(lambda: None)))
    return made


def test_a_tag_is_withdrawn_if_its_base_went_out_of_force_before_all_vacuums_could_see_it(world):
    steps = tag.create_steps(PREFIX, "late")
    actor = world.actor(steps)
    while not isinstance(actor.operation, protocol.Put):
        actor.move()
    world.alone(compaction_steps(PREFIX, {}, protocol.Call(lambda: None)))
    with pytest.raises(IncompleteError, match="run the command again"):
        actor.finish()
    assert world.storage.listing(99, f"{PREFIX}tags/") == []
    assert world.alone(tag.create_steps(PREFIX, "late"))["runs"] == 3


def test_vacuum_spares_a_base_whose_going_out_of_force_its_listing_does_not_show(
    world, monkeypatch
):
    old = world.alone(tag.create_steps(PREFIX, "now"))["base"]
    world.storage.clock += 10 * world.grace
    whole = world.storage.listing
    before = whole(99, f"{PREFIX}log/")
    world.alone(compaction_steps(PREFIX, {}, protocol.Call(lambda: None)))
    # What an old listing of the log shows, and one of the tags that shows none.
    monkeypatch.setattr(
        world.storage,
        "listing",
        lambda actor, prefix: before if prefix == f"{PREFIX}log/" else whole(actor, prefix),
    )
    steps = vacuum.vacuum_steps(PREFIX, protocol.Call(set), world.grace)
    assert f"{PREFIX}{old}" not in world.alone(steps).removed
    monkeypatch.undo()
    world.storage.clock += 2 * world.grace
    steps = vacuum.vacuum_steps(PREFIX, protocol.Call(set), world.grace)
    assert f"{PREFIX}{old}" in world.alone(steps).removed
