"""A real S3 server (moto) for the tests, and a proxy before it that spoils chosen requests as networks and stores do.

Both run as `python tests/support/s3.py …`, in processes of their own that end with their standard input, hence with the
tests, however these end. (A proxy in a thread would not do: pyarrow destroys a stream with the GIL held.)
"""

from __future__ import annotations

import contextlib
import http.client
import http.server
import json
import re
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request
import xml.etree.ElementTree as ElementTree
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any

SIGNED = "AWS4-HMAC-SHA256 Credential=testing/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"
S3_SPACE = "{http://s3.amazonaws.com/doc/2006-03-01/}"


class Server:
    """`with Server("moto") as server:` runs one; `server.endpoint` is its URL."""

    def __init__(self, *command: str) -> None:
        self._command = [sys.executable, __file__, *command]

    def __enter__(self) -> Server:
        self._errors = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True
        )
        assert self._process.stdout is not None
        self.endpoint = self._process.stdout.readline().strip()
        if not self.endpoint:
            self._process.wait()
            self._errors.seek(0)
            raise RuntimeError(f"{self._command} did not start:\n{self._errors.read().decode()}")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.terminate()
        with self._process:  # waits, closes the pipes
            pass
        self._errors.close()

    def _ask(self, method: str, path: str, body: bytes = b"") -> bytes:
        url = self.endpoint + urllib.parse.quote(path, safe="/?&=")
        headers = {"Authorization": SIGNED, "Content-Type": "application/octet-stream"}
        request = urllib.request.Request(url, body or None, headers, method=method)
        with urllib.request.urlopen(request, timeout=30) as response:
            answer: bytes = response.read()
        return answer

    # What a test does behind the back of the code under test.

    def make_bucket(self, bucket: str) -> None:
        self._ask("PUT", f"/{bucket}")

    def put(self, bucket: str, key: str, data: bytes) -> None:
        self._ask("PUT", f"/{bucket}/{key}", data)

    def put_marker(self, bucket: str, folder: str) -> None:
        """The empty object "folder/", as the S3 console makes it."""
        self._ask("PUT", f"/{bucket}/{folder}/")

    def put_many(self, bucket: str, keys: list[str]) -> None:
        """Objects of one byte, past HTTP: a hundred times faster."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([bucket, keys]) + "\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == "done\n"

    def get(self, bucket: str, key: str) -> bytes:
        return self._ask("GET", f"/{bucket}/{key}")

    def objects(self, bucket: str) -> dict[str, int]:
        """Every key of the bucket, markers and all, and its size (of the first 1,000)."""
        found = ElementTree.fromstring(self._ask("GET", f"/{bucket}?list-type=2")).iter(f"{S3_SPACE}Contents")
        return {str(each.findtext(f"{S3_SPACE}Key")): int(each.findtext(f"{S3_SPACE}Size") or 0) for each in found}

    def buckets(self) -> list[str]:
        return [str(each.text) for each in ElementTree.fromstring(self._ask("GET", "/")).iter(f"{S3_SPACE}Name")]

    # What the proxy does to the requests whose "METHOD /path?query" matches an expression: to all of them, or to the
    # first few. The last call holds; an empty expression matches none.

    def refuse(
        self, requests: str = "", status: int = 403, code: str = "AccessDenied", message: str = "No", *, times: int = 0
    ) -> None:
        """Answer with an error."""
        self._spoil("refuse", requests, times, status, code, message)

    def throttle(self, requests: str, *, times: int = 0) -> None:
        """Answer as S3 does when it is asked too often."""
        self.refuse(requests, 503, "SlowDown", "Please reduce your request rate.", times=times)

    def delay(self, requests: str, seconds: float, *, times: int = 0) -> None:
        self._spoil("delay", requests, times, seconds)

    def reset(self, requests: str, *, times: int = 0) -> None:
        """Drop the connection (RST) without an answer."""
        self._spoil("reset", requests, times)

    def cut(self, requests: str, size: int, *, times: int = 0) -> None:
        """Promise the whole body, send `size` bytes of it and hang up."""
        self._spoil("cut", requests, times, size)

    def garble(self, requests: str, *, times: int = 0) -> None:
        """Change one byte of the body."""
        self._spoil("garble", requests, times)

    def _spoil(self, *rule: object) -> None:
        self._ask("PUT", "/_proxy", json.dumps(rule).encode())

    def seen(self) -> list[str]:
        """The requests since the last call."""
        return list(json.loads(self._ask("GET", "/_proxy")))


def run_moto() -> None:
    from moto.core.models import DEFAULT_ACCOUNT_ID
    from moto.moto_server.threaded_moto_server import ThreadedMotoServer
    from moto.s3.models import s3_backends

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    print(f"http://{host}:{port}", flush=True)
    for line in sys.stdin:  # until it is closed
        bucket, keys = json.loads(line)
        for key in keys:
            s3_backends[DEFAULT_ACCOUNT_ID]["aws"].put_object(bucket, key, b"x")
        print("done", flush=True)


class Proxy(http.server.BaseHTTPRequestHandler):
    """Hands requests on to `upstream`; keeps connections open, as S3 does and moto does not."""

    protocol_version = "HTTP/1.1"
    upstream = ""
    rule: tuple[str, str, int, list[Any]] = ("", "", 0, [])  # one for all connections: what, to which, how often, how
    log: list[str] = []  # noqa: RUF012
    lock = threading.Lock()

    def handle_any(self) -> None:
        request, body = f"{self.command} {self.path}", self.read_body()
        if self.path == "/_proxy":
            if body:
                what, requests, times, *how = json.loads(body)
                Proxy.rule = (what, requests, times or -1, how)
            seen, Proxy.log = Proxy.log, []
            self.answer(200, json.dumps(seen).encode())
            return
        what, how = self.spoiled(request)
        if what == "delay":
            time.sleep(how[0])
        elif what == "refuse":
            status, code, message = how
            text = f"<Error><Code>{code}</Code><Message>{message}</Message><RequestId>4QDY</RequestId></Error>"
            self.answer(status, text.encode(), {"Content-Type": "application/xml"})
            return
        elif what == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True
            return
        connection = http.client.HTTPConnection(self.upstream)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in DROPPED}
        connection.request(self.command, self.path, body, headers)
        response = connection.getresponse()
        kept = {name: value for name, value in response.getheaders() if name.lower() not in DROPPED}
        content, length = response.read(), response.getheader("Content-Length")
        connection.close()
        if what == "cut":
            self.close_connection = True
            self.answer(response.status, content[: how[0]], kept, str(len(content)))
        else:
            if what == "garble" and content:
                content = content[:-1] + bytes([content[-1] ^ 1])
            self.answer(response.status, content, kept, length if self.command == "HEAD" else None)

    def spoiled(self, request: str) -> tuple[str, list[Any]]:
        """What is to be done to a request, "" for nothing, and how."""
        with Proxy.lock:
            what, requests, times, how = Proxy.rule
            Proxy.log.append(request)
            if not requests or not times or not re.search(requests, request):
                return "", []
            Proxy.rule = (what, requests, times - 1, how)
            return what, how

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = handle_any

    def read_body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def answer(
        self, status: int, body: bytes, headers: dict[str, str] | None = None, length: str | None = None
    ) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", length or str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


DROPPED = ("transfer-encoding", "content-length", "connection", "expect", "server", "date")


class QuietServer(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """A client that hangs up is part of the tests."""


def run_proxy(endpoint: str) -> None:
    Proxy.upstream = endpoint.removeprefix("http://")
    server = QuietServer(("127.0.0.1", 0), Proxy)
    print(f"http://127.0.0.1:{server.server_address[1]}", flush=True)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(server.serve_forever)
        sys.stdin.read()
        server.shutdown()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        run_moto() if sys.argv[1] == "moto" else run_proxy(sys.argv[2])
