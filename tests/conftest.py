"""Fixtures that tests share."""

from __future__ import annotations

import os

# One BLAS thread: workers and xdist processes would otherwise fight for the cores.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import subprocess
import sys
import urllib.request
import uuid

import pytest
from helpers import examples

import dmstore


@pytest.fixture
def study(tmp_path):
    return dmstore.create_study(tmp_path / "study.dm", examples(), seed=3)


@pytest.fixture
def algorithm(study):
    return study.add_algorithm("alpha", runs=300, outputs=["margin", "prediction"])


# An S3 server on a free port, which it prints. It ends with its standard input, and so never outlives
# the tests, however they end.
_SERVER = """
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="session")
def s3():
    """A function that makes a new bucket on an S3 server of this process alone: its ``s3://`` URL.

    The environment names the server while the session lasts, in subprocesses too.
    """
    ours = ("AWS_", "MOTO_", "HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    server = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", _SERVER],
        env=clean,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    line = server.stdout.readline()
    assert line.strip().isdigit(), (
        "moto's server did not start; are moto[s3], flask and flask-cors installed?"
    )
    endpoint = f"http://127.0.0.1:{int(line)}"
    settings = {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "AKIAOFTHESETESTS",
        "AWS_SECRET_ACCESS_KEY": "secret-of-these-tests",
        "AWS_REGION": "us-east-1",
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
    }

    def bucket(name: str | None = None) -> str:
        name = name or f"bucket-{uuid.uuid4().hex}"
        request = urllib.request.Request(f"{endpoint}/{name}", method="PUT")
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=30) as reply:
            assert reply.status == 200
        return f"s3://{name}"

    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        for name, value in settings.items():
            patch.setenv(name, value)
        try:
            yield bucket
        finally:
            server.stdin.close()
            try:
                server.wait(10)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()
            server.stdout.close()
