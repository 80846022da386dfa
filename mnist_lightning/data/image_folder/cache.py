"""Decode the images of a folder once, into one file that all processes of a machine map into their memory.

A table of contents lies beside it. Both are made anew if an image was added, removed or changed (by its size and the
time of its last change), or if the file is corrupted.
"""

import csv
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray
from tqdm import tqdm

from mnist_lightning.atomic_write import remove_parts
from mnist_lightning.console import printable
from mnist_lightning.data.image_folder.index import ClassFolders
from mnist_lightning.errors import DatasetError, ImageError, StorageError
from mnist_lightning.images.reader import letterbox, read_image

IMAGES, TABLE, FAULTS = "images.npy", "pictures.csv", "unreadable.txt"
COLUMNS = ["image", "file", "class", "bytes", "modified_ns", "digest"]
HEADER_BYTES = 128  # of the .npy file, which NumPy pads
SHOWN = 3  # unreadable images in a message
PROGRESS_AFTER_S = 2.0
MAX_NAME_LENGTH = 50  # characters of the folder's name in the name of its cache, which has at most 255 bytes


@dataclass(frozen=True)
class Decoded:
    """The decoded images of a folder."""

    images: NDArray[np.uint8]  # (N, S, S) or (N, S, S, 3), mapped from a file: images that are not used take no memory
    digests: tuple[str, ...]  # a digest of the pixels of each, in hexadecimal: equal if all pixels are


def cache_folder(data_dir: Path, root: Path, size: int, channels: int) -> Path:
    """Return the folder for the decoded images of `root`, one for each size and number of channels."""
    path = os.path.realpath(root)  # Path.resolve raises for a link to itself
    digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:8]
    name = Path(path).name[:MAX_NAME_LENGTH]
    return data_dir / "pictures" / f"{name}-{digest}-{size}-{'grey' if channels == 1 else 'colour'}"


def decode(folders: ClassFolders, cache: Path, size: int, channels: int) -> None:
    """Make sure that the cache holds the images as they are now; any number of processes may call this at once.

    Images that cannot be read are a DatasetError: it names the first, and `unreadable.txt` in the cache names all.
    """
    if _is_intact(read_decoded(folders, cache, size, channels)):
        return  # even if the cache cannot be written
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with FileLock(cache / ".lock"):
            if not _is_intact(read_decoded(folders, cache, size, channels)):  # or another process was first
                _write(folders, cache, size, channels)
    except OSError as error:
        raise StorageError(f"{printable(str(cache))}: cannot be written: {error.strerror or error}") from error


def read_decoded(folders: ClassFolders, cache: Path, size: int, channels: int) -> Decoded | None:
    """Return the images in the cache; None if they are not those of the folder."""
    try:
        with (cache / TABLE).open(encoding="utf-8", errors="surrogateescape", newline="") as table:
            columns, *rows = csv.reader(table)
        if columns != COLUMNS or [row[:-1] for row in rows] != _table_rows(folders):
            return None
        # "c": torch warns about read-only memory.
        shape = _shape(len(rows), size, channels)
        images = np.memmap(cache / IMAGES, np.uint8, "c", HEADER_BYTES, shape)
    except (OSError, ValueError, csv.Error):
        return None
    return Decoded(images, tuple(row[-1] for row in rows))


def _shape(count: int, size: int, channels: int) -> tuple[int, ...]:
    return (count, size, size) if channels == 1 else (count, size, size, channels)


def _is_intact(decoded: Decoded | None) -> bool:
    """Return whether the pixels of each image have the digest in the table."""
    return decoded is not None and all(map(str.__eq__, map(_digest, decoded.images), decoded.digests))


def _table_rows(folders: ClassFolders) -> list[list[str]]:
    """Return the table of contents without the digests."""
    rows = []
    for index, (file, label) in enumerate(zip(folders.files, folders.labels.tolist(), strict=True)):
        path = folders.root / file
        status = path.stat() if path.exists() else path.lstat()  # a broken link is reported when it is decoded
        rows.append([str(index), file, folders.class_names[label], str(status.st_size), str(status.st_mtime_ns)])
    return rows


def _write(folders: ClassFolders, cache: Path, size: int, channels: int) -> None:
    """Write the file of all images, holding one at a time in memory, and then the table."""
    remove_parts(cache)
    for stale in (TABLE, FAULTS):  # they describe other images
        (cache / stale).unlink(missing_ok=True)
    rows = _table_rows(folders)
    part = cache / f".{IMAGES}.part"
    try:
        with part.open("wb") as file:
            shape = _shape(len(rows), size, channels)
            np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
            for row, image in zip(rows, _decoded_images(folders, cache, size, channels), strict=True):
                row.append(_digest(image))
                file.write(image.tobytes())
            file.flush()
            os.fsync(file.fileno())
        part.replace(cache / IMAGES)
        with part.open("w", encoding="utf-8", errors="surrogateescape", newline="") as table:
            writer = csv.writer(table, lineterminator="\n", quoting=csv.QUOTE_ALL)  # or a bare "\r" would end a row
            writer.writerows([COLUMNS, *rows])
        part.replace(cache / TABLE)
    finally:
        part.unlink(missing_ok=True)


def _decoded_images(folders: ClassFolders, cache: Path, size: int, channels: int) -> Iterator[NDArray[np.uint8]]:
    faults: list[str] = []
    # `disable=None` shows the bar if stderr is a terminal.
    for file in tqdm(folders.files, f"decoding {folders.name}", unit="image", delay=PROGRESS_AFTER_S, disable=None):
        try:
            image = read_image(folders.root / file)
        except ImageError as error:
            faults.append(str(error))
            continue
        if not faults:
            yield letterbox(image, size, channels)
    if faults:
        (cache / FAULTS).write_text("".join(f"{fault}\n" for fault in faults))
        lines = [f"{len(faults):,} of {len(folders.files):,} images cannot be read; replace or remove them"]
        lines += faults[:SHOWN]
        if len(faults) > SHOWN:
            lines.append(f"(and {len(faults) - SHOWN:,} more: {printable(str(cache / FAULTS))})")
        raise DatasetError("\n".join(lines))


def _digest(image: NDArray[np.uint8]) -> str:
    return hashlib.blake2b(image.tobytes(), digest_size=16).hexdigest()
