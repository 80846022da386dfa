"""A https server on loopback that serves files with or without a fault, which the first folder of the path names."""

import gzip
import threading
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ssl import PROTOCOL_TLS_SERVER, SSLContext
from types import TracebackType
from typing import Self

import trustme


class FaultyMirror(ThreadingHTTPServer):
    """Serves `files` under `/<fault>/<name>` until the `with` block ends, and counts what it is asked for.

    Without an authority it serves http.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, files: dict[str, bytes], authority: trustme.CA | None) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.files = files
        self.requests: Counter[str] = Counter()
        self.lock = threading.Lock()
        self.closing = threading.Event()
        self.http_address = ""  # where "to-http" redirects to
        self.scheme = "https" if authority else "http"
        if not authority:
            return
        context = SSLContext(PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(context)
        # The handshake belongs to the thread of the connection: a client that breaks it off must not end the server.
        self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)

    def address(self, fault: str = "good") -> str:
        return f"{self.scheme}://127.0.0.1:{self.server_address[1]}/{fault}/"

    def count(self, fault: str, name: str) -> int:
        return self.requests[f"/{fault}/{name}.gz"]

    def handle_error(self, request: object, client_address: object) -> None:
        """Stay silent: clients that hang up are what the tests are about."""

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.closing.set()
        self.shutdown()
        self.server_close()


class _Answer(BaseHTTPRequestHandler):
    server: FaultyMirror

    def do_GET(self) -> None:
        with self.server.lock:
            self.server.requests[self.path] += 1
            first_time = self.server.requests[self.path] == 1
        _, fault, name = self.path.split("/")
        body = self.server.files[name]
        if fault.endswith("-once"):
            fault = fault.removesuffix("-once") if first_time else "good"
        if fault.isdigit():
            self.send_error(int(fault), "\x1b[31mtext of the server")
            return
        faults: dict[str, Callable[[], None]] = {
            "good": lambda: self.send(body),
            "elsewhere": lambda: self.redirect(f"/good/{name}"),
            "loop": lambda: self.redirect(self.path),
            "to-http": lambda: self.redirect(f"{self.server.http_address}{name}"),
            "to-file": lambda: self.redirect("file:///etc/\x1b[31mhostname"),
            "silent": lambda: self.pause(60),
            "cut": lambda: None,
            "stall": lambda: self.send(body, stop_at=len(body) // 2),
            "drip": lambda: self.send(body, step=1, pause_s=0.05),
            "truncated": lambda: self.send(body[: len(body) // 2], announce=len(body)),
            "wrong": lambda: self.send(gzip.compress(gzip.decompress(body)[::-1])),
            "html": lambda: self.send(b"<!DOCTYPE html><title>Please log in</title>"),
            "bomb": lambda: self.send(gzip.compress(bytes(2 << 20))),
            "hollow": self.hollow,
        }
        faults[fault]()

    def send(
        self, body: bytes, *, announce: int = -1, stop_at: int = 0, step: int = 1 << 20, pause_s: float = 0
    ) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body) if announce < 0 else announce))
        self.end_headers()
        if stop_at:
            self.wfile.write(body[:stop_at])
            self.pause(60)
            return
        for start in range(0, len(body), step):
            self.wfile.write(body[start : start + step])
            self.pause(pause_s)

    def hollow(self) -> None:
        self.send_response(200)
        self.end_headers()
        for _ in range(100):
            self.wfile.write(gzip.compress(b"") * 1000)  # 20 kB that unpack to nothing

    def redirect(self, url: str) -> None:
        self.send_response(302)
        self.send_header("Location", url)
        self.end_headers()

    def pause(self, seconds: float) -> None:
        if seconds:
            self.server.closing.wait(seconds)

    def log_message(self, format: str, *args: object) -> None:
        pass
