"""Where a study is: a path or a URL to the storage behind it."""

from __future__ import annotations

from pathlib import Path

from dmstore.storage.objects import LocalObjects, Objects


def open_location(path: str | Path, anchor: str | None = None) -> Objects:
    """Storage at a local path, or at an ``s3://``, ``gs://``, ``az://``, ``memory://`` or ``https://`` URL.

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
    from dmstore.storage import remote

    if not remote.is_url(path):
        return LocalObjects(path, anchor=anchor)
    url = str(path)
    if url.startswith(("http://", "https://")):
        return remote.HttpObjects(url)
    return remote.RemoteObjects(url, anchor=anchor)
