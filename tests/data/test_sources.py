import gzip
import hashlib
import io
import math
import os
import pickle
import re
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import trustme

from mnist_lightning.data import download, raw_files, sources
from mnist_lightning.data.family import DIGITS, MNIST, DatasetSource, RawFile
from mnist_lightning.errors import ConfigError, DatasetError, StorageError
from tests.data.mirror import FaultyMirror

REPOSITORY = Path(__file__).parents[2]
NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def idx_bytes(*shape: int, below: int = 10, seed: int = 0) -> bytes:
    items = np.random.default_rng(seed).integers(0, below, shape, dtype=np.uint8)
    return bytes([0, 0, 8, len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + items.tobytes()


def shape_in_header(content: bytes) -> tuple[int, ...]:
    return struct.unpack_from(f">{content[3]}I", content, 4)


def four_files(train: int, test: int, side: int) -> dict[str, bytes]:
    shapes = ((train, side, side), (train,), (test, side, side), (test,))
    return {name: idx_bytes(*shape, seed=seed) for seed, (name, shape) in enumerate(zip(NAMES, shapes, strict=True))}


PUBLISHED = four_files(60, 20, 6)
OWN = four_files(12, 5, 9)
PACKED = {f"{name}.gz": gzip.compress(content) for name, content in PUBLISHED.items()}


@pytest.fixture
def dataset(tmp_path: Path) -> DatasetSource:
    """A small data set, with a bundled copy and with no mirrors of its own."""
    bundled = tmp_path / "bundled"
    bundled.mkdir()
    for name, packed in PACKED.items():
        (bundled / name).write_bytes(packed)
    train_images, train_labels, test_images, test_labels = (
        RawFile(name, shape_in_header(content), hashlib.sha256(content).hexdigest())
        for name, content in PUBLISHED.items()
    )
    return DatasetSource(
        "Small", (train_images, train_labels, test_images, test_labels), mirrors=(), class_names=DIGITS, bundled=bundled
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "data" / "Small" / "raw"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def mirror(authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyMirror]:
    """A running mirror whose certificate is trusted and which no proxy hides; tries follow each other quickly."""
    authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(download, "BACKOFFS_S", (0, 0.01, 0.01))
    with FaultyMirror(PACKED, authority) as mirror:
        yield mirror


def fill(folder: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        (folder / name).write_bytes(content)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def fetch(
    dataset: DatasetSource, folder: Path, source: sources.Source = "auto", mirrors: tuple[str, ...] = ()
) -> dict[str, bytes]:
    assert sources.fetch(dataset, folder.parents[1], source=source, mirrors=mirrors) == folder
    return contents(folder)


# What is in the folder


@pytest.mark.parametrize("source", ["auto", "download", "bundled", "files"])
def test_a_complete_folder_is_left_as_it_is_without_a_word(
    dataset: DatasetSource, folder: Path, source: sources.Source, capfd: pytest.CaptureFixture[str]
) -> None:
    fill(folder, PUBLISHED)
    folder.chmod(0o555)
    before = [(path, path.stat()) for path in (folder, *sorted(folder.iterdir()))]
    assert fetch(dataset, folder, source) == PUBLISHED
    after = [(path, path.stat()) for path in (folder, *sorted(folder.iterdir()))]
    assert [(path, stat.st_ino, stat.st_mtime_ns) for path, stat in after] == [
        (path, stat.st_ino, stat.st_mtime_ns) for path, stat in before
    ]
    assert capfd.readouterr() == ("", "")
    folder.chmod(0o755)


@pytest.mark.parametrize("level", [1, 9])
def test_gz_files_put_there_by_hand_are_unpacked_however_they_were_packed(
    dataset: DatasetSource, folder: Path, level: int, capfd: pytest.CaptureFixture[str]
) -> None:
    packed = {f"{name}.gz": gzip.compress(content, level, mtime=7) for name, content in PUBLISHED.items()}
    fill(folder, packed)
    assert fetch(dataset, folder, "download") == PUBLISHED | packed
    assert capfd.readouterr() == ("", "")


def flip_a_bit(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "flipped-bit": flip_a_bit,
    "truncated": lambda content: content[:-100],
    "other-dimensions-same-size": lambda content: content[:8] + struct.pack(">2I", 4, 9) + content[16:],
    "html": lambda content: b"<html>",
    "empty": lambda content: b"",
    "gzip": gzip.compress,
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_file_is_kept_aside_and_replaced(
    dataset: DatasetSource, folder: Path, damage: Callable[[bytes], bytes], capfd: pytest.CaptureFixture[str]
) -> None:
    name = "train-images-idx3-ubyte"
    damaged = damage(PUBLISHED[name])
    fill(folder, PUBLISHED | {name: damaged})
    assert fetch(dataset, folder, "bundled") == PUBLISHED | {f"{name}.damaged": damaged}
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1
    assert str(folder / name) in lines[0]
    assert f"{name}.damaged" in lines[0]


def test_a_second_damaged_file_does_not_overwrite_the_first(dataset: DatasetSource, folder: Path) -> None:
    fill(folder, PUBLISHED | {NAMES[1]: b"third", f"{NAMES[1]}.damaged": b"first", f"{NAMES[1]}.damaged-1": b"second"})
    assert fetch(dataset, folder, "bundled") == PUBLISHED | {
        f"{NAMES[1]}.damaged": b"first",
        f"{NAMES[1]}.damaged-1": b"second",
        f"{NAMES[1]}.damaged-2": b"third",
    }


@pytest.mark.parametrize("packed", [b"garbage", PACKED[f"{NAMES[0]}.gz"][:-9], gzip.compress(bytes(50 << 20))])
def test_a_damaged_gz_is_kept_aside_and_not_unpacked(
    dataset: DatasetSource, folder: Path, packed: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    fill(folder, {f"{NAMES[0]}.gz": packed})
    assert fetch(dataset, folder, "bundled") == PUBLISHED | {f"{NAMES[0]}.gz.damaged": packed}
    assert f"{NAMES[0]}.gz is damaged" in capfd.readouterr().err


def test_a_good_gz_replaces_a_damaged_raw_file(dataset: DatasetSource, folder: Path) -> None:
    fill(folder, PUBLISHED | {NAMES[0]: b"bad", f"{NAMES[0]}.gz": PACKED[f"{NAMES[0]}.gz"]})
    assert fetch(dataset, folder, "download")[NAMES[0]] == PUBLISHED[NAMES[0]]


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to(path.name)])
def test_what_is_not_a_file_is_moved_aside(dataset: DatasetSource, folder: Path, make: Callable[[Path], None]) -> None:
    make(folder / NAMES[0])
    sources.fetch(dataset, folder.parents[1], source="bundled")
    assert (folder / NAMES[0]).read_bytes() == PUBLISHED[NAMES[0]]
    assert os.path.lexists(folder / f"{NAMES[0]}.damaged")


def test_a_file_published_while_the_old_one_was_judged_is_put_back(folder: Path) -> None:
    path = folder / NAMES[0]
    path.write_bytes(b"old and damaged")
    seen = path.stat()
    path.rename(folder / "taken aside by the other process")
    path.write_bytes(PUBLISHED[NAMES[0]])
    raw_files.keep_aside(path, seen, "damaged when we looked")
    assert contents(folder) == {path.name: PUBLISHED[path.name], "taken aside by the other process": b"old and damaged"}


# Somebody's own files


@pytest.mark.parametrize("packed", [False, True])
def test_own_files_are_used_as_they_are_and_one_line_says_so(
    dataset: DatasetSource, folder: Path, mirror: FaultyMirror, packed: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    placed = {f"{name}.gz": gzip.compress(content) for name, content in OWN.items()} if packed else OWN
    fill(folder, placed)
    assert fetch(dataset, folder, mirrors=(mirror.address(),)) == placed | OWN
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1
    assert "your own" in lines[0]
    assert not mirror.requests


@pytest.mark.parametrize("missing", NAMES)
@pytest.mark.parametrize("source", ["auto", "files"])
def test_a_missing_own_file_is_named_and_not_fetched(
    dataset: DatasetSource, folder: Path, missing: str, source: sources.Source
) -> None:
    placed = {name: content for name, content in OWN.items() if name != missing}
    fill(folder, placed)
    with pytest.raises(DatasetError, match=f"{missing}: missing"):
        fetch(dataset, folder, source)
    assert contents(folder) == placed


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (NAMES[1], idx_bytes(12)[:-1] + b"\xc8", r"label 200 at byte 19 \(item 11\)"),
        (NAMES[1], idx_bytes(11), "11 labels at byte 4"),
        (NAMES[2], idx_bytes(5, 9, 8), r"images of \(9, 8\) at byte 8, but train-images-idx3-ubyte has \(9, 9\)"),
        (NAMES[3], b"<html>", "HTML"),
        (NAMES[0], OWN[NAMES[0]][:-1], "too short"),
    ],
)
@pytest.mark.parametrize("source", ["auto", "files"])
def test_own_files_at_fault_are_refused_and_stay(
    dataset: DatasetSource, folder: Path, name: str, content: bytes, message: str, source: sources.Source
) -> None:
    placed = OWN | {name: content}
    fill(folder, placed)
    with pytest.raises(DatasetError, match=f"{name}: .*{message}"):
        fetch(dataset, folder, source)
    assert contents(folder) == placed


@pytest.mark.parametrize("packed", [gzip.compress(OWN[NAMES[0]])[:-9], gzip.compress(OWN[NAMES[0]] + bytes(9)), b"?"])
def test_an_own_gz_at_fault_is_refused_and_stays(dataset: DatasetSource, folder: Path, packed: bytes) -> None:
    placed = {name: content for name, content in OWN.items() if name != NAMES[0]} | {f"{NAMES[0]}.gz": packed}
    fill(folder, placed)
    with pytest.raises(DatasetError, match=rf"{NAMES[0]}\.gz: "):
        fetch(dataset, folder)
    assert contents(folder) == placed


def test_source_files_takes_files_without_a_checksum(dataset: DatasetSource, folder: Path) -> None:
    placed = PUBLISHED | {NAMES[0]: flip_a_bit(PUBLISHED[NAMES[0]])}
    fill(folder, placed)
    assert fetch(dataset, folder, "files") == placed


# Mirrors


def test_an_empty_folder_is_filled_from_a_mirror_without_a_word(
    dataset: DatasetSource, tmp_path: Path, mirror: FaultyMirror, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "new" / "Small" / "raw"
    assert fetch(dataset, folder, "download", (mirror.address(),)) == PUBLISHED
    assert capfd.readouterr() == ("", "")


def test_only_missing_files_are_asked_for(dataset: DatasetSource, folder: Path, mirror: FaultyMirror) -> None:
    fill(folder, {name: PUBLISHED[name] for name in NAMES[:3]})
    assert fetch(dataset, folder, mirrors=(mirror.address(),)) == PUBLISHED
    assert mirror.requests == {f"/good/{NAMES[3]}.gz": 1}


@pytest.mark.parametrize(
    ("fault", "tries", "reason"),
    [
        ("403", 1, "HTTP 403 Forbidden"),
        ("404", 1, "HTTP 404 Not Found"),
        ("503", 3, "HTTP 503 Service Unavailable"),
        ("loop", 5, "infinite loop"),  # urllib asks the same address so often
        ("to-http", 1, "redirects to http, not https"),
        ("to-file", 1, "not allowed"),
        ("truncated", 3, "not a whole gzip file"),
        ("wrong", 3, "SHA-256"),
        ("html", 3, "not a whole gzip file"),
        ("bomb", 3, "unpacks to more than 2176 bytes"),
        ("hollow", 1, "sends more than"),
        ("cut", 3, "closed connection"),
    ],
)
def test_a_faulty_mirror_is_given_up_for_the_next_after_so_many_tries(
    dataset: DatasetSource, folder: Path, mirror: FaultyMirror, fault: str, tries: int, reason: str
) -> None:
    assert fetch(dataset, folder, "download", (mirror.address(fault), mirror.address())) == PUBLISHED
    assert mirror.count(fault, NAMES[0]) == tries
    assert mirror.count("good", NAMES[0]) == 1

    (folder / NAMES[0]).unlink()
    with pytest.raises(DatasetError) as caught:
        fetch(dataset, folder, "download", (mirror.address(fault),))
    assert reason in str(caught.value)
    assert "\x1b" not in str(caught.value)
    assert NAMES[0] not in contents(folder)
    assert not list(folder.glob("*.part"))


@pytest.mark.parametrize("fault", ["503-once", "429-once", "cut-once", "truncated-once", "wrong-once"])
def test_a_passing_fault_costs_a_second_try(
    dataset: DatasetSource, folder: Path, mirror: FaultyMirror, fault: str
) -> None:
    assert fetch(dataset, folder, "download", (mirror.address(fault),)) == PUBLISHED
    assert {mirror.count(fault, name) for name in NAMES} == {2}


def test_a_redirect_to_https_is_followed(dataset: DatasetSource, folder: Path, mirror: FaultyMirror) -> None:
    assert fetch(dataset, folder, "download", (mirror.address("elsewhere").rstrip("/"),)) == PUBLISHED


def test_a_mirror_that_cannot_be_reached_is_not_asked_for_the_next_file(
    dataset: DatasetSource, folder: Path, mirror: FaultyMirror
) -> None:
    assert (
        fetch(dataset, folder, "download", (mirror.address("cut"), mirror.address("404"), mirror.address()))
        == PUBLISHED
    )
    assert [mirror.count("cut", name) for name in NAMES] == [3, 0, 0, 0]
    assert [mirror.count("404", name) for name in NAMES] == [1, 1, 1, 1]  # it answers, so it may have the next file


@pytest.mark.parametrize(
    ("fault", "limit", "reason"),
    [
        ("silent", "TIMEOUT_S", "timed out"),
        ("stall", "TIMEOUT_S", "timed out"),
        ("drip", "GRACE_S", "too slow|no answer within 0.8 s"),  # a busy machine may not see the first byte in time
        ("drip-headers", "GRACE_S", "no answer within 0.8 s"),
    ],
)
def test_a_mirror_that_stalls_or_drips_is_given_up(
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
    assert fetch(dataset, folder, mirrors=(mirror.address(fault),)) == PUBLISHED
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
    assert fetch(dataset, folder, "download", (refused, mirror.address())) == PUBLISHED


@pytest.mark.usefixtures("no_second_try")
@pytest.mark.parametrize(
    ("address", "reason"),
    [("https://no-such-mirror.invalid/", "Name or service not known"), ("https://a..b/", "label")],
)
def test_a_name_that_does_not_resolve_is_given_up_at_once(
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

    monkeypatch.setattr(socket, "getaddrinfo", resolve)  # in place of asking a name server
    assert fetch(dataset, folder, mirrors=(address,)) == PUBLISHED
    assert reason in capfd.readouterr().err


@pytest.mark.usefixtures("no_second_try")
def test_a_certificate_that_nobody_vouches_for_is_refused_at_once(
    dataset: DatasetSource,
    folder: Path,
    mirror: FaultyMirror,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    assert fetch(dataset, folder, mirrors=(mirror.address(),)) == PUBLISHED
    assert "certificate verify failed" in capfd.readouterr().err
    assert not mirror.requests


def test_the_last_resort_is_the_bundled_copy_and_one_line_says_why(
    dataset: DatasetSource, folder: Path, mirror: FaultyMirror, capfd: pytest.CaptureFixture[str]
) -> None:
    assert fetch(dataset, folder, mirrors=(mirror.address("403"), mirror.address("404"))) == PUBLISHED
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1
    assert "HTTP 403 Forbidden" in lines[0]
    assert "HTTP 404 Not Found" in lines[0]
    assert "bundled copy" in lines[0]


def test_source_download_fails_with_every_address_and_a_recipe(
    dataset: DatasetSource, folder: Path, mirror: FaultyMirror
) -> None:
    with pytest.raises(DatasetError) as caught:
        fetch(dataset, folder, "download", (mirror.address("403"), mirror.address("404")))
    message = str(caught.value)
    assert f"{mirror.address('403')}{NAMES[0]}.gz: HTTP 403 Forbidden" in message
    assert f"{mirror.address('404')}{NAMES[0]}.gz: HTTP 404 Not Found" in message
    assert all(f"{name}.gz" in message for name in NAMES)
    assert f"into {folder}" in message
    assert len(message.splitlines()) <= 5
    assert contents(folder) == {}


def test_source_bundled_asks_no_mirror_and_says_nothing(
    dataset: DatasetSource, folder: Path, mirror: FaultyMirror, capfd: pytest.CaptureFixture[str]
) -> None:
    assert fetch(dataset, folder, "bundled", (mirror.address(),)) == PUBLISHED
    assert not mirror.requests
    assert capfd.readouterr() == ("", "")


def test_the_mirrors_of_the_data_set_are_used_unless_others_are_given(
    dataset: DatasetSource, folder: Path, mirror: FaultyMirror
) -> None:
    dataset = replace(dataset, mirrors=(mirror.address(),))
    sources.fetch(dataset, folder.parents[1], source="download")
    assert contents(folder) == PUBLISHED


def test_a_damaged_bundled_copy_is_a_dataset_error(dataset: DatasetSource, folder: Path) -> None:
    assert dataset.bundled is not None
    (dataset.bundled / f"{NAMES[2]}.gz").write_bytes(b"damaged")
    with pytest.raises(DatasetError, match=rf"{NAMES[2]}\.gz: the bundled copy is damaged"):
        fetch(dataset, folder, "bundled")
    assert contents(folder) == {name: PUBLISHED[name] for name in NAMES[:2]}


def test_what_no_file_can_satisfy_is_a_usage_error(dataset: DatasetSource, folder: Path) -> None:
    for address in ("http://example.org/mnist/", "https:///mnist/", "https://[half/", "/mnist"):
        with pytest.raises(ConfigError, match="mirrors must be https addresses"):
            fetch(dataset, folder, mirrors=(address,))
    with pytest.raises(ConfigError, match="no bundled copy"):
        fetch(replace(dataset, bundled=None), folder, "bundled")


def test_a_progress_bar_shows_on_a_terminal(
    dataset: DatasetSource, folder: Path, mirror: FaultyMirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    fetch(dataset, folder, "download", (mirror.address(),))
    assert f"{NAMES[0]}.gz:   0%" in terminal.getvalue()


# Many processes, and the end of one


def start_fetch(
    dataset: DatasetSource, folder: Path, mirror: str = "", limit_bytes: int = 0
) -> subprocess.Popen[bytes]:
    """Run `fetch` in a process of its own, which exits with the error's exit code and prints its message."""
    script = """
import pickle, resource, sys
from mnist_lightning.data import download, sources
from mnist_lightning.errors import UserError
download.TIMEOUT_S = download.GRACE_S = 600  # eight processes may be slow to start on a busy machine
dataset, data_dir, mirrors, limit_bytes = pickle.load(sys.stdin.buffer)
if limit_bytes:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, limit_bytes))
try:
    sources.fetch(dataset, data_dir, source="download" if mirrors else "bundled", mirrors=mirrors)
except UserError as error:
    print(error)
    sys.exit(error.exit_code)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin is not None
    with process.stdin:
        pickle.dump((dataset, folder.parents[1], (mirror,) if mirror else (), limit_bytes), process.stdin)
    process.stdin = None  # for communicate
    return process


@pytest.mark.parametrize("damaged", [False, True])
def test_eight_processes_at_once_all_succeed(
    dataset: DatasetSource, folder: Path, mirror: FaultyMirror, damaged: bool
) -> None:
    if damaged:
        fill(folder, PUBLISHED | {NAMES[0]: flip_a_bit(PUBLISHED[NAMES[0]])})
    processes = [start_fetch(dataset, folder, mirror.address("together")) for _ in range(8)]
    outcomes = [(process.communicate(timeout=600), process.returncode) for process in processes]
    assert [code for _, code in outcomes] == [0] * 8, outcomes
    assert {name: content for name, content in contents(folder).items() if "damaged" not in name} == PUBLISHED
    # The mirror held every answer back until all eight had asked: none of them found the file already there.
    assert mirror.count("together", NAMES[0]) == 8


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
    assert fetch(dataset, folder, "download", (mirror.address(),)) == PUBLISHED | {part.name: part.read_bytes()}


def test_a_part_file_is_removed_when_it_is_an_hour_old(dataset: DatasetSource, folder: Path) -> None:
    fill(folder, {f"{NAMES[0]}.1.aa.part": b"running", f"{NAMES[0]}.2.bb.part": b"killed", "notes.part": b"not ours"})
    for name in (f"{NAMES[0]}.2.bb.part", "notes.part"):
        os.utime(folder / name, (time.time() - 3700,) * 2)
    os.utime(folder / f"{NAMES[0]}.1.aa.part", (time.time() - 3000,) * 2)
    assert fetch(dataset, folder, "bundled").keys() == {*NAMES, f"{NAMES[0]}.1.aa.part", "notes.part"}


def test_a_folder_that_cannot_be_made_is_a_storage_error(dataset: DatasetSource, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    with pytest.raises(StorageError, match=str(tmp_path / "data" / "Small")):
        sources.fetch(dataset, tmp_path / "data", source="bundled")


@pytest.mark.skipif(os.geteuid() == 0, reason="root can write anywhere")
def test_a_folder_that_cannot_be_written_is_a_storage_error(dataset: DatasetSource, folder: Path) -> None:
    folder.chmod(0o555)
    with pytest.raises(StorageError, match=str(folder)):
        sources.fetch(dataset, folder.parents[1], source="bundled")


def test_a_disk_that_takes_no_more_is_a_storage_error_and_leaves_no_part(dataset: DatasetSource, folder: Path) -> None:
    process = start_fetch(dataset, folder, limit_bytes=1000)
    message, _ = process.communicate(timeout=600)
    assert process.returncode == StorageError.exit_code == 5
    assert str(folder) in message.decode()
    assert contents(folder) == {}


def test_a_gzip_bomb_is_not_unpacked_beyond_the_published_size(dataset: DatasetSource, folder: Path) -> None:
    fill(folder, {f"{NAMES[0]}.gz": gzip.compress(bytes(2 << 20))})
    limit_bytes = len(PUBLISHED[NAMES[0]]) + 1
    process = start_fetch(dataset, folder, limit_bytes=limit_bytes)
    message, _ = process.communicate(timeout=600)
    assert process.returncode == 0, message


# MNIST itself


@pytest.fixture(scope="module")
def mnist_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data_dir = tmp_path_factory.mktemp("data")
    sources.fetch(MNIST, data_dir, source="bundled")
    return data_dir


def test_checksums_agree_in_the_code_in_the_list_and_on_disk(mnist_dir: Path) -> None:
    assert MNIST.bundled is not None
    lines = (MNIST.bundled / "SHA256SUMS").read_text().splitlines()
    listed = {name: digest for digest, name in (line.split("  ") for line in lines)}
    on_disk = [*MNIST.bundled.glob("*.gz"), *(mnist_dir / "MNIST" / "raw").iterdir()]
    assert listed == {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in on_disk}
    for file in MNIST.files:
        path = mnist_dir / "MNIST" / "raw" / file.name
        assert file.sha256 == listed[file.name]
        assert file.size == path.stat().st_size
        assert file.shape == shape_in_header(path.read_bytes())


def test_torchvision_reads_the_same_pixels_and_labels_from_the_folder(mnist_dir: Path) -> None:
    from torchvision import datasets  # it has no annotations

    from mnist_lightning.data import idx

    for prefix, train in (("train", True), ("t10k", False)):
        raw = mnist_dir / "MNIST" / "raw"
        images, labels = idx.read_split(raw / f"{prefix}-images-idx3-ubyte", raw / f"{prefix}-labels-idx1-ubyte")
        theirs = datasets.MNIST(mnist_dir, train=train, download=False)
        np.testing.assert_array_equal(images, theirs.data.numpy())
        np.testing.assert_array_equal(labels, theirs.targets.numpy())


def test_a_file_appears_under_its_name_whole(tmp_path: Path) -> None:
    path = tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte"
    path.parent.mkdir(parents=True)
    process = start_fetch(MNIST, path.parent)
    sizes = set()
    while process.poll() is None:
        with suppress(FileNotFoundError):
            sizes.add(path.stat().st_size)
    process.communicate()
    assert sizes <= {47_040_016}
    assert path.stat().st_size == 47_040_016


def test_mnist_has_the_published_class_counts(mnist_dir: Path) -> None:
    # LeCun et al., and every table of MNIST since.
    counts = {
        "train": [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949],
        "t10k": [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009],
    }
    for prefix, published in counts.items():
        labels = (mnist_dir / "MNIST" / "raw" / f"{prefix}-labels-idx1-ubyte").read_bytes()[8:]
        assert np.bincount(np.frombuffer(labels, np.uint8)).tolist() == published


def test_fetching_needs_neither_torch_nor_lightning() -> None:
    script = "import sys, mnist_lightning.data.sources; print([m for m in ('torch', 'lightning') if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", script], cwd=REPOSITORY, text=True) == "[]\n"
