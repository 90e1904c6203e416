"""The same store in a bucket: in memory, on moto's server, on SeaweedFS; and a server that cannot be trusted."""

import contextlib
import json
import os
import uuid

import numpy as np
import pytest
import servers
from helpers import examples, fill, make_rows

import dmstore
from dmstore.cli import main
from dmstore.errors import DmstoreError, ExistsError, InputError, StorageError, StudyNotFoundError
from dmstore.storage.acts import tag
from dmstore.storage.acts.compact import compact
from dmstore.storage.objects import remote
from dmstore.upkeep.doctor import diagnose
from dmstore.upkeep.maintenance import status, vacuum
from dmstore.upkeep.retraction import retract_runs
from dmstore.upkeep.torture import torture
from dmstore.upkeep.verification import verify

KINDS = ("memory", "s3", "seaweed")


@pytest.fixture(params=KINDS)
def bucket(request, tmp_path):
    """The URL of an empty place in a bucket."""
    with contextlib.ExitStack() as stack:
        if request.param == "memory":
            yield f"memory://tests/{uuid.uuid4().hex}"
        elif request.param == "s3":
            yield request.getfixturevalue("s3")()
        else:
            yield stack.enter_context(servers.seaweed(tmp_path))


def test_a_study_lives_in_a_bucket(bucket):
    url = f"{bucket}/study.dm"
    study = dmstore.create_study(url, examples(), seed=3)
    algorithm = study.add_algorithm("alpha", runs=300, outputs=["margin", "prediction"])
    fill(algorithm, range(100))
    assert compact(algorithm.table).absorbed == 2
    fill(algorithm, range(100, 150))
    made = tag.create(algorithm.table, "first")
    assert made["runs"] == 100
    retract_runs(algorithm, ["run=7"], reason="test")
    compact(algorithm.table)
    assert len(vacuum(study, grace=0)["alpha"].removed) >= 3
    opened = dmstore.open_study(url)
    view = opened.algorithm("alpha").table.view()
    assert sorted(view.run.tolist()) == [run for run in range(150) if run != 7]
    found = view.read(["mask", "margin", "prediction"])
    expected = make_rows(algorithm, view.run).arrays
    assert all(np.array_equal(found[name], expected[name]) for name in found)
    assert list(verify(opened)) == []
    assert status(opened)["algorithms"]["alpha"]["stored"] == 149
    runs = opened.runs("alpha")
    assert runs.margin.sel(run=[3, 140]).values.shape == (2, 23)
    assert opened.train.image.values.shape == (37, 6, 6)
    with pytest.raises(ExistsError, match="a study exists there"):
        dmstore.create_study(url, examples(), seed=4)


def test_the_local_content_id_is_the_same(bucket, tmp_path):
    ids = []
    for path in (f"{bucket}/same.dm", tmp_path / "same.dm"):
        study = dmstore.create_study(path, examples(), seed=3)
        algorithm = study.add_algorithm("alpha", runs=50)
        fill(algorithm, range(30))
        compact(algorithm.table)
        ids.append(algorithm.table.view().content_id())
    assert ids[0] == ids[1]


@pytest.mark.parametrize("kind", ["local", "s3", "seaweed"])
@pytest.mark.parametrize(
    ("seconds", "kills"), [(6, 12), pytest.param(120, 300, marks=pytest.mark.slow)]
)
def test_torture(kind, seconds, kills, request, tmp_path):
    with contextlib.ExitStack() as stack:
        if kind == "local":
            place = tmp_path
        elif kind == "s3":
            place = request.getfixturevalue("s3")()
        else:
            place = stack.enter_context(servers.seaweed(tmp_path))
        writers = 8 if kills > 50 else 3
        found = torture(place, seconds=seconds, kills=kills, writers=writers, seed=1)
    assert found.passed, found
    assert (found.lost, found.duplicated, found.torn, found.problems) == (0, 0, 0, [])
    assert found.kills >= kills
    assert found.acknowledged > kills
    assert found.visible >= found.acknowledged


def test_doctor_trusts_what_keeps_its_word(bucket):
    found = diagnose(f"{bucket}/doctor")
    assert found.safe("ingest")
    assert found.safe("compact")
    assert {f.level for f in found.findings} <= {"ok", "note"}
    assert remote.RemoteObjects(bucket).entries("doctor/") == []


def test_a_server_that_ignores_preconditions_is_found_out(tmp_path, capsys):
    with servers.rclone(tmp_path) as url:
        with pytest.raises(SystemExit) as stop:
            main(["doctor", f"{url}/x", "--json"])
        assert stop.value.code == 1
        report = json.loads(capsys.readouterr().out)
        assert report["safe"] == {"ingest": True, "compact": False}
        wrong = {f["name"]: f["text"] for f in report["findings"] if f["level"] == "wrong"}
        assert "overwritten" in wrong["create if absent"]
        study = dmstore.create_study(f"{url}/study.dm", examples(), seed=3)
        algorithm = study.add_algorithm("alpha", runs=50)
        fill(algorithm, range(20))
        for attempt in (
            lambda: compact(algorithm.table),
            lambda: retract_runs(algorithm, ["run=3"], reason="test"),
        ):
            with pytest.raises(StorageError, match="overwritten"):
                attempt()
        view = dmstore.open_study(f"{url}/study.dm").algorithm("alpha").table.view()
        assert view.run.tolist() == list(range(20))
        assert view.manifest.version == 0
        expected = make_rows(algorithm, view.run).arrays
        assert np.array_equal(view.read(["margin"])["margin"], expected["margin"])


def test_doctor_on_this_file_system(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["doctor", str(tmp_path)])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert "hard links: made, counted and recognised" in text
    assert text.count("safe: ") == 2
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InputError, match="no such directory"):
        diagnose(tmp_path / "nowhere")


def test_credentials_stay_out_of_every_text(s3, monkeypatch):
    url = f"{s3()}/study.dm"
    study = dmstore.create_study(url, examples(), seed=3)
    secret = os.environ["AWS_SECRET_ACCESS_KEY"]
    for info in study.objects.entries(""):
        assert secret.encode() not in study.objects.get(info.name)
    with pytest.raises(StudyNotFoundError) as nothing:
        dmstore.open_study(f"{s3()}/other.dm")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{servers.free_port()}")
    monkeypatch.setattr(remote, "RETRIES", 0)
    with pytest.raises(StorageError) as refused:
        dmstore.open_study(url)
    for error in (nothing, refused):
        assert secret not in str(error.value)
        assert os.environ["AWS_ACCESS_KEY_ID"] not in str(error.value)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("s3://key:secret@bucket/x", "no user, password or query"),
        ("https://host/x?token=secret", "no user, password or query"),
        ("ftp://host/x", "unknown scheme"),
        ("s3:///x", "no bucket"),
        ("s3://bucket/../other", "no parts of a URL's path"),
    ],
)
def test_urls_that_cannot_be_used(url, text):
    with pytest.raises(InputError, match=text) as refused:
        dmstore.open_study(url)
    assert "secret" not in str(refused.value)


def test_a_lost_reply_is_settled_by_what_is_stored(monkeypatch):
    import obstore

    objects = remote.RemoteObjects(f"memory://tests/{uuid.uuid4().hex}")
    real, lost = obstore.put, []

    def put(*arguments, **options):
        found = real(*arguments, **options)
        if not lost:
            lost.append(found)
            raise OSError("connection reset")
        return found

    monkeypatch.setattr(obstore, "put", put)
    assert objects.put_if_absent("a", b"ours")
    assert lost
    assert not objects.put_if_absent("a", b"theirs")
    assert objects.get("a") == b"ours"


def test_a_put_that_never_works_is_an_error(monkeypatch):
    import obstore

    objects = remote.RemoteObjects(f"memory://tests/{uuid.uuid4().hex}")

    def put(*arguments, **options):
        raise OSError("no route to host")

    monkeypatch.setattr(obstore, "put", put)
    monkeypatch.setattr(remote.time, "sleep", lambda seconds: None)
    with pytest.raises(DmstoreError, match="no route to host"):
        objects.put_if_absent("a", b"1")
