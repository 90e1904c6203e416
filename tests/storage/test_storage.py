"""Segments, views, compaction, vacuum, tags, verification: one process."""

import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from helpers import examples, fill, make_rows

import dmstore
from dmstore.errors import (
    CorruptionError,
    DmstoreError,
    ExistsError,
    FormatError,
    IncompleteError,
    InputError,
    MissingChunkError,
    StorageError,
    StudyNotFoundError,
)
from dmstore.schema.group_specs import group_spec, known_outputs
from dmstore.storage.acts import tag
from dmstore.storage.acts.compact import compact
from dmstore.storage.acts.vacuum import vacuum
from dmstore.storage.acts.verify import verify
from dmstore.storage.objects.local import LocalObjects
from dmstore.storage.table import log
from dmstore.storage.table.rows import row_digests
from dmstore.storage.table.snapshot import content_id
from dmstore.study.study import open_study
from dmstore.upkeep import maintenance, verification


def same(view, algorithm, ids, seed=0):
    """Whether a view shows exactly these rows, bit for bit."""
    expected = make_rows(algorithm, sorted(ids), seed)
    order = np.argsort(view.run)
    found = view.read(["margin", "prediction", "mask", "seed"])
    return view.run[order].tolist() == sorted(ids) and all(
        np.array_equal(found[name][order], {**expected.arrays, **expected.columns}[name])
        for name in found
    )


def test_append_compact_append(algorithm):
    fill(algorithm, range(150))
    table = algorithm.table
    before = table.view()
    assert same(before, algorithm, range(150))
    assert len(before.tail) == 3
    done = compact(table)
    assert done.absorbed == 3
    fill(algorithm, range(150, 200))
    after = table.view()
    assert after.manifest.version == 1
    assert same(after, algorithm, range(200))
    assert same(before, algorithm, range(150))
    assert compact(table).manifest.base.runs == 200
    assert compact(table).absorbed == 0


def test_empty_table_has_an_empty_view(study, algorithm):
    view = algorithm.table.view()
    assert len(view) == 0
    assert compact(algorithm.table).manifest.version == 0
    runs = study.runs("alpha")
    assert runs.sizes["run"] == 0
    assert runs.margin.shape == (0, 23)


def test_content_id_ignores_history(study, algorithm):
    other = study.add_algorithm("beta", runs=300, outputs=["margin", "prediction"])
    rows = make_rows(algorithm, range(90))
    algorithm.table.append(rows)
    for start in (60, 30, 0):
        other.table.append(rows.take(slice(start, start + 30)))
    compact(other.table)
    assert algorithm.table.view().content_id() == other.table.view().content_id()
    assert algorithm.table.view().content_id() != content_id(
        rows.run[1:], np.zeros((89, 16), np.uint8)
    )


def test_same_content_twice_is_one_row(algorithm):
    fill(algorithm, range(10))
    fill(algorithm, range(5, 15))
    view = algorithm.table.view()
    assert same(view, algorithm, range(15))
    assert view.conflicts == ()


def test_conflict_is_reported_and_its_segment_kept(algorithm):
    table = algorithm.table
    fill(algorithm, range(10), seed=0)
    fill(algorithm, range(8, 12), seed=1)
    view = table.view()
    assert [run for run, _ in view.conflicts] == [8, 9]
    assert sorted(view.run.tolist()) == list(range(12))
    shown = {
        run: digest.tobytes() for run, digest in zip(view.run.tolist(), view.digest, strict=True)
    }
    lost = {run: bytes.fromhex(digest) for run, digest in view.conflicts}
    assert all(shown[run] < lost[run] for run in lost)
    compact(table)
    vacuum(table, set, grace=0)
    again = table.view()
    assert again.conflicts == view.conflicts
    assert again.content_id() == view.content_id()
    assert [p.kind for p in verify(table)] == ["conflict", "conflict"]


def test_base_wins_a_conflict(algorithm):
    fill(algorithm, range(10), seed=0)
    compact(algorithm.table)
    fill(algorithm, range(10), seed=1)
    assert same(algorithm.table.view(), algorithm, range(10), seed=0)


def test_retracted_rows_leave_later_views(algorithm):
    table = algorithm.table
    fill(algorithm, range(20))
    compact(table)
    old = table.view()
    pairs = [(int(r), d.tobytes().hex()) for r, d in zip(old.run[:3], old.digest[:3], strict=True)]
    manifest = log.Manifest(
        2, "retract", old.manifest.base, old.manifest.absorbed, (), tuple(pairs)
    )
    assert log.commit(table.objects, table.prefix, manifest)
    assert same(table.view(), algorithm, range(3, 20))
    assert compact(table).manifest.base.runs == 17
    assert same(table.view(), algorithm, range(3, 20))
    assert same(old, algorithm, range(20))


def test_vacuum_keeps_what_is_young_tagged_or_in_force(algorithm):
    table = algorithm.table
    fill(algorithm, range(20))
    compact(table)
    assert vacuum(table, set).removed == ()
    tag.create(table, "first")
    fill(algorithm, range(20, 30))
    compact(table)
    pinned = lambda: {entry["base"] for entry in tag.read_all(table)}  # noqa: E731
    removed = vacuum(table, pinned, grace=0).removed
    assert len(removed) == 2
    assert all(name.endswith(".zarr.zip") for name in removed)
    assert len(table.objects.children(f"{table.prefix}base/")) == 2
    fill(algorithm, range(30, 40))
    compact(table)
    assert len(vacuum(table, pinned, grace=0).removed) == 2
    assert same(table.view(), algorithm, range(40))
    assert vacuum(table, pinned, grace=0).removed == ()


def test_late_compactor_finds_its_version_taken(algorithm, monkeypatch):
    """A compactor that sleeps through another's commit and a vacuum must not bring old rows back."""
    from dmstore.storage.acts import compact as module

    table = algorithm.table
    fill(algorithm, range(20))
    write, calls = module.write_view, []

    def slow(view, path, progress):
        write(view, path, progress)
        if not calls:
            calls.append(path)
            compact(table)
            fill(algorithm, range(20, 25))
            compact(table)
            vacuum(table, set, grace=0)

    monkeypatch.setattr(module, "write_view", slow)
    done = compact(table)
    assert calls
    assert done.manifest.version == 3
    assert same(table.view(), algorithm, range(25))
    assert table.objects.children(f"{table.prefix}base/") == [
        done.manifest.base.path.removeprefix("base/")
    ]


def test_leftovers_of_dead_writers_are_removed(algorithm):
    table = algorithm.table
    fill(algorithm, range(5))
    directory = Path(table.objects.path(table.view().segments[0])).parent
    (directory / f".{'0' * 32}.part").write_bytes(b"half a segment")
    orphan = Path(table.objects.path(f"{table.prefix}base/00000009-dead.zarr"))
    orphan.mkdir(parents=True)
    (orphan / "zarr.json").write_text("{}")
    assert same(table.view(), algorithm, range(5))
    # No log entry says yet that this base is none of a copy whose log is still to come.
    assert vacuum(table, set, grace=0).removed == (
        (directory / f".{'0' * 32}.part").relative_to(table.objects.root).as_posix(),
    )
    compact(table)
    vacuum(table, set, grace=0)
    assert not orphan.exists()
    assert same(table.view(), algorithm, range(5))


def test_tags_never_move_and_need_a_base(algorithm):
    with pytest.raises(IncompleteError, match="no base"):
        tag.create(algorithm.table, "v1")
    fill(algorithm, range(5))
    compact(algorithm.table)
    made = tag.create(algorithm.table, "v1")
    assert made["content_id"] == algorithm.table.view().content_id()
    with pytest.raises(ExistsError, match="never move"):
        tag.create(algorithm.table, "V1")
    with pytest.raises(InputError):
        tag.create(algorithm.table, "a--b")


def test_base_is_plain_zarr(algorithm):
    fill(algorithm, range(50))
    base = compact(algorithm.table).manifest.base.path
    opened = xr.open_zarr(algorithm.table.objects.path(f"{algorithm.table.prefix}{base}"))
    assert opened.mask.dtype == bool
    assert opened.margin.dtype == np.float32
    assert opened.run.values.tolist() == list(range(50))
    assert "seed" in opened.coords
    expected = make_rows(algorithm, range(50))
    assert np.array_equal(opened.mask.values, expected.arrays["mask"])
    assert np.array_equal(opened.margin.values, expected.arrays["margin"])


def test_store_size(tmp_path):
    """At most .13 byte a mask element and 3.5 a float32 margin, on margins like real ones."""
    import dmstore
    from dmstore.storage.table.rows import Rows

    draw = np.random.default_rng(0)
    study = dmstore.create_study(
        tmp_path / "s",
        {"train_label": np.zeros(4096, int), "target_label": np.zeros(512, int)},
        seed=1,
    )
    made = study.add_algorithm("a", runs=1024)
    mask = np.array([run.mask for run in made.describe(np.arange(1024))])
    margin = (draw.normal(2, 3, 512) + draw.normal(0, 1, (1024, 512))).astype(np.float32)
    columns = {"time": np.zeros(1024, int), "host": np.full(1024, "h")}
    made.table.append(
        made.complete(Rows(np.arange(1024), {"mask": mask, "margin": margin}, columns), "x")
    )
    base = Path(made.table.objects.path(made.table.prefix + compact(made.table).manifest.base.path))
    size = {
        n: sum(f.stat().st_size for f in (base / n).rglob("*") if f.is_file())
        for n in ("mask", "margin")
    }
    assert size["mask"] / mask.size <= 0.13
    assert size["margin"] / margin.size <= 3.5


@pytest.mark.parametrize("where", ["segment", "base"])
def test_damage_is_found(study, algorithm, where):
    fill(algorithm, range(40))
    table = algorithm.table
    if where == "base":
        base = compact(table).manifest.base
        vacuum(table, set, grace=0)
        path = max(
            Path(table.objects.path(f"{table.prefix}{base.path}/margin")).rglob("c/*/*"),
            key=lambda p: p.stat().st_size,
        )
    else:
        path = Path(table.objects.path(table.view().segments[0]))
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 3] ^= 0x10
    path.write_bytes(raw)
    fresh = open_study(study.path)
    problems = list(verification.verify(fresh))
    assert problems
    assert all(p.where.startswith("algorithms/alpha/runs/") for p in problems)


def test_truncated_segment_is_an_error_not_a_hole(study, algorithm):
    fill(algorithm, range(40))
    path = Path(algorithm.table.objects.path(algorithm.table.view().segments[0]))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CorruptionError, match=r"\.zarr\.zip"):
        open_study(study.path).algorithm("alpha").table.view()


def test_wrong_mask_is_found_by_verify(study, algorithm):
    rows = make_rows(algorithm, range(3))
    rows.arrays["mask"][1] = ~rows.arrays["mask"][1]
    algorithm.table.append(rows)
    problems = list(verification.verify(study))
    assert [(p.kind, p.text) for p in problems] == [("mask", "run 1: mask is not the plan's")]


def test_segment_of_another_study_is_refused(study, algorithm, tmp_path):
    from helpers import examples

    import dmstore

    other = dmstore.create_study(tmp_path / "other", examples(), seed=3)
    twin = other.add_algorithm("alpha", runs=10, outputs=["margin", "prediction"])
    fill(twin, range(5))
    name = twin.table.view().segments[0]
    algorithm.objects.put_if_absent(name, twin.objects.get(name))
    with pytest.raises(FormatError, match="belongs elsewhere"):
        algorithm.table.view()


@pytest.mark.parametrize("name", ["study.json", "algorithms/alpha/algorithm.json", "log"])
def test_newer_format_is_refused(study, algorithm, name):
    fill(algorithm, range(5))
    compact(algorithm.table)
    path = Path(study.path, name)
    if name == "log":
        path = Path(algorithm.table.objects.path(log.entry_name(algorithm.table.prefix, 1)))
    document = json.loads(path.read_text())
    path.write_text(json.dumps({**document, "format_version": "2.0"}))
    with pytest.raises(FormatError, match=r"format 2\.0.*reads format 1\.0"):
        open_study(study.path).runs("alpha")
    path.write_text(json.dumps({**document, "format_version": "1.9", "later": 1}))
    assert open_study(study.path).runs("alpha").sizes["run"] == 5


def test_deleted_study_is_not_brought_half_back(study, algorithm):
    import shutil

    rows = make_rows(algorithm, range(5))
    algorithm.table.append(rows)
    shutil.rmtree(study.path)
    with pytest.raises(StudyNotFoundError, match="deleted or moved"):
        algorithm.table.append(rows)
    assert not Path(study.path).exists()
    with pytest.raises(StudyNotFoundError):
        study.runs("alpha").margin.values.sum()


@pytest.mark.parametrize("number", ["ENOSPC", "EDQUOT", "EIO", "EROFS"])
@pytest.mark.parametrize("call", ["fsync", "link", "open"])
def test_refused_operations_leave_the_store_as_it_was(study, algorithm, monkeypatch, call, number):
    import errno

    fill(algorithm, range(5))
    rows = make_rows(algorithm, range(5, 9))
    listing = sorted(str(p) for p in Path(study.path).rglob("*"))
    real = getattr(os, call)

    def refuse(*arguments, **named):
        if call == "open" and not arguments[1] & os.O_CREAT:
            return real(*arguments, **named)
        raise OSError(getattr(errno, number), os.strerror(getattr(errno, number)))

    monkeypatch.setattr(os, call, refuse)
    with pytest.raises(StorageError, match=r"segments|study\.dm"):
        algorithm.table.append(rows)
    monkeypatch.undo()
    files = sorted(str(p) for p in Path(study.path).rglob("*") if p.is_file())
    assert files == [p for p in listing if Path(p).is_file()]
    algorithm.table.append(rows)
    assert same(algorithm.table.view(), algorithm, range(9))


def test_lost_reply_of_link_is_success(study, algorithm, monkeypatch):
    """A network file system may report EEXIST for a link that it has just made."""
    real = os.link

    def lossy(source, destination):
        real(source, destination)
        raise FileExistsError(17, "File exists")

    monkeypatch.setattr(os, "link", lossy)
    fill(algorithm, range(5))
    assert same(algorithm.table.view(), algorithm, range(5))


def test_put_if_absent_has_one_winner(tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    objects = LocalObjects(tmp_path)
    for race in range(20):
        with ThreadPoolExecutor(8) as pool:
            won = list(
                pool.map(lambda k, r=race: objects.put_if_absent(f"log/{r}", bytes([k])), range(8))
            )
        assert sum(won) == 1
        assert objects.get(f"log/{race}") == bytes([won.index(True)])
    assert objects.leftovers() == []


def test_outputs_table_is_the_same_code(study, algorithm):
    """Outputs on a later target set: another schema, no mask, keyed by run id."""
    from dmstore.storage.table.rows import Rows
    from dmstore.storage.table.table import Table

    spec = group_spec("outputs", {"margin": known_outputs()["margin"]})
    identity = {"study": study.uuid, "algorithm": "alpha", "table": "outputs/late"}
    table = Table(study.objects, "algorithms/alpha/outputs/late/", spec, {"target": 4}, identity)
    columns = {"time": np.arange(3), "host": np.full(3, "h"), "run_digest": np.arange(3)}
    margin = np.arange(12, dtype=np.float32).reshape(3, 4)
    table.append(table.check(Rows(np.array([5, 1, 3]), {"margin": margin}, columns), "rows"))
    compact(table)
    view = table.view()
    assert view.run.tolist() == [5, 1, 3]
    assert np.array_equal(view.read(["margin"])["margin"], margin)
    assert list(verify(table)) == []


def test_columns_differ_between_segments(algorithm):
    one, two = make_rows(algorithm, range(4)), make_rows(algorithm, range(4, 8))
    one.columns["step"] = np.arange(4)
    two.columns["note"] = np.array(["a", "b", "c", "ü"])
    algorithm.table.append(one)
    algorithm.table.append(two)
    for _ in range(2):
        found = algorithm.table.view().read(["step", "note", "accuracy"])
        assert np.array_equal(found["step"], [0, 1, 2, 3, *[np.nan] * 4], equal_nan=True)
        assert found["note"].tolist() == [""] * 4 + ["a", "b", "c", "ü"]
        compact(algorithm.table)


def test_digest_covers_id_mask_and_outputs(algorithm):
    rows = make_rows(algorithm, range(4))
    spec = algorithm.table.spec
    digest = row_digests(rows.run, rows.arrays, spec)
    changed = {**rows.arrays, "prediction": rows.arrays["prediction"] ^ 1}
    assert (row_digests(rows.run, changed, spec) != digest).any(axis=1).all()
    assert (row_digests(rows.run + 1, rows.arrays, spec) != digest).any(axis=1).all()
    flipped = {**rows.arrays, "mask": ~rows.arrays["mask"]}
    assert (row_digests(rows.run, flipped, spec) != digest).any(axis=1).all()


def test_a_lost_chunk_is_an_error_not_a_fill_value(study, algorithm):
    """zarr reads a missing chunk as the fill value: masks that saw nothing."""
    fill(algorithm, range(40))
    base = compact(algorithm.table).manifest.base
    vacuum(algorithm.table, set, grace=0)
    view = algorithm.table.view()
    runs = study.runs("alpha")
    next(
        Path(algorithm.table.objects.path(f"{algorithm.table.prefix}{base.path}/mask/c")).rglob(
            "0/0"
        )
    ).unlink()
    with pytest.raises(MissingChunkError, match="dmstore verify"):
        view.read(["mask"])
    with pytest.raises(MissingChunkError, match="dmstore verify"):
        _ = runs.mask.values
    assert [p.kind for p in verification.verify(study)] == ["unreadable"]


def test_a_view_that_vacuum_took_says_so(study, algorithm):
    fill(algorithm, range(20))
    compact(algorithm.table)
    runs = study.runs("alpha")
    fill(algorithm, range(20, 30))
    compact(algorithm.table)
    vacuum(algorithm.table, set, grace=0)
    with pytest.raises(MissingChunkError, match="open it again"):
        _ = runs.margin.values


def test_views_never_share_a_dask_name(study, algorithm):
    import dask

    fill(algorithm, range(20))
    before = study.runs("alpha")
    compact(algorithm.table)
    after = study.runs("alpha")
    one, two = dask.compute(before.margin, after.margin)
    expected = make_rows(algorithm, range(20)).arrays["margin"]
    assert np.array_equal(one, expected)
    assert np.array_equal(two, expected)


def test_narrow_columns_are_verified(study, algorithm):
    rows = make_rows(algorithm, range(6))
    rows.columns["mask_id"][2] += 1
    algorithm.table.append(rows)
    assert [p.text for p in verification.verify(study)] == [
        "run 2: mask id or repeat is not that of its mask"
    ]


def test_damaged_tagged_base_is_found(study, algorithm):
    import shutil

    fill(algorithm, range(20))
    compact(algorithm.table)
    made = tag.create(algorithm.table, "v1")
    fill(algorithm, range(20, 30))
    compact(algorithm.table)
    assert list(verification.verify(study)) == []
    shutil.rmtree(algorithm.table.objects.path(f"{algorithm.table.prefix}{made['base']}/margin/c"))
    assert [p.kind for p in verification.verify(study)] == ["unreadable"]


def test_failed_compaction_leaves_nothing(study, algorithm, monkeypatch):
    import errno

    from dmstore.storage.table import base as module

    fill(algorithm, range(20))
    before = {i.name for i in study.objects.entries("")}
    monkeypatch.setattr(
        module,
        "consolidate",
        lambda store: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")),
    )
    with pytest.raises(StorageError, match="disk is full"):
        compact(algorithm.table)
    assert {i.name for i in study.objects.entries("")} == before


def test_many_columns_split_a_segment(algorithm):
    rows = make_rows(algorithm, range(300))
    for number in range(1300):
        rows.columns[f"a_long_name_of_a_column_number_{number}"] = np.arange(300)
    names = algorithm.table.append(rows)
    assert len(names) > 1
    assert sorted(algorithm.table.view().run.tolist()) == list(range(300))


def test_a_vacuum_leaves_files_of_the_users_own(study, algorithm):
    fill(algorithm, range(5))
    own = [
        ".gitattributes",
        "algorithms/alpha/runs/segments/.DS_Store",
        ".hidden/notes.txt",
        "a.partial",
    ]
    ours = [f".{'0' * 32}.part", f"algorithms/alpha/runs/base/zarr.{'0' * 32}.partial"]
    for name in own + ours:
        path = Path(study.path, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")
        os.utime(path, (1, 1))
    maintenance.vacuum(study, grace=0)
    assert [name for name in own + ours if Path(study.path, name).exists()] == own
    assert list(verification.verify(study)) == []


def test_unfinished_results_are_not_vacuumed_at_once(study, algorithm):
    directory = Path(study.path, "datamodels/alpha/0123/datamodels-abcd.zarr")
    directory.mkdir(parents=True)
    (directory.parent / "blocks").mkdir()
    (directory / "zarr.json").write_text("{}")
    maintenance.vacuum(study, grace=0)
    assert directory.exists()
    os.utime(directory / "zarr.json", (1, 1))
    maintenance.vacuum(study, grace=0)
    assert not directory.exists()


def test_a_vacuum_that_takes_an_unfinished_file_does_not_stop_its_writer(algorithm, monkeypatch):
    real, taken = os.link, []

    def link(source, target):
        if len(taken) < 2:
            Path(source).unlink()
            taken.append(target)
        real(source, target)

    monkeypatch.setattr(os, "link", link)
    fill(algorithm, range(10))
    assert len(taken) == 2
    assert algorithm.table.view().run.tolist() == list(range(10))
    assert algorithm.objects.leftovers() == []


@pytest.mark.parametrize("rows", [3, 1500, 9000])
def test_tiles_read_what_zarr_reads(tmp_path, rows):
    """Any window of masks and outputs, across chunks and shards, at edges and outside of them."""
    from dmstore.storage.table import base, tiles

    study = dmstore.create_study(tmp_path / "tiles.dm", examples(9000 if rows == 3 else 70, 300))
    outputs = {
        "margin": {**known_outputs()["margin"], "dtype": "float16"},
        "logit": known_outputs()["logit"],
    }
    algorithm = study.add_algorithm("a", sampling="foreign", alpha=None, outputs=outputs)
    draw = np.random.default_rng(rows)
    train = algorithm.train
    arrays = {
        "mask": draw.random((rows, train)) < 0.3,
        "margin": draw.normal(size=(rows, 300)).astype(np.float16),
        "logit": draw.normal(size=(rows, 300, 3)).astype(np.float32),
    }
    made = [
        {name: values[start : start + 4096] for name, values in arrays.items()}
        for start in range(0, rows, 4096)
    ]
    narrow = {
        "run": np.arange(rows),
        "row_digest": np.zeros((rows, 16), np.uint8),
        **{n: np.zeros(rows, np.int64) for n in ("mask_id", "repeat", "seed", "time")},
        "host": np.full(rows, "h", object),
    }
    table = algorithm.table
    base.write(table, "base/x.zarr", table.spec, made, rows + 5, lambda: narrow)
    group = table.open_base("base/x.zarr")
    for name, values in arrays.items():
        found = tiles.open_tiles(table.objects, f"{table.prefix}base/x.zarr", group, name)
        assert found.shape == values.shape
        assert np.array_equal(np.asarray(group[name][...]), values)
        for _ in range(30):
            window = tuple(
                slice(*sorted(draw.integers(0, size + 2, 2).tolist())) for size in values.shape
            )[: int(draw.integers(1, values.ndim + 1))]
            assert np.array_equal(found.read(window), values[window]), (name, window)


@pytest.mark.parametrize("damage", ["flip", "cut", "missing", "index", "directory"])
def test_tiles_refuse_a_damaged_shard(algorithm, damage):
    fill(algorithm, range(100))
    compact(algorithm.table)
    view = algorithm.table.view()
    folder = Path(algorithm.table.objects.path(f"{view.table.prefix}{view.manifest.base.path}"))
    shard = folder / "margin/c/0/0"
    content = bytearray(shard.read_bytes())
    if damage == "flip":
        content[100] ^= 1
    elif damage == "index":
        content[-10] ^= 1
    elif damage == "cut":
        content = content[: len(content) // 2]
    shard.unlink()
    if damage == "directory":
        shard.mkdir()
    elif damage != "missing":
        shard.write_bytes(content)
    wanted = {"missing": "vacuum removed", "directory": "margin/c/0/0"}.get(
        damage, "restore it from a copy"
    )
    with pytest.raises((DmstoreError, OSError), match=wanted):
        view.read(["margin"])
    assert any("margin/c/0/0" in problem.text for problem in verify(algorithm.table))


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EIO, errno.ENOTSUP, errno.EPERM])
def test_a_refused_hard_link_is_called_that(tmp_path, monkeypatch, number):
    def refused(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", refused)
    with pytest.raises(StorageError, match=r"hard link; keep the study .* 'dmstore doctor'"):
        LocalObjects(tmp_path).put_if_absent("a", b"1")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EIO])
def test_other_refusals_do_not_speak_of_links(tmp_path, monkeypatch, number):
    def refused(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refused)
    with pytest.raises(StorageError) as raised:
        LocalObjects(tmp_path).put_if_absent("a", b"1")
    assert "link" not in str(raised.value)
