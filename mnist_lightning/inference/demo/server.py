"""The demo's web server: three files, one question and one answer, and nothing for anybody else.

Pages from elsewhere in the same browser are the attackers that a local server has: they post to it, or let their own
name point to it. So each request must name this machine as its host, must not come from another page, and is small and
quick; what it carries is pixels of one size, which need no decoder. One network answers, one request at a time.
"""

import io
import json
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

DRAWING_SIDE = 280  # pixels
BODY_BYTES = DRAWING_SIDE**2  # a drawing: the ink of each pixel, row by row
REQUEST_S = 10.0  # for a whole request
MAX_CONNECTIONS = 32  # at once

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

Recogniser = Callable[[bytes], dict[str, Any]]


class PageServer(ThreadingHTTPServer):
    """Serve the page until it is shut down.

    Args:
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one.
        network: What the page is told about the network, as JSON.
        recognise: Returns the answer, as JSON, for a drawing of `BODY_BYTES` bytes.

    Raises:
        OSError: If the address cannot be listened on.
    """

    daemon_threads = False  # the interpreter ends such with the process, and some end it as a crash
    request_queue_size = 64

    def __init__(self, host: str, port: int, network: dict[str, Any], recognise: Recogniser) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._open: set[socket.socket] = set()
        super().__init__((host, port), _Handler)
        page = files("mnist_lightning.inference.demo") / "page"
        self.pages = {path: ((page / name).read_bytes(), kind) for path, (name, kind) in PAGE_FILES.items()}
        self.pages["/network"] = (json.dumps(network).encode(), "application/json")
        self._recognise = recognise
        self._one_at_a_time = threading.Lock()
        self._free_connections = threading.BoundedSemaphore(MAX_CONNECTIONS)

    def answer(self, drawing: bytes) -> bytes:
        """Return what the network makes of a drawing, as JSON."""
        with self._one_at_a_time:
            return json.dumps(self._recognise(drawing)).encode()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Give a connection a thread of its own, or refuse it when there are too many."""
        if self._free_connections.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            with suppress(OSError):
                request.sendall(b"HTTP/1.0 503 Service Unavailable\r\nConnection: close\r\n\r\n")
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Handle a connection."""
        self._open.add(request)
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._open.discard(request)
            self._free_connections.release()

    def server_close(self) -> None:
        """Stop listening, end the connections there are, and wait for their threads."""
        for connection in list(self._open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        super().server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Stay silent about clients that hang up."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class _TooSlowError(Exception):
    """A request took longer than `REQUEST_S`."""


class _TimedReader(io.RawIOBase):
    """Reads a connection, all of it within one time limit: a socket's own begins anew with every byte."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._deadline_s = time.monotonic() + REQUEST_S

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        left_s = self._deadline_s - time.monotonic()
        if left_s <= 0:
            raise _TooSlowError
        self._connection.settimeout(left_s)
        try:
            return self._connection.recv_into(buffer)
        except TimeoutError:
            raise _TooSlowError from None


class _Handler(BaseHTTPRequestHandler):
    server: PageServer
    default_request_version = "HTTP/1.0"  # so that every reply has a status
    command, requestline, request_version = "", "", ""  # until a request line is read

    def setup(self) -> None:
        super().setup()
        self.rfile = io.BufferedReader(_TimedReader(self.connection))

    def handle(self) -> None:
        try:
            self.handle_one_request()  # and no more: a connection carries one
        except _TooSlowError:
            self.send_error(HTTPStatus.REQUEST_TIMEOUT)

    def do_GET(self) -> None:
        if not self._is_welcome():
            return
        if self.path == "/digit":
            self.send_error(HTTPStatus.METHOD_NOT_ALLOWED)
        elif self.path in self.server.pages:
            self._send(HTTPStatus.OK, *self.server.pages[self.path])
        else:
            self.send_error(HTTPStatus.NOT_FOUND)

    def do_POST(self) -> None:
        if not self._is_welcome():
            return
        lengths = self.headers.get_all("Content-Length", [])
        if self.path != "/digit":
            found = self.path in self.server.pages
            self.send_error(HTTPStatus.METHOD_NOT_ALLOWED if found else HTTPStatus.NOT_FOUND)
        elif self.headers.get_all("Content-Type") != ["application/octet-stream"]:
            self.send_error(HTTPStatus.UNSUPPORTED_MEDIA_TYPE)
        elif "Transfer-Encoding" in self.headers or not lengths:
            self.send_error(HTTPStatus.LENGTH_REQUIRED)
        elif len(lengths) > 1 or not (lengths[0].isascii() and lengths[0].isdigit()):
            self.send_error(HTTPStatus.BAD_REQUEST)
        elif len(lengths[0]) > 9 or int(lengths[0]) > BODY_BYTES:
            self.send_error(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        elif int(lengths[0]) < BODY_BYTES or len(drawing := self.rfile.read(BODY_BYTES)) < BODY_BYTES:
            self.send_error(HTTPStatus.BAD_REQUEST)
        else:
            self._send(HTTPStatus.OK, self.server.answer(drawing), "application/json")

    def _refuse_method(self) -> None:
        if self._is_welcome():
            self.send_error(HTTPStatus.METHOD_NOT_ALLOWED)

    # The names that http.server calls.
    do_HEAD = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = do_TRACE = do_CONNECT = _refuse_method  # noqa: N815

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Send the code's own words and nothing that the request said."""
        self._send(HTTPStatus(code), HTTPStatus(code).phrase.encode(), "text/plain; charset=utf-8")

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent."""

    def _is_welcome(self) -> bool:
        """Refuse a request that names another machine, or that a page from elsewhere sends."""
        hosts, origins = self.headers.get_all("Host", []), self.headers.get_all("Origin", [])
        own = {"localhost", "127.0.0.1", "[::1]", _bracketed(self.connection.getsockname()[0])}
        if len(hosts) != 1 or _without_port(hosts[0].lower()) not in own:
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
        if status == HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", "POST" if self.path == "/digit" else "GET")
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def _without_port(host: str) -> str:
    """Return a Host header without its port.

    >>> _without_port("[::1]:7860"), _without_port("localhost")
    ('[::1]', 'localhost')
    """
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdigit() else host
