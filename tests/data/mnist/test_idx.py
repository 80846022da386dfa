import os
import struct
import warnings
from pathlib import Path
from resource import RUSAGE_SELF, getrusage

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from mnist_lightning.data.mnist import idx
from mnist_lightning.errors import DatasetError


def idx_bytes(array: NDArray[np.uint8]) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def random_array(*shape: int, below: int = 256) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, below, shape, dtype=np.uint8)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "file-ubyte"


def test_images_are_the_bytes_of_the_file(path: Path) -> None:
    images = random_array(3, 4, 5)
    path.write_bytes(idx_bytes(images))
    read = idx.read_images(path)
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, images)


def test_labels_are_the_bytes_of_the_file_as_int64(path: Path) -> None:
    labels = random_array(7, below=10)
    path.write_bytes(idx_bytes(labels))
    read = idx.read_labels(path)
    assert read.dtype == np.int64
    np.testing.assert_array_equal(read, labels)


def test_images_are_mapped_not_read(path: Path) -> None:
    with open(path, "wb") as file:
        file.write(bytes([0, 0, 8, 3]) + struct.pack(">3I", 1 << 18, 32, 32))
        file.truncate(16 + (1 << 28))  # sparse: 256 MiB that no disk holds
    peak_before_kib = getrusage(RUSAGE_SELF).ru_maxrss
    assert idx.read_images(path).shape == (1 << 18, 32, 32)
    assert getrusage(RUSAGE_SELF).ru_maxrss - peak_before_kib < 32 * 1024


def test_torch_takes_the_images_without_a_warning_and_writing_leaves_the_file_alone(path: Path) -> None:
    path.write_bytes(idx_bytes(random_array(3, 4, 5)))
    before = path.read_bytes()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        images = torch.from_numpy(idx.read_images(path))
    images.zero_()
    assert path.read_bytes() == before


def test_write_makes_the_published_format(path: Path) -> None:
    array = random_array(6, 4, 3).transpose(2, 1, 0)  # not contiguous
    idx.write(path, array)
    assert path.read_bytes() == idx_bytes(array)
    assert idx.read_images(path).shape == (3, 4, 6)
    assert idx.file_size((3, 4, 6)) == path.stat().st_size


@pytest.mark.parametrize(
    "array",
    [np.zeros(3), np.zeros((2, 0), np.uint8), np.uint8(1) + np.zeros((), np.uint8)],
    ids=["float", "empty", "no-dimension"],
)
def test_write_refuses_what_could_not_be_read_again(path: Path, array: NDArray[np.uint8]) -> None:
    with pytest.raises(ValueError, match="array must be uint8"):
        idx.write(path, array)
    assert not path.exists()


IMAGES = idx_bytes(random_array(3, 4, 5))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"\0\0", "ends at byte 2, inside the header"),
        (IMAGES[:9], "ends at byte 9, inside the header"),
        (b"\1" + IMAGES[1:], "0x0100 at byte 0"),
        (b"\1", "0x01 at byte 0"),
        (b"\x1f\x8b\x08\0" + IMAGES, "gzip"),
        (b"<!DOCTYPE html>", "HTML"),
        (b"\r\n<html>", "HTML"),
        (IMAGES[:2] + b"\x0d" + IMAGES[3:], "0x0d at byte 2"),
        (IMAGES[:3] + b"\0" + IMAGES[4:], "0 dimensions at byte 3"),
        (IMAGES[:3] + b"\xff" + b"\1" * 2000, "255 dimensions at byte 3"),
        (IMAGES[:3] + b"\2" + IMAGES[4:], "2 dimensions at byte 3 instead of 3"),
        (IMAGES[:8] + bytes(4) + IMAGES[12:], "dimension 1 at byte 8 is 0"),
        (IMAGES[:-1], "too short: 3 x 4 x 5 items need 76 bytes, the file has 75"),
        (IMAGES + b"\0", "other bytes: 3 x 4 x 5 items need 76 bytes, the file has 77"),
        (IMAGES[:4] + b"\xff" * 12, f"need {16 + (2**32 - 1) ** 3} bytes, the file has 16"),
    ],
)
def test_a_malformed_file_is_refused_with_name_and_reason(path: Path, content: bytes, message: str) -> None:
    path.write_bytes(content)
    with pytest.raises(DatasetError) as caught:
        idx.read_images(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_label_out_of_range_is_reported_with_its_position(path: Path) -> None:
    labels = random_array(2000, below=10)
    labels[1226] = 200
    path.write_bytes(idx_bytes(labels))
    with pytest.raises(DatasetError, match=r"label 200 at byte 1234 \(item 1226\) is outside 0\.\.9"):
        idx.read_labels(path)


def test_the_highest_label_is_the_number_of_classes_less_one(path: Path) -> None:
    path.write_bytes(idx_bytes(np.array([0, 46], np.uint8)))
    assert idx.read_labels(path, num_classes=47).tolist() == [0, 46]
    with pytest.raises(DatasetError, match=r"label 46 at byte 9 \(item 1\) is outside 0\.\.45"):
        idx.read_labels(path, num_classes=46)


def test_a_split_needs_as_many_labels_as_images(tmp_path: Path) -> None:
    images_path, labels_path = tmp_path / "images", tmp_path / "labels"
    images_path.write_bytes(IMAGES)
    labels_path.write_bytes(idx_bytes(np.zeros(3, np.uint8)))
    images, labels = idx.read_split(images_path, labels_path)
    assert (len(images), len(labels)) == (3, 3)
    labels_path.write_bytes(idx_bytes(np.zeros(4, np.uint8)))
    with pytest.raises(DatasetError, match=r"4 labels at byte 4, but .*images has 3 images"):
        idx.read_split(images_path, labels_path)


def test_what_is_not_a_file_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to("loop")
    for name in ("fifo", "loop", "missing", "."):
        with pytest.raises(DatasetError, match=r"regular file|cannot be read|does not exist"):
            idx.read_images(tmp_path / name)


@pytest.mark.skipif(os.geteuid() == 0, reason="root can read any file")
def test_an_unreadable_file_is_refused(path: Path) -> None:
    path.write_bytes(IMAGES)
    path.chmod(0)
    with pytest.raises(DatasetError, match="Permission denied"):
        idx.read_images(path)


def test_random_damage_to_a_header_gives_the_array_or_a_dataset_error(path: Path) -> None:
    rng = np.random.default_rng(0)
    refusals = []
    for _ in range(300):
        content = bytearray(IMAGES)
        content[rng.integers(16)] = rng.integers(256)
        path.write_bytes(content[: rng.integers(8, 77)] if rng.integers(2) else content)
        try:
            read = idx.read_images(path).tobytes()
        except DatasetError as error:
            refusals.append(str(error))
        else:
            assert read == IMAGES[16:]
    assert all(line.startswith(f"{path}: ") and "\n" not in line for line in refusals)
    assert len(refusals) > 200
