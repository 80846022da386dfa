"""The data folder before and after fetching: damaged files, the user's own files, MNIST itself."""

import gzip
import hashlib
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from mnist_lightning.data.mnist import fetch
from mnist_lightning.data.mnist.registry import MNIST, DatasetSource
from mnist_lightning.errors import DatasetError, StorageError
from tests.data.mnist.mirror import FaultyMirror
from tests.data.small import (
    NAMES,
    OWN,
    PACKED,
    PUBLISHED,
    REPOSITORY,
    contents,
    fetch_mnist,
    fill,
    flip_a_bit,
    idx_bytes,
    shape_in_header,
    start_fetch,
)

# What is in the folder


@pytest.mark.parametrize("source", ["auto", "download", "bundled", "files"])
def test_a_complete_folder_is_left_unchanged_and_nothing_is_printed(
    dataset: DatasetSource, folder: Path, source: fetch.Source, capfd: pytest.CaptureFixture[str]
) -> None:
    fill(folder, PUBLISHED)
    folder.chmod(0o555)
    before = [(path, path.stat()) for path in (folder, *sorted(folder.iterdir()))]
    assert fetch_mnist(dataset, folder, source) == PUBLISHED
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
    assert fetch_mnist(dataset, folder, "download") == PUBLISHED | packed
    assert capfd.readouterr() == ("", "")


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
    assert fetch_mnist(dataset, folder, "bundled") == PUBLISHED | {f"{name}.damaged": damaged}
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1
    assert str(folder / name) in lines[0]
    assert f"{name}.damaged" in lines[0]


def test_a_second_damaged_file_does_not_overwrite_the_first(dataset: DatasetSource, folder: Path) -> None:
    fill(folder, PUBLISHED | {NAMES[1]: b"third", f"{NAMES[1]}.damaged": b"first", f"{NAMES[1]}.damaged-1": b"second"})
    assert fetch_mnist(dataset, folder, "bundled") == PUBLISHED | {
        f"{NAMES[1]}.damaged": b"first",
        f"{NAMES[1]}.damaged-1": b"second",
        f"{NAMES[1]}.damaged-2": b"third",
    }


@pytest.mark.parametrize("packed", [b"garbage", PACKED[f"{NAMES[0]}.gz"][:-9], gzip.compress(bytes(50 << 20))])
def test_a_damaged_gz_is_kept_aside_and_not_unpacked(
    dataset: DatasetSource, folder: Path, packed: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    fill(folder, {f"{NAMES[0]}.gz": packed})
    assert fetch_mnist(dataset, folder, "bundled") == PUBLISHED | {f"{NAMES[0]}.gz.damaged": packed}
    assert f"{NAMES[0]}.gz is damaged" in capfd.readouterr().err


def test_a_good_gz_replaces_a_damaged_raw_file(dataset: DatasetSource, folder: Path) -> None:
    fill(folder, PUBLISHED | {NAMES[0]: b"bad", f"{NAMES[0]}.gz": PACKED[f"{NAMES[0]}.gz"]})
    assert fetch_mnist(dataset, folder, "download")[NAMES[0]] == PUBLISHED[NAMES[0]]


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to(path.name)])
def test_anything_but_a_regular_file_is_moved_aside(
    dataset: DatasetSource, folder: Path, make: Callable[[Path], None]
) -> None:
    make(folder / NAMES[0])
    fetch.fetch(dataset, folder.parents[1], source="bundled")
    assert (folder / NAMES[0]).read_bytes() == PUBLISHED[NAMES[0]]
    assert os.path.lexists(folder / f"{NAMES[0]}.damaged")


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_file_placed_with_a_dot_before_idx_is_used(dataset: DatasetSource, folder: Path, suffix: str) -> None:
    files = PACKED if suffix else PUBLISHED
    fill(folder, {name.replace("-idx", ".idx"): content for name, content in files.items()})
    assert fetch_mnist(dataset, folder, "download") == PUBLISHED | files


# The user's own files


@pytest.mark.parametrize("packed", [False, True])
def test_own_files_are_used_as_they_are_and_one_line_reports_it(
    dataset: DatasetSource, folder: Path, mirror: FaultyMirror, packed: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    placed = {f"{name}.gz": gzip.compress(content) for name, content in OWN.items()} if packed else OWN
    fill(folder, placed)
    assert fetch_mnist(dataset, folder, mirrors=(mirror.address(),)) == placed | OWN
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1
    assert "your own" in lines[0]
    assert not mirror.requests


@pytest.mark.parametrize("missing", NAMES)
@pytest.mark.parametrize("source", ["auto", "files"])
def test_a_missing_own_file_is_reported_and_not_fetched(
    dataset: DatasetSource, folder: Path, missing: str, source: fetch.Source
) -> None:
    placed = {name: content for name, content in OWN.items() if name != missing}
    fill(folder, placed)
    with pytest.raises(DatasetError, match=f"{missing}: missing"):
        fetch_mnist(dataset, folder, source)
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
def test_invalid_own_files_are_rejected_and_kept(
    dataset: DatasetSource, folder: Path, name: str, content: bytes, message: str, source: fetch.Source
) -> None:
    placed = OWN | {name: content}
    fill(folder, placed)
    with pytest.raises(DatasetError, match=f"{name}: .*{message}"):
        fetch_mnist(dataset, folder, source)
    assert contents(folder) == placed


@pytest.mark.parametrize("packed", [gzip.compress(OWN[NAMES[0]])[:-9], gzip.compress(OWN[NAMES[0]] + bytes(9)), b"?"])
def test_an_invalid_own_gz_is_rejected_and_kept(dataset: DatasetSource, folder: Path, packed: bytes) -> None:
    placed = {name: content for name, content in OWN.items() if name != NAMES[0]} | {f"{NAMES[0]}.gz": packed}
    fill(folder, placed)
    with pytest.raises(DatasetError, match=rf"{NAMES[0]}\.gz: "):
        fetch_mnist(dataset, folder)
    assert contents(folder) == placed


def test_source_files_takes_files_without_a_checksum(dataset: DatasetSource, folder: Path) -> None:
    placed = PUBLISHED | {NAMES[0]: flip_a_bit(PUBLISHED[NAMES[0]])}
    fill(folder, placed)
    assert fetch_mnist(dataset, folder, "files") == placed


# What cannot be written


def test_a_folder_that_cannot_be_made_is_a_storage_error(dataset: DatasetSource, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    with pytest.raises(StorageError, match=str(tmp_path / "data" / "Small")):
        fetch.fetch(dataset, tmp_path / "data", source="bundled")


@pytest.mark.skipif(os.geteuid() == 0, reason="root can write anywhere")
def test_a_folder_that_cannot_be_written_is_a_storage_error(dataset: DatasetSource, folder: Path) -> None:
    folder.chmod(0o555)
    with pytest.raises(StorageError, match=str(folder)):
        fetch.fetch(dataset, folder.parents[1], source="bundled")


def test_a_full_disk_is_a_storage_error_and_leaves_no_part_file(dataset: DatasetSource, folder: Path) -> None:
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
    fetch.fetch(MNIST, data_dir, source="bundled")
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

    from mnist_lightning.data.mnist import idx

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
    script = (
        "import sys, mnist_lightning.data.mnist.fetch; print([m for m in ('torch', 'lightning') if m in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", script], cwd=REPOSITORY, text=True) == "[]\n"
