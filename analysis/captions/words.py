"""Captions to choose from: a file of them, one a line, or the most frequent English words."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from dmstore.core.given import local_path
from dmstore.errors import InputError, MissingDependencyError

_LONGEST = 1000
_LARGEST = 1 << 26
_MOST = 1_000_000
_FREQUENT = 20_000


@dataclass(frozen=True)
class Words:
    """Captions to choose from.

    Attributes
    ----------
    texts : tuple of str
        All different.
    name : str
        For people: ``words.txt``, ``wordfreq:20000``.
    dropped : int
        Lines that were there before.
    """

    texts: tuple[str, ...]
    name: str
    dropped: int = 0

    @property
    def digest(self) -> str:
        """Of the texts in their order: 64 hexadecimal digits."""
        state = hashlib.sha256()
        for one in self.texts:
            raw = one.encode()
            state.update(len(raw).to_bytes(8, "little") + raw)
        return state.hexdigest()


def words_of(spec: str) -> Words:
    """Captions as they are asked for.

    Parameters
    ----------
    spec : str
        ``wordfreq``, ``wordfreq:N``, or the path of a file.

    Returns
    -------
    Words

    Raises
    ------
    InputError
        If the file cannot be used, naming the line.
    MissingDependencyError
        If there is no package ``wordfreq``.
    """
    name, colon, count = spec.partition(":")
    if name == "wordfreq":
        if colon and not (count.isdecimal() and 2 <= int(count) <= _MOST):
            msg = f"words {spec!r:.60}: give wordfreq:N with N from 2 to {_MOST}, such as wordfreq:{_FREQUENT}"
            raise InputError(msg)
        return frequent(int(count) if colon else _FREQUENT)
    return read_words(spec)


def frequent(count: int) -> Words:
    """The most frequent English words, without one-letter words and words of other than a to z.

    Parameters
    ----------
    count : int

    Returns
    -------
    Words

    Raises
    ------
    MissingDependencyError
    """
    try:
        import wordfreq
    except ImportError as error:
        msg = "wordfreq is not installed; pip install 'dmstore[captions]', or give --words FILE with one caption a line"
        raise MissingDependencyError(msg) from error
    listed = wordfreq.top_n_list("en", 2 * count, wordlist="best")
    plain = [one for one in listed if one.isascii() and one.isalpha() and len(one) > 1]
    return checked_words(plain[:count], f"wordfreq:{count}")


def read_words(path: str) -> Words:
    """Captions of a file in UTF-8, one a line.

    Parameters
    ----------
    path : str

    Returns
    -------
    Words

    Raises
    ------
    InputError
        If it is not there, empty, binary, or a line is too long or has control characters.
    """
    place = local_path(path)
    if not place.is_file():
        msg = f"{path}: no file of captions there; give a text file with one caption a line, or wordfreq"
        raise InputError(msg)
    if place.stat().st_size > _LARGEST:
        msg = f"{path}: has {place.stat().st_size >> 20} MiB; a file of captions has {_LARGEST >> 20} MiB at most"
        raise InputError(msg)
    raw = place.read_bytes()
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        msg = f"{path}: is binary, or not in UTF-8; give a text file with one caption a line"
        raise InputError(msg)
    return checked_words(text.splitlines(), place.name, path)


def checked_words(lines: Iterable[str], name: str, where: str = "") -> Words:
    """Captions from anywhere: blanks around them and empty ones taken away, each once.

    Parameters
    ----------
    lines : iterable of str
    name : str
        For people.
    where : str
        For error texts; the name by default.

    Returns
    -------
    Words

    Raises
    ------
    InputError
        Naming the line.
    """
    where = where or name
    kept: dict[str, None] = {}
    there = 0
    for number, line in enumerate(lines, 1):
        if not isinstance(line, str):
            msg = f"{where}, line {number}: {type(line).__name__} is no caption; give texts"
            raise InputError(msg)
        caption = line.strip()
        if not caption:
            continue
        there += 1
        if len(caption) > _LONGEST:
            msg = f"{where}, line {number}: has {len(caption)} characters; a caption has {_LONGEST} at most"
            raise InputError(msg)
        if not caption.isprintable():
            msg = f"{where}, line {number}: {caption[:40]!a} has control or invisible characters; take them away"
            raise InputError(msg)
        kept[caption] = None
    if len(kept) < 2:
        msg = f"{where}: has {len(kept)} captions; give two different ones at least, one a line"
        raise InputError(msg)
    if len(kept) > _MOST:
        msg = f"{where}: has {len(kept)} captions; give {_MOST} at most"
        raise InputError(msg)
    return Words(tuple(kept), name, there - len(kept))
