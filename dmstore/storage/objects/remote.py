"""Objects in a bucket or in memory, through obstore.

A PUT to an object store is durable and atomic, so there is nothing to sync. Credentials come from the
environment that the store's own tools use and are never part of a name, a document or an error text.
"""

from __future__ import annotations

import contextlib
import datetime
import io
import os
import time
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar
from urllib.parse import urlsplit

from dmstore.errors import InputError, MissingDependencyError, StorageError, StudyNotFoundError
from dmstore.storage.objects.objects import ObjectInfo, check_length, is_hidden, is_leftover
from dmstore.storage.objects.refusals import explain

if TYPE_CHECKING:
    from zarr.abc.store import Store

SCHEMES = ("s3", "gs", "az", "memory", "http", "https")
_ATTEMPTS = 5
# What the client itself repeats before it reports an error.
RETRIES = 4
_PATIENCE = datetime.timedelta(seconds=60)
_memory: dict[str, Any] = {}
T = TypeVar("T")


def is_url(path: object) -> bool:
    """Whether a path names something other than a local file."""
    return isinstance(path, str) and "://" in path


def connect(url: str) -> tuple[str, Any]:
    """The obstore store behind a URL, rooted there, and the URL as it may be shown.

    Raises
    ------
    InputError
        If the scheme is unknown, or the URL holds credentials, a query or no bucket.
    MissingDependencyError
        If obstore is not installed.
    """
    parts = urlsplit(url)
    if parts.scheme not in SCHEMES:
        msg = f"{parts.scheme}://…: unknown scheme; use a local path or one of {', '.join(f'{s}://' for s in SCHEMES)}"
        raise InputError(msg)
    if parts.username or parts.password or parts.query or parts.fragment:
        msg = (
            f"{parts.scheme}://{parts.hostname}{parts.path}: give no user, password or query in a URL; "
            f"credentials are taken from the environment"
        )
        raise InputError(msg)
    if not parts.netloc:
        msg = f"{url}: no bucket or host in this URL"
        raise InputError(msg)
    if any(part in (".", "..") for part in parts.path.split("/")):
        msg = f"{url}: '.' and '..' are no parts of a URL's path"
        raise InputError(msg)
    try:
        from obstore import store
    except ImportError:
        msg = f"{url}: needs obstore; pip install 'dmstore[remote]'"
        raise MissingDependencyError(msg) from None
    shown = f"{parts.scheme}://{parts.netloc}{parts.path}".rstrip("/")
    if parts.scheme == "memory":
        return shown, _memory.setdefault(shown, store.MemoryStore())
    options: dict[str, Any] = {"timeout": "60s", "connect_timeout": "10s"}
    if parts.scheme == "http" or os.environ.get("AWS_ENDPOINT_URL", "").startswith("http://"):
        options["allow_http"] = True
    try:
        open_url: Any = store.from_url
        return shown, open_url(
            shown,
            client_options=options,
            retry_config={"max_retries": RETRIES, "retry_timeout": _PATIENCE},
        )
    except Exception as error:  # noqa: BLE001 - clients have no one class for what they raise
        msg = f"{shown}: {explain(error)}"
        raise StorageError(msg) from None


class RemoteObjects:
    """Objects below a URL of an object store; see :class:`dmstore.storage.objects.objects.Objects`.

    Parameters
    ----------
    url : str
        ``s3://``, ``gs://``, ``az://`` or ``memory://``.
    anchor : str, optional
        An object without which nothing else may be created.
    """

    def __init__(self, url: str, anchor: str | None = None) -> None:
        self.url, self.store = connect(url)
        self._anchor = anchor

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"

    def __getstate__(self) -> dict[str, Any]:
        if self.url.startswith("memory:"):
            msg = f"{self.url}: is in the memory of this process alone and cannot be sent to another; use a directory or a bucket"
            raise InputError(msg)
        return self.__dict__

    def _call(self, name: str, function: Callable[[], T]) -> T:
        try:
            return function()
        except FileNotFoundError:
            where = f"{self.url}/{name}"
            raise FileNotFoundError(where) from None
        except Exception as error:  # noqa: BLE001 - as above
            raise self._refused(name, error) from None

    def _refused(self, name: str, error: BaseException) -> StorageError:
        return StorageError(
            f"{self.url}/{name}: {explain(error)}; check the URL, the credentials in the "
            f"environment and the connection, then run the same command again"
        )

    def _list(self, prefix: str) -> list[ObjectInfo]:
        import obstore

        listed = self._call(
            prefix, lambda: [m for page in obstore.list(self.store, prefix=prefix) for m in page]
        )
        infos = [ObjectInfo(m["path"], m["size"], m["last_modified"].timestamp()) for m in listed]
        return sorted(infos, key=lambda info: info.name)

    def entries(self, prefix: str) -> list[ObjectInfo]:
        """See :meth:`Objects.entries`."""
        return [info for info in self._list(prefix) if not is_hidden(info.name)]

    def leftovers(self) -> list[ObjectInfo]:
        """See :meth:`Objects.leftovers`."""
        return [info for info in self._list("") if is_leftover(info.name)]

    def children(self, prefix: str) -> list[str]:
        """See :meth:`Objects.children`."""
        import obstore

        listing = self._call(prefix, lambda: obstore.list_with_delimiter(self.store, prefix=prefix))
        paths = [*listing["common_prefixes"], *(meta["path"] for meta in listing["objects"])]
        names = {path.rstrip("/").rpartition("/")[2] for path in paths}
        return sorted(name for name in names if not is_hidden(name))

    def exists(self, name: str) -> bool:
        """See :meth:`Objects.exists`."""
        import obstore

        try:
            self._call(name, lambda: obstore.head(self.store, name))
        except FileNotFoundError:
            return False
        return True

    def get(self, name: str) -> bytes:
        """See :meth:`Objects.get`."""
        import obstore

        answer = self._call(name, lambda: obstore.get(self.store, name))
        check_length(name, answer.meta["size"], self.url)
        return bytes(self._call(name, answer.bytes))

    def open(self, name: str) -> BinaryIO:
        """See :meth:`Objects.open`: all of it at once, since what is opened here is small."""
        return io.BytesIO(self.get(name))

    def tail(self, name: str, length: int) -> bytes:
        """See :meth:`Objects.tail`."""
        import obstore

        size = self._call(name, lambda: obstore.head(self.store, name))["size"]
        start = max(0, size - length)
        if not size:
            return b""
        try:
            answer = self._call(
                name, lambda: obstore.get_range(self.store, name, start=start, end=size)
            )
        except StorageError:
            # Some servers know no ranges: then the whole object has to come.
            return self.get(name)[-length:]
        return bytes(answer)

    def serves_ranges(self, name: str) -> bool:
        """Whether a part of an object can be read without the rest."""
        import obstore

        try:
            return (
                len(self._call(name, lambda: obstore.get_range(self.store, name, start=1, end=2)))
                == 1
            )
        except StorageError:
            return False

    def put_if_absent(self, name: str, content: bytes) -> bool:
        """See :meth:`Objects.put_if_absent`.

        A request whose reply was lost may have succeeded: what is stored then tells. (What must
        have one owner carries a token, so that equal bytes are the same request.)
        """
        import obstore
        from obstore.exceptions import AlreadyExistsError

        self._check_anchor(name)
        for attempt in range(_ATTEMPTS):
            unclear: Exception | None = None
            try:
                obstore.put(self.store, name, content, mode="create", use_multipart=False)
            except AlreadyExistsError:
                pass
            except Exception as error:  # noqa: BLE001 - the client has no one class for a lost reply
                unclear = error
            else:
                return True
            try:
                return self.get(name) == content
            except FileNotFoundError:
                if attempt == _ATTEMPTS - 1:
                    raise self._refused(name, unclear or FileExistsError(name)) from None
            except StorageError:
                if attempt == _ATTEMPTS - 1:
                    raise
            time.sleep(0.05 * 2**attempt)
        return False

    def _check_anchor(self, name: str) -> None:
        if self._anchor and name != self._anchor and not self.exists(self._anchor):
            msg = f"{self.url}: {self._anchor} is gone, so the study was deleted or moved; nothing was written"
            raise StudyNotFoundError(msg)

    def replace(self, name: str, content: bytes) -> None:
        """See :meth:`Objects.replace`."""
        import obstore

        self._check_anchor(name)
        self._call(name, lambda: obstore.put(self.store, name, content, use_multipart=False))

    def delete(self, name: str) -> None:
        """See :meth:`Objects.delete`."""
        import obstore

        names = [info.name for info in self._list(f"{name}/")]
        if self.exists(name):
            names.append(name)
        if names:
            with contextlib.suppress(FileNotFoundError):
                self._call(name, lambda: obstore.delete(self.store, names))

    def now(self) -> float:
        """See :meth:`Objects.now`: the time that the store gives to a new object."""
        import obstore

        name = f".{uuid.uuid4().hex}.part"
        self._call(name, lambda: obstore.put(self.store, name, b"", use_multipart=False))
        try:
            head = self._call(name, lambda: obstore.head(self.store, name))
        finally:
            self._call(name, lambda: obstore.delete(self.store, name))
        return float(head["last_modified"].timestamp())

    def reader(self, name: str) -> Store:
        """See :meth:`Objects.reader`."""
        if name.endswith(".zip"):
            from dmstore.storage.objects.strict import zip_in_memory

            return zip_in_memory(self.get(name), f"{self.url}/{name}")
        from dmstore.storage.objects.strict import BucketStore

        return BucketStore(self.store, name, f"{self.url}/{name}", read_only=True)

    def writer(self, prefix: str) -> Store:
        """See :meth:`Objects.writer`."""
        from dmstore.storage.objects.strict import BucketStore

        self._check_anchor(prefix)
        if self.children(f"{prefix}/"):
            msg = f"{self.url}/{prefix}: is taken; run the same command again"
            raise StorageError(msg)
        return BucketStore(self.store, prefix, f"{self.url}/{prefix}")

    def sync(self, prefix: str) -> None:
        """See :meth:`Objects.sync`: every PUT was durable already."""
