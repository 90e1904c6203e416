"""Where a study is: a path or a URL to the storage behind it."""

from __future__ import annotations

from pathlib import Path

from dmstore.core.given import local_path
from dmstore.storage.objects.local import LocalObjects
from dmstore.storage.objects.objects import Objects
from dmstore.storage.published.index import INDEX


def open_location(path: str | Path, anchor: str | None = None) -> Objects:
    """Storage at a local path, or at an ``s3://``, ``gs://``, ``az://``, ``memory://`` or ``https://`` URL.

    A published study (one with ``index.json``, in a directory, a bucket, a ``.zip`` or on a web server)
    is read-only.

    Parameters
    ----------
    path : path or str
    anchor : str, optional
        An object without which nothing else may be created there.

    Raises
    ------
    InputError
        If a URL cannot be used.
    MissingDependencyError
        If a URL is given and obstore is not installed.
    """
    from dmstore.storage.objects import remote

    if not remote.is_url(path):
        local = local_path(path)
        if local.suffix == ".zip" and local.is_file():
            from dmstore.storage.published.archive import ZipObjects

            return ZipObjects(local)
        if (local / INDEX).is_file():
            from dmstore.storage.published.published import PublishedDirectory

            return PublishedDirectory(local)
        return LocalObjects(local, anchor=anchor)
    from dmstore.storage.published import published

    url = str(path)
    if url.startswith(("http://", "https://")):
        return published.HttpObjects(url)
    objects = remote.RemoteObjects(url, anchor=anchor)
    return published.PublishedBucket(url) if objects.exists(INDEX) else objects
