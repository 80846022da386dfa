"""The cache of decoded images: made once, and made anew if it does not match the folder."""

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mnist_lightning import PictureFolderDataModule
from mnist_lightning.data.image_folder import cache
from mnist_lightning.errors import DatasetError, StorageError
from mnist_lightning.images.reader import read_image
from tests.data.image_folder.small_images import ready, write_classes


def count_decoding(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list to which the name of every image is added when it is decoded."""
    decoded: list[str] = []

    def counted(path: Path) -> Image.Image:
        decoded.append(path.name)
        return read_image(path)

    monkeypatch.setattr(cache, "read_image", counted)
    return decoded


def test_images_are_decoded_once_and_again_after_a_change(shapes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = count_decoding(monkeypatch)
    first = ready(shapes).decoded.images
    assert len(decoded) == 60
    ready(shapes)
    assert len(decoded) == 60
    os.utime(shapes / "circle" / "0.png", ns=(0, 0))
    ready(shapes)
    assert len(decoded) == 120
    (shapes / "circle" / "0.png").unlink()
    assert len(ready(shapes).decoded.images) == 59
    assert ready(shapes, size=28).decoded.images.shape == (59, 28, 28, 3)
    assert isinstance(first, np.memmap)


FOREIGN = {  # instead of the file of images
    "empty": b"",
    "zip": b"PK\x03\x04 of several arrays",
    "pickle": b"\x80\x04N.",
    "nested": b"\x93NUMPY\x01\x00\x28\x23" + b"(" * 9000,
    "huge": b"\x93NUMPY\x01\x00\x46\x00{'descr': '|u1', 'fortran_order': False, 'shape': (1" + b"0" * 17 + b",)}\n",
}


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove", "table", *FOREIGN])
def test_a_corrupted_cache_is_made_anew(shapes: Path, damage: str) -> None:
    data = ready(shapes)
    images, table = data.cache / cache.IMAGES, data.cache / cache.TABLE
    before = {path: hashlib.sha256(path.read_bytes()).digest() for path in (images, table)}
    content = bytearray(images.read_bytes())
    if damage == "flip":
        content[5000] ^= 1
        images.write_bytes(content)
    elif damage == "truncate":
        images.write_bytes(content[:5000])
    elif damage == "remove":
        images.unlink()
    elif damage in FOREIGN:
        images.write_bytes(FOREIGN[damage])
    else:
        table.write_text(table.read_text().replace("circle", "square", 1))
    ready(shapes)
    assert {path: hashlib.sha256(path.read_bytes()).digest() for path in (images, table)} == before


def test_an_intact_cache_is_read_from_a_read_only_disk(shapes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(file: Path) -> None:
        raise OSError(30, "Read-only file system")

    ready(shapes)
    monkeypatch.setattr(cache, "FileLock", refuse)
    assert len(ready(shapes).decoded.images) == 60
    with pytest.raises(StorageError, match="Read-only file system"):
        ready(shapes, size=28)


def test_file_names_may_hold_quotes_commas_and_line_breaks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_classes(tmp_path / "mine", 3, ('a "b", c', "line\rline\nline"))
    (root / 'a "b", c' / "0.png").rename(root / 'a "b", c' / "\udcff\r.png")
    decoded = count_decoding(monkeypatch)
    for _ in range(2):
        assert len(ready(root).folders.files) == 6
    assert len(decoded) == 6


def test_a_folder_may_have_the_longest_name_that_the_disk_allows(tmp_path: Path) -> None:
    assert len(ready(write_classes(tmp_path / ("ü" * 127), 3)).decoded.images) == 6


def test_a_full_disk_leaves_no_incomplete_cache(shapes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refuse)
        with pytest.raises(StorageError, match="No space left on device"):
            ready(shapes)
    data = ready(shapes)
    assert {path.name for path in data.cache.iterdir()} == {".lock", "images.npy", "pictures.csv"}


def test_all_unreadable_images_are_named(shapes: Path) -> None:
    for number in range(5):
        (shapes / "square" / f"bad{number}.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    data = PictureFolderDataModule(str(shapes), data_dir=str(shapes.parent / "data"))
    with pytest.raises(DatasetError, match="5 of 65 images cannot be read") as caught:
        data.prepare_data()
    lines = str(caught.value).splitlines()
    assert len(lines) == 5
    assert all(f"bad{number}.png: not a PNG" in lines[1 + number] for number in range(3))
    named = (data.cache / cache.FAULTS).read_text()
    assert lines[4] == f"(and 2 more: {data.cache / cache.FAULTS})"
    assert all(f"bad{number}.png" in named for number in range(5))
    for bad in (shapes / "square").glob("bad*"):
        bad.unlink()
    ready(shapes)
    assert not (data.cache / cache.FAULTS).exists()
