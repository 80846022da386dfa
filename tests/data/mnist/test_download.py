"""Where missing files come from: mirrors with every fault, the bundled copy, many processes at once."""

import io
import math
import re
import signal
import socket
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from mnist_lightning.data.mnist import download, fetch
from mnist_lightning.data.mnist.registry import DatasetSource
from mnist_lightning.errors import ConfigError, DatasetError
from tests.data.mnist.mirror import FaultyMirror
from tests.data.small import NAMES, PACKED, PUBLISHED, contents, fetch_mnist, fill, flip_a_bit, start_fetch


def test_an_empty_folder_is_filled_from_a_mirror_and_nothing_is_printed(
    dataset: DatasetSource, tmp_path: Path, mirror: FaultyMirror, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "new" / "Small" / "raw"
    assert fetch_mnist(dataset, folder, "download", (mirror.address(),)) == PUBLISHED
    assert capfd.readouterr() == ("", "")


def test_only_missing_files_are_requested(dataset: DatasetSource, folder: Path, mirror: FaultyMirror) -> None:
    fill(folder, {name: PUBLISHED[name] for name in NAMES[:3]})
    assert fetch_mnist(dataset, folder, mirrors=(mirror.address(),)) == PUBLISHED
    assert mirror.requests == {f"/good/{NAMES[3]}.gz": 1}


@pytest.mark.parametrize(
    ("fault", "tries", "reason"),
    [
        ("403", 1, "HTTP 403 Forbidden"),
        ("404", 1, "HTTP 404 Not Found"),
        ("503", 3, "HTTP 503 Service Unavailable"),
        ("loop", 5, "infinite loop"),  # urllib asks the same address so often
        ("to-file", 1, "not allowed"),
        ("truncated", 3, "not a complete gzip file"),
        ("wrong", 3, "SHA-256"),
        ("html", 3, "not a complete gzip file"),
        ("bomb", 3, "holds more than 2176 bytes"),
        ("hollow", 1, "sends more than"),
        ("cut", 3, "closed connection"),
    ],
)
def test_a_faulty_mirror_is_abandoned_for_the_next_after_a_fixed_number_of_attempts(
    dataset: DatasetSource, folder: Path, mirror: FaultyMirror, fault: str, tries: int, reason: str
) -> None:
    assert fetch_mnist(dataset, folder, "download", (mirror.address(fault), mirror.address())) == PUBLISHED
    assert mirror.count(fault, NAMES[0]) == tries
    assert mirror.count("good", NAMES[0]) == 1

    (folder / NAMES[0]).unlink()
    with pytest.raises(DatasetError) as caught:
        fetch_mnist(dataset, folder, "download", (mirror.address(fault),))
    assert reason in str(caught.value)
    assert "\x1b" not in str(caught.value)
    assert NAMES[0] not in contents(folder)
    assert not list(folder.glob("*.part"))


@pytest.mark.parametrize("fault", ["503-once", "429-once", "cut-once", "truncated-once", "wrong-once"])
def test_a_transient_error_costs_a_second_attempt(
    dataset: DatasetSource, folder: Path, mirror: FaultyMirror, fault: str
) -> None:
    assert fetch_mnist(dataset, folder, "download", (mirror.address(fault),)) == PUBLISHED
    assert {mirror.count(fault, name) for name in NAMES} == {2}


def test_a_redirect_to_https_is_followed(dataset: DatasetSource, folder: Path, mirror: FaultyMirror) -> None:
    assert fetch_mnist(dataset, folder, "download", (mirror.address("elsewhere").rstrip("/"),)) == PUBLISHED


def test_a_redirect_to_http_is_refused(dataset: DatasetSource, folder: Path, mirror: FaultyMirror) -> None:
    with FaultyMirror(PACKED, authority=None) as plain:
        mirror.http_address = plain.address()
        with pytest.raises(DatasetError, match="redirects to http, not https"):
            fetch_mnist(dataset, folder, "download", (mirror.address("to-http"),))
    assert contents(folder) == {}


def test_a_mirror_that_failed_is_not_asked_for_the_next_file(
    dataset: DatasetSource, folder: Path, mirror: FaultyMirror
) -> None:
    assert (
        fetch_mnist(dataset, folder, "download", (mirror.address("cut"), mirror.address("404"), mirror.address()))
        == PUBLISHED
    )
    assert [mirror.count("cut", name) for name in NAMES] == [3, 0, 0, 0]
    assert [mirror.count("404", name) for name in NAMES] == [1, 0, 0, 0]


@pytest.mark.parametrize(
    ("fault", "limit", "reason"),
    [
        ("silent", "TIMEOUT_S", "timed out"),
        ("stall", "TIMEOUT_S", "timed out"),
        ("drip", "GRACE_S", "too slow"),
    ],
)
def test_a_mirror_that_stalls_or_drips_is_abandoned(
    dataset: DatasetSource,
    folder: Path,
    mirror: FaultyMirror,
    monkeypatch: pytest.MonkeyPatch,
    fault: str,
    limit: str,
    reason: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(download, limit, 0.8)
    assert fetch_mnist(dataset, folder, mirrors=(mirror.address(fault),)) == PUBLISHED
    assert re.search(reason, capfd.readouterr().err)


def unused_port() -> int:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port: int = unused.getsockname()[1]
        return port


@pytest.fixture
def no_second_try(mirror: FaultyMirror, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the wait before a second try an error: no one can sleep that long."""
    monkeypatch.setattr(download, "BACKOFFS_S", (0, math.inf))


@pytest.mark.usefixtures("no_second_try")
def test_a_refused_connection_goes_to_the_next_mirror_at_once(
    dataset: DatasetSource, folder: Path, mirror: FaultyMirror
) -> None:
    refused = f"https://127.0.0.1:{unused_port()}/"
    assert fetch_mnist(dataset, folder, "download", (refused, mirror.address())) == PUBLISHED


@pytest.mark.usefixtures("no_second_try")
@pytest.mark.parametrize(
    ("address", "reason"),
    [("https://no-such-mirror.invalid/", "Name or service not known"), ("https://a..b/", "label")],
)
def test_a_name_that_does_not_resolve_is_abandoned_at_once(
    dataset: DatasetSource,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    address: str,
    reason: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def resolve(host: str, *_: object) -> None:
        host.encode("idna")
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)  # instead of asking a name server
    assert fetch_mnist(dataset, folder, mirrors=(address,)) == PUBLISHED
    assert reason in capfd.readouterr().err


@pytest.mark.usefixtures("no_second_try")
def test_an_untrusted_certificate_is_rejected_at_once(
    dataset: DatasetSource,
    folder: Path,
    mirror: FaultyMirror,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    assert fetch_mnist(dataset, folder, mirrors=(mirror.address(),)) == PUBLISHED
    assert "certificate verify failed" in capfd.readouterr().err
    assert not mirror.requests


def test_the_bundled_copy_is_the_last_mirror_and_one_line_gives_the_reason(
    dataset: DatasetSource, folder: Path, mirror: FaultyMirror, capfd: pytest.CaptureFixture[str]
) -> None:
    assert fetch_mnist(dataset, folder, mirrors=(mirror.address("403"), mirror.address("404"))) == PUBLISHED
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1
    assert "HTTP 403 Forbidden" in lines[0]
    assert "HTTP 404 Not Found" in lines[0]
    assert "bundled copy" in lines[0]


def test_source_download_fails_with_every_address_and_instructions(
    dataset: DatasetSource, folder: Path, mirror: FaultyMirror
) -> None:
    with pytest.raises(DatasetError) as caught:
        fetch_mnist(dataset, folder, "download", (mirror.address("403"), mirror.address("404")))
    message = str(caught.value)
    assert f"{mirror.address('403')}{NAMES[0]}.gz: HTTP 403 Forbidden" in message
    assert f"{mirror.address('404')}{NAMES[0]}.gz: HTTP 404 Not Found" in message
    assert all(f"{name}.gz" in message for name in NAMES)
    assert f"into {folder}" in message
    assert len(message.splitlines()) <= 5
    assert contents(folder) == {}


def test_source_bundled_contacts_no_mirror_and_prints_nothing(
    dataset: DatasetSource, folder: Path, mirror: FaultyMirror, capfd: pytest.CaptureFixture[str]
) -> None:
    assert fetch_mnist(dataset, folder, "bundled", (mirror.address(),)) == PUBLISHED
    assert not mirror.requests
    assert capfd.readouterr() == ("", "")


def test_the_mirrors_of_the_data_set_are_used_unless_others_are_given(
    dataset: DatasetSource, folder: Path, mirror: FaultyMirror
) -> None:
    dataset = replace(dataset, mirrors=(mirror.address(),))
    fetch.fetch(dataset, folder.parents[1], source="download")
    assert contents(folder) == PUBLISHED


def test_a_damaged_bundled_copy_is_a_dataset_error(dataset: DatasetSource, folder: Path) -> None:
    assert dataset.bundled is not None
    (dataset.bundled / f"{NAMES[2]}.gz").write_bytes(b"damaged")
    with pytest.raises(DatasetError, match=rf"{NAMES[2]}\.gz: the bundled copy is damaged"):
        fetch_mnist(dataset, folder, "bundled")
    assert contents(folder) == {name: PUBLISHED[name] for name in NAMES[:2]}


def test_an_invalid_mirror_or_source_is_a_usage_error(dataset: DatasetSource, folder: Path) -> None:
    for address in ("http://example.org/mnist/", "https:///mnist/", "https://[half/", "/mnist"):
        with pytest.raises(ConfigError, match="mirrors must be https addresses"):
            fetch_mnist(dataset, folder, mirrors=(address,))
    with pytest.raises(ConfigError, match="no bundled copy"):
        fetch_mnist(replace(dataset, bundled=None), folder, "bundled")


def test_a_progress_bar_shows_on_a_terminal(
    dataset: DatasetSource, folder: Path, mirror: FaultyMirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    fetch_mnist(dataset, folder, "download", (mirror.address(),))
    assert f"{NAMES[0]}.gz:   0%" in terminal.getvalue()


@pytest.mark.parametrize("damaged", [False, True])
def test_eight_processes_at_once_all_succeed_and_one_downloads(
    dataset: DatasetSource, folder: Path, mirror: FaultyMirror, damaged: bool
) -> None:
    if damaged:
        fill(folder, PUBLISHED | {NAMES[0]: flip_a_bit(PUBLISHED[NAMES[0]])})
    processes = [start_fetch(dataset, folder, mirror.address()) for _ in range(8)]
    outcomes = [(process.communicate(timeout=600), process.returncode) for process in processes]
    assert [code for _, code in outcomes] == [0] * 8, outcomes
    assert {name: content for name, content in contents(folder).items() if "damaged" not in name} == PUBLISHED
    assert mirror.count("good", NAMES[0]) == 1


def test_a_killed_download_leaves_nothing_under_a_final_name_and_a_rerun_repairs(
    dataset: DatasetSource, folder: Path, mirror: FaultyMirror
) -> None:
    process = start_fetch(dataset, folder, mirror.address("stall"))
    while not list(folder.glob("*.part")):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    (part,) = folder.iterdir()
    assert part.suffix == ".part"
    assert fetch_mnist(dataset, folder, "download", (mirror.address(),)) == PUBLISHED
