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

from mnist_lightning.data.class_folders import ClassFolders
from mnist_lightning.data.picture_files import read_picture
from mnist_lightning.data.picture_form import in_form
from mnist_lightning.durable import remove_parts, replace_file
from mnist_lightning.errors import DatasetError, PictureError, StorageError
from mnist_lightning.terminal import printable

IMAGES, TABLE, FAULTS = "images.npy", "pictures.csv", "unreadable.txt"
COLUMNS = ("image", "file", "class", "bytes", "modified_ns", "digest")
SHOWN = 3  # unreadable pictures in a message
PROGRESS_AFTER_S = 2.0


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
    place = hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:8]
    return data_dir / "pictures" / f"{root.resolve().name}-{place}-{size}-{'grey' if channels == 1 else 'colour'}"


def decode(folders: ClassFolders, cache: Path, size: int, channels: int) -> None:
    """See that the cache holds the pictures as they are now, whichever process comes first.

    Raises:
        DatasetError: If a picture cannot be read; the first are named, and all in `unreadable.txt` in the cache.
        StorageError: If the cache cannot be written.
    """
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with FileLock(cache / ".lock"):
            rows = _rows(folders)
            if _is_whole(_read(folders, cache, size, channels)):
                return
            remove_parts(cache)
            for stale in (TABLE, FAULTS):  # they tell of other images
                (cache / stale).unlink(missing_ok=True)
            digests = _write_images(folders, cache, size, channels)
            text = io.StringIO()
            writer = csv.writer(text, lineterminator="\n")
            writer.writerow(COLUMNS)
            writer.writerows((*row, digest) for row, digest in zip(rows, digests, strict=True))
            replace_file(cache / TABLE, text.getvalue().encode("utf-8", "surrogateescape"))
    except OSError as error:
        raise StorageError(f"{cache}: cannot be written: {error.strerror or error}") from error


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
        with (cache / TABLE).open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            header, *rows = csv.reader(file)
        if tuple(header) != COLUMNS or [tuple(row[:-1]) for row in rows] != _rows(folders):
            return None
        images = np.load(cache / IMAGES, mmap_mode="c", allow_pickle=False)  # "c": torch warns of what is read-only
    except (OSError, ValueError, csv.Error):
        return None
    shape = (len(rows), size, size) if channels == 1 else (len(rows), size, size, channels)
    return Decoded(images, tuple(row[-1] for row in rows)) if _has_form(images, shape) else None


def _has_form(images: NDArray[np.uint8], shape: tuple[int, ...]) -> bool:
    return images.dtype == np.uint8 and images.shape == shape and images.flags.c_contiguous


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
    shape = (size, size) if channels == 1 else (size, size, channels)
    try:
        with part.open("wb") as file:
            header = {"descr": "|u1", "fortran_order": False, "shape": (len(folders.files), *shape)}
            np.lib.format.write_array_header_1_0(file, header)
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
    bar = tqdm(folders.files, f"decoding {folders.root}", unit="picture", delay=PROGRESS_AFTER_S, disable=None)
    for file in bar:
        try:
            picture = read_picture(folders.root / file)
        except PictureError as error:
            faults.append(str(error))
            continue
        if not faults:
            yield in_form(picture, size, channels)
    if faults:
        replace_file(cache / FAULTS, "".join(f"{fault}\n" for fault in faults).encode())
        more = f"\n(and {len(faults) - SHOWN:,} more: {cache / FAULTS})" if len(faults) > SHOWN else ""
        raise DatasetError(
            f"{len(faults):,} of {len(folders.files):,} pictures cannot be read; mend or remove them\n"
            + "\n".join(faults[:SHOWN])
            + more
        )


def _digest(image: NDArray[np.uint8]) -> str:
    return hashlib.blake2b(image.tobytes(), digest_size=16).hexdigest()
