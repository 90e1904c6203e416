"""Kernels where compiled code cannot be kept, or what was kept is damaged."""

import logging

import pytest
from numba.core import caching, config

from dmstore.regression.kernels import compiled


def twice(number):
    return 2 * number


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path / "kept"))
    monkeypatch.setattr(compiled, "_told", False)
    return tmp_path / "kept"


def test_whoever_waits_is_told_that_code_is_compiled(folder, monkeypatch):
    told = []

    class Listener:
        def waits(self, why):
            told.append(why)

        def goes_on(self, seconds):
            told.append(seconds > 0)

    listener = Listener()
    compiled.waiting.listen(listener)
    assert compiled.compiled(twice)(4) == 8
    assert told == [compiled._COMPILING, True]
    # Kept code is loaded at once.
    assert compiled.compiled(twice)(4) == 8
    assert len(told) == 2
    compiled.waiting.forget(listener)


@pytest.mark.parametrize("damaged", ["*.nbi", "*.nbc", "*.nb?"])
@pytest.mark.parametrize("content", [b"", b"\x80\x04no pickle"])
def test_damaged_code_is_compiled_again_and_replaced(folder, damaged, content):
    assert compiled.compiled(twice)(4) == 8
    kept = list(folder.rglob(damaged))
    assert kept
    for path in kept:
        path.write_bytes(content)
    assert compiled.compiled(twice)(4) == 8
    again = compiled.compiled(twice)
    assert again(4) == 8
    assert sum(again.stats.cache_hits.values()) == 1


def test_where_nothing_can_be_written_it_says_so_once(folder, monkeypatch, caplog):
    folder.write_text("no folder")
    monkeypatch.setattr(caching.CacheImpl, "_locator_classes", [caching.UserProvidedCacheLocator])
    with caplog.at_level(logging.INFO, logger="dmstore"):
        assert compiled.compiled(twice)(4) == 8
        assert compiled.compiled_with("contract")(twice)(4.0) == 8.0
    assert caplog.text.count("NUMBA_CACHE_DIR") == 1


def test_a_folder_that_fills_up_later_is_no_error(folder, monkeypatch, caplog):
    def full(*_):
        raise OSError(28, "No space left on device")

    function = compiled.compiled(twice)
    monkeypatch.setattr(caching.IndexDataCacheFile, "_save_index", full)
    with caplog.at_level(logging.INFO, logger="dmstore"):
        assert function(4) == 8
        assert function(4.0) == 8.0
    assert caplog.text.count("No space left") == 1
