"""What a storage refused, in one line with the remedy; no secret of the environment is in it."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from dmstore.errors import StorageError
from dmstore.storage.objects.permissions import denied
from dmstore.storage.objects.posix import RefusedLinkError

_REMEDY = {
    errno.ENOSPC: "the disk is full; free some space and run the same command again",
    errno.EDQUOT: "the disk quota is used up; free some space and run the same command again",
    errno.EROFS: "the file system is read-only; mount it for writing or copy the study elsewhere",
    errno.EACCES: "use an account that may read and write there, or have its owner run 'chmod -R g+rwX'",
    errno.EPERM: "not permitted; the file system must allow writing there",
    errno.ENOTSUP: "the file system does not have this operation; keep the study on another one",
    errno.ENOSYS: "the file system does not have this operation; keep the study on another one",
    errno.EIO: "the disk or the connection to it failed; check it and run the same command again",
    errno.ENAMETOOLONG: "the name is too long for the file system; use a shorter one",
    errno.ENOTDIR: "a part of the path is a file, not a directory",
}


def storage_error(error: OSError, path: str | Path) -> StorageError:
    """A one-line error for a refused operation, with the remedy."""
    if isinstance(error, RefusedLinkError):
        reason = "the file system refused a hard link; keep the study on one that has them, 'dmstore doctor' tries it"
        return StorageError(f"{path}: {os.strerror(error.errno or 0)}: {reason}")
    reason = _REMEDY.get(error.errno or 0, "check the file system and run the same command again")
    if error.errno == errno.EACCES and (whose := denied(Path(path).absolute())):
        reason = f"{whose}; {reason}"
    return StorageError(f"{path}: {os.strerror(error.errno) if error.errno else error}: {reason}")


# Names of variables whose values must not appear in any text.
_SECRETS = ("SECRET", "TOKEN", "PASSWORD", "ACCESS_KEY", "ACCOUNT_KEY", "SAS", "CREDENTIAL")


def explain(error: BaseException) -> str:
    """One short line of what a server said, with every secret of the environment taken out."""
    text = " ".join(str(error).split()).partition(" Debug source:")[0][:300] or type(error).__name__
    for name, value in os.environ.items():
        if len(value) >= 4 and any(word in name.upper() for word in _SECRETS):
            text = text.replace(value, "…")
    return text
