"""The exceptions of dmstore: one tree, by what a handler would do.

Every message is one line that names the file, the value and the remedy.
"""

from __future__ import annotations


def plain(text: str) -> str:
    """Text from anywhere as it can be shown: nothing in it steers a terminal or turns a line around."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class DmstoreError(Exception):
    """Base of all errors that dmstore raises on purpose.

    Attributes
    ----------
    kind : str
        A stable code for programs; it stands in the JSON form of the error.
    """

    kind = "error"


class StudyNotFoundError(DmstoreError, FileNotFoundError):
    """There is no study at the path, or it has gone."""

    kind = "study-not-found"

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class ExistsError(DmstoreError, FileExistsError):
    """What was to be made is there already."""

    kind = "exists"

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class NotFoundError(DmstoreError, KeyError):
    """A part of the study (algorithm, fit, comparison, tag) is not there."""

    kind = "not-found"

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class FormatError(DmstoreError, ValueError):
    """A document or group is not of a format that this version reads."""

    kind = "format"


class CorruptionError(DmstoreError, ValueError):
    """Stored bytes are not what was written."""

    kind = "corrupt"


class MissingChunkError(DmstoreError, FileNotFoundError):
    """A chunk that was written is not there any more."""

    kind = "missing-chunk"

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class InputError(DmstoreError, ValueError):
    """A value or a file that the user gave cannot be used."""

    kind = "input"


class ConflictError(DmstoreError, ValueError):
    """A run id is used twice with different content."""

    kind = "conflict"


class StorageError(DmstoreError, OSError):
    """The file system refused an operation."""

    kind = "storage"

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class IncompleteError(DmstoreError):
    """Something that the operation needs is not finished yet."""

    kind = "incomplete"


class MissingDependencyError(DmstoreError, ImportError):
    """An optional package is not installed; the message has the line that installs it."""

    kind = "missing-dependency"
