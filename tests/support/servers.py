"""Object stores on loopback, started and stopped by the tests that use them."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from unittest import mock

import pytest

KEY, SECRET = "AKIAOFTHESETESTS", "secret-of-these-tests"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _answers(url):
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=2):
            return True
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False


@contextlib.contextmanager
def _server(command, endpoint, folder):
    """A server process that ends with the block, and the environment that names it."""
    log = Path(folder, "server.log").open("wb")  # noqa: SIM115 - closed at the end
    process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
    settings = {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_REGION": "us-east-1",
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
    }
    clean = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    try:
        with mock.patch.dict(os.environ, {**clean, **settings}, clear=True):
            deadline = time.monotonic() + 60
            while not _answers(endpoint):
                assert process.poll() is None, Path(folder, "server.log").read_text()[-2000:]
                assert time.monotonic() < deadline, "the server did not come up"
                time.sleep(0.1)
            yield
    finally:
        process.kill()
        process.wait()
        log.close()


def program(name):
    """A program of the environment, or skip: not every platform has a wheel of it."""
    found = shutil.which(name, path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if found is None:
        pytest.skip(f"no program {name!r}")
    return found


@contextlib.contextmanager
def seaweed(folder):
    """SeaweedFS with an S3 gateway, as labs run it: the URL of a bucket."""
    ports = {n: free_port() for n in ("s3", "master", "volume", "filer")}
    grpc = {n: free_port() for n in ports}
    Path(folder, "s3.json").write_text(
        json.dumps(
            {
                "identities": [
                    {
                        "name": "tests",
                        "credentials": [{"accessKey": KEY, "secretKey": SECRET}],
                        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
                    }
                ]
            }
        )
    )
    command = [program("weed"), "server", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
    command += ["-s3.port.iceberg=0", "-s3.port.lance=0", "-master.telemetry=false"]
    command += ["-s3", "-s3.config=s3.json", "-master.volumeSizeLimitMB=64", "-volume.max=0"]
    command += [f"-{name}.port={port}" for name, port in ports.items()]
    command += [f"-{name}.port.grpc={port}" for name, port in grpc.items()]
    with _server(command, f"http://127.0.0.1:{ports['s3']}", folder):
        _make_bucket("tests")
        yield "s3://tests"


@contextlib.contextmanager
def rclone(folder):
    """``rclone serve s3``, which ignores preconditions without a word: the URL of a bucket."""
    port = free_port()
    Path(folder, "served", "tests").mkdir(parents=True)
    command = [program("rclone"), "serve", "s3", "--addr", f"127.0.0.1:{port}"]
    command += [
        "--auth-key",
        f"{KEY},{SECRET}",
        "--vfs-cache-mode",
        "off",
        str(Path(folder, "served")),
    ]
    with _server(command, f"http://127.0.0.1:{port}", folder):
        yield "s3://tests"


def _make_bucket(name):
    """Make a bucket with a signed request, which SeaweedFS asks for."""
    import obstore

    deadline = time.monotonic() + 60
    while True:
        request = _signed("PUT", f"{os.environ['AWS_ENDPOINT_URL']}/{name}")
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=10) as reply:
                assert reply.status == 200
            store = obstore.store.from_url(f"s3://{name}", client_options={"allow_http": True})
            obstore.put(store, "ready", b"1")
            obstore.delete(store, "ready")
        except Exception:
            # The gateway answers before the rest of the server does.
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
        else:
            return


def _signed(method, url):
    """A request with an AWS signature of version 4 and an empty body."""
    import datetime
    import hashlib
    import hmac
    from urllib.parse import urlsplit

    parts = urlsplit(url)
    moment = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%SZ")
    day, empty = moment[:8], hashlib.sha256(b"").hexdigest()
    scope = f"{day}/us-east-1/s3/aws4_request"
    signed = "host;x-amz-content-sha256;x-amz-date"
    canonical = (
        f"{method}\n{parts.path}\n\nhost:{parts.netloc}\nx-amz-content-sha256:{empty}\n"
        f"x-amz-date:{moment}\n\n{signed}\n{empty}"
    )
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    key = f"AWS4{SECRET}".encode()
    for part in (day, "us-east-1", "s3", "aws4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    text = f"AWS4-HMAC-SHA256\n{moment}\n{scope}\n{digest}"
    signature = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
    headers = {
        "x-amz-date": moment,
        "x-amz-content-sha256": empty,
        "Authorization": f"AWS4-HMAC-SHA256 Credential={KEY}/{scope}, SignedHeaders={signed}, Signature={signature}",
    }
    return urllib.request.Request(url, method=method, headers=headers)
