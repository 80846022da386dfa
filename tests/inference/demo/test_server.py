"""The demo's server against malicious clients, over plain sockets."""

import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import numpy as np
import pytest

from mnist_lightning.inference.demo.server import BODY_BYTES, PageServer, _Handler

DRAWING = bytes(range(256)) * (BODY_BYTES // 256) + bytes(BODY_BYTES % 256)


class Served:
    """A running server, and the drawings that reached its network."""

    def __init__(self) -> None:
        self.drawings: list[bytes] = []
        self.errors: list[object] = []
        self.server = PageServer("127.0.0.1", 0, {"class_names": ["0", "1"]}, self.predict)
        self.port = self.server.server_address[1]
        self.own = f"127.0.0.1:{self.port}"

    def predict(self, drawing: bytes) -> dict[str, str]:
        self.drawings.append(drawing)
        return {"label": "7"}

    def post(self, *headers: str, body: bytes = DRAWING, path: str = "/digit") -> bytes:
        """Return a valid request, except for the headers that replace its own."""
        named = {header.split(":")[0] for header in headers}
        own = ("Host: HOST", "Content-Type: application/octet-stream", f"Content-Length: {len(body)}")
        lines = [f"POST {path} HTTP/1.1", *headers, *(line for line in own if line.split(":")[0] not in named)]
        return self.filled("\r\n".join(lines)) + b"\r\n\r\n" + body

    def filled(self, text: str) -> bytes:
        return text.replace("HOST", self.own).encode("latin-1")

    def ask(self, request: bytes, *, close: bool = True) -> bytes:
        """Send bytes and return all that comes back until the server closes the connection."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=30) as connection:
            with suppress(OSError):  # it may refuse a request before it has read it
                connection.sendall(request)
                if close:
                    connection.shutdown(socket.SHUT_WR)
            return received(connection)

    def status(self, request: bytes) -> int:
        return int(self.ask(request).split(b" ", 2)[1])


def received(connection: socket.socket) -> bytes:
    reply = b""
    with suppress(ConnectionError):
        while part := connection.recv(65536):
            reply += part
    return reply


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    served = Served()
    monkeypatch.setattr(served.server, "handle_error", lambda *about: served.errors.append(about))
    thread = threading.Thread(target=served.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield served
    good = served.ask(served.post())
    assert b" 200 OK" in good, "it still replies"
    served.server.shutdown()
    served.server.server_close()
    assert not served.errors


def test_a_drawing_gets_a_prediction(served: Served) -> None:
    reply = served.ask(served.post(f"Origin: http://{served.own}"))
    headers, _, body = reply.partition(b"\r\n\r\n")
    assert json.loads(body) == {"label": "7"}
    assert served.drawings == [DRAWING]
    assert b"default-src 'none'" in headers
    assert b"nosniff" in headers
    assert b"Access-Control" not in headers


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "text/html; charset=utf-8"),
        ("/page.css", "text/css; charset=utf-8"),
        ("/page.js", "text/javascript; charset=utf-8"),
        ("/network", "application/json"),
    ],
)
def test_the_page_is_served_for_every_name_of_this_machine(served: Served, path: str, kind: str) -> None:
    for host in ("HOST", "127.0.0.1", "localhost", "LocalHost:7860", "[::1]:7860"):
        reply = served.ask(served.filled(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"))
        assert reply.startswith(b"HTTP/1.0 200 OK\r\n")
        assert f"Content-Type: {kind}\r\n".encode() in reply


@pytest.mark.parametrize(
    ("request_line_and_headers", "status"),
    [
        # Another name for this machine: DNS rebinding.
        ("GET / HTTP/1.1\r\nHost: evil.example", 421),
        ("GET / HTTP/1.1\r\nHost: evil.example:7860", 421),
        ("GET / HTTP/1.1\r\nHost: 127.0.0.1.evil.example", 421),
        ("GET / HTTP/1.1\r\nHost: localhost@evil.example", 421),
        ("GET / HTTP/1.1\r\nHost: 127.0.0.2", 421),
        ("GET / HTTP/1.1\r\nHost: ", 421),
        ("GET / HTTP/1.1", 421),
        ("GET / HTTP/1.1\r\nHost: HOST\r\nHost: evil.example", 421),
        ("GET /nowhere HTTP/1.1\r\nHost: evil.example", 421),
        ("TRACE / HTTP/1.1\r\nHost: evil.example", 501),
        # Another page in the same browser.
        ("GET /network HTTP/1.1\r\nHost: HOST\r\nOrigin: http://evil.example", 403),
        ("GET /network HTTP/1.1\r\nHost: HOST\r\nOrigin: null", 403),
        # Nothing but the page's own files.
        ("GET /../../../etc/passwd HTTP/1.1\r\nHost: HOST", 404),
        ("GET /%2e%2e/%2e%2e/etc/passwd HTTP/1.1\r\nHost: HOST", 404),
        ("GET //etc/passwd HTTP/1.1\r\nHost: HOST", 404),
        ("GET /page.js/../index.html HTTP/1.1\r\nHost: HOST", 404),
        ("GET /index.html HTTP/1.1\r\nHost: HOST", 404),
        ("GET http://HOST/ HTTP/1.1\r\nHost: HOST", 404),
        ("POST /nowhere HTTP/1.1\r\nHost: HOST", 404),
        ("POST / HTTP/1.1\r\nHost: HOST", 404),
        ("GET /digit HTTP/1.1\r\nHost: HOST", 404),
        ("HEAD / HTTP/1.1\r\nHost: HOST", 501),
        ("PUT /digit HTTP/1.1\r\nHost: HOST", 501),
        ("DELETE /page.js HTTP/1.1\r\nHost: HOST", 501),
        ("OPTIONS /digit HTTP/1.1\r\nHost: HOST\r\nAccess-Control-Request-Method: POST", 501),
        ("TRACE / HTTP/1.1\r\nHost: HOST", 501),
        ("CONNECT evil.example:443 HTTP/1.1\r\nHost: HOST", 501),
        ("BREW / HTTP/1.1\r\nHost: HOST", 501),
        # Malformed requests.
        ("GET / HTTP/9.9\r\nHost: HOST", 505),
        ("GET / HTTP/one\r\nHost: HOST", 400),
        ("GET", 400),
        ("\x16\x03\x01\x02\x00", 400),  # the start of TLS
        ("GET /" + "a" * 70_000 + " HTTP/1.1\r\nHost: HOST", 414),
        ("GET / HTTP/1.1\r\nHost: HOST\r\nX: " + "a" * 70_000, 431),
        ("GET / HTTP/1.1\r\nHost: HOST" + "\r\nX: y" * 200, 431),
    ],
)
def test_a_request_for_anything_else_is_refused(served: Served, request_line_and_headers: str, status: int) -> None:
    reply = served.ask(served.filled(request_line_and_headers) + b"\r\n\r\n")
    assert int(reply.split(b" ", 2)[1]) == status
    assert b"Content-Security-Policy" in reply
    assert b"evil" not in reply
    assert b"passwd" not in reply


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (["Host: evil.example"], 421),
        (["Origin: null"], 403),
        (["Origin: http://evil.example"], 403),
        (["Origin: https://HOST"], 403),
        (["Origin: http://127.0.0.1:1"], 403),
        (["Origin: http://HOST", "Origin: http://evil.example"], 403),
        # Content types that a form on another page can send without permission.
        (["Content-Type: text/plain"], 415),
        (["Content-Type: application/x-www-form-urlencoded"], 415),
        (["Content-Type: multipart/form-data; boundary=x"], 415),
        (["Content-Type: application/octet-stream", "Content-Type: text/plain"], 415),
        (["Content-Length: 1073741824"], 400),
        (["Content-Length: " + "9" * 5000], 400),
        ([f"Content-Length: {BODY_BYTES + 1}"], 400),
        ([f"Content-Length: {BODY_BYTES - 1}"], 400),
        (["Content-Length: 0"], 400),
        (["Content-Length: -1"], 400),
        (["Content-Length: +78400"], 400),
        (["Content-Length: 0x13240"], 400),
        (["Content-Length: 78_400"], 400),
        (["Content-Length: \xb2"], 400),
        (["Content-Length: 78400", "Content-Length: 1"], 400),
        (["Transfer-Encoding: chunked"], 400),
    ],
)
def test_requests_that_the_page_does_not_send_never_reach_the_network(
    served: Served, headers: list[str], status: int
) -> None:
    assert served.status(served.post(*headers)) == status
    assert not served.drawings


def test_a_request_without_content_length_is_refused(served: Served) -> None:
    request = served.filled("POST /digit HTTP/1.1\r\nHost: HOST\r\nContent-Type: application/octet-stream\r\n\r\n")
    assert served.status(request) == 400


def test_a_body_shorter_than_its_content_length_is_refused(served: Served) -> None:
    assert served.status(served.post()[:-1]) == 400
    assert not served.drawings


def test_a_second_request_on_a_connection_is_not_read(served: Served) -> None:
    reply = served.ask(served.post() + served.post(), close=False)
    assert reply.count(b"HTTP/1.0") == 1
    assert len(served.drawings) == 1


@pytest.mark.parametrize("sent", [0, 10, 70, -100])
def test_a_client_that_stops_sending_is_disconnected(
    served: Served, monkeypatch: pytest.MonkeyPatch, sent: int
) -> None:
    monkeypatch.setattr(_Handler, "timeout", 0.2)
    assert served.ask(served.post()[:sent], close=False) == b""
    assert not served.drawings
    monkeypatch.setattr(_Handler, "timeout", 30)


def test_closing_does_not_wait_for_idle_connections_and_ends_predictions(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread in torch while the process exits can crash it."""
    monkeypatch.setattr(_Handler, "timeout", 3600.0)
    served = Served()
    serving = threading.Thread(target=served.server.serve_forever, kwargs={"poll_interval": 0.01})
    serving.start()
    with socket.create_connection(("127.0.0.1", served.port), timeout=30) as connection:
        connection.sendall(served.post()[:-100])
        served.ask(b"")  # accepted after the other, which therefore has its thread
        served.server.shutdown()
        closing = threading.Thread(target=served.server.server_close, daemon=True)
        closing.start()
        closing.join(timeout=60)
        assert not closing.is_alive()
        connection.sendall(DRAWING[-100:])
        connection.settimeout(0.5)
        with pytest.raises(TimeoutError):
            connection.recv(1)
    serving.join()
    assert not served.drawings


def test_many_concurrent_requests_all_get_a_prediction(served: Served) -> None:
    with ThreadPoolExecutor(16) as pool:
        replies = list(pool.map(lambda _: served.ask(served.post()), range(100)))
    assert all(reply.startswith(b"HTTP/1.0 200 OK") for reply in replies)
    assert served.drawings == [DRAWING] * 100


def test_corrupted_requests_get_an_error_status_or_no_reply(served: Served) -> None:
    random = np.random.default_rng(0)
    good = served.post(f"Origin: http://{served.own}")
    head = good.index(b"\r\n\r\n") + 4
    for _ in range(150):
        corrupted = bytearray(good)
        for place in random.integers(0, head, random.integers(1, 6)):
            corrupted[place] = random.integers(0, 256)
        reply = served.ask(bytes(corrupted[: random.integers(1, len(corrupted))]))
        assert reply.split(b" ", 2)[1:2] in ([], [b"200"], *([str(code).encode()] for code in (
            400, 403, 404, 414, 415, 421, 431, 501, 505,
        ))), reply[:200]  # fmt: skip


def test_the_server_listens_on_this_machine_only(served: Served) -> None:
    assert served.server.socket.getsockname() == ("127.0.0.1", served.port)
