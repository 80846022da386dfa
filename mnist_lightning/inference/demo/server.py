"""The demo's web server: three files, the network's metadata, and one request that returns a prediction.

A local server must defend itself against web pages from elsewhere in the same browser: they can send requests to it, or
let their own host name resolve to this machine. Therefore each request must name this machine as its host and must not
come from another page. A drawing is a fixed number of pixels, so that nothing has to be decoded.
"""

import json
import re
import socket
import sys
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any

DRAWING_SIDE = 280  # pixels
BODY_BYTES = DRAWING_SIDE**2  # of a drawing: one byte for each pixel, row by row, 0 for background

PAGE_FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Connection": "close",
}


class PageServer(ThreadingHTTPServer):
    """Serve the page on a port, 0 for a free one, until it is shut down.

    The network's metadata, and what `predict` returns for a drawing of `BODY_BYTES` bytes, reach the page as JSON.
    """

    daemon_threads = True  # the process ends without waiting for idle connections
    request_queue_size = 64

    def __init__(
        self, host: str, port: int, network: dict[str, Any], predict: Callable[[bytes], dict[str, Any]]
    ) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._one_at_a_time = threading.Lock()
        super().__init__((host, port), _Handler)
        page = files("mnist_lightning.inference.demo") / "page"
        self.pages = {path: ((page / name).read_bytes(), kind) for path, (name, kind) in PAGE_FILES.items()}
        self.pages["/network"] = (json.dumps(network).encode(), "application/json")
        self._predict = predict

    def predict(self, drawing: bytes) -> bytes:
        """Return the prediction for a drawing as JSON."""
        with self._one_at_a_time:
            return json.dumps(self._predict(drawing)).encode()

    def server_close(self) -> None:
        """Stop listening, and predict no more: a thread in torch can crash the process while the interpreter exits."""
        super().server_close()
        self._one_at_a_time.acquire()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that close the connection early."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: PageServer
    default_request_version = "HTTP/1.0"  # so that the reply to a malformed request has a status
    timeout = 10.0  # seconds without data from the client

    def do_GET(self) -> None:
        if not self._is_allowed():
            return
        if self.path in self.server.pages:
            self._send(HTTPStatus.OK, *self.server.pages[self.path])
        else:
            self.send_error(HTTPStatus.NOT_FOUND)

    def do_POST(self) -> None:
        if not self._is_allowed():
            return
        if self.path != "/digit":
            self.send_error(HTTPStatus.NOT_FOUND)
        elif self.headers.get_all("Content-Type") != ["application/octet-stream"]:
            self.send_error(HTTPStatus.UNSUPPORTED_MEDIA_TYPE)
        elif (
            self.headers.get_all("Content-Length") != [str(BODY_BYTES)]
            or "Transfer-Encoding" in self.headers
            or len(drawing := self.rfile.read(BODY_BYTES)) < BODY_BYTES
        ):
            self.send_error(HTTPStatus.BAD_REQUEST)
        else:
            self._send(HTTPStatus.OK, self.server.predict(drawing), "application/json")

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Send the status and its standard phrase, without any text from the request."""
        self._send(HTTPStatus(code), HTTPStatus(code).phrase.encode(), "text/plain; charset=utf-8")

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""

    def _is_allowed(self) -> bool:
        """Return whether a request names this machine as host and comes from the page itself; else refuse it."""
        hosts, origins = self.headers.get_all("Host", []), self.headers.get_all("Origin", [])
        address = self.connection.getsockname()[0]
        names = ("localhost", "127.0.0.1", "[::1]", f"[{address}]" if ":" in address else address)
        if len(hosts) != 1 or re.sub(r":\d+$", "", hosts[0].lower()) not in names:
            self.send_error(HTTPStatus.MISDIRECTED_REQUEST)
            return False
        if origins and origins != [f"http://{hosts[0]}"]:
            self.send_error(HTTPStatus.FORBIDDEN)
            return False
        return True

    def _send(self, status: HTTPStatus, body: bytes, content_type: str) -> None:
        self.send_response_only(status)
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
