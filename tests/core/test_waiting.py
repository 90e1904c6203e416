"""Waits that no steps show: said on the line of what is done, and in no time that is left."""

import time

from dmstore.core import waiting
from dmstore.core.meter import Meter


def test_a_wait_is_said_once_and_not_counted(capsys, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    meter = Meter("fit a")
    meter("fit", 0, 10)
    waiting.begins("compiling")
    waiting.begins("compiling")
    now[0] += 60
    waiting.ends()
    waiting.ends()
    waiting.begins("compiling")
    waiting.ends()
    now[0] += 2
    meter("fit", 1, 10)
    meter.close()
    waiting.begins("compiling")
    waiting.ends()
    said = capsys.readouterr().err.splitlines()
    assert said == ["fit a: 0 %", "fit a: compiling", "fit a: 10 %, 18 s left"]


def test_a_line_that_is_shorter_than_the_one_before_covers_it(capsys, monkeypatch):
    meter = Meter("fit")
    monkeypatch.setattr(meter, "_terminal", True)
    meter("fit", 0, 10)
    waiting.begins("compiling (once per machine)")
    waiting.ends()
    meter("fit", 10, 10)
    lines = capsys.readouterr().err.rstrip("\n").split("\r")
    assert "0 %, compiling (once per machine)" in lines[2]
    assert len(lines[3]) == len(lines[2])
    assert lines[3].rstrip().endswith("100 %")


def test_nobody_is_told_of_a_wait_before_there_is_a_line(capsys):
    Meter("fit", quiet=True)("fit", 0, 10)
    Meter("read", delay=5)("read", 0, 10)
    waiting.begins("compiling")
    waiting.ends()
    assert capsys.readouterr().err == ""
