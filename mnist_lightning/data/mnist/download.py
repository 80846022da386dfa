"""Download one file over https, with retries and limits of time and size.

Knows nothing of data sets, checksums or folders.
"""

import http.client
import io
import queue
import threading
import time
from collections.abc import Callable
from typing import IO, TYPE_CHECKING, NoReturn
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from tqdm import tqdm

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

TIMEOUT_S = 10.0  # to connect, and for each read
BACKOFFS_S = (0.0, 0.5, 1.5)  # the wait before each attempt
# A transfer may take GRACE_S, and a second more for every LOWEST_SPEED bytes.
GRACE_S = 20.0
LOWEST_SPEED_B_PER_S = 16 * 1024


class MirrorError(Exception):
    """A mirror did not deliver a file; the message is the reason, without the address.

    Args:
        reason: What happened; only the first line is kept.
        transient: Whether the same request may succeed a moment later.
        reachable: Whether the mirror responded at all, so that it may have another file.
    """

    def __init__(self, reason: str, *, transient: bool, reachable: bool) -> None:
        first_line = reason.strip().partition("\n")[0]
        super().__init__("".join(filter(str.isprintable, first_line)))
        self.transient = transient
        self.reachable = reachable


class ContentError(Exception):
    """The bytes received are not those of the requested file; raised by the code that checks them."""


class _Body(io.RawIOBase):
    """The body of a response, read within limits of size and time."""

    def __init__(
        self, response: http.client.HTTPResponse, *, started_s: float, max_bytes: int, progress: "tqdm[NoReturn]"
    ) -> None:
        self._response = response
        self._started_s = started_s
        self._max_bytes = max_bytes
        self._progress = progress
        self._received = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        view = memoryview(buffer)
        try:
            # Not `readinto`, which waits until the buffer is full, however slowly bytes arrive.
            chunk = self._response.read1(len(view))
        except (OSError, http.client.HTTPException) as error:
            raise _fault(error) from error
        self._received += len(chunk)
        self._progress.update(len(chunk))
        if self._received > self._max_bytes:
            raise MirrorError(f"sends more than {self._max_bytes} bytes", transient=False, reachable=True)
        if time.monotonic() - self._started_s > GRACE_S + self._received / LOWEST_SPEED_B_PER_S:
            raise MirrorError(f"too slow, {self._received} bytes so far", transient=False, reachable=False)
        view[: len(chunk)] = chunk
        return len(chunk)


def download(url: str, save: Callable[[io.BufferedReader], None], max_bytes: int) -> None:
    """Pass the body of an https address to `save`; retry after errors that may be transient.

    Args:
        url: The address.
        save: Reads the body, and raises ContentError if it is not the expected one; called once per attempt.
        max_bytes: The longest body to accept.

    Raises:
        MirrorError: If the mirror does not deliver the file.
    """
    for backoff_s in BACKOFFS_S:
        time.sleep(backoff_s)
        started_s = time.monotonic()
        try:
            with _open(url) as response, _progress_bar(url, response) as progress:
                body = _Body(response, started_s=started_s, max_bytes=max_bytes, progress=progress)
                save(io.BufferedReader(body))
                return
        except ContentError as error:
            fault = MirrorError(str(error), transient=True, reachable=True)
        except MirrorError as error:
            fault = error
        if not fault.transient:
            break
    raise fault


def _progress_bar(url: str, response: http.client.HTTPResponse) -> "tqdm[NoReturn]":
    name = url.rpartition("/")[2]
    # `disable=None` shows the bar if stderr is a terminal.
    return tqdm(desc=name, total=response.length, unit="B", unit_scale=True, leave=False, disable=None)


class _HttpsRedirects(HTTPRedirectHandler):
    """Follow redirects to https addresses only; urllib limits their number."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: http.client.HTTPMessage, newurl: str
    ) -> Request | None:
        if (scheme := urlsplit(newurl).scheme) != "https":
            raise HTTPError(req.full_url, code, f"redirects to {scheme}, not https", headers, fp)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _open(url: str) -> http.client.HTTPResponse:
    """Send the request from a thread, because urllib's timeout does not cover name resolution and slow headers."""
    if urlsplit(url).scheme != "https":
        raise MirrorError("not an https address", transient=False, reachable=False)
    request = Request(url, headers={"User-Agent": "mnist-lightning"})
    responses: queue.SimpleQueue[http.client.HTTPResponse | Exception] = queue.SimpleQueue()

    def send() -> None:
        try:
            responses.put(build_opener(_HttpsRedirects).open(request, timeout=TIMEOUT_S))
        except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: an invalid host name
            responses.put(error)

    threading.Thread(target=send, daemon=True).start()
    try:
        response = responses.get(timeout=GRACE_S)
    except queue.Empty:
        raise MirrorError(f"no response within {GRACE_S:g} s", transient=False, reachable=False) from None
    if isinstance(response, Exception):
        raise _fault(response) from response
    return response


def _fault(error: Exception) -> MirrorError:
    """Return the error as a MirrorError, which holds whether it is transient and whether the mirror is reachable."""
    if isinstance(error, HTTPError):
        error.close()
        # The reason of a redirect is urllib's or ours; any other comes from the server and is not printed.
        reason = str(error.reason) if 300 <= error.code < 400 else http.client.responses.get(error.code, "")
        transient = error.code >= 500 or error.code in (408, 429)  # request timeout, too many requests
        return MirrorError(f"HTTP {error.code} {reason}", transient=transient, reachable=True)
    transient = not isinstance(error, ValueError)
    if isinstance(error, URLError) and isinstance(error.reason, OSError):
        error = error.reason  # raised while connecting: only a dropped connection may be transient
        transient = isinstance(error, ConnectionError) and not isinstance(error, ConnectionRefusedError)
    reason = "timed out" if isinstance(error, TimeoutError) else getattr(error, "strerror", None) or str(error)
    return MirrorError(reason or type(error).__name__, transient=transient, reachable=False)
