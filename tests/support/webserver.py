"""Static web servers on loopback: one that sends parts of files, one that sends whole files only."""

from __future__ import annotations

import contextlib
import gzip
import re
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer


class Whole(SimpleHTTPRequestHandler):
    """As ``python -m http.server``."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *arguments) -> None:
        pass

    def copyfile(self, source, outputfile) -> None:
        content = source.read()
        self.server.sent += len(content)
        outputfile.write(content)


class Parts(Whole):
    """Answers ``Range: bytes=a-b`` too."""

    def do_GET(self) -> None:
        match = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if not match:
            return super().do_GET()
        try:
            with open(self.translate_path(self.path), "rb") as file:  # noqa: PTH123
                content = file.read()
        except OSError:
            return self.send_error(404)
        start, stop = int(match[1]), int(match[2]) + 1
        part = content[start:stop]
        self.send_response(206)
        self.send_header("Content-Length", str(len(part)))
        self.send_header("Content-Range", f"bytes {start}-{start + len(part) - 1}/{len(content)}")
        self.end_headers()
        self.server.sent += len(part)
        self.server.requests += 1
        return self.wfile.write(part)


class Gzipped(Whole):
    """Compresses whatever it sends, whether it was asked to or not."""

    def do_GET(self) -> None:
        try:
            with open(self.translate_path(self.path), "rb") as file:  # noqa: PTH123
                content = gzip.compress(file.read())
        except OSError:
            return self.send_error(404)
        self.send_response(200)
        self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        return self.wfile.write(content)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    sent = 0
    requests = 0


@contextlib.contextmanager
def serve(folder, handler=Parts):
    """Serve a folder; yields the server, whose ``sent`` counts bytes and ``url`` says where it is."""

    def make(*arguments):
        return handler(*arguments, directory=str(folder))

    server = _Server(("127.0.0.1", 0), make)
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
