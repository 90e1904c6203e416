"""What doctor reads of the machine."""

from pathlib import Path

from dmstore.upkeep import doctor


def test_mount_points_have_any_characters(monkeypatch):
    mounts = "disk / ext4 rw 0 0\nserver /a\\040b\u2028c nfs rw 0 0\n"
    monkeypatch.setattr(Path, "read_text", lambda *_: mounts)
    assert doctor._kind(Path("/a b\u2028c/study")) == "nfs"
    assert doctor._kind(Path("/a")) == "ext4"
