"""Faults put into the protocol on purpose: the scheduler must find each, else it proves nothing.

Each mutant is a change of one function's text. It is compiled in the function's own module and put in its
place wherever that was imported; a text that is no longer there fails, so that mutants keep up with the code.

Not among them: what changes nothing. Vacuum asks a second time what is pinned, a base is read back before it
is committed, and a reader reads the log before it lists: each is a second guard of what another guards.
"""

import __future__

import inspect
import sys
import textwrap

import pytest
from simulation import KINDS, World

from dmstore.storage.acts import compact, retract, tag, vacuum
from dmstore.storage.table import log, protocol, snapshot

SCHEDULES = 50
# Name: module, function, text, what stands there instead.
MUTANTS = {
    "vacuum forgets removed names while old listings show them": (
        vacuum,
        "vacuum_steps",
        "for e in history if e.committed <= before for",
        "for e in history for",
    ),
    "vacuum deletes though its commit lost": (
        vacuum,
        "vacuum_steps",
        "if not (yield from log.commit_steps(prefix, following)):\n                continue",
        "yield from log.commit_steps(prefix, following)",
    ),
    "vacuum deletes without a commit": (
        vacuum,
        "vacuum_steps",
        "if segments or bases:",
        "segments |= {f'{prefix}{p}' for p in bases}\n        if False:",
    ),
    "vacuum takes segments at once": (
        vacuum,
        "_old_segments",
        "if entry.committed <= before for name",
        "for name",
    ),
    "vacuum takes bases at once": (vacuum, "_old_bases", "if since <= before and path", "if path"),
    "vacuum counts a base's age from its making": (
        vacuum,
        "_old_bases",
        "max(changed[base.path], following.committed)",
        "changed[base.path]",
    ),
    "vacuum takes the base in force": (vacuum, "_old_bases", " and path != in_force", ""),
    "vacuum drops retractions": (vacuum, "vacuum_steps", 'reason="",', 'reason="", retracted=(),'),
    "the newest entry is what the listing shows": (
        log,
        "newest_steps",
        "while (yield from moved(prefix, version)):\n        version += 1",
        "",
    ),
    "a commit overwrites": (
        log,
        "commit_steps",
        "return (yield from create(entry_name(prefix, manifest.version), encode(manifest)))",
        "yield from create(entry_name(prefix, manifest.version), encode(manifest))\n    return True",
    ),
    "a lost reply is a lost race": (
        protocol,
        "create",
        "return bool((yield Get(name)) == content)",
        "return False",
    ),
    "a taken name is success": (
        protocol,
        "create",
        "return bool((yield Get(name)) == content)",
        "return True",
    ),
    "a reader does not look whether the log moved": (
        snapshot,
        "snapshot_steps",
        "if (yield from log.moved(prefix, manifest.version)):\n            continue\n",
        "\n",
    ),
    "a reader gives up on what is missing": (
        snapshot,
        "snapshot_steps",
        "if not moved and not isinstance(error, FileNotFoundError):",
        "if True:",
    ),
    "a reader looks at removed segments": (
        snapshot,
        "snapshot_steps",
        "{*manifest.absorbed, *manifest.removed}",
        "{*manifest.absorbed}",
    ),
    "conflicts go by digest alone": (snapshot, "resolve", "~in_base[rows], run[rows]", "run[rows]"),
    "a compactor absorbs rows that lost a conflict": (
        compact,
        "_next",
        "if info.name not in state.conflicted",
        "",
    ),
    "a compactor forgets what was removed": (
        compact,
        "_next",
        "removed=state.manifest.removed,",
        "",
    ),
    "a compactor forgets retractions": (
        compact,
        "_next",
        "retracted=state.manifest.retracted,",
        "",
    ),
    "a compactor deletes its base when a commit is unclear": (
        compact,
        "compaction_steps",
        "if (yield from log.commit_steps(prefix, manifest)):",
        "try:\n            made = yield from log.commit_steps(prefix, manifest)\n        except StorageError:\n            made = False\n        if made:",
    ),
    "a compactor does not start over": (
        compact,
        "compaction_steps",
        "continue\n            raise",
        "raise\n            raise",
    ),
    "a compactor commits at whatever version is next": (
        compact,
        "compaction_steps",
        "manifest = _next(state, path)",
        "import dataclasses\n        manifest = dataclasses.replace(_next(state, path), version=(yield from log.newest_steps(prefix)).version + 1)",
    ),
    "a tag does not look again": (
        tag,
        "create_steps",
        "if newest.base is None or newest.base.path != manifest.base.path:",
        "if False:",
    ),
    "a tag looks again at what it knew": (
        tag,
        "create_steps",
        "newest = yield from log.newest_steps(prefix)",
        "newest = manifest",
    ),
    "vacuum believes that it sees the whole log": (
        vacuum,
        "_history",
        "for version in range(listed + 1, newest + 1):",
        "for version in ():",
    ),
    "a retraction replaces earlier ones": (
        retract,
        "retraction_steps",
        "{*state.manifest.retracted, *pairs}",
        "pairs",
    ),
    "a retraction starts from what it knew": (
        retract,
        "retraction_steps",
        "if (yield from log.commit_steps(prefix, manifest)):",
        "while not (yield from log.commit_steps(prefix, manifest)):\n            manifest = replace(manifest, version=manifest.version + 1)\n        if True:",
    ),
}


def mutate(monkeypatch, module, name, old, new):
    """Put a changed function in the place of the right one, wherever that was imported."""
    right = getattr(module, name)
    text = textwrap.dedent(inspect.getsource(right))
    assert text.count(old) == 1, f"{module.__name__}.{name} has no longer {old!r}"
    scope = {}
    code = compile(text.replace(old, new), name, "exec", flags=__future__.annotations.compiler_flag)
    exec(code, module.__dict__, scope)
    for other in list(sys.modules.values()):
        if getattr(other, "__name__", "").startswith(("dmstore.storage", "simulation")):
            for key, value in list(vars(other).items()):
                if value is right:
                    monkeypatch.setattr(other, key, scope[name])


def found(kind, schedules=SCHEDULES):
    """The first schedule of a kind that ends in an error, None where none does."""
    for seed in range(schedules):
        try:
            World(f"{kind} {seed}", **KINDS[kind]).run()
        except Exception:  # noqa: BLE001 - an invariant, or an error that no step may end in
            return seed
    return None


@pytest.mark.slow
@pytest.mark.parametrize("mutant", MUTANTS)
def test_each_mutant_is_found(monkeypatch, mutant):
    mutate(monkeypatch, *MUTANTS[mutant])
    assert any(found(kind) is not None for kind in KINDS)
