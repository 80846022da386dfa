"""Decode the pictures of a folder once, into one file that all processes of a machine map into their memory.

Beside it lies a table of what it holds. A picture that was added, removed or changed, by its size and the time of its
last change, makes both anew; so does damage to the file.
"""

import csv
import hashlib
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray
from tqdm import tqdm

from mnist_lightning.atomic_write import remove_parts, replace_file
from mnist_lightning.console import printable
from mnist_lightning.data.image_folder.index import ClassFolders
from mnist_lightning.errors import DatasetError, ImageError, StorageError
from mnist_lightning.images.letterbox import letterbox
from mnist_lightning.images.reader import read_image

IMAGES, TABLE, FAULTS = "images.npy", "pictures.csv", "unreadable.txt"
COLUMNS = ("image", "file", "class", "bytes", "modified_ns", "digest")
SHOWN = 3  # unreadable pictures in a message
PROGRESS_AFTER_S = 2.0
MOST_OF_A_NAME = 50  # characters of a folder's name in its cache's: 255 bytes are what a file system takes


@dataclass(frozen=True)
class Decoded:
    """The pictures of a folder, decoded.

    Args:
        images: uint8 (N, S, S) or (N, S, S, 3), mapped from a file: what is not looked at takes no memory.
        digests: A digest of the pixels of each, in hexadecimal: equal where all pixels are.
    """

    images: NDArray[np.uint8]
    digests: tuple[str, ...]


def cache_folder(data_dir: Path, root: Path, size: int, channels: int) -> Path:
    """Return the folder for the decoded pictures of a folder, in one form: of its own for each of the three."""
    path = os.path.realpath(root)  # Path.resolve raises for a link to itself
    place = hashlib.sha256(os.fsencode(path)).hexdigest()[:8]
    name = Path(path).name[:MOST_OF_A_NAME]
    return data_dir / "pictures" / f"{name}-{place}-{size}-{'grey' if channels == 1 else 'colour'}"


def decode(folders: ClassFolders, cache: Path, size: int, channels: int) -> None:
    """See that the cache holds the pictures as they are now, whichever process comes first.

    Raises:
        DatasetError: If a picture cannot be read; the first are named, and all in `unreadable.txt` in the cache.
        StorageError: If the cache cannot be written.
    """
    if _is_whole(_read(folders, cache, size, channels)):
        return  # even where it cannot be written
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with FileLock(cache / ".lock"):
            rows = _rows(folders)
            if _is_whole(_read(folders, cache, size, channels)):  # another process was first
                return
            remove_parts(cache)
            for stale in (TABLE, FAULTS):  # they tell of other images
                (cache / stale).unlink(missing_ok=True)
            digests = _write_images(folders, cache, size, channels)
            text = io.StringIO()
            writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL)  # or a bare "\r" would end a row
            writer.writerow(COLUMNS)
            writer.writerows((*row, digest) for row, digest in zip(rows, digests, strict=True))
            replace_file(cache / TABLE, text.getvalue().encode("utf-8", "surrogateescape"))
    except OSError as error:
        raise StorageError(f"{printable(str(cache))}: cannot be written: {error.strerror or error}") from error


def read_decoded(folders: ClassFolders, cache: Path, size: int, channels: int) -> Decoded:
    """Return what the cache holds of the pictures.

    Raises:
        DatasetError: If it does not hold them as they are now.
    """
    decoded = _read(folders, cache, size, channels)
    if decoded is None:
        raise DatasetError(f"{printable(str(folders.root))} changed while its pictures were read; start again")
    return decoded


def _read(folders: ClassFolders, cache: Path, size: int, channels: int) -> Decoded | None:
    """Return what the cache holds; None where that is not what the folder holds now."""
    try:
        with (cache / TABLE).open(encoding="utf-8", errors="surrogateescape", newline="") as table:
            columns, *rows = csv.reader(table)
        if tuple(columns) != COLUMNS or [tuple(row[:-1]) for row in rows] != _rows(folders):
            return None
        shape = _shape(len(rows), size, channels)
        header = _header(shape)
        with (cache / IMAGES).open("rb") as file:
            if file.read(len(header)) != header:  # and nobody parses what a stranger wrote in its place
                return None
            # "c": torch warns of what is read-only.
            images: NDArray[np.uint8] = np.memmap(file, np.uint8, "c", len(header), shape)
    except (OSError, ValueError, csv.Error):
        return None
    return Decoded(images, tuple(row[-1] for row in rows))


def _shape(count: int, size: int, channels: int) -> tuple[int, ...]:
    return (count, size, size) if channels == 1 else (count, size, size, channels)


def _header(shape: tuple[int, ...]) -> bytes:
    """Return what the file of images of this shape begins with."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return header.getvalue()


def _is_whole(decoded: Decoded | None) -> bool:
    """Return whether the images are what the table says of each."""
    if decoded is None:
        return False
    return all(_digest(image) == digest for image, digest in zip(decoded.images, decoded.digests, strict=True))


def _rows(folders: ClassFolders) -> list[tuple[str, ...]]:
    """Return what the table says of each picture, but for its digest."""
    rows: list[tuple[str, ...]] = []
    for place, (file, label) in enumerate(zip(folders.files, folders.labels.tolist(), strict=True)):
        try:
            status = (folders.root / file).stat()
            facts = (str(status.st_size), str(status.st_mtime_ns))
        except OSError:
            facts = ("", "")  # whoever decodes it will say so
        rows.append((str(place), file, folders.class_names[label], *facts))
    return rows


def _write_images(folders: ClassFolders, cache: Path, size: int, channels: int) -> list[str]:
    """Write the file of all images, one after the other: memory holds a single one."""
    digests: list[str] = []
    part = cache / f".{IMAGES}.part"
    try:
        with part.open("wb") as file:
            file.write(_header(_shape(len(folders.files), size, channels)))
            for image in _images(folders, cache, size, channels):
                digests.append(_digest(image))
                file.write(image.tobytes())
            file.flush()
            os.fsync(file.fileno())
        part.replace(cache / IMAGES)
    finally:
        part.unlink(missing_ok=True)
    return digests


def _images(folders: ClassFolders, cache: Path, size: int, channels: int) -> Iterator[NDArray[np.uint8]]:
    faults: list[str] = []
    # `disable=None` means: unless stderr is a terminal.
    title = f"decoding {printable(str(folders.root))}"
    bar = tqdm(folders.files, title, unit="picture", delay=PROGRESS_AFTER_S, disable=None)
    for file in bar:
        try:
            picture = read_image(folders.root / file)
        except ImageError as error:
            faults.append(str(error))
            continue
        if not faults:
            yield letterbox(picture, size, channels)
    if faults:
        replace_file(cache / FAULTS, "".join(f"{fault}\n" for fault in faults).encode())
        more = f"\n(and {len(faults) - SHOWN:,} more: {printable(str(cache / FAULTS))})" if len(faults) > SHOWN else ""
        raise DatasetError(
            f"{len(faults):,} of {len(folders.files):,} pictures cannot be read; mend or remove them\n"
            + "\n".join(faults[:SHOWN])
            + more
        )


def _digest(image: NDArray[np.uint8]) -> str:
    return hashlib.blake2b(image.tobytes(), digest_size=16).hexdigest()
