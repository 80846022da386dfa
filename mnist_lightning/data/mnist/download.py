"""Download one file over https, with retries and limits of time and size.

Knows nothing of data sets, checksums or folders.
"""

import http.client
import time
from collections.abc import Callable, Iterator
from http import HTTPStatus
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from tqdm import tqdm

from mnist_lightning.data.mnist.raw_files import FetchError

TIMEOUT_S = 10.0  # to connect, and for each read
BACKOFFS_S = (0.0, 0.5, 1.5)  # the wait before each attempt
# A transfer may take GRACE_S, and a second more for every LOWEST_SPEED bytes.
GRACE_S = 20.0
LOWEST_SPEED_B_PER_S = 16 * 1024
CHUNK_BYTES = 1 << 16


def download(url: str, path: Path, max_bytes: int, use: Callable[[Path], object]) -> None:
    """Download a file of at most `max_bytes` to `path`, hand it to `use`, and remove it.

    Errors that may be transient are retried. It is a FetchError if the mirror does not deliver the file, or if `use`
    raises one because it is not the expected file, and an OSError if it cannot be written.
    """
    for attempt, backoff_s in enumerate(BACKOFFS_S, start=1):
        time.sleep(backoff_s)
        try:
            with path.open("wb") as file:
                file.writelines(_chunks(url, max_bytes))
            use(path)
            return
        except FetchError as error:
            if not error.transient or attempt == len(BACKOFFS_S):
                raise
        finally:
            path.unlink(missing_ok=True)


def _chunks(url: str, max_bytes: int) -> Iterator[bytes]:
    """Yield the content of an address in pieces; any fault of the network becomes a FetchError."""
    started_s, received = time.monotonic(), 0
    request = Request(url, headers={"User-Agent": "mnist-lightning"})
    try:
        with urlopen(request, timeout=TIMEOUT_S) as response:
            if not response.url.startswith("https://"):
                raise FetchError("redirects to http, not https", transient=False)
            name = url.rpartition("/")[2]
            # `disable=None` shows the bar if stderr is a terminal.
            with tqdm(desc=name, total=response.length, unit="B", unit_scale=True, leave=False, disable=None) as bar:
                # Not `read`, which waits until the chunk is full, however slowly bytes arrive.
                while chunk := response.read1(CHUNK_BYTES):
                    received += len(chunk)
                    bar.update(len(chunk))
                    if received > max_bytes:
                        raise FetchError(f"sends more than {max_bytes} bytes", transient=False)
                    if time.monotonic() - started_s > GRACE_S + received / LOWEST_SPEED_B_PER_S:
                        raise FetchError(f"too slow, {received} bytes so far", transient=False)
                    yield chunk
    except HTTPError as error:
        error.close()
        # The reason of a redirect is urllib's; any other comes from the server and is not printed.
        reason = str(error.reason) if error.code < 400 else http.client.responses.get(error.code, "")
        transient = error.code >= 500 or error.code == HTTPStatus.TOO_MANY_REQUESTS
        raise FetchError(f"HTTP {error.code} {reason}", transient=transient) from error
    except (URLError, ValueError) as error:  # no connection, or no valid host name
        raise FetchError(str(getattr(error, "reason", error)), transient=False) from error
    except (OSError, http.client.HTTPException) as error:
        raise FetchError(str(error) or type(error).__name__) from error
