"""The demo's server against clients that mean no good, over plain sockets."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import numpy as np
import pytest

from mnist_lightning.inference.demo import server
from mnist_lightning.inference.demo.server import BODY_BYTES, PageServer

DRAWING = bytes(range(256)) * (BODY_BYTES // 256) + bytes(BODY_BYTES % 256)


class Served:
    """A server at work, and what reached its network."""

    def __init__(self) -> None:
        self.drawings: list[bytes] = []
        self.errors: list[object] = []
        self.server = PageServer("127.0.0.1", 0, {"class_names": ["0", "1"]}, self.recognise)
        self.port = self.server.server_address[1]
        self.own = f"127.0.0.1:{self.port}"

    def recognise(self, drawing: bytes) -> dict[str, str]:
        self.drawings.append(drawing)
        return {"label": "7"}

    def post(self, *headers: str, body: bytes = DRAWING, path: str = "/digit") -> bytes:
        """Return a good question, but for the headers that are given in place of its own."""
        named = {header.split(":")[0] for header in headers}
        own = ("Host: HOST", "Content-Type: application/octet-stream", f"Content-Length: {len(body)}")
        lines = [f"POST {path} HTTP/1.1", *headers, *(line for line in own if line.split(":")[0] not in named)]
        return self.filled("\r\n".join(lines)) + b"\r\n\r\n" + body

    def filled(self, text: str) -> bytes:
        return text.replace("HOST", self.own).encode("latin-1")

    def ask(self, request: bytes, *, close: bool = True) -> bytes:
        """Send bytes and return all that comes back until the server closes the connection."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=30) as connection:
            with suppress(OSError):  # it may refuse what it has not read to the end
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
    assert b" 200 OK" in good, "it still answers"
    served.server.shutdown()
    served.server.server_close()
    assert not served.errors


def test_a_good_question_is_answered(served: Served) -> None:
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
def test_the_page_is_served_under_every_name_of_this_machine(served: Served, path: str, kind: str) -> None:
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
        ("TRACE / HTTP/1.1\r\nHost: evil.example", 421),
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
        ("POST / HTTP/1.1\r\nHost: HOST", 405),
        ("GET /digit HTTP/1.1\r\nHost: HOST", 405),
        ("HEAD / HTTP/1.1\r\nHost: HOST", 405),
        ("PUT /digit HTTP/1.1\r\nHost: HOST", 405),
        ("DELETE /page.js HTTP/1.1\r\nHost: HOST", 405),
        ("OPTIONS /digit HTTP/1.1\r\nHost: HOST\r\nAccess-Control-Request-Method: POST", 405),
        ("TRACE / HTTP/1.1\r\nHost: HOST", 405),
        ("CONNECT evil.example:443 HTTP/1.1\r\nHost: HOST", 405),
        ("BREW / HTTP/1.1\r\nHost: HOST", 501),
        # What is hardly HTTP.
        ("GET / HTTP/9.9\r\nHost: HOST", 505),
        ("GET / HTTP/one\r\nHost: HOST", 400),
        ("GET", 400),
        ("\x16\x03\x01\x02\x00", 400),  # how TLS begins
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
        # What a form of another page can send without asking.
        (["Content-Type: text/plain"], 415),
        (["Content-Type: application/x-www-form-urlencoded"], 415),
        (["Content-Type: multipart/form-data; boundary=x"], 415),
        (["Content-Type: application/octet-stream", "Content-Type: text/plain"], 415),
        (["Content-Length: 1073741824"], 413),
        (["Content-Length: " + "9" * 5000], 413),
        ([f"Content-Length: {BODY_BYTES + 1}"], 413),
        ([f"Content-Length: {BODY_BYTES - 1}"], 400),
        (["Content-Length: 0"], 400),
        (["Content-Length: -1"], 400),
        (["Content-Length: +78400"], 400),
        (["Content-Length: 0x13240"], 400),
        (["Content-Length: 78_400"], 400),
        (["Content-Length: \xb2"], 400),
        (["Content-Length: 78400", "Content-Length: 1"], 400),
        (["Transfer-Encoding: chunked"], 411),
    ],
)
def test_a_question_that_is_not_the_pages_own_never_reaches_the_network(
    served: Served, headers: list[str], status: int
) -> None:
    assert served.status(served.post(*headers)) == status
    assert not served.drawings


def test_a_question_without_its_length_is_refused(served: Served) -> None:
    request = served.filled("POST /digit HTTP/1.1\r\nHost: HOST\r\nContent-Type: application/octet-stream\r\n\r\n")
    assert served.status(request) == 411


def test_a_body_shorter_than_announced_is_refused(served: Served) -> None:
    assert served.status(served.post()[:-1]) == 400
    assert not served.drawings


def test_a_second_request_on_a_connection_is_not_read(served: Served) -> None:
    reply = served.ask(served.post() + served.post(), close=False)
    assert reply.count(b"HTTP/1.0") == 1
    assert len(served.drawings) == 1


@pytest.mark.parametrize("sent", [0, 10, 70, -100])
def test_a_request_that_never_ends_is_ended(served: Served, monkeypatch: pytest.MonkeyPatch, sent: int) -> None:
    monkeypatch.setattr(server, "REQUEST_S", 0.2)
    reply = served.ask(served.post()[:sent], close=False)
    assert reply.startswith(b"HTTP/1.0 408 Request Timeout")
    monkeypatch.setattr(server, "REQUEST_S", 30)


def test_dripping_does_not_prolong_a_request(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "REQUEST_S", 0.3)
    stopped = threading.Event()
    with socket.create_connection(("127.0.0.1", served.port), timeout=30) as connection:

        def drip() -> None:
            with suppress(OSError):
                while not stopped.wait(0.05):  # each byte comes well within the limit
                    connection.sendall(b"G")

        dripper = threading.Thread(target=drip)
        dripper.start()
        reply = received(connection)
        stopped.set()
        dripper.join()
    assert b" 408 " in reply
    monkeypatch.setattr(server, "REQUEST_S", 30)


def test_more_connections_than_allowed_are_refused_and_others_served_once_they_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server, "MAX_CONNECTIONS", 4)
    served = Served()
    threading.Thread(target=served.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    idle = [socket.create_connection(("127.0.0.1", served.port), timeout=30) for _ in range(4)]
    assert served.ask(b"").startswith(b"HTTP/1.0 503 ")
    for connection in idle:
        connection.close()
    while not (reply := served.ask(served.post())).startswith(b"HTTP/1.0 200 "):
        assert reply.startswith(b"HTTP/1.0 503 ") or not reply
    served.server.shutdown()
    served.server.server_close()


def test_closing_ends_idle_connections_and_leaves_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that lived on would be ended with the process, which torch can take for a crash."""
    monkeypatch.setattr(server, "REQUEST_S", 3600.0)  # which closing does not wait for
    before = set(threading.enumerate())
    served = Served()
    serving = threading.Thread(target=served.server.serve_forever, kwargs={"poll_interval": 0.01})
    serving.start()
    with socket.create_connection(("127.0.0.1", served.port), timeout=30) as connection:
        connection.sendall(b"GET / HT")
        while len(served.server._open) < 1:
            time.sleep(0.01)
        served.server.shutdown()
        closing = threading.Thread(target=served.server.server_close, daemon=True)
        closing.start()
        closing.join(timeout=60)
        assert not closing.is_alive()
        received(connection)  # comes to its end
    serving.join()
    assert set(threading.enumerate()) == before


def test_many_good_questions_at_once_are_all_answered(served: Served) -> None:
    with ThreadPoolExecutor(16) as pool:
        replies = list(pool.map(lambda _: served.ask(served.post()), range(100)))
    assert all(reply.startswith(b"HTTP/1.0 200 OK") for reply in replies)
    assert served.drawings == [DRAWING] * 100


def test_damaged_requests_get_a_refusal_or_nothing(served: Served) -> None:
    random = np.random.default_rng(0)
    good = served.post(f"Origin: http://{served.own}")
    head = good.index(b"\r\n\r\n") + 4
    for _ in range(150):
        damaged = bytearray(good)
        for place in random.integers(0, head, random.integers(1, 6)):
            damaged[place] = random.integers(0, 256)
        reply = served.ask(bytes(damaged[: random.integers(1, len(damaged))]))
        assert reply.split(b" ", 2)[1:2] in ([], [b"200"], *([str(code).encode()] for code in (
            400, 403, 404, 405, 408, 411, 413, 414, 415, 421, 431, 501, 505,
        ))), reply[:200]  # fmt: skip


def test_it_listens_on_this_machine_alone(served: Served) -> None:
    assert served.server.socket.getsockname() == ("127.0.0.1", served.port)
